"""An open file: the state folded from it, the catalog of where things are, and its growing end.

It is synchronous and used by one thread at a time. Appended segments wait in memory until
:meth:`LogFile.write_out` makes them durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.evolve import evolve_together
from ..core.reports import TornTail
from ..core.state import State, drafted, settled
from ..errors import CorruptFileError, StoreFailedError
from ..events.content import Content
from ..events.decided import AnyEvent, DecidedEvent
from ..events.event import Erased, Event
from ..format.codec import UNREAD, read_events, read_one_action
from ..format.header import (
    LOG_START,
    SALT_OFFSET,
    Header,
    Slot,
    decode_header,
    newest_slot,
    next_slot_offset,
)
from ..format.rows import DecodedRows, decode_rows
from ..format.segment import HEAD_SIZE, Segment, SegmentKind, read_segment, scan, seal
from ..format.stubs import decode_stubs, stub_events
from ..format.tables import PAGE_NUMBER, ProjectionPages, encode_projection_pages
from ..storage import Storage
from .catalog import Catalog
from .file_view import FileView
from .reader import Reader
from .toc import decode_toc
from .write_runs import WRITE_BYTES, write_runs

# How many zeros are written ahead of the log: room for about eight batches, within these bounds.
# Closing the file cuts them off.
_RESERVE = 64 * 1024
_MOST_RESERVE = 1024 * 1024
# A slot is written with a batch when the log before that ends this many bytes after what the slots
# say, or when the batch's time is this many nanoseconds from that of the slot before.
_SLOT_BYTES = 4 * 1024
_SLOT_NS = 100_000_000
# Of a segment that was decided outside of the log: its events, the open session that they belong
# to, where it begins, and its size.
OwnSegment = tuple[Sequence[DecidedEvent], int, int, int]

# A segment holds at most this many pages of a search index.
_INDEX_PAGES = 1024


class LogFile:
    """The log in one file. Made by :meth:`create` or :meth:`load`."""

    def __init__(self, storage: Storage, header: Header, *, read_only: bool) -> None:
        self.storage = storage
        self.header = header
        # The state as folded so far. In a run its maps are drafts; readers see ``_shown``.
        self.state = self._shown = State(generation=header.generation)
        self._in_run = False
        self.catalog = Catalog(LOG_START)
        self.reader = Reader(storage, self.catalog, header.salt, header.version)
        self.torn_tail = TornTail(0, 0)
        self._salt = header.salt
        self._read_only = read_only
        # The log from ``_written`` to ``_end`` is only in ``_buffer``. The file has room up to
        # ``_reserved``.
        self._end = self._written = self._reserved = LOG_START
        self._checksum = self._salt
        # The offset of that checksum: in the last segment, or in the header if there is none.
        self._checksum_at = SALT_OFFSET
        self._buffer: list[bytes | bytearray] = []
        # The slot for a TOC that is staged.
        self._toc: Slot | None = None
        # Up to ``_durable`` the log was synced, and up to ``_named`` the slots say so: since events
        # of the time ``_named_ns``.
        self._durable = self._named = LOG_START
        self._named_ns = 0
        # Whether a slot was written since the last sync: another one must wait for the next, as a
        # power cut could tear both.
        self._slot_pending = False
        # Whether the log has bytes that another process wrote and may not have synced.
        self._unsynced = False
        # Whether a fold or a cut has begun and not ended.
        self.in_doubt = False

    # Opening.

    @classmethod
    def create(cls, storage: Storage, header: Header) -> LogFile:
        """Write a file's header. Neither the file nor its name is durable after that."""
        storage.write(0, header.encode())
        return cls(storage, header, read_only=False)

    @classmethod
    def load(cls, storage: Storage, *, read_only: bool) -> LogFile:
        """Read a file: its last TOC, then the tail; cut a torn tail, unless ``read_only``.

        :raises NotAStoreError, UnsupportedVersionError, CorruptFileError: see there.
        """
        start = storage.read(0, LOG_START)
        file = cls(storage, decode_header(start), read_only=read_only)
        slot = newest_slot(start, file._salt)
        if slot is not None:
            file._require_size(slot.end)
            if slot.toc:
                file._load_toc(slot)
        file.catch_up(None)
        if read_only:
            file._look_after(storage.size())
            return file
        # The process that created, compacted or appended to the file may have been killed before
        # its name and its last bytes were durable. They must be before anything follows them.
        storage.sync_directory()
        file._unsynced = file._unsynced or slot is None
        file.write_out()
        return file

    def _load_toc(self, slot: Slot) -> None:
        """Start from the TOC that a slot names.

        The slot was written after the TOC was synced. So a TOC that is not there was damaged or cut
        off.
        """
        read = self.storage.read
        segment = read_segment(read, slot.toc, slot.end, self._salt, guess=64 * 1024)
        if segment.kind != SegmentKind.TOC or segment.sequence != slot.sequence + 1:
            raise CorruptFileError(slot.toc, "there is no TOC where one should be")
        try:
            toc = decode_toc(segment.payload, self.header.generation)
            self.state = self._shown = self.catalog.load(toc, segment, read, self._salt)
        except ValueError as error:
            raise CorruptFileError(slot.toc, f"the TOC is not valid: {error}") from None
        self._end_at(segment)

    # Catching up with what others appended.

    @property
    def has_news(self) -> bool:
        """Whether something follows the log's end, or the file was cut short.

        It reads from one byte before the end, because a file that was cut short lacks that byte.
        """
        data = self.storage.read(self._end - 1, 1 + HEAD_SIZE)
        return not data or data[1:].strip(b"\0") != b""

    def catch_up(
        self, content: Callable[[int], Content] | None, found: list[Event] | None = None
    ) -> None:
        """Fold what follows the log's end. With ``content``, add its events to ``found``, as
        :meth:`decode` does.

        A read that fails leaves the fold as it is after the segments before; ``found`` has those.

        :raises CorruptFileError: when the file was cut short or damaged below what is known to be
            durable, or holds what no writer wrote.
        """
        # Read before the log, because a writer may be appending.
        slot = newest_slot(self.storage.read(0, LOG_START), self._salt)
        size = self._require_size(self._end)
        before = self._end
        for segment in scan(self.storage.read, self._end, size, self._checksum, self._salt):
            folded = self._fold(segment, content)
            if found is not None:
                found += folded
            self._end_at(segment)
            self._unsynced = not self._read_only
            self.in_doubt = False
        if self._end == before:
            self._check_last()
        if slot is not None:
            self._require_reached(slot.end)
            self._durable, self._named = max(self._durable, slot.end), max(self._named, slot.end)
        self._reserved = size
        if not self._read_only:
            self._look_after(size)

    def _require_reached(self, durable: int) -> None:
        """Check that the log reaches the end up to which a slot says that it is durable."""
        if self._end < durable:
            raise CorruptFileError(
                self._end,
                f"there is no valid segment, but the log was durable up to byte {durable}; "
                "recover() saves what is left",
            )

    def _require_size(self, end: int) -> int:
        """Return the file's size.

        :raises CorruptFileError: when the file is shorter than ``end``.
        """
        size = self.storage.size()
        if size < end:
            raise CorruptFileError(size, f"the file is cut short: byte {end - 1} was in it")
        return size

    def _check_last(self) -> None:
        """Check the last segment, when none follows it: it may be gone, if its sync failed."""
        if self.storage.read(self._checksum_at, 4) != self._checksum.to_bytes(4, "little"):
            raise CorruptFileError(self._checksum_at, "the last segment is another one now")

    def _look_after(self, size: int) -> None:
        """Look for a torn tail after the last segment, and cut it; zeros are reserved space."""
        torn, offset = 0, self._end
        while offset < size:
            data = self.storage.read(offset, min(_RESERVE, size - offset))
            if not data:
                break
            if any(data):
                torn = offset + len(data.rstrip(b"\0")) - self._end
            offset += len(data)
        if torn:
            self.torn_tail = TornTail(torn, self._end)
            if not self._read_only:
                self.in_doubt = True
                self.storage.truncate(self._end)
                self.storage.sync()
                self._reserved = self._end
                self.in_doubt = False

    def _fold(self, segment: Segment, content: Callable[[int], Content] | None) -> list[Event]:
        """Fold the segment that comes next in the log."""
        if segment.sequence != self.state.last_sequence + 1:
            raise CorruptFileError(segment.offset, "the log's sequence has a gap")
        try:
            has_rows = segment.kind == SegmentKind.EVENTS
            parts = decode_rows(segment.payload) if has_rows else None
            events: list[Any] | None = None
            if parts is not None and content is None:
                events = read_one_action(parts, segment.sequence, self.state.sessions.open_id)
            if events is None:
                events = self.decode(segment, content, parts)
            # From here to the caller's note of the new end, an error leaves a part of it folded.
            self.in_doubt = True
            if events is None:
                self.catalog.note_derived(segment)
                return []
            self.take_in(events, segment.offset)
        except (ValueError, LookupError) as error:
            raise CorruptFileError(segment.offset, str(error)) from None
        return events

    def decode(
        self,
        segment: Segment,
        content: Callable[[int], Content] | None = None,
        parts: DecodedRows | None = None,
    ) -> list[Event] | None:
        """Return the events of the segment that comes next in the log; None when it has none.

        ``content`` reads large content. Without it, the events are only what a fold needs: large
        content is :data:`UNREAD`, and the first and the last of erased events stand for all.
        ``parts``: what :func:`.rows.decode_rows` returned for it, where the caller has that.

        :raises ValueError: when the segment is not as its kind requires.
        """
        if segment.kind == SegmentKind.STUBS:
            runs = decode_stubs(segment.payload)
            if content is not None:
                return stub_events(runs, segment.sequence)
            last = segment.sequence + sum(count for _, count in runs) - 1
            ends = [(segment.sequence, runs[0][0]), (last, runs[-1][0])]
            return [Event(sequence, time_ns, None, Erased()) for sequence, time_ns in ends]
        if segment.kind != SegmentKind.EVENTS:
            return None
        parts, ids = parts or decode_rows(segment.payload), self.state.sessions.session_id
        return read_events(parts, segment.sequence, ids, content or (lambda _: UNREAD))

    def take_in(self, events: Sequence[AnyEvent], offset: int) -> None:
        """Fold the events of the segment at ``offset``."""
        self.state, owner = evolve_together(self.state, events)
        self.catalog.note_events(events, owner, offset)
        if not self._in_run:
            self._shown = self.state

    def take_in_own(
        self, derived: Sequence[Segment], own: Sequence[OwnSegment], checksum: int, state: State
    ) -> None:
        """Take in segments that were decided outside of this log and are in its storage now: none
        of them is read or folded again.

        ``derived``: those that come before ``own``. ``checksum``: that of the last one. ``state``:
        the state after them, with drafts of its maps.
        """
        catalog = self.catalog
        for segment in derived:
            catalog.note_derived(segment)
        for events, owner, offset, _ in own:
            catalog.note_events(events, owner, offset)
        self.state = self._shown = settled(state)
        _, _, self._checksum_at, size = own[-1]
        self._end = self._written = self._checksum_at + size
        self._checksum = checksum
        catalog.all_written()

    def _end_at(self, segment: Segment) -> None:
        self._end = self._written = segment.end
        self._checksum, self._checksum_at = segment.checksum, segment.offset

    # A run of commands.

    def begin_run(self) -> None:
        """Let the events from now on change drafts of the folded maps, for :meth:`end_run`."""
        self.state = drafted(self.state)
        self._in_run = True

    def end_run(self) -> None:
        """Show the state after the run to everybody."""
        self.state = self._shown = settled(self.state)
        self._in_run = False

    def fork(self) -> LogFile:
        """Return a log that goes on from here in memory, and on its own: for what may have to be
        dropped again."""
        twin = LogFile(self.storage, self.header, read_only=True)
        twin.state = twin._shown = self.state
        twin.catalog = self.catalog.copy()
        twin._end = twin._written = self._end
        twin._checksum, twin._checksum_at = self._checksum, self._checksum_at
        return twin

    @property
    def staged(self) -> tuple[bytes, Slot | None]:
        """The bytes of the log that are in memory only, and the slot for a TOC among them."""
        return b"".join(self._buffer), self._toc

    # Appending.

    @property
    def view(self) -> FileView:
        """What readers may see: the folded state, and the log as far as it is written."""
        return FileView(self._shown, self._written, self.reader)

    @property
    def checksum(self) -> int:
        """The checksum of the log's last segment, which depends on all before it."""
        return self._checksum

    @property
    def staged_bytes(self) -> int:
        """How many bytes of the log are in memory only."""
        return self._end - self._written

    @property
    def since_toc(self) -> int:
        """How many bytes follow the last TOC."""
        return self.catalog.since_toc(self._end)

    def append(
        self, kind: SegmentKind, payload: bytes | bytearray, events: Sequence[AnyEvent]
    ) -> int:
        """Stage a segment with these events and fold them; return its size in bytes.

        What is due to be saved is staged before it.
        """
        if self.catalog.is_due(self._end):
            self.stage_due()
        offset = self._seal(kind, payload, events[0].sequence)
        self.take_in(events, offset)
        return self._end - offset

    def _seal(self, kind: SegmentKind, payload: bytes | bytearray, sequence: int) -> int:
        head, self._checksum = seal(kind, sequence, payload, self._checksum, self._salt)
        self._buffer += (head, payload)
        offset = self._checksum_at = self._end
        self._end = offset + HEAD_SIZE + len(payload)
        return offset

    def _seal_derived(self, kind: SegmentKind, payload: bytes) -> int:
        return self._seal(kind, payload, self.state.last_sequence + 1)

    def stage_due(self) -> None:
        """Stage what is due before the next command.

        So it is always at the same place in the log, however the commands were batched.
        """
        if self.catalog.save_due(self.state, self._end, self._seal_derived):
            self.save_toc()

    def save_toc(self) -> None:
        """Stage a TOC. Its slot is written after the sync that makes it and the log durable."""
        self.catalog.save_positions(self._seal_derived)
        self.catalog.save_pages(self.state, self._seal_derived)
        payload = self.catalog.encode_toc(self.state)
        offset = self._seal_derived(SegmentKind.TOC, payload)
        self.catalog.toc_written(self._end, len(payload))
        self._toc = Slot(self._end, offset, self.state.last_sequence)

    def save_projection(
        self, name: str, through: int, page_count: int, pages: Sequence[tuple[int, bytes]]
    ) -> None:
        """Stage the changed pages of a projection, linked to those of the save before.

        When these are all of its pages, there is no link.
        """
        previous = 0 if len(pages) == page_count else self.catalog.saved[name][0]
        for at in range(0, len(pages), _INDEX_PAGES):
            some = pages[at : at + _INDEX_PAGES]
            part = ProjectionPages(
                name,
                previous,
                through,
                page_count,
                at + len(some) == len(pages),
                b"".join(PAGE_NUMBER.pack(number) for number, _ in some),
                b"".join(page for _, page in some),
            )
            previous = self._seal_derived(SegmentKind.PROJECTION, encode_projection_pages(part))
            self.catalog.note_saved(part, previous)

    def write_out(self) -> None:
        """Write and sync what is staged; then write the slot of a TOC that became durable.

        Another slot, if one is due, is written before the sync and says what was durable by then.
        """
        wanted = bool(self._buffer) or self._unsynced
        if wanted and self._slot_is_due:
            self._write_slot(Slot(self._durable), may_wait=True)
        if self._buffer:
            if self._end > self._reserved:
                self._reserve()
            at = self._written
            small = self._reserved - at <= WRITE_BYTES
            for run in [b"".join(self._buffer)] if small else write_runs(self._buffer):
                self.storage.write(at, run)
                at += len(run)
        if wanted:
            self.storage.sync()
            self._slot_pending = self._unsynced = False
            self._buffer.clear()
            self._written = self._durable = self._end
            self.catalog.all_written()
        if self._toc is not None and self._write_slot(self._toc, may_wait=True):
            self._toc = None

    @property
    def _slot_is_due(self) -> bool:
        # A newer release may have written to the file; then this one may not.
        waits = self._slot_pending or self.state.beyond
        behind = 0 if waits else self._durable - self._named
        since = abs(self.state.last_time_ns - self._named_ns)
        return behind >= _SLOT_BYTES or (behind > 0 and since >= _SLOT_NS)

    def _write_slot(self, slot: Slot, *, may_wait: bool = False) -> bool:
        """Write over the older slot, with the newest TOC; the next sync makes the slot durable.

        What it says is durable already. So it ``may_wait`` for a later batch: a read that fails
        need not fail a store whose batch is half-way. Returns whether it was written.
        """
        try:
            start = self.storage.read(0, LOG_START)
        except (StoreFailedError, MemoryError):
            if may_wait:
                return False
            raise
        newer = max(slot, newest_slot(start, self._salt) or slot, key=lambda one: one.toc)
        slot = Slot(max(slot.end, self._named), newer.toc, newer.sequence)
        self.storage.write(next_slot_offset(start, self._salt), slot.encode(self._salt))
        self._named, self._named_ns = slot.end, self.state.last_time_ns
        self._slot_pending = True
        return True

    def _reserve(self) -> None:
        """Stage zeros after the log, so that the disk already has room for the next batches.

        Then syncing these need not wait for the file system to record a new length, which takes a
        third longer.
        """
        room = min(max(_RESERVE, 8 * (self._end - self._written)), _MOST_RESERVE)
        self._buffer.append(bytes(room))
        self._reserved = self._end + room

    @property
    def is_tidy(self) -> bool:
        """Whether no reserved space follows the log, and its slots are those of :meth:`tidy`."""
        return self._reserved == self._end and self._named >= self._checksum_at

    def tidy(self, *, with_toc: bool) -> None:
        """Write out everything, with a TOC if wanted, and cut the reserved space off.

        Both slots then say that the log before its last segment is durable, or all of it where that
        is a TOC. So a file whose end is missing opens with a torn tail of one command, and with
        more missing not at all.
        """
        if with_toc:
            self.save_toc()
        self.write_out()
        slot = Slot(max(self._named, self._checksum_at))
        if not self._slot_pending:
            self._write_slot(slot)
        self.storage.truncate(self._end)
        self.storage.sync()
        self._reserved = self._end
        self._write_slot(slot)
        self.storage.sync()
        self._slot_pending = False
