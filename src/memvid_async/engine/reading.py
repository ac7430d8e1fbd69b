"""Reading sessions and an ask's messages from any log; a fork with the past that it shares.

All functions block, as a :class:`View` does, and are called in the threads that read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any
from uuid import UUID

from ..core.held_messages import restore_messages, restore_new_messages
from ..core.projection import project_session
from ..core.state import State
from ..errors import ContentNotFoundError, InvalidValueError, SessionNotFoundError
from ..events.calls import ActionStarted, SessionChanged, SessionResumed
from ..events.content import Content, StoredContent
from ..events.event import (
    Action,
    ActionRecorded,
    CheckpointCreated,
    Event,
    Session,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    SessionSummary,
    StoredMessages,
)
from ..events.frames import ForkPoint
from ..events.pace import unhurried
from ..events.values import decode_value
from .event_log import View


def list_sessions(
    state: State,
    *,
    include_open: bool,
    newest_first: bool,
    after: UUID | None,
    limit: int | None,
    name: str | None,
    metadata: Mapping[str, Any],
) -> list[SessionSummary]:
    """List a state's sessions as :meth:`Store.list_sessions` says. Very many take their time."""
    number = state.numbers.get(after.bytes) if after is not None else None
    if after is not None and number is None:
        raise SessionNotFoundError(after)
    is_any = name is None and not metadata
    found = state.sessions.listed(
        include_open=include_open,
        newest_first=newest_first,
        after=number,
        limit=limit if is_any else None,
    )
    summaries = (session.summary() for session in unhurried(found))
    if is_any:
        return list(summaries)
    wanted = (one for one in summaries if _is_wanted(one, name, metadata))
    return list(islice(wanted, limit))


def summary_of(view: View, session_id: UUID) -> SessionSummary:
    """Return what is listed of one session.

    :raises SessionNotFoundError: when there is none with this id.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    return found.summary()


def _is_wanted(summary: SessionSummary, name: str | None, metadata: Mapping[str, Any]) -> bool:
    if name is not None and summary.name != name:
        return False
    held = summary.metadata
    return all(key in held and held[key] == value for key, value in metadata.items())


def read_session(view: View, session_id: UUID) -> Session:
    """Return one session, whole.

    :raises SessionNotFoundError: when there is none with this id.
    :raises CorruptFileError: when it cannot be read.
    """
    found = view.state.find(session_id)
    if found is None or not view.has_session(found.info.number):
        raise SessionNotFoundError(session_id)
    events = _in_order(view, session_history(view, found.info.number), session_id)
    return project_session(found, events, view.version)


def _in_order(view: View, events: Iterable[Event], session_id: UUID) -> Iterator[Event]:
    last = -1
    for event in events:
        payload = event.payload
        if isinstance(payload, (ActionRecorded, CheckpointCreated)):
            if payload.action.index <= last:
                why = f"actions of session {session_id} are out of order"
                raise view.damage(event.sequence, why)
            last = payload.action.index
        yield event


def session_history(view: View, number: int) -> Iterator[Event]:
    """Iterate over the events of a session, in order.

    A fork's events follow those that it shares with its parents: their actions, and the starts of
    their calls. Those of parents that were deleted are missing.
    """
    parts = [events for _, events in history_parts(view, number)]
    for part in reversed(parts):
        yield from part


def history_parts(view: View, number: int) -> Iterator[tuple[ForkPoint | None, Iterator[Event]]]:
    """Yield the parts of a session's history, the newest first.

    The first part holds the session's own events. The others hold those that it shares with its
    parent, with the parent's parent, and so on. Each part comes with the fork point of the
    session that it is from, and is read when somebody iterates over it.
    """
    until: int | None = None
    while True:
        found = view.state.sessions.get(number)
        fork = found.info.fork if found is not None else None
        yield fork, _part(view, number, until)
        # A parent began before its fork, so this ends, whatever the file says.
        if fork is None or fork.parent >= number or fork.parent not in view.state.sessions:
            return
        until = fork.sequence if until is None else min(until, fork.sequence)
        number = fork.parent


def _part(view: View, number: int, until: int | None) -> Iterator[Event]:
    for events in unhurried(view.session_commands(number)):
        for event in events:
            if until is None or _is_shared(event, until):
                yield event


def _is_shared(event: Event, until: int) -> bool:
    return event.sequence <= until and not isinstance(event.payload, _OWN)


# What a session does not share with its forks.
_OWN = (SessionStarted, SessionChanged, SessionEnded, SessionDeleted, SessionResumed)


def find_checkpoint(view: View, number: int, checkpoint_id: int) -> CheckpointCreated | None:
    """Return a checkpoint of a session's history; None when there is none with this id."""
    for _, events in history_parts(view, number):
        for event in events:
            payload = event.payload
            if isinstance(payload, CheckpointCreated) and (
                payload.checkpoint.checkpoint_id == checkpoint_id
            ):
                return payload
    return None


def read_messages(view: View, action: Action) -> list[Any]:
    """Return the messages of an ask, whole.

    :raises InvalidValueError: when the action has none, or is in no session of this file.
    :raises ContentNotFoundError: when some of them are gone.
    :raises CorruptFileError: when they cannot be read.
    """
    asks = _asks_of(view, view.session_number(action))
    _check_ask(asks, action)
    with _finding(view, action):
        return restore_messages(action.index, asks.__getitem__, _content_data(view))


def read_new_messages(view: View, actions: Sequence[Action]) -> list[list[Any]]:
    """Return for each ask its messages, in order; a :class:`MessageRun` stands for those that an
    earlier ask of the session has. Each session is read once.

    :raises InvalidValueError, ContentNotFoundError, CorruptFileError: as for
        :func:`read_messages`.
    """
    read: dict[int, _Asks] = {}
    found = []
    for action in actions:
        number = view.session_number(action)
        if number not in read:
            read[number] = _asks_of(view, number)
        asks = read[number]
        _check_ask(asks, action)
        with _finding(view, action):
            found.append(restore_new_messages(action.index, asks.__getitem__, _content_data(view)))
    return found


_Asks = dict[int, tuple[Action, StoredMessages | None]]


def _asks_of(view: View, number: int) -> _Asks:
    asks: _Asks = {}
    for event in view.session_events(number)[0]:
        payload = event.payload
        if isinstance(payload, ActionRecorded):
            asks[payload.action.index] = (payload.action, payload.messages)
        elif isinstance(payload, CheckpointCreated):
            asks[payload.action.index] = (payload.action, None)
    return asks


def _check_ask(asks: _Asks, action: Action) -> None:
    found = asks.get(action.index)
    if found is None or found[0].sequence != action.sequence:
        raise InvalidValueError("the action is in no session of this file (any more)")
    if found[1] is None:
        raise InvalidValueError(f"action {action.index} has no messages")


def _content_data(view: View) -> Callable[[int], bytes]:
    return lambda sequence: view.data(view.content(sequence))


@contextmanager
def _finding(view: View, action: Action) -> Iterator[None]:
    """Say what it means when references of an ask's messages do not lead where they must."""
    try:
        yield
    except KeyError:
        # Only a recovery leaves a reference to an ask that is gone.
        raise ContentNotFoundError("an earlier ask that held some of them is gone") from None
    except (ValueError, TypeError) as error:
        raise view.damage(action.sequence, f"messages refer wrongly: {error}") from None


class PartReader:
    """Reads a content that was put as a stream, part by part, and checks the whole at its end.

    Neighbouring parts with the same bytes have one event, which is read once.
    """

    def __init__(self, content: Content, stored: StoredContent) -> None:
        self._content = content
        self._sequences = stored.parts
        self._digest = hashlib.blake2b(digest_size=32)
        self._sequence, self._part = 0, b""

    @property
    def count(self) -> int:
        """How many parts there are; 0 for a content that was put in one piece."""
        return len(self._sequences)

    def read(self, view: View, place: int) -> bytes:
        """Return the bytes of the next part; ``place`` counts from 0.

        :raises ContentNotFoundError: when it is not in this file.
        """
        if self._sequences[place] != self._sequence:
            self._part = view.part(self._content, place)
            self._sequence = self._sequences[place]
        self._digest.update(self._part)
        return self._part

    def check(self) -> None:
        """Return if all that was read is the content.

        :raises ContentNotFoundError: when it is another.
        """
        digest = self._content.digest
        if self._digest.digest() != digest:
            raise ContentNotFoundError(f"content {digest.hex()} is not whole in this file", digest)


def decode_arguments(view: View, action: Action | ActionStarted) -> Any:
    """Return the arguments of a tool call, or the input of a step, decoded.

    :raises ContentNotFoundError: when they are gone.
    :raises CorruptFileError: when they are not a value.
    """
    assert action.input is not None
    try:
        return decode_value(view.data(action.input))
    except ValueError as error:
        raise view.damage(action.sequence, f"the arguments are not a value: {error}") from None
