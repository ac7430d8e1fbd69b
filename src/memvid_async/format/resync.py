"""Finding the segments of a damaged file: each is proven by its own checksum, wherever it is.

A segment's checksum starts from the file's salt, so the bytes of another file are not taken for a
segment of this one. Somebody who knows the salt can forge a segment, but damage cannot.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator

from attrs import frozen

from .header import LOG_START
from .segment import HEAD_SIZE, MAX_PAYLOAD, Read, Segment, SegmentKind, parse, scan

_HEAD = struct.Struct("<IIIQ")
_FIELDS_SIZE = 32
_SEQUENCE_BITS = 56
_WINDOW = 1024 * 1024
# The last three bytes of every head of a known kind: the sequence's two highest bytes, which are
# zero below 2^40 events, and the kind.
_HEAD_END = re.compile(rb"(?<=\0\0)[\1-%c]" % max(SegmentKind))
# A search may checksum this many bytes for each byte that it passes, and two longest segments more.
_CREDIT_PER_BYTE = 16
# A salt is computed only from segments of at most this many bytes, as that goes byte by byte.
_SOLVABLE = 64 * 1024
_MOST_TRIES = 1000


@frozen
class Run:
    """Segments that follow one another from ``start`` to ``end`` without a break.

    ``sequence``: the first segment's.
    """

    start: int
    end: int
    sequence: int


@frozen
class Head:
    """The fields at an offset where a segment may begin. None of them is proven."""

    checksum: int
    length: int
    previous: int
    sequence: int
    kind: int

    @property
    def size(self) -> int:
        """How many bytes the whole segment has, if the head is right."""
        return HEAD_SIZE + self.length

    @classmethod
    def unpack(cls, data: bytes) -> Head | None:
        """Read the head at the start of ``data``; None where that is too short."""
        if len(data) < HEAD_SIZE:
            return None
        checksum, length, previous, packed = _HEAD.unpack(data)
        kind = packed >> _SEQUENCE_BITS
        return cls(checksum, length, previous, packed & ((1 << _SEQUENCE_BITS) - 1), kind)


class Finder:
    """Looks for segments before the offset ``end``. Its work is bounded by the bytes it passes."""

    def __init__(self, read: Read, end: int, salt: int) -> None:
        self._read = read
        self._end = end
        self._salt = salt
        self._credit = 2 * MAX_PAYLOAD

    def runs(self, tell: Callable[[int], object]) -> Iterator[Run]:
        """Iterate over the runs in the order of the file; calls ``tell`` with the bytes done."""
        # Bytes before the log may be missing, so the search starts at 0. But it finds only known
        # kinds, so the log's start is looked at besides.
        position = self._search(0, tell)
        if (position is None or position > LOG_START) and self._segment_at(LOG_START) is not None:
            position = LOG_START
        while position is not None and position < self._end:
            first, end = None, position
            for segment in scan(self._read, position, self._end, None, self._salt):
                first = segment if first is None else first
                end = segment.end
                tell(end)
            if first is not None:
                yield Run(position, end, first.sequence)
                position = end
                if self._segment_at(end) is not None:
                    continue
            position = self._after(position, tell)

    def _segment_at(self, offset: int) -> Segment | None:
        """Return the segment at an offset, whatever comes before it; None when it is not valid."""
        head = self.head(offset)
        if head is None or head.length > MAX_PAYLOAD:
            return None
        size = head.size
        if offset + size > self._end:
            return None
        return parse(self._read(offset, size), 0, offset, self._salt)

    def head(self, offset: int) -> Head | None:
        """Return the fields at an offset; None where the end is too near."""
        return Head.unpack(self._read(offset, min(HEAD_SIZE, max(0, self._end - offset))))

    def _after(self, offset: int, tell: Callable[[int], object]) -> int | None:
        """Return where the next segment after a damaged one at ``offset`` is; None without one."""
        head = self.head(offset)
        if head is not None and head.length <= MAX_PAYLOAD:
            # Its head may be whole. Then the segment after it names the checksum in that head.
            there = self._segment_at(offset + head.size)
            if there is not None and there.previous == head.checksum:
                return there.offset
        return self._search(offset + 1, tell)

    def _search(self, start: int, tell: Callable[[int], object]) -> int | None:
        base = start
        while base < self._end:
            data = self._read(base, min(_WINDOW, self._end - base))
            passed = base
            for match in _HEAD_END.finditer(data):
                at = match.start() - (HEAD_SIZE - 1)
                if at >= 0:
                    self._credit += _CREDIT_PER_BYTE * (base + at - passed)
                    passed = base + at
                    if self._is_segment(data, at, base):
                        return passed
            if base + len(data) >= self._end or len(data) <= HEAD_SIZE:
                break
            base += len(data) - (HEAD_SIZE - 1)
            self._credit += _CREDIT_PER_BYTE * (base - passed)
            tell(base)
        return None

    def _is_segment(self, data: bytes, at: int, base: int) -> bool:
        head = Head.unpack(data[at : at + HEAD_SIZE])
        if head is None or head.length > MAX_PAYLOAD:
            return False
        offset, size = base + at, head.size
        if offset + size > self._end or size > self._credit:
            return False
        self._credit -= size
        if at + size <= len(data):
            return parse(data, at, base, self._salt) is not None
        return parse(self._read(offset, size), 0, offset, self._salt) is not None


def find_salt(read: Read, start: bytes, end: int) -> int | None:
    """Return the salt of a file whose header is damaged; None if no segment proves one.

    ``start``: the first ``LOG_START`` bytes. The salt is in the header. It is also the checksum of
    the header's fields, and the checksum that the first segment names as the one before it. Where
    all three are damaged, it follows from two adjacent segments that are whole. Where the file
    holds segments of several files, the salt with the most bytes wins; two are never mixed.
    """
    first = Head.unpack(read(LOG_START, HEAD_SIZE))
    guesses = {zlib.crc32(start[:_FIELDS_SIZE])}
    guesses.add(int.from_bytes(start[_FIELDS_SIZE : _FIELDS_SIZE + 4], "little"))
    if first is not None:
        guesses.add(first.previous)
    held: dict[int, int] = {}
    for salt in sorted(guesses):
        runs = Finder(read, end, salt).runs(lambda _: None)
        held[salt] = sum(run.end - run.start for run in runs)
        if 2 * held[salt] > end:
            return salt
    for salt, size in _solve_salts(read, end).items():
        held[salt] = max(size, held.get(salt, 0))
    salt = max(held, key=lambda salt: held[salt])
    return salt if held[salt] else None


def _solve_salts(read: Read, end: int) -> dict[int, int]:
    """Return the salts that two adjacent segments prove, each with the bytes that belong to it.

    The second segment must name the checksum in the first one's head. From that the first one's
    salt is computed, and the second one must be valid with it, which chance cannot achieve.
    """
    held: dict[int, int] = {}
    base = tries = 0
    while base < end and tries < _MOST_TRIES:
        data = read(base, min(_WINDOW, end - base))
        done = 0
        for match in _HEAD_END.finditer(data):
            at = match.start() - (HEAD_SIZE - 1)
            head = Head.unpack(data[max(0, at) : at + HEAD_SIZE])
            if at < done or head is None or head.length > _SOLVABLE:
                continue
            following = Head.unpack(read(base + at + head.size, HEAD_SIZE))
            if following is None or following.previous != head.checksum:
                continue
            tries += 1
            body = read(base + at + 4, HEAD_SIZE - 4 + head.length)
            salt = _initial(body, head.checksum)
            ends = [segment.end for segment in scan(read, base + at, end, None, salt)]
            if len(ends) >= 2:
                held[salt] = held.get(salt, 0) + ends[-1] - (base + at)
                done = ends[-1] - base
            if tries == _MOST_TRIES:
                break
        base += max(1, done, len(data) - (HEAD_SIZE - 1))
    return held


def _initial(data: bytes, checksum: int) -> int:
    """Return the value from which a CRC-32 over ``data`` must start to become ``checksum``.

    CRC is linear: ``crc(data, x) ^ crc(data, 0)`` is ``x`` shifted through as many zero bytes as
    ``data`` has. So that difference is shifted back.
    """
    register = checksum ^ zlib.crc32(data)
    for _ in range(len(data)):
        low = _LOW_BYTES[register >> 24]
        register = (register ^ _TABLE[low]) << 8 & 0xFFFFFFFF | low
    return register


def _table_entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value


_TABLE = [_table_entry(value) for value in range(256)]
_LOW_BYTES = {entry >> 24: low for low, entry in enumerate(_TABLE)}
