"""RecordedAnswers a session: its actions are repeated one by one, from the events alone.

The log is folded from its first event, so the state at every action is what it was when the action
was recorded. What the action recorded is then compared with that state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from heapq import heappop, heappush
from typing import Any
from uuid import UUID

from attrs import Factory, define, frozen
from attrs import evolve as evolve_step

from ..core.evolve import evolve
from ..core.state import State
from ..engine.event_log import View
from ..engine.reading import PartReader, find_checkpoint
from ..errors import (
    CheckpointNotFoundError,
    ContentNotFoundError,
    InvalidValueError,
    SessionNotFoundError,
)
from ..events.content import Content
from ..events.details import ActionKind
from ..events.event import Action, ActionRecorded, CheckpointCreated, Event, SessionEnded
from ..events.frames import FRAME_EVENTS
from ..memory.folded import Lineage, lineage_of
from .recorded import calls_in_flight
from .scratch import NOT_OURS, Scratch, WhatIf, judge_change
from .textdiff import text_diff
from .verdicts import Difference, ReplayReport, ReplayStep, Verdict, count_verdicts

Read = Callable[..., Awaitable[Any]]

PIECE_BYTES = 256 * 1024
"""About how many bytes of the log are folded at once."""

MOST_HELD = 1024
"""At most this many verdicts wait for a search that is repeated later."""

_SKIPPED = {
    ActionKind.ASK: "a model is not asked again; audit does that",
    ActionKind.TOOL_CALL: "a tool is not run again",
    ActionKind.STEP: "the actions in a step are compared, each by itself",
    ActionKind.ONCE: "what the agent read is not read again",
}
_UNSETTLED = "nobody said how it ended"
_ASKED = "its search finds the same; a model is not asked again, audit does that"
_SEARCHES = {ActionKind.FIND, ActionKind.ASK}
_CHANGES = {ActionKind.PUT, ActionKind.PUT_MANY, ActionKind.UPDATE, ActionKind.DELETE}


@frozen
class Span:
    """The part of a session that is replayed."""

    number: int
    """The session's number."""
    members: Mapping[int, int]
    """The sessions that have its events, itself and those it was forked from, each with the last
    sequence that counts."""
    gone: int
    """How many actions it shared with parents that were deleted."""
    first: int
    """The index of the first action that is judged."""
    before_index: int | None
    """The index of the first action that is not; None for none."""
    last: int
    """The sequence of the last event to fold."""


@frozen
class _HeldSearch:
    """A search that is still to be repeated, and the memories that it searched."""

    action: Action
    lineage: Lineage


@define
class _Fold:
    """How far a replay has come.

    Searches that ran at the same time are recorded in the order of their returns, and so may search
    older and newer memories in turn. The scratch memory only goes forward. So searches are held for
    a while, and repeated in the order of the moments that they searched.
    """

    span: Span
    state: State = Factory(State)
    what_if: WhatIf | None = None
    next_index: int = Factory(lambda self: self.span.gone, takes_self=True)
    finished: bool = False
    scratch: Scratch = Factory(lambda self: Scratch(self.what_if, self.span.last), takes_self=True)
    held: deque[ReplayStep | _HeldSearch] = Factory(deque)
    due: list[tuple[int, int, _HeldSearch]] = Factory(list)
    done: dict[int, ReplayStep] = Factory(dict)

    def next_steps(self, view: View) -> list[ReplayStep]:
        """Fold the next piece of the log, and return the verdicts known then, in order."""
        self._fold(view)
        if self.finished and self.span.before_index is None:
            self._add_unsettled(view)
        steps: list[ReplayStep] = []
        while self.held:
            first = self.held[0]
            if isinstance(first, _HeldSearch):
                while first.action.sequence not in self.done:
                    if not self.finished and len(self.held) <= MOST_HELD:
                        return steps
                    self._search_next(view)
                first = self.done.pop(first.action.sequence)
            steps.append(first)
            self.held.popleft()
        return steps

    def _add_unsettled(self, view: View) -> None:
        """Add the verdicts on what nobody said how it ended."""
        session = self.state.sessions[self.span.number]
        if session.in_flight:
            for action in calls_in_flight(view, session.info.session_id):
                step = ReplayStep(action.index, action, Verdict.UNVERIFIABLE, _UNSETTLED)
                self.held.append(step)

    def _search_next(self, view: View) -> None:
        """Repeat the search of the oldest memory among those that wait."""
        _, sequence, search = heappop(self.due)
        action = search.action
        query = "" if action.input is None else view.data(action.input).decode()
        step = self.scratch.judge_search(view, search.lineage, action, query)
        if action.kind is ActionKind.ASK and step.verdict is Verdict.MATCHED:
            step = evolve_step(step, verdict=Verdict.SKIPPED, reason=_ASKED)
        self.done[sequence] = step

    def _fold(self, view: View) -> None:
        for command in view.commands_after(self.state.last_sequence, PIECE_BYTES):
            before = self.state
            changes = [
                event.payload for event in command if isinstance(event.payload, FRAME_EVENTS)
            ]
            for event in command:
                if event.sequence <= self.state.last_sequence:
                    continue
                if event.sequence <= self.span.members.get(event.session, 0):
                    self._take(view, event, before, changes)
                self.state = evolve(self.state, event)
                self.finished = self.finished or event.sequence >= self.span.last
                if self.finished:
                    return

    def _take(
        self,
        view: View,
        event: Event,
        before: State,
        changes: list[Any],
    ) -> None:
        """Take in an event of the session, and judge it if it is an action to be replayed."""
        payload = event.payload
        if isinstance(payload, SessionEnded):
            self.finished = event.session == self.span.number
        elif isinstance(payload, (ActionRecorded, CheckpointCreated)):
            action, due = payload.action, self.next_index
            self.next_index = action.index + 1
            end = self.span.before_index
            self.finished = end is not None and action.index >= end
            if self.finished or action.index < self.span.first:
                return
            if action.index != due:
                self.held.append(_misplaced(action, due))
            elif self.what_if is not None and action.kind not in _SEARCHES:
                why = "only searches are changed"
                self.held.append(ReplayStep(action.index, action, Verdict.SKIPPED, why))
            elif isinstance(payload, CheckpointCreated):
                self.held.append(_judge_checkpoint(self.state, event.session, payload))
            else:
                self.held.append(self._judge(view, event, action, before, changes))

    def _judge(
        self,
        view: View,
        event: Event,
        action: Action,
        before: State,
        changes: list[Any],
    ) -> ReplayStep | _HeldSearch:
        erased = _judge_contents(view, action)
        if erased is not None:
            return erased
        if action.kind in _SEARCHES and action.retrieval is not None:
            search = _HeldSearch(action, lineage_of(self.state, event.session))
            as_of = self.scratch.moment(action.retrieval)
            heappush(self.due, (as_of, event.sequence, search))
            return search
        if action.kind in _CHANGES:
            branch = event.session if event.session in before.memory.branches else 0
            return judge_change(before, branch, changes, action)
        if action.kind in _SKIPPED:
            return ReplayStep(action.index, action, Verdict.SKIPPED, _SKIPPED[action.kind])
        return ReplayStep(action.index, action, Verdict.UNVERIFIABLE, NOT_OURS)


def _misplaced(action: Action, due: int) -> ReplayStep:
    why = f"action {action.index} is where action {due} should be"
    difference = Difference("index", due, action.index, text_diff(str(due), str(action.index)))
    return ReplayStep(action.index, action, Verdict.DIVERGED, why, (difference,))


def _judge_contents(view: View, action: Action) -> ReplayStep | None:
    """Return a step that says which content is gone; None when all of it is there."""
    for what, content in (("input", action.input), ("output", action.output)):
        if content is not None and content.data is None:
            try:
                _check_content(view, content)
            except ContentNotFoundError:
                return ReplayStep(
                    action.index, action, Verdict.UNVERIFIABLE, f"its {what} was erased"
                )
    return None


def _check_content(view: View, content: Content) -> None:
    """Read a content, piece by piece if it was put as a stream.

    :raises ContentNotFoundError: when it is gone, or does not match its digest.
    """
    if content.stored is None or not content.stored.parts:
        view.data(content)
        return
    parts = PartReader(content, content.stored)
    for place in range(parts.count):
        parts.read(view, place)
    parts.check()


def _judge_checkpoint(state: State, number: int, payload: CheckpointCreated) -> ReplayStep:
    action, checkpoint = payload.action, payload.checkpoint
    recorded, rebuilt = checkpoint.snapshot, state.snapshot(number)
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
        why = f"the rebuilt state has another {names}"
        return ReplayStep(action.index, action, Verdict.DIVERGED, why, tuple(differences))
    return ReplayStep(action.index, action, Verdict.MATCHED)


def find_span(
    view: View, session_id: UUID, checkpoint_id: int | None, before_index: int | None
) -> Span:
    """Return where a replay begins and ends.

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number, first = found.info.number, 0
    if checkpoint_id is not None:
        checkpoint = find_checkpoint(view, number, checkpoint_id)
        if checkpoint is None:
            raise CheckpointNotFoundError(session_id, checkpoint_id)
        first = checkpoint.action.index
    members, gone = _members(view.state, number)
    return Span(number, members, gone, first, before_index, view.state.last_sequence)


def _members(state: State, number: int) -> tuple[dict[int, int], int]:
    members: dict[int, int] = {}
    gone, until = 2**63, state.last_sequence
    while number in state.sessions:
        members[number] = until
        fork = state.sessions[number].info.fork
        if fork is None or fork.parent >= number:
            return members, 0
        gone, until = min(gone, fork.action_count), min(until, fork.sequence)
        number = fork.parent
    return members, gone


class Replay:
    """A session to be replayed.

    Each ``async for`` starts at its beginning, and yields each :class:`ReplayStep` as soon as it is
    known. It may be stopped or cancelled anywhere, and holds only a piece of the log at a time.
    """

    def __init__(
        self,
        read: Read,
        session_id: UUID,
        checkpoint_id: int | None,
        before_index: int | None,
        what_if: WhatIf | None = None,
    ) -> None:
        self._read = read
        self._what_if = what_if
        self._session_id = session_id
        self._checkpoint_id = checkpoint_id
        self._before_index = before_index

    def __repr__(self) -> str:
        first = "" if self._checkpoint_id is None else f" from checkpoint {self._checkpoint_id}"
        end = "" if self._before_index is None else f" before action {self._before_index}"
        return f"<Replay of {self._session_id}{first}{end}: async for, or await its report()>"

    async def __aiter__(self) -> AsyncIterator[ReplayStep]:
        span = await self._read(
            find_span, self._session_id, self._checkpoint_id, self._before_index
        )
        as_of = None if self._what_if is None else self._what_if.as_of
        if as_of is not None and as_of != "now" and as_of > span.last:
            raise InvalidValueError(f"the log ends at {span.last}, before sequence {as_of}")
        fold = _Fold(span, what_if=self._what_if)
        try:
            while not fold.finished:
                for step in await self._read(fold.next_steps):
                    yield step
        finally:
            fold.scratch.close()

    async def report(self) -> ReplayReport:
        """Replay all of it, and return the steps with a count of each verdict.

        :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
        :raises InvalidValueError: when ``what_if`` names a moment after the end of the log.
        :raises CorruptFileError: when the log is damaged.
        """
        steps = tuple([step async for step in self])
        counts = count_verdicts(step.verdict for step in steps)
        return ReplayReport(self._session_id, counts, steps, self._checkpoint_id)
