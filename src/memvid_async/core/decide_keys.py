"""Deciding changes of collections, and idempotency keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from ..errors import InvalidValueError, LimitExceededError, VersionConflictError
from ..events.decided import DecidedAction, DecidedEvent
from ..events.frames import FramesPut
from ..events.keyed import (
    CollectionChanged,
    CollectionCreated,
    KeyPut,
    KeyUsed,
    ListChanged,
)
from .collections_state import CollectionInfo
from .commands import ChangeCollection, ChangeMemory, OnlyOnce, Repeated
from .recent_keys import NO_KEY, KeyFacts, RecentKeys
from .state import State


class _UnseenKeyError(Exception):
    """A key has to be looked at first."""


# The answer to a command that is decided when its caller says what it sees of its keys.
LOOK_FIRST = object()


def change_collection(
    state: State, command: ChangeCollection, now: int, recent: RecentKeys
) -> tuple[list[DecidedEvent], Any]:
    """Change a collection. The answer: the sequence of the event, which is the version of the keys;
    or :data:`LOOK_FIRST`, and nothing has changed.

    :raises VersionConflictError: when a key has another version than one of the checks says.
    :raises InvalidValueError: when a key holds a list and gets a value, or the opposite.
    """
    info = state.collections.find(command.name)
    # Most are puts without a condition, into collections without lists.
    if command.checks or (info is not None and (info.has_lists or _has_list(command))):
        try:
            _check(info, command, now, recent)
        except _UnseenKeyError:
            return [], LOOK_FIRST
    if not command.changes:
        return [], state.last_sequence
    events: list[DecidedEvent] = []
    sequence = state.last_sequence + 1
    if info is None:
        if len(state.collections.numbers) >= command.most:
            raise LimitExceededError("collections", command.most + 1, command.most)
        events.append(DecidedEvent(sequence, now, None, CollectionCreated(command.name)))
        number, sequence = sequence, sequence + 1
    else:
        number = info.number
    events.append(DecidedEvent(sequence, now, None, CollectionChanged(number, command.changes)))
    return events, sequence


def _has_list(command: ChangeCollection) -> bool:
    for change in command.changes:  # noqa: SIM110 - on the hot path, where any() takes twice as long
        if type(change) is ListChanged:
            return True
    return False


def _check(
    info: CollectionInfo | None, command: ChangeCollection, now: int, recent: RecentKeys
) -> None:
    for key, version in command.checks:
        held = _facts(info, command, key, recent).at(now)
        if held.version != version:
            raise VersionConflictError(key, version, held.version)
    for key, is_list in _kinds_needed(info, command):
        held = _facts(info, command, key, recent).at(now)
        if held.version and held.is_list != is_list:
            kind, how = ("value", "put()") if is_list else ("list", "append(), write_list()")
            raise InvalidValueError(
                f"key {key!r:.80} holds a {kind}, which {how} changes; delete it first"
            )


def _kinds_needed(
    info: CollectionInfo | None, command: ChangeCollection
) -> Iterator[tuple[str, bool]]:
    """The keys that may hold the other kind, each with whether it gets a list."""
    if info is None:
        return
    for change in command.changes:
        if isinstance(change, KeyPut) and info.has_lists:
            yield change.key, False
        elif isinstance(change, ListChanged) and info.has_values:
            yield change.key, True


def _facts(
    info: CollectionInfo | None, command: ChangeCollection, key: str, recent: RecentKeys
) -> KeyFacts:
    if info is None:
        return NO_KEY
    found = recent.get(info.number, key)
    if found is None and command.as_of >= recent.floor:
        found = command.seen.get(key)
    if found is None:
        raise _UnseenKeyError
    return found


def once(
    state: State,
    command: OnlyOnce,
    used: Callable[[bytes], tuple[bytes, int] | None],
    decided: Callable[[], tuple[list[DecidedEvent], Any]],
) -> tuple[list[DecidedEvent], Any]:
    """Decide a command by ``decided``, unless its key was used; ``used`` tells what came with it.

    :raises InvalidValueError: when the key was used for something else.
    """
    choice = command.command.session
    session = state.sessions.open.get(choice) if isinstance(choice, int) else state.in_force(choice)
    is_put = isinstance(command.command, ChangeMemory)
    scope = b""
    if session is not None and not (is_put and session.info.number not in state.memory.branches):
        scope = session.info.session_id.bytes
    key_hash = hashlib.blake2b(
        scope + command.key.encode(), digest_size=16, person=b"put" if is_put else b"record"
    ).digest()
    found = used(key_hash)
    if found is not None:
        content_hash, answer = found
        if content_hash != command.content_hash:
            raise InvalidValueError(
                f"key {command.key!r:.80} was used for something else, in event {answer}; "
                f"a key stands for one thing"
            )
        return [], Repeated(answer)
    events, answered = decided()
    if events:
        wanted = FramesPut if is_put else DecidedAction
        answer = next(event.sequence for event in events if isinstance(event.payload, wanted))
        last = events[-1]
        noted = KeyUsed(key_hash, command.content_hash, answer)
        number = session.info.number if session is not None else 0
        session_id = session.info.session_id if session is not None else None
        events.append(DecidedEvent(last.sequence + 1, last.time_ns, session_id, noted, number))
    return events, answered
