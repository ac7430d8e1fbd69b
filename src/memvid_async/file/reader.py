"""Reading one file with its catalog: segments, the rows in them, and where they are.

It blocks, and has no state except caches of what it read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

from ..core.state import State
from ..errors import CorruptFileError
from ..events.content import Content, StoredContent
from ..events.event import Event
from ..format.codec import decode_events, read_stored
from ..format.frame_rows import part_content, stored_content
from ..format.kinds import ERASED, FRAMES_PUT, STORED, UPDATE_ERASED
from ..format.places import FIRST_PART
from ..format.rows import decode_rows, segment_start
from ..format.segment import EVENT_KINDS, Segment, SegmentKind, read_segment
from ..format.segment import scan as scan_segments
from ..format.stubs import decode_stubs, stub_events
from ..format.tables import (
    Owner,
    ProjectionPages,
    decode_positions,
    decode_projection_pages,
)
from ..storage import Storage
from .catalog import Catalog
from .known_places import KnownPlaces

_CACHED_CONTENTS = 4096


class Held(NamedTuple):
    """Content in its event: the offset of the segment, what is known of it, and its data."""

    offset: int
    content: Content
    data: str | bytes

    def checked(self) -> str | bytes:
        """Return the data.

        :raises CorruptFileError: when the digest is that of other data.
        """
        if Content(self.data) != self.content:
            raise CorruptFileError(self.offset, "content does not match its digest")
        return self.data


class Reader:
    """Reads one file with its catalog."""

    def __init__(self, storage: Storage, catalog: Catalog, salt: int, version: int) -> None:
        self.storage = storage
        # Tells this file from the one that replaces it, without keeping it open.
        self.edition = object()
        self._catalog = catalog
        self.salt = salt
        self.version = version
        self._contents: dict[int, Content] = {}
        self._places = KnownPlaces()
        # The first event of the segment that was found last, and its offset.
        self._near = (0, 0)

    # Contents.

    def content(self, sequence: int, end: int) -> Content:
        """Return the content whose event has this sequence, without its data.

        :raises CorruptFileError: when there is not such an event before the offset ``end``.
        """
        content = self._contents.get(sequence)
        if content is None:
            held = self.held(sequence, end)
            # A deleted frame or a recovery leaves a reference to content that is gone. Reading the
            # content says so.
            gone = StoredContent(bytes(32), 0, "", sequence)
            content = Content(None, gone) if held is None else held.content
            if len(self._contents) >= _CACHED_CONTENTS:
                self._contents.clear()
            self._contents[sequence] = content
        return content

    def held(self, sequence: int, end: int) -> Held | None:
        """Return what the content event with this sequence holds, or the frame event.

        Of several frames it is the first. None when it was erased.

        :raises CorruptFileError: when the event holds no content.
        """
        offset, kind, found = self.part(sequence, 0, end)
        if kind in (ERASED, UPDATE_ERASED):
            return None
        if kind == STORED:
            try:
                return Held(offset, Content(None, read_stored(found, sequence)), found[2])
            except (TypeError, IndexError) as error:
                raise CorruptFileError(offset, str(error)) from None
        data = part_content(kind, found)
        if kind == FRAMES_PUT and data is None:
            return None
        if not isinstance(data, (str, bytes)):
            raise CorruptFileError(offset, f"event {sequence} does not hold content")
        return Held(offset, Content(None, stored_content(data, sequence)), data)

    # Segments.

    def part(self, sequence: int, place: int, end: int, offset: int = 0) -> tuple[int, int, Any]:
        """Return the offset of an event's segment, the event's kind, and its row.

        Of an event with parts (it puts frames, or changes a collection), the part at ``place`` is
        returned in place of the row. ``offset``: where the segment is, 0 when that is not known.

        :raises CorruptFileError: when the event is not there.
        """
        places = self._places.find(sequence)
        try:
            if places is None:
                if offset:
                    segment = read_segment(self.storage.read, offset, end, self.salt)
                else:
                    segment = self.segment_with(sequence, end)
                offset = segment.offset
                if segment.kind == SegmentKind.STUBS:
                    return offset, ERASED, [ERASED]
                places = self._places.note(segment)
                if places is None:
                    row = decode_rows(segment.payload)[2][sequence - segment.sequence]
                    first = FIRST_PART.get(row[0])
                    return offset, row[0], row if first is None else row[first + place]
            offset = places.offset
            return offset, *places.read(self.storage.read, sequence, place)
        except (ValueError, IndexError) as error:
            raise CorruptFileError(offset, str(error)) from None

    def segment_with(self, sequence: int, end: int) -> Segment:
        """Return the segment that holds the event with this sequence."""
        found, position = None, self.offset_before(sequence)
        # A reader that goes through the log needs an event soon after the one found last.
        first, offset = self._near
        if first <= sequence:
            position = max(position, offset)
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
        self._near = (found.sequence, found.offset)
        return found

    def decode(self, segment: Segment, state: State, end: int) -> list[Event]:
        """Return the events of a segment; ``state`` has the ids of their sessions.

        :raises CorruptFileError: when the segment is not as its kind requires.
        """
        try:
            if segment.kind == SegmentKind.STUBS:
                return stub_events(decode_stubs(segment.payload), segment.sequence)
            return decode_events(
                segment.payload,
                segment.sequence,
                state.sessions.session_id,
                lambda sequence: self.content(sequence, end),
            )
        except ValueError as error:
            raise CorruptFileError(segment.offset, str(error)) from None

    def projection_pages(self, name: str) -> Iterator[tuple[int, ProjectionPages]]:
        """Iterate over the parts of a projection's saves with their offsets, newest first.

        :raises CorruptFileError, ValueError: when one cannot be read.
        """
        at, _ = self._catalog.saved[name]
        while at:
            segment = read_segment(self.storage.read, at, self.storage.size(), self.salt)
            part = decode_projection_pages(segment.payload)
            is_part = segment.kind == SegmentKind.PROJECTION and part.name == name
            if not is_part or part.previous >= at:
                raise CorruptFileError(at, "a saved projection is not where it should be")
            yield at, part
            at = part.previous

    # Where things are.

    def scan(self, start: int, end: int, previous: int | None) -> Iterator[Segment]:
        """Iterate over the segments from ``start`` on.

        ``previous``: the checksum of the segment before the first; None when that is not known.
        """
        return scan_segments(self.storage.read, start, end, previous, self.salt)

    def offset_before(self, sequence: int) -> int:
        """Return the offset of the last mark at or before the event ``sequence``; 0 for none."""
        mark = self._catalog.mark_before(sequence)
        return mark[1] if mark is not None else 0

    def has_positions(self, number: int) -> bool:
        """Whether the catalog knows where the segments of a session are."""
        return number in self._catalog.positions or number in self._catalog.ended_chunks

    def offsets(self, owner: Owner, end: int, above: int = 0) -> list[int] | None:
        """Return the offsets of a session's segments from ``above`` up to ``end``.

        ``owner``: the session's number, or the name of a projection, for the segments that it
        folds. None when there is no such session.

        :raises CorruptFileError: when its positions are damaged.
        """
        chunks = self.chunks_back(owner)
        if chunks is None:
            return None
        parts: list[list[int]] = []
        for part in chunks:
            parts.append(part)
            if part and part[0] <= above:
                break
        found = [offset for part in reversed(parts) for offset in part if above <= offset < end]
        if any(later <= earlier for earlier, later in pairwise(found)):
            raise CorruptFileError(found[0], "positions are out of order")
        return found

    def chunks_back(self, owner: Owner) -> Iterator[list[int]] | None:
        """Return what iterates over the chunks of an owner's positions, newest first, each with
        its offsets in order; None when there is no such owner.

        Iterating raises :class:`CorruptFileError` when they are damaged.
        """
        place = self._catalog.positions.get(owner)
        if place is not None:
            return self._chunks_back(owner, place[0], list(place[1]))
        # Looked for after the others, as a session that ends moves from there to here.
        last = self._catalog.ended_chunks.get(owner)
        return None if last is None else self._chunks_back(owner, last, [])

    def _chunks_back(self, owner: Owner, chunk: int, offsets: list[int]) -> Iterator[list[int]]:
        yield offsets
        while chunk:
            unwritten = self._catalog.unwritten.get(chunk)
            if unwritten is not None:
                chunk, offsets = unwritten[0], list(unwritten[1])
            else:
                chunk, offsets = self._read_positions(chunk, owner)
            yield offsets

    def _read_positions(self, chunk: int, owner: Owner) -> tuple[int, list[int]]:
        # A chunk may have been written after the view's end. The offsets that it names are
        # filtered.
        end = self.storage.size()
        segment = read_segment(self.storage.read, chunk, end, self.salt, guess=1024)
        try:
            found, previous, offsets = decode_positions(segment.payload)
        except ValueError as error:
            raise CorruptFileError(chunk, str(error)) from None
        if segment.kind != SegmentKind.POSITIONS or found != owner or previous >= chunk:
            raise CorruptFileError(chunk, "positions are not where they should be")
        return previous, offsets


def start_of(segment: Segment) -> tuple[int, int]:
    """Return the time and the session's number of an events segment.

    :raises CorruptFileError: when it is not such a segment.
    """
    try:
        return segment_start(segment.payload)
    except ValueError as error:
        raise CorruptFileError(segment.offset, str(error)) from None
