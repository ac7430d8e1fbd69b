"""The folded state. Frozen values over persistent maps: a reader keeps a state for as long as it
likes, the writer makes the next one.

Two of them are made per event. They are named tuples, which Python makes in half the time of a
frozen attrs class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from attrs import frozen

from ..config import RecordingConfig
from ..events.event import SessionSummary, StateSnapshot
from ..events.frames import ForkPoint
from .memory_state import MemoryState
from .persistent_map import PersistentMap


@frozen
class SessionInfo:
    """What a session is from its start. ``number``: the sequence of its SessionStarted event."""

    number: int
    session_id: UUID
    name: str | None
    created_ns: int
    ambient: bool
    config: RecordingConfig
    fork: ForkPoint | None = None


# What a session's asks already hold: 16 bytes of a digest -> (action index, place in the action).
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


class State(NamedTuple):
    """Everything that deciding needs. ``sessions`` is keyed by number and holds no deleted one.

    ``beyond``: an event that must be understood was not; this release may only read the file.
    """

    last_sequence: int = 0
    last_time_ns: int = 0
    sessions: PersistentMap[int, SessionState] = PersistentMap()
    numbers: PersistentMap[UUID, int] = PersistentMap()
    ambient: int | None = None
    generation: int = 0
    memory: MemoryState = MemoryState()
    beyond: bool = False

    def find(self, session_id: UUID) -> SessionState | None:
        """The session with this id, or None when there is none (any more)."""
        number = self.numbers.get(session_id)
        return None if number is None else self.sessions[number]

    def in_force(self, sessions: Iterable[int]) -> SessionState | None:
        """The first of these sessions, given by number, that is open; else the ambient one, else
        None."""
        for number in (*sessions, self.ambient or 0):
            session = self.sessions.get(number)
            if session is not None and session.ended_ns is None:
                return session
        return None

    def snapshot(self, number: int = 0) -> StateSnapshot:
        """What a checkpoint made now would pin, in the memory of the session ``number``."""
        frame_count, memory_hash = self.memory.summary(number)
        return StateSnapshot(frame_count, memory_hash, self.last_sequence, self.generation)
