"""What a compaction saves of projections in the file that it writes."""

from __future__ import annotations

from ..engine.event_log import Folded, View
from ..memory.folded import fold_whole
from ..memory.folded_keys import fold_keys


def fold_projections(view: View) -> list[Folded]:
    """Fold the projections of a view, and return those that are worth being saved."""
    return [folded for folded in (fold_whole(view), fold_keys(view)) if folded is not None]
