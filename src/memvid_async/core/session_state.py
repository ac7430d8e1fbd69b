"""A session as it is folded, and what is fixed at its start."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from attrs import frozen

from ..config import RecordingConfig
from ..events.event import SessionSummary
from ..events.frames import ForkPoint
from .persistent_map import PersistentMap


@frozen
class SessionInfo:
    """What is fixed at a session's start. ``number``: the sequence of its SessionStarted event."""

    number: int
    session_id: UUID
    name: str | None
    created_ns: int
    ambient: bool
    config: RecordingConfig
    fork: ForkPoint | None = None


# The strings and messages that a session holds already: from a 16-byte digest to an action's index
# and the place in that action.
Held = PersistentMap[bytes, tuple[int, int]]
NOTHING_HELD: Held = PersistentMap()


class SessionState(NamedTuple):
    """A session as folded so far.

    ``unmarked``: actions since the last checkpoint. Every checkpoint is an action too, so the
    actions that ``max_actions`` counts are ``action_count - checkpoint_count``.
    """

    info: SessionInfo
    last_ns: int
    ended_ns: int | None = None
    action_count: int = 0
    checkpoint_count: int = 0
    unmarked: int = 0
    held: Held = NOTHING_HELD

    def summary(self) -> SessionSummary:
        """The session as listed."""
        info = self.info
        return SessionSummary(
            session_id=info.session_id,
            name=info.name,
            created_ns=info.created_ns,
            ended_ns=self.ended_ns,
            action_count=self.action_count,
            checkpoint_count=self.checkpoint_count,
            duration_ns=self.last_ns - info.created_ns,
            fork=info.fork,
        )
