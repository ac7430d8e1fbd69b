"""``decide(state, command, now, known) -> (events, answer)``, or an error: pure, nothing changed.

``known`` maps the digest of stored content to the sequence of the event that holds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from uuid import UUID

from ..errors import (
    InvalidValueError,
    NoActiveSessionError,
    SessionActiveError,
    SessionEndedError,
    SessionNotFoundError,
)
from ..events import (
    Action,
    ActionKind,
    ActionRecorded,
    AskDetails,
    Checkpoint,
    CheckpointCreated,
    CheckpointDetails,
    Content,
    ContentStored,
    DeleteDetails,
    Details,
    Event,
    FindDetails,
    Payload,
    PutDetails,
    PutManyDetails,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    StateSnapshot,
    ToolCallDetails,
    UpdateDetails,
    content_digest,
)
from .commands import (
    Command,
    CreateCheckpoint,
    DeleteSession,
    EndSession,
    Prepared,
    RecordAction,
    ResumeSession,
    StartSession,
)
from .messages import keep_messages
from .state import SessionState, State


class Known(Protocol):
    """Which contents the file holds."""

    def get(self, digest: bytes, /) -> int | None:
        """The sequence of the event that stored the content with this digest."""


Decision = tuple[list[Event], Any]


def decide(state: State, command: Command, now: int, known: Known) -> Decision:
    """The command's events, in order, and the answer its caller gets once they are durable.

    The answer is the :class:`Action` recorded, a checkpoint's too (None while nothing is being
    recorded), the number of the session started or resumed, or the :class:`SessionState` of the
    one ended or deleted.

    :raises MemvidAsyncError: when the command does not fit the state.
    """
    if isinstance(command, RecordAction):
        return _record(state, command, now, known)
    return _DECIDERS[type(command)](state, command, now)


def _open_session(state: State, number: int | None) -> SessionState | None:
    """The session to record into; None when no ambient session is open.

    :raises SessionEndedError: when it has ended or was deleted.
    """
    if number is None:
        number = state.ambient
        if number is None:
            return None
    session = state.sessions.get(number)
    if session is None or session.ended_ns is not None:
        raise SessionEndedError(session.info.session_id if session is not None else None)
    return session


def _need_open_session(state: State, number: int | None) -> SessionState:
    session = _open_session(state, number)
    if session is None:
        raise NoActiveSessionError("no session is active; start one with start_session()")
    return session


class _Events:
    """A command's events as they come about, numbered from the state's last."""

    def __init__(self, state: State, session: SessionState, now: int) -> None:
        self.all: list[Event] = []
        self.now = now
        self._session_id = session.info.session_id
        self._number = session.info.number
        self.next = state.last_sequence + 1

    def add(self, payload: Payload) -> None:
        self.all.append(Event(self.next, self.now, self._session_id, payload, self._number))
        self.next += 1

    def add_content(self, payload: ContentStored) -> None:
        """Content belongs to the file: other sessions may refer to it."""
        self.all.append(Event(self.next, self.now, None, payload))
        self.next += 1


def _record(state: State, command: RecordAction, now: int, known: Known) -> Decision:
    session = _open_session(state, command.number)
    if session is None:
        return [], None
    events = _Events(state, session, now)
    store = _content_storing(events, known)
    given = _content(command.input, store)
    result = _content(command.output, store)
    stored, count, index = None, 0, session.action_count
    if command.messages is not None:
        count = len(command.messages.items)
        stored = keep_messages(
            session.held, command.messages, index, given, result, _string_storing(store)
        )
    action = Action(
        index,
        events.next,
        now,
        command.kind,
        make_details(command.kind, command.detail, command.frames, count),
        given,
        result,
        command.frames,
        command.duration_ms,
        command.task,
        command.error,
        command.metadata,
    )
    events.add(ActionRecorded(action, stored))
    config = session.info.config
    if config.auto_checkpoint_interval or config.max_actions is not None:
        _follow_up(state, session, events)
    return events.all, action


def _follow_up(state: State, session: SessionState, events: _Events) -> None:
    """The checkpoint that is due after the action, and the end that ``max_actions`` sets."""
    config = session.info.config
    interval, most = config.auto_checkpoint_interval, config.max_actions
    if interval and session.unmarked + 1 >= interval:
        _checkpoint(state, session, events, session.action_count + 1, None)
    if most is not None and session.action_count - session.checkpoint_count + 1 >= most:
        events.add(SessionEnded())


def _content(data: Prepared | None, store: Callable[[Any], int]) -> Content | None:
    if data is None:
        return None
    if isinstance(data, (str, bytes)):
        return Content(data)
    return Content(None, data.digest, data.size, data.preview, store(data))


def _content_storing(events: _Events, known: Known) -> Callable[[Any], int]:
    """A function that gives the sequence of large content, storing what is not known yet."""
    own: dict[bytes, int] = {}

    def store(content: Any) -> int:
        sequence = own.get(content.digest) or known.get(content.digest)
        if sequence is None:
            sequence = own[content.digest] = events.next
            events.add_content(ContentStored(content.digest, content.size, content.data))
        return sequence

    return store


def _string_storing(store: Callable[[Any], int]) -> Callable[[str | bytes], int]:
    def store_string(data: str | bytes) -> int:
        size = len(data.encode()) if isinstance(data, str) else len(data)
        return store(ContentStored(content_digest(data), size, data))

    return store_string


def make_details(
    kind: ActionKind, detail: tuple[Any, ...], frames: tuple[int, ...], messages: int
) -> Details:
    """The details of an action, from what a command or the file keeps of them."""
    if kind is ActionKind.ASK:
        return AskDetails(detail[0], detail[1], frames, messages)
    if kind is ActionKind.TOOL_CALL:
        return ToolCallDetails(detail[0])
    if kind is ActionKind.FIND:
        return FindDetails(detail[0], detail[1], frames)
    if kind is ActionKind.PUT_MANY:
        return PutManyDetails(frames)
    return _FRAME_DETAILS[kind](frames[0])


_FRAME_DETAILS: dict[ActionKind, Callable[[int], Details]] = {
    ActionKind.PUT: PutDetails,
    ActionKind.UPDATE: UpdateDetails,
    ActionKind.DELETE: DeleteDetails,
}


def _checkpoint(
    state: State, session: SessionState, events: _Events, index: int, task: str | None
) -> Action:
    sequence = events.next
    snapshot = StateSnapshot(
        frame_count=state.frame_count,
        memory_hash=state.memory_hash,
        log_sequence=sequence - 1,
        generation=state.generation,
    )
    payload = make_checkpoint(
        session.checkpoint_count, index, sequence, events.now, snapshot, task
    )
    events.add(payload)
    return payload.action


def make_checkpoint(
    checkpoint_id: int,
    index: int,
    sequence: int,
    now: int,
    snapshot: StateSnapshot,
    task: str | None,
) -> CheckpointCreated:
    """A checkpoint and the action that it also is."""
    details = CheckpointDetails(checkpoint_id)
    action = Action(
        index, sequence, now, ActionKind.CHECKPOINT, details, None, None, (), 0, task
    )
    return CheckpointCreated(action, Checkpoint(checkpoint_id, index, now, snapshot))


def _start(state: State, command: StartSession, now: int) -> Decision:
    if command.ambient and state.ambient is not None:
        if command.if_none:
            return [], state.ambient
        raise SessionActiveError(
            f"session {state.sessions[state.ambient].info.session_id} is active; end it first"
        )
    if state.find(command.session_id) is not None:
        raise InvalidValueError(f"id_factory gave {command.session_id}, which is in use")
    sequence = state.last_sequence + 1
    payload = SessionStarted(command.name, command.ambient, command.config, command.metadata)
    return [Event(sequence, now, command.session_id, payload, sequence)], sequence


def _end(state: State, command: EndSession, now: int) -> Decision:
    number = command.session
    if isinstance(number, UUID):
        found = state.find(number)
        if found is None:
            raise SessionNotFoundError(number)
        number = found.info.number
    session = _need_open_session(state, number)
    events = _Events(state, session, now)
    events.add(SessionEnded(command.error))
    return events.all, session


def _resume(state: State, command: ResumeSession, now: int) -> Decision:
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
    events = _Events(state, session, now)
    events.add(SessionDeleted())
    return events.all, session


def _mark(state: State, command: CreateCheckpoint, now: int) -> Decision:
    session = _need_open_session(state, command.number)
    events = _Events(state, session, now)
    action = _checkpoint(state, session, events, session.action_count, command.task)
    return events.all, action


_DECIDERS: dict[type, Callable[[State, Any, int], Decision]] = {
    StartSession: _start,
    EndSession: _end,
    ResumeSession: _resume,
    DeleteSession: _delete,
    CreateCheckpoint: _mark,
}
