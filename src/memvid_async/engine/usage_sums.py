"""What calls used: tokens, cost and time, summed by session, model, tool or day.

All functions block, as a :class:`View` does, and are called in the threads that read.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from attrs import define, frozen

from ..core.session_state import NO_SUMS, Sums
from ..events.details import ActionKind, AskDetails
from ..events.event import Action
from ..events.prompts import cost_dollars
from .event_log import View
from .finding_actions import ActionQuery, find_actions

UsageBy = Literal["session", "model", "tool", "day"]


@frozen
class UsageRow:
    """What the calls of one session, model, tool or day used together."""

    name: str | None
    """The session's name, the model, the tool, or the day in UTC as ``2026-11-28``; None for a
    session or a model without a name."""
    session_id: UUID | None
    """The session; None where the rows are of something else."""
    ask_count: int
    """How many asks."""
    tool_call_count: int
    """How many tool calls."""
    failed_count: int
    """How many of both failed."""
    input_tokens: int
    """Tokens that the models read."""
    output_tokens: int
    """Tokens that they wrote."""
    cached_tokens: int
    """Tokens that they read from a cache: a part of ``input_tokens``."""
    cost_usd: float
    """What the asks cost, in US dollars."""
    duration_ms: float
    """How long the calls took, in milliseconds, each for itself."""


@define
class _Sum:
    sums: Sums = NO_SUMS
    duration_ms: float = 0

    def add(self, action: Action) -> None:
        self.sums = self.sums.adding(action.kind, action.error, action.reply)
        self.duration_ms += action.duration_ms

    def row(self, name: str | None, session_id: UUID | None) -> UsageRow:
        cost = cost_dollars(self.sums.cost)
        return UsageRow(name, session_id, *self.sums[:-1], cost, round(self.duration_ms, 3))


_CALLS = (ActionKind.ASK, ActionKind.TOOL_CALL)


def sum_usage(view: View, by: UsageBy, query: ActionQuery) -> list[UsageRow]:
    """Sum what the asks and tool calls that a query is for used.

    Sessions come in the order in which they began, days in order, models and tools by what they
    cost, and then by how often they were called.

    :raises SessionNotFoundError: when there is no such session.
    """
    sums: dict[tuple[str | None, UUID | None], _Sum] = {}
    for actions in find_actions(view, query):
        for action in actions:
            if action.kind in _CALLS and _counts_for(by, action):
                sums.setdefault(_key(view, by, action), _Sum()).add(action)
    rows = list(sums.items())
    if by in ("model", "tool"):
        rows.sort(key=_by_cost)
    elif by == "day":
        rows.sort(key=lambda row: row[0][0] or "")
    else:
        numbers = view.state.numbers
        rows.sort(key=lambda row: numbers.get(row[0][1].bytes, 0) if row[0][1] else 0)
    return [one.row(*key) for key, one in rows]


def _by_cost(row: tuple[tuple[str | None, UUID | None], _Sum]) -> tuple[int, int, str]:
    (name, _), one = row
    return -one.sums.cost, -one.sums.asks - one.sums.tool_calls, name or ""


def _counts_for(by: UsageBy, action: Action) -> bool:
    if by == "model":
        return action.kind is ActionKind.ASK
    return by != "tool" or action.kind is ActionKind.TOOL_CALL


def _key(view: View, by: UsageBy, action: Action) -> tuple[str | None, UUID | None]:
    details = action.details
    if by == "model":
        return (details.model if isinstance(details, AskDetails) else None), None
    if by == "tool":
        return getattr(details, "name", None), None
    if by == "day":
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=action.time_ns // 10**9)
        return f"{moment:%Y-%m-%d}", None
    found = None if action.session_id is None else view.state.find(action.session_id)
    return (None if found is None else found.info.name), action.session_id
