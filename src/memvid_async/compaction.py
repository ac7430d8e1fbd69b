"""Compaction: the log once more, without what was deleted.

Every event keeps its sequence and time. Those of deleted sessions, and content that no other event
refers to, become stubs; everything else is carried over as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cbor2
from attrs import evolve, frozen

from .errors import CorruptFileError
from .events import Event
from .format.codec import ACTION_KINDS, DELETED, ERASED, STORED, content_references, decode_rows
from .format.header import LOG_START, MOST_GENERATIONS
from .format.segment import Segment, SegmentKind, scan
from .format.stubs import MOST_RUNS, decode_stubs, encode_stubs
from .logfile import UNREAD, LogFile
from .storage import Storage

# Progress is told, and stubs are written, at about every so many bytes or events.
_STEP_BYTES = 1024 * 1024
_STUB_EVENTS = 64 * 1024


@frozen
class CompactReport:
    """What a compaction did. ``erased_events``: how many are stubs now that were not before.

    ``generation``: how often the file has been compacted by now.
    """

    bytes_before: int
    bytes_after: int
    erased_events: int
    generation: int


class _Compactor:
    """Carries a log over to another file, segment by segment."""

    def __init__(self, source: LogFile, target: LogFile) -> None:
        self._source = source
        self._target = target
        self._kept = self._referenced()
        self._stubs: list[tuple[int, int]] = []
        self._stub_count = 0
        self.erased = 0

    def segments(self) -> Iterator[Segment]:
        """The source's segments, whole and in order."""
        source = self._source
        salt = source.header.salt
        return scan(source.storage.read, LOG_START, source.view.end, salt, salt)

    def _referenced(self) -> set[int]:
        """The sequences of the contents that sessions which are not deleted refer to."""
        kept: set[int] = set()
        sessions = self._source.state.sessions
        for segment in self.segments():
            if segment.kind != SegmentKind.EVENTS:
                continue
            with _damage_named(segment):
                _, session, rows = decode_rows(segment.payload)
                for row in rows if session in sessions else ():
                    if row[0] in ACTION_KINDS:
                        kept.update(content_references(row))
        return kept

    def carry(self, segment: Segment) -> None:
        """Carry one segment over, or what is left of it."""
        if segment.kind == SegmentKind.STUBS:
            for event in decode_stubs(segment.payload, segment.sequence):
                self._add_stubs(event.time_ns, 1)
        elif segment.kind == SegmentKind.EVENTS:
            time_ns, session, rows = decode_rows(segment.payload)
            left = [self._left(row, segment.sequence + i, session) for i, row in enumerate(rows)]
            self.erased += sum(row != old for row, old in zip(left, rows, strict=True))
            if all(row == [ERASED] for row in left):
                self._add_stubs(time_ns, len(left))
            elif left == rows:
                self._append(SegmentKind.EVENTS, segment.payload)
            else:
                session = session if session in self._source.state.sessions else 0
                rest = left[0] if len(left) == 1 else left
                self._append(SegmentKind.EVENTS, cbor2.dumps([time_ns, session, *rest]))

    def _left(self, row: list[Any], sequence: int, session: int) -> list[Any]:
        kind = row[0]
        if kind == STORED:
            return row if sequence in self._kept else [ERASED]
        # A session's deletion stays: it says which session is gone, and nothing of it.
        alive = session in self._source.state.sessions or session == 0 or kind == DELETED
        return row if alive else [ERASED]

    def _add_stubs(self, time_ns: int, count: int) -> None:
        if self._stubs and self._stubs[-1][0] == time_ns:
            time_ns, before = self._stubs.pop()
            count += before
            self._stub_count -= before
        self._stubs.append((time_ns, count))
        self._stub_count += count
        if self._stub_count >= _STUB_EVENTS or len(self._stubs) >= MOST_RUNS:
            self.flush_stubs()

    def flush_stubs(self) -> None:
        """Append the run of stubs that is open."""
        if self._stubs:
            payload = encode_stubs(self._stubs)
            self._stubs, self._stub_count = [], 0
            self._append_payload(SegmentKind.STUBS, payload)

    def _append(self, kind: SegmentKind, payload: bytes) -> None:
        self.flush_stubs()
        self._append_payload(kind, payload)

    def _append_payload(self, kind: SegmentKind, payload: bytes) -> None:
        target = self._target
        sequence = target.state.last_sequence + 1
        segment = Segment(kind, sequence, payload, 0, 0, 0, 0)
        events: list[Event] = target.decode(segment, lambda _: UNREAD) or []
        target.append(kind, payload, events)
        if target.staged_bytes >= _STEP_BYTES:
            target.write_out()


@contextmanager
def _damage_named(segment: Segment) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None


def compact_into(
    storage: Storage, source: LogFile, progress: Callable[[int, int], None]
) -> tuple[LogFile, CompactReport]:
    """Write what is left of ``source`` to ``storage``, durably; the new file, and a report.

    :raises CorruptFileError: when the source is damaged; it stays as it is.
    """
    total = source.view.end
    if source.header.generation == MOST_GENERATIONS:
        raise CorruptFileError(12, "no file is compacted so often")
    header = evolve(source.header, generation=source.header.generation + 1)
    target = LogFile.create(storage, header)
    compactor = _Compactor(source, target)
    told = 0
    position = LOG_START
    for segment in compactor.segments():
        with _damage_named(segment):
            compactor.carry(segment)
        position = segment.end
        if position - told >= _STEP_BYTES:
            progress(position, total)
            told = position
    source.require_end(position)
    compactor.flush_stubs()
    target.tidy(with_toc=True)
    progress(total, total)
    report = CompactReport(total, target.view.end, compactor.erased, header.generation)
    return target, report
