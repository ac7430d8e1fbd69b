"""``decide(state, command, now, known) -> (events, answer)``, or an error: pure, changes nothing.

``known`` maps the digest of stored content to the sequence of the event that holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol
from uuid import UUID

from ..config import DEFAULT_RECORDING, recording_config
from ..errors import (
    FrameNotFoundError,
    InvalidValueError,
    NoActiveSessionError,
    SessionActiveError,
    SessionEndedError,
    SessionNotFoundError,
)
from ..events.content import Content, StoredContent, content_digest
from ..events.decided import DecidedAction, DecidedEvent
from ..events.details import ActionKind
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
from ..events.frames import (
    FRAME_FIELDS,
    FrameDeleted,
    FramePut,
    FramesPut,
    FrameUpdated,
    KeptFrame,
    MemoryConfigured,
)
from ..events.frozen_dict import FrozenDict
from .commands import (
    AddEmbeddings,
    ChangeCollection,
    ChangeMemory,
    Command,
    CreateCheckpoint,
    DeleteSession,
    EndSession,
    LargeContent,
    NewFrame,
    OnlyOnce,
    Prepared,
    RecordAction,
    ResumeSession,
    SessionChoice,
    SetEmbeddingModel,
    StartSession,
    StoreParts,
)
from .decide_keys import change_collection, once
from .held_messages import keep_messages
from .memory_state import NO_FRAMES, MemoryState, fold_memory
from .persistent_map import PersistentMap
from .recent_keys import RecentKeys
from .session_state import SessionState
from .state import State


class Known(Protocol):
    """What is known of the log besides the folded state: which contents it holds, which keys of
    collections changed last."""

    @property
    def recent_keys(self) -> RecentKeys:
        """The keys that changed last."""
        ...

    def used_key(self, key_hash: bytes, /) -> tuple[bytes, int] | None:
        """Return what an idempotency key came with (a hash), and the sequence of its answer."""
        ...

    def get(self, digest: bytes, /) -> int | None:
        """Return the sequence of the event that stored the content with this digest, or None."""


Decision = tuple[list[DecidedEvent], Any]
_new = tuple.__new__


def decide(state: State, command: Command, now: int, known: Known) -> Decision:
    """Return the command's events, in order, and the answer that its caller gets when they are
    durable.

    The answer is the recorded :class:`Action`, also for a checkpoint, or None when nothing is
    recorded; the number of the session that was started or resumed; or the :class:`SessionState`
    of the session that was ended or deleted; the sequence of the event that changed a collection.

    :raises MemvidAsyncError: when the command does not fit the state.
    """
    if isinstance(command, RecordAction):
        return _record(state, command, now, known)
    if isinstance(command, ChangeMemory):
        return _change(state, command, now, known)
    if isinstance(command, OnlyOnce):
        return once(state, command, known.used_key, lambda: _inner(state, command, now, known))
    if isinstance(command, ChangeCollection):
        return change_collection(state, command, now, known.recent_keys)
    if isinstance(command, StoreParts):
        return _store(state, command, now, known)
    return _DECIDERS[type(command)](state, command, now)


def _inner(state: State, command: OnlyOnce, now: int, known: Known) -> Decision:
    inner = command.command
    decider = _record if isinstance(inner, RecordAction) else _change
    return decider(state, inner, now, known)  # type: ignore[arg-type]


def _chosen_session(state: State, choice: SessionChoice) -> SessionState | None:
    """Return the session that a command is for; None when it names none and none is in force.

    :raises SessionEndedError: when it names a session that has ended or was deleted.
    """
    if not isinstance(choice, int):
        return state.in_force(choice)
    session = state.sessions.open.get(choice)
    if session is None:
        raise SessionEndedError(state.sessions.session_id(choice))
    return session


def _need_session(state: State, choice: SessionChoice) -> SessionState:
    session = _chosen_session(state, choice)
    if session is None:
        raise NoActiveSessionError("no session is active; start one with start_session()")
    return session


def _record(state: State, command: RecordAction, now: int, known: Known) -> Decision:
    session = _chosen_session(state, command.session)
    if session is None:
        return [], None
    info, index = session.info, session.action_count
    events: list[DecidedEvent] = []
    fields = command[1:]
    small = type(command.input) is not LargeContent and type(command.output) is not LargeContent
    if command.messages is not None or not small:
        fields = _stored(command, session, _NewContents(state.last_sequence, now, known, events))
    sequence = state.last_sequence + len(events) + 1
    values = _new(DecidedAction, (index, sequence, now, *fields))
    events.append(_new(DecidedEvent, (sequence, now, info.session_id, values, info.number)))
    if info.config is not DEFAULT_RECORDING:
        _follow_up(state, session, events)
    return events, action_of(values)


def _stored(
    command: RecordAction, session: SessionState, contents: _NewContents
) -> tuple[Any, ...]:
    """Return the fields of an action from its kind on, with its large contents and its messages as
    they are kept."""
    _, kind, detail, input_data, output_data, *others, messages = command
    input_content = None if input_data is None else contents.content(input_data)
    output_content = None if output_data is None else contents.content(output_data)
    stored = None
    if messages is not None:
        index, store = session.action_count, contents.store_string
        stored = keep_messages(session.held, messages, index, input_content, output_content, store)
    return (kind, detail, input_content, output_content, *others, stored)


def _store(state: State, command: StoreParts, now: int, known: Known) -> Decision:
    events: list[DecidedEvent] = []
    contents = _NewContents(state.last_sequence, now, known, events)
    return events, [contents.content(part) for part in command.parts]


def _change(state: State, command: ChangeMemory, now: int, known: Known) -> Decision:
    """Change the memory. The answer: the ids of the frames, and the recorded action or None; or
    None where what is to be replaced must be looked for again."""
    session = _chosen_session(state, command.session)
    number = session.info.number if session is not None else 0
    if command.memory_hash not in (None, state.memory.summary(number)[1]):
        return [], None
    events: list[DecidedEvent] = []
    contents = _NewContents(state.last_sequence, now, known, events)
    ids, content = _change_frames(state.memory, command, number, contents)
    if session is None:
        return events, (list(ids), None)
    # Directly after the event of the frames.
    sequence = state.last_sequence + len(events) + 1
    values = DecidedAction(
        session.action_count,
        sequence,
        now,
        command.kind,
        (),
        _kept_by(content, sequence - 1),
        None,
        ids,
        command.duration_ms,
        command.task,
        None,
        command.metadata,
        None,
        None,
        0,
        None,
    )
    folded = state
    if session.info.config is not DEFAULT_RECORDING:
        folded = _folded(state, number, events)
    events.append(DecidedEvent(sequence, now, session.info.session_id, values, number))
    if session.info.config is not DEFAULT_RECORDING:
        _follow_up(folded, session, events)
    return events, (list(ids), action_of(values))


def _change_frames(
    memory: MemoryState, command: ChangeMemory, number: int, contents: _NewContents
) -> tuple[tuple[int, ...], Content | None]:
    """Add the events that change the memory.

    The event of the frames is the last one. Returns their ids, and the content of a single frame.
    """
    branch = number if number in memory.branches else 0
    if not command.frames and not memory.holds(command.frame_id, branch):
        raise FrameNotFoundError(command.frame_id)
    configured = _configuration(memory, command)
    if configured is not None:
        contents.add(configured)
    content: Content | None = None
    if command.frames:
        first, new = memory.last_frame + 1, command.frames
        kept = (
            one if type(one) is str else _kept(one, contents, first + at, branch)  # type: ignore[arg-type]
            for at, one in enumerate(new)
        )
        for frame_id in command.replaced:
            contents.add(FrameDeleted(frame_id, branch))
        put = FramesPut(first, tuple(kept), branch)
        contents.add(put)
        if command.kind is ActionKind.PUT:
            content = put[0].content  # type: ignore[union-attr]
        return tuple(range(first, first + len(new))), content
    if command.kind is ActionKind.DELETE:
        contents.add(FrameDeleted(command.frame_id, branch))
        return (command.frame_id,), None
    changes = dict(command.changes)
    if "content" in changes:
        content = changes["content"] = contents.content(changes["content"])
    contents.add(FrameUpdated(command.frame_id, FrozenDict(changes), branch))
    return (command.frame_id,), content


def _kept(new: NewFrame, contents: _NewContents, frame_id: int, branch: int) -> KeptFrame:
    """Return a new frame as the event keeps it."""
    content = contents.content(new.content)
    if content.data is not None and not _has_fields(new):
        return content.data
    values = {name: getattr(new, name) for name in FRAME_FIELDS[1:]}
    return FramePut(frame_id, content, branch=branch, **values)


def _has_fields(new: NewFrame) -> bool:
    """Whether a new frame is more than its content. An empty title is a title."""
    return (
        new.title is not None
        or new.uri is not None
        or new.media_type is not None
        or bool(new.tags)
        or bool(new.metadata)
        or new.embedding is not None
        or new.embedding_model is not None
    )


def _configuration(memory: MemoryState, command: ChangeMemory) -> MemoryConfigured | None:
    """Return the event that says how the memory is searched, if it is needed for the first time.

    :raises InvalidValueError: when an embedding is of another model or dimension.
    """
    embeddings = [
        (new.embedding, new.embedding_model) for new in command.frames if not isinstance(new, str)
    ]
    if "embedding" in command.changes:
        model = command.changes.get("embedding_model")
        embeddings.append((command.changes["embedding"], model))
    analyser = memory.analyser or command.analyser
    held, dimension = memory.embedding_model, memory.dimension
    for embedding, model in embeddings:
        if embedding is None:
            continue
        if not dimension:
            held, dimension = model, len(embedding) // 4
        elif (model, len(embedding) // 4) != (held, dimension):
            raise InvalidValueError(
                f"the memory holds embeddings of model {held!r} with {dimension} dimensions; "
                f"this one is of {model!r} with {len(embedding) // 4}"
            )
    if memory.analyser is not None and dimension == memory.dimension:
        return None
    return MemoryConfigured(analyser, held, dimension)


def _kept_by(content: Content | None, sequence: int) -> Content | None:
    """Return content as an action refers to it when the frame event ``sequence`` holds it."""
    if content is None or content.stored is not None:
        return content
    return Content(None, StoredContent(content.digest, content.size, content.preview, sequence))


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


class _NewContents:
    """The contents of one command. What the log does not hold yet becomes events of its own."""

    __slots__ = ("_events", "_known", "_last", "_new", "_now")

    def __init__(self, last: int, now: int, known: Known, events: list[DecidedEvent]) -> None:
        self._last = last
        self._now = now
        self._known = known
        self._events = events
        self._new: dict[bytes, int] = {}

    def content(self, data: Prepared | Content) -> Content:
        if isinstance(data, Content):
            # Its parts are in the log already.
            return data
        if type(data) is not LargeContent:
            return Content(data)  # type: ignore[arg-type]
        sequence = self._store(data.digest, data.size, data.data)
        return Content(None, StoredContent(data.digest, data.size, data.preview, sequence))

    def store_string(self, data: str | bytes) -> int:
        size = len(data.encode()) if isinstance(data, str) else len(data)
        return self._store(content_digest(data), size, data)

    def _store(self, digest: bytes, size: int, data: str | bytes) -> int:
        sequence = self._known.get(digest)
        if sequence is None:
            sequence = self._new.get(digest)
        if sequence is None:
            # It belongs to no session, because others may refer to it later.
            sequence = self._new[digest] = self.add(ContentStored(digest, size, data))
        return sequence

    def add(self, payload: Payload) -> int:
        """Add an event that belongs to no session, and return its sequence."""
        sequence = self._last + len(self._events) + 1
        self._events.append(DecidedEvent(sequence, self._now, None, payload))
        return sequence


def _follow_up(state: State, session: SessionState, events: list[DecidedEvent]) -> None:
    """Add the checkpoint that is due after the action, and the end that ``max_actions`` sets."""
    config = session.info.config
    interval, most = config.auto_checkpoint_interval, config.max_actions
    if interval and session.unmarked + 1 >= interval:
        last = events[-1]
        payload = _checkpoint(
            state, session, session.action_count + 1, last.sequence + 1, last.time_ns, None
        )
        events.append(_after(last, payload))
    if most is not None and session.action_count - session.checkpoint_count + 1 >= most:
        events.append(_after(events[-1], SessionEnded()))


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
    return make_checkpoint(session.checkpoint_count, index, sequence, now, snapshot, task)


def _start(state: State, command: StartSession, now: int) -> Decision:
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


def _end(state: State, command: EndSession, now: int) -> Decision:
    number = command.session
    if isinstance(number, UUID):
        found = state.find(number)
        if found is None:
            raise SessionNotFoundError(number)
        number = found.info.number
    session = _need_session(state, () if number is None else number)
    return [_first(state, session, now, SessionEnded(command.error))], session


def _resume(state: State, command: ResumeSession, _now: int) -> Decision:
    session = state.find(command.session_id)
    if session is None:
        raise SessionNotFoundError(command.session_id)
    if session.ended_ns is not None:
        raise SessionEndedError(command.session_id)
    return [], session.info.number


def _delete(state: State, command: DeleteSession, now: int) -> Decision:
    session = state.find(command.session_id)
    if session is None:
        raise SessionNotFoundError(command.session_id)
    return [_first(state, session, now, SessionDeleted())], session


def _mark(state: State, command: CreateCheckpoint, now: int) -> Decision:
    session = _need_session(state, command.session)
    payload = _checkpoint(
        state, session, session.action_count, state.last_sequence + 1, now, command.task
    )
    return [_first(state, session, now, payload)], payload.action


def _add_embeddings(state: State, command: AddEmbeddings, now: int) -> Decision:
    """Keep embeddings. The answer: the sequence of the first event of the move."""
    sequence = state.last_sequence + 1
    payload = pack_embeddings(command.move, command.made)
    return [DecidedEvent(sequence, now, None, payload)], command.move or sequence


def _set_model(state: State, command: SetEmbeddingModel, now: int) -> Decision:
    """Set the embedding model. The answer: the sequence of the event, or None where the memory
    changed in the meantime."""
    if (command.hashes, command.generation) != (state.memory.hashes(), state.generation):
        return [], None
    sequence = state.last_sequence + 1
    payload = EmbeddingModelSet(command.model, command.dimension, command.move, command.digest)
    return [DecidedEvent(sequence, now, None, payload)], sequence


_DECIDERS: dict[type, Callable[[State, Any, int], Decision]] = {
    AddEmbeddings: _add_embeddings,
    SetEmbeddingModel: _set_model,
    StartSession: _start,
    EndSession: _end,
    ResumeSession: _resume,
    DeleteSession: _delete,
    CreateCheckpoint: _mark,
}
