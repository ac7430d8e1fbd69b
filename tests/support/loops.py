"""The event loop in tests: letting it run dry, and waiting for what a store delivers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from memvid_async import Event, Subscription


async def run_dry() -> None:
    """Return when no task can go on without outside help: a thread, a timer, a file or a signal.

    One task at a time may wait for this. A loop calls what is ready in the order in which it was
    scheduled: when nothing but this task was scheduled in a whole turn, all the others wait.
    """
    loop, scheduled = asyncio.get_running_loop(), 0

    def counting(schedule: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal scheduled
            scheduled += 1
            return schedule(*args, **options)

        return counted

    # Instance attributes stand before the methods: with asyncio's loop and with uvloop's.
    for name in ("call_soon", "call_soon_threadsafe"):
        setattr(loop, name, counting(getattr(loop, name)))
    try:
        before = None
        while before is None or scheduled > before + 1:
            before = scheduled
            await asyncio.sleep(0)
    finally:
        del loop.call_soon, loop.call_soon_threadsafe  # type: ignore[method-assign]


async def turns(count: int) -> None:
    """Let the loop go round ``count`` times, so that a test meets work half-way."""
    for _ in range(count):
        await asyncio.sleep(0)


def until_called(patch: pytest.MonkeyPatch, owner: type, name: str) -> asyncio.Event:
    """Return an event that is set when a method of a class is called next, by whichever thread."""
    loop, called, method = asyncio.get_running_loop(), asyncio.Event(), getattr(owner, name)

    @functools.wraps(method)
    def calling(*args: Any, **options: Any) -> Any:
        loop.call_soon_threadsafe(called.set)
        return method(*args, **options)

    patch.setattr(owner, name, calling)
    return called


async def read_until(events: Subscription, sequence: int) -> list[Event]:
    """Return the next events of a subscription, the last one at ``sequence``."""
    found: list[Event] = []
    while not found or found[-1].sequence < sequence:
        found.append(await anext(events))
    return found
