"""Letting other threads run Python during long loops."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_STEP_SECONDS = 0.0005
_PAUSE_SECONDS = 0.00005
# The clock is read after this many items: reading it takes as long as some items do.
_LOOK = 32


def unhurried(items: Iterable[T], look: int = _LOOK) -> Iterator[T]:
    """Yield the items, with a pause after each half millisecond of work on them.

    For long loops in threads. A busy thread releases the interpreter only when another one has
    waited for 5 ms (``sys.getswitchinterval``). With two busy threads the event loop waits for one
    after the other, each time it needs the interpreter again. A thread that sleeps, even for a
    moment, releases it at once. ``look``: read the clock after this many items.
    """
    due = 0.0
    for count, item in enumerate(items, 1):
        yield item
        if not count % look and (now := time.thread_time()) >= due:
            if due:
                time.sleep(_PAUSE_SECONDS)
            # Set at the first look at the clock; a few items never come to one.
            due = now + _STEP_SECONDS
