"""The journal: the synchronous core of a writer. Lock, catch up, decide, fold, append, sync.

A journal is used by one thread at a time and knows neither loop nor task, so that a test with a
simulated disk can drive it without asyncio. A writer is a follower that holds the lock: both catch
up by the same code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from ..config import StoreConfig
from ..core.appended import Appended
from ..core.commands import Command
from ..core.decide import decide
from ..core.reports import CompactReport, TornTail
from ..errors import (
    CorruptFileError,
    MemvidAsyncError,
    NotAStoreError,
    NotCompactedError,
    OutOfMemoryError,
    StoreClosedError,
    StoreFailedError,
    StoreLockedError,
    StoreReadOnlyError,
    as_ours,
)
from ..events.decided import AnyEvent
from ..events.event import Event
from ..events.values import checked_time
from ..format.codec import encode_events
from ..format.header import LOG_START, Header, is_unfinished
from ..format.segment import SegmentKind
from ..storage import FileStorage, Storage
from ..storage.current import lock_current
from .compact import FoldWhole, fold_nothing
from .file_view import FileView
from .log_file import LogFile
from .on_error import OnError, half_way
from .staging import stage_run
from .successor import Successor, discard_left

T = TypeVar("T")

# Closing saves a TOC when at least this many bytes follow the last one; fewer are quickly folded.
_CLOSING_TOC_BYTES = 64 * 1024
# Where a disk has less room than this beside twice what it is to hold, no projection is saved.
_LEAST_ROOM = 4 * 1024 * 1024


class Journal:
    """The log of a store, in the file that holds it now. Made by :meth:`open`.

    ``torn_tail``: the one found last. ``keeps_events``: whether what becomes durable is returned as
    events too; else only how far the log reaches.
    """

    def __init__(self, file: LogFile, config: StoreConfig, *, read_only: bool) -> None:
        self._file = file
        self._config = config
        self._clock = config.clock
        self._read_only = read_only
        self._pid = os.getpid()
        self.torn_tail: TornTail = file.torn_tail
        self.keeps_events = True
        self._staged: list[AnyEvent] = []
        self._sizes: list[int] = []
        self._holding = False
        self._failure: MemvidAsyncError | None = None
        self._rewritten = False

    @classmethod
    def open_path(cls, path: Path, config: StoreConfig, *, read_only: bool) -> Journal:
        """Open the file at a path, as :meth:`open` does."""
        return cls.open(FileStorage.open(path, read_only=read_only), config, read_only=read_only)

    @classmethod
    def open(cls, storage: Storage, config: StoreConfig, *, read_only: bool = False) -> Journal:
        """Read the file. A writer also starts an empty one, and cuts a torn tail.

        The journal owns the storage from now on, and closes it when this fails.

        :raises NotAStoreError, UnsupportedVersionError, CorruptFileError: see there.
        :raises StoreLockedError, StoreFailedError: see there.
        """
        try:
            if not read_only:
                storage = lock_current(storage, config.lock_timeout)
            if not is_unfinished(storage.read(0, LOG_START), storage.size()):
                pass
            elif read_only:
                raise NotAStoreError(  # noqa: TRY301 - the storage is closed here, whatever fails
                    "the file is empty, or its creation was cut short; open it for writing first"
                )
            else:
                LogFile.create(storage, Header(config.new_id()))
            file = LogFile.load(storage, read_only=read_only)
            if not read_only:
                discard_left(storage, file.header.file_id)
            journal = cls(file, config, read_only=read_only)
            storage.unlock()
        except BaseException:
            storage.close()
            raise
        return journal

    # Looking.

    @property
    def view(self) -> FileView:
        """What readers may see: the folded state, and the log as far as it is written."""
        return self._file.view

    @property
    def file_id(self) -> UUID:
        """The id that the file got when it was created."""
        return self._file.header.file_id

    @property
    def holds_lock(self) -> bool:
        """Whether a batch has begun and is not flushed yet."""
        return self._holding

    @property
    def staged_bytes(self) -> int:
        """How many bytes of the log are in memory only."""
        return self._file.staged_bytes

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        return self._file.catalog.content_count

    # Catching up.

    def refresh(self) -> list[Event]:
        """Fold what others have appended, and return its events.

        :raises StoreFailedError: when the file was deleted, or replaced by another store's.
        :raises CorruptFileError: when it was cut short or damaged.
        :raises StoreLockedError: when a writer does not get the lock that it needs for this.
        """
        return self.follow().events

    @property
    def has_news(self) -> bool:
        """Whether others appended to the file, or replaced it."""
        return not self._file.storage.is_current() or self._file.has_news

    def follow(self) -> Appended:
        """Do what :meth:`refresh` does, and give each event an equal share of the bytes read."""
        if not self._read_only:
            self.begin()
            return self.flush()
        self._check()
        with OnError(self.fail_reading):
            if not self._file.storage.is_current():
                self._move(self._file.storage.reopen())
            self._take_in_news()
        return self._all_staged()

    def _all_staged(self) -> Appended:
        """Return what became durable since the last call."""
        last = self._file.state.last_sequence
        appended = Appended(last, self._staged, self._sizes, self._rewritten)
        self._staged, self._sizes, self._rewritten = [], [], False
        return appended

    def _take_in_news(self) -> None:
        """Fold what others wrote after the log's end, and stage its events.

        What was read before an error stays staged.
        """
        file = self._file
        if not file.has_news:
            return
        start, events = file.view.end, list[Event]()
        try:
            file.catch_up(lambda sequence: file.reader.content(sequence, file.view.end), events)
        finally:
            self._stage_foreign(events, file.view.end - start)
            self.torn_tail = file.torn_tail

    def _stage_foreign(self, events: list[Event], size: int) -> None:
        """Stage events of others, each with an equal share of the bytes that they take."""
        self._staged += events
        self._sizes += [size // max(1, len(events))] * len(events)

    def _move(self, storage: Storage) -> None:
        """Continue in the file by which a compaction replaced ours; stage events that it adds."""
        mine, state = self._file.header, self._file.state
        try:
            file = LogFile.load(storage, read_only=self._read_only)
        except BaseException:
            storage.close()
            raise
        same = file.header.file_id == mine.file_id
        if not same or file.state.last_sequence < state.last_sequence:
            storage.close()
            raise StoreFailedError(
                "the file was deleted or replaced by another store's; open it again"
            )
        view, events = file.view, list[Event]()
        try:
            while state.last_sequence + len(events) < view.state.last_sequence:
                after = state.last_sequence + len(events)
                events += view.events_after(after, self._config.limits.read_bytes)
        except BaseException:
            storage.close()
            raise
        self._replace(file)
        self._stage_foreign(events, view.end - LOG_START)

    def _replace(self, file: LogFile) -> None:
        # The file that was replaced is closed when the last view of it is gone.
        before, self._file = self._file.storage, file
        self._rewritten = True
        before.retire()

    # Writing.

    def commit(self, commands: Sequence[Command]) -> tuple[list[Any], Appended]:
        """Decide the commands in order, append their events and make them durable.

        Returns for each command its answer or the error that refused it, and what became durable,
        which begins with events that others wrote.
        """
        told = OnError(self.fail_half_way)
        self.begin()
        with told:
            outcomes = self.stage_all(commands)
            return outcomes, self.flush()

    def stage_all(self, commands: Sequence[Command]) -> list[Any]:
        """Do :meth:`stage` for each command, with one change of the folded maps for all."""
        with OnError(self.fail_half_way):
            if len(commands) == 1:
                return [self.stage(commands[0])]
            self._file.begin_run()
            try:
                return stage_run(self, commands)
            finally:
                self._file.end_run()

    def begin(self) -> None:
        """Take the lock and catch up with what others wrote.

        :raises StoreLockedError: when another process held the lock too long; nothing has changed.
        :raises StoreFailedError, CorruptFileError, StoreReadOnlyError: see there.
        """
        self._check()
        self._check_writable()
        mine = self._file.storage
        mine.lock(self._config.lock_timeout)
        with OnError(self.fail_reading):
            if not mine.is_current():
                self._move(lock_current(mine.reopen(), self._config.lock_timeout))
            self._take_in_news()
            self._file.catalog.load_tables()
        if self._staged:
            try:
                self._check_writable()
            except StoreReadOnlyError:
                self._file.storage.unlock()
                raise
        self._holding = True

    def _check_writable(self) -> None:
        if self._read_only or self._file.state.beyond:
            why = "it was opened read-only" if self._read_only else "a newer release wrote to it"
            raise StoreReadOnlyError(f"the store cannot be written: {why}")

    def stage(self, command: Command) -> Any:
        """Decide a command, fold its events and stage them; return its answer.

        An error that refuses the command is returned in place of the answer.
        """
        with OnError(self.fail_half_way):
            return stage_run(self, (command,))[0]

    def stage_any(self, command: Command) -> Any:
        """Do :meth:`stage` with a command of any kind."""
        file = self._file
        try:
            events, answer = decide(file.state, command, self._now(), file.catalog)
            if not events:
                return answer
            payload = encode_events(events)
        except BaseException as error:  # noqa: BLE001 - raised again where it is not a refusal
            return self.refused(error)
        try:
            size = file.append(SegmentKind.EVENTS, payload, events)
        except BaseException as error:
            self.fail_half_way(error)
            raise
        if self.keeps_events:
            self._sizes += [*[0] * (len(events) - 1), size]
            self._staged += [event.without_data() for event in events]
        return answer

    def refused(self, error: BaseException) -> Exception:
        """Return what a command is answered that could not be decided. Nothing has changed yet, so
        only the command fails, whatever the error is: a user's clock may raise anything."""
        outcome = as_ours(error)
        if isinstance(outcome, Exception):
            return outcome
        self.fail_half_way(outcome)
        raise error

    def _now(self) -> int:
        """Return the clock's time. It may be before the last event's: sequences are the order."""
        return checked_time(self._clock())

    def flush(self) -> Appended:
        """Write and sync what is staged, release the lock, and return what became durable.

        :raises StoreFailedError: when that failed; the journal refuses everything from then on.
        """
        self._check()
        with OnError(self.fail_half_way):
            self._file.write_out()
            self._holding = False
            self._file.storage.unlock()
        return self._all_staged()

    def begin_compaction(self) -> tuple[Successor | MemvidAsyncError, Appended]:
        """Create the file in which :meth:`install` continues, once it was copied.

        An error that leaves the file as it was is returned in its place.
        """
        now = self._now()
        self.begin()
        successor = self._or_refusal(lambda: self._successor(now))
        try:
            return successor, self.flush()
        except BaseException:
            if isinstance(successor, Successor):
                successor.discard()
            raise

    def install(
        self, successor: Successor
    ) -> tuple[CompactReport | MemvidAsyncError | None, Appended]:
        """Continue in the file that :meth:`begin_compaction` created.

        An error that leaves the file as it was is returned in place of the report; None when the
        copy cannot be used, as :meth:`Successor.install` says.
        """
        self.begin()
        return self._or_refusal(lambda: self._install(successor)), self.flush()

    def compact(
        self, progress: Callable[[int, int], None], fold: FoldWhole = fold_nothing
    ) -> tuple[CompactReport | MemvidAsyncError | None, Appended]:
        """Do :meth:`begin_compaction`, copy and :meth:`install`, with the lock held throughout.

        ``progress`` is called with the bytes done and the bytes in all. ``fold`` returns what the
        new file is to hold as saved projections.
        """

        def whole() -> CompactReport | None:
            successor = self._successor(now)
            successor.copy(progress, fold)
            return self._install(successor)

        now = self._now()
        self.begin()
        return self._or_refusal(whole), self.flush()

    def _or_refusal(self, call: Callable[[], T]) -> T | MemvidAsyncError:
        try:
            return call()
        except (CorruptFileError, NotCompactedError) as refusal:
            return refusal
        except BaseException as error:
            self.fail_half_way(error)
            raise

    def _successor(self, now: int) -> Successor:
        return Successor.create(self._file, self._config.lock_timeout, now)

    def _install(self, successor: Successor) -> CompactReport | None:
        report = successor.install(self._file)
        if report is not None:
            with OnError(self.fail_half_way):
                self._replace(successor.file)
                self._file.storage.sync_directory()
        return report

    def save_projection(
        self,
        name: str,
        edition: object,
        base: int,
        through: int,
        page_count: int,
        pages: Sequence[tuple[int, bytes]],
    ) -> tuple[int, Appended]:
        """Append the pages of a projection that changed since the save at ``base``.

        It was folded from views of ``edition``. Returns where the new save is; 0 when nothing was
        saved: the file or its last save is another one now, or the disk is almost full. A write
        that finds no room fails the store, and a projection can be made again.
        """
        self.begin()
        with OnError(self.fail_half_way):
            at, catalog = 0, self._file.catalog
            is_same = edition is self._file.view.edition
            if is_same and base in (0, catalog.saved[name][0]) and self._has_room_for(pages):
                self._file.save_projection(name, through, page_count, pages)
                at = catalog.saved[name][0]
        return at, self.flush()

    def _has_room_for(self, pages: Sequence[tuple[int, bytes]]) -> bool:
        size = sum(len(page) for _, page in pages)
        return self._file.storage.room() >= 2 * size + _LEAST_ROOM

    # Failing and closing.

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why the journal refuses everything; None while it does not."""
        return self._failure

    def fail_reading(self, error: BaseException) -> None:
        """Release the lock; refuse everything from now on only if the file's state is unknown."""
        refused = isinstance(error, StoreFailedError) and isinstance(error.__cause__, OSError)
        passing = refused or isinstance(as_ours(error), OutOfMemoryError)
        if self._file.in_doubt or not passing:
            self.fail_half_way(error)
        self._file.storage.unlock()

    def fail_half_way(self, error: BaseException) -> None:
        """Release the lock and refuse everything from now on: what the file holds is unknown, and a
        page that failed to sync must not be retried.

        A lock that was not obtained has changed nothing, and does not fail the journal.
        """
        if not isinstance(error, StoreLockedError):
            self.fail(half_way(error))
        self._file.storage.unlock()

    def _check(self) -> None:
        if self._failure is not None:
            raise StoreFailedError(
                f"the store failed earlier ({self._failure}); open the file again"
            ) from self._failure
        if os.getpid() != self._pid:
            raise StoreClosedError("the store was opened before a fork; open the file again")

    def fail(self, error: MemvidAsyncError) -> None:
        """Refuse everything from now on."""
        self._failure = self._failure or error

    def close(self) -> None:
        """Save a TOC where that saves the next opening work, and give reserved space back.

        The file can still be read until it is released.
        """
        with_toc = self._file.since_toc >= _CLOSING_TOC_BYTES
        idle = self._file.is_tidy and not with_toc
        if self._failure is None and not self._read_only and not idle:
            self._tidy(with_toc=with_toc)

    def _tidy(self, *, with_toc: bool) -> None:
        try:
            self.begin()
        except (StoreLockedError, StoreReadOnlyError):
            # This only saves work and space, and another writer is busy and will do it.
            return
        with OnError(self.fail_half_way):
            self._file.tidy(with_toc=with_toc)
            self._holding = False
            self._file.storage.unlock()

    def release(self) -> None:
        """Close the file, without writing anything."""
        self._file.storage.close()
