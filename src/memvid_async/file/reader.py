"""Reading what is in the file: sessions, contents, and the events from a place on.

Synchronous and without state of its own but a cache: the store calls it in its reading thread,
with a :class:`View`, so that what it sees is one consistent prefix of the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from uuid import UUID

from attrs import frozen

from ..core.held_messages import restore_messages
from ..core.projection import project_session
from ..core.state import State
from ..errors import ContentNotFoundError, CorruptFileError, InvalidValueError, SessionNotFoundError
from ..events.content import Content, StoredContent
from ..events.event import Action, ActionRecorded, CheckpointCreated, Event, Session, StoredMessages
from ..format.codec import ERASED, STORED, decode_events, read_stored
from ..format.frame_rows import (
    CONTENT_PLACE,
    FRAME_ERASED,
    HOLDERS,
    read_content_field,
    stored_content,
)
from ..format.header import LOG_START
from ..format.rows import PackedRows, decode_row, decode_rows, split_rows, whole_row
from ..format.segment import EVENT_KINDS, Segment, SegmentKind, read_segment, segments_at
from ..format.segment import scan as scan_segments
from ..format.stubs import MOST_EVENTS, decode_stubs, stub_events
from ..format.tables import ProjectionPages, decode_positions, decode_projection_pages
from ..storage import Storage
from .catalog import MEMORY, Catalog, Place

# About how much of the log is read at once where nobody says.
_RUN = 256 * 1024
_CACHED_CONTENTS = 4096
# Of so many rows in all the places are kept, at 12 bytes a row.
_PLACED_ROWS = 2**20


@frozen
class View:
    """What readers may see: a folded state, the end of the log that it was folded from, and what
    reads that file."""

    state: State
    end: int
    reader: Reader


class Reader:
    """Reads one file through its index."""

    def __init__(self, storage: Storage, catalog: Catalog, salt: int, version: int) -> None:
        self.storage = storage
        self._catalog = catalog
        self._salt = salt
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
            segment, row = self._row(sequence, end)
            if row[0] in (ERASED, FRAME_ERASED):
                # A deleted frame, or a recovery, leaves a reference to what is gone; reading it
                # says so.
                content = Content(None, StoredContent(bytes(32), 0, "", sequence))
            else:
                content = _held(segment, row, sequence)[0]
            if len(self._contents) >= _CACHED_CONTENTS:
                self._contents.clear()
            self._contents[sequence] = content
        return content

    def data(self, view: View, content: Content) -> bytes:
        """The bytes of a content.

        :raises ContentNotFoundError: when it is not in this file.
        :raises CorruptFileError: when its bytes are damaged.
        """
        data = self.value(view, content)
        return data.encode() if isinstance(data, str) else data

    def value(self, view: View, content: Content) -> str | bytes:
        """A content as it was given, text or bytes; raises as :meth:`data` does."""
        return self._stored_data(view, content) if content.data is None else content.data

    def _stored_data(self, view: View, content: Content) -> str | bytes:
        stored = content.stored
        if stored is not None and stored.parts:
            whole = b"".join(self.part(view, content, i) for i in range(len(stored.parts)))
            if Content(whole) == content:
                return whole
        elif stored is not None and stored.sequence <= view.state.last_sequence:
            segment, row = self._row(stored.sequence, view.end)
            if row[0] in HOLDERS or row[0] == STORED:
                found, data = _held(segment, row, stored.sequence)
                if found == content:
                    if Content(data) != content:
                        raise CorruptFileError(segment.offset, "content does not match its digest")
                    return data
        raise _not_here(content)

    def part(self, view: View, content: Content, index: int) -> bytes:
        """The bytes of a part of a content that is in parts.

        :raises ContentNotFoundError: when it is not in this file.
        """
        assert content.stored is not None
        at = content.stored.parts[index]
        if at <= view.state.last_sequence:
            segment, row = self._row(at, view.end)
            if row[0] == STORED:
                held, data = _held(segment, row, at)
                if Content(data) != held:
                    raise CorruptFileError(segment.offset, "content does not match its digest")
                return data.encode() if isinstance(data, str) else data
        raise _not_here(content)

    # Segments.

    def _row(self, sequence: int, end: int) -> tuple[Segment, list[Any]]:
        """The event with this sequence, undecoded, and its segment."""
        segment = self._segment_with(sequence, end)
        if segment.kind == SegmentKind.STUBS:
            return segment, [ERASED]
        try:
            return segment, decode_row(segment.payload, sequence - segment.sequence)
        except (ValueError, IndexError) as error:
            raise CorruptFileError(segment.offset, str(error)) from None

    def _segment_with(self, sequence: int, end: int) -> Segment:
        """The events segment that holds the event with this sequence."""
        mark = self._catalog.mark_before(sequence)
        found, position = None, mark[1] if mark is not None else 0
        for segment in scan_segments(self.storage.read, position, end, None, self._salt):
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

    def segments(self, view: View) -> Iterator[Segment]:
        """The segments that hold events, from the log's start to the view's end.

        :raises CorruptFileError: when one is damaged.
        """
        position = LOG_START
        for segment in scan_segments(self.storage.read, position, view.end, self._salt, self._salt):
            position = segment.end
            if segment.kind in EVENT_KINDS:
                yield segment
        if position < view.end:
            raise CorruptFileError(position, "there is no valid segment")

    def time_of(self, view: View, sequence: int) -> int:
        """When the event with this sequence happened, in nanoseconds since the Unix epoch."""
        segment = self._segment_with(sequence, view.end)
        return self.decode(segment, view.state, view.end)[sequence - segment.sequence].time_ns

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

    def events_after(self, view: View, after: int, limit: int) -> list[Event]:
        """Events with a sequence above ``after``, in order: about ``limit`` bytes of them, at
        least one segment; none when there are none yet.

        :raises CorruptFileError: when the log below the view's end is damaged.
        """
        commands = self.commands_after(view, after, limit)
        return [event for command in commands for event in command if event.sequence > after]

    def commands_after(self, view: View, after: int, limit: int) -> list[list[Event]]:
        """As :meth:`events_after`, but the events of each command together, the first one whole."""
        if after >= view.state.last_sequence:
            return []
        start = self._segment_with(after + 1, view.end)
        commands: list[list[Event]] = []
        last, count = start, 0
        for segment in scan_segments(
            self.storage.read, start.offset, view.end, start.previous, self._salt
        ):
            last = segment
            if segment.kind in EVENT_KINDS:
                commands.append(self.decode(segment, view.state, view.end))
                count += len(commands[-1])
            if segment.end - start.offset >= limit or count >= MOST_EVENTS:
                break
        if not commands or commands[-1][-1].sequence <= after:
            raise CorruptFileError(last.end, "the log ends before it should")
        return commands

    # The memory.

    def memory_segments(self, view: View, after: int, until: int, above: int) -> Iterator[Segment]:
        """The segments of the events above ``after``, up to ``until``, that change the memory, in
        order. ``above``: a byte that all of them begin at or behind, if one is known.

        :raises CorruptFileError: when what the memory's positions name is not there.
        """
        mark = self._catalog.mark_before(after)
        if mark is not None and after:
            above = max(above, mark[1])
        offsets = self._offsets(self._catalog.positions.get(MEMORY, (0, ())), MEMORY, view, above)
        for segment in segments_at(self.storage.read, offsets, view.end, self._salt):
            if segment.sequence > until:
                return
            yield segment

    def frame_content(self, view: View, offset: int, sequence: int) -> Content:
        """The content of the frame event with this sequence, in the segment at ``offset``.

        :raises CorruptFileError: when it is not there.
        """
        try:
            row = self._frame_row(offset, sequence, view.end)
            field = row[CONTENT_PLACE] if row[0] in HOLDERS else None
            return read_content_field(field, lambda number: self.content(number, view.end))
        except (ValueError, TypeError, IndexError) as error:
            raise CorruptFileError(offset, f"there is no frame: {error}") from None

    def _frame_row(self, offset: int, sequence: int, end: int) -> list[Any]:
        packed = self._packed.get(offset)
        if packed is None:
            segment = read_segment(self.storage.read, offset, end, self._salt)
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

    def frame_content_of(self, view: View, sequence: int) -> Content | None:
        """The content of the frame event with this sequence; None when it was erased.

        :raises InvalidValueError: when there is no such event.
        """
        if 0 < sequence <= view.state.last_sequence:
            segment, row = self._row(sequence, view.end)
            if row[0] in (ERASED, FRAME_ERASED):
                return None
            if row[0] in HOLDERS:
                return self.frame_content(view, segment.offset, sequence)
        raise InvalidValueError(f"event {sequence} holds no frame of this file")

    def session_number(self, view: View, action: Action) -> int:
        """The number of the session that an action is in.

        :raises InvalidValueError: when it is in no session of this file (any more).
        """
        number = 0
        if 0 < action.sequence <= view.state.last_sequence:
            segment = self._segment_with(action.sequence, view.end)
            if segment.kind == SegmentKind.EVENTS:
                number = decode_rows(segment.payload)[1]
        if number not in view.state.sessions:
            raise InvalidValueError("the action is in no session of this file (any more)")
        return number

    def projection_pages(self) -> Iterator[tuple[int, ProjectionPages]]:
        """The parts of the saved search indexes with their offsets, the newest first.

        :raises CorruptFileError, ValueError: when one cannot be read.
        """
        at, _ = self._catalog.saved_index
        while at:
            segment = read_segment(self.storage.read, at, self.storage.size(), self._salt)
            part = decode_projection_pages(segment.payload)
            if segment.kind != SegmentKind.PROJECTION or part.previous >= at:
                raise CorruptFileError(at, "a saved index is not where it should be")
            yield at, part
            at = part.previous

    # Sessions.

    def _offsets(self, place: Place, number: int, view: View, above: int = 0) -> list[int]:
        """Where the session's segments are, as far as the view goes; none below ``above``."""
        chunk, parts = place[0], [list(place[1])]
        while chunk and not (parts[-1] and parts[-1][0] <= above):
            unwritten = self._catalog.unwritten.get(chunk)
            if unwritten is not None:
                previous, offsets = unwritten
            else:
                previous, offsets = self._read_positions(chunk, number)
            parts.append(list(offsets))
            chunk = previous
        found = [
            offset for part in reversed(parts) for offset in part if above <= offset < view.end
        ]
        if any(later <= earlier for earlier, later in pairwise(found)):
            raise CorruptFileError(found[0], "positions are out of order")
        return found

    def _read_positions(self, chunk: int, number: int) -> tuple[int, list[int]]:
        # A chunk may have been written behind the view's end by now; what it names is filtered.
        end = self.storage.size()
        segment = read_segment(self.storage.read, chunk, end, self._salt, guess=1024)
        try:
            owner, previous, offsets = decode_positions(segment.payload)
        except ValueError as error:
            raise CorruptFileError(chunk, str(error)) from None
        if segment.kind != SegmentKind.POSITIONS or owner != number or previous >= chunk:
            raise CorruptFileError(chunk, "positions are not where they should be")
        return previous, offsets

    def session_events(
        self, view: View, number: int, after: int = 0, limit: int | None = None
    ) -> tuple[list[Event], int]:
        """The events of one session above ``after``, in order, and the sequence up to which there
        are no others; about ``limit`` bytes of them, when it is given.

        :raises CorruptFileError: when what the session's positions name is not there.
        """
        place = self._catalog.positions.get(number)
        if place is None:
            # Deleted: of its events, the deletion alone is still told.
            found = self.events_after(view, after, limit or _RUN)
            reached = found[-1].sequence if found else after
            return [event for event in found if event.session == number], reached
        offsets = self._offsets(place, number, view)
        mark = self._catalog.mark_before(after)
        if mark is not None and after:
            offsets = [offset for offset in offsets if offset >= mark[1]]
        events: list[Event] = []
        last, size = 0, 0
        for segment in segments_at(self.storage.read, offsets, view.end, self._salt):
            if segment.kind != SegmentKind.EVENTS or segment.sequence <= last:
                raise CorruptFileError(segment.offset, "a session's segments are out of order")
            last = segment.sequence
            found = self.decode(segment, view.state, view.end)
            own = [event for event in found if event.session == number]
            if not own:
                raise CorruptFileError(segment.offset, "a segment is another session's")
            events += [event for event in own if event.sequence > after]
            size += segment.end - segment.offset
            if limit is not None and size >= limit and events:
                return events, events[-1].sequence
        return events, max(view.state.last_sequence, after)

    def session(self, view: View, session_id: UUID) -> Session:
        """One session, whole.

        :raises SessionNotFoundError: when there is none with this id.
        """
        found = view.state.find(session_id)
        if found is None or found.info.number not in self._catalog.positions:
            raise SessionNotFoundError(session_id)
        events = self.session_history(view, found.info.number)
        session = project_session(found, events, self.version)
        if any(later.index <= action.index for action, later in pairwise(session.actions)):
            raise CorruptFileError(0, f"actions of session {session_id} are out of order")
        return session

    def session_history(self, view: View, number: int) -> list[Event]:
        """The events of a session in order; of a fork, behind the actions it shares with its
        parents (those that were deleted since are missing)."""
        events, _ = self.session_events(view, number)
        found = view.state.sessions.get(number)
        fork = found.info.fork if found is not None else None
        if fork is None or fork.parent >= number or fork.parent not in view.state.sessions:
            return events
        past = self.session_history(view, fork.parent)
        shared = (ActionRecorded, CheckpointCreated)
        return [
            event
            for event in past
            if event.sequence <= fork.sequence and isinstance(event.payload, shared)
        ] + events

    def messages(self, view: View, action: Action) -> list[Any]:
        """The messages of an ask, whole.

        :raises InvalidValueError: when the action has none, or is in no session of this file.
        """
        number = self.session_number(view, action)
        asks: dict[int, tuple[Action, StoredMessages | None]] = {}
        for event in self.session_events(view, number)[0]:
            payload = event.payload
            if isinstance(payload, ActionRecorded):
                asks[payload.action.index] = (payload.action, payload.messages)
            elif isinstance(payload, CheckpointCreated):
                asks[payload.action.index] = (payload.action, None)
        found = asks.get(action.index)
        if found is None or found[0].sequence != action.sequence:
            raise InvalidValueError("the action is in no session of this file (any more)")

        def content(sequence: int) -> bytes:
            return self.data(view, self.content(sequence, view.end))

        if found[1] is None:
            raise InvalidValueError(f"action {action.index} has no messages")
        try:
            return restore_messages(action.index, asks.__getitem__, content)
        except KeyError:
            # Only a recovery leaves a reference to what is gone.
            raise ContentNotFoundError("an earlier ask that held some of them is gone") from None
        except (ValueError, TypeError) as error:
            at = self._segment_with(action.sequence, view.end).offset
            raise CorruptFileError(at, f"messages refer wrongly: {error}") from None


def _not_here(content: Content) -> ContentNotFoundError:
    return ContentNotFoundError(
        f"content {content.digest.hex()} is not in this file: it was erased, or an action of "
        f"another store names it",
        content.digest,
    )


def _held(segment: Segment, row: list[Any], sequence: int) -> tuple[Content, str | bytes]:
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
