"""The event log on one stream."""

from __future__ import annotations

from collections.abc import Callable

from ..config import StoreConfig
from ..core.reports import CompactReport
from ..engine.event_log import Alone
from ..engine.journal_log import JournalLog, opened_in
from ..engine.worker import Job, Worker
from ..errors import MemvidAsyncError, NotCompactedError
from ..file.compact import FoldWhole
from .address import Address
from .client_loop import ClientLoop, ClientWorker
from .stream_journal import StreamJournal
from .stream_successor import OvertakenError

# A copy that cannot be used is made again, at most this many times in all.
_TRIES = 8
# After this many seconds without news the thread returns to the loop, which may wait again.
_WAIT = 1.0


class StreamLog(JournalLog[StreamJournal]):
    """An :class:`..engine.event_log.EventLog` whose bytes are one stream. Made by :meth:`open`."""

    @classmethod
    async def open(
        cls, address: Address, config: StoreConfig, reads: Worker, *, read_only: bool
    ) -> StreamLog:
        """Connect and read the stream, or create it for writing.

        :raises MemvidAsyncError: as :func:`memvid_async.open_store` says.
        """
        loop = ClientLoop()
        io = ClientWorker("memvid_async stream", loop)
        journal = await opened_in(
            io, lambda: StreamJournal.open(address, config, read_only=read_only, loop=loop)
        )
        return cls(journal, io, reads, config.poll_interval)

    def wait_for_news(self) -> Job[None]:
        """Wait for the server's announcement, in the thread."""
        return self._io.start(self._wait)

    def _wait(self) -> None:
        journal = self._journal
        try:
            if not journal.has_news:
                journal.connection.wait_for(journal.last, _WAIT)
        except MemvidAsyncError:
            # Taking in the news will raise it.
            return

    def wake(self) -> None:
        """Let :meth:`wait_for_news` return."""
        self._journal.connection.wake()

    async def compact(
        self, alone: Alone, progress: Callable[[int, int], None], fold: FoldWhole
    ) -> CompactReport:
        """Write a new stream that replaces this one, in a thread of its own, while others append;
        then delete this one."""
        io, journal = self._io, self._journal
        for _ in range(_TRIES):
            try:
                successor = await alone(lambda _: io.start(journal.begin_compaction))
            except OvertakenError:
                continue
            worker = Worker("memvid_async compaction")
            try:
                await worker.run(successor.copy, progress, fold)
                report: CompactReport | None = await alone(
                    lambda _, new=successor: io.start(journal.install, new)  # type: ignore[misc]
                )
            except OvertakenError:
                # Either this claim is not the newest, or the other one gives up.
                continue
            except BaseException:
                # Where this was cancelled, the thread may still be copying.
                successor.abandon()
                raise
            finally:
                worker.stop()
            if report is not None:
                return report
        raise NotCompactedError("other processes compact the store, or use again what goes")
