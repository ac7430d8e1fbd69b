"""What a compaction saves of projections in the file that it writes."""

from __future__ import annotations

from ..engine.event_log import Folded, View
from ..errors import MemvidAsyncError
from ..memory.folded import MEMORY, FoldedMemory
from ..memory.folded_keys import fold_keys

# The memory is saved when it took this many events to fold, however little text they left.
_WORTH_EVENTS = 1024


def fold_projections(view: View) -> list[Folded]:
    """Fold the projections of a view, and return those that are worth being saved."""
    return [folded for folded in (_fold_memory(view), fold_keys(view)) if folded is not None]


def _fold_memory(view: View) -> Folded | None:
    """Fold the memory of a view, and return its search index as it is saved. None while it is
    small, or where it cannot be folded."""
    memory = FoldedMemory(save_events=_WORTH_EVENTS)
    try:
        due = memory.due(view)
    except MemvidAsyncError:
        return None
    finally:
        memory.close()
    return None if due is None else (MEMORY, *due[3:])
