"""Repeating what an action did to the memory, or found in it, in a scratch memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from attrs import evolve, field, frozen

from ..config import Limits
from ..core.state import State
from ..engine.event_log import View
from ..errors import InvalidValueError
from ..events.details import ActionKind, FindDetails
from ..events.event import Action
from ..events.frames import (
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    Retrieval,
    SearchMode,
)
from ..events.printing import amount
from ..events.values import is_one_of
from ..memory.folded import FoldedMemory, Lineage
from ..memory.keywords import FrameFilters
from ..memory.prepare_frames import MODES, make_filters, prepare_embedding, prepare_filters
from ..recording.callables import check_fits, is_async
from ..recording.prepare_values import prepare_count
from ..search import SearchIndex
from .textdiff import text_diff
from .verdicts import Difference, ReplayStep, Rerun, Verdict

NOT_OURS = "it was done in somebody else's memory, whose frames are not in this file"
_TOLERANCE = 1.5e-6


@frozen
class WhatIf:
    """What a replay changes in searches. A field that is None stays as it was recorded."""

    top_k: int | None = None
    """How many hits at most."""
    mode: SearchMode | None = None
    """How to search."""
    filters: FrameFilters | None = None
    """The filters; an empty map for none."""
    as_of: int | Literal["now"] | None = None
    """The memory of another moment: the sequence of its last event, or ``"now"``."""
    embedding: Callable[[str], Sequence[float]] | None = field(default=None, repr=False)
    """Called with the query of a semantic or hybrid find, it returns its embedding. It runs in a
    thread and is not async."""


def prepare_what_if(value: Any) -> WhatIf:
    """The same, with its filters as they are recorded.

    :raises InvalidValueError, LimitExceededError: when nothing can be searched so.
    :raises TypeError: when the embedding's callable does not take one argument.
    """
    if not isinstance(value, WhatIf):
        raise InvalidValueError("what_if must be a WhatIf")
    if value.top_k is not None and (type(value.top_k) is not int or value.top_k < 1):
        raise InvalidValueError(f"top_k must be an int of at least 1, not {value.top_k!r:.80}")
    if value.mode is not None and not is_one_of(value.mode, MODES):
        raise InvalidValueError(f"mode must be one of {MODES}, not {value.mode!r:.80}")
    if value.as_of is not None and not is_one_of(value.as_of, ("now",)):
        prepare_count(value.as_of, "as_of")
    embedding: Any = value.embedding
    if embedding is not None:
        if not callable(embedding) or is_async(embedding):
            raise InvalidValueError("embedding must be callable, and not async")
        check_fits(embedding, "WhatIf.embedding is called with the query", ("",))
    if value.filters is None:
        return value
    if not isinstance(value.filters, Mapping):
        raise InvalidValueError("filters must be a dict")
    return evolve(value, filters=prepare_filters(value.filters, Limits())[1])


class Scratch:
    """The memory of a session as it was at any of its actions; it goes forward with the replay."""

    def __init__(self, what_if: WhatIf | None, last_sequence: int) -> None:
        self._what_if = what_if
        self._last = last_sequence
        self._memory: FoldedMemory | None = None

    def close(self) -> None:
        """Close the memory."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def at(self, view: View, lineage: Lineage, sequence: int) -> FoldedMemory:
        """Return the memory after an event; going back folds it again."""
        is_past = self._memory is not None and self._memory.through > sequence
        if self._memory is None or is_past or not self._memory.continue_as(lineage):
            self.close()
            self._memory = FoldedMemory(lineage, is_live=False)
        self._memory.catch_up(view, sequence)
        return self._memory

    # Searching.

    def moment(self, retrieval: Retrieval) -> int:
        """Return the last event of the memory in which a search is repeated."""
        as_of = None if self._what_if is None else self._what_if.as_of
        return retrieval.as_of if as_of is None else self._last if as_of == "now" else as_of

    def judge_search(self, view: View, lineage: Lineage, action: Action, query: str) -> ReplayStep:
        """Repeat the search of an action, and compare what it finds."""
        retrieval = action.retrieval
        if retrieval is None:
            return ReplayStep(action.index, action, Verdict.UNVERIFIABLE, NOT_OURS)
        if retrieval.as_of >= action.sequence:
            return _diverged(action, "as_of", retrieval.as_of, action.sequence - 1)
        changed = self._changed(retrieval, query)
        memory = self.at(view, lineage, changed.as_of)
        if memory.missing:
            why = f"of the memory it searched, {amount(len(memory.missing), 'frame')} erased since"
            return ReplayStep(action.index, action, Verdict.UNVERIFIABLE, why)
        find = partial(
            SearchIndex.find,
            query=query,
            vector=changed.embedding,
            mode=changed.mode,  # type: ignore[arg-type]
            top_k=changed.top_k,
            filters=make_filters(changed.parameters),
            embedding_model=changed.embedding_model,
            syntax=changed.syntax,
        )
        try:
            found, index = memory.answer(view, find, changed.as_of)
        except InvalidValueError as error:
            if self._what_if is not None:
                raise
            return _diverged(action, "mode", retrieval.mode, str(error))
        again = [(one.frame_id, one.score) for one in found]
        before = list(zip(action.affected_frames, retrieval.scores, strict=False))
        if self._what_if is not None:
            return _reran(action, before, again)
        details = action.details
        if isinstance(details, FindDetails) and (
            details.result_count != len(again) or details.mode != retrieval.mode
        ):
            kept = (details.mode, details.result_count)
            return _diverged(action, "result_count", kept, (retrieval.mode, len(again)))
        same = len(before) == len(again) == len(action.affected_frames) == len(retrieval.scores)
        if not (same and all(map(_is_same_hit, before, again))):
            return _diverged(action, "result_frames", before, again)
        rows = [index.get(frame_id) for frame_id, _ in again]
        versions = tuple(row.version for row in rows if row is not None)
        if versions != retrieval.versions:
            return _diverged(action, "versions", retrieval.versions, versions)
        return ReplayStep(action.index, action, Verdict.MATCHED)

    def _changed(self, retrieval: Retrieval, query: str) -> Retrieval:
        what_if = self._what_if
        if what_if is None:
            return retrieval
        embedding = retrieval.embedding
        if what_if.embedding is not None:
            embedding = prepare_embedding(what_if.embedding(query), Limits())
        mode = what_if.mode or retrieval.mode
        if mode != "lexical" and embedding is None:
            raise InvalidValueError(
                f"a {mode} find needs an embedding: none was recorded, so give WhatIf(embedding=…)"
            )
        return Retrieval(
            mode=mode,
            top_k=what_if.top_k or retrieval.top_k,
            as_of=self.moment(retrieval),
            scores=(),
            parameters=retrieval.parameters if what_if.filters is None else what_if.filters,
            embedding=embedding,
            embedding_model=retrieval.embedding_model,
            syntax=retrieval.syntax,
        )


def judge_change(before: State, branch: int, changes: Sequence[Any], action: Action) -> ReplayStep:
    """Judge whether a put, an update or a delete did what its action says.

    ``before``: the state before the command. ``changes``: the payloads of the command's events that
    change the memory, in the order of the log.
    """
    if action.kind in (ActionKind.PUT, ActionKind.PUT_MANY):
        # A put may replace others, which are deleted before.
        changes = [payload for payload in changes if isinstance(payload, FramesPut)]
    mine = [one for payload in changes for one in _frames_of(payload)]
    if not mine:
        return ReplayStep(action.index, action, Verdict.UNVERIFIABLE, NOT_OURS)
    ids = tuple(payload.frame_id for payload in mine)
    if ids != action.affected_frames:
        return _diverged(action, "frames", action.affected_frames, ids)
    if action.kind in (ActionKind.PUT, ActionKind.PUT_MANY):
        first = before.memory.last_frame + 1
        due = tuple(range(first, first + len(mine)))
        if ids != due:
            return _diverged(action, "frames", ids, due)
    elif not before.memory.holds(ids[0], branch):
        return _diverged(action, "frames", ids, ())
    if any(isinstance(payload, FrameErased) for payload in mine):
        return ReplayStep(action.index, action, Verdict.UNVERIFIABLE, "the frame was erased")
    kinds = _PAYLOADS[action.kind]
    if not all(isinstance(payload, kinds) for payload in mine):
        return _diverged(action, "kind", str(action.kind), type(mine[0]).__name__)
    held = None
    if isinstance(mine[0], FramePut) and action.kind is ActionKind.PUT:
        held = mine[0].content
    elif isinstance(mine[0], FrameUpdated):
        held = mine[0].changes.get("content")
    if held != action.input:
        digests = [None if one is None else one.digest.hex() for one in (action.input, held)]
        return _diverged(action, "input", *digests)
    return ReplayStep(action.index, action, Verdict.MATCHED)


def _frames_of(payload: Any) -> Sequence[Any]:
    """Return the changes of single frames that a payload consists of."""
    if isinstance(payload, FramesPut):
        return payload
    return [payload] if isinstance(payload, (FrameUpdated, FrameDeleted, FrameErased)) else []


_PAYLOADS: dict[ActionKind, type] = {
    ActionKind.PUT: FramePut,
    ActionKind.PUT_MANY: FramePut,
    ActionKind.UPDATE: FrameUpdated,
    ActionKind.DELETE: FrameDeleted,
}


def _is_same_hit(before: tuple[int, float], again: tuple[int, float]) -> bool:
    return before[0] == again[0] and abs(before[1] - again[1]) <= _TOLERANCE


def _diverged(action: Action, name: str, recorded: Any, again: Any) -> ReplayStep:
    difference = Difference(name, recorded, again, text_diff(_shown(recorded), _shown(again)))
    why = f"repeating it has another {name.replace('_', ' ')}"
    return ReplayStep(action.index, action, Verdict.DIVERGED, why, (difference,))


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "\n".join(map(str, value))
    return str(value)


def _reran(
    action: Action, before: list[tuple[int, float]], again: list[tuple[int, float]]
) -> ReplayStep:
    """Return what a changed find finds, compared with the recorded one."""
    places = {frame_id: place for place, (frame_id, _) in enumerate(before)}
    now = {frame_id: place for place, (frame_id, _) in enumerate(again)}
    rerun = Rerun(
        hits=tuple(again),
        new=tuple(hit for hit in again if hit[0] not in places),
        lost=tuple(hit for hit in before if hit[0] not in now),
        moved=tuple(
            (frame_id, places[frame_id], place)
            for frame_id, place in now.items()
            if frame_id in places and places[frame_id] != place
        ),
    )
    if not (rerun.new or rerun.lost or rerun.moved):
        return ReplayStep(action.index, action, Verdict.MATCHED, rerun=rerun)
    ids = [[frame_id for frame_id, _ in hits] for hits in (before, again)]
    difference = Difference("result_frames", before, again, text_diff(*map(_shown, ids)))
    return ReplayStep(
        action.index, action, Verdict.DIVERGED, "it finds others", (difference,), rerun=rerun
    )
