"""An event loop with a time of its own, and a store whose threads are queues of that loop.

Time passes when nothing else can go on, and what happens depends on nothing but the chances that
were drawn. Thousands of lives of a process take seconds.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from memvid_async import StoreConfig
from memvid_async.engine.file_log import FileLog
from memvid_async.engine.worker import Job, Worker
from memvid_async.file.journal import Journal
from memvid_async.store.store import Store


class _Nothing(selectors.SelectSelector):
    """Nothing comes from outside. ``now``: how much time has passed, in seconds."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("all tasks wait, and nothing will ever happen")
        self.now += max(0.0, timeout)
        return []


class OwnTime(asyncio.SelectorEventLoop):
    """A loop whose time passes when nothing can go on."""

    def __init__(self) -> None:
        self._outside = _Nothing()
        super().__init__(self._outside)

    def time(self) -> float:
        return self._outside.now

    # There is no other thread.
    call_soon_threadsafe = asyncio.SelectorEventLoop.call_soon


class QueuedWorker(Worker):
    """A thread as a queue of the loop: it makes its calls in their order, each some time later."""

    def __init__(self, name: str, chances: Random) -> None:
        super().__init__(name)
        self._chances = chances
        self._queued: deque[Job[Any]] = deque()
        self._free_at = 0.0

    def start(self, call: Callable[..., Any], *args: Any) -> Job[Any]:
        """Queue ``call(*args)``."""
        loop = self._home.loop
        job = Job(loop, call, args)
        self._queued.append(job)
        self._free_at = max(self._free_at, loop.time()) + self._chances.randrange(3)
        loop.call_at(self._free_at, self._make_next)
        return job

    def _make_next(self) -> None:
        self._queued.popleft().make()

    def stop(self) -> None:
        """Nothing runs that could be stopped."""


def store_of(journal: Journal, config: StoreConfig, chances: Random) -> Store:
    """Return the store of an open journal. Its calls take as long as the chances say."""
    io, reads = QueuedWorker("file", chances), QueuedWorker("reads", chances)
    log = FileLog(journal, io, reads, config.poll_interval)
    return Store(Path("agent.mva"), log, reads, config, read_only=False)
