"""The event log that a journal keeps: makes the journal's calls in a thread of its own."""

# ruff: noqa: D102 - what a journal does, the journals say

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from ..core.appended import Appended
from ..core.commands import Command
from ..core.reports import TornTail, VerifyReport
from ..errors import MemvidAsyncError, StoreFailedError
from ..file.file_view import FileView
from ..file.verify import Verifier
from .event_log import View
from .worker import Job, Worker

# After this many looks that found nothing, the thread returns to the loop, which may look again: a
# store that was dropped without being closed must not keep a thread busy for ever.
_LOOKS = 50


class LogJournal(Protocol):
    """What a journal does, wherever its bytes are: see :class:`..file.journal.Journal`."""

    torn_tail: TornTail
    keeps_events: bool

    @property
    def view(self) -> FileView: ...
    @property
    def holds_lock(self) -> bool: ...
    @property
    def staged_bytes(self) -> int: ...
    @property
    def content_count(self) -> int: ...
    @property
    def has_news(self) -> bool: ...
    @property
    def failure(self) -> MemvidAsyncError | None: ...
    def follow(self) -> Appended: ...
    def commit(self, commands: Sequence[Command], /) -> tuple[list[Any], Appended]: ...
    def begin(self) -> None: ...
    def stage(self, command: Command, /) -> Any: ...
    def stage_all(self, commands: Sequence[Command], /) -> list[Any]: ...
    def flush(self) -> Appended: ...
    def save_projection(
        self,
        name: str,
        edition: object,
        base: int,
        through: int,
        page_count: int,
        pages: Sequence[tuple[int, bytes]],
        /,
    ) -> tuple[int, Appended]: ...
    def fail(self, error: MemvidAsyncError, /) -> None: ...
    def close(self) -> None: ...
    def release(self) -> None: ...


J = TypeVar("J", bound=LogJournal)


class JournalLog(Generic[J]):
    """An :class:`.event_log.EventLog` that a journal keeps, but for its compaction.

    ``reads``: the thread that reads views.
    """

    def __init__(self, journal: J, io: Worker, reads: Worker, poll_interval: float) -> None:
        self._journal = journal
        self._io = io
        self._reads = reads
        self._poll_interval = poll_interval
        self._asked = threading.Event()
        self._released: Job[None] | None = None

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
        """The length of the log, in bytes."""
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
        """Decide, append, and make it durable."""
        return self._io.start(self._journal.commit, commands)

    def begin(self) -> Job[None]:
        """Begin a batch."""
        return self._io.start(self._journal.begin)

    @property
    def has_begun(self) -> bool:
        """Whether a batch has begun."""
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
        """End the batch."""
        return self._io.start(self._journal.flush)

    # Taking in what others append.

    def follow(self) -> Job[Appended]:
        """Take in what others appended."""
        self._asked.clear()
        return self._io.start(self._journal.follow)

    def has_news(self) -> Job[bool]:
        """Tell whether there is something to take in."""
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
        """Append the pages."""
        save = self._journal.save_projection
        return self._io.start(save, name, edition, base, through, page_count, pages)

    async def verify(
        self, written: Callable[[], View], progress: Callable[[int, int], None] | None
    ) -> VerifyReport:
        """Read the log in steps of about 1 MiB, in the thread that reads views."""
        view = _of_a_journal(written())
        verifier = Verifier(view.reader.storage, view)
        while not verifier.finished:
            try:
                await self._reads.run(verifier.step)
            except StoreFailedError:
                if view.edition is self.view.edition:
                    raise
            if view.edition is not self.view.edition:
                # A compaction replaced the log meanwhile: check the new one, from its start.
                view = _of_a_journal(written())
                verifier = Verifier(view.reader.storage, view)
            if progress is not None:
                progress(verifier.done_bytes, verifier.total_bytes)
        return verifier.report()

    # Closing.

    def fail(self, error: MemvidAsyncError) -> None:
        """Refuse everything except reading from now on."""
        self._journal.fail(error)

    def close(self) -> Job[None]:
        """End writing."""
        return self._io.start(self._journal.close)

    def release(self) -> None:
        """Release the log and end the threads, after the reads that are under way."""
        if self._released is None:
            self._io.stop()
            self._released = self._reads.start(self._release)
            self._reads.stop()

    def _release(self) -> None:
        self._journal.release()

    async def wait_released(self) -> None:
        """Return once the log is released."""
        released = self._released
        if released is not None and released.loop is asyncio.get_running_loop():
            await released.wait()


async def opened_in(io: Worker, make: Callable[[], J]) -> J:
    """Open a journal in its thread, which ends where that fails or is cancelled."""
    opened: list[J] = []

    def open_journal() -> J:
        opened.append(make())
        return opened[0]

    def abandon() -> None:
        for journal in opened:
            journal.release()

    opening = io.start(open_journal)
    try:
        return await opening.wait()
    except asyncio.CancelledError:
        # The thread goes on; what it opens is closed by the next call.
        io.start(abandon)
        io.stop()
        raise
    except BaseException:
        io.stop()
        raise


def _of_a_journal(view: View) -> FileView:
    assert isinstance(view, FileView)
    return view
