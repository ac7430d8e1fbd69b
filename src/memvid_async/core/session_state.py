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
    """What is fixed at a session's start."""

    number: int
    """The sequence of its SessionStarted event."""
    session_id: UUID
    name: str | None
    created_ns: int
    ambient: bool
    config: RecordingConfig
    fork: ForkPoint | None = None


# The strings and messages that a session holds already: for each 16-byte digest, an action's index
# and the place in that action.
Held = PersistentMap[bytes, tuple[int, int]]
NOTHING_HELD: Held = PersistentMap()


class SessionState(NamedTuple):
    """A session as folded so far."""

    info: SessionInfo
    last_ns: int
    """The time of its last event."""
    ended_ns: int | None = None
    action_count: int = 0
    """How many actions it has. Every checkpoint is an action too, so ``max_actions`` limits
    ``action_count - checkpoint_count``."""
    checkpoint_count: int = 0
    unmarked: int = 0
    """How many actions there are since the last checkpoint."""
    held: Held = NOTHING_HELD

    def summary(self) -> SessionSummary:
        """The session, as ``list_sessions`` returns it."""
        info = self.info
        return SessionSummary(
            session_id=info.session_id,
            name=info.name,
            created_ns=info.created_ns,
            ended_ns=self.ended_ns,
            action_count=self.action_count,
            checkpoint_count=self.checkpoint_count,
            duration_ns=max(0, self.last_ns - info.created_ns),
            fork=info.fork,
        )
