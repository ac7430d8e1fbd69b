"""The payload of an events segment: a time, a session's number, and a row for each event."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import cbor2

from ..pace import unhurried
from ..values import count_items, decode_value
from .framerows import is_count
from .segment import Read, Segment

# So many items are fifty thousand frames; decoded, the smallest of items take eighty megabytes.
MAX_EVENT_ITEMS = 2**20
# More rows than this travel each as the bytes of its CBOR: one can be read without the others.
PACKED_ROWS = 16


def encode_rows(time_ns: int, session: int, rows: Sequence[list[Any]]) -> bytes:
    """The payload that holds these rows."""
    start: tuple[int, int] = (time_ns, session)
    data: bytes
    if len(rows) == 1:
        data = cbor2.dumps((*start, *rows[0]))
    elif len(rows) <= PACKED_ROWS:
        data = cbor2.dumps((*start, *rows))
    else:
        data = pack_rows(time_ns, session, rows)
    return data


def pack_rows(time_ns: int, session: int, rows: Iterable[list[Any]]) -> bytes:
    """The payload that holds these rows, more than ``PACKED_ROWS``."""
    # Encoded one by one, so that no call holds the interpreter for long.
    data: bytes = cbor2.dumps((time_ns, session, *[cbor2.dumps(row) for row in rows]))
    return data


def item_count(rows: Iterable[list[Any]]) -> int:
    """How many CBOR items the rows are, at most; contents and maps travel as bytes."""
    count = 3
    for row in unhurried(rows):
        nested = sum(len(field) for field in row if isinstance(field, (list, tuple)))
        count += len(row) + 1 + nested
    return count


def decode_rows(payload: bytes) -> tuple[int, int, list[list[Any]]]:
    """The time, the session's number and the rows of an events segment.

    :raises ValueError: when the payload is not one.
    """
    time_ns, session, rows = split_payload(payload)
    if rows and type(rows[0]) is bytes:
        rows = _unpacked(rows, len(payload))
    if not rows or not all(isinstance(row, list) and row and is_count(row[0]) for row in rows):
        raise ValueError("an events segment holds what is no event")
    return time_ns, session, rows


def decode_row(payload: bytes, place: int) -> list[Any]:
    """One row of an events segment, from 0.

    :raises ValueError: when the payload is not one.
    :raises IndexError: when it has no such row.
    """
    return whole_row(split_rows(payload)[place])


def split_rows(payload: bytes) -> list[Any]:
    """The rows of an events segment as they travel, for :func:`whole_row`.

    :raises ValueError: when the payload is not one.
    """
    return split_payload(payload)[2]


def whole_row(row: Any) -> list[Any]:
    """A row from how it travels.

    :raises ValueError: when it is none.
    """
    if type(row) is bytes:
        row = decode_value(row)
    if not (isinstance(row, list) and row and is_count(row[0])):
        raise ValueError("an events segment holds what is no event")
    return row


class PackedRows:
    """Where the rows are that travel each as bytes, so that one is read without the others.

    Each row's own CRC-32, made when the segment was read whole and found good, tells whether its
    bytes have changed since.
    """

    __slots__ = ("_checksums", "_first", "_lengths", "_payload_at", "_starts")

    def __init__(self, segment: Segment, starts: array[int], rows: Sequence[bytes]) -> None:
        self._first = segment.sequence
        self._payload_at = segment.end - len(segment.payload)
        self._starts = starts
        self._lengths = array("I", map(len, rows))
        self._checksums = array("I", map(zlib.crc32, rows))

    @classmethod
    def of(cls, segment: Segment, rows: Sequence[Any]) -> PackedRows | None:
        """Those of a segment whose rows :func:`split_rows` gave; None where they do not travel as
        bytes."""
        if not rows or set(map(type, rows)) != {bytes}:
            return None
        # From the last, which ends the payload, to the first.
        starts = array("I", [0]) * len(rows)
        at = len(segment.payload)
        for place in range(len(rows) - 1, -1, -1):
            at -= len(rows[place])
            starts[place] = at
            at -= _head_size(len(rows[place]))
        if at < 0 or not segment.payload.startswith(rows[0], starts[0]):
            # The lengths are written in more bytes than they need.
            return None
        return cls(segment, starts, rows)

    def __len__(self) -> int:
        return len(self._starts)

    def read(self, read: Read, sequence: int) -> bytes:
        """The row of the event with this sequence, for :func:`whole_row`.

        :raises ValueError: when its bytes are not those that were there.
        :raises IndexError: when it is not in this segment.
        """
        place = sequence - self._first
        if place < 0:
            raise IndexError("the event is in a segment before this one")
        data = read(self._payload_at + self._starts[place], self._lengths[place])
        if zlib.crc32(data) != self._checksums[place]:
            raise ValueError("its bytes have changed since they were read first")
        return data


def _head_size(length: int) -> int:
    """How many bytes CBOR takes to say that so many follow (RFC 8949, 3.1)."""
    if length < 24:
        return 1
    return 2 if length < 2**8 else 3 if length < 2**16 else 5


def split_payload(payload: bytes) -> tuple[int, int, list[Any]]:
    """As :func:`decode_rows`, but the rows are as they travel, for :func:`whole_row`.

    :raises ValueError: when the payload is not one.
    """
    value = decode_value(payload, most=MAX_EVENT_ITEMS)
    if not (isinstance(value, list) and len(value) >= 2):
        raise ValueError("not an events segment")
    time_ns, session, *rows = value
    if rows and type(rows[0]) is int:
        rows = [rows]
    if not (is_count(time_ns) and is_count(session)):
        raise ValueError("an events segment has a bad time or session")
    return time_ns, session, rows


def _unpacked(rows: list[Any], size: int) -> list[Any]:
    """Rows that travelled as bytes, ``size`` of them about."""
    if not all(type(row) is bytes for row in rows):
        raise ValueError("an events segment holds what is no event")
    if size > MAX_EVENT_ITEMS:
        room = MAX_EVENT_ITEMS
        for row in unhurried(rows):
            try:
                room -= count_items(row, room)
            except IndexError:
                raise ValueError("not strict CBOR: the bytes end too soon") from None
            if room < 0:
                raise ValueError(f"more than {MAX_EVENT_ITEMS} items")
    return [decode_value(row) for row in unhurried(rows)]
