"""``decide(state, command, now, known) -> (events, answer)``, or an error: pure, changes nothing.

``known`` maps the digest of stored content to the sequence of the event that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from ..config import DEFAULT_RECORDING, recording_config
from ..errors import (
    InvalidValueError,
    LimitExceededError,
    NoActiveSessionError,
    SessionActiveError,
    SessionEndedError,
    SessionNotFoundError,
)
from ..events.calls import CallFacts, SessionChanged
from ..events.decided import DecidedAction, DecidedEvent, DecidedStart, Extras
from ..events.embeddings import EmbeddingModelSet, pack_embeddings
from ..events.event import (
    CheckpointCreated,
    ContentStored,
    Payload,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    StateSnapshot,
    action_of,
    make_checkpoint,
)
from .commands import (
    AddEmbeddings,
    ChangeCollection,
    ChangeMemory,
    ChangeSession,
    Command,
    CreateCheckpoint,
    DeleteSession,
    EndSession,
    LargeContent,
    NoteEvent,
    OnlyOnce,
    RecordAction,
    ResumeSession,
    SessionChoice,
    SetEmbeddingModel,
    StartAction,
    StartSession,
    StoreParts,
)
from .decide_frames import change_frames, kept_by
from .decide_keys import change_collection, once
from .held_messages import keep_messages
from .memory_state import NO_FRAMES, fold_memory
from .new_contents import Known, NewContents
from .persistent_map import PersistentMap
from .session_state import SessionState, encode_map
from .state import State

Decision = tuple[list[DecidedEvent], Any]
_new = tuple.__new__


def decide(state: State, command: Command, now: int, known: Known) -> Decision:
    """Return the command's events, in order, and the answer that its caller gets when they are
    durable.

    The answer is the recorded :class:`Action`, also for a checkpoint, or None when nothing is
    recorded; the sequence of a call's first start; the number of the session that was started or
    resumed; or the :class:`SessionState` of the session that was ended, changed or deleted; the
    sequence of the event that changed a collection.

    :raises MemvidAsyncError: when the command does not fit the state.
    """
    return _DECIDERS[type(command)](state, command, now, known)


def _once(state: State, command: OnlyOnce, now: int, known: Known) -> Decision:
    return once(state, command, known.used_key, lambda: decide(state, command.command, now, known))


def _change_keys(state: State, command: ChangeCollection, now: int, known: Known) -> Decision:
    return change_collection(state, command, now, known.recent_keys)


def _chosen_session(
    state: State, choice: SessionChoice, *, even_full: bool = False
) -> SessionState | None:
    """Return the session that a command is for; None when it names none and none is in force.

    ``even_full``: also one that takes no more actions; the end of a call that has begun is taken.

    :raises SessionEndedError: when it names a session that has ended or was deleted, or that takes
        no more actions.
    """
    if type(choice) is not int:
        return state.in_force(choice)
    session = state.sessions.open.get(choice)
    # The config first: looking at it takes a third of asking the session.
    if session is None or (
        session.info.config is not DEFAULT_RECORDING and session.is_full and not even_full
    ):
        raise SessionEndedError(state.sessions.session_id(choice))
    return session


def _first_choice(choice: SessionChoice) -> int:
    return choice if isinstance(choice, int) else choice[0]


def _need_session(state: State, choice: SessionChoice) -> SessionState:
    session = _chosen_session(state, choice, even_full=True)
    if session is None:
        raise NoActiveSessionError("no session is active; start one with start_session()")
    return session


def _record(state: State, command: RecordAction, now: int, known: Known) -> Decision:
    choice, kind, fields, extras = command
    ends_call = extras is not None and extras.call is not None and extras.call.started is not None
    session = _chosen_session(state, choice, even_full=ends_call)
    if session is None:
        return [], None
    info, sequence = session.info, state.last_sequence + 1
    events: list[DecidedEvent] = []
    if extras is not None or type(fields[0]) is LargeContent or type(fields[1]) is LargeContent:
        contents = NewContents(state.last_sequence, now, known, events)
        fields, extras = _stored(command, session, contents)
        sequence += len(events)
    values = _new(
        DecidedAction,
        (info.session_id, session.action_count, sequence, now, kind, fields, extras),
    )
    events.append(_new(DecidedEvent, (sequence, now, info.session_id, values, info.number)))
    if info.config is not DEFAULT_RECORDING:
        _follow_up(state, session, events, counts=not ends_call)
    return events, action_of(values)


def _stored(
    command: RecordAction, session: SessionState, contents: NewContents
) -> tuple[tuple[Any, ...], Extras | None]:
    """Return the fields and the extras of an action as they are kept: what is large is stored."""
    given, output, *others = command.fields
    extras = command.extras
    if extras is not None and extras.call is not None:
        call = _with_call(extras.call, command.session, session, contents)
        extras = _new(Extras, (*extras[:5], call, extras.conversion))
        extras = extras if call is not None else extras.or_none()
    given = None if given is None else contents.content(given)
    output = None if output is None else contents.content(output)
    if extras is not None and extras.messages is not None:
        held, index, store = session.held, session.action_count, contents.store_string
        kept = keep_messages(held, extras.messages, index, given, output, store)
        extras = extras._replace(messages=kept)
    return (given, output, *others), extras


def _with_call(
    call: CallFacts, choice: SessionChoice, session: SessionState, contents: NewContents
) -> CallFacts | None:
    """Return the end of a call with when that began, and with what came from the network."""
    if call.started is not None:
        began_ns = session.in_flight.get(call.started)
        if began_ns is None:
            raise InvalidValueError(f"call {call.started} is not in flight: it ended before")
        call = _new(CallFacts, (call.started, began_ns, *call[2:]))
    elif call.raw is None and choice and _first_choice(choice) != session.info.number:
        # The step that it is in is part of a session that is not in force any more.
        return None
    if call.raw is not None:
        # It is prepared, and not yet a content of an event.
        call = call._replace(raw=contents.content(call.raw))
    return call


def _begin(state: State, command: StartAction, now: int, known: Known) -> Decision:
    number, first = command.session, command.first
    session = state.sessions.open.get(number)
    if session is None or session.info.config is not DEFAULT_RECORDING:
        session = _chosen_session(state, number, even_full=first is not None)
        assert session is not None
    info = session.info
    if first is not None and first not in session.in_flight:
        raise InvalidValueError(f"call {first} is not in flight: it has ended")
    events: list[DecidedEvent] = []
    given: Any = command.input
    if type(given) is LargeContent:
        given = NewContents(state.last_sequence, now, known, events).content(given)
    sequence = state.last_sequence + len(events) + 1
    values = _new(
        DecidedStart,
        (sequence, now, info.session_id, command.kind, command.detail, given, *command[4:]),
    )
    events.append(_new(DecidedEvent, (sequence, now, info.session_id, values, info.number)))
    if first is None and info.config is not DEFAULT_RECORDING:
        _mark_if_due(state, session, session.action_count, events)
    return events, first or sequence


def _note(state: State, command: NoteEvent, now: int, _: Known) -> Decision:
    session = _chosen_session(state, command.session, even_full=True)
    assert session is not None
    return [_first(state, session, now, command.note)], state.last_sequence + 1


def _rename(state: State, command: ChangeSession, now: int, _: Known) -> Decision:
    session = state.find(command.session_id)
    if session is None:
        raise SessionNotFoundError(command.session_id)
    added = command.changes.get("metadata")
    if added:
        size = len(encode_map({**session.info.read_metadata(), **added}))
        if size > command.most_bytes:
            raise LimitExceededError("value_bytes", size, command.most_bytes)
    return [_first(state, session, now, SessionChanged(command.changes))], session


def _store(state: State, command: StoreParts, now: int, known: Known) -> Decision:
    events: list[DecidedEvent] = []
    contents = NewContents(state.last_sequence, now, known, events)
    return events, [contents.content(part) for part in command.parts]


def _change(state: State, command: ChangeMemory, now: int, known: Known) -> Decision:
    """Change the memory. The answer: the ids of the frames, and the recorded action or None; or
    None where what is to be replaced must be looked for again."""
    session = _chosen_session(state, command.session)
    number = session.info.number if session is not None else 0
    if command.memory_hash not in (None, state.memory.summary(number)[1]):
        return [], None
    events: list[DecidedEvent] = []
    contents = NewContents(state.last_sequence, now, known, events)
    ids, content = change_frames(state.memory, command, number, contents)
    if session is None:
        return events, (list(ids), None)
    # Directly after the event of the frames.
    sequence = state.last_sequence + len(events) + 1
    kept = kept_by(content, sequence - 1)
    values = DecidedAction(
        session.info.session_id,
        session.action_count,
        sequence,
        now,
        command.kind,
        (kept, None, command.duration_ms, ids or None, command.task),
        Extras(metadata=command.metadata, call=command.call).or_none(),
    )
    folded = state
    if session.info.config is not DEFAULT_RECORDING:
        folded = _folded(state, number, events)
    events.append(DecidedEvent(sequence, now, session.info.session_id, values, number))
    if session.info.config is not DEFAULT_RECORDING:
        _follow_up(folded, session, events)
    return events, (list(ids), action_of(values))


def _folded(state: State, number: int, events: Sequence[DecidedEvent]) -> State:
    """Return the state with what the events do to the memory, which their checkpoint records.

    Its maps hold only what a summary reads. The fold will change the real ones, and changing a map
    costs as much as a dict the first time, but a copy the second time.
    """
    memory = state.memory
    own = memory.branches.get(number)
    branches = {} if own is None else {number: own._replace(gone=NO_FRAMES)}
    memory = memory._replace(gone=NO_FRAMES, owners=NO_FRAMES, branches=PersistentMap(branches))
    for event in events:
        if not isinstance(event.payload, ContentStored):
            memory = fold_memory(memory, event)
    return state._replace(memory=memory)


def _follow_up(
    state: State, session: SessionState, events: list[DecidedEvent], *, counts: bool = True
) -> None:
    """Add the checkpoint that is due after the action, and the end that ``max_actions`` sets.

    ``counts``: whether the action counts towards the interval; a call's did when it began.
    """
    if counts:
        _mark_if_due(state, session, session.action_count + 1, events)
    most = session.info.config.max_actions
    if most is not None and session.action_count - session.checkpoint_count + 1 >= most:
        events.append(_after(events[-1], SessionEnded()))


def _mark_if_due(
    state: State, session: SessionState, index: int, events: list[DecidedEvent]
) -> None:
    """Add the checkpoint that is due after one more action or start; ``index``: its own."""
    interval = session.info.config.auto_checkpoint_interval
    if interval and session.unmarked + 1 >= interval:
        last = events[-1]
        payload = _checkpoint(state, session, index, last.sequence + 1, last.time_ns, None)
        events.append(_after(last, payload))


def _after(last: DecidedEvent, payload: Payload) -> DecidedEvent:
    """Return the event that follows ``last`` in the same command and session."""
    return DecidedEvent(last.sequence + 1, last.time_ns, last.session_id, payload, last.session)


def _first(state: State, session: SessionState, now: int, payload: Payload) -> DecidedEvent:
    """Return the only event of a command, in the session."""
    info = session.info
    return DecidedEvent(state.last_sequence + 1, now, info.session_id, payload, info.number)


def _checkpoint(
    state: State, session: SessionState, index: int, sequence: int, now: int, task: str | None
) -> CheckpointCreated:
    frame_count, memory_hash = state.memory.summary(session.info.number)
    snapshot = StateSnapshot(
        frame_count=frame_count,
        memory_hash=memory_hash,
        log_sequence=sequence - 1,
        generation=state.generation,
    )
    session_id = session.info.session_id
    return make_checkpoint(
        session_id, session.checkpoint_count, index, sequence, now, snapshot, task
    )


def _start(state: State, command: StartSession, now: int, _: Known) -> Decision:
    if command.ambient and state.ambient is not None:
        if command.if_none:
            return [], state.ambient
        raise SessionActiveError(
            f"session {state.sessions[state.ambient].info.session_id} is active; end it first"
        )
    if state.find(command.session_id) is not None:
        raise InvalidValueError(f"id_factory returned {command.session_id}, which is in use")
    sequence = state.last_sequence + 1
    # Only what the file keeps of it, so that a fold of the file makes the same state.
    kept = recording_config(command.config.auto_checkpoint_interval, command.config.max_actions)
    fork = command.fork
    if fork is not None and fork.parent not in state.sessions:
        raise SessionNotFoundError(fork.parent_id)
    payload = SessionStarted(command.name, command.ambient, kept, command.metadata, fork)
    return [DecidedEvent(sequence, now, command.session_id, payload, sequence)], sequence


def _end(state: State, command: EndSession, now: int, _: Known) -> Decision:
    number = command.session
    if isinstance(number, UUID):
        found = state.find(number)
        if found is None:
            raise SessionNotFoundError(number)
        number = found.info.number
    number = state.ambient if number is None else number
    session = _need_session(state, () if number is None else number)
    return [_first(state, session, now, SessionEnded(command.error))], session


def _resume(state: State, command: ResumeSession, _now: int, _: Known) -> Decision:
    session = state.find(command.session_id)
    if session is None:
        raise SessionNotFoundError(command.session_id)
    if session.ended_ns is not None:
        raise SessionEndedError(command.session_id)
    return [], session.info.number


def _delete(state: State, command: DeleteSession, now: int, _: Known) -> Decision:
    session = state.find(command.session_id)
    if session is None:
        raise SessionNotFoundError(command.session_id)
    return [_first(state, session, now, SessionDeleted())], session


def _mark(state: State, command: CreateCheckpoint, now: int, _: Known) -> Decision:
    session = _need_session(state, command.session)
    payload = _checkpoint(
        state, session, session.action_count, state.last_sequence + 1, now, command.task
    )
    return [_first(state, session, now, payload)], payload.action


def _add_embeddings(state: State, command: AddEmbeddings, now: int, _: Known) -> Decision:
    """Keep embeddings. The answer: the sequence of the first event of the move."""
    sequence = state.last_sequence + 1
    payload = pack_embeddings(command.move, command.made)
    return [DecidedEvent(sequence, now, None, payload)], command.move or sequence


def _set_model(state: State, command: SetEmbeddingModel, now: int, _: Known) -> Decision:
    """Set the embedding model. The answer: the sequence of the event, or None where the memory
    changed in the meantime."""
    if (command.hashes, command.generation) != (state.memory.hashes(), state.generation):
        return [], None
    sequence = state.last_sequence + 1
    payload = EmbeddingModelSet(command.model, command.dimension, command.move, command.digest)
    return [DecidedEvent(sequence, now, None, payload)], sequence


_DECIDERS: dict[type, Callable[[State, Any, int, Known], Decision]] = {
    RecordAction: _record,
    StartAction: _begin,
    ChangeMemory: _change,
    OnlyOnce: _once,
    ChangeCollection: _change_keys,
    StoreParts: _store,
    AddEmbeddings: _add_embeddings,
    SetEmbeddingModel: _set_model,
    StartSession: _start,
    EndSession: _end,
    ResumeSession: _resume,
    DeleteSession: _delete,
    CreateCheckpoint: _mark,
    NoteEvent: _note,
    ChangeSession: _rename,
}
