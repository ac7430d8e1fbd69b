"""What a store held at an earlier moment, folded again from the log. Synchronous, as the reader."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from .errors import CheckpointNotFoundError, SessionNotFoundError
from .events import CheckpointCreated, Event, Session
from .model.evolve import evolve
from .model.projection import project_session
from .model.state import State
from .reader import View


def history(view: View, until: int) -> Iterator[tuple[State, Event]]:
    """Every event up to the sequence ``until``, with the state after it."""
    state = State(generation=view.state.generation)
    for segment in view.reader.segments(view):
        if segment.sequence > until:
            return
        for event in view.reader.decode(segment, state, view.end):
            if event.sequence > until:
                return
            state = evolve(state, event)
            yield state, event


def state_at(view: View, sequence: int) -> State:
    """The folded state after the event with this sequence."""
    state = State(generation=view.state.generation)
    for folded, _ in history(view, sequence):
        state = folded
    return state


def session_at(view: View, session_id: UUID, sequence: int) -> Session:
    """A session as far as it was recorded at a moment, deleted since or not.

    :raises SessionNotFoundError: when there was none with this id.
    """
    found = view.state.find(session_id)
    if found is not None and found.info.number > sequence:
        raise SessionNotFoundError(session_id)
    if found is not None:
        events = view.reader.session_history(view, found.info.number)
        return project_session(
            found, [e for e in events if e.sequence <= sequence], view.reader.version
        )
    events, state = [], State()
    for state, event in history(view, sequence):  # noqa: B007 - the last one is needed
        if event.session_id == session_id:
            events.append(event)
    found = state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    return project_session(found, events, view.reader.version)


def sequence_at(view: View, time_ns: int) -> int:
    """The last event that had happened at a time; 0 when none had."""
    low, high = 0, view.state.last_sequence
    while low < high:
        middle = (low + high + 1) // 2
        if view.reader.time_of(view, middle) <= time_ns:
            low = middle
        else:
            high = middle - 1
    return low


def session_moment(view: View, session_id: UUID, checkpoint_id: int | None) -> tuple[int, int]:
    """The number of a session, and the last event before one of its checkpoints (None: of its last
    event).

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is none.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number = found.info.number
    events = view.reader.session_history(view, number)
    if checkpoint_id is None:
        return number, events[-1].sequence if events else number
    for event in events:
        payload = event.payload
        if isinstance(payload, CheckpointCreated) and (
            payload.checkpoint.checkpoint_id == checkpoint_id
        ):
            return number, payload.checkpoint.snapshot.log_sequence
    raise CheckpointNotFoundError(f"session {session_id} has no checkpoint {checkpoint_id}")
