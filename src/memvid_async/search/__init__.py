"""The memory's projection: frames by words, by vectors, and by both."""

from .inserts import Batch
from .pages import Dump
from .results import Filters, Found, IndexedFrame, Mode, Place
from .search_index import DamagedSearchIndexError, InterruptedFindError, SearchIndex

__all__ = [
    "Batch",
    "DamagedSearchIndexError",
    "Dump",
    "Filters",
    "Found",
    "IndexedFrame",
    "InterruptedFindError",
    "Mode",
    "Place",
    "SearchIndex",
]
