"""A session done again, action by action, from the events alone.

The log is folded from its first event, so the state at every action is what it was when the action
was recorded. What an action left behind is then compared with that state. :func:`judge` is where a
kind of action gets its verdict.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

from attrs import Factory, define, frozen

from ..errors import CheckpointNotFoundError, ContentNotFoundError, SessionNotFoundError
from ..events import (
    Action,
    ActionKind,
    ActionRecorded,
    Checkpoint,
    CheckpointCreated,
    CheckpointDetails,
    SessionEnded,
)
from ..model.evolve import evolve
from ..model.state import State
from ..reader import Reader, View
from .textdiff import text_diff
from .verdicts import Difference, ReplayReport, Step, Verdict, count_verdicts

Read = Callable[..., Awaitable[Any]]

PAGE_BYTES = 256 * 1024
"""About how much of the log is folded at once."""

_SKIPPED = {
    ActionKind.ASK: "a model is not asked again; audit does that",
    ActionKind.TOOL_CALL: "a tool is not run again",
}
_NOT_OURS = "it was done in somebody else's memory, whose frames are not in this file"


@frozen
class Span:
    """What of a session is replayed: the actions from ``first`` on, up to and without ``until``.

    ``number``: the session's. ``last``: the sequence of the log's last event to look at.
    """

    number: int
    first: int
    until: int | None
    last: int


@define
class _Fold:
    """How far a replay has come."""

    span: Span
    state: State = Factory(State)
    next_index: int = 0
    finished: bool = False

    def page(self, reader: Reader, view: View) -> list[Step]:
        """Fold the next page of the log; the verdicts on the session's actions in it."""
        steps: list[Step] = []
        for event in reader.events_after(view, self.state.last_sequence, PAGE_BYTES):
            payload = event.payload
            if event.session == self.span.number:
                if isinstance(payload, (ActionRecorded, CheckpointCreated)):
                    step = self._judge(reader, view, payload)
                    if self.span.until is not None and step.index >= self.span.until:
                        self.finished = True
                        return steps
                    if step.index >= self.span.first:
                        steps.append(step)
                self.finished = isinstance(payload, SessionEnded)
            self.state = evolve(self.state, event)
            self.finished = self.finished or event.sequence >= self.span.last
            if self.finished:
                break
        return steps

    def _judge(
        self, reader: Reader, view: View, payload: ActionRecorded | CheckpointCreated
    ) -> Step:
        action, due = payload.action, self.next_index
        self.next_index = action.index + 1
        if action.index != due:
            why = f"action {action.index} stands where action {due} should be"
            difference = Difference(
                "index", due, action.index, text_diff(str(due), str(action.index))
            )
            return Step(action.index, action, Verdict.DIVERGED, why, (difference,))
        checkpoint = payload.checkpoint if isinstance(payload, CheckpointCreated) else None
        return judge(reader, view, self.state, action, checkpoint)


def judge(
    reader: Reader, view: View, state: State, action: Action, checkpoint: Checkpoint | None
) -> Step:
    """The verdict on an action, given the state before it."""
    if checkpoint is not None:
        return _judge_checkpoint(state, action, checkpoint)
    for what, content in (("input", action.input), ("output", action.output)):
        if content is not None and content.data is None:
            try:
                reader.data(view, content)
            except ContentNotFoundError:
                return Step(action.index, action, Verdict.UNVERIFIABLE, f"its {what} was erased")
    if action.kind in _SKIPPED:
        return Step(action.index, action, Verdict.SKIPPED, _SKIPPED[action.kind])
    return Step(action.index, action, Verdict.UNVERIFIABLE, _NOT_OURS)


def _judge_checkpoint(state: State, action: Action, checkpoint: Checkpoint) -> Step:
    recorded, rebuilt = checkpoint.snapshot, state.snapshot()
    differences = []
    for name in ("frame_count", "memory_hash"):
        was, now = getattr(recorded, name), getattr(rebuilt, name)
        if was != now:
            shown = [
                value.hex() if isinstance(value, bytes) else str(value) for value in (was, now)
            ]
            differences.append(Difference(name, was, now, text_diff(*shown)))
    if differences:
        names = " and ".join(difference.field for difference in differences)
        why = f"rebuilding the state gives another {names}"
        return Step(action.index, action, Verdict.DIVERGED, why, tuple(differences))
    return Step(action.index, action, Verdict.MATCHED)


def find_span(
    reader: Reader, view: View, session_id: UUID, from_checkpoint: int | None, until: int | None
) -> Span:
    """Where a replay begins and ends.

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such thing.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number, first = found.info.number, 0
    if from_checkpoint is not None:
        for event in reader.session_events(view, number)[0]:
            payload = event.payload
            if isinstance(payload, CheckpointCreated):
                details = payload.action.details
                assert isinstance(details, CheckpointDetails)
                if details.checkpoint_id == from_checkpoint:
                    first = payload.action.index
                    break
        else:
            raise CheckpointNotFoundError(
                f"session {session_id} has no checkpoint {from_checkpoint}"
            )
    return Span(number, first, until, view.state.last_sequence)


class Replay:
    """A session to be replayed. Each ``async for`` goes through it anew and gives a :class:`Step`
    as soon as it is known; so does :meth:`report`. Stopping or cancelling either leaves nothing
    behind, and only a page of the log is held at a time."""

    def __init__(
        self, read: Read, session_id: UUID, from_checkpoint: int | None, until: int | None
    ) -> None:
        self._read = read
        self._session_id = session_id
        self._from_checkpoint = from_checkpoint
        self._until = until

    async def __aiter__(self) -> AsyncIterator[Step]:
        fold = _Fold(
            await self._read(find_span, self._session_id, self._from_checkpoint, self._until)
        )
        while not fold.finished:
            for step in await self._read(fold.page):
                yield step

    async def report(self) -> ReplayReport:
        """Go through all of it, and say how often each verdict was given.

        :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such thing.
        :raises CorruptFileError: when the log is damaged.
        """
        steps = tuple([step async for step in self])
        counts = count_verdicts(step.verdict for step in steps)
        return ReplayReport(self._session_id, counts, steps, self._from_checkpoint)
