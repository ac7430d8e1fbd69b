"""The task of a read-only store: it takes in what others append, as the writer does elsewhere."""

from __future__ import annotations

import asyncio

from ..errors import MemvidAsyncError, StoreClosedError
from .event_log import EventLog, View
from .tail import Tail

# After this many reads in a row that the system refused, the log can no longer be followed.
_MOST_REFUSALS = 100


class Follower:
    """Catches up with the log when it has news, and when a reader asks for it.

    Only its task takes events in, so that a cancelled reader cannot lose any. ``failure``: why the
    log can no longer be followed; None while it can.
    """

    def __init__(self, log: EventLog, tail: Tail) -> None:
        self._log = log
        self._tail = tail
        self.view: View = log.view
        self.failure: MemvidAsyncError | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.create_task(self._run(), name="memvid_async follower")

    async def _run(self) -> None:
        try:
            refusals = 0
            while True:
                try:
                    await self._catch_up()
                    refusals = 0
                except MemvidAsyncError as error:
                    refusals += 1
                    if self._log.failure is not None or refusals == _MOST_REFUSALS:
                        raise
                    self._refuse(error)
                await self._log.wait_for_news().wait()
        except MemvidAsyncError as error:
            self.failure = error
        finally:
            self._end()

    async def _catch_up(self) -> None:
        answered = len(self._waiting)
        news = await self._log.follow().wait()
        self.view = self._log.view
        self._tail.publish(news)
        for waiting in self._waiting[:answered]:
            if not waiting.done():
                waiting.set_result(None)
        del self._waiting[:answered]

    def _end(self) -> None:
        self._log.wake()
        self._refuse(self._refusal())
        self._tail.close()

    def _refuse(self, error: MemvidAsyncError) -> None:
        """Raise an error where a reader waits; the next one tries again."""
        waiters, self._waiting = self._waiting, []
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(error)

    async def catch_up(self) -> None:
        """Return once everything that others have appended by now is taken in.

        :raises StoreFailedError, CorruptFileError: when the log cannot be followed any more.
        """
        if self._task.done():
            raise self._refusal()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._log.wake()
        await waiting

    def _refusal(self) -> MemvidAsyncError:
        return StoreClosedError("the store is closed") if self.failure is None else self.failure

    async def aclose(self) -> None:
        """Stop following."""
        self._task.cancel()
        await asyncio.wait([self._task])
        # A task that is cancelled before it ran at all has ended nothing.
        self._end()
