"""A thread of the store's own: it makes blocking calls in order, so that the loop never waits."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from ..errors import StoreClosedError, StoreFailedError, as_ours
from .home import Home, Stays, running_loop

T = TypeVar("T")
# Where there is no memory to tell of a call's end, that is tried again after this time.
_NO_MEMORY_SECONDS = 0.01


class Job(Generic[T]):
    """A call that a worker makes.

    Cancelling a task that waits for it does not stop it, because a thread cannot be stopped. It can
    be awaited again.
    """

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
        """Let the loop call ``receive`` with the result, one turn before the waiting tasks go on.

        Receivers are called in the order in which they were added. An error that one raises is
        raised in the tasks that wait.
        """
        self._receivers.append(receive)
        return self

    async def wait(self) -> T:
        """Wait for the call, and return its result or raise its error."""
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
            with suppress(MemoryError):
                self._error = as_ours(error)
        while True:
            try:
                self.loop.call_soon_threadsafe(self._settle)
            except MemoryError:
                # The tasks that wait must hear of it, or would wait for ever.
                time.sleep(_NO_MEMORY_SECONDS)
            except RuntimeError:
                # The loop is closed; nobody waits there any more.
                return
            else:
                return

    def _settle(self) -> None:
        self._settled = True
        # Released here, because the thread may keep the job, and so the receivers, for a while.
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


class Worker(Stays):
    """A thread that makes one call at a time.

    ``asyncio.to_thread`` would share its few threads with the whole program, and costs half as much
    again per call.

    :raises WrongLoopError: when it is made where no asyncio event loop runs.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Job[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._home = Home()

    def start(self, call: Callable[..., T], *args: Any) -> Job[T]:
        """Queue ``call(*args)`` for the thread.

        :raises StoreClosedError: after :meth:`stop`, and in a forked child, which has no thread.
        :raises StoreFailedError: when the system starts no more threads.
        """
        if self._stopped:
            raise StoreClosedError("the store is closed")
        self._home.check_process()
        # Where no loop runs, nobody will wait.
        job = Job(running_loop() or self._home.loop, call, args)
        if sys.is_finalizing():
            # No thread runs any more, and starting one would block for ever.
            job.make()
            return job
        if self._thread is None:
            # A daemon, because a store that was dropped without aclose() must not keep the process
            # alive.
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise StoreFailedError(f"the store's thread did not start: {error}") from error
            self._thread = thread
        self._put(job)
        return job

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Return the result of ``call(*args)``, made in the thread. Cancelling does not stop it.

        :raises WrongLoopError: anywhere but on the loop where the worker was made.
        """
        self._home.check()
        self._home.check_task()
        return await self.start(call, *args).wait()

    def stop(self) -> None:
        """Let the thread end after the calls that are queued."""
        self._stopped = True
        self._put(None)

    def _put(self, job: Job[Any] | None) -> None:
        self._jobs.put(job)

    def _take(self) -> Job[Any] | None:
        return self._jobs.get()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            job.make()
            del job
