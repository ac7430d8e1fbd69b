"""Where a store's bytes live: the contract, and its implementations on disk and in memory."""

from .disk import FileStorage
from .protocol import Storage
from .ram import RamStorage

__all__ = ["FileStorage", "RamStorage", "Storage"]
