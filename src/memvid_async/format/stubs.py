"""What compaction leaves of erased events: their times, in runs, so that sequences stay gapless."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import cbor2

from ..events.event import Erased, Event
from ..events.values import MAX_ITEMS, decode_value

# Most runs of one segment; a reader's bound on items is twice as high.
MOST_RUNS = MAX_ITEMS // 4
# Most events of one segment: a few bytes must not stand for more than a reader has room for.
MOST_EVENTS = 2**16


def encode_stubs(runs: Iterable[tuple[int, int]]) -> bytes:
    """``[time, count, time, count, …]``: so many events at a time, the later times as the distance
    to the one before."""
    last, fields = 0, []
    for time_ns, count in runs:
        fields += [time_ns - last, count]
        last = time_ns
    data: bytes = cbor2.dumps(fields)
    return data


def decode_stubs(payload: bytes) -> list[tuple[int, int]]:
    """The runs of erased events: of each its time, and how many they are.

    :raises ValueError: when the payload holds no stubs.
    """
    fields = decode_value(payload)
    if not isinstance(fields, list) or not fields or len(fields) % 2:
        raise ValueError("not a stubs segment")
    if not all(type(field) is int and field >= 0 for field in fields):
        raise ValueError("a stub is no count")
    distances, counts = fields[::2], fields[1::2]
    if sum(counts) > MOST_EVENTS or not all(counts):
        raise ValueError("a stub stands for no event, or for too many")
    if sum(distances) >= 2**63:
        raise ValueError("a stub's time is no time")
    return list(zip(accumulate(distances), counts, strict=True))


def stub_events(runs: Iterable[tuple[int, int]], sequence: int) -> list[Event]:
    """The erased events of these runs; the first has ``sequence``."""
    times = [time_ns for time_ns, count in runs for _ in range(count)]
    return [Event(at, time_ns, None, Erased()) for at, time_ns in enumerate(times, sequence)]
