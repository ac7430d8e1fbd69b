"""The synchronous core of a store on a stream: take in, decide, append if nobody else has.

It is to a stream what :class:`..file.journal.Journal` is to a file, and is called in the same way:
by one thread at a time. In place of a lock, an append says which message it follows. The server
takes it only where that is the last one. Who loses takes in what came, decides again, and appends.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from ..config import StoreConfig
from ..core.appended import Appended
from ..core.commands import Command
from ..core.reports import TornTail
from ..errors import (
    CorruptFileError,
    InvalidValueError,
    MemvidAsyncError,
    NotAStoreError,
    StoreClosedError,
    StoreFailedError,
    StoreLockedError,
    StoreReadOnlyError,
)
from ..events.event import Event
from ..events.values import is_time
from ..file.file_view import FileView
from ..file.log_file import LogFile
from ..format.header import Header
from .address import Address
from .batch_draft import BatchDraft
from .connection import Connection, LostRaceError
from .messages import BATCH_BYTES, WRITER_BYTES, decode_message, encode_batch
from .stream_found import find_stream
from .stream_storage import StreamStorage
from .turn_order import TurnOrder

# Closing saves a TOC when at least this many bytes follow the last one; fewer are quickly folded.
_CLOSING_TOC_BYTES = 64 * 1024
# After this many seconds without an announcement the leader is asked whether there is news.
_LOOK_INTERVAL = 1.0
# What another process has appended is announced within this many seconds, or it is asked for.
_ANNOUNCED = 0.005
# Of a batch in parts, the next part is waited for at most this long: then its writer is taken for
# dead.
_PART_PATIENCE = 2.0
# A new leader may lack what was acknowledged for at most this many seconds. It is asked every so
# many.
_CATCHING_UP, _PAUSE = 10.0, 0.05


class StreamJournal:
    """The log of a store on a stream, as this process has taken it in. Made by :meth:`open`.

    ``keeps_events``: whether what becomes durable is returned as events too.
    """

    def __init__(
        self,
        connection: Connection,
        storage: StreamStorage,
        config: StoreConfig,
        created: str,
        *,
        read_only: bool,
    ) -> None:
        self.connection = connection
        self._storage = storage
        self._config = config
        self._created = created
        self._read_only = read_only
        self._pid = os.getpid()
        self._file = LogFile.load(storage, read_only=True)
        self.torn_tail = TornTail(0, 0)
        self.keeps_events = True
        self._staged: list[Event] = []
        self._sizes: list[int] = []
        self._draft: BatchDraft | None = None
        self._commands: list[Command] = []
        self._failure: MemvidAsyncError | None = None
        self._looked = time.monotonic()
        self._writer = os.urandom(WRITER_BYTES)
        self._batches = self._told = 0
        self._order = TurnOrder(self._writer)

    @classmethod
    def open(
        cls,
        address: Address,
        config: StoreConfig,
        *,
        read_only: bool,
        header: Header | None = None,
    ) -> StreamJournal:
        """Connect, and read the stream. A writer also creates one that is not there.

        ``header``: the log's, where it is created; by default one with a new id.

        :raises MemvidAsyncError: as :func:`memvid_async.open_store` says.
        """
        connection = Connection.open(address, config.nats_options, config.server_timeout)
        try:
            facts = find_stream(connection, config, header, read_only=read_only)

            def fetch(first: int, count: int) -> list[tuple[int, bytes]]:
                return connection.fetch(first, count, known=first)

            storage = StreamStorage(fetch, config.limits.mirror_bytes)
            sequence = storage.start_before(facts.last)
            while sequence <= facts.last:
                for sequence, payload in connection.fetch(sequence, 1024, facts.last):  # noqa: B020
                    storage.add(sequence, payload)
                sequence += 1
            if not read_only:
                connection.watch_losers()
            return cls(connection, storage, config, facts.created, read_only=read_only)
        except BaseException:
            connection.close()
            raise

    # Looking.

    @property
    def view(self) -> FileView:
        """What readers may see: the folded state, and the log as far as it is durable."""
        if self._draft is not None:
            return FileView(self._draft.state, self._file.view.end, self._file.reader)
        return self._file.view

    @property
    def holds_lock(self) -> bool:
        """Whether a batch has begun and is not flushed yet."""
        return self._draft is not None

    @property
    def staged_bytes(self) -> int:
        """How many bytes of the log are in memory only."""
        return 0 if self._draft is None else self._draft.size

    @property
    def last(self) -> int:
        """The sequence of the last message that was taken in."""
        return self._storage.last

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        return self._file.catalog.content_count

    # Taking in.

    @property
    def has_news(self) -> bool:
        """Whether there may be messages that were not taken in."""
        connection, last = self.connection, self._storage.last
        connection.watch()
        if connection.newest > last:
            return True
        if time.monotonic() - self._looked < _LOOK_INTERVAL:
            return False
        return self._look() > last

    def _look(self) -> int:
        """Return the sequence of the last message, as the leader says it.

        :raises StoreFailedError: when the stream is another one now, or has lost messages.
        """
        until = time.monotonic() + min(_CATCHING_UP, self._config.server_timeout)
        while True:
            facts = self.connection.facts()
            if facts is None or facts.created != self._created:
                self._lose("the stream was deleted; nothing can be appended to it")
            if facts.last >= self._storage.last:
                self._looked = time.monotonic()
                return facts.last
            if time.monotonic() >= until:
                self._lose(
                    f"the stream ends at message {facts.last}, but {self._storage.last} were "
                    "acknowledged: the servers have lost some"
                )
            time.sleep(_PAUSE)

    def _lose(self, why: str) -> NoReturn:
        self.fail(StoreFailedError(why))
        raise StoreFailedError(why)

    def follow(self) -> Appended:
        """Take in all that others have appended by now.

        :raises StoreFailedError, CorruptFileError: when it cannot be read.
        """
        self._check()
        self._take_in(self._look())
        return self._all_staged()

    def _take_in(self, until: int) -> None:
        """Take in the messages up to the sequence ``until``, and what was announced after."""
        connection, storage = self.connection, self._storage
        while True:
            found = connection.take_arrived(storage.last)
            if not found and storage.last < until and connection.wait_until(until, _ANNOUNCED):
                found = connection.take_arrived(storage.last)
            if not found and storage.last < until:
                found = connection.fetch(storage.last + 1, 1024, until)
            if not found:
                break
            for sequence, payload in found:
                self._add(sequence, payload)
        self._fold()

    def _add(self, sequence: int, payload: bytes) -> None:
        try:
            self._storage.add(sequence, payload)
        except (CorruptFileError, NotAStoreError) as error:
            self.fail(error)
            raise
        self._order.note(self._storage.last_batch[:WRITER_BYTES])

    def _fold(self) -> None:
        """Fold what was added to the log's bytes, and keep its events where somebody reads them."""
        file, start = self._file, self._file.view.end
        if self._storage.size() == start:
            return
        found: list[Event] | None = [] if self.keeps_events else None
        reader = file.reader
        content = (lambda at: reader.content(at, file.view.end)) if self.keeps_events else None
        try:
            file.catch_up(content, found)
        except MemvidAsyncError as error:
            if file.in_doubt or isinstance(error, CorruptFileError):
                self.fail(error)
            raise
        if found:
            size = file.view.end - start
            self._staged += found
            self._sizes += [size // len(found)] * len(found)

    def _all_staged(self) -> Appended:
        """Return what became durable since the last call."""
        last = self._file.state.last_sequence
        appended = Appended(last, self._staged, self._sizes, rewritten=False)
        self._staged, self._sizes = [], []
        return appended

    # Writing.

    def commit(self, commands: Sequence[Command]) -> tuple[list[Any], Appended]:
        """Decide the commands in order and append their events; with no commands, take in.

        Returns for each command its answer or the error that refused it, and what became durable,
        which begins with what others appended.

        :raises StoreLockedError: when others were first again and again, for too long.
        :raises StoreFailedError: when no server answers. Then it is not known whether they are in
            the stream; the next call finds out.
        """
        self._check()
        self._check_writable()
        if not commands:
            return [], self.follow()
        outcomes = self._append(commands)
        self._save_due()
        return outcomes, self._all_staged()

    def _append(self, commands: Sequence[Command]) -> list[Any]:
        until = time.monotonic() + self._config.lock_timeout
        is_fresh = False
        while True:
            self._wait_for_parts()
            self._wait_for_turn(has_lost=is_fresh)
            self._file.catalog.load_tables()
            draft = BatchDraft(self._file)
            outcomes = [draft.stage(command, self._now) for command in commands]
            if not draft.size:
                # What refuses them may have changed since.
                last = self._look()
                if last == self._storage.last:
                    return outcomes
                self._take_in(last)
                continue
            if self._publish(draft.data, self._storage.toc):
                return outcomes
            if is_fresh and time.monotonic() >= until:
                raise StoreLockedError(None, self._config.lock_timeout)
            self._check_writable()
            is_fresh = True

    def _publish(self, data: bytes, toc: tuple[int, int]) -> bool:
        """Append bytes of the log after all that was taken in; return whether nobody was first."""
        storage = self._storage
        self._batches += 1
        batch = self._writer + self._batches.to_bytes(BATCH_BYTES - WRITER_BYTES)
        at = storage.size()
        payloads = encode_batch(at, toc, batch, data, self.connection.most_payload)
        for payload in payloads:
            expected = storage.last

            def stored(expected: int = expected) -> bool | None:
                found = self.connection.fetch(expected + 1, 1, expected + 1)
                return decode_message(found[0][1]).batch == batch if found else None

            begun = time.monotonic()
            try:
                self._add(self.connection.publish(payload, expected, stored=stored), payload)
            except LostRaceError as lost:
                # From now on, what others append comes without being asked for.
                self.connection.watch()
                self._tell_waiting()
                self._take_in(self._look() if lost.last <= expected else lost.last)
                return False
            self._order.note_append(time.monotonic() - begun)
        self._fold()
        return True

    def extend(self, data: bytes, toc: tuple[int, int] | None) -> bool:
        """Append whole segments of a log that this one is a prefix of; return whether nobody else
        was first. ``toc``: the last TOC among them, as a message has it.

        :raises StoreFailedError: as :meth:`commit` does.
        """
        self._check()
        self._wait_for_parts()
        return self._publish(data, toc or self._storage.toc)

    def _wait_for_parts(self) -> None:
        """Wait while another process appends a batch in parts; its death ends the waiting."""
        storage = self._storage
        while storage.is_unfinished:
            last = storage.last
            self.connection.watch()
            self.connection.wait_for(last, _PART_PATIENCE)
            self._take_in(self._look())
            if storage.last == last:
                return

    def _wait_for_turn(self, *, has_lost: bool) -> None:
        """Let other writers have their turns, those that use them."""
        order, connection, storage = self._order, self.connection, self._storage
        while True:
            for writer in connection.take_losers():
                order.note_lost(writer)
            other, seconds = order.wait(has_lost=has_lost)
            if other is None:
                return
            connection.watch()
            self._tell_waiting()
            if connection.wait_for(storage.last, seconds):
                self._take_in(connection.newest)
            else:
                order.pass_over(other)

    def _tell_waiting(self) -> None:
        """Tell the others, once for each message, that this writer waits for its turn."""
        if self._told < self._storage.last:
            self._told = self._storage.last
            self.connection.tell_lost(self._writer)

    def _now(self) -> int:
        """Return the clock's time. It may be before the last event's: sequences are the order."""
        now = self._config.clock()
        if not is_time(now):
            raise InvalidValueError(f"clock() returned {now!r:.80}, not an int of nanoseconds")
        return now

    def _save_due(self) -> None:
        """Append a TOC, or a page for one, where it is due. Where somebody else is first, it is
        due again after the next batch."""
        if self._file.catalog.is_due(self._file.view.end):
            twin = self._file.fork()
            twin.stage_due()
            self._publish_fork(twin)

    def _publish_fork(self, twin: LogFile) -> bool:
        data = twin.staged
        if not data or self._storage.is_unfinished:
            return False
        try:
            return self._publish(data, twin.newest_toc or self._storage.toc)
        except StoreFailedError:
            # It only saves work. Whether it is in the stream, the next call sees.
            return False

    def save_projection(
        self,
        name: str,
        edition: object,
        base: int,
        through: int,
        page_count: int,
        pages: Sequence[tuple[int, bytes]],
    ) -> tuple[int, Appended]:
        """Append the pages of a projection, as a file's journal does. 0 where it was not saved."""
        self._check()
        self._check_writable()
        self._take_in(0)
        at, catalog = 0, self._file.catalog
        if edition is self._file.view.edition and base in (0, catalog.saved[name][0]):
            twin = self._file.fork()
            twin.save_projection(name, through, page_count, pages)
            if self._publish_fork(twin):
                at = self._file.catalog.saved[name][0]
        return at, self._all_staged()

    # A batch whose commands come one by one.

    def begin(self) -> None:
        """Take in what others appended, and begin a batch."""
        self._check()
        self._check_writable()
        self._take_in(self._look())
        self._file.catalog.load_tables()
        self._draft, self._commands = BatchDraft(self._file), []

    def stage(self, command: Command) -> Any:
        """Decide a command of the begun batch. Its answer holds unless another process appends
        before :meth:`flush`, which then decides it again."""
        assert self._draft is not None
        self._commands.append(command)
        return self._draft.stage(command, self._now)

    def stage_all(self, commands: Sequence[Command]) -> list[Any]:
        """Do :meth:`stage` for each command."""
        return [self.stage(command) for command in commands]

    def flush(self) -> Appended:
        """Append the begun batch."""
        commands, self._draft, self._commands = self._commands, None, []
        return self.commit(commands)[1]

    # Failing and closing.

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why the journal refuses everything; None while it does not."""
        return self._failure

    def _check_writable(self) -> None:
        if self._read_only or self._file.state.beyond:
            why = "it was opened read-only" if self._read_only else "a newer release wrote to it"
            raise StoreReadOnlyError(f"the store cannot be written: {why}")

    def _check(self) -> None:
        if self._failure is not None:
            raise StoreFailedError(
                f"the store failed earlier ({self._failure}); open it again"
            ) from self._failure
        if os.getpid() != self._pid:
            raise StoreClosedError("the store was opened before a fork; open it again")

    def fail(self, error: MemvidAsyncError) -> None:
        """Refuse everything from now on."""
        self._failure = self._failure or error

    def close(self) -> None:
        """Save a TOC where that saves the next opening work."""
        ok = self._failure is None and not self._read_only and not self._file.state.beyond
        if ok and self._file.since_toc >= _CLOSING_TOC_BYTES:
            twin = self._file.fork()
            twin.save_toc()
            self._publish_fork(twin)

    def release(self) -> None:
        """Disconnect."""
        self.connection.close()
