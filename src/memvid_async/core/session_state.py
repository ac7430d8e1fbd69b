"""A session as it is folded, and what is fixed at its start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

import cbor2
from attrs import frozen

from ..config import DEFAULT_RECORDING, RecordingConfig
from ..events.details import ActionKind
from ..events.event import SessionSummary
from ..events.frames import ForkPoint
from ..events.frozen_dict import FrozenDict
from ..events.prompts import Reply, cost_dollars, cost_units
from ..events.values import decode_value
from .persistent_map import PersistentMap


@frozen
class SessionInfo:
    """What a session's actions do not change."""

    number: int
    """The sequence of its SessionStarted event."""
    session_id: UUID
    name: str | None
    created_ns: int
    ambient: bool
    config: RecordingConfig
    fork: ForkPoint | None = None
    metadata: bytes = b""
    """A CBOR map; no bytes for an empty one."""

    def read_metadata(self) -> FrozenDict:
        """Return the metadata, decoded."""
        return FrozenDict(decode_value(self.metadata)) if self.metadata else FrozenDict()


def encode_map(values: Mapping[str, Any]) -> bytes:
    """Return a map as deterministic CBOR (RFC 8949 section 4.2); no bytes for an empty one."""
    return cbor2.dumps(dict(values), canonical=True) if values else b""


# The strings and messages that a session holds already: for each 16-byte digest, an action's index
# and the place in that action.
Held = PersistentMap[bytes, tuple[int, int]]
NOTHING_HELD: Held = PersistentMap()
# The calls and steps in flight: for the sequence of each one's first start, the time of that.
InFlight = PersistentMap[int, int]
NONE_IN_FLIGHT: InFlight = PersistentMap()
# A sum stays below this, so that every reader can take it.
_MOST = 2**63 - 1
# Looking a member up in its class takes as long as comparing five of them.
_ASK, _TOOL_CALL = ActionKind.ASK, ActionKind.TOOL_CALL


class Sums(NamedTuple):
    """What a session's own actions add up to; ``cost`` is in units of 10^-12 US dollars."""

    asks: int = 0
    tool_calls: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: int = 0

    def adding(self, kind: ActionKind, error: str | None, reply: Reply | None) -> Sums:
        """Return the sums with one more action."""
        asks, tools, failed, given, made, cached, cost = self
        if kind is _ASK:
            asks += 1
        elif kind is _TOOL_CALL:
            tools += 1
        if error is not None and kind is not ActionKind.STEP:
            failed += 1
        if reply is not None:
            given = min(given + (reply.input_tokens or 0), _MOST)
            made = min(made + (reply.output_tokens or 0), _MOST)
            cached = min(cached + (reply.cached_tokens or 0), _MOST)
            if reply.cost_usd is not None:
                cost = min(cost + cost_units(reply.cost_usd), _MOST)
        return _new(Sums, (asks, tools, failed, given, made, cached, cost))


NO_SUMS = Sums()
_new = tuple.__new__


class SessionState(NamedTuple):
    """A session as folded so far."""

    info: SessionInfo
    last_ns: int
    """The time of its last event."""
    ended_ns: int | None = None
    action_count: int = 0
    """How many actions it has; every checkpoint is an action too."""
    checkpoint_count: int = 0
    unmarked: int = 0
    """How many actions there are since the last checkpoint, calls in flight included."""
    held: Held = NOTHING_HELD
    error: str | None = None
    """What the session ended with."""
    in_flight: InFlight = NONE_IN_FLIGHT
    sums: Sums = NO_SUMS

    @property
    def is_full(self) -> bool:
        """Whether it takes no more actions, but the ends of calls that have begun.

        Every checkpoint is an action too, so ``max_actions`` is about the others.
        """
        if self.info.config is DEFAULT_RECORDING:
            return False
        most = self.info.config.max_actions
        begun = self.action_count - self.checkpoint_count + len(self.in_flight)
        return most is not None and begun >= most

    def summary(self) -> SessionSummary:
        """The session, as ``list_sessions`` returns it."""
        info, sums = self.info, self.sums
        return SessionSummary(
            session_id=info.session_id,
            name=info.name,
            created_ns=info.created_ns,
            ended_ns=self.ended_ns,
            action_count=self.action_count,
            checkpoint_count=self.checkpoint_count,
            duration_ns=max(0, self.last_ns - info.created_ns),
            fork=info.fork,
            error=self.error,
            metadata=info.read_metadata(),
            ask_count=sums.asks,
            tool_call_count=sums.tool_calls,
            failed_count=sums.failed,
            in_flight_count=len(self.in_flight),
            input_tokens=sums.input_tokens,
            output_tokens=sums.output_tokens,
            cached_tokens=sums.cached_tokens,
            cost_usd=cost_dollars(sums.cost),
        )
