"""What readers see of one file: a folded state, and the events and contents that led to it.

A :class:`FileView` blocks and never changes. It is called in the threads that read, and shows one
consistent prefix of the log.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

from attrs import frozen

from ..core.evolve import evolve
from ..core.reports import SavedProjection
from ..core.state import State
from ..errors import ContentNotFoundError, CorruptFileError, InvalidValueError
from ..events.content import Content
from ..events.event import Action, Event
from ..events.frames import Version
from ..events.keyed import KeyChange
from ..format.frame_rows import HOLDERS, part_content, read_content_field
from ..format.header import LOG_START
from ..format.keyed_rows import read_change
from ..format.kinds import (
    COLLECTION_CHANGED,
    COLLECTION_KINDS,
    ERASED,
    FRAME_KINDS,
    UPDATE_ERASED,
)
from ..format.segment import EVENT_KINDS, Segment, SegmentKind, segments_at
from ..format.stubs import MOST_EVENTS
from ..format.tables import COLLECTIONS, MEMORY, PAGE_NUMBER
from .changes import in_range
from .reader import Reader, start_of

# A larger content is read as a stream only. Those of less than a segment have no parts.
MOST_WHOLE_BYTES = 2**30
# About how many bytes of the log are read at once, where the caller does not say.
_RUN = 256 * 1024
# A session is read backwards by at most this many segments at once, which begin within _RUN bytes.
_BACK = 16


@frozen
class FileView:
    """A folded state, and access to the log from which it was folded."""

    state: State
    """The state after the last event."""
    end: int
    """The offset where the log ends."""
    reader: Reader
    """Reads the file."""

    @property
    def edition(self) -> object:
        """An object that identifies the file; a compaction makes another one."""
        return self.reader.edition

    @property
    def version(self) -> int:
        """The version of the file's format."""
        return self.reader.version

    def damage(self, sequence: int, message: str) -> CorruptFileError:
        """Return an error that names where the event with this sequence is."""
        return CorruptFileError(self.reader.segment_with(sequence, self.end).offset, message)

    # Events.

    def events_after(self, after: int, limit: int) -> list[Event]:
        """Return events with a sequence above ``after``, in order.

        They are about ``limit`` bytes, at least one segment; none when there are none yet.

        :raises CorruptFileError: when the log before the view's end is damaged.
        """
        commands = self.commands_after(after, limit)
        return [event for command in commands for event in command if event.sequence > after]

    def commands_after(self, after: int, limit: int) -> list[list[Event]]:
        """Return events as :meth:`events_after` does, a list per command, the first one whole."""
        if after >= self.state.last_sequence:
            return []
        reader = self.reader
        start = reader.segment_with(after + 1, self.end)
        commands: list[list[Event]] = []
        last, count = start, 0
        for segment in reader.scan(start.offset, self.end, start.previous):
            last = segment
            if segment.kind in EVENT_KINDS:
                commands.append(self.decode(segment))
                count += len(commands[-1])
            if segment.end - start.offset >= limit or count >= MOST_EVENTS:
                break
        if not commands or commands[-1][-1].sequence <= after:
            raise CorruptFileError(last.end, "the log ends before it should")
        return commands

    def decode(self, segment: Segment, state: State | None = None) -> list[Event]:
        """Return the events of a segment.

        ``state``: has the ids of their sessions; by default the view's.

        :raises CorruptFileError: when the segment is not as its kind requires.
        """
        return self.reader.decode(segment, state or self.state, self.end)

    def history(self, until: int) -> Iterator[tuple[State, Event]]:
        """Iterate over all events up to the sequence ``until``, each with the state after it.

        :raises CorruptFileError: when the log is damaged.
        """
        state = State(generation=self.state.generation)
        for segment in self._event_segments():
            if segment.sequence > until:
                return
            for event in self.decode(segment, state):
                if event.sequence > until:
                    return
                state = evolve(state, event)
                yield state, event

    def _event_segments(self, first: Segment | None = None) -> Iterator[Segment]:
        """Iterate over the segments that have events, from ``first`` on; None for all of them."""
        position, previous = LOG_START, self.reader.salt
        if first is not None:
            position, previous = first.offset, first.previous
        for segment in self.reader.scan(position, self.end, previous):
            position = segment.end
            if segment.kind in EVENT_KINDS:
                yield segment
        if position < self.end:
            raise CorruptFileError(position, "there is no valid segment")

    def times(self, after: int, until: int) -> Iterator[tuple[int, int]]:
        """Iterate over sequences and times of the events above ``after``, up to ``until``, in
        order. One command's events have one time: only the last of them is there.

        :raises CorruptFileError: when the log is damaged.
        """
        if after >= until:
            return
        time_ns: int | None = None
        for segment in self._event_segments(self.reader.segment_with(after + 1, self.end)):
            if time_ns is not None:
                yield min(segment.sequence - 1, until), time_ns
            if segment.sequence > until:
                return
            time_ns = None
            if segment.kind == SegmentKind.EVENTS:
                time_ns = start_of(segment)[0]
                continue
            for event in self.decode(segment):
                if after < event.sequence <= until:
                    yield event.sequence, event.time_ns
        if time_ns is not None:
            yield until, time_ns

    # Sessions.

    def has_session(self, number: int) -> bool:
        """Whether the events of a session can be found by its number."""
        return self.reader.has_positions(number)

    def session_events(
        self, number: int, after: int = 0, limit: int | None = None
    ) -> tuple[list[Event], int]:
        """Return events of one session above ``after``, in order; about ``limit`` bytes of them.

        The second value is the sequence up to which the session has no others.

        :raises CorruptFileError: when a segment that the session's positions name is not there.
        """
        offsets = self.reader.offsets(number, self.end)
        if offsets is None:
            # The session was deleted. The deletion is the only one of its events still delivered.
            found = self.events_after(after, limit or _RUN)
            reached = found[-1].sequence if found else after
            return [event for event in found if event.session == number], reached
        first = self.reader.offset_before(after) if after else 0
        wanted = [offset for offset in offsets if offset >= first]
        events: list[Event] = []
        last, size = 0, 0
        for segment in self._segments_at(wanted):
            own = self._own_events(segment, number, above=last)
            last = segment.sequence
            events += [event for event in own if event.sequence > after]
            size += segment.end - segment.offset
            if limit is not None and size >= limit and events:
                return events, events[-1].sequence
        return events, max(self.state.last_sequence, after)

    def session_commands(self, number: int) -> Iterator[list[Event]]:
        """Iterate over the events of one session in order, a list per command.

        Nothing for a session that was deleted.

        :raises CorruptFileError: when a segment that the session's positions name is not there.
        """
        last = 0
        for segment in self._segments_at(self.reader.offsets(number, self.end) or ()):
            yield self._own_events(segment, number, above=last)
            last = segment.sequence

    def session_events_back(self, number: int, before: int | None = None) -> Iterator[list[Event]]:
        """Iterate over the events of one session below ``before``, newest first, a list per
        command, in order. The first ones cost the same however many there are.

        Nothing for a session that was deleted.

        :raises CorruptFileError: when a segment that the session's positions name is not there.
        """
        below, end = self.state.last_sequence + 1, self.end
        before = below if before is None else min(before, below)
        for offsets in self.reader.chunks_back(number) or ():
            for run in _runs_back([offset for offset in offsets if offset < end]):
                for segment in reversed(list(self._segments_at(run))):
                    own = self._own_events(segment, number, below=below)
                    below = segment.sequence
                    wanted = [event for event in own if event.sequence < before]
                    if wanted:
                        yield wanted

    def _own_events(
        self, segment: Segment, number: int, *, above: int = 0, below: int = 2**63
    ) -> list[Event]:
        """Return the events of a session in one of its segments.

        :raises CorruptFileError: when it is not one, or does not begin between the two sequences.
        """
        if segment.kind != SegmentKind.EVENTS or not above < segment.sequence < below:
            raise CorruptFileError(segment.offset, "a session's segments are out of order")
        own = [event for event in self.decode(segment) if event.session == number]
        if not own:
            raise CorruptFileError(segment.offset, "a segment is another session's")
        return own

    def _segments_at(self, offsets: Sequence[int]) -> Iterator[Segment]:
        return segments_at(self.reader.storage.read, offsets, self.end, self.reader.salt)

    def session_number(self, action: Action) -> int:
        """Return the number of the session that an action is in.

        :raises InvalidValueError: when it is in no session of this file, or in none any more.
        """
        number = 0
        if 0 < action.sequence <= self.state.last_sequence:
            segment = self.reader.segment_with(action.sequence, self.end)
            if segment.kind == SegmentKind.EVENTS:
                _, number = start_of(segment)
        if number not in self.state.sessions:
            raise InvalidValueError("the action is in no session of this file (any more)")
        return number

    # Contents.

    def content(self, sequence: int) -> Content:
        """Return the content whose event has this sequence, without its data.

        :raises CorruptFileError: when there is not such an event.
        """
        return self.reader.content(sequence, self.end)

    def data(self, content: Content) -> bytes:
        """Return the bytes of a content; text as UTF-8.

        :raises ContentNotFoundError: when it is not in this file.
        :raises CorruptFileError: when its bytes are damaged.
        """
        data = self.value(content)
        return data.encode() if isinstance(data, str) else data

    def value(self, content: Content) -> str | bytes:
        """Return a content as it was recorded, text or bytes; raises as :meth:`data` does."""
        return self._stored_data(content) if content.data is None else content.data

    def _stored_data(self, content: Content) -> str | bytes:
        stored = content.stored
        if stored is not None and stored.parts:
            if stored.size > MOST_WHOLE_BYTES:
                raise InvalidValueError(
                    f"a content of {stored.size} bytes is not read whole; use stream_content()"
                )
            # Joined without a copy. A file may name one part very often.
            whole = BytesIO()
            for i in range(len(stored.parts)):
                if whole.write(self.part(content, i)) and whole.tell() > stored.size:
                    raise _not_here(content)
            if Content(whole.getvalue()) == content:
                return whole.getvalue()
        elif stored is not None and stored.sequence <= self.state.last_sequence:
            held = self.reader.held(stored.sequence, self.end)
            if held is not None and held.content == content:
                return held.checked()
        raise _not_here(content)

    def part(self, content: Content, place: int) -> bytes:
        """Return the bytes of one part of a content in parts; ``place`` counts from 0.

        :raises ContentNotFoundError: when it is not in this file.
        """
        assert content.stored is not None
        at = content.stored.parts[place]
        if at <= self.state.last_sequence:
            held = self.reader.held(at, self.end)
            if held is not None:
                data = held.checked()
                return data.encode() if isinstance(data, str) else data
        raise _not_here(content)

    # The memory.

    def memory_events(
        self, after: int, until: int, hint: int | None = None
    ) -> Iterator[tuple[Event, int]]:
        """The events above ``after``, up to ``until``, that change the memory, in order, each with
        a hint (the offset of its segment) that finds it again.

        ``hint``: of the last one of them at or before ``after``, where ``after`` is the end of a
        view; None where that is not known.

        :raises CorruptFileError: when what the memory's positions name is not there.
        """
        segments = self.projection_segments(MEMORY, after, until, hint)
        return in_range(segments, FRAME_KINDS, self.content, after, until)

    def collection_events(
        self, after: int, until: int, hint: int | None = None
    ) -> Iterator[tuple[Event, int]]:
        """The events that create or change collections, as :meth:`memory_events` returns others.

        :raises CorruptFileError: when what the positions of the collections name is not there.
        """
        segments = self.projection_segments(COLLECTIONS, after, until, hint)
        return in_range(segments, COLLECTION_KINDS, self.content, after, until)

    def key_change(self, hint: int, sequence: int, place: int) -> KeyChange:
        """Return the change at ``place`` in an event that changed a collection, and that came with
        ``hint``.

        :raises CorruptFileError: when it is not there.
        """
        offset, kind, found = self.reader.part(sequence, place, self.end, hint)
        try:
            if kind == COLLECTION_CHANGED:
                return read_change(found)
        except (TypeError, IndexError) as error:
            raise CorruptFileError(offset, f"there is no change of a key: {error}") from None
        raise CorruptFileError(offset, "there is no change of a key")

    def projection_segments(
        self, name: str, after: int, until: int, hint: int | None
    ) -> Iterator[Segment]:
        """The segments of the events above ``after``, up to ``until``, that a projection folds, in
        order. ``hint``: as for :meth:`memory_events`.

        :raises CorruptFileError: when what the projection's positions name is not there.
        """
        # None of them begins before this byte.
        above = 0 if hint is None else hint + 1
        if after:
            above = max(above, self.reader.offset_before(after))
        last: Segment | None = None
        for segment in self._segments_at(self.reader.offsets(name, self.end, above) or ()):
            if segment.sequence > until:
                break
            # Its events end where the next one begins: one that ends by ``after`` is passed over.
            if last is not None and segment.sequence > after + 1:
                yield last
            last = segment
        if last is not None:
            yield last

    def frame_content(self, hint: int, version: Version) -> Content:
        """Return the content of a version of a frame, whose event came with ``hint``.

        :raises CorruptFileError: when it is not there.
        """
        try:
            content = self._frame_content(hint, version)
        except InvalidValueError as error:
            raise CorruptFileError(hint, str(error)) from None
        if content is None:
            raise CorruptFileError(hint, "there is no frame")
        return content

    def frame_content_of(self, version: Version) -> Content | None:
        """Return the content of a version of a frame; None when it was erased.

        :raises InvalidValueError: when there is no such version.
        """
        if not 0 < version[0] <= self.state.last_sequence:
            raise InvalidValueError(f"event {version[0]} holds no frame of this file")
        return self._frame_content(0, version)

    def _frame_content(self, hint: int, version: Version) -> Content | None:
        offset, kind, found = self.reader.part(*version, self.end, hint)
        if kind in (ERASED, UPDATE_ERASED):
            return None
        if kind not in HOLDERS:
            raise InvalidValueError(f"event {version[0]} holds no frame of this file")
        try:
            field = part_content(kind, found)
            return None if field is None else read_content_field(field, self.content)
        except (ValueError, TypeError, IndexError) as error:
            raise CorruptFileError(offset, f"there is no frame: {error}") from None

    # Projections.

    def saved_projection(self, name: str, until: int) -> SavedProjection | None:
        """Return a projection as saved last; None when it was never saved.

        It must not be folded further than the event ``until``.

        :raises CorruptFileError, ValueError: when it cannot be read.
        """
        offset, count, through = 0, 0, 0
        pages: dict[int, memoryview] = {}
        for at, part in self.reader.projection_pages(name):
            if part.through > until:
                continue
            if not offset:
                offset, count, through = at, part.page_count, part.through
            numbers = [number for (number,) in PAGE_NUMBER.iter_unpack(part.numbers)]
            held, size = memoryview(part.pages), len(part.pages) // max(1, len(numbers))
            for i, number in enumerate(numbers):
                # A later save overrides an older one, which may have had more pages.
                if number < count:
                    pages.setdefault(number, held[i * size : (i + 1) * size])
            if len(pages) >= count:
                break
        return SavedProjection(offset, through, count, pages) if offset else None


def _not_here(content: Content) -> ContentNotFoundError:
    return ContentNotFoundError(
        f"content {content.digest.hex()} is not in this file: it was erased, or an action of "
        f"another store names it",
        content.digest,
    )


def _runs_back(offsets: list[int]) -> Iterator[list[int]]:
    """Split ascending offsets into what is read at once, the last ones first."""
    end = len(offsets)
    while end:
        start = max(0, end - _BACK)
        while offsets[end - 1] - offsets[start] > _RUN:
            start += 1
        yield offsets[start:end]
        end = start
