"""What a store held at an earlier moment, folded again from the log. All functions block."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from ..core.evolve import branched
from ..core.memory_state import MemoryState, fold_memory
from ..core.projection import project_session
from ..core.session_state import SessionState
from ..core.state import State
from ..engine.event_log import View
from ..engine.reading import find_checkpoint, history_parts, session_history
from ..errors import (
    CheckpointNotFoundError,
    ContentNotFoundError,
    InvalidValueError,
    SessionNotFoundError,
)
from ..events.calls import ActionStarted, SessionResumed
from ..events.event import Action, ActionRecorded, CheckpointCreated, Session
from ..events.frames import Context, ContextItem, ForkPoint, FramesPut, Version
from .body_text import text_of
from .folded import lineage_of


def state_at(view: View, sequence: int) -> State:
    """Return the folded state after the event with this sequence."""
    state = State(generation=view.state.generation)
    for folded, _ in view.history(sequence):
        state = folded
    return state


def session_at(view: View, session_id: UUID, sequence: int) -> Session:
    """Return a session as far as it was recorded at a moment, also if it was deleted since.

    :raises SessionNotFoundError: when there was none with this id.
    """
    found = view.state.find(session_id)
    if found is not None and found.info.number > sequence:
        raise SessionNotFoundError(session_id)
    if found is not None:
        history = session_history(view, found.info.number)
        return project_session(found, (e for e in history if e.sequence <= sequence), view.version)
    events, state = [], State()
    for state, event in view.history(sequence):  # noqa: B007 - the last one is needed
        if event.session_id == session_id:
            events.append(event)
    found = state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    return project_session(found, events, view.version)


def memory_at(view: View, sequence: int) -> MemoryState:
    """Return the state of the memory, and of all its branches, after an event."""
    events = view.memory_events(sequence, 2**63)
    if next(events, None) is None:
        return view.state.memory
    memory = MemoryState()
    for number in sorted(view.state.memory.branches):
        session = view.state.sessions.get(number)
        if session is not None and session.info.fork is not None:
            memory = branched(memory, number, session.info.fork)
    for event, _ in view.memory_events(0, sequence):
        memory = fold_memory(memory, event)
    return memory


def fork_point(
    view: View, session_id: UUID, checkpoint_id: int | None, action_index: int | None
) -> tuple[SessionState, ForkPoint]:
    """Return a session, and the point where a fork leaves it.

    That is after a checkpoint, after an action, or after the last one so far when both are None.

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
    :raises InvalidValueError: when the session has no such action.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number = found.info.number
    place = _place_of(view, number, checkpoint_id, action_index)
    if place is None and checkpoint_id is not None:
        raise CheckpointNotFoundError(session_id, checkpoint_id)
    if place is None:
        raise InvalidValueError(f"session {session_id} has no action {action_index}")
    sequence, actions, checkpoints, in_flight = place
    memory = memory_at(view, sequence)
    branch = number if number in memory.branches else 0
    count, digest = memory.summary(branch)
    return found, ForkPoint(
        parent=number,
        parent_id=session_id,
        sequence=sequence,
        action_count=actions,
        checkpoint_count=checkpoints,
        branch=branch,
        last_frame=memory.last_frame,
        frame_count=count,
        memory_hash=digest,
        in_flight=tuple(sorted(in_flight.items())),
    )


def _place_of(
    view: View, number: int, checkpoint_id: int | None, action_index: int | None
) -> tuple[int, int, int, dict[int, int]] | None:
    """Return the sequence of a checkpoint or an action in a session's history; by default of the
    last action. With it, how many actions and checkpoints the history holds up to there, and the
    calls that are in flight there: for the sequence of each one's start, its time.

    None when it is not there. Parents are read one by one, until it is found.
    """
    wants_last = checkpoint_id is None and action_index is None
    for fork, events in history_parts(view, number):
        sequence, actions, checkpoints = number, 0, 0
        in_flight: dict[int, int] = {}
        if fork is not None:
            sequence, in_flight = fork.sequence, dict(fork.in_flight)
            actions, checkpoints = fork.action_count, fork.checkpoint_count
        for event in events:
            payload = event.payload
            if isinstance(payload, ActionStarted):
                in_flight.setdefault(payload.call, event.time_ns)
            elif isinstance(payload, SessionResumed):
                in_flight.update(payload.reopened)
            if not isinstance(payload, (ActionRecorded, CheckpointCreated)):
                continue
            sequence, actions = event.sequence, payload.action.index + 1
            in_flight.pop(payload.action.started or 0, None)
            is_there = actions - 1 == action_index
            if isinstance(payload, CheckpointCreated):
                checkpoints += 1
                is_there = is_there or payload.checkpoint.checkpoint_id == checkpoint_id
            if is_there:
                return sequence, actions, checkpoints, in_flight
        if wants_last:
            return sequence, actions, checkpoints, in_flight
    return None


def sequence_at(view: View, time_ns: int) -> int:
    """Return the sequence of the last event whose time is not later than ``time_ns``; 0 for none.

    A clock may have stepped back, so the log is looked through from its end, in parts that grow: a
    recent moment costs little, and any other at most a third more than reading the log once.
    """
    until, step = view.state.last_sequence, 1024
    while until > 0:
        after = max(0, until - step)
        found = [sequence for sequence, then in view.times(after, until) if then <= time_ns]
        if found:
            return found[-1]
        until, step = after, step * 4
    return 0


def session_moment(view: View, session_id: UUID, checkpoint_id: int | None) -> tuple[int, int]:
    """Return a session's number, and the sequence of the last event before one of its checkpoints.

    With ``checkpoint_id`` None, it is the sequence of the session's last event.

    :raises SessionNotFoundError, CheckpointNotFoundError: when there is no such one.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    number = found.info.number
    if checkpoint_id is None:
        last = next(view.session_events_back(number), None)
        return number, last[-1].sequence if last else number
    found_there = find_checkpoint(view, number, checkpoint_id)
    if found_there is None:
        raise CheckpointNotFoundError(session_id, checkpoint_id)
    return number, found_there.checkpoint.snapshot.log_sequence


def context_of(view: View, action: Action) -> Context:
    """Return what an action retrieved, frames as they were then; erased ones have no text."""
    retrieval = action.retrieval
    assert retrieval is not None
    bodies = [_body(view, version) for version in retrieval.versions]
    types: dict[int, str | None] = {}
    if any(isinstance(body, bytes) for body in bodies):
        types = _media_types(view, action)
    ids = action.affected_frames
    return Context(
        tuple(
            ContextItem(
                frame_id, score, None if body is None else text_of(body, types.get(frame_id))
            )
            for frame_id, score, body in zip(ids, retrieval.scores, bodies, strict=False)
        )
    )


def _body(view: View, version: Version) -> str | bytes | None:
    content = view.frame_content_of(version)
    try:
        return None if content is None else view.value(content)
    except ContentNotFoundError:
        return None


def _media_types(view: View, action: Action) -> dict[int, str | None]:
    """Return the media types that the frames of an action had when it searched."""
    retrieval, wanted = action.retrieval, set(action.affected_frames)
    assert retrieval is not None
    number = view.session_number(action)
    until = dict(lineage_of(view.state, number, retrieval.as_of))
    types: dict[int, str | None] = {}
    for event, _ in view.memory_events(0, retrieval.as_of):
        payload: Any = event.payload
        if event.sequence > until.get(getattr(payload, "branch", -1), 0):
            continue
        if isinstance(payload, FramesPut):
            for frame_id in wanted.intersection(payload.frame_ids):
                frame = payload[frame_id - payload.frame_id]
                types[frame_id] = getattr(frame, "media_type", None)
        elif payload.frame_id in wanted and "media_type" in getattr(payload, "changes", {}):
            types[payload.frame_id] = payload.changes["media_type"]
    return types
