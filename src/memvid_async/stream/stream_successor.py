"""The stream that a compaction writes, until it replaces the old one.

It is to a stream what :class:`..file.successor.Successor` is to a file. The old stream says who
compacts it (a claim), and in the end that the log goes on here: so of two compactions at once one
ends, and a killed one leaves a stream that nobody reads and the next compaction deletes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from attrs import evolve

from ..config import StoreConfig
from ..errors import CorruptFileError, MemvidAsyncError, NotCompactedError, StoreFailedError
from ..file.compact import Compactor, FoldWhole
from ..file.log_file import LogFile
from ..format.header import LOG_START, MOST_GENERATIONS, Header, newest_slot
from ..format.segment import scan
from .address import StreamName
from .connection import Connection
from .messages import (
    BATCH_BYTES,
    COPYING,
    WRITER_BYTES,
    MessageKind,
    encode_batch,
    encode_mark,
)
from .server_answers import LostRaceError
from .stream_storage import StreamStorage

# Until at most this many bytes are new, the copy catches up, in this many rounds, while others
# append.
_REST_BYTES = 64 * 1024
# By how much a stream's number is above those before, is drawn: two compactions at once, of which
# neither is told of the other's stream, do not take one name.
_DRAWN_BYTES = 2
_ROUNDS = 8


class OvertakenError(NotCompactedError):
    """Another process wrote into the new stream: both had created it, one after the other."""


class _Written(StreamStorage):
    """The bytes of a new stream, which are written in order: whole segments at each sync."""

    def __init__(self, connection: Connection, stream: StreamName, header: Header, most: int):
        def fetch(first: int, count: int, size: int) -> list[tuple[int, bytes]]:
            return connection.fetch(stream, first, count, first, size)

        super().__init__(fetch, most)
        self._connection = connection
        self._stream = stream
        self._log_salt = self._log_checksum = header.salt
        self._pending = bytearray()
        self._next_toc = (0, 0)
        self._count = 0

    def size(self) -> int:
        """See :class:`..storage.Storage`, for this and the others."""
        return self._size + len(self._pending)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end."""
        found = super().read(offset, length)
        at = offset + len(found) - self._size
        return found + self._pending[at : at + length - len(found)] if at >= 0 else found

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Hold what is written until :meth:`sync`; of a slot, the TOC that it names."""
        if offset >= LOG_START:
            at = offset - self._size
            self._pending[at : at + len(data)] = data
        elif not offset:
            self._send(encode_batch(0, (0, 0), self._next_batch(), bytes(data), self._room))
        else:
            slot = newest_slot(bytes(offset) + data + bytes(LOG_START), self._log_salt)
            if slot is not None and slot.toc:
                self._next_toc = slot.toc, slot.sequence

    def truncate(self, size: int) -> None:
        """Cut off what is held beyond ``size``."""
        del self._pending[max(0, size - self._size) :]

    def sync(self) -> None:
        """Append the whole segments among what is held. What follows them is reserved space."""
        start = end = self._size
        for segment in scan(self.read, start, self.size(), self._log_checksum, self._log_salt):
            if segment.end - start > self._room and end > start:
                self._append(start, end)
                start = end
            end, self._log_checksum = segment.end, segment.checksum
        self._append(start, end)

    def _append(self, start: int, end: int) -> None:
        if end > start:
            data = bytes(self._pending[: end - start])
            del self._pending[: end - start]
            self._send(encode_batch(start, self._next_toc, self._next_batch(), data, self._room))

    def mark(self) -> None:
        """Let the last message say where the newest TOC is."""
        claim = MessageKind.CLAIM
        if self.toc != self._next_toc:
            self._send([encode_mark(claim, self._size, self._next_toc, self._next_batch())])

    @property
    def _room(self) -> int:
        return self._connection.most_payload

    def _next_batch(self) -> bytes:
        self._count += 1
        return COPYING + self._count.to_bytes(BATCH_BYTES - WRITER_BYTES)

    def _send(self, payloads: list[bytes]) -> None:
        for payload in payloads:
            expected = self.last

            def stored(expected: int = expected, payload: bytes = payload) -> bool | None:
                found = self._connection.fetch(self._stream, expected + 1, 1, expected + 1)
                return found[0][1] == payload if found else None

            try:
                sequence = self._connection.publish(self._stream, payload, expected, stored=stored)
            except LostRaceError as error:
                raise OvertakenError("another process compacts the store") from error
            self.add(sequence, payload)


class StreamSuccessor:
    """A new stream with what is left of another one. ``claim``: the id of the claim of the old one.
    ``left``: the store's other streams that were there before that claim, which go.

    :meth:`copy` may run in a thread of its own while others append to the old stream.

    :raises StoreFailedError, NotCompactedError: when it cannot be created.
    """

    def __init__(
        self,
        connection: Connection,
        source: LogFile,
        claim: bytes,
        left: Sequence[StreamName],
        replicas: int,
        config: StoreConfig,
        now: int,
    ) -> None:
        header = evolve(source.header, generation=source.header.generation + 1)
        if header.generation > MOST_GENERATIONS:
            raise NotCompactedError("no store can be compacted that often")
        self.claim = claim
        self._connection = connection
        old = connection.stream
        # What a killed compaction left may have what is to be erased. The log never goes on there,
        # as the claim is newer; in what came since, it may. No name is used again: servers that
        # were cut off may be told to delete it once more, much later.
        for one in left:
            connection.delete(one)
        newest = max([old.number, *(one.number for one in left)])
        self._stream = StreamName(old.store, newest + 1 + int.from_bytes(os.urandom(_DRAWN_BYTES)))
        self._abandoned = False
        connection.create(self._stream, replicas)
        self._storage = _Written(connection, self._stream, header, config.limits.mirror_bytes)
        self._file = LogFile.create(self._storage, header)
        self._compactor = Compactor(source.view, self._file, now)

    @property
    def number(self) -> int:
        """That of the new stream."""
        return self._stream.number

    @property
    def erased(self) -> int:
        """How many events went."""
        return self._compactor.erased

    def copy(self, progress: Callable[[int, int], None], fold: FoldWhole) -> None:
        """Copy what is left, with the projections that ``fold`` makes of it, and nearly all that
        was appended since.

        :raises CorruptFileError: when the old stream is damaged.
        :raises NotCompactedError: when the new one cannot be written, or was abandoned.
        """

        def tell(done: int, total: int) -> None:
            if self._abandoned:
                raise NotCompactedError("the store was closed, or the call cancelled")
            progress(done, total)

        with _refusals():
            self._compactor.copy(tell)
            self._catch_up()
            self._compactor.save(fold)
            self._catch_up()
            self._file.write_out()

    def _catch_up(self) -> None:
        compactor = self._compactor
        for _ in range(_ROUNDS):
            before = compactor.position
            compactor.catch_up(compactor.source.reader.storage.size())
            if compactor.position - before <= _REST_BYTES:
                return

    def catch_up(self, source: LogFile) -> bool:
        """Copy the rest of the old stream as it was taken in; return whether the new one has it.

        :raises CorruptFileError, NotCompactedError: as :meth:`copy` does.
        """
        if source.view.edition is not self._compactor.source.edition:
            return False
        with _refusals():
            self._compactor.catch_up(source.view.end)
            self._file.write_out()
            self._storage.mark()
        return self._compactor.is_copy_of(source)

    def abandon(self) -> None:
        """Let :meth:`copy` end early. May be called from any thread."""
        self._abandoned = True

    def discard(self) -> None:
        """Delete the new stream."""
        self._connection.delete(self._stream)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (CorruptFileError, NotCompactedError):
        raise
    except StoreFailedError as error:
        why = f"the store could not be compacted, and is as it was: {error}"
        raise NotCompactedError(why) from error
    except MemvidAsyncError as error:
        raise NotCompactedError(str(error)) from error
