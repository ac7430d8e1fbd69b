"""The threads of memories, whose calls are made when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from memvid_async.engine.worker import Job, Worker

T = TypeVar("T")


class ScheduledWorker(Worker):
    """A worker that makes its calls in their order, on the loop, each when :meth:`step` is called.

    With ``holds`` False they are made at once.
    """

    holds = True

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name
        self._waiting: deque[Job[Any]] = deque()

    def start(self, call: Callable[..., T], *args: Any) -> Job[T]:
        """Queue ``call(*args)`` for :meth:`step`."""
        job = Job(self._home.loop, call, args)
        self._waiting.append(job)
        if not self.holds:
            while self.step():
                pass
        return job

    def step(self) -> bool:
        """Make the next call; whether there was one."""
        if not self._waiting:
            return False
        self._waiting.popleft().make()
        return True

    def stop(self) -> None:
        """Nothing runs that could be stopped."""
