"""Where a store's bytes live."""

from .base import Storage
from .file import FileStorage
from .memory import MemoryStorage

__all__ = ["FileStorage", "MemoryStorage", "Storage"]
