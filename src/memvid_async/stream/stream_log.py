"""The event log on one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..config import StoreConfig
from ..core.reports import CompactReport
from ..engine.event_log import Alone, Folded, View
from ..engine.journal_log import JournalLog
from ..engine.worker import Job, Worker
from ..errors import MemvidAsyncError, NotCompactedError
from .address import Address
from .stream_journal import StreamJournal

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
        io = Worker("memvid_async stream")
        opened: list[StreamJournal] = []

        def open_journal() -> StreamJournal:
            opened.append(StreamJournal.open(address, config, read_only=read_only))
            return opened[0]

        def abandon() -> None:
            for journal in opened:
                journal.release()

        opening = io.start(open_journal)
        try:
            journal = await opening.wait()
        except asyncio.CancelledError:
            # The thread goes on; what it opens is closed by the next call.
            io.start(abandon)
            io.stop()
            raise
        except BaseException:
            io.stop()
            raise
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
        self,
        alone: Alone,  # noqa: ARG002 - the protocol's
        progress: Callable[[int, int], None],  # noqa: ARG002
        fold: Callable[[View], Sequence[Folded]],  # noqa: ARG002
    ) -> CompactReport:
        """Refuse.

        :raises NotCompactedError: always.
        """
        raise NotCompactedError(
            "a store on a stream is not compacted in place: copy it to a file, compact that, copy "
            "it to a stream of another name, and delete the old stream"
        )
