"""The search index: a memory's frames, found by words, by vectors, or by both."""

from .filters import Filters
from .inserts import Batch
from .results import Found, IndexedFrame, Place
from .saved_pages import Dump
from .search_index import DamagedSearchIndexError, InterruptedFindError, SearchIndex

__all__ = [
    "Batch",
    "DamagedSearchIndexError",
    "Dump",
    "Filters",
    "Found",
    "IndexedFrame",
    "InterruptedFindError",
    "Place",
    "SearchIndex",
]
