"""Where a store's bytes live."""

from .disk import FileStorage
from .protocol import Storage
from .ram import RamStorage

__all__ = ["FileStorage", "RamStorage", "Storage"]
