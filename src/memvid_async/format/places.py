"""Where the parts of a large events segment are, so that each can be read without the others."""

from __future__ import annotations

import zlib
from array import array
from typing import Any, NamedTuple

from ..events.pace import unhurried
from ..events.values import count_items, decode_untagged, is_time, read_head
from .counts import is_count
from .kinds import COLLECTION_CHANGED, FRAMES_PUT
from .segment import Read, Segment

# How many fields a row that puts frames has before the first frame, its kind included; and one that
# changes a collection before the first change.
FIRST_FRAME, FIRST_CHANGE = 4, 2
# The kinds whose rows have parts, each of which can be read alone; and the place of the first part.
FIRST_PART = {FRAMES_PUT: FIRST_FRAME, COLLECTION_CHANGED: FIRST_CHANGE}
# The most CBOR items of one segment: fifty thousand frames with metadata. This many of the smallest
# items take eighty megabytes when they are decoded.
MAX_EVENT_ITEMS = 2**20
# In a segment with more rows and parts than this, each can be read without the others.
_MANY = 16
# Major types of CBOR (RFC 8949, 3.1).
BYTES, TEXT, ARRAY = 2, 3, 4


class RowPlace(NamedTuple):
    """Where a row is in a payload.

    ``fields``: for a row with parts, where each field after its kind begins, and where the last one
    ends; None for other kinds.
    """

    kind: int
    start: int
    end: int
    fields: array[int] | None


def locate(payload: bytes) -> tuple[int, int, list[RowPlace]] | None:
    """Return the time, the session's number and where the rows are.

    None for a lone row without parts. No call holds the interpreter for long, whatever the
    payload's size.

    :raises ValueError: when the payload is not an events segment.
    """
    try:
        return _locate(payload)
    except IndexError:
        raise ValueError("not strict CBOR: the bytes end too soon") from None


def _locate(payload: bytes) -> tuple[int, int, list[RowPlace]] | None:
    time_ns, session, count, at = decode_start(payload)
    rows: list[RowPlace] = []
    room = MAX_EVENT_ITEMS
    if count and payload[at] >> 5 == 0:
        _, kind, after = read_head(payload, at)
        if kind not in FIRST_PART:
            return None
        fields, _ = _locate_fields(payload, after, count - 1, room)
        rows.append(RowPlace(kind, at, fields[-1], fields))
    else:
        for _ in unhurried(range(count)):
            row, room = _locate_row(payload, at, room)
            rows.append(row)
            at = row.end
    if not rows or rows[-1].end != len(payload):
        raise ValueError("not an events segment")
    return time_ns, session, rows


def decode_start(payload: bytes) -> tuple[int, int, int, int]:
    """Return an events segment's time and session number, and how many items follow, from where.

    :raises ValueError: when the payload is not an events segment.
    :raises IndexError: when it ends too soon.
    """
    kind, count, at = read_head(payload, 0)
    if kind != ARRAY or count < 2:
        raise ValueError("not an events segment")
    start, numbers = at, []
    for _ in range(2):
        _, at = count_items(payload, MAX_EVENT_ITEMS, at)
        numbers.append(decode_untagged(payload[start:at]))
        start = at
    time_ns, session = time_of(numbers[0]), numbers[1]
    if not is_time(time_ns) or not is_count(session):
        raise ValueError("an events segment has a bad time or session")
    return time_ns, session, count - 2, at


def time_of(value: Any) -> Any:
    """Return the time at the start of an events segment; later releases may add to it in a list."""
    return value[0] if isinstance(value, list) and value else value


def _locate_row(payload: bytes, start: int, room: int) -> tuple[RowPlace, int]:
    """Return the row that begins at ``start``, and for how many more items there is room."""
    major, count, at = read_head(payload, start)
    if major != ARRAY or not count or payload[at] >> 5 != 0:
        raise ValueError("an events segment holds something that is not an event")
    _, kind, at = read_head(payload, at)
    if kind in FIRST_PART:
        fields, room = _locate_fields(payload, at, count - 1, room)
        return RowPlace(kind, start, fields[-1], fields), room
    items, end = count_items(payload, room, start)
    return RowPlace(kind, start, end, None), _left(room - items)


def _locate_fields(payload: bytes, at: int, count: int, room: int) -> tuple[array[int], int]:
    fields = array("I", [at])
    for _ in unhurried(range(count)):
        major, length, after = read_head(payload, at)
        if major in (BYTES, TEXT):
            at, items = after + length, 1
        else:
            items, at = count_items(payload, room, at)
        room = _left(room - items)
        if at > len(payload):
            raise ValueError("not strict CBOR: the bytes end too soon")
        fields.append(at)
    return fields, room


def _left(room: int) -> int:
    if room < 0:
        raise ValueError(f"more than {MAX_EVENT_ITEMS} items")
    return room


def decode_row(payload: bytes, row: RowPlace) -> list[Any]:
    """Decode the row at a place.

    :raises ValueError: when it is not strict CBOR.
    """
    if row.fields is None:
        value: list[Any] = decode_untagged(payload[row.start : row.end], most=MAX_EVENT_ITEMS)
        return value
    fields = row.fields
    ends = iter(unhurried(fields))
    start, decoded = next(ends), [row.kind]
    for end in ends:
        decoded.append(decode_field(payload[start:end]))
        start = end
    return decoded


def decode_field(data: bytes) -> Any:
    """Decode one field of a row.

    :raises ValueError: when it is not strict CBOR.
    """
    if data[0] >> 5 == TEXT:
        # Most fields of many are text. This takes a third of the time.
        return data[read_head(data, 0)[2] :].decode()
    return decode_untagged(data)


class Places:
    """Where the rows of a large segment are in the file, and the parts of those that have any.

    Each has a CRC-32 of its own, computed when the segment was read whole and was valid. It tells
    whether the bytes have changed since.
    """

    __slots__ = ("_checksums", "_firsts", "_kinds", "_lengths", "_starts", "offset", "sequence")

    def __init__(self, segment: Segment, rows: list[RowPlace]) -> None:
        self.sequence, self.offset = segment.sequence, segment.offset
        self._kinds = array("Q")
        # For each row, the place of its first part among all parts.
        self._firsts, self._starts, self._lengths = array("I"), array("Q"), array("I")
        self._checksums = array("I")
        offset, payload = segment.end - len(segment.payload), memoryview(segment.payload)
        for row in rows:
            self._kinds.append(row.kind)
            self._firsts.append(len(self._starts))
            parts = array("I", [row.start, row.end])
            if row.fields is not None:
                parts = row.fields[FIRST_PART[row.kind] - 1 :]
            for at in unhurried(range(len(parts) - 1)):
                start, end = parts[at], parts[at + 1]
                self._starts.append(offset + start)
                self._lengths.append(end - start)
                self._checksums.append(zlib.crc32(payload[start:end]))
        self._firsts.append(len(self._starts))

    @classmethod
    def of(cls, segment: Segment) -> Places | None:
        """Return the places in a segment; None where it has few parts.

        :raises ValueError: when it is not an events segment.
        """
        rows = locate(segment.payload)
        if rows is None:
            return None
        count = sum(1 if row.fields is None else len(row.fields) for row in rows[2])
        return cls(segment, rows[2]) if count > _MANY else None

    def __len__(self) -> int:
        return len(self._starts)

    def holds(self, sequence: int) -> bool:
        """Whether the event with this sequence is in the segment."""
        return 0 <= sequence - self.sequence < len(self._kinds)

    def read(self, read: Read, sequence: int, place: int) -> tuple[int, Any]:
        """Read an event: return its kind and its row.

        Of an event with parts, the part at ``place`` is returned in place of the row.

        :raises ValueError: when the bytes have changed.
        :raises IndexError: when the event has no such part.
        """
        row = sequence - self.sequence
        at = self._firsts[row] + place
        if at >= self._firsts[row + 1]:
            raise IndexError(f"event {sequence} has no part at place {place}")
        data = read(self._starts[at], self._lengths[at])
        if zlib.crc32(data) != self._checksums[at]:
            raise ValueError("its bytes have changed since they were read first")
        return self._kinds[row], decode_field(data)
