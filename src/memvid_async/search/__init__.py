"""The search index: a memory's frames, found by words, by vectors, or by both."""

from .filters import Filters
from .inserts import Batch
from .results import Found, FramePlace, IndexedFrame
from .saved_pages import Dump
from .search_index import DamagedSearchIndexError, InterruptedFindError, SearchIndex

__all__ = [
    "Batch",
    "DamagedSearchIndexError",
    "Dump",
    "Filters",
    "Found",
    "FramePlace",
    "IndexedFrame",
    "InterruptedFindError",
    "SearchIndex",
]
