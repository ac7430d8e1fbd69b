"""The folded state: frozen values over persistent maps.

A reader keeps a state for as long as it likes, while the writer makes the next one. Two of these
values are made for each event. So they are named tuples, which Python makes in half the time of a
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


class State(NamedTuple):
    """Everything that deciding needs.

    ``sessions``: by number, without deleted ones. ``numbers``: of each session id its number.
    ``beyond``: whether there is an event that must be understood and that this release does not
    know; then it may only read the file.
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
        """Return the session with this id; None when there is none, or none any more."""
        number = self.numbers.get(session_id)
        return None if number is None else self.sessions[number]

    def in_force(self, sessions: Iterable[int]) -> SessionState | None:
        """Return the first of these sessions (numbers) that is open, else the ambient one.

        None when there is neither.
        """
        for number in (*sessions, self.ambient or 0):
            session = self.sessions.get(number)
            if session is not None and session.ended_ns is None:
                return session
        return None

    def snapshot(self, number: int = 0) -> StateSnapshot:
        """Return what a checkpoint made now records, in the memory of the session ``number``."""
        frame_count, memory_hash = self.memory.summary(number)
        return StateSnapshot(frame_count, memory_hash, self.last_sequence, self.generation)
