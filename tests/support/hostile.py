"""Bytes that nobody recorded: claims without substance, values that have no place in a file."""

import struct
from collections.abc import Iterator
from typing import Any

import cbor2

from memvid_async.events.values import MAX_ITEMS

MIB = 1024 * 1024

BOMBS = [
    *(bytes([major << 5 | 27]) + b"\xff" * 8 for major in range(2, 7)),
    *(
        bytes([major << 5 | 26]) + struct.pack(">I", 2**32 - 1) + bytes(100)
        for major in range(2, 7)
    ),
    b"\x9a" + struct.pack(">I", 2**30) + b"\x9a\x40\x00\x00\x00" * 30,
    b"\x9a" + struct.pack(">I", MAX_ITEMS + 1) + b"\x80" * (MAX_ITEMS + 1),
    b"\x9a" + struct.pack(">I", 4 * MIB) + b"\x80" * (4 * MIB),
    b"\xba" + struct.pack(">I", MAX_ITEMS) + b"\x00\x80" * MAX_ITEMS,
    b"\x81" * MIB,
]

# What decodes and could not have been recorded; code that keeps a decoded value checks it.
ODDITIES = [
    b"\xf7",
    b"\xe0",
    b"\xf8\xff",
    b"\xa1\xf5\x00",
    b"\xa1\xf6\x00",
    b"\xa1\xfa\x3f\x80\x00\x00\x00",
    b"\xa1\x80\x00",
    b"\xa1\x3b" + b"\xff" * 8 + b"\x00",
    b"\xa1\xc2\x49" + b"\xff" * 9 + b"\x00",
]


WRONG_FIELDS: list[Any] = [None, True, -1, 1.5, "text", b"bytes", [], [None], [-1], [[]], {}, 2**63]


def with_wrong_fields(payload: bytes) -> Iterator[bytes]:
    """The payload with each of its fields, two levels down, replaced by each wrong value."""
    value = cbor2.loads(payload)
    yield from (cbor2.dumps(wrong) for wrong in WRONG_FIELDS)
    for at, item in enumerate(value):
        yield cbor2.dumps(value[:at])
        for wrong in WRONG_FIELDS:
            yield cbor2.dumps([*value[:at], wrong, *value[at + 1 :]])
        if isinstance(item, list):
            for inner in range(len(item)):
                for wrong in WRONG_FIELDS:
                    changed = [*item[:inner], wrong, *item[inner + 1 :]]
                    yield cbor2.dumps([*value[:at], changed, *value[at + 1 :]])
