"""How an ask's messages are kept only once.

A reference replaces a prefix that the session already holds, and a string that is an input, an
output or a content elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import cbor2
from attrs import frozen

from ..errors import InvalidValueError
from ..events.content import Content
from ..events.event import TAG_CONTENT, TAG_PIECE, Action, StoredMessages
from ..events.values import MAX_ITEMS, check_value, decode_value
from .session_state import NOTHING_HELD, Held

# Places in an action that a message can refer to: its input, its output, and from MESSAGES on its
# first n messages.
INPUT, OUTPUT, MESSAGES = 0, 1, 2

# A shorter string is cheaper to repeat than to refer to.
PIECE_BYTES = 32
# Content of at least this many bytes is an event of its own, kept once in the file.
CONTENT_BYTES = 1024
# A session holds at most this many digests. Then it forgets them all, and one prefix is stored a
# second time.
HELD_MOST = 4096

_HASH_BYTES = 16


@frozen
class Messages:
    """Messages as a command carries them: each one as CBOR, and a hash of each prefix."""

    items: tuple[bytes, ...]
    hashes: tuple[bytes, ...]


def prefix_hashes(items: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return for each item the BLAKE2b-128 digest over the hash before it and the item."""
    hashes, last = [], b""
    for item in items:
        digest = hashlib.blake2b(last, digest_size=_HASH_BYTES, person=b"messages")
        digest.update(item)
        last = digest.digest()
        hashes.append(last)
    return tuple(hashes)


def _piece_hash(data: str | bytes) -> bytes:
    raw, person = (data.encode(), b"text") if isinstance(data, str) else (data, b"bytes")
    return hashlib.blake2b(raw, digest_size=_HASH_BYTES, person=person).digest()


def _pieces(
    input_content: Content | None, output_content: Content | None
) -> list[tuple[bytes, int]]:
    """Return the hashes of an action's small input and output, with their places."""
    found = []
    for place, content in ((INPUT, input_content), (OUTPUT, output_content)):
        data = content.data if content is not None else None
        if data is not None and len(data) >= PIECE_BYTES:
            found.append((_piece_hash(data), place))
    return found


def keep_messages(
    held: Held,
    messages: Messages,
    index: int,
    input_content: Content | None,
    output_content: Content | None,
    store: Callable[[str | bytes], int],
) -> StoredMessages:
    """Return what must be written for the messages of the action at ``index``.

    ``input_content`` and ``output_content``: the action's. ``store`` takes a string of at least
    ``CONTENT_BYTES`` bytes and returns the sequence of the content event that holds it.
    """
    shared_index, shared_count = -1, 0
    for count in range(len(messages.hashes), 0, -1):
        location = held.get(messages.hashes[count - 1])
        if location is not None:
            shared_index, shared_count = location[0], count
            break
    own = {key: (index, place) for key, place in _pieces(input_content, output_content)}

    def refer(data: str | bytes) -> Any:
        size = len(data.encode()) if isinstance(data, str) else len(data)
        if size >= CONTENT_BYTES:
            return cbor2.CBORTag(TAG_CONTENT, [store(data), isinstance(data, str)])
        if size < PIECE_BYTES:
            return data
        key = _piece_hash(data)
        location = own.get(key) or held.get(key)
        return data if location is None else cbor2.CBORTag(TAG_PIECE, list(location))

    items = []
    for item in messages.items[shared_count:]:
        if len(item) >= PIECE_BYTES:
            value = decode_value(item)
            shorter = _replace(value, refer)
            if shorter is not value:
                items.append(cbor2.dumps(shorter, canonical=True))
                continue
        items.append(item)
    hashes = b"".join(messages.hashes[shared_count:])
    return StoredMessages(shared_index, shared_count, hashes, tuple(items))


def _replace(value: Any, refer: Callable[[str | bytes], Any]) -> Any:
    """Return the value with its strings (not its keys) passed through ``refer``.

    It is the same object if none changed.
    """
    if isinstance(value, (str, bytes)):
        return refer(value)
    if isinstance(value, list):
        items = [_replace(item, refer) for item in value]
        return value if all(a is b for a, b in zip(value, items, strict=True)) else items
    if isinstance(value, dict):
        pairs = {key: _replace(item, refer) for key, item in value.items()}
        return value if all(value[key] is pairs[key] for key in value) else pairs
    return value


def hold_messages(
    held: Held,
    stored: StoredMessages,
    index: int,
    input_content: Content | None,
    output_content: Content | None,
) -> Held:
    """Return what the session holds after the ask at ``index``: also its new prefixes, its input
    and output."""
    if len(held) + len(stored.items) > HELD_MOST:
        held = NOTHING_HELD
    new = {}
    for i in range(min(len(stored.items), HELD_MOST)):
        key = stored.hashes[i * _HASH_BYTES : (i + 1) * _HASH_BYTES]
        new[key] = (index, MESSAGES + stored.shared_count + i)
    for key, place in _pieces(input_content, output_content):
        if key not in new and key not in held:
            new[key] = (index, place)
    return held.changed(new)


def restore_messages(
    action_index: int,
    asks: Callable[[int], tuple[Action, StoredMessages | None]],
    content: Callable[[int], bytes],
) -> list[Any]:
    """Return the messages of the action at ``action_index``, whole.

    ``asks`` returns an action of the session and its stored messages, by index; ``content`` reads a
    content event by sequence.

    :raises ValueError: when the references do not lead where they must.
    """

    def resolve(tag: cbor2.CBORTag, _immutable: object) -> Any:
        first, second = tag.value
        if tag.tag == TAG_CONTENT:
            data = content(first)
            return data.decode() if second else data
        if tag.tag != TAG_PIECE:
            raise ValueError(f"unexpected CBOR tag {tag.tag}")
        found = _piece(asks(first)[0], second)
        if found is None or found.data is None:
            raise ValueError("a message refers to what is not there")
        return found.data

    tail: list[list[Any]] = []
    wanted = None
    while True:
        stored = asks(action_index)[1]
        if stored is None:
            raise InvalidValueError(f"action {action_index} has no messages")
        count = stored.count if wanted is None else wanted
        if count > stored.count:
            raise ValueError("a message refers to what is not there")
        own = stored.items[: max(0, count - stored.shared_count)]
        tail.append([_restore(item, resolve) for item in own])
        if stored.shared_index < 0:
            break
        if stored.shared_index >= action_index:
            raise ValueError("a message refers forward")
        action_index, wanted = stored.shared_index, min(count, stored.shared_count)
    return [message for part in reversed(tail) for message in part]


def _restore(item: bytes, resolve: Callable[[cbor2.CBORTag, Any], Any]) -> Any:
    # A reference has four items; the string that it replaces was one.
    value = decode_value(item, resolve, 4 * MAX_ITEMS)
    check_value(value, "a message")
    return value


def _piece(action: Action, place: int) -> Content | None:
    return action.input if place == INPUT else action.output
