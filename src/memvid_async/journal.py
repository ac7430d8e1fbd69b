"""The one synchronous core under the writer: lock, catch up, decide, fold, append, sync.

A journal is used by one thread at a time and knows neither loop nor task, so that a simulated
disk can drive it as fast as it goes. A writer is a follower that holds the lock: both catch up
through :meth:`Journal.refresh`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from attrs import frozen

from .config import StoreConfig
from .errors import (
    CorruptFileError,
    InvalidValueError,
    MemvidAsyncError,
    NotAStoreError,
    StoreClosedError,
    StoreFailedError,
    StoreLockedError,
    StoreReadOnlyError,
)
from .events import Content, ContentStored, Event, StoredContent
from .format.codec import decode_events, encode_events
from .format.header import (
    LOG_START,
    Header,
    Slot,
    decode_header,
    is_unfinished,
    newest_slot,
    next_slot_offset,
)
from .format.segment import HEAD_SIZE, Segment, SegmentKind, read_segment, scan, seal
from .format.tables import decode_toc
from .index import Index
from .model.commands import Command
from .model.decide import decide
from .model.evolve import evolve
from .model.state import State
from .reader import Reader, View
from .storage import Storage

# Closing saves a TOC when this much stands behind the last one; less is quickly folded again.
_CLOSING_TOC_BYTES = 64 * 1024
# Zeros written ahead of the log, about eight batches of them; cut off when the file is closed.
_RESERVE = 64 * 1024
_MOST_RESERVE = 1024 * 1024


@frozen
class Recovery:
    """What opening found behind the last whole segment: ``bytes_dropped`` at ``offset``.

    A writer cut them off; a read-only store looked past them.
    """

    bytes_dropped: int
    offset: int


@frozen
class Flushed:
    """Events that became durable, in order, and per event the bytes it took in the file."""

    events: list[Event]
    sizes: list[int]


class Journal:
    """The log of one open file. Made by :meth:`open`."""

    def __init__(
        self, storage: Storage, config: StoreConfig, header: Header, *, read_only: bool
    ) -> None:
        self._storage = storage
        self._config = config
        self._header = header
        self._salt = header.salt
        self._read_only = read_only
        self._pid = os.getpid()
        self._state = State(generation=header.generation)
        self._index = Index(LOG_START)
        self.reader = Reader(storage, self._index, self._salt, header.version)
        self.recovery = Recovery(0, 0)
        # The log as staged: its end, and the checksum of its last segment. Behind ``_written`` it
        # is in ``_buffer`` only.
        self._end = self._written = self._reserved = LOG_START
        self._checksum = self._salt
        self._buffer: list[bytes] = []
        self._staged: list[Event] = []
        self._sizes: list[int] = []
        self._toc: Slot | None = None
        self._loaded = False
        self._holding = False
        self._failure: MemvidAsyncError | None = None

    # Opening.

    @classmethod
    def open(cls, storage: Storage, config: StoreConfig, *, read_only: bool = False) -> Journal:
        """Read the file, or make it one for writing; cut a torn tail (writers only).

        :raises NotAStoreError, UnsupportedVersionError, CorruptFileError: see there.
        :raises StoreLockedError, StoreFailedError: see there.
        """
        if not read_only:
            storage.lock(config.lock_timeout)
        try:
            start = storage.read(0, LOG_START)
            if is_unfinished(start, storage.size()):
                if read_only:
                    raise NotAStoreError("the file is empty; open it for writing to make a store")
                header = Header(config.id_factory())
                storage.write(0, header.encode())
                storage.sync()
                storage.sync_directory()
                start = header.encode()
            journal = cls(storage, config, decode_header(start), read_only=read_only)
            journal._load(start)
            return journal
        finally:
            if not read_only:
                storage.unlock()

    def _load(self, start: bytes) -> None:
        slot = newest_slot(start, self._salt)
        if slot is not None:
            self._load_toc(slot)
        self._catch_up(lambda _: _PLACEHOLDER)
        self._loaded = True

    def _load_toc(self, slot: Slot) -> None:
        """Start from the TOC that a slot names. The slot was written after the TOC was synced, so
        a TOC that is not there was damaged or cut off."""
        read, size = self._storage.read, self._storage.size()
        if slot.offset >= size:
            raise CorruptFileError(size, f"the file is cut short: byte {slot.offset} was in it")
        segment = read_segment(read, slot.offset, size, self._salt, guess=64 * 1024)
        if segment.kind != SegmentKind.TOC or segment.sequence != slot.sequence + 1:
            raise CorruptFileError(slot.offset, "there is no TOC where one should be")
        try:
            toc = decode_toc(segment.payload, self._header.generation)
            self._state = self._index.load(toc, segment, read, self._salt)
        except ValueError as error:
            raise CorruptFileError(slot.offset, f"the TOC is not valid: {error}") from None
        self._end = self._written = segment.end
        self._checksum = segment.checksum

    # Catching up.

    def refresh(self) -> list[Event]:
        """Fold what others appended since, and give its events."""
        self._check()
        try:
            # One byte back: a file that was cut short has none.
            data = self._storage.read(self._end - 1, 1 + HEAD_SIZE)
            if data and not any(data[1:]):
                return []
            return self._catch_up(lambda sequence: self.reader.content(sequence, self._end))
        except (StoreFailedError, CorruptFileError) as error:
            self._failure = error
            raise

    def _catch_up(self, content: Callable[[int], Content]) -> list[Event]:
        size = self._storage.size()
        if size < self._end:
            raise CorruptFileError(size, f"the file is cut short: byte {self._end - 1} was in it")
        events: list[Event] = []
        read = self._storage.read
        for segment in scan(read, self._end, size, self._checksum, self._salt):
            self._end, self._checksum = segment.end, segment.checksum
            events += self._fold(segment, content)
        self._written, self._reserved = self._end, size
        if not self._read_only or not self._loaded:
            self._look_behind(size)
        return events

    def _look_behind(self, size: int) -> None:
        """Zeros behind the last segment are reserved space; anything else is a torn tail."""
        torn, offset = 0, self._end
        while offset < size:
            data = self._storage.read(offset, min(_RESERVE, size - offset))
            if not data:
                break
            if any(data):
                torn = offset + len(data.rstrip(b"\0")) - self._end
            offset += len(data)
        if torn:
            self.recovery = Recovery(torn, self._end)
            if not self._read_only:
                self._storage.truncate(self._end)
                self._storage.sync()
                self._reserved = self._end

    def _fold(self, segment: Segment, content: Callable[[int], Content]) -> list[Event]:
        """Fold a segment that is next in the log."""
        if segment.sequence != self._state.last_sequence + 1:
            raise CorruptFileError(segment.offset, "the log's sequence has a gap")
        try:
            if segment.kind != SegmentKind.EVENTS:
                self._index.note_derived(segment)
                return []
            sessions = self._state.sessions

            def session_id(number: int) -> UUID | None:
                session = sessions.get(number)
                return session.info.session_id if session is not None else None

            events = decode_events(segment.payload, segment.sequence, session_id, content)
        except ValueError as error:
            raise CorruptFileError(segment.offset, str(error)) from None
        state = self._state
        for event in events:
            state = evolve(state, event)
        self._state = state
        self._index.note_events(events, events[-1].session, segment.offset)
        return events

    # Writing.

    @property
    def view(self) -> View:
        """What readers may see: the state as folded, and the log as far as it is written."""
        return View(self._state, self._written)

    @property
    def holds_lock(self) -> bool:
        """Whether events are staged that have yet to be flushed."""
        return self._holding

    @property
    def needs_io(self) -> bool:
        """Whether the next staged command has to write and sync first."""
        return self._index.toc_due(self._end)

    @property
    def staged_bytes(self) -> int:
        """How much of the log is in memory only."""
        return self._end - self._written

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        return self._index.content_count

    def commit(self, commands: Sequence[Command]) -> tuple[list[Any], Flushed]:
        """Decide the commands in order, append their events and make them durable.

        Gives, per command, its answer or the error that refused it, and what became durable:
        others' events first, where others wrote.
        """
        self.begin()
        try:
            outcomes = [self.stage(command) for command in commands]
        except BaseException:
            self._storage.unlock()
            raise
        return outcomes, self.flush()

    def begin(self) -> None:
        """Take the lock and catch up with what others wrote.

        :raises StoreLockedError: when the lock is held for too long; nothing has changed.
        :raises StoreFailedError, CorruptFileError, StoreReadOnlyError: see there.
        """
        self._check()
        if self._read_only or self._state.beyond:
            why = "it was opened read-only" if self._read_only else "a newer release wrote to it"
            raise StoreReadOnlyError(f"the store cannot be written: {why}")
        self._storage.lock(self._config.lock_timeout)
        try:
            if not self._storage.is_current():
                raise StoreFailedError("the file was deleted or replaced; open it again")
            foreign = self.refresh()
            self._index.load_contents()
        except MemvidAsyncError as error:
            self._failure = error
            self._storage.unlock()
            raise
        self._staged += foreign
        self._sizes += [0] * len(foreign)
        self._holding = True

    def stage(self, command: Command) -> Any:
        """Decide a command, fold its events and put them in line to be written.

        Gives the command's answer or the error that refused it.
        """
        state, index = self._state, self._index
        try:
            events, answer = decide(state, command, self._now(), index)
            if not events:
                return answer
            payload = encode_events(events)
        except Exception as error:  # noqa: BLE001 - a user's clock may raise anything
            # Nothing has changed yet: the command alone fails, whatever was wrong with it.
            return error
        if index.is_due(self._end):
            self._save_derived()
        offset = self._append(SegmentKind.EVENTS, payload, events[0].sequence)
        for event in events:
            state = evolve(state, event)
        self._state = state
        index.note_events(events, events[-1].session, offset)
        if len(events) > 1:
            events = [_without_data(event) for event in events]
            self._sizes += [0] * (len(events) - 1)
        self._staged += events
        self._sizes.append(self._end - offset)
        return answer

    def _now(self) -> int:
        """The clock, but never back: time in the log only grows."""
        now = self._config.clock()
        if type(now) is not int or now < 0:
            raise InvalidValueError(f"clock() gave {now!r}, not an int of nanoseconds")
        return max(now, self._state.last_time_ns)

    def _append(self, kind: SegmentKind, payload: bytes, sequence: int) -> int:
        head, self._checksum = seal(kind, sequence, payload, self._checksum, self._salt)
        self._buffer += (head, payload)
        offset = self._end
        self._end = offset + HEAD_SIZE + len(payload)
        return offset

    def _append_derived(self, kind: SegmentKind, payload: bytes) -> int:
        return self._append(kind, payload, self._state.last_sequence + 1)

    def _save_derived(self) -> None:
        """Save what is due, before the next command: always at the same place in the log, however
        the commands were batched."""
        self._index.save_positions(self._append_derived)
        if self._index.toc_due(self._end):
            self._save_toc()

    def _save_toc(self) -> None:
        """A TOC proves what stands below it, so all of that is synced first."""
        self._write_out()
        self._index.save_pages(self._state, self._append_derived)
        payload = self._index.encode_toc(self._state)
        offset = self._append_derived(SegmentKind.TOC, payload)
        self._index.toc_written(self._end, len(payload))
        self._toc = Slot(offset, self._state.last_sequence)

    def _write_out(self) -> None:
        """Write and sync what is in line; then point at the TOC that became durable with it."""
        try:
            if self._buffer:
                if self._end > self._reserved:
                    self._reserve()
                self._storage.write(self._written, b"".join(self._buffer))
                self._storage.sync()
                self._buffer.clear()
                self._written = self._end
            if self._toc is not None:
                place = next_slot_offset(self._storage.read(0, LOG_START), self._salt)
                self._storage.write(place, self._toc.encode(self._salt))
                self._toc = None
        except BaseException as error:
            self._failure = (
                error
                if isinstance(error, MemvidAsyncError)
                else StoreFailedError(f"writing stopped half-way: {error!r}")
            )
            raise

    def _reserve(self) -> None:
        """Let the next batches find room that is on the disk already: syncing them then need not
        wait for the file system to record a new length, which takes a third longer."""
        room = min(max(_RESERVE, 8 * (self._end - self._written)), _MOST_RESERVE)
        self._buffer.append(bytes(room))
        self._reserved = self._end + room

    def flush(self) -> Flushed:
        """Write and sync what was staged, let the lock go, and give what became durable.

        :raises StoreFailedError: the journal refuses everything from then on.
        """
        self._check()
        try:
            self._write_out()
        finally:
            self._holding = False
            self._storage.unlock()
        flushed = Flushed(self._staged, self._sizes)
        self._staged, self._sizes = [], []
        return flushed

    def fail(self, error: MemvidAsyncError) -> None:
        """Refuse everything from now on."""
        self._failure = self._failure or error

    def close(self) -> None:
        """Save a TOC where that spares the next opening work, give reserved space back, and
        release the file."""
        try:
            if self._failure is None and not self._read_only:
                self._tidy()
        finally:
            self._storage.close()

    def _tidy(self) -> None:
        with_toc = self._index.since_toc(self._end) >= _CLOSING_TOC_BYTES
        if not with_toc and self._reserved == self._end:
            return
        try:
            self.begin()
        except (StoreLockedError, StoreReadOnlyError):
            # It only spares work and space; another writer is busy and will do it.
            return
        if with_toc:
            self._index.save_positions(self._append_derived)
            self._save_toc()
        self._write_out()
        self._storage.truncate(self._end)
        self._storage.sync()
        self._holding = False
        self._storage.unlock()

    def release(self) -> None:
        """Release the file without touching it again."""
        self._storage.close()

    def _check(self) -> None:
        if self._failure is not None:
            raise StoreFailedError(
                f"the store failed earlier ({self._failure}); open the file again"
            ) from self._failure
        if os.getpid() != self._pid:
            raise StoreClosedError("the store was opened before a fork; open the file again")


def _without_data(event: Event) -> Event:
    """The event as it is published: whoever wants a content's data reads it from the file."""
    payload = event.payload
    if not isinstance(payload, ContentStored):
        return event
    kept = ContentStored(payload.digest, payload.size)
    return Event(event.sequence, event.time_ns, None, kept)


_PLACEHOLDER = Content(None, StoredContent(b"", 0, "", 0))
