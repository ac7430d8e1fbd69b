"""Letting other threads have the interpreter."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
_STEP_SECONDS = 0.0005
_PAUSE_SECONDS = 0.00005
# Looking at the clock for each item would take as long as some items do.
_LOOK = 32


def unhurried(items: Iterable[T], look: int = _LOOK) -> Iterator[T]:
    """The items, with a pause after every half millisecond of work on them: for a thread's long
    loops.

    A thread that runs on lets another one have the interpreter only when that one has waited for
    5 ms (``sys.getswitchinterval``). Where two run on, the event loop waits for one after the
    other, and again whenever it lets go of the interpreter itself. A thread that sleeps, be it for
    a moment, gives it away. ``look``: after how many items the time is looked at.
    """
    due = 0.0
    for count, item in enumerate(items, 1):
        yield item
        if not count % look and (now := time.thread_time()) >= due:
            if due:
                time.sleep(_PAUSE_SECONDS)
            # Set at the first look: where items are few, there is none.
            due = now + _STEP_SECONDS
