"""Segments: framed, checksummed, chained. The log is nothing but one after another."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum

from attrs import frozen

from ..errors import CorruptFileError

# Bounds what a reader allocates for one segment, whatever its length field says.
MAX_PAYLOAD = 128 * 1024 * 1024

_REST = struct.Struct("<IIQ")
_CRC = struct.Struct("<I")
HEAD_SIZE = _CRC.size + _REST.size
_SEQUENCE_BITS = 56
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1
_READ_AHEAD = 256 * 1024
# Segments that are no further apart are read in one call.
_NEAR = 8 * 1024

Read = Callable[[int, int], bytes]


class SegmentKind(IntEnum):
    """What a segment's CBOR holds. A kind that a reader does not know is skipped."""

    EVENTS = 1
    POSITIONS = 2
    PAGE = 3
    TOC = 4
    STUBS = 5
    PROJECTION = 6


# The kinds that hold events; all others are derived from those.
EVENT_KINDS = (SegmentKind.EVENTS, SegmentKind.STUBS)


@frozen
class Segment:
    """A segment that was read and whose checksum matched.

    ``sequence``: of the first event in it, or of the next event for what holds none. ``offset``
    and ``end``: where it stands in the file. ``previous``: the checksum of the segment before it.
    """

    kind: int
    sequence: int
    payload: bytes
    offset: int
    end: int
    previous: int
    checksum: int


def seal(
    kind: int, sequence: int, payload: bytes | bytearray, previous: int, salt: int
) -> tuple[bytes, int]:
    """The 20 bytes that go before ``payload``, and the segment's checksum."""
    rest = _REST.pack(len(payload), previous, kind << _SEQUENCE_BITS | sequence)
    checksum = zlib.crc32(payload, zlib.crc32(rest, salt))
    return _CRC.pack(checksum) + rest, checksum


def payload_length(data: bytes, position: int = 0) -> int:
    """The length field of the segment that begins at ``data[position]``."""
    length: int = _REST.unpack_from(data, position + _CRC.size)[0]
    return length


def parse(data: bytes, position: int, base: int, salt: int) -> Segment | None:
    """The segment at ``data[position:]``, where ``data`` begins at byte ``base`` of the file.

    None when it is not whole or its checksum does not match.
    """
    start = position + HEAD_SIZE
    if start > len(data):
        return None
    length = payload_length(data, position)
    end = start + length
    if length > MAX_PAYLOAD or end > len(data):
        return None
    return _segment(data[position:start], data[start:end], base + position, salt)


def _segment(head: bytes, payload: bytes, offset: int, salt: int) -> Segment | None:
    _, previous, packed = _REST.unpack_from(head, _CRC.size)
    checksum = zlib.crc32(payload, zlib.crc32(head[_CRC.size :], salt))
    if checksum != _CRC.unpack_from(head)[0]:
        return None
    kind, sequence = packed >> _SEQUENCE_BITS, packed & _SEQUENCE_MASK
    end = offset + HEAD_SIZE + len(payload)
    return Segment(kind, sequence, payload, offset, end, previous, checksum)


def _read_behind(read: Read, head: bytes, offset: int, salt: int) -> Segment | None:
    """The segment with this head. A large payload that was read together with its head would have
    to be copied out of that, which holds the interpreter."""
    payload = read(offset + HEAD_SIZE, payload_length(head))
    whole = len(payload) == payload_length(head)
    return _segment(head, payload, offset, salt) if whole else None


def read_segment(read: Read, offset: int, end: int, salt: int, *, guess: int = 4096) -> Segment:
    """The segment at ``offset``; no byte at or after ``end`` is looked at.

    ``guess``: how many bytes to read at first.

    :raises CorruptFileError: when there is no valid segment.
    """
    data = read(offset, min(guess, end - offset))
    if len(data) >= HEAD_SIZE:
        length = payload_length(data)
        if len(data) < HEAD_SIZE + length <= min(MAX_PAYLOAD + HEAD_SIZE, end - offset):
            segment = _read_behind(read, data[:HEAD_SIZE], offset, salt)
        else:
            segment = parse(data, 0, offset, salt)
        if segment is not None:
            return segment
    raise CorruptFileError(offset, "there is no valid segment")


def scan(read: Read, start: int, end: int, previous: int | None, salt: int) -> Iterator[Segment]:
    """The segments from ``start`` on, as long as each is whole, valid and chained to the one
    before it; ``previous`` is the checksum that the first must name, None for any."""
    offset, data, base = start, b"", start

    def have(count: int) -> bool:
        nonlocal data, base
        if offset + count <= base + len(data):
            return True
        if offset + count > end:
            return False
        data, base = read(offset, min(max(count, _READ_AHEAD), end - offset)), offset
        return len(data) >= count

    while have(HEAD_SIZE):
        position, length = offset - base, payload_length(data, offset - base)
        if length > MAX_PAYLOAD or offset + HEAD_SIZE + length > end:
            return
        if HEAD_SIZE + length > max(_READ_AHEAD, len(data) - position):
            head = data[position : position + HEAD_SIZE]
            segment = _read_behind(read, head, offset, salt)
        else:
            whole = have(HEAD_SIZE + length)
            segment = parse(data, offset - base, base, salt) if whole else None
        if segment is None or (previous is not None and segment.previous != previous):
            return
        yield segment
        previous, offset = segment.checksum, segment.end


def segments_at(read: Read, offsets: Sequence[int], end: int, salt: int) -> Iterator[Segment]:
    """The segments at ascending offsets, near ones read together.

    :raises CorruptFileError: when there is no valid segment at one of them.
    """
    data, base = b"", 0
    for i, offset in enumerate(offsets):
        start = offset - base
        whole = 0 <= start <= len(data) - HEAD_SIZE
        if not whole or start + HEAD_SIZE + payload_length(data, start) > len(data):
            last = i
            while (
                last + 1 < len(offsets)
                and offsets[last + 1] - offsets[last] <= _NEAR
                and offsets[last + 1] - offset <= _READ_AHEAD
            ):
                last += 1
            stop = min(offsets[last] + 2048, end)
            data, base, start = read(offset, stop - offset), offset, 0
        segment = parse(data, start, base, salt)
        yield segment if segment is not None else read_segment(read, offset, end, salt)
