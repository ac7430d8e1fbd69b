"""Segments: framed, checksummed and chained. A file's log is one segment after another."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple
from zlib import crc32

from ..errors import CorruptFileError

# The longest payload, in bytes. It bounds what a reader allocates, whatever a length field says.
MAX_PAYLOAD = 128 * 1024 * 1024

_REST = struct.Struct("<IIQ")
_CRC = struct.Struct("<I")
_pack_rest, _pack_crc = _REST.pack, _CRC.pack
HEAD_SIZE = _CRC.size + _REST.size
_SEQUENCE_BITS = 56
_SEQUENCE_MASK = (1 << _SEQUENCE_BITS) - 1
_READ_AHEAD = 256 * 1024
# Segments whose offsets are at most this far apart are read in one call.
_NEAR = 8 * 1024

Read = Callable[[int, int], bytes]


class SegmentKind(IntEnum):
    """What a segment's CBOR holds. A reader skips kinds that it does not know."""

    EVENTS = 1
    POSITIONS = 2
    PAGE = 3
    TOC = 4
    STUBS = 5
    PROJECTION = 6


# The kinds that hold events. All others are derived from these.
EVENT_KINDS = (SegmentKind.EVENTS, SegmentKind.STUBS)


class Segment(NamedTuple):
    """A segment that was read and whose checksum matched.

    ``sequence``: of its first event; of the next event for a segment without events. ``offset``
    and ``end``: where it begins and ends in the file. ``previous``: the checksum of the segment
    before it.
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
    """Return the 20 bytes that go before ``payload``, and the segment's checksum."""
    rest = _pack_rest(len(payload), previous, kind << _SEQUENCE_BITS | sequence)
    checksum = crc32(payload, crc32(rest, salt))
    return _pack_crc(checksum) + rest, checksum


def payload_length(data: bytes, position: int = 0) -> int:
    """Return the length field of the segment that begins at ``data[position]``."""
    length: int = _REST.unpack_from(data, position + _CRC.size)[0]
    return length


def parse(data: bytes, position: int, base: int, salt: int) -> Segment | None:
    """Return the segment at ``data[position:]``; ``data`` begins at byte ``base`` of the file.

    None when the segment is not whole or its checksum does not match.
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
    checksum = crc32(payload, crc32(head[_CRC.size :], salt))
    if checksum != _CRC.unpack_from(head)[0]:
        return None
    kind, sequence = packed >> _SEQUENCE_BITS, packed & _SEQUENCE_MASK
    end = offset + HEAD_SIZE + len(payload)
    return Segment(kind, sequence, payload, offset, end, previous, checksum)


def _read_after(read: Read, head: bytes, offset: int, salt: int) -> Segment | None:
    """Read the payload after this head, and return the segment; None when it is not valid.

    A large payload is read on its own: out of a piece that also holds the head it would have to be
    copied, which holds the interpreter.
    """
    payload = read(offset + HEAD_SIZE, payload_length(head))
    whole = len(payload) == payload_length(head)
    return _segment(head, payload, offset, salt) if whole else None


def read_segment(read: Read, offset: int, end: int, salt: int, *, guess: int = 4096) -> Segment:
    """Return the segment at ``offset``; no byte at or after ``end`` is read.

    ``guess``: how many bytes to read at first.

    :raises CorruptFileError: when there is no valid segment.
    """
    data = read(offset, min(guess, end - offset))
    if len(data) >= HEAD_SIZE:
        length = payload_length(data)
        if len(data) < HEAD_SIZE + length <= min(MAX_PAYLOAD + HEAD_SIZE, end - offset):
            segment = _read_after(read, data[:HEAD_SIZE], offset, salt)
        else:
            segment = parse(data, 0, offset, salt)
        if segment is not None:
            return segment
    raise CorruptFileError(offset, "there is no valid segment")


def scan(read: Read, start: int, end: int, previous: int | None, salt: int) -> Iterator[Segment]:
    """Iterate over the segments from ``start`` on, while each is valid and chained to the last.

    ``previous``: the checksum that the first one must name; None for any.
    """
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
            segment = _read_after(read, head, offset, salt)
        else:
            whole = have(HEAD_SIZE + length)
            segment = parse(data, offset - base, base, salt) if whole else None
        if segment is None or (previous is not None and segment.previous != previous):
            return
        yield segment
        previous, offset = segment.checksum, segment.end


def segments_at(read: Read, offsets: Sequence[int], end: int, salt: int) -> Iterator[Segment]:
    """Iterate over the segments at ascending offsets; those near each other are read together.

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
