"""The folded state: frozen values over persistent maps.

A reader keeps a state for as long as it likes, while the writer makes the next one. Two of these
values are made for each event. So they are named tuples, which Python makes in half the time of a
frozen attrs class.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from ..events.event import StateSnapshot
from .collections_state import NO_COLLECTIONS, CollectionsState
from .map_draft import MapDraft, settled_map
from .memory_state import MemoryState
from .persistent_map import PersistentMap
from .session_map import NO_SESSIONS, SessionMap
from .session_state import SessionState


class State(NamedTuple):
    """Everything that deciding needs.

    ``sessions``: by number, without deleted ones. ``numbers``: of each the number, by the bytes of
    its id.
    ``beyond``: whether there is an event that must be understood and that this release does not
    know; then it may only read the file.
    """

    last_sequence: int = 0
    last_time_ns: int = 0
    sessions: SessionMap = NO_SESSIONS
    numbers: PersistentMap[bytes, int] = PersistentMap()
    ambient: int | None = None
    generation: int = 0
    memory: MemoryState = MemoryState()
    beyond: bool = False
    collections: CollectionsState = NO_COLLECTIONS

    def find(self, session_id: UUID) -> SessionState | None:
        """Return the session with this id; None when there is none, or none any more."""
        number = self.numbers.get(session_id.bytes)
        return None if number is None else self.sessions[number]

    def in_force(self, sessions: Iterable[int] | int) -> SessionState | None:
        """Return the first of these sessions (numbers) that is open, else the ambient one. One that
        takes no more actions is passed over. Of a single number, return that session.

        None when there is neither.
        """
        if isinstance(sessions, int):
            named: SessionState | None = self.sessions.get(sessions)
            return named
        for number in (*sessions, self.ambient or 0):
            session = self.sessions.open.get(number)
            if session is not None and not session.is_full:
                return session
        return None

    def snapshot(self, number: int = 0) -> StateSnapshot:
        """Return what a checkpoint made now records, in the memory of the session ``number``."""
        frame_count, memory_hash = self.memory.summary(number)
        return StateSnapshot(frame_count, memory_hash, self.last_sequence, self.generation)


def drafted(state: State) -> State:
    """Return the state for a run of commands: folding events into it changes drafts of its maps.

    Only the thread that makes the run may see it, and the states folded from it.
    """
    opened, packed = MapDraft(state.sessions.open), MapDraft(state.sessions.packed)
    sessions = SessionMap(opened, packed)
    return state._replace(sessions=sessions, numbers=MapDraft(state.numbers))


def settled(state: State) -> State:
    """Return the state after a run for everybody: each of its maps has changed once."""
    opened, packed = settled_map(state.sessions.open), settled_map(state.sessions.packed)
    sessions = SessionMap(opened, packed)
    return state._replace(sessions=sessions, numbers=settled_map(state.numbers))
