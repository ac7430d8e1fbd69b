"""Calls from other threads into an event loop: each thread has one asyncio task there.

So the calls of a thread run in their order and in one task, whose name is the thread's: what
depends on the task (its name in a recording, its place in a replay) is as if the thread were one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar

from ..engine.home import Home
from ..errors import StoreClosedError, WrongLoopError

T = TypeVar("T")

# After this many seconds a waiting thread looks whether the loop has ended without an answer.
_LOOK_AGAIN = 1.0

_ENDED = "the store is closed: its event loop has ended"
_UNSET = object()
_OWN_VARIABLES = "memvid_async"


class _ThreadCall:
    """A call that a thread waits for. ``context``: the caller's; at the end the task's."""

    __slots__ = ("context", "future", "is_cancelled", "make")

    def __init__(self, make: Callable[[], Any], context: Context) -> None:
        self.make = make
        self.context = context
        self.future: Future[Any] = Future()
        self.is_cancelled = False


class _Caller:
    """A thread's task. It ends when the thread does, which drops this object."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._calls: asyncio.Queue[_ThreadCall | None] = asyncio.Queue()
        self._current: list[_ThreadCall] = []
        self._task: asyncio.Task[None] | None = None
        self._name = name

    def __del__(self) -> None:
        # A closed loop raises; it has ended its tasks.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._calls.put_nowait, None)

    def put(self, call: _ThreadCall) -> None:
        """Queue a call; on the loop."""
        if self._task is None:
            serving = _serve(self._calls, self._current)
            self._task = self._loop.create_task(serving, name=self._name)
        if self._task.done():
            call.future.set_exception(StoreClosedError("the store's event loop is ending"))
        else:
            self._calls.put_nowait(call)

    def cancel(self, call: _ThreadCall) -> None:
        """Cancel a call that still waits or runs; on the loop."""
        call.is_cancelled = True
        if self._current == [call] and self._task is not None:
            self._task.cancel()


async def _serve(calls: asyncio.Queue[_ThreadCall | None], current: list[_ThreadCall]) -> None:
    """Make a thread's calls, until there is None. ``current``: gets the one that is being made."""
    try:
        while (call := await calls.get()) is not None:
            current[:] = [call]
            await _make(call)
            current.clear()
    finally:
        # Where the loop ends, nobody would answer the others.
        left = current
        while not calls.empty():
            waiting = calls.get_nowait()
            left += [waiting] if waiting is not None else []
        for one in left:
            if not one.future.done():
                one.future.set_exception(StoreClosedError("the store's event loop ended"))


async def _make(call: _ThreadCall) -> None:
    """Make a call and answer it.

    :raises asyncio.CancelledError: when not the call was cancelled but the task: the loop ends.
    """
    task = asyncio.current_task()
    assert task is not None
    _take_over(call.context)
    try:
        if call.is_cancelled:
            raise asyncio.CancelledError  # noqa: TRY301 - as if it had begun
        result = call.make()
        if isinstance(result, Awaitable):
            result = await result
    except BaseException as error:
        if (
            isinstance(error, asyncio.CancelledError)
            and task.cancelling()
            and not call.is_cancelled
        ):
            raise
        call.context = copy_context()
        call.future.set_exception(error)
    else:
        call.context = copy_context()
        call.future.set_result(result)
    while call.is_cancelled and task.cancelling():
        task.uncancel()


def _take_over(context: Context) -> None:
    """Set the context's variables here."""
    for variable, value in context.items():
        if variable.get(_UNSET) is not value:
            variable.set(value)


def _hand_back(context: Context, before: Context) -> None:
    """Set here what a call changed of this library's own variables."""
    for variable, value in context.items():
        if variable.name.startswith(_OWN_VARIABLES) and before.get(variable, _UNSET) is not value:
            variable.set(value)


class Portal:
    """The way from other threads to what runs on an event loop. Made on that loop."""

    def __init__(self) -> None:
        self._home = Home()
        self._callers = threading.local()

    @property
    def is_foreign(self) -> bool:
        """Whether this process is a forked child of the one with the loop."""
        return self._home.is_foreign

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """Call ``make`` on the loop and return its result, awaited where it can be awaited.

        Ctrl-C cancels the call and waits until it has ended; a second one does not wait.

        :raises WrongLoopError: on the loop itself, which would wait for itself, and after a fork.
        :raises StoreClosedError: when the loop has ended.
        """
        home = self._home
        home.check_process()
        if home.is_here:
            raise WrongLoopError(
                "this is the store's own event loop, which would wait for itself; await the "
                "asyncio store's methods here"
            )
        context = copy_context()
        call = _ThreadCall(make, context)
        caller = self._caller()
        self._on_loop(caller.put, call)
        try:
            result: T = self._wait(call)
        except BaseException:
            if not call.future.done():
                self._on_loop(caller.cancel, call)
                with suppress(BaseException):
                    self._wait(call)
            raise
        finally:
            if call.context is not context:
                _hand_back(call.context, context)
        return result

    def submit(self, make: Callable[[], Awaitable[T]]) -> Future[T]:
        """Start ``make()`` in a task of its own, and do not wait. Cancelling the future cancels it.

        :raises WrongLoopError: in a forked child.
        :raises StoreClosedError: when the loop has ended.
        """
        self._home.check_process()

        async def started() -> T:
            return await make()

        waiting = started()
        try:
            return asyncio.run_coroutine_threadsafe(waiting, self._home.loop)
        except RuntimeError:
            waiting.close()
            raise StoreClosedError(_ENDED) from None

    def _caller(self) -> _Caller:
        caller: _Caller | None = getattr(self._callers, "caller", None)
        if caller is None:
            caller = _Caller(self._home.loop, threading.current_thread().name)
            self._callers.caller = caller
        return caller

    def _on_loop(self, function: Callable[[_ThreadCall], None], call: _ThreadCall) -> None:
        try:
            self._home.loop.call_soon_threadsafe(function, call)
        except RuntimeError:
            raise StoreClosedError(_ENDED) from None

    def _wait(self, call: _ThreadCall) -> Any:
        while True:
            try:
                return call.future.result(_LOOK_AGAIN)
            except TimeoutError:
                if call.future.done():
                    raise
                if self._home.has_ended:
                    raise StoreClosedError("the store's event loop has ended") from None
