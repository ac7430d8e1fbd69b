"""Reading a whole file again: every checksum, every event, every fold, every derived segment."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from attrs import frozen

from .events import Content, StoredContent
from .format.codec import STORED, decode_events, decode_rows
from .format.header import LOG_START, decode_header
from .format.segment import Segment, SegmentKind, scan
from .format.tables import decode_page, decode_positions
from .index import Index
from .model.evolve import evolve
from .model.state import State
from .reader import View
from .storage import Storage

# How much of the file is checked before others get their turn.
_STEP_BYTES = 1024 * 1024
_UNREAD = Content(None, StoredContent(b"", 0, "", 0))


@frozen
class Problem:
    """Something that is not as it must be, and at which byte of the file."""

    offset: int
    message: str


@frozen
class VerifyReport:
    """What :meth:`Store.verify` found. ``ok`` is true when there is no problem.

    ``byte_count``: how much of the file was read and found whole.
    """

    ok: bool
    problems: tuple[Problem, ...]
    event_count: int
    session_count: int
    content_count: int
    byte_count: int


class Verifier:
    """One pass over the file, below the end of a view, in steps. Everything derived is derived
    again and compared byte for byte."""

    def __init__(self, storage: Storage, view: View) -> None:
        self._storage = storage
        self._view = view
        self._state = State(generation=view.state.generation)
        self._index = Index(LOG_START)
        self._problems: list[Problem] = []
        self._contents = 0
        self._segments: Iterator[Segment] | None = None
        self.done_bytes = 0
        self.total_bytes = view.end
        self.finished = False

    def step(self) -> None:
        """Check about a mebibyte more."""
        if self._segments is None:
            self._begin()
        until = self.done_bytes + _STEP_BYTES
        while not self.finished and self.done_bytes < until:
            segment = next(self._segments, None) if self._segments is not None else None
            if segment is None:
                self._end()
                return
            try:
                self._check(segment)
            except ValueError as error:
                self._report(segment.offset, str(error))
                self.finished = True
            self.done_bytes = segment.end

    def _begin(self) -> None:
        header = decode_header(self._storage.read(0, LOG_START))
        read, salt = self._storage.read, header.salt
        self._segments = scan(read, LOG_START, self._view.end, salt, salt)
        self.done_bytes = LOG_START

    def _report(self, offset: int, message: str) -> None:
        self._problems.append(Problem(offset, message))

    def _end(self) -> None:
        self.finished = True
        if self.done_bytes < self._view.end:
            self._report(self.done_bytes, "a segment is damaged; nothing behind it was checked")
        elif self._state != self._view.state:
            self._report(self.done_bytes, "the events fold to another state than the store's")

    def _check(self, segment: Segment) -> None:
        if segment.sequence != self._state.last_sequence + 1:
            raise ValueError("the sequence has a gap")
        if segment.kind == SegmentKind.EVENTS:
            self._check_events(segment)
        elif segment.kind in tuple(SegmentKind):
            if segment.payload != self._derive(segment):
                self._report(segment.offset, "a derived segment differs from its events")
            self._index.note_derived(segment)

    def _check_events(self, segment: Segment) -> None:
        sessions = self._state.sessions

        def session_id(number: int) -> UUID | None:
            session = sessions.get(number)
            return session.info.session_id if session is not None else None

        events = decode_events(segment.payload, segment.sequence, session_id, lambda _: _UNREAD)
        for row in decode_rows(segment.payload)[2]:
            if row[0] == STORED:
                self._contents += 1
                if Content(row[2]).digest != row[1]:
                    self._report(segment.offset, "content does not match its digest")
        for event in events:
            self._state = evolve(self._state, event)
        self._index.note_events(events, events[-1].session, segment.offset)

    def _derive(self, segment: Segment) -> bytes | None:
        """What the segment must hold, from the events before it."""
        if segment.kind == SegmentKind.TOC:
            return self._index.encode_toc(self._state)
        if segment.kind == SegmentKind.PAGE:
            return self._index.encode_page(decode_page(segment.payload)[0], self._state)
        return self._index.encode_positions(decode_positions(segment.payload)[0])

    def report(self) -> VerifyReport:
        """What was found so far."""
        return VerifyReport(
            ok=not self._problems,
            problems=tuple(self._problems),
            event_count=self._state.last_sequence,
            session_count=len(self._state.sessions),
            content_count=self._contents,
            byte_count=self.done_bytes,
        )
