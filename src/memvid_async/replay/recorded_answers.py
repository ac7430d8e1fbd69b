"""What a session answers its agent's calls with, when the agent runs again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any

from ..errors import ReplayDivergenceError
from ..events.calls import ActionStarted, LanePath
from ..events.content import Content, content_digest
from ..events.details import ActionKind
from ..events.event import Action
from ..events.message_digests import value_digest
from ..events.values import LARGE
from ..recording.answers import AskedCall, CallAnswer
from ..recording.lanes import Lanes
from .facts import task_name
from .handover import Handed, Handover, LiveCall
from .match import Match, compared_content, compared_facts, keeps_messages
from .matching import Matching, Outcome, RecordedCall
from .nearest import LOOKED_AT, Asked, describe_in_flight, describe_missing
from .past_calls import PastSession
from .recorded import read_text

Read = Callable[..., Awaitable[Any]]

_SHOWN_CHARS = 200


class RecordedAnswers:
    """Answers the calls of a session's block from a recording.

    ``cancelled`` records that the agent cancelled a call of which the recording does not say so.
    ``runs_missing``: whether a call that is not recorded runs, once everything recorded was handed
    over. ``may_run``: whether a call in flight is tried again.
    """

    def __init__(
        self,
        past: PastSession,
        lanes: Lanes,
        read: Read,
        *,
        cancelled: Callable[[RecordedCall], Awaitable[None]],
        is_ending: Callable[[], bool],
        stall: float,
        runs_missing: bool,
        settled_by: str | None = None,
        match: Match | None = None,
        pace: float | None = None,
    ) -> None:
        self._match = match
        self._pace = pace
        self._past = past
        self._read = read
        self._runs_missing = runs_missing
        self._settled_by = settled_by
        self._calls: dict[AskedCall, LiveCall] = {}
        self._claimed: set[int] = set()
        self._granted: dict[AskedCall, int | None] = {}
        self.matching = Matching(past.history.recorded(), lanes.root, is_flat=past.is_flat)
        self.handover = Handover(self.matching, self._explain, cancelled, stall, is_ending)

    @property
    def is_live(self) -> bool:
        """Whether everything recorded was handed over."""
        return self._runs_missing and self.handover.is_live

    async def ask(self, call: AskedCall) -> CallAnswer:
        """See :class:`.answers.Answers`."""
        live = await self._compared(call)
        await self.handover.ask(live)
        try:
            handed = await self.handover.wait(live)
        except asyncio.CancelledError:
            call.is_new = live.recorded is None and self.is_live
            raise
        recorded = live.recorded
        past = None if recorded is None else self._past.history.calls[recorded.start]
        if handed is Handed.RUN and not (past is not None and past.texts):
            if not self._runs_missing:
                await self.handover.diverge(recorded, live)
            if past is None:
                return CallAnswer()
            tries, by, info = past.tries + 1, self._settled_by, past.info
            return CallAnswer(
                None, past.start, tries, by, parent=info.parent, session_id=info.session_id
            )
        assert past is not None
        self._calls[call] = live
        self._granted[call] = handed if isinstance(handed, int) else None
        parent = past.info.parent
        if past.action is not None:
            return CallAnswer(past.action, parent=parent)
        return CallAnswer(None, past.start, past.tries, None, tuple(past.texts), parent)

    async def _compared(self, call: AskedCall) -> LiveCall:
        """Return a call with what is compared of it."""
        facts: dict[str, Any] = dict(call.facts)
        kind, name, _ = call.content
        if self._match is not None:
            content = compared_content(self._match, kind, name, call.asked)
            shown = compared_facts(self._match, kind, facts)
            if facts.get("messages") and keeps_messages(self._match, kind, facts["messages"]):
                shown["messages_digest"] = call.messages_digest
            return LiveCall(call, content, shown)
        if kind is ActionKind.ASK:
            facts["messages_digest"] = call.messages_digest
        if facts.get("messages") is not None:
            facts["messages"] = call.messages_digest
        if facts.get("filters") is not None:
            facts["filters"] = value_digest(facts["filters"])
        if facts.get("data") is not None:
            facts["data"] = await self._digest(facts["data"])
        return LiveCall(call, call.content, facts)

    async def _digest(self, data: str | bytes) -> bytes:
        if len(data) < LARGE:
            return _digest(None, data)
        digest: bytes = await self._read(_digest, data)
        return digest

    async def chunks(self, call: AskedCall, passed: int) -> int | None:
        """See :class:`.answers.Answers`."""
        granted = self._granted[call]
        while granted is not None and granted <= passed:
            handed = await self.handover.wait(self._calls[call])
            granted = self._granted[call] = handed if isinstance(handed, int) else None
        if granted is None:
            del self._granted[call], self._calls[call]
        return granted

    def held(self) -> AbstractContextManager[None]:
        """See :class:`.answers.Answers`."""
        return self.handover.held()

    async def value(self, content: Content) -> str | bytes:
        """See :class:`.answers.Answers`."""
        if content.data is not None:
            return content.data
        with self.held():
            found: str | bytes = await self._read(read_text, content)
        return found

    async def rest(self, waited_ms: int) -> None:
        """See :class:`.answers.Answers`."""
        if self._pace is not None:
            await self.handover.rest(waited_ms / 1000 / self._pace)

    async def withdraw(self, call: AskedCall) -> None:
        """See :class:`.answers.Answers`."""
        live = self._calls.pop(call, None)
        self._granted.pop(call, None)
        if live is not None:
            await self.handover.withdraw(live)

    async def leave(self, first: int) -> None:
        """See :class:`.answers.Answers`."""
        await self.handover.leave(first)

    def abandon(self, first: int) -> None:
        """See :class:`.answers.Answers`."""
        self.handover.abandon(first)

    # Steps.

    def claim_step(self, start: int | None, name: str | None) -> bool:
        """See :class:`.answers.Answers`."""
        step = self._past.steps.get(start or 0)
        if step is None or step.name != name or step.start in self._claimed:
            return False
        self._claimed.add(step.start)
        return True

    def parent_of(self, start: int | None) -> int | None:
        """See :class:`.answers.Answers`."""
        step = self._past.steps.get(start or 0)
        return None if step is None else step.parent

    def claim_step_without_calls(
        self, parent: int | None, lane: LanePath, name: str | None, *, knows_parent: bool = True
    ) -> int | None:
        """See :class:`.answers.Answers`."""
        for step in self._past.steps_without_calls():
            is_there = step.lane == lane and (step.parent == parent or not knows_parent)
            if is_there and self.claim_step(step.start, name):
                return step.start
        return None

    def is_open_step(self, start: int) -> bool:
        """See :class:`.answers.Answers`."""
        if not self._runs_missing or self.handover.error is not None:
            return False
        step = self._past.steps.get(start)
        return step is None or step in self._past.open_steps()

    async def check_end(self, exc: BaseException | None, *, must_ask: bool = True) -> None:
        """Raise why the agent did not do what it did when it was recorded, if it did not.

        ``exc``: with what it leaves the block. ``must_ask``: whether all calls must be asked for.

        :raises ReplayDivergenceError: when it did not.
        """
        handover = self.handover
        if handover.error is None and must_ask and (exc is None or isinstance(exc, Exception)):
            await handover.leave(0)
        await handover.close()
        if handover.error is not None and exc is not handover.error:
            raise handover.error from exc

    @property
    def has_diverged(self) -> bool:
        """Whether the agent did not do what it did when it was recorded."""
        return self.handover.error is not None

    # What was served.

    @property
    def unserved(self) -> tuple[Action, ...]:
        """The recorded calls that nobody has asked for, those in flight aside."""
        left = map(self.action, self.matching.unserved())
        return tuple(action for action in left if action is not None)

    def action(self, recorded: RecordedCall) -> Action | None:
        """Return the action of a recorded call; None of one in flight."""
        found: Action | None = self._past.history.calls[recorded.start].action
        return found

    async def _explain(
        self, due: RecordedCall | None, live: LiveCall | None
    ) -> ReplayDivergenceError:
        nearest = None if due is None else self.action(due)
        if live is None:
            assert due is not None
            return ReplayDivergenceError(
                f"{self._title(due)} was recorded, and nobody asked for it{self._given(due)}",
                nearest,
            )
        call = live.asked
        kind, name, _ = call.content
        asked = Asked(kind, name, call.asked, dict(call.facts), task_name(call.lane.name))
        if due is not None and due.outcome is Outcome.IN_FLIGHT:
            return describe_in_flight(self._title(due), _changed(due, live), asked)
        left = self.matching.unserved()
        others = [one for one in map(self.action, left[:LOOKED_AT]) if one is not None]
        found: ReplayDivergenceError = await self._read(
            describe_missing, self._past.recording, nearest, others, asked
        )
        return found

    def _title(self, recorded: RecordedCall) -> str:
        info = self._past.history.calls[recorded.start].info
        kind, name, _ = self._past.history.calls[recorded.start].content
        what = str(kind) if name is None else f"{kind} {name!r}"
        which = "" if isinstance(info, ActionStarted) else f"action {info.index}, "
        task = task_name(info.task)
        return f"{which}{what}" if task is None else f"{which}{what} of task {task!r}"

    def _given(self, recorded: RecordedCall) -> str:
        given = self._past.history.calls[recorded.start].info.input
        return "" if given is None else f": {' '.join(given.preview.split())[:_SHOWN_CHARS]}"


def _changed(due: RecordedCall, live: LiveCall) -> list[str]:
    """Return which fields of a call are others now; none where it is another call."""
    if due.content != live.content:
        return []
    known = sorted(due.facts.keys() & live.facts.keys())
    return [one.removesuffix("_digest") for one in known if due.facts[one] != live.facts[one]]


def _digest(_: object, data: str | bytes) -> bytes:
    return content_digest(data.encode() if isinstance(data, str) else data)
