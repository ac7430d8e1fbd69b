"""The payload of an events segment: a time, a session's number, and a row for each event."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any

import cbor2

from ..events.pace import unhurried
from ..events.values import LARGE, count_items, decode_value, encoded, is_count, read_head
from .segment import Read, Segment

# So many items are fifty thousand frames; decoded, the smallest of items take eighty megabytes.
MAX_EVENT_ITEMS = 2**20
# More rows than this travel each as the bytes of its CBOR: one can be read without the others.
PACKED_ROWS = 16
# A payload with more bytes is taken apart row by row.
_MUCH = 1024 * 1024
# Packed rows become part of a payload so many at a time.
_ROWS_AT_ONCE = 256


def encode_rows(time_ns: int, session: int, rows: Sequence[list[Any]]) -> bytes | bytearray:
    """The payload that holds these rows."""
    start: tuple[int, int] = (time_ns, session)
    data: bytes | bytearray
    if len(rows) == 1:
        data = cbor2.dumps((*start, *rows[0]))
    elif len(rows) > PACKED_ROWS:
        data = pack_rows(time_ns, session, rows, len(rows))
    elif any(map(_is_long, rows)):
        data = bytearray(_head(_ARRAY, len(rows) + 2) + cbor2.dumps(time_ns) + cbor2.dumps(session))
        for row in rows:
            _append_row(data, row)
    else:
        data = cbor2.dumps((*start, *rows))
    return data


def _is_long(row: list[Any]) -> bool:
    """Whether a row ends in large content."""
    return isinstance(row[-1], (str, bytes)) and len(row[-1]) > LARGE


def _append_row(data: bytearray, row: list[Any]) -> None:
    if not _is_long(row):
        data += cbor2.dumps(row)
        return
    *fields, content = row
    data += _head(_ARRAY, len(row)) + b"".join(map(cbor2.dumps, fields))
    if isinstance(content, str):
        data += _head(_TEXT, sum(map(len, encoded(content))))
        for piece in encoded(content):
            data += piece
    else:
        data += _head(_BYTES, len(content))
        whole = memoryview(content)
        for at in unhurried(range(0, len(whole), LARGE), look=1):
            data += whole[at : at + LARGE]


def pack_rows(
    time_ns: int, session: int, rows: Iterable[list[Any]], count: int
) -> bytes | bytearray:
    """The payload that holds these rows, ``count`` of them, more than ``PACKED_ROWS``."""
    # Encoded one by one, so that no call holds the interpreter for long.
    data = bytearray(_head(_ARRAY, count + 2) + cbor2.dumps(time_ns) + cbor2.dumps(session))
    packed = [cbor2.dumps(row) for row in unhurried(rows)]
    for at in unhurried(range(0, count, _ROWS_AT_ONCE), look=1):
        some = packed[at : at + _ROWS_AT_ONCE]
        data += cbor2.dumps(some)[len(_head(_ARRAY, len(some))) :]
    return bytes(data) if len(data) <= LARGE else data


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
        self._checksums = array("I", map(zlib.crc32, unhurried(rows)))

    @classmethod
    def of(cls, segment: Segment, rows: Sequence[Any]) -> PackedRows | None:
        """Those of a segment whose rows :func:`split_rows` gave; None where they do not travel as
        bytes."""
        if not rows or set(map(type, rows)) != {bytes}:
            return None
        # From the last, which ends the payload, to the first.
        starts = array("I", [0]) * len(rows)
        at = len(segment.payload)
        for place in unhurried(range(len(rows) - 1, -1, -1)):
            at -= len(rows[place])
            starts[place] = at
            at -= len(_head(_BYTES, len(rows[place])))
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


# How CBOR says what follows, and how many (RFC 8949, 3.1).
_BYTES, _TEXT, _ARRAY = 2, 3, 4
_HEAD_OF_2, _HEAD_OF_4 = Struct(">BH"), Struct(">BI")


def _head(kind: int, count: int) -> bytes:
    if count < 24:
        return bytes((kind << 5 | count,))
    if count < 2**8:
        return bytes((kind << 5 | 24, count))
    if count < 2**16:
        return _HEAD_OF_2.pack(kind << 5 | 25, count)
    return _HEAD_OF_4.pack(kind << 5 | 26, count)


def split_payload(payload: bytes) -> tuple[int, int, list[Any]]:
    """As :func:`decode_rows`, but the rows are as they travel, for :func:`whole_row`.

    :raises ValueError: when the payload is not one.
    """
    if len(payload) > _MUCH:
        split = _split_packed(payload)
        if split is not None:
            return split
    value = decode_value(payload, most=MAX_EVENT_ITEMS)
    if not (isinstance(value, list) and len(value) >= 2):
        raise ValueError("not an events segment")
    time_ns, session, *rows = value
    if rows and type(rows[0]) is int:
        rows = [rows]
    if not (is_count(time_ns) and is_count(session)):
        raise ValueError("an events segment has a bad time or session")
    return time_ns, session, rows


def _split_packed(payload: bytes) -> tuple[int, int, list[Any]] | None:
    """:func:`split_payload`, without a call that holds the interpreter for all of it; None where
    the rows do not travel as bytes, or anything else is unlike what :func:`pack_rows` makes."""
    rows: list[Any] = []
    try:
        kind, count, at = read_head(payload, 0)
        time_kind, time_ns, at = read_head(payload, at)
        session_kind, session, at = read_head(payload, at)
        if kind != _ARRAY or time_kind or session_kind or count >= MAX_EVENT_ITEMS:
            return None
        for _ in unhurried(range(count - 2)):
            kind, length, at = read_head(payload, at)
            if kind != _BYTES:
                return None
            rows.append(payload[at : at + length])
            at += length
    except IndexError:
        return None
    good = at == len(payload) and rows and is_count(time_ns) and is_count(session)
    return (time_ns, session, rows) if good else None


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
