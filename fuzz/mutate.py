"""Changing a file so that its checksums stay valid, to reach the code that reads the values."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cbor2

from memvid_async.format.header import LOG_START, MAGIC, SLOT_OFFSETS, SLOT_SIZE, Slot
from memvid_async.format.segment import HEAD_SIZE, SegmentKind, seal

_MOST_SEQUENCE = 2**56 - 1
_HEAD = struct.Struct("<IIIQ")
_NUMBERS = [0, 1, 2, 23, 24, 255, 2**31, 2**32, 2**53, 2**56 - 1, 2**63 - 1, 2**63, 2**64 - 1, -1]
_VALUES: list[Any] = [
    *_NUMBERS,
    None,
    True,
    1.5,
    "",
    "x",
    b"",
    b"\0" * 16,
    b"\0" * 32,
    [],
    [[]],
    {},
]

Mutate = Callable[[bytes, int], bytes]
Parts = list[tuple[int, int, bytes]]


def split(data: bytes) -> tuple[bytes, Parts]:
    """The bytes before the log, and the kind, sequence and payload of each segment; what their
    lengths say is cut to what is there."""
    start = data[:LOG_START].ljust(LOG_START, b"\0")
    parts, position = [], LOG_START
    while position + HEAD_SIZE <= len(data):
        _, length, _, packed = _HEAD.unpack_from(data, position)
        position += HEAD_SIZE
        payload = data[position : position + length]
        parts.append((packed >> 56, packed & _MOST_SEQUENCE, payload))
        position += len(payload)
        if not any(data[position:]):
            break
    return start, parts


def join(start: bytes, parts: Parts) -> bytes:
    """A file of these segments, with every checksum right and its slots to the last TOC."""
    header = MAGIC + start[len(MAGIC) : 32]
    salt = zlib.crc32(header)
    log, previous, slots = b"", salt, list[Slot]()
    for kind, sequence, payload in parts:
        if kind == SegmentKind.TOC:
            toc = (LOG_START + len(log), max(0, sequence - 1) & _MOST_SEQUENCE)
        head, previous = seal(kind, sequence & _MOST_SEQUENCE, payload, previous, salt)
        log += head + payload
        if kind == SegmentKind.TOC:
            slots.append(Slot(LOG_START + len(log), *toc))
    begin = bytearray((header + struct.pack("<I", salt)).ljust(LOG_START, b"\0"))
    for at, slot in zip(SLOT_OFFSETS, slots[-2:], strict=False):
        begin[at : at + SLOT_SIZE] = slot.encode(salt)
    return bytes(begin) + log


def mutated(data: bytes, mutate: Mutate, seed: int, most: int) -> bytes:
    """The file with something changed: a payload's bytes, a value in it, or the segments' order.

    ``mutate`` changes bytes within a length; one time in eight it gets the whole file.
    """
    chance = random.Random(seed)  # noqa: S311 - it must be repeatable, not secret
    start, parts = split(data)
    if not parts or chance.random() < 0.125:
        return mutate(data, most)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(parts))
        kind, sequence, payload = parts[at]
        how = chance.randrange(8)
        if how < 3:
            parts[at] = (kind, sequence, _change_value(payload, chance))
        elif how < 5:
            parts[at] = (kind, sequence, mutate(payload, len(payload) + 64))
        elif how == 5:
            parts.insert(chance.randrange(len(parts) + 1), parts[at])
        elif how == 6 and len(parts) > 1:
            del parts[at]
        else:
            near = [sequence + 1, max(0, sequence - 1), 0, 2**40, _MOST_SEQUENCE]
            parts[at] = (chance.choice((kind, 1, 2, 3, 4, 5, 6)), chance.choice(near), payload)
    if chance.random() < 0.7:
        parts = in_sequence(parts)
    return join(start, parts)[:most]


def in_sequence(parts: Parts) -> Parts:
    """The same segments with the sequences that they should have."""
    found, sequence = [], 1
    for kind, _, payload in parts:
        found.append((kind, sequence, payload))
        sequence += _count(kind, payload)
    return found


def _count(kind: int, payload: bytes) -> int:
    try:
        value = cbor2.loads(payload)
        if kind == SegmentKind.EVENTS:
            return 1 if isinstance(value[2], int) else len(value) - 2
        return min(2**16, int(sum(value[1::2]))) if kind == SegmentKind.STUBS else 0
    except Exception:  # noqa: BLE001 - it is damaged on purpose
        return 1 if kind == SegmentKind.EVENTS else 0


def _change_value(payload: bytes, chance: random.Random) -> bytes:
    """The payload with one value in it replaced, dropped, repeated or wrapped."""
    try:
        value = cbor2.loads(payload)
        changed: bytes = cbor2.dumps(_replaced(value, chance))
    except Exception:  # noqa: BLE001 - it may be damaged already
        return payload
    return changed


def _replaced(value: Any, chance: random.Random) -> Any:
    if isinstance(value, list) and value and chance.random() < 0.85:
        items, at = list(value), chance.randrange(len(value))
        how = chance.randrange(6)
        if how == 0:
            del items[at]
        elif how == 1:
            items.insert(at, items[at])
        else:
            items[at] = _replaced(items[at], chance)
        return items
    if isinstance(value, int) and chance.random() < 0.5:
        return max(0, value + chance.choice((-1, 1, 2, 100)))
    if isinstance(value, bytes) and len(value) > 1 and chance.random() < 0.7:
        at = chance.randrange(len(value))
        return value[:at] + bytes([chance.randrange(256)]) + value[at + 1 :]
    return chance.choice(_VALUES)
