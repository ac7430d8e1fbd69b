"""The event log in one file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from ..config import StoreConfig
from ..core.reports import CompactReport
from ..file.compact import FoldWhole
from ..file.journal import Journal
from ..file.successor import Successor
from .event_log import Alone
from .journal_log import JournalLog, opened_in
from .worker import Worker


class FileLog(JournalLog[Journal]):
    """An :class:`.event_log.EventLog` whose bytes are one file.

    It is made by :meth:`open`, or from a journal that is already open. A file that a compaction
    replaced is closed when its last view is gone.
    """

    def __init__(self, journal: Journal, io: Worker, reads: Worker, poll_interval: float) -> None:
        super().__init__(journal, io, reads, poll_interval)
        # One compaction at a time copies, and others may not be discarded yet.
        self._compacting = asyncio.Lock()
        self._successors: set[Successor] = set()

    @classmethod
    async def open(
        cls, path: Path, config: StoreConfig, reads: Worker, *, read_only: bool
    ) -> FileLog:
        """Open the file, or create it for writing.

        :raises MemvidAsyncError: as :func:`memvid_async.open_store` says.
        """
        io = Worker("memvid_async file")
        journal = await opened_in(io, lambda: Journal.open_path(path, config, read_only=read_only))
        return cls(journal, io, reads, config.poll_interval)

    # The whole.

    async def compact(
        self, alone: Alone, progress: Callable[[int, int], None], fold: FoldWhole
    ) -> CompactReport:
        """Write a new file that replaces this one: most of it in a thread of its own, without the
        lock, so that others wait only while the end is copied."""
        io, journal = self._io, self._journal
        async with self._compacting:
            report: CompactReport | None
            successor = await alone(lambda _: io.start(journal.begin_compaction))
            worker = Worker("memvid_async compaction")
            self._successors.add(successor)
            try:
                await worker.run(successor.copy, progress, fold)
                report = await alone(lambda _: io.start(journal.install, successor))
            except BaseException:
                # Where this was cancelled, the thread may still be copying.
                successor.abandon()
                worker.start(self._discard, successor)
                raise
            finally:
                worker.stop()
            self._successors.remove(successor)
            if report is None:
                report = await alone(lambda _: io.start(journal.compact, progress, fold))
                assert report is not None
            return report

    def _discard(self, successor: Successor) -> None:
        successor.discard()
        self._successors.discard(successor)

    # Closing.

    def release(self) -> None:
        """Close the file and end the threads, after the reads that are under way."""
        for successor in self._successors:
            successor.abandon()
        super().release()

    def _release(self) -> None:
        # A compaction that was not installed reads the file until it is discarded.
        for successor in list(self._successors):
            self._discard(successor)
        super()._release()
