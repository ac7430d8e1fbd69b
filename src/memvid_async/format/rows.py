"""The payload of an events segment: a time, a session's number, and a row for each event."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Any

import cbor2

from ..events.pace import unhurried
from ..events.values import LARGE, decode_untagged, encoded, is_time
from .counts import are_counts
from .places import (
    ARRAY,
    BYTES,
    MAX_EVENT_ITEMS,
    TEXT,
    decode_row,
    decode_start,
    locate,
    time_of,
)

# A payload with more bytes than this is decoded row by row.
_MUCH = 1024 * 1024
# At most this many rows, and fields of a row, are encoded by one call.
_ROWS_AT_ONCE, _FIELDS_AT_ONCE = 16, 256
_TEXTS = frozenset((str, bytes))


def encode_row(time_ns: int, session: int, row: list[Any]) -> bytes | bytearray:
    """Encode a single row as the payload of a segment, as most are."""
    last = row[-1]
    # As :func:`_is_long`, whose call would take as long as encoding two fields.
    if (type(last) in _TEXTS and len(last) > LARGE) or len(row) > _FIELDS_AT_ONCE:
        return _encoded_in_pieces(time_ns, session, (row,))
    whole: bytes = cbor2.dumps((time_ns, session, *row))
    return whole


def encode_rows(time_ns: int, session: int, rows: Sequence[list[Any]]) -> bytes | bytearray:
    """Encode rows as the payload of a segment."""
    if len(rows) == 1:
        return encode_row(time_ns, session, rows[0])
    if len(rows) > _ROWS_AT_ONCE or any(map(_is_long, rows)):
        return _encoded_in_pieces(time_ns, session, rows)
    whole: bytes = cbor2.dumps((time_ns, session, *rows))
    return whole


def _encoded_in_pieces(time_ns: int, session: int, rows: Sequence[list[Any]]) -> bytearray:
    # Piece by piece, so that no call holds the interpreter for long.
    count = len(rows[0]) if len(rows) == 1 else len(rows)
    data = bytearray(_head(ARRAY, count + 2) + cbor2.dumps(time_ns) + cbor2.dumps(session))
    for row in unhurried(rows):
        if len(rows) > 1:
            data += _head(ARRAY, len(row))
        _append_fields(data, row)
    return data


def _is_long(row: list[Any]) -> bool:
    """Whether a row has very many fields, or ends with large content."""
    last = row[-1]
    return len(row) > _FIELDS_AT_ONCE or (isinstance(last, (str, bytes)) and len(last) > LARGE)


def _append_fields(data: bytearray, row: list[Any]) -> None:
    last = row[-1]
    is_large = isinstance(last, (str, bytes)) and len(last) > LARGE
    count = len(row) - is_large
    for at in unhurried(range(0, count, _FIELDS_AT_ONCE), look=1):
        some = row[at : min(count, at + _FIELDS_AT_ONCE)]
        data += cbor2.dumps(some)[len(_head(ARRAY, len(some))) :]
    if is_large and isinstance(last, str):
        data += _head(TEXT, sum(map(len, encoded(last))))
        for piece in encoded(last):
            data += piece
    elif is_large:
        data += _head(BYTES, len(last))
        whole = memoryview(last)
        for at in unhurried(range(0, len(whole), LARGE), look=1):
            data += whole[at : at + LARGE]


def item_count(rows: Iterable[list[Any]]) -> int:
    """Count the CBOR items of the rows; a content or a map is one item."""
    return 3 + sum(map(_count, unhurried(rows)))


def _count(field: Any) -> int:
    # At most three deep: a frame, and its content in parts or its tags.
    return 1 + sum(map(_count, field)) if isinstance(field, (list, tuple)) else 1


# Of an events segment: its time, its session's number and its rows.
DecodedRows = tuple[int, int, list[list[Any]]]


def decode_rows(payload: bytes) -> DecodedRows:
    """Decode an events segment: its time, its session's number and its rows.

    :raises ValueError: when the payload is not an events segment.
    """
    located = locate(payload) if len(payload) > _MUCH else None
    if located is not None:
        time_ns, session, places = located
        return time_ns, session, [decode_row(payload, place) for place in unhurried(places)]
    value = decode_untagged(payload, most=MAX_EVENT_ITEMS)
    if not (isinstance(value, list) and len(value) > 2):
        raise ValueError("not an events segment")
    start, session, *rows = value
    if type(rows[0]) is int:
        rows = [rows]
    time_ns = time_of(start)
    # Checked together by one call, because most segments are small and read one by one.
    kinds = [row[0] if isinstance(row, list) and row else None for row in rows]
    if not is_time(time_ns) or not are_counts((session, *kinds)):
        raise ValueError("an events segment holds something that is not an event")
    return time_ns, session, rows


def segment_start(payload: bytes) -> tuple[int, int]:
    """Return the time and the session's number of an events segment.

    :raises ValueError: when the payload is not an events segment.
    """
    try:
        return decode_start(payload)[:2]
    except IndexError:
        raise ValueError("not an events segment") from None


_HEAD_OF_2, _HEAD_OF_4 = Struct(">BH"), Struct(">BI")


def _head(kind: int, count: int) -> bytes:
    """Return the head of a CBOR item (RFC 8949, 3.1)."""
    if count < 24:
        return bytes((kind << 5 | count,))
    if count < 2**8:
        return bytes((kind << 5 | 24, count))
    if count < 2**16:
        return _HEAD_OF_2.pack(kind << 5 | 25, count)
    return _HEAD_OF_4.pack(kind << 5 | 26, count)
