"""What a read-only store has in the writer's place: a task that looks for what others appended."""

from __future__ import annotations

import asyncio

import anyio

from .errors import MemvidAsyncError, StoreClosedError
from .journal import Journal
from .log import Log
from .reader import View
from .worker import Worker


class Follower:
    """Catches up with the file every ``interval`` seconds, and whenever a reader asks for it.

    Its task alone takes events in, so that a cancelled reader cannot lose any.
    """

    def __init__(
        self, journal: Journal, log: Log, worker: Worker, reads: Worker, interval: float
    ) -> None:
        self._journal = journal
        self._log = log
        self._worker = worker
        self._reads = reads
        self._interval = interval
        self.view: View = journal.view
        self.failure: MemvidAsyncError | None = None
        self._asked = anyio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.create_task(self._run(), name="memvid_async follower")

    async def _run(self) -> None:
        try:
            while True:
                await self._catch_up()
                with anyio.move_on_after(self._interval):
                    await self._asked.wait()
        except MemvidAsyncError as error:
            self.failure = error
        finally:
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_exception(self._refusal())
            self._worker.stop()
            self._log.close()

    async def _catch_up(self) -> None:
        self._asked = anyio.Event()
        answered = len(self._waiting)
        news = await self._worker.run(self._journal.follow)
        self.view = self._journal.view
        for storage in self._journal.take_replaced():
            self._log.forget()
            self._reads.start(storage.close)
        if news.events:
            self._log.publish(news.events, news.sizes)
        for waiting in self._waiting[:answered]:
            if not waiting.done():
                waiting.set_result(None)
        del self._waiting[:answered]

    async def catch_up(self) -> None:
        """Return once what others had appended by now is taken in.

        :raises StoreFailedError, CorruptFileError: when the file cannot be followed any more.
        """
        if self._task.done():
            raise self._refusal()
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._asked.set()
        await waiting

    def _refusal(self) -> MemvidAsyncError:
        return StoreClosedError("the store is closed") if self.failure is None else self.failure

    async def aclose(self) -> None:
        """Stop looking, and release the file."""
        self._task.cancel()
        await asyncio.wait([self._task])
