"""The memory's projection: frames by words, by vectors, and by both."""

from .index import DamagedIndexError, InterruptedFindError, MemoryIndex
from .inserts import Batch
from .pages import Dump
from .rows import Filters, Found, FrameRow, Mode, Place

__all__ = [
    "Batch",
    "DamagedIndexError",
    "Dump",
    "Filters",
    "Found",
    "FrameRow",
    "InterruptedFindError",
    "MemoryIndex",
    "Mode",
    "Place",
]
