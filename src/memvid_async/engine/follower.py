"""What a read-only store has in the writer's place: a task that looks for what others appended."""

from __future__ import annotations

import asyncio
import threading

from ..errors import MemvidAsyncError, StoreClosedError
from ..file.journal import Journal
from ..file.reader import View
from .tail import Tail
from .worker import Worker

# After so many looks that found nothing the thread asks the loop whether to go on: one that was
# dropped without a word must not be looked out for by a thread for ever.
_LOOKS = 50


class Follower:
    """Catches up with the file every ``interval`` seconds, and whenever a reader asks for it.

    Its task alone takes events in, so that a cancelled reader cannot lose any.
    """

    def __init__(
        self, journal: Journal, tail: Tail, worker: Worker, reads: Worker, interval: float
    ) -> None:
        self._journal = journal
        self._tail = tail
        self._worker = worker
        self._reads = reads
        self._interval = interval
        self.view: View = journal.view
        self.failure: MemvidAsyncError | None = None
        self._asked = threading.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._task = asyncio.create_task(self._run(), name="memvid_async follower")

    async def _run(self) -> None:
        try:
            while True:
                await self._catch_up()
                await self._worker.run(self._look_out)
        except MemvidAsyncError as error:
            self.failure = error
        finally:
            self._asked.set()
            for waiting in self._waiting:
                if not waiting.done():
                    waiting.set_exception(self._refusal())
            self._worker.stop()
            self._tail.close()

    def _look_out(self) -> None:
        """Return once there may be something to take in, or somebody asks. In the thread: waking
        the loop at every look would cost it several times as much."""
        for _ in range(_LOOKS):
            if self._asked.wait(self._interval) or self._journal.has_news:
                return

    async def _catch_up(self) -> None:
        self._asked.clear()
        answered = len(self._waiting)
        news = await self._worker.run(self._journal.follow)
        self.view = self._journal.view
        for storage in self._journal.take_replaced():
            self._tail.forget()
            self._reads.start(storage.close)
        if news.events:
            self._tail.publish(news.events, news.sizes)
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
