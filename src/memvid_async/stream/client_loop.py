"""The loop on which the client runs: in whichever of the store's threads waits for it.

A thread that waits for an answer runs the loop until the answer is there, so that nobody has to
wake it: a change of threads takes as long as the server does. Where another thread runs it already,
it waits, and runs it on when that one has what it wanted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any, TypeVar

from ..engine.worker import Job, Worker
from ..errors import StoreClosedError

T = TypeVar("T")


class ClientLoop:
    """An event loop that runs while a thread waits in one of its methods.

    So somebody has to wait in it most of the time, or the servers take the client for dead.
    """

    def __init__(self) -> None:
        # Not the policy's: of others it is not known whether several threads may run them in turn.
        self._loop = asyncio.SelectorEventLoop()
        self._running = threading.Lock()
        # Of each thread that waits while another one runs the loop; and what guards them.
        self._others: set[threading.Event] = set()
        self._guard = threading.Lock()
        self._closing = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return its result or raise its error.

        :raises StoreClosedError: when the loop is closed, or closed meanwhile.
        """
        try:
            if self._running.acquire(blocking=False):
                try:
                    self._check()
                    task = self._loop.create_task(coroutine)
                    task.add_done_callback(self._stir)
                    self._run(task.done)
                finally:
                    self._leave()
                return task.result()
            done = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            done.add_done_callback(self._stir)
            self._run_until(done.done)
            return done.result()
        except (asyncio.CancelledError, CancelledError):
            raise StoreClosedError("the connection to the stream was closed") from None
        except (RuntimeError, StoreClosedError):
            coroutine.close()
            self._check()
            raise

    def wait(self, holds: Callable[[], bool], timeout: float | None) -> bool:
        """Return once something holds, or after ``timeout`` seconds; return whether it holds.

        It is looked at again after each :meth:`note_change`.

        :raises StoreClosedError: as :meth:`call` does.
        """
        if holds():
            return True
        is_over = False

        def end() -> None:
            nonlocal is_over
            is_over = True
            self._stir()

        if timeout is not None:
            self._soon(self._loop.call_later, timeout, end)
        self._run_until(lambda: is_over or holds())
        return holds()

    def _run_until(self, is_done: Callable[[], bool]) -> None:
        """Return once something holds. It is looked at after each :meth:`_stir`."""
        woken = threading.Event()
        with self._guard:
            self._others.add(woken)
        try:
            while not is_done():
                if self._running.acquire(blocking=False):
                    try:
                        self._run(is_done)
                    finally:
                        self._leave()
                else:
                    woken.wait()
                    woken.clear()
        finally:
            with self._guard:
                self._others.discard(woken)

    def _run(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            self._check()
            self._loop.run_forever()

    def _leave(self) -> None:
        self._running.release()
        self._wake_others()

    def _wake_others(self) -> None:
        if self._others:
            with self._guard:
                for woken in self._others:
                    woken.set()

    def _stir(self, _: object = None) -> None:
        """Let everybody look whether what they wait for is there. On the loop."""
        self._loop.stop()
        self._wake_others()

    def _soon(self, call: Callable[..., object], *args: Any) -> None:
        # A closed loop raises; nobody waits there any more.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)

    def _check(self) -> None:
        if self._closing:
            raise StoreClosedError("the connection to the stream is closed") from None

    def note_change(self) -> None:
        """Let :meth:`wait` look again. On the loop."""
        self._stir()

    def note_change_soon(self) -> None:
        """Let :meth:`wait` look again. In any thread."""
        self._soon(self._stir)

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Let a coroutine run while somebody waits."""
        self._soon(self._loop.create_task, coroutine)

    def pause(self, seconds: float) -> None:
        """Return after some seconds."""
        self.wait(lambda: False, seconds)

    def close(self) -> None:
        """Close the loop; who waits in it gets an error."""
        self._closing = True
        self.note_change_soon()
        with self._running:
            self._loop.close()


class ClientWorker(Worker):
    """A worker whose thread runs the client's loop while it has nothing to do."""

    def __init__(self, name: str, loop: ClientLoop) -> None:
        super().__init__(name)
        self._client_loop = loop

    def _put(self, job: Job[Any] | None) -> None:
        super()._put(job)
        self._client_loop.note_change_soon()

    def _take(self) -> Job[Any] | None:
        with suppress(StoreClosedError):
            self._client_loop.wait(lambda: not self._jobs.empty(), None)
        return super()._take()
