"""Reading one file through its catalog: segments, the rows in them, and where they lie.

Blocking, and without state of its own but caches of what it read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

from ..core.state import State
from ..errors import CorruptFileError
from ..events.content import Content, StoredContent
from ..events.event import Event
from ..format.codec import ERASED, STORED, decode_events, read_stored
from ..format.frame_rows import (
    CONTENT_PLACE,
    FRAME_ERASED,
    HOLDERS,
    stored_content,
)
from ..format.rows import PackedRows, decode_row, split_rows, whole_row
from ..format.segment import EVENT_KINDS, Segment, SegmentKind, read_segment
from ..format.segment import scan as scan_segments
from ..format.stubs import decode_stubs, stub_events
from ..format.tables import ProjectionPages, decode_positions, decode_projection_pages
from ..storage import Storage
from .catalog import Catalog

_CACHED_CONTENTS = 4096
# Of so many rows in all the places are kept, at 12 bytes a row.
_PLACED_ROWS = 2**20


class Reader:
    """Reads one file through its catalog."""

    def __init__(self, storage: Storage, catalog: Catalog, salt: int, version: int) -> None:
        self.storage = storage
        self._catalog = catalog
        self.salt = salt
        self.version = version
        self._contents: dict[int, Content] = {}
        # Per offset of a segment that holds many frames, once it was read: where they are in it.
        self._packed: dict[int, PackedRows] = {}
        self._placed = 0

    # Contents.

    def content(self, sequence: int, end: int) -> Content:
        """The content whose event has this sequence, without its data.

        :raises CorruptFileError: when there is no such event below ``end``.
        """
        content = self._contents.get(sequence)
        if content is None:
            segment, row = self.row(sequence, end)
            if row[0] in (ERASED, FRAME_ERASED):
                # A deleted frame, or a recovery, leaves a reference to what is gone; reading it
                # says so.
                content = Content(None, StoredContent(bytes(32), 0, "", sequence))
            else:
                content = held_content(segment, row, sequence)[0]
            if len(self._contents) >= _CACHED_CONTENTS:
                self._contents.clear()
            self._contents[sequence] = content
        return content

    # Segments.

    def row(self, sequence: int, end: int) -> tuple[Segment, list[Any]]:
        """The event with this sequence, undecoded, and its segment."""
        segment = self.segment_with(sequence, end)
        if segment.kind == SegmentKind.STUBS:
            return segment, [ERASED]
        try:
            return segment, decode_row(segment.payload, sequence - segment.sequence)
        except (ValueError, IndexError) as error:
            raise CorruptFileError(segment.offset, str(error)) from None

    def segment_with(self, sequence: int, end: int) -> Segment:
        """The events segment that holds the event with this sequence."""
        found, position = None, self.offset_before(sequence)
        for segment in self.scan(position, end, None):
            if segment.sequence > sequence:
                break
            position = segment.end
            if segment.kind in EVENT_KINDS:
                found = segment
        else:
            if position < end:
                raise CorruptFileError(position, "there is no valid segment")
        if found is None:
            raise CorruptFileError(position, f"event {sequence} is not there")
        return found

    def decode(self, segment: Segment, state: State, end: int) -> list[Event]:
        """The events of a segment, the sessions named as the state knows them.

        :raises CorruptFileError: when it is not what its kind says.
        """

        def session_id(number: int) -> UUID | None:
            session = state.sessions.get(number)
            return session.info.session_id if session is not None else None

        try:
            if segment.kind == SegmentKind.STUBS:
                return stub_events(decode_stubs(segment.payload), segment.sequence)
            return decode_events(
                segment.payload,
                segment.sequence,
                session_id,
                lambda sequence: self.content(sequence, end),
            )
        except ValueError as error:
            raise CorruptFileError(segment.offset, str(error)) from None

    def frame_row(self, offset: int, sequence: int, end: int) -> list[Any]:
        """The row of the frame event with this sequence, in the segment at ``offset``."""
        packed = self._packed.get(offset)
        if packed is None:
            segment = read_segment(self.storage.read, offset, end, self.salt)
            rows = split_rows(segment.payload)
            packed = PackedRows.of(segment, rows)
            if packed is not None:
                # Frames that were put together: reading one again need not read the others.
                self._placed += len(packed)
                if self._placed > _PLACED_ROWS:
                    self._packed, self._placed = {}, len(packed)
                self._packed[offset] = packed
            return whole_row(rows[sequence - segment.sequence])
        return whole_row(packed.read(self.storage.read, sequence))

    def projection_pages(self) -> Iterator[tuple[int, ProjectionPages]]:
        """The parts of the saved search indexes with their offsets, the newest first.

        :raises CorruptFileError, ValueError: when one cannot be read.
        """
        at, _ = self._catalog.saved_index
        while at:
            segment = read_segment(self.storage.read, at, self.storage.size(), self.salt)
            part = decode_projection_pages(segment.payload)
            if segment.kind != SegmentKind.PROJECTION or part.previous >= at:
                raise CorruptFileError(at, "a saved index is not where it should be")
            yield at, part
            at = part.previous

    # Where things lie.

    def scan(self, start: int, end: int, previous: int | None) -> Iterator[Segment]:
        """The segments from ``start`` on; ``previous``: the checksum before the first, if known."""
        return scan_segments(self.storage.read, start, end, previous, self.salt)

    def offset_before(self, sequence: int) -> int:
        """The offset of the last marked segment at or before the event ``sequence``; 0 for none."""
        mark = self._catalog.mark_before(sequence)
        return mark[1] if mark is not None else 0

    def has_positions(self, number: int) -> bool:
        """Whether it is known where the segments of a session are."""
        return number in self._catalog.positions

    def offsets(self, number: int, end: int, above: int = 0) -> list[int] | None:
        """Where the segments of a session are (of the memory, for :data:`MEMORY`): those from
        ``above`` up to ``end``; None when there is no such session.

        :raises CorruptFileError: when its positions are damaged.
        """
        place = self._catalog.positions.get(number)
        if place is None:
            return None
        chunk, parts = place[0], [list(place[1])]
        while chunk and not (parts[-1] and parts[-1][0] <= above):
            unwritten = self._catalog.unwritten.get(chunk)
            if unwritten is not None:
                previous, offsets = unwritten
            else:
                previous, offsets = self._read_positions(chunk, number)
            parts.append(list(offsets))
            chunk = previous
        found = [offset for part in reversed(parts) for offset in part if above <= offset < end]
        if any(later <= earlier for earlier, later in pairwise(found)):
            raise CorruptFileError(found[0], "positions are out of order")
        return found

    def _read_positions(self, chunk: int, number: int) -> tuple[int, list[int]]:
        # A chunk may have been written after the view's end by now; what it names is filtered.
        end = self.storage.size()
        segment = read_segment(self.storage.read, chunk, end, self.salt, guess=1024)
        try:
            owner, previous, offsets = decode_positions(segment.payload)
        except ValueError as error:
            raise CorruptFileError(chunk, str(error)) from None
        if segment.kind != SegmentKind.POSITIONS or owner != number or previous >= chunk:
            raise CorruptFileError(chunk, "positions are not where they should be")
        return previous, offsets


def held_content(segment: Segment, row: list[Any], sequence: int) -> tuple[Content, str | bytes]:
    """The content that the row of an event holds, and its data."""
    try:
        if row[0] == STORED:
            return read_stored(row, sequence), row[2]
        held = stored_content(row, sequence) if row[0] in HOLDERS else None
    except (TypeError, IndexError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None
    if held is None:
        raise CorruptFileError(segment.offset, f"event {sequence} is no content")
    return held, row[CONTENT_PLACE]
