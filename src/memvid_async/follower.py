"""What a read-only store has in the writer's place: a task that looks for what others appended."""

from __future__ import annotations

import asyncio

from .errors import MemvidAsyncError
from .journal import Journal
from .log import Log
from .reader import View
from .worker import Worker


class Follower:
    """Catches up with the file at a bounded rate, and only while somebody waits for news."""

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
        self._task = asyncio.create_task(self._run(), name="memvid_async follower")

    async def _run(self) -> None:
        try:
            while True:
                await self.catch_up()
                await asyncio.sleep(self._interval)
        except MemvidAsyncError as error:
            self.failure = error
        finally:
            self._worker.start(self._journal.release)
            self._worker.stop()
            self._log.close()

    async def catch_up(self) -> None:
        """Take in what others appended since."""
        news = await self._worker.run(self._journal.follow)
        self.view = self._journal.view
        for storage in self._journal.take_replaced():
            self._reads.start(storage.close)
        if news.events:
            self._log.publish(news.events, news.sizes)

    async def aclose(self) -> None:
        """Stop looking, and release the file."""
        self._task.cancel()
        await asyncio.wait([self._task])
