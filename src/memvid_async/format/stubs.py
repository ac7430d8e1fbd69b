"""What compaction leaves of erased events: their times, in runs, so that sequences stay gapless."""

from __future__ import annotations

from collections.abc import Iterable

import cbor2

from ..events import Erased, Event
from ..values import MAX_ITEMS, decode_value

# Most runs of one segment; a reader's bound on items is twice as high.
MOST_RUNS = MAX_ITEMS // 4
_MOST_EVENTS = 2**20


def encode_stubs(runs: Iterable[tuple[int, int]]) -> bytes:
    """``[time, count, time, count, …]``: so many events at a time, the later times as the distance
    to the one before."""
    last, fields = 0, []
    for time_ns, count in runs:
        fields += [time_ns - last, count]
        last = time_ns
    data: bytes = cbor2.dumps(fields)
    return data


def decode_stubs(payload: bytes, sequence: int) -> list[Event]:
    """The erased events of a segment whose first has ``sequence``.

    :raises ValueError: when the payload holds no stubs.
    """
    fields = decode_value(payload)
    if not isinstance(fields, list) or not fields or len(fields) % 2:
        raise ValueError("not a stubs segment")
    if not all(type(field) is int and field >= 0 for field in fields):
        raise ValueError("a stub is no count")
    if sum(fields[1::2]) > _MOST_EVENTS or not all(fields[1::2]):
        raise ValueError("a stub stands for no event, or for too many")
    if sum(fields[::2]) >= 2**63:
        raise ValueError("a stub's time is no time")
    events, time_ns = [], 0
    for distance, count in zip(fields[::2], fields[1::2], strict=True):
        time_ns += distance
        for _ in range(count):
            events.append(Event(sequence, time_ns, None, Erased()))
            sequence += 1
    return events
