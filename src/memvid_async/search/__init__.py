"""The search index: a memory's frames, found by words, by vectors, or by both."""

from .filters import Filters
from .inserts import Batch
from .key_index import Change, KeptItem, KeptKey, KeyIndex
from .results import Found, FramePlace, IndexedFrame
from .saved_database import DamagedSearchIndexError
from .saved_pages import Dump
from .schema import OtherReleaseError
from .search_index import InterruptedFindError, SearchIndex
from .snippets import Snippets

__all__ = [
    "Batch",
    "Change",
    "DamagedSearchIndexError",
    "Dump",
    "Filters",
    "Found",
    "FramePlace",
    "IndexedFrame",
    "InterruptedFindError",
    "KeptItem",
    "KeptKey",
    "KeyIndex",
    "OtherReleaseError",
    "SearchIndex",
    "Snippets",
]
