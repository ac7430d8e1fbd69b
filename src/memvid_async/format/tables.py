"""What makes reading fast: pages of tables, positions of segments, pages of saved projections.

All of it is derived from the events.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Any

import cbor2
from attrs import frozen

from ..events.values import decode_untagged

CONTENT_ROW = struct.Struct("<32sQ")
MARK_ROW = struct.Struct("<QQ")
NUMBER_ROW = struct.Struct("<Q")
USED_KEY_ROW = struct.Struct("<16s16sQ")
# The most CBOR items of a TOC or a page.
MOST_ITEMS = 2**22

# The projections whose saves and positions this release writes.
MEMORY, COLLECTIONS = PROJECTIONS = ("memory", "collections")


class Table(IntEnum):
    """The tables that grow with the file. A reader skips pages of other tables."""

    SESSIONS = 0
    """The sessions that have ended."""
    CONTENTS = 1
    """The digests of the stored contents, with their sequences."""
    MARKS = 2
    """Where in the log an event is, about every 64 KiB."""
    USED_KEYS = 4
    """The idempotency keys, with the sequences of their answers."""
    DELETED = 7
    """The numbers of the sessions that were deleted."""
    OPEN = 8
    """The open sessions. Of several rows of a session the one in the newest page counts."""


PACKED_ROWS: dict[int, struct.Struct] = {
    Table.CONTENTS: CONTENT_ROW,
    Table.MARKS: MARK_ROW,
    Table.USED_KEYS: USED_KEY_ROW,
    Table.DELETED: NUMBER_ROW,
}
# A page of a table is written before a TOC when this many of its rows are in no page yet.
PAGE_ROWS = {
    Table.SESSIONS: 128,
    Table.CONTENTS: 512,
    Table.MARKS: 512,
    Table.USED_KEYS: 512,
    Table.DELETED: 512,
    Table.OPEN: 128,
}

# What has positions: a session, by its number, or a projection, by its name.
Owner = int | str


def encode_positions(owner: Owner, previous: int, offsets: Sequence[int]) -> bytes:
    """Encode a chunk of positions as ``[owner, previous chunk, first offset, distance, …]``."""
    distances = [later - earlier for earlier, later in pairwise(offsets)]
    data: bytes = cbor2.dumps([owner, previous, offsets[0], *distances])
    return data


def decode_positions(payload: bytes) -> tuple[Owner, int, list[int]]:
    """Return the owner, the offset of the chunk before (0: none), and the offsets.

    :raises ValueError: when the payload is not a chunk of positions.
    """
    owner, *numbers = fields_of(decode_untagged(payload), 3)
    previous, *distances = ints_of(numbers, 2)
    if not isinstance(owner, str):
        ints_of([owner])
    return owner, previous, list(accumulate(distances))


@frozen
class ProjectionPages:
    """A part of a saved projection: pages that changed since the save before."""

    name: str
    """The projection's name."""
    previous: int
    """The offset of the part before, 0 for none."""
    through: int
    """The sequence of the last event folded into the projection."""
    page_count: int
    """How many pages the projection has in all."""
    is_last: bool
    """Whether this part ends its save."""
    numbers: bytes
    """The numbers of these pages, packed."""
    pages: bytes
    """The pages with these numbers, one after another."""


PAGE_NUMBER = struct.Struct("<I")


def encode_projection_pages(part: ProjectionPages) -> bytes:
    """Encode ``[name, previous, through, page count, is last, page numbers, pages]``."""
    counts = (part.previous, part.through, part.page_count)
    data: bytes = cbor2.dumps([part.name, *counts, part.is_last, part.numbers, part.pages])
    return data


def decode_projection_pages(payload: bytes) -> ProjectionPages:
    """Decode a part of a saved projection.

    :raises ValueError: when the payload is not such a part.
    """
    fields = fields_of(decode_untagged(payload), 7)
    name, previous, through, count, is_last, numbers, pages = fields[:7]
    ints_of([previous, through, count])
    check_rows(numbers, PAGE_NUMBER)
    if not (isinstance(name, str) and isinstance(pages, bytes) and type(is_last) is bool):
        raise ValueError("a part of a saved projection has bad fields")
    if len(pages) % max(1, len(numbers) // PAGE_NUMBER.size) or (pages and not numbers):
        raise ValueError("the pages of a saved projection are not whole")
    return ProjectionPages(name, previous, through, count, is_last, numbers, pages)


def encode_page(table: int, previous: int, rows: Any) -> bytes:
    """Encode a page as ``[table, previous page, rows]``; rows are a list or packed bytes."""
    data: bytes = cbor2.dumps([int(table), previous, rows])
    return data


def decode_page(payload: bytes) -> tuple[int, int, Any]:
    """Return the table, the offset of its page before (0: none), and the rows, still encoded.

    The rows of a table that this release does not know are not checked.

    :raises ValueError: when the payload is not a page.
    """
    table, previous, rows = fields_of(decode_untagged(payload, most=MOST_ITEMS), 3)[:3]
    ints_of([table, previous], 2)
    if table == Table.SESSIONS:
        fields_of(rows, 3)
    elif table == Table.OPEN:
        fields_of(rows, 2)
    elif table in PACKED_ROWS:
        check_rows(rows, PACKED_ROWS[table])
    return table, previous, rows


def fields_of(value: Any, least: int) -> list[Any]:
    """Return the value if it is a list of at least ``least`` items.

    :raises ValueError: when it is anything else.
    """
    if not isinstance(value, list) or len(value) < least:
        raise ValueError("a row is not a list, or is too short")
    return value


def check_rows(data: Any, row: struct.Struct) -> bytes:
    """Return the data if it is packed rows, and the last one is whole.

    :raises ValueError: when it is anything else.
    """
    if not isinstance(data, bytes) or len(data) % row.size:
        raise ValueError("packed rows have a wrong type or length")
    return data


def ints_of(value: Any, least: int = 0) -> list[int]:
    """Return the value if it is a list of at least ``least`` ints from 0 to 2^63 - 1.

    :raises ValueError: when it is anything else.
    """
    fields = fields_of(value, least)
    if not all(type(item) is int and 0 <= item < 2**63 for item in fields):
        raise ValueError("a row holds something that is not a count")
    return fields
