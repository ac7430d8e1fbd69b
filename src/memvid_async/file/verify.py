"""Verifying a whole file: every checksum, every event, every fold, every derived segment."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.reports import Problem, VerifyReport
from ..core.state import State
from ..errors import CorruptFileError
from ..events.content import Content
from ..events.pace import unhurried
from ..format.header import LOG_START, decode_header
from ..format.kinds import STORED
from ..format.rows import DecodedRows, decode_rows
from ..format.segment import Segment, SegmentKind, scan
from ..format.tables import (
    PAGE_ROWS,
    PROJECTIONS,
    Table,
    decode_page,
    decode_positions,
    decode_projection_pages,
    encode_projection_pages,
)
from ..storage import Storage
from .file_view import FileView
from .log_file import LogFile

# A step checks about this many bytes, so that other reads get their turn in between.
_STEP_BYTES = 1024 * 1024


class Verifier:
    """One pass over the file up to the end of a view, in steps.

    Everything derived is derived again and compared byte for byte.
    """

    def __init__(self, storage: Storage, view: FileView) -> None:
        self._storage = storage
        self._view = view
        self._problems: list[Problem] = []
        self._contents = 0
        self._file: LogFile | None = None
        self._segments: Iterator[Segment] = iter(())
        self.done_bytes = 0
        self.total_bytes = view.end
        self.finished = False

    def step(self) -> None:
        """Check about 1 MiB more."""
        file = self._file or self._begin()
        until = self.done_bytes + _STEP_BYTES
        while not self.finished and self.done_bytes < until:
            try:
                segment = next(self._segments, None)
            except CorruptFileError as error:
                # A stream does not have all of its messages.
                self._report(error.offset, f"{error.problem}; nothing after it was checked")
                self.finished = True
                return
            if segment is None:
                self._end(file)
                return
            try:
                self._check(file, segment)
            except (ValueError, LookupError) as error:
                self._report(segment.offset, str(error))
                self.finished = True
            self.done_bytes = segment.end

    def _begin(self) -> LogFile:
        header = decode_header(self._storage.read(0, LOG_START))
        # Nothing is loaded into it: everything is folded again, from the first segment on.
        self._file = LogFile(self._storage, header, read_only=True)
        read, salt = self._storage.read, header.salt
        self._segments = scan(read, LOG_START, self._view.end, salt, salt)
        self.done_bytes = LOG_START
        return self._file

    def _report(self, offset: int, message: str) -> None:
        self._problems.append(Problem(offset, message))

    def _end(self, file: LogFile) -> None:
        self.finished = True
        if self.done_bytes < self._view.end:
            self._report(self.done_bytes, "a segment is damaged; nothing after it was checked")
        elif file.state != self._view.state:
            self._report(self.done_bytes, "the events fold to another state than the store's")

    def _check(self, file: LogFile, segment: Segment) -> None:
        if segment.sequence != file.state.last_sequence + 1:
            raise ValueError("the sequence has a gap")
        parts = decode_rows(segment.payload) if segment.kind == SegmentKind.EVENTS else None
        events = file.decode(segment, parts=parts)
        if events is not None:
            if parts is not None:
                self._check_contents(segment, parts)
            file.take_in(events, segment.offset)
        elif segment.kind in tuple(SegmentKind):
            due = _derive(file, segment)
            if due is not None and segment.payload != due:
                self._report(segment.offset, "a derived segment differs from its events")
            file.catalog.note_derived(segment)

    def _check_contents(self, segment: Segment, parts: DecodedRows) -> None:
        for row in unhurried(parts[2]):
            if row[0] == STORED:
                self._contents += 1
                if Content(row[2]).digest != row[1]:
                    self._report(segment.offset, "content does not match its digest")

    def report(self) -> VerifyReport:
        """Return what was found so far."""
        state = self._file.state if self._file is not None else State()
        return VerifyReport(
            ok=not self._problems,
            problems=tuple(self._problems),
            event_count=state.last_sequence,
            session_count=len(state.sessions),
            content_count=self._contents,
            byte_count=self.done_bytes,
        )


def _derive(file: LogFile, segment: Segment) -> bytes | None:
    """Return what a derived segment must hold, as the events before it say.

    None when this release cannot derive it.

    A saved search index is not made again: loading checks it, and folds it again where it is wrong.
    """
    if file.state.beyond:
        # A newer release wrote to the file, and folds events that this one does not know.
        return None
    if segment.kind == SegmentKind.PROJECTION:
        return encode_projection_pages(decode_projection_pages(segment.payload))
    if segment.kind == SegmentKind.TOC:
        return file.catalog.encode_toc(file.state)
    if segment.kind == SegmentKind.PAGE:
        table, _, _ = decode_page(segment.payload)
        known = table in PAGE_ROWS
        return file.catalog.encode_page(Table(table), file.state) if known else None
    owner, _, _ = decode_positions(segment.payload)
    known = owner in PROJECTIONS or not isinstance(owner, str)
    return file.catalog.encode_positions(owner) if known else None
