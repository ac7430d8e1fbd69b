"""The event log in one file: makes the journal's calls in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..config import StoreConfig
from ..core.appended import Appended
from ..core.commands import Command
from ..core.reports import CompactReport, TornTail, VerifyReport
from ..errors import MemvidAsyncError, StoreFailedError
from ..file.compact import FoldWhole
from ..file.file_view import FileView
from ..file.journal import Journal
from ..file.successor import Successor
from ..file.verify import Verifier
from .event_log import Alone, View
from .worker import Job, Worker

T = TypeVar("T")

# After this many looks that found nothing, the thread returns to the loop, which may look again: a
# store that was dropped without being closed must not keep a thread busy for ever.
_LOOKS = 50


class FileLog:
    """An :class:`.event_log.EventLog` whose bytes are one file.

    It is made by :meth:`open`, or from a journal that is already open. ``reads``: the thread that
    reads views. A file that a compaction replaced is closed when its last view is gone.
    """

    def __init__(self, journal: Journal, io: Worker, reads: Worker, poll_interval: float) -> None:
        self._journal = journal
        self._io = io
        self._reads = reads
        self._poll_interval = poll_interval
        self._asked = threading.Event()
        self._released: Job[None] | None = None
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
        opened: list[Journal] = []

        def open_journal() -> Journal:
            opened.append(Journal.open_path(path, config, read_only=read_only))
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

    # Looking.

    @property
    def view(self) -> FileView:
        """See :class:`.event_log.EventLog`, for this and the others."""
        return self._journal.view

    @property
    def torn_tail(self) -> TornTail:
        """The torn tail that was found last."""
        return self._journal.torn_tail

    @property
    def byte_count(self) -> int:
        """The length of the log, without the space that is reserved after it."""
        return self._journal.view.end

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        return self._journal.content_count

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why the journal refuses everything; None while it does not."""
        return self._journal.failure

    def note_readers(self, count: int) -> None:
        """Note how many read the events as they become durable."""
        self._journal.keeps_events = count > 0

    # Appending.

    def commit(self, commands: Sequence[Command]) -> Job[tuple[list[Any], Appended]]:
        """Lock the file, catch up, decide, append, sync, unlock."""
        return self._io.start(self._journal.commit, commands)

    def begin(self) -> Job[None]:
        """Lock the file and catch up."""
        return self._io.start(self._journal.begin)

    @property
    def has_begun(self) -> bool:
        """Whether the file is locked for a batch."""
        return self._journal.holds_lock

    def stage(self, command: Command) -> Any:
        """Decide a command and append its events in memory."""
        return self._journal.stage(command)

    def stage_all(self, commands: Sequence[Command]) -> Job[list[Any]]:
        """Do :meth:`stage` for each command, in the thread."""
        return self._io.start(self._journal.stage_all, commands)

    @property
    def staged_bytes(self) -> int:
        """How many bytes of the log are in memory only."""
        return self._journal.staged_bytes

    def flush(self) -> Job[Appended]:
        """Write, sync, unlock."""
        return self._io.start(self._journal.flush)

    # Taking in what others append.

    def follow(self) -> Job[Appended]:
        """Read what follows the end of the log as last seen."""
        self._asked.clear()
        return self._io.start(self._journal.follow)

    def has_news(self) -> Job[bool]:
        """Tell whether the file grew, or was replaced."""
        return self._io.start(lambda: self._journal.has_news)

    def wait_for_news(self) -> Job[None]:
        """Look every ``poll_interval`` seconds, in the thread.

        Waking the loop at every look would cost several times as much.
        """
        return self._io.start(self._look_out)

    def _look_out(self) -> None:
        for _ in range(_LOOKS):
            if self._asked.wait(self._poll_interval):
                return
            try:
                if self._journal.has_news:
                    return
            except StoreFailedError:
                # Taking in the news will raise it.
                return

    def wake(self) -> None:
        """Let :meth:`wait_for_news` return."""
        self._asked.set()

    # The whole.

    def save_projection(
        self,
        name: str,
        edition: object,
        base: int,
        through: int,
        page_count: int,
        pages: Sequence[tuple[int, bytes]],
    ) -> Job[tuple[int, Appended]]:
        """Append the pages as derived segments."""
        save = self._journal.save_projection
        return self._io.start(save, name, edition, base, through, page_count, pages)

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

    async def verify(
        self, written: Callable[[], View], progress: Callable[[int, int], None] | None
    ) -> VerifyReport:
        """Read the file in steps of about 1 MiB, in the thread that reads views."""
        view = _of_a_file(written())
        verifier = Verifier(view.reader.storage, view)
        while not verifier.finished:
            await self._reads.run(verifier.step)
            if view.edition is not self.view.edition:
                # A compaction replaced the file meanwhile: check the new one, from its start.
                view = _of_a_file(written())
                verifier = Verifier(view.reader.storage, view)
            if progress is not None:
                progress(verifier.done_bytes, verifier.total_bytes)
        return verifier.report()

    # Closing.

    def fail(self, error: MemvidAsyncError) -> None:
        """Refuse everything except reading from now on."""
        self._journal.fail(error)

    def close(self) -> Job[None]:
        """Save a TOC where that saves work, and give reserved space back."""
        return self._io.start(self._journal.close)

    def release(self) -> None:
        """Close the file and end the threads, after the reads that are under way."""
        if self._released is None:
            self._io.stop()
            for successor in self._successors:
                successor.abandon()
            self._released = self._reads.start(self._release)
            self._reads.stop()

    def _release(self) -> None:
        # A compaction that was not installed reads the file until it is discarded.
        for successor in list(self._successors):
            self._discard(successor)
        self._journal.release()

    async def wait_released(self) -> None:
        """Return once the file is closed."""
        released = self._released
        if released is not None and released.loop is asyncio.get_running_loop():
            await released.wait()


def _of_a_file(view: View) -> FileView:
    assert isinstance(view, FileView)
    return view
