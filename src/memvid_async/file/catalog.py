"""The catalog: where things are in a file. Derived from the events and their offsets.

No fold ever depends on it. It is told of every segment, written or read, and says what is due to be
saved: a session's positions, a page of a table, a TOC.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from ..core.recent_keys import RecentKeys
from ..core.state import State
from ..errors import CorruptFileError
from ..events.decided import AnyEvent
from ..events.event import ContentStored, SessionDeleted, SessionEnded
from ..events.frames import FRAME_EVENTS
from ..events.keyed import COLLECTION_EVENTS, CollectionChanged, KeyUsed
from ..format.segment import HEAD_SIZE, Read, Segment, SegmentKind, read_segment
from ..format.tables import (
    COLLECTIONS,
    CONTENT_ROW,
    MARK_ROW,
    MEMORY,
    NUMBER_ROW,
    PACKED_ROWS,
    PAGE_ROWS,
    PROJECTIONS,
    USED_KEY_ROW,
    Owner,
    ProjectionPages,
    Table,
    decode_page,
    decode_positions,
    decode_projection_pages,
    encode_page,
    encode_positions,
)
from .open_table import OpenTable
from .toc import (
    EndedSessions,
    OpenSession,
    SavedPlace,
    Toc,
    encode_toc,
    ended_columns,
    open_columns,
    open_row,
    read_ended_columns,
    read_numbers,
    read_open_columns,
    read_open_row,
    with_sessions,
)

# A TOC is due after this many bytes of log, or after TOC_FACTOR times the size of the last TOC,
# whichever is more.
TOC_LEAST_BYTES = 512 * 1024
TOC_FACTOR = 16
# A chunk of positions is due when a session has this many segments since its last chunk.
CHUNK = 64
# A mark says at which offset a sequence is. There is one about every this many bytes of log.
MARK_BYTES = 64 * 1024

# Where the segments of an open session or of a projection are: the offset of its last chunk (0:
# none), and the offsets of the segments since.
Place = tuple[int, list[int]]


class Catalog:
    """Where things are in one file. Only the journal's thread changes it.

    ``positions``: for each session and projection, the place of its segments. The pair is replaced
    as a whole, or its list is appended to, so that another thread may read it.
    """

    def __init__(self, log_start: int) -> None:
        self.positions: dict[Owner, Place] = {}
        # Per ended session, the offset of its last chunk: all its segments are in chunks.
        self.ended_chunks: dict[Owner, int] = {}
        # The chunks of positions that are not in the file yet: of each its place, by offset.
        self.unwritten: dict[int, Place] = {}
        self.mark_sequences = array("Q")
        self.mark_offsets = array("Q")
        self._contents: dict[bytes, int] = {}
        # Per idempotency key (its hash): the hash of what it came with, and its answer's sequence.
        self._used_keys: dict[bytes, tuple[bytes, int]] = {}
        # Reads the rows of the contents, and of the idempotency keys.
        self._load_tables: Callable[[], tuple[Sequence[bytes], Sequence[bytes]]] | None = None
        # The keys of collections that changed last.
        self.recent_keys = RecentKeys()
        self._full: dict[Owner, None] = {}  # in the order in which they fell due
        self._ended: dict[int, None] = {}
        # The open sessions, and which page of the file has which.
        self.open = OpenTable()
        # By table, the offset of its last page.
        self._pages: dict[int, int] = {}
        # By table, the packed rows that are in no page yet.
        self._new = {Table(table): bytearray() for table in PACKED_ROWS}
        self._toc_end = log_start
        self._toc_interval = TOC_LEAST_BYTES
        self.content_count = 0
        # Per projection: the offset of the last part of its last save (0: none), and the last event
        # folded into it.
        self.saved: dict[str, tuple[int, int]] = dict.fromkeys(PROJECTIONS, (0, 0))

    def copy(self) -> Catalog:
        """Return a catalog that says the same, and changes on its own."""
        twin = copy(self)
        changing = ("positions", "ended_chunks", "unwritten", "_full", "_ended", "_pages", "saved")
        rows = {table: bytearray(rows) for table, rows in self._new.items()}
        vars(twin).update({name: dict(vars(self)[name]) for name in changing}, _new=rows)
        twin.open = self.open.copy()
        return twin

    def due_positions(self) -> list[Owner]:
        """Return whose chunks of positions are due."""
        return [owner for owner in self._full if self.positions.get(owner, (0, []))[1]]

    # What is in the file.

    def note_events(self, events: Sequence[AnyEvent], number: int, offset: int) -> None:
        """Note that the segment at ``offset`` has these events of the open session ``number``.

        ``number``: 0 for no session, or for an ended one.
        """
        marks = self.mark_offsets
        if not marks or offset - marks[-1] >= MARK_BYTES:
            self._mark(events[0].sequence, offset)
        kind = type(events[0].payload)
        if number and kind is not SessionDeleted:
            place = self.positions.get(number)
            if place is not None and len(place[1]) < CHUNK - 1:
                place[1].append(offset)
            else:
                self._add(number, offset)
            if number in self.ended_chunks or number in self._ended:
                # A session that has ended was changed: its row and its positions are due again.
                self._ended[number] = None
                self._full[number] = None
            elif number not in self.open.changed:
                self.open.note(number)
        if len(events) > 1 or not number or kind in _SPECIAL:
            self._note_special(events, number, offset)

    def _note_special(self, events: Sequence[AnyEvent], number: int, offset: int) -> None:
        changes_memory = changes_keys = False
        for event in events:
            payload = event.payload
            if isinstance(payload, FRAME_EVENTS):
                changes_memory = True
            elif isinstance(payload, COLLECTION_EVENTS):
                changes_keys = True
                if isinstance(payload, CollectionChanged):
                    self.recent_keys.note(event)
            elif isinstance(payload, ContentStored):
                self._contents[payload.digest] = event.sequence
                self._new[Table.CONTENTS] += CONTENT_ROW.pack(payload.digest, event.sequence)
                self.content_count += 1
            elif isinstance(payload, SessionEnded) and number in self.positions:
                self._ended[number] = None
                self.open.forget(number)
                if self.positions[number][1]:
                    self._full[number] = None
                else:
                    self._positions_written(number, self.positions[number][0])
            elif isinstance(payload, SessionDeleted):
                self._forget(event.session)
            elif isinstance(payload, KeyUsed):
                key, content = payload.key_hash, payload.content_hash
                self._used_keys[key] = (content, payload.answer)
                self._new[Table.USED_KEYS] += USED_KEY_ROW.pack(key, content, payload.answer)
        if changes_memory:
            self._add(MEMORY, offset)
        if changes_keys:
            self._add(COLLECTIONS, offset)

    def _add(self, owner: Owner, offset: int) -> None:
        place = self.positions.get(owner)
        if place is None:
            # A session that has ended may be changed. Readers look among the open ones first.
            place = self.positions[owner] = (self.ended_chunks.get(owner, 0), [])
        offsets = place[1]
        offsets.append(offset)
        if len(offsets) == CHUNK:
            self._full[owner] = None

    def _forget(self, number: int) -> None:
        was_there = number in self.positions or number in self.ended_chunks
        self.positions.pop(number, None)
        self.ended_chunks.pop(number, None)
        self._ended.pop(number, None)
        self.open.forget(number)
        if was_there:
            self._new[Table.DELETED] += NUMBER_ROW.pack(number)

    def _mark(self, sequence: int, offset: int) -> None:
        # The offset first: a reader in another thread looks up a sequence, then its offset.
        self.mark_offsets.append(offset)
        self.mark_sequences.append(sequence)
        self._new[Table.MARKS] += MARK_ROW.pack(sequence, offset)

    def note_derived(self, segment: Segment) -> None:
        """Note a derived segment that was read.

        :raises ValueError: when it is not as its kind requires.
        """
        if segment.kind == SegmentKind.POSITIONS:
            owner, _, _ = decode_positions(segment.payload)
            if owner in self.positions:
                self._positions_written(owner, segment.offset)
            self._full.pop(owner, None)
        elif segment.kind == SegmentKind.PAGE:
            table, _, rows = decode_page(segment.payload)
            if table == Table.OPEN:
                numbers, _ = read_open_columns(rows)
                # A file may say anything: of others, no row could be written again.
                known = [n for n in numbers if n in self.positions and n not in self._ended]
                self._open_written(known, segment.offset, segment.end)
            elif table in PAGE_ROWS:
                self._page_written(Table(table), segment.offset)
        elif segment.kind == SegmentKind.PROJECTION:
            self.note_saved(decode_projection_pages(segment.payload), segment.offset)
        elif segment.kind == SegmentKind.TOC:
            self.toc_written(segment.end, len(segment.payload))

    def note_saved(self, part: ProjectionPages, offset: int) -> None:
        """Note that a part of a saved projection is at ``offset``."""
        if part.name in self.saved and part.is_last:
            self.saved[part.name] = (offset, part.through)

    def _positions_written(self, owner: Owner, offset: int) -> None:
        if owner in self._ended:
            # In this order: another thread looks among the open ones first.
            self.ended_chunks[owner] = offset
            del self.positions[owner]
        else:
            self.positions[owner] = (offset, [])

    def _page_written(self, table: Table, offset: int) -> None:
        self._pages[table] = offset
        if table == Table.SESSIONS:
            self._ended.clear()
        else:
            self._new[table].clear()

    def toc_written(self, end: int, size: int) -> None:
        """Note that a TOC of ``size`` bytes ends at ``end``."""
        size += self.open.toc_written()
        self._toc_end = end
        self._toc_interval = max(TOC_LEAST_BYTES, TOC_FACTOR * size)

    # What is due.

    def is_due(self, end: int) -> bool:
        """Whether anything is due to be saved in a log that ends at ``end``."""
        return bool(self._full) or self.toc_is_due(end)

    def toc_is_due(self, end: int) -> bool:
        """Whether a TOC is due in a log that ends at ``end``, or a page before one."""
        return end - self._toc_end >= self._toc_interval

    def since_toc(self, end: int) -> int:
        """How many bytes follow the last TOC, in a log that ends at ``end``."""
        return end - self._toc_end

    def save_due(self, state: State, end: int, write: Callable[[SegmentKind, bytes], int]) -> bool:
        """Write the chunks and the page of open sessions that are due in a log that ends at
        ``end``; ``write`` appends a segment and returns its offset. Return whether a TOC is due.
        """
        self.save_positions(write)
        if not self.toc_is_due(end):
            return False
        if self.open.is_due(end, PAGE_ROWS[Table.OPEN]):
            self._save_open(state, write)
        return len(self.open.changed) < PAGE_ROWS[Table.OPEN]

    def _save_open(self, state: State, write: Callable[[SegmentKind, bytes], int]) -> None:
        numbers = self.open.next_page(PAGE_ROWS[Table.OPEN])
        payload = self._encode_open(state, numbers)
        offset = write(SegmentKind.PAGE, payload)
        self._open_written(numbers, offset, offset + HEAD_SIZE + len(payload))

    def _open_written(self, numbers: Sequence[int], offset: int, end: int) -> None:
        self.open.page_written(numbers, offset, end, PAGE_ROWS[Table.OPEN])

    def save_positions(self, write: Callable[[SegmentKind, bytes], int]) -> None:
        """Write the chunks that are due; ``write`` appends a segment and returns its offset."""
        for owner in self._full:
            place = self.positions.get(owner)
            if place is not None and place[1]:
                offset = write(SegmentKind.POSITIONS, self.encode_positions(owner))
                self.unwritten[offset] = place
                self._positions_written(owner, offset)
        self._full.clear()

    def all_written(self) -> None:
        """Note that everything noted so far is in the file."""
        if self.unwritten:
            self.unwritten = {}

    def encode_positions(self, owner: Owner) -> bytes:
        """Return the payload of a session's next chunk of positions."""
        chunk, offsets = self.positions[owner]
        return encode_positions(owner, chunk, offsets)

    def save_pages(self, state: State, write: Callable[[SegmentKind, bytes], int]) -> None:
        """Write the pages that are due before a TOC."""
        while len(self.open.changed) >= PAGE_ROWS[Table.OPEN]:
            self._save_open(state, write)
        waiting = {Table.SESSIONS: len(self._ended)}
        for table, rows in self._new.items():
            waiting[table] = len(rows) // PACKED_ROWS[table].size
        for table, count in waiting.items():
            if count >= PAGE_ROWS[table]:
                offset = write(SegmentKind.PAGE, self.encode_page(table, state))
                self._page_written(table, offset)

    def encode_page(self, table: Table, state: State) -> bytes:
        """Return the payload of a table's next page."""
        rows: object
        if table == Table.SESSIONS:
            rows = ended_columns(self._unpaged(state))
        elif table == Table.OPEN:
            return self._encode_open(state, self.open.next_page(PAGE_ROWS[table]))
        else:
            rows = bytes(self._new[table])
        return encode_page(table, self._pages.get(table, 0), rows)

    def _encode_open(self, state: State, numbers: list[int]) -> bytes:
        rows = open_columns(numbers, [open_row(self._open(state, n)) for n in numbers])
        return encode_page(Table.OPEN, self._pages.get(Table.OPEN, 0), rows)

    def _open(self, state: State, number: int) -> OpenSession:
        chunk, offsets = self.positions[number]
        return OpenSession(state.sessions.open[number], chunk, tuple(offsets))

    def _unpaged(self, state: State) -> EndedSessions:
        """Return the ended sessions that are in no page yet."""
        numbers = list(self._ended)
        packed = state.sessions.packed
        return EndedSessions(
            numbers, [self.ended_chunks[n] for n in numbers], [packed[n] for n in numbers]
        )

    def encode_toc(self, state: State) -> bytes:
        """Return the TOC's payload. Call :meth:`save_positions` and :meth:`save_pages` before."""
        return encode_toc(
            Toc(
                state,
                tuple(self._open(state, number) for number in self.open.changed),
                tuple(self.open.pages),
                self.open.written_bytes,
                self._unpaged(state),
                bytes(self._new[Table.DELETED]),
                self._pages,
                bytes(self._new[Table.CONTENTS]),
                bytes(self._new[Table.MARKS]),
                self.content_count,
                {
                    name: SavedPlace(*self.saved[name], *self.positions.get(name, (0, [])))
                    for name in PROJECTIONS
                },
                bytes(self._new[Table.USED_KEYS]),
            )
        )

    # Loading.

    def load(self, toc: Toc, segment: Segment, read: Read, salt: int) -> State:
        """Start from a TOC that was read, with the pages that it names; return its state.

        :raises CorruptFileError: when a page is damaged.
        :raises ValueError: when a row is not valid.
        """

        def pages(table: Table) -> list[Any]:
            return _pages(read, toc.pages.get(table, 0), table, segment.offset, salt)

        ended: dict[int, bytes] = {}
        for columns in (*map(read_ended_columns, pages(Table.SESSIONS)), toc.ended):
            ended.update(zip(columns.numbers, columns.rows, strict=True))
            self.ended_chunks.update(zip(columns.numbers, columns.chunks, strict=True))
        deleted: set[int] = set()
        deleted.update(*map(read_numbers, (*pages(Table.DELETED), toc.deleted)))
        opened = self._load_open(toc, read, segment.offset, salt, deleted.union(ended))
        for number in deleted:
            ended.pop(number, None)
            self.ended_chunks.pop(number, None)
        for found in opened:
            self.positions[found.session.info.number] = (found.chunk, list(found.offsets))
        self._ended = dict.fromkeys(n for n in toc.ended.numbers if n not in deleted)
        self._pages = dict(toc.pages)
        self._new[Table.DELETED] += toc.deleted
        self._new[Table.MARKS] += toc.marks
        self._new[Table.CONTENTS] += toc.contents
        self._new[Table.USED_KEYS] += toc.used_keys
        for packed in (*pages(Table.MARKS), toc.marks):
            for sequence, offset in MARK_ROW.iter_unpack(packed):
                self.mark_offsets.append(offset)
                self.mark_sequences.append(sequence)
        self._load_tables = lambda: (
            (*pages(Table.CONTENTS), toc.contents),
            (*pages(Table.USED_KEYS), toc.used_keys),
        )
        self.recent_keys = RecentKeys(toc.state.last_sequence)
        self.content_count = toc.content_count
        for name, place in toc.projections.items():
            self.saved[name] = (place.offset, place.through)
            if place.chunk or place.offsets:
                self.positions[name] = (place.chunk, list(place.offsets))
        self.toc_written(segment.end, len(segment.payload))
        return with_sessions(toc.state, (found.session for found in opened), ended)

    def _load_open(
        self, toc: Toc, read: Read, end: int, salt: int, gone: set[int]
    ) -> list[OpenSession]:
        """Return the open sessions; of those in ``gone`` there may still be rows."""
        rows: dict[int, Any] = {}
        for offset in toc.open_pages:
            _, columns = _page(read, offset, Table.OPEN, end, salt)
            page = dict(zip(*read_open_columns(columns), strict=True))
            rows.update(page)
            self.open.load_page(page, offset)
        for number in gone & rows.keys():
            self.open.forget(number)
        self.open.written_bytes = toc.open_bytes
        for one in toc.open_sessions:
            self.open.note(one.session.info.number)
        current = [number for numbers in self.open.pages.values() for number in numbers]
        found = [read_open_row(rows[number]) for number in current]
        if [one.session.info.number for one in found] != current:
            raise ValueError("the row of an open session is another one's")
        return [*found, *toc.open_sessions]

    # Looking up.

    def load_tables(self) -> None:
        """Read which contents the file holds, and which idempotency keys. Only a writer needs that,
        so opening does not."""
        if self._load_tables is not None:
            contents, used_keys = self._load_tables()
            for packed in contents:
                self._contents.update(CONTENT_ROW.iter_unpack(packed))
            for packed in used_keys:
                for key, content, answer in USED_KEY_ROW.iter_unpack(packed):
                    self._used_keys[key] = (content, answer)
            # Only now, because a read that fails is tried again.
            self._load_tables = None

    def used_key(self, key_hash: bytes) -> tuple[bytes, int] | None:
        """Return what an idempotency key came with (a hash), and the sequence of its answer; None
        when nobody used it. Call :meth:`load_tables` before."""
        return self._used_keys.get(key_hash)

    def get(self, digest: bytes) -> int | None:
        """Return the sequence of the event that stored the content with this digest, or None.

        Call :meth:`load_tables` before.
        """
        return self._contents.get(digest)

    def mark_before(self, sequence: int) -> tuple[int, int] | None:
        """Return the last mark at or before ``sequence``: its sequence and its offset."""
        at = bisect_right(self.mark_sequences, sequence) - 1
        return (self.mark_sequences[at], self.mark_offsets[at]) if at >= 0 else None


_SPECIAL = {SessionEnded, SessionDeleted, ContentStored}


def _pages(read: Read, offset: int, table: Table, end: int, salt: int) -> list[Any]:
    """Return the rows of each of a table's pages up to the one at ``offset``, oldest page first."""
    pages = []
    while offset:
        offset, rows = _page(read, offset, table, end, salt)
        pages.append(rows)
    return pages[::-1]


def _page(read: Read, offset: int, table: Table, end: int, salt: int) -> tuple[int, Any]:
    """Return a page's rows, and the offset of the page before."""
    # Its length first: what follows a page on a stream is a message of its own.
    segment = read_segment(read, offset, end, salt, guess=HEAD_SIZE)
    if segment.kind != SegmentKind.PAGE:
        raise CorruptFileError(offset, "there is no page where one should be")
    try:
        found, previous, rows = decode_page(segment.payload)
    except ValueError as error:
        raise CorruptFileError(offset, str(error)) from None
    if found != table or previous >= offset:
        raise CorruptFileError(offset, "a page is not the one it should be")
    return previous, rows
