"""Stubs: the times that remain of erased events, in runs, so that sequences have no gaps."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate

import cbor2

from ..events.event import Erased, Event
from ..events.values import MAX_ITEMS, decode_untagged, is_time
from .counts import are_counts

# A segment has at most this many runs; a reader accepts twice as many items.
MOST_RUNS = MAX_ITEMS // 4
# A segment stands for at most this many events: a few bytes must not fill a reader's memory.
MOST_EVENTS = 2**16


def encode_stubs(runs: Iterable[tuple[int, int]]) -> bytes:
    """Encode runs of a time and a count as ``[time, count, time, count, …]``.

    Each time after the first is the distance to the one before, negative where the clock stepped
    back.
    """
    last, fields = 0, []
    for time_ns, count in runs:
        fields += [time_ns - last, count]
        last = time_ns
    data: bytes = cbor2.dumps(fields)
    return data


def decode_stubs(payload: bytes) -> list[tuple[int, int]]:
    """Return the runs of erased events: of each, the time and the number of events.

    :raises ValueError: when the payload holds no stubs.
    """
    fields = decode_untagged(payload)
    if not isinstance(fields, list) or not fields or len(fields) % 2:
        raise ValueError("not a stubs segment")
    distances, counts = fields[::2], fields[1::2]
    if not are_counts(counts) or sum(counts) > MOST_EVENTS or not all(counts):
        raise ValueError("a stub stands for no event, or for too many")
    # The distance between two times may need a bit more than a time does.
    if not all(type(distance) is int for distance in distances):
        raise ValueError("a stub's time is not a time")
    times = list(accumulate(distances))
    if not all(map(is_time, times)):
        raise ValueError("a stub's time is not a time")
    return list(zip(times, counts, strict=True))


def stub_events(runs: Iterable[tuple[int, int]], sequence: int) -> list[Event]:
    """Return the erased events of these runs; the first has ``sequence``."""
    times = [time_ns for time_ns, count in runs for _ in range(count)]
    return [Event(at, time_ns, None, Erased()) for at, time_ns in enumerate(times, sequence)]
