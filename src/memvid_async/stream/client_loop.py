"""The loop on which the client runs: in whichever of the store's threads waits for it.

A thread that waits for an answer runs the loop until the answer is there, so that nobody has to
wake it: a change of threads takes as long as the server does. Where another thread runs it already,
it waits, and runs it on when that one has what it wanted.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty
from typing import Any, TypeVar

from ..engine.worker import Job, Worker
from ..errors import StoreClosedError

T = TypeVar("T")
# After a job, the next one is waited for this many seconds before the loop runs.
_SPELL = 0.001


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
        self._closing = self._interrupted = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return its result or raise its error.

        :raises StoreClosedError: when the loop is closed, or closed meanwhile.
        """
        task: asyncio.Task[T] | None = None

        def begin() -> None:
            nonlocal task
            task = self._loop.create_task(coroutine)
            task.add_done_callback(self._stir)

        try:
            self._run_until(lambda: task is not None and task.done(), begin)
            assert task is not None
            return task.result()
        except asyncio.CancelledError:
            raise StoreClosedError("the connection to the stream was closed") from None
        finally:
            if task is None:
                coroutine.close()

    def wait(
        self,
        holds: Callable[[], bool],
        timeout: float | None,
        begin: Callable[[], object] | None = None,
    ) -> bool:
        """Return once something holds, or after ``timeout`` seconds; return whether it holds.

        It is looked at again after each :meth:`note_change`. ``begin``: called first, on the loop;
        it must not raise.

        :raises StoreClosedError: as :meth:`call` does.
        """
        if begin is None and holds():
            return True
        is_over = False

        def end() -> None:
            nonlocal is_over
            is_over = True
            self._stir()

        def start() -> None:
            if timeout is not None:
                self.later(timeout, end)
            if begin is not None:
                begin()

        self._run_until(lambda: is_over or holds(), start)
        return holds()

    def _run_until(self, is_done: Callable[[], bool], begin: Callable[[], object]) -> None:
        """Call ``begin`` on the loop, and return once something holds. It is looked at after each
        :meth:`_stir`."""
        if self._run(is_done, begin):
            return
        woken = threading.Event()
        with self._guard:
            self._others.add(woken)
        try:
            self._soon(begin)
            while not is_done() and not self._run(is_done):
                woken.wait()
                woken.clear()
        finally:
            with self._guard:
                self._others.discard(woken)

    def _run(self, is_done: Callable[[], bool], begin: Callable[[], object] | None = None) -> bool:
        """Run the loop until something holds; return False where another thread runs it."""
        if not self._running.acquire(blocking=False):
            return False
        try:
            self._check()
            if begin is not None:
                begin()
            while not is_done():
                self._check()
                self._loop.run_forever()
        finally:
            self._leave()
        return True

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
        if self._closing or self._interrupted:
            raise StoreClosedError("the connection to the stream is closed") from None

    def note_change(self) -> None:
        """Let :meth:`wait` look again. On the loop."""
        self._stir()

    def note_change_soon(self) -> None:
        """Let :meth:`wait` look again. In any thread."""
        self._soon(self._stir)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something after some seconds. On the loop."""
        self._loop.call_later(seconds, call)

    def start(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Let a coroutine run while somebody waits."""
        self._soon(self._loop.create_task, coroutine)

    def pause(self, seconds: float) -> None:
        """Return after some seconds."""
        self.wait(lambda: False, seconds)

    def interrupt(self) -> None:
        """Let who waits in it get an error, until :meth:`go_on`. In any thread."""
        self._interrupted = True
        self.note_change_soon()

    def go_on(self) -> None:
        """Let somebody wait again, for what ends the connection."""
        self._interrupted = False

    def close(self) -> None:
        """Close the loop; who waits in it gets an error."""
        self._closing = True
        self.note_change_soon()
        with self._running:
            self._loop.close()
        self._wake_others()


class ClientLoops:
    """The loops of the connections of one call, which end together where it is cancelled."""

    def __init__(self) -> None:
        self._loops: list[ClientLoop] = []
        self._interrupted = False

    def new(self) -> ClientLoop:
        """Return another one."""
        loop = ClientLoop()
        self._loops.append(loop)
        if self._interrupted:
            loop.interrupt()
        return loop

    def interrupt(self) -> None:
        """Let who waits in one of them get an error. In any thread."""
        self._interrupted = True
        for loop in self._loops:
            loop.interrupt()


class ClientWorker(Worker):
    """A worker whose thread runs the client's loop while it has nothing to do."""

    def __init__(self, name: str, loop: ClientLoop) -> None:
        super().__init__(name)
        self._client_loop = loop
        self._is_idle = False

    def _put(self, job: Job[Any] | None) -> None:
        super()._put(job)
        if self._is_idle:
            self._client_loop.note_change_soon()

    def _take(self) -> Job[Any] | None:
        # A queue hands over a job in half the time that a loop takes to be woken.
        with suppress(Empty):
            return self._jobs.get(timeout=_SPELL)
        self._is_idle = True
        with suppress(StoreClosedError):
            self._client_loop.wait(lambda: not self._jobs.empty(), None)
        self._is_idle = False
        return super()._take()
