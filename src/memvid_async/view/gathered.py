"""What pages say of all that was recorded: gathered from the log once, and kept.

The first page that needs it reads the log; each later one only what is new since.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from collections.abc import Iterable
from uuid import UUID

from attrs import define, field

from .. import (
    Action,
    ActionKind,
    ActionRecorded,
    CheckpointCreated,
    Event,
    FrameDeleted,
    FrameErased,
    FramesPut,
    FrameUpdated,
    SessionDeleted,
    Store,
    UsageRow,
)
from .text import format_time

_DAY_NS = 86_400 * 10**9
_CALLS = (ActionKind.ASK, ActionKind.TOOL_CALL)


@define
class CallSums:
    """What calls used together."""

    ask_count: int = 0
    tool_call_count: int = 0
    failed_count: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost_usd: float = 0.0
    duration_ms: float = 0.0

    def add(self, action: Action) -> None:
        """Add an ask or a tool call."""
        self.ask_count += action.kind is ActionKind.ASK
        self.tool_call_count += action.kind is ActionKind.TOOL_CALL
        self.failed_count += action.error is not None
        self.duration_ms += action.duration_ms
        usage = action.usage
        if usage is not None:
            self.input_tokens += usage.input_tokens or 0
            self.output_tokens += usage.output_tokens or 0
            self.cached_tokens += usage.cached_tokens or 0
            self.cost_usd += usage.cost_usd or 0

    def add_sums(self, other: CallSums) -> None:
        """Add what other calls used."""
        for name in _SUMMED:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def row(self, name: str | None) -> UsageRow:
        """Return the sums as :meth:`Store.usage` returns them."""
        return UsageRow(name, None, *(getattr(self, one) for one in _SUMMED))


_SUMMED = tuple(CallSums.__annotations__)

# Of calls: the day they were recorded on, by its number since the Unix epoch; their kind; and what
# they called.
_Key = tuple[int, ActionKind, str | None]


@define
class _Did:
    """What one session used, and which tasks it had."""

    calls: dict[_Key, CallSums] = field(factory=dict)
    names: set[str] = field(factory=set)
    tasks: set[str] = field(factory=set)

    def add(self, action: Action) -> None:
        details = action.details
        name = getattr(details, "name", None) or getattr(details, "model", None)
        if name is not None:
            self.names.add(name)
        if action.task is not None:
            self.tasks.add(action.task)
        if action.kind in _CALLS:
            key = action.time_ns // _DAY_NS, action.kind, name
            self.calls.setdefault(key, CallSums()).add(action)


class Gathered:
    """What was gathered from the log so far."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._through = 0
        self._lock = asyncio.Lock()
        self._sessions: dict[UUID, _Did] = {}
        # The first frame of each put, and its event; frames have ids in the order of the log.
        self._put_ids, self._put_sequences = array("Q"), array("Q")
        self._changes: dict[int, list[int]] = {}

    async def catch_up(self) -> None:
        """Take in what was recorded by now."""
        async with self._lock:
            last = self._store.last_sequence
            if self._through >= last:
                return
            async with self._store.subscribe(after=self._through) as events:
                async for event in events:
                    self._add(event)
                    self._through = event.sequence
                    if event.sequence >= last:
                        return

    def _add(self, event: Event) -> None:
        match event.payload:
            case ActionRecorded() | CheckpointCreated() if event.session_id is not None:
                found = self._sessions.setdefault(event.session_id, _Did())
                found.add(event.payload.action)
            case SessionDeleted() if event.session_id is not None:
                self._sessions.pop(event.session_id, None)
            case FramesPut(frame_id=first):
                self._put_ids.append(first)
                self._put_sequences.append(event.sequence)
            case FrameUpdated() | FrameDeleted() | FrameErased():
                self._changes.setdefault(event.payload.frame_id, []).append(event.sequence)

    def sessions(self, *, name: str | None = None, task: str | None = None) -> set[UUID]:
        """Return the sessions that used this model, tool or step, and had this task."""
        return {
            session_id
            for session_id, one in self._sessions.items()
            if (name is None or name in one.names) and (task is None or task in one.tasks)
        }

    def frame_changes(self, frame_id: int) -> list[int]:
        """Return the sequences of the events that may have put a frame, and that changed it."""
        place = bisect_right(self._put_ids, frame_id)
        puts = [self._put_sequences[place - 1]] if place else []
        return puts + self._changes.get(frame_id, [])

    def usage(
        self, since_ns: int | None, until_ns: int | None
    ) -> tuple[list[UsageRow], list[UsageRow], list[UsageRow]]:
        """Return what calls used by day, by model and by tool, as :meth:`Store.usage` does; of the
        days from ``since_ns`` on, and before that of ``until_ns``."""
        days: dict[int, CallSums] = {}
        models: dict[str | None, CallSums] = {}
        tools: dict[str | None, CallSums] = {}
        for session in self._sessions.values():
            for (day, kind, name), sums in session.calls.items():
                begin = day * _DAY_NS
                if since_ns is not None and begin < since_ns:
                    continue
                if until_ns is not None and begin >= until_ns:
                    continue
                days.setdefault(day, CallSums()).add_sums(sums)
                named = models if kind is ActionKind.ASK else tools
                named.setdefault(name, CallSums()).add_sums(sums)
        by_day = [sums.row(_day_name(day)) for day, sums in sorted(days.items())]
        return by_day, _by_cost(models.items()), _by_cost(tools.items())


def _by_cost(found: Iterable[tuple[str | None, CallSums]]) -> list[UsageRow]:
    rows = [sums.row(name) for name, sums in found]
    return sorted(
        rows, key=lambda row: (-row.cost_usd, -row.ask_count - row.tool_call_count, row.name or "")
    )


def _day_name(day: int) -> str:
    return format_time(day * _DAY_NS)[:10]
