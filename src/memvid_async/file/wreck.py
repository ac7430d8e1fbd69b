"""What is left of a damaged file: the segments that are whole, in the order of their sequences."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

from attrs import frozen

from ..core.session_map import unpack_session
from ..core.session_state import SessionInfo
from ..errors import CorruptFileError, NotAStoreError, UnsupportedVersionError
from ..events.content import Content
from ..format.action_rows import content_references
from ..format.codec import UNREAD, read_events
from ..format.header import LOG_START, SLOT_OFFSETS, SLOT_SIZE, Header, decode_header, decode_slots
from ..format.kinds import ACTION_KINDS, CALL_STARTED, STORED
from ..format.resync import Finder, Run, find_salt
from ..format.rows import DecodedRows, decode_rows
from ..format.segment import EVENT_KINDS, Read, Segment, SegmentKind, scan
from ..format.stubs import decode_stubs
from ..format.tables import Table, decode_page
from .log_copy import STEP_BYTES
from .toc import decode_toc, read_ended_columns, read_open_columns, read_open_row

# At most this many events, or as many as the file has bytes, are believed to be missing in one
# place. This bounds the stubs that a hostile file can ask for.
_MOST_MISSING = 2**24
_CHECKSUM_AT = 32
_UNCHECKED = UUID(int=0)
_PASSES = 3

Progress = Callable[[int, int], None]


@frozen
class Damage:
    """Bytes of the damaged file that prove nothing."""

    offset: int
    """Where they begin, in bytes."""
    length: int
    """How many they are."""


@frozen
class Part:
    """A segment in its place in the order of sequences."""

    segment: Segment
    time_ns: int
    """The time of its first event."""
    last_ns: int
    """The time of its last event."""
    session: int
    """The number of its events' session, 0 for none."""
    rows: list[list[Any]] | None
    """The rows of its events, which are copied; None for stubs."""
    count: int
    """How many events it holds."""

    @property
    def last(self) -> int:
        """The sequence of its last event; without events, that of the event before it."""
        return self.segment.sequence + self.count - 1


class DamagedBytes(Protocol):
    """The bytes of a damaged log, each at its offset."""

    def size(self) -> int:
        """How many they are."""

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end."""


class Wreck:
    """A damaged file. It is read three times: by the constructor, and by :meth:`parts` twice.

    ``header``: None where it is lost. ``header_damaged``: whether it is lost or was repaired.
    """

    def __init__(self, source: DamagedBytes, progress: Progress) -> None:
        self.read = source.read
        self._size = source.size()
        self._progress = progress
        self._told = 0
        start = source.read(0, LOG_START).ljust(LOG_START, b"\0")
        self.header = _header(start)
        self._runs: list[Run] = []
        if self.header is not None:
            self._find_runs(self.header.salt)
        self.header_damaged = not self._runs and self._find_without_header(start)
        if self.header is None and not self._runs:
            raise NotAStoreError(
                "this is not a memvid_async file, or nothing of it is left: neither a header nor "
                "two segments were found"
            )
        slots = decode_slots(start, self._salt)
        self._slots = [slot for slot in slots if slot is not None]
        # The end up to which the log was durable once, as far as that is known.
        self._named = max((slot.end for slot in self._slots), default=LOG_START)
        self._bad_slots = [
            Damage(offset, SLOT_SIZE)
            for slot, offset in zip(slots, SLOT_OFFSETS, strict=True)
            if slot is None and any(start[offset : offset + SLOT_SIZE])
        ]
        self._unusable: dict[int, Segment] = {}

    def _find_runs(self, salt: int) -> None:
        self._salt = salt
        self._finder = Finder(self.read, self._size, salt)
        self._runs = list(self._finder.runs(lambda done: self._tell(0, done)))

    def _find_without_header(self, start: bytes) -> bool:
        """Find the segments without a header, or with one that no segment belongs to.

        Returns whether there are any.
        """
        salt = find_salt(self.read, start, self._size)
        if salt is not None:
            mended = start[:_CHECKSUM_AT] + salt.to_bytes(4, "little")
            self.header = _header(mended + start[len(mended) :])
            self._find_runs(salt)
        return salt is not None

    def _tell(self, passes: int, done: int) -> None:
        done += passes * self._size
        if done - self._told >= STEP_BYTES:
            self._told = done
            self._progress(done, _PASSES * self._size)

    def finish(self) -> None:
        """Report that everything is done."""
        self._progress(_PASSES * self._size, _PASSES * self._size)

    def _segments(self) -> Iterator[Segment]:
        for run in sorted(self._runs, key=lambda run: (run.sequence, run.start)):
            yield from scan(self.read, run.start, run.end, None, self._salt)

    @property
    def _most_missing(self) -> int:
        return max(_MOST_MISSING, self._size)

    def parts(self, *, check: bool) -> Iterator[Part]:
        """Iterate over the segments that are left, in the order of sequences, each event once.

        Segments without events come too: they prove how many events were before them. The first
        call needs ``check``, which decodes everything.
        """
        last = done = 0
        for segment in self._segments():
            done += segment.end - segment.offset
            self._tell(1 if check else 2, done)
            believed = last < segment.sequence <= last + self._most_missing
            if believed and segment.offset not in self._unusable:
                part = self._part(segment, check=check)
                if part is None:
                    self._unusable[segment.offset] = segment
                else:
                    last = part.last
                    yield part

    def _part(self, segment: Segment, *, check: bool) -> Part | None:
        if segment.kind not in EVENT_KINDS:
            return Part(segment, 0, 0, 0, [], 0)
        try:
            if segment.kind == SegmentKind.STUBS:
                runs = decode_stubs(segment.payload)
                events = sum(count for _, count in runs)
                return Part(segment, runs[0][0], runs[-1][0], 0, None, events)
            parts = time_ns, session, rows = decode_rows(segment.payload)
            if check:
                _check(segment, parts)
        except (ValueError, TypeError, IndexError):
            return None
        return Part(segment, time_ns, time_ns, session, rows, len(rows))

    def known_last(self, last: int) -> int:
        """Return the highest sequence that is proven to have existed, ``last`` or above."""
        known = [slot.sequence for slot in self._slots]
        known += [segment.sequence for segment in self._unusable.values()]
        return max((n for n in known if last < n <= last + self._most_missing), default=last)

    def saved_sessions(self) -> Iterator[SessionInfo]:
        """Iterate over the sessions in saved tables; a session may come many times."""
        for segment in self._segments():
            with suppress(ValueError, TypeError, IndexError):
                yield from _session_rows(segment)

    def damage(self, last: int) -> tuple[tuple[Damage, ...], int]:
        """Return the damaged bytes, and how many of them, at the end, may have held more events.

        ``last``: the sequence after which those events would be.
        """
        found = [Damage(0, _CHECKSUM_AT + 4)] if self.header_damaged else []
        found += self._bad_slots
        found += [Damage(s.offset, s.end - s.offset) for s in self._unusable.values()]
        position = LOG_START
        for run in self._runs:
            if run.start > position:
                found.append(Damage(position, run.start - position))
            position = run.end
        end = max(_end_of_data(self.read, position, self._size), self._named)
        if end > position:
            found.append(Damage(position, end - position))
        unexplained = 0 if self._is_toc(position, end, last) else end - position
        return tuple(sorted(found, key=lambda damage: damage.offset)), unexplained

    def _is_toc(self, start: int, end: int, last: int) -> bool:
        """Whether the bytes at the end are exactly the TOC that a slot names."""
        head = self._finder.head(start)
        proven = any(slot.toc == start and slot.sequence == last for slot in self._slots)
        return proven and head is not None and start + head.size >= end


def _header(start: bytes) -> Header | None:
    """Decode the header; None where it is damaged.

    :raises UnsupportedVersionError: when a newer release wrote it.
    """
    try:
        return decode_header(start)
    except UnsupportedVersionError:
        stored = int.from_bytes(start[_CHECKSUM_AT : _CHECKSUM_AT + 4], "little")
        if zlib.crc32(start[:_CHECKSUM_AT]) == stored:
            raise
    except (NotAStoreError, CorruptFileError):
        pass
    return None


def _check(segment: Segment, parts: DecodedRows) -> None:
    """Read everything in a segment of events, whose rows are decoded.

    :raises ValueError, TypeError, IndexError: when a row is not as its kind requires.
    """
    read_events(parts, segment.sequence, lambda _: _UNCHECKED, lambda _: UNREAD)
    for row in parts[2]:
        if row[0] == STORED and Content(row[2]).digest != row[1]:
            raise ValueError("content does not match its digest")
        if row[0] in ACTION_KINDS or row[0] == CALL_STARTED:
            list(content_references(row))


def _session_rows(segment: Segment) -> Iterator[SessionInfo]:
    """Iterate over the sessions that a saved table or a TOC names."""
    if segment.kind == SegmentKind.TOC:
        toc = decode_toc(segment.payload, 0)
        yield from (found.session.info for found in toc.open_sessions)
        yield from (unpack_session(row).info for row in toc.ended.rows)
    elif segment.kind == SegmentKind.PAGE:
        table, _, rows = decode_page(segment.payload)
        if table == Table.SESSIONS:
            yield from (unpack_session(row).info for row in read_ended_columns(rows).rows)
        elif table == Table.OPEN:
            yield from (read_open_row(row).session.info for row in read_open_columns(rows)[1])


def _end_of_data(read: Read, start: int, size: int) -> int:
    """Return where the zeros begin that reach to the end of the file."""
    end = size
    while end > start:
        step = min(STEP_BYTES, end - start)
        kept = read(end - step, step).rstrip(b"\0")
        if kept:
            return end - step + len(kept)
        end -= step
    return start
