"""A thread of the store's own. Blocking calls go there, in order, so that the loop never waits."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ..errors import StoreClosedError

T = TypeVar("T")


_forks = 0


def _note_fork() -> None:
    global _forks  # noqa: PLW0603 - it is the process's own
    _forks += 1


os.register_at_fork(after_in_child=_note_fork)


def fork_count() -> int:
    """How many forks made this process; asking for its id would be a system call per command."""
    return _forks


def check_process(forks: int) -> None:
    """Return in the process that opened the store, when ``forks`` made it.

    :raises StoreClosedError: in any other.
    """
    if _forks != forks:
        raise StoreClosedError("the store was opened before a fork; open the file again")


class Job(Generic[T]):
    """A call that a worker makes. Cancelling who waits does not stop it: it can be awaited again,
    as a thread goes on whatever happens on the loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, call: Callable[..., T], args: tuple[Any, ...]
    ) -> None:
        self.loop = loop
        self._call = call
        self._args = args
        self._waiters: list[asyncio.Future[None]] = []
        self._result: Any = None
        self._error: BaseException | None = None
        self._settled = False
        self._receivers: list[Callable[[T], object]] = []

    def then(self, receive: Callable[[T], object]) -> Job[T]:
        """Have the loop call ``receive`` with the result, a turn before whoever waits goes on, and
        after those named before. What it raises is raised there."""
        self._receivers.append(receive)
        return self

    async def wait(self) -> T:
        """The call's result, or its error."""
        if not self._settled:
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error
        result: T = self._result
        return result

    def make(self) -> None:
        """Make the call, in the worker's thread."""
        try:
            self._result = self._call(*self._args)
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
            self._error = error
        # A closed loop refuses; nobody waits there any more.
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._settled = True
        # Let go: the thread may keep the job for a while, and with it whoever receives.
        receivers, self._receivers = self._receivers, []
        if self._error is None:
            try:
                for receive in receivers:
                    receive(self._result)
            except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
                self._error = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Worker:
    """Runs one call at a time. ``asyncio.to_thread`` would share its few threads with the whole
    program, and costs half as much again per call."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._forks = fork_count()
        self._loop = asyncio.get_running_loop()

    def start(self, call: Callable[..., T], *args: Any) -> Job[T]:
        """Have ``call(*args)`` made in the thread, after those asked for before.

        :raises StoreClosedError: after :meth:`stop`, and in a forked child, where no thread is.
        """
        if self._stopped:
            raise StoreClosedError("the store is closed")
        check_process(self._forks)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Called as a loop is torn down; nobody will wait.
            loop = self._loop
        job = Job(loop, call, args)
        if sys.is_finalizing():
            # No thread runs any more, and starting one would wait for ever.
            job.make()
            return job
        if self._thread is None:
            # A daemon: a loop that was dropped without aclose() must not keep the process alive.
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)
        return job

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """The result of ``call(*args)``, made in the thread; cancelled, the call goes on."""
        return await self.start(call, *args).wait()

    def stop(self) -> None:
        """Let the thread end once it has done what was asked of it so far."""
        self._stopped = True
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.make()
            del job
