"""How an ask's messages are kept only once.

A reference replaces a run of messages that an earlier ask of the session holds, wherever in either
ask the run is, and a string that is an input, an output or a content elsewhere.

A message that is in no earlier ask is stored, and found again by two hashes: its own, and that of
the chain of messages up to it, from where the runs before it begin, or the ask. So what grew with
every ask is found whole, by the hash of its last message.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, groupby, takewhile
from typing import Any

import cbor2
from attrs import frozen

from ..config import MOST_MESSAGES_BYTES
from ..errors import InvalidValueError
from ..events.content import Content
from ..events.event import (
    TAG_CONTENT,
    TAG_PIECE,
    Action,
    MessageRun,
    StoredMessages,
    message_count,
)
from ..events.values import MAX_ITEMS, check_value, decode_value
from .session_state import NOTHING_HELD, Held

# Places in an action that a reference can lead to: its input, its output, and from MESSAGES on the
# messages that are stored with it.
INPUT, OUTPUT, MESSAGES = 0, 1, 2

# A shorter string is cheaper to repeat than to refer to.
PIECE_BYTES = 32
# Content of at least this many bytes is an event of its own, kept once in the file.
CONTENT_BYTES = 1024
# A session holds at most this many digests. Then it forgets them all, and what comes again is
# stored a second time.
HELD_MOST = 6144
# An ask is read in at most this many steps: it refers to asks since the digests were forgotten,
# each of which stored a message, with a step for each of its messages.
MOST_STEPS = HELD_MOST**2 // 4

# Returns an action of a session and its stored messages, by its index.
Asks = Callable[[int], tuple[Action, StoredMessages | None]]

_HASH_BYTES = 16


@frozen
class Messages:
    """Messages as a command carries them, each as CBOR, with the hash of each and of each chain of
    messages from the first on."""

    items: tuple[bytes, ...]
    hashes: tuple[bytes, ...]
    chains: tuple[bytes, ...]


def hashed_messages(items: Sequence[bytes]) -> Messages:
    """Return messages, each as CBOR, with their hashes (BLAKE2b-128)."""
    hashes: list[bytes] = []
    chains: list[bytes] = []
    for item in items:
        hashes.append(hashlib.blake2b(item, digest_size=_HASH_BYTES, person=b"message").digest())
        chains.append(_chained(chains[-1], hashes[-1]) if chains else hashes[-1])
    return Messages(tuple(items), tuple(hashes), tuple(chains))


def _chained(chain: bytes, message: bytes) -> bytes:
    """Return the hash of a chain of messages with one more. That of one message is its own."""
    return hashlib.blake2b(chain + message, digest_size=_HASH_BYTES, person=b"messages").digest()


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

    def shortened(item: bytes) -> bytes:
        if len(item) < PIECE_BYTES:
            return item
        value = decode_value(item)
        shorter = _replace(value, refer)
        return item if shorter is value else cbor2.dumps(shorter, canonical=True)

    parts, hashes = _shared(held, messages)
    kept = (shortened(part) if isinstance(part, bytes) else part for part in parts)
    return StoredMessages(b"".join(hashes), tuple(kept))


def _shared(held: Held, messages: Messages) -> tuple[list[bytes | MessageRun], list[bytes]]:
    """Return messages with the runs that the session holds as references, and for each of the
    others its two hashes."""
    sharing = _Sharing(held, messages)
    while sharing.at < len(messages.items):
        if not sharing.take_run():
            sharing.take_own()
    return sharing.parts, sharing.hashes


class _Sharing:
    """Goes through the messages of an ask, and finds the runs that the session holds."""

    def __init__(self, held: Held, messages: Messages) -> None:
        self._held = held
        self._messages = messages
        self.at = 0
        self.parts: list[bytes | MessageRun] = []
        self.hashes: list[bytes] = []
        # Where the chain began that goes on, and its hash.
        self._start = 0
        self._chain = b""
        # Which messages came before, up to where that was looked at.
        self._before = set[bytes]()
        self._looked_at = 0
        # In a chat that grows, all but the end.
        self._take_longest(messages.chains)

    def take_run(self) -> bool:
        """Take the longest run that begins here, if there is one.

        It ends before a message that the ask had before it. So no stored message is used twice in
        one ask: a run holds none twice, because the ask that it is of does not.
        """
        at, hashes = self.at, self._messages.hashes
        if self._find(hashes[at]) is None:
            return False
        self._before.update(hashes[self._looked_at : at])
        self._looked_at = at
        new = takewhile(lambda message: message not in self._before, hashes[at:])
        return self._take_longest(list(accumulate(new, _chained)))

    def take_own(self) -> None:
        """Take a message that is stored with this ask."""
        message = self._messages.hashes[self.at]
        if self.parts and not self._is_after_own():
            self.hashes.append(self._chain)
        self._chain = _chained(self._chain, message) if self.parts else message
        self.parts.append(self._messages.items[self.at])
        self.hashes.append(message)
        self.at += 1

    def _is_after_own(self) -> bool:
        return bool(self.parts) and isinstance(self.parts[-1], bytes)

    def _find(self, key: bytes) -> tuple[int, int] | None:
        """Return where a message is stored, with the chain that has this hash, if it is."""
        found = self._held.get(key)
        return found if found is not None and found[1] >= MESSAGES else None

    def _take_longest(self, chains: Sequence[bytes]) -> bool:
        for count in range(len(chains), 0, -1):
            last = self._find(chains[count - 1])
            if last is not None:
                self._take(MessageRun(last[0], last[1] - MESSAGES - count + 1, count), chains)
                return True
        return False

    def _take(self, run: MessageRun, chains: Sequence[bytes]) -> None:
        if not self.parts or self._is_after_own():
            self._start = self.at
        before, self.at = self.parts[-1] if self.parts else None, self.at + run.count
        if (
            isinstance(before, MessageRun)
            and before.index == run.index
            and before.first + before.count == run.first
        ):
            self.parts[-1] = MessageRun(run.index, before.first, before.count + run.count)
        else:
            self.parts.append(run)
        if self._start == 0:
            self._chain = self._messages.chains[self.at - 1]
        elif self._start == self.at - run.count:
            self._chain = chains[run.count - 1]
        else:
            for message in self._messages.hashes[self.at - run.count : self.at]:
                self._chain = _chained(self._chain, message)


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


def _is_own(part: bytes | MessageRun) -> bool:
    return isinstance(part, bytes)


def hold_messages(
    held: Held,
    stored: StoredMessages,
    index: int,
    input_content: Content | None,
    output_content: Content | None,
) -> Held:
    """Return what the session holds after the ask at ``index``: also its own messages, its input
    and output."""
    hashes = stored.hashes
    if len(held) + 2 * len(hashes) // _HASH_BYTES > HELD_MOST:
        held = NOTHING_HELD
    new: dict[bytes, tuple[int, int]] = {}
    at, place = 0, MESSAGES
    for is_own, some in groupby(stored.parts, key=_is_own):
        count = sum(map(message_count, some))
        if is_own:
            chain = b""
            if place > MESSAGES:
                chain, at = hashes[at : at + _HASH_BYTES], at + _HASH_BYTES
            for one in range(place, place + count):
                message, at = hashes[at : at + _HASH_BYTES], at + _HASH_BYTES
                chain = _chained(chain, message) if chain else message
                for key in (message, chain):
                    if key not in held and len(new) < HELD_MOST:
                        new.setdefault(key, (index, one))
        place += count
    for key, place in _pieces(input_content, output_content):
        if key not in new and key not in held:
            new[key] = (index, place)
    return held.changed(new)


def restore_messages(
    action_index: int,
    asks: Asks,
    content: Callable[[int], bytes],
) -> list[Any]:
    """Return the messages of the action at ``action_index``, whole.

    ``asks`` returns an action of the session and its stored messages, by index; ``content`` reads a
    content event by sequence.

    :raises ValueError: when the references do not lead where they must.
    """
    resolve = _resolver(asks, content)
    stored = message_places(action_index, asks)
    return [_restore(item, resolve) for _, _, item in stored]


def restore_new_messages(
    action_index: int,
    asks: Asks,
    content: Callable[[int], bytes],
) -> list[Any]:
    """Return the messages of the action at ``action_index``, as :func:`restore_messages` does, but
    the runs of an earlier ask's as they are kept.

    :raises ValueError: when the references do not lead where they must.
    """
    resolve = _resolver(asks, content)
    stored = asks(action_index)[1]
    parts = () if stored is None else stored.parts
    return [part if isinstance(part, MessageRun) else _restore(part, resolve) for part in parts]


def _resolver(
    asks: Asks, content: Callable[[int], bytes]
) -> Callable[[cbor2.CBORTag, object], Any]:
    # One string, however often the messages refer to it.
    read: dict[tuple[int, bool], str | bytes] = {}
    size = 0

    def resolve(tag: cbor2.CBORTag, _immutable: object) -> Any:
        nonlocal size
        data = string(tag)
        size += len(data)
        if size > MOST_MESSAGES_BYTES:
            raise ValueError("the messages of an ask are larger than any may be")
        return data

    def string(tag: cbor2.CBORTag) -> str | bytes:
        first, second = tag.value
        if tag.tag == TAG_CONTENT:
            key = first, second is True
            if key not in read:
                data = content(first)
                read[key] = data.decode() if second else data
            return read[key]
        if tag.tag != TAG_PIECE:
            raise ValueError(f"unexpected CBOR tag {tag.tag}")
        found = _piece(asks(first)[0], second)
        if found is None or found.data is None:
            raise ValueError("a message refers to what is not there")
        return found.data

    return resolve


def message_places(
    action_index: int, asks: Asks, first: int = 0, count: int | None = None
) -> Iterator[tuple[int, int, bytes]]:
    """Iterate over the messages of an ask, ``count`` of them from ``first`` on: the index of the
    ask that each is stored with, its place in that ask, and itself as it is stored.

    :raises ValueError: when the references do not lead where they must.
    """
    steps = 0
    seen = set[tuple[int, int]]()
    starts: dict[int, list[int]] = {}
    waiting: list[tuple[int, int, int | None]] = [(action_index, first, count)]
    while waiting:
        index, first, count = waiting.pop()
        stored = asks(index)[1]
        if stored is None:
            raise InvalidValueError(f"action {index} has no messages")
        parts = stored.parts
        if index not in starts:
            starts[index] = list(accumulate(map(message_count, parts), initial=0))
        ends = starts[index]
        end = ends[-1] if count is None else first + count
        if end > ends[-1]:
            raise ValueError("a message refers to what is not there")
        place = bisect_right(ends, first) - 1
        # What is stored here is handed over; the rest waits until what is before it was.
        while first < end and isinstance(part := parts[place], bytes):
            if (index, first) in seen:
                raise ValueError("messages refer to one twice")
            seen.add((index, first))
            yield index, first, part
            first, place, steps = first + 1, place + 1, steps + 1
        if first < end:
            run = parts[place]
            assert isinstance(run, MessageRun)
            if run.index >= index:
                raise ValueError("a message refers forward")
            taken = min(end, ends[place + 1]) - first
            if first + taken < end:
                waiting.append((index, first + taken, end - first - taken))
            waiting.append((run.index, run.first + first - ends[place], taken))
        steps += 1
        if steps > MOST_STEPS:
            raise ValueError("messages refer to each other too often")


def _restore(item: bytes, resolve: Callable[[cbor2.CBORTag, object], Any]) -> Any:
    # A reference has four items; the string that it replaces was one.
    value = decode_value(item, resolve, 4 * MAX_ITEMS)
    check_value(value, "a message")
    return value


def _piece(action: Action, place: int) -> Content | None:
    return action.input if place == INPUT else action.output
