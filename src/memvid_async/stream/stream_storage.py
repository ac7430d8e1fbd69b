"""A log's bytes as a stream has them: those read last in memory, all others asked for.

It is the :class:`~..storage.Storage` of a file that is only read: the stream's messages are the
bytes of a file, and they only become more. What a file says in its slots, each message says here.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable, Iterator

from ..errors import CorruptFileError, StoreReadOnlyError
from ..format.header import LOG_START, SLOT_OFFSETS, Slot, decode_header
from .messages import Message, MessageKind, decode_message
from .server_answers import MessageLostError

# Where a batch is, is noted about once in this many bytes of log.
_MARK_BYTES = 64 * 1024
# One request asks for at most this many messages, and for about this many bytes.
_FETCH_COUNT = 1024
FETCH_BYTES = 1024 * 1024
# A batch that begins this many bytes before what is read is not worth another request.
_NEAR_BYTES = 8 * 1024

# Returns messages from a sequence on, at least one: at most a number of them, which reach a number
# of bytes. All of them are in the stream.
Fetch = Callable[[int, int, int], list[tuple[int, bytes]]]


class StreamStorage:
    """The bytes of one stream, up to the last whole batch that :meth:`add` was told of.

    ``fetch``: returns messages that are known to be there. ``most``: how many bytes are held in
    memory. ``last``: the sequence of the last message, whole or not. ``claim``: the id of the last
    claim that was taken in. ``has_moved``: whether the log goes on in another stream.
    """

    def __init__(self, fetch: Fetch, most: int) -> None:
        self._fetch = fetch
        self._most = most
        self.last = 0
        self.last_batch = b""
        self.claim = b""
        self.has_moved = False
        self.toc = (0, 0)
        self._size = 0
        self._unfinished: list[Message] = []
        # Of some batches, the offset and the sequence of the first message, in order.
        self._marks: list[tuple[int, int]] = [(0, 1)]
        # Batches by offset, those used last at the end; and their offsets in order.
        self._batches: OrderedDict[int, bytes] = OrderedDict()
        self._offsets: list[int] = []
        self._held = 0
        # Where the batch that was asked for last ends, and the sequence of the next message; and
        # how many bytes were asked for, where somebody reads on.
        self._next, self._ahead = (-1, 0), 0
        # Which message was lost, of those that were asked for last.
        self._lost: MessageLostError | None = None
        # Held while any of these is looked at: several threads read.
        self._lock = threading.RLock()
        self._salt: int | None = None

    # What is there.

    def start_before(self, sequence: int, payload: bytes) -> int:
        """Begin at the batch that this message is of; return the sequence of its first message.
        What is before is read when it is needed.

        :raises CorruptFileError: when it has none.
        """
        message = decode_message(payload)
        first = sequence - message.part
        if first < 1:
            raise CorruptFileError(message.at, f"message {sequence} of the stream has no beginning")
        self.last, self._size, self.toc = first - 1, message.at, message.toc
        if message.at:
            self._marks.append((message.at, first))
        return first

    def add(self, sequence: int, payload: bytes) -> None:
        """Take in the message that follows the last one.

        :raises CorruptFileError: when it does not continue the log.
        """
        self.take(sequence, decode_message(payload))

    def take(self, sequence: int, message: Message) -> None:
        """Do :meth:`add` with a message that is read already."""
        waiting = self._unfinished
        if message.kind == MessageKind.FOREIGN and sequence == self.last + 1:
            self.last, self._unfinished = sequence, []
            return
        if sequence != self.last + 1 or message.at != self._size:
            raise CorruptFileError(self._size, f"message {sequence} of the stream is another one")
        if not message.part:
            waiting = []
        elif message.part != len(waiting) or message.batch != waiting[-1].batch:
            raise CorruptFileError(self._size, f"message {sequence} of the stream has no beginning")
        waiting = [*waiting, message] if waiting else [message]
        if message.kind is not MessageKind.LOG:
            self.has_moved = message.kind == MessageKind.MOVED
            self.claim = message.batch if message.kind == MessageKind.CLAIM else self.claim
            self.toc, waiting = message.toc, []
        elif len(waiting) == message.parts:
            with self._lock:
                data = _joined(waiting)
                self._hold(message.at, data)
                if message.at - self._marks[-1][0] >= _MARK_BYTES:
                    self._marks.append((message.at, sequence - message.part))
                self._size += len(data)
            self.toc, waiting = message.toc, []
        self._unfinished = waiting
        self.last, self.last_batch = sequence, message.batch

    @property
    def is_unfinished(self) -> bool:
        """Whether the last message is a part of a batch of which others may follow."""
        return bool(self._unfinished)

    def size(self) -> int:
        """The length of the log, in bytes."""
        return self._size

    # Reading.

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end.

        :raises CorruptFileError: when the stream has lost them.
        :raises StoreFailedError: when they are not in memory and no server answers.
        """
        end = min(offset + length, self._size)
        found = []
        while offset < end:
            at, data = self._batch(offset, end - offset)
            if not at:
                data = self._with_slot(data)
            piece = data[offset - at : end - at]
            found.append(piece)
            offset += len(piece)
        return found[0] if len(found) == 1 else b"".join(found)

    def _with_slot(self, header: bytes) -> bytes:
        """Return the header with a slot that says what the newest message says."""
        if self._size <= LOG_START:
            return header
        if self._salt is None:
            self._salt = decode_header(header).salt
        slot, at = Slot(self._size, *self.toc).encode(self._salt), SLOT_OFFSETS[0]
        return header[:at] + slot + header[at + len(slot) :]

    def _batch(self, offset: int, wanted: int) -> tuple[int, bytes]:
        """Return the batch that has the byte at an offset, and where it begins.

        ``wanted``: how many bytes from there on the caller reads.
        """
        with self._lock:
            return self._held_batch(offset) or self._read_batch(offset, wanted)

    def _read_batch(self, offset: int, wanted: int) -> tuple[int, bytes]:
        # Who reads on gets more and more at once. Who looks into a table somewhere gets little.
        reads_on = offset == self._next[0]
        self._ahead = min(2 * max(self._ahead, wanted), FETCH_BYTES) if reads_on else 0
        at, first = self._next if reads_on else self._place_before(offset)
        # What was looked at to find it may be it.
        found = self._held_batch(offset)
        size = max(wanted + offset - at, self._ahead)
        for batches in self._whole(first, size) if found is None else ():
            for at, first, after, data in batches:
                self._note(at, first)
                self._hold(at, data)
                self._next = at + len(data), after
                if at <= offset < at + len(data):
                    found = at, data
            if found is not None or (batches and at > offset):
                break
        if found is None:
            problem = self._lost or "no message of the stream has this byte"
            raise CorruptFileError(offset, str(problem))
        return found

    def _held_batch(self, offset: int) -> tuple[int, bytes] | None:
        place = bisect_right(self._offsets, offset) - 1
        if place < 0:
            return None
        at = self._offsets[place]
        data = self._batches[at]
        if offset >= at + len(data):
            return None
        self._batches.move_to_end(at)
        return at, data

    def _place_before(self, offset: int) -> tuple[int, int]:
        """Return the place of the batch that has the byte at an offset, or of one shortly before:
        its offset, and the sequence of its first message.

        It is searched for between two places that are known. A row of parts that was left begins
        where the next one does, so messages are in the order of their offsets.
        """
        place = bisect_right(self._marks, (offset, self.last + 1)) - 1
        at, low = self._marks[place]
        first = low
        end, high = self._size, self.last + 1
        if place + 1 < len(self._marks):
            end, high = self._marks[place + 1]
        aim, by_share = offset - _NEAR_BYTES // 2, True
        while high - low > 1 and offset - at > _NEAR_BYTES:
            span = high - low
            # Shortly before where it is when all messages are equally long; in the middle when that
            # was no help.
            share = (aim - at) / (end - at) if by_share and end > at else 0.5
            middle = min(max(low + int(span * share), low + 1), high - 1)
            middle, message = self._next_message(middle, high)
            if message is None:
                high = middle
                continue
            if message.kind == MessageKind.LOG and message.parts == 1:
                self._hold(message.at, message.data)
            if message.at > offset:
                end, high = message.at, middle
            else:
                at, low, first = message.at, middle, max(1, middle - message.part)
                if self._held_batch(offset) is not None:
                    break
            by_share = not by_share or high - low <= span // 2
        self._note(at, first)
        return at, first

    def _next_message(self, sequence: int, end: int) -> tuple[int, Message | None]:
        """Return the first message of a store from a sequence on, and its sequence; None in its
        place when all of them up to ``end`` are lost, or not a store's."""
        at = sequence
        while at < end:
            try:
                message = decode_message(self._fetch(at, 1, 0)[0][1])
            except MessageLostError as lost:
                at = lost.following or at + 1
                continue
            if message.kind != MessageKind.FOREIGN:
                return at, message
            at += 1
        return sequence, None

    def _whole(self, sequence: int, size: int) -> Iterator[list[tuple[int, int, int, bytes]]]:
        """Yield the whole batches from a message on, those of one request together, which asks for
        ``size`` bytes: of each its offset, the sequences of its first message and of the one after
        it, and its bytes. Lost messages are passed over."""
        waiting: list[Message] = []
        self._lost = None
        while sequence <= self.last:
            batches = []
            try:
                found = self._fetch(sequence, _FETCH_COUNT, size)
            except MessageLostError as lost:
                self._lost, waiting = lost, []
                sequence = lost.following or sequence + 1
                continue
            for at, payload in found:
                sequence = at + 1
                message = decode_message(payload)
                if message.kind != MessageKind.LOG:
                    waiting = []
                    continue
                waiting = [*waiting, message] if message.part else [message]
                if len(waiting) == message.parts:
                    place = message.at, at - message.part, sequence
                    batches.append((*place, _joined(waiting)))
            yield batches

    def _note(self, at: int, first: int) -> None:
        place = bisect_right(self._marks, (at, first))
        if at - self._marks[place - 1][0] >= _MARK_BYTES:
            insort(self._marks, (at, first))

    def _hold(self, at: int, data: bytes) -> None:
        if at in self._batches:
            return
        self._batches[at] = data
        self._held += len(data)
        if not self._offsets or at > self._offsets[-1]:
            self._offsets.append(at)
        else:
            insort(self._offsets, at)
        if self._held > self._most:
            # Down to three quarters, so that this is rare. The newest one stays, however long.
            while self._held > self._most * 3 // 4 and len(self._batches) > 1:
                self._held -= len(self._batches.popitem(last=False)[1])
            self._offsets = sorted(self._batches)

    # What only a file needs.

    def is_current(self) -> bool:
        """Whether this is still the store's stream."""
        return True

    def lock(self, timeout: float) -> None:
        """Do nothing, as :meth:`unlock`: a stream has no lock."""

    def unlock(self) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing, as :meth:`sync_directory`: what is here is in the stream."""

    def sync_directory(self) -> None:
        """Do nothing."""

    def room(self) -> int:
        """Return more than is ever needed: a server that is full says so itself."""
        return 2**63

    def write(self, offset: int, data: bytes | bytearray) -> None:  # noqa: ARG002 - the protocol's
        """Refuse, as :meth:`truncate`: the journal appends to the stream.

        :raises StoreReadOnlyError: always.
        """
        raise StoreReadOnlyError("a stream is only appended to")

    def truncate(self, size: int) -> None:
        """Refuse."""
        self.write(size, b"")

    def reopen(self) -> StreamStorage:
        """Return itself."""
        return self

    def create_beside(self, suffix: str) -> None:
        """Return None, as :meth:`open_beside`: nothing is beside a stream."""

    def open_beside(self, suffix: str) -> None:
        """Return None."""

    def install(self) -> None:
        """Do nothing, as :meth:`remove` and :meth:`retire`: this replaces nothing."""

    def remove(self) -> None:
        """Do nothing."""

    def retire(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: the connection is the journal's."""


def _joined(messages: list[Message]) -> bytes:
    if len(messages) == 1:
        return messages[0].data
    return b"".join(message.data for message in messages)
