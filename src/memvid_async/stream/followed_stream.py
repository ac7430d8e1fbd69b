"""The synchronous core of a store on a stream that only reads: it takes in what others append."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Self

from ..config import StoreConfig
from ..core.appended import Appended
from ..core.reports import TornTail
from ..errors import (
    CorruptFileError,
    MemvidAsyncError,
    StoreClosedError,
    StoreFailedError,
    StoreNotFoundError,
    UnsupportedVersionError,
)
from ..events.decided import AnyEvent
from ..events.event import Event
from ..file.log_file import LogFile
from ..format.header import Header
from .address import Address, StreamName
from .announced import Announced
from .client_loop import ClientLoop
from .connection import Connection
from .messages import WRITER_BYTES, Message, decode_message
from .server_answers import StreamFacts, StreamGoneError
from .stream_found import load_stream
from .stream_storage import StreamStorage
from .turn_order import TurnOrder

# After this many seconds without an announcement the leader is asked whether there is news.
_LOOK_INTERVAL = 1.0
# What another process has appended is announced within this many seconds, or it is asked for.
_ANNOUNCED = 0.005


class FollowedStream:
    """The log of a store on a stream, as this process has taken it in. Made by :meth:`open`.

    ``keeps_events``: whether what becomes durable is returned as events too.
    """

    def __init__(
        self,
        connection: Connection,
        storage: StreamStorage,
        file: LogFile,
        config: StoreConfig,
        facts: StreamFacts,
        *,
        read_only: bool,
    ) -> None:
        self.connection = connection
        self._storage = storage
        self._config = config
        self._created = facts.created
        self._is_replicated = facts.replicas > 1
        self._read_only = read_only
        self._pid = os.getpid()
        self._file = file
        self.torn_tail = TornTail(0, 0)
        self.keeps_events = True
        self._staged: list[AnyEvent] = []
        self._sizes: list[int] = []
        self._rewritten = False
        self._failure: MemvidAsyncError | None = None
        self._looked = time.monotonic()
        self._writer = os.urandom(WRITER_BYTES)
        self._order = TurnOrder(self._writer)

    @classmethod
    def open(
        cls,
        address: Address,
        config: StoreConfig,
        *,
        read_only: bool,
        header: Header | None = None,
        loop: ClientLoop | None = None,
    ) -> Self:
        """Connect, and read the stream. A writer also creates one that is not there.

        ``header``: the log's, where it is created; by default one with a new id. ``loop``: where
        the client runs; by default one of its own.

        :raises MemvidAsyncError: as :func:`memvid_async.open_store` says.
        """
        options, patience = config.nats_options, config.server_timeout
        connection = Connection.open(address, options, patience, loop)
        try:
            create = None if read_only else (lambda: header or Header(config.new_id()))
            stream, facts, storage, file = load_stream(
                connection, config, create, read_only=read_only
            )
            connection.use(stream)
            if not read_only:
                connection.watch_losers()
            return cls(connection, storage, file, config, facts, read_only=read_only)
        except BaseException:
            connection.close()
            raise

    # Looking.

    @property
    def last(self) -> int:
        """The sequence of the last message that was taken in."""
        return self._storage.last

    @property
    def content_count(self) -> int:
        """How many distinct contents have an event of their own."""
        return self._file.catalog.content_count

    @property
    def has_news(self) -> bool:
        """Whether there may be messages that were not taken in."""
        connection, last = self.connection, self._storage.last
        connection.watch()
        if connection.news.newest > last:
            return True
        if not connection.missed and time.monotonic() - self._looked < _LOOK_INTERVAL:
            return False
        connection.missed = False
        return self._look() > last or self._rewritten

    def _look(self) -> int:
        """Return the sequence of the last message, as the leader says it.

        :raises StoreFailedError: when the stream is another one now, or has lost messages.
        """
        last = None
        for _ in self.connection.looks(self._config.server_timeout):
            facts = self.connection.facts()
            if facts is None or facts.created != self._created:
                if self._move():
                    return self._storage.last
                # It is there after all.
                continue
            if facts.last >= self._storage.last:
                self._looked = time.monotonic()
                return facts.last
            last = facts.last
        if last is None:
            raise StoreFailedError("the servers contradict each other about the stream; try again")
        raise self._lost(
            f"the stream ends at message {last}, but {self._storage.last} were "
            "acknowledged: the servers have lost some"
        )

    def _lost(self, why: str) -> StoreFailedError:
        """Refuse everything from now on; return the error that says why."""
        self.fail(StoreFailedError(why))
        return StoreFailedError(why)

    # Taking in.

    def follow(self) -> Appended:
        """Take in all that others have appended by now.

        :raises StoreFailedError, CorruptFileError: when it cannot be read.
        """
        self._check()
        try:
            self._take_in(self._look())
        except StreamGoneError:
            self._take_in(self._look())
        return self._all_staged()

    def _take_in(self, until: int) -> None:
        """Take in the messages up to the sequence ``until``, and what was announced after."""
        connection, storage = self.connection, self._storage
        while True:
            found = connection.news.take(storage.last)
            if not found and storage.last < until and connection.wait_until(until, _ANNOUNCED):
                found = connection.news.take(storage.last)
            if not found and storage.last < until:
                fetched = connection.fetch(connection.stream, storage.last + 1, 1024, until)
                found = [Announced(*message, time.monotonic()) for message in fetched]
            if not found:
                break
            for sequence, payload, at in found:
                self._add(sequence, payload, at)
        self._fold()
        if storage.has_moved:
            self._move()

    def _add(self, sequence: int, message: bytes | Message, at: float) -> None:
        try:
            read = message if isinstance(message, Message) else decode_message(message)
            self._storage.take(sequence, read)
        except (CorruptFileError, UnsupportedVersionError) as error:
            self.fail(error)
            raise
        self._order.note(self._storage.last_batch[:WRITER_BYTES], at)

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

    def _find_next(
        self, before: StreamName
    ) -> tuple[StreamName, StreamFacts, StreamStorage, LogFile] | None:
        """Return the stream that replaced this one; None where this one is there after all.

        Of replicated streams, a server that was cut off, or just elected, may not know of either.
        """
        is_said = self._storage.has_moved
        patience = self._config.server_timeout if is_said or self._is_replicated else 0.0
        why = "the stream was deleted; nothing can be appended to it"
        for _ in self.connection.looks(patience):
            with suppress(StoreNotFoundError, StreamGoneError):
                found = load_stream(self.connection, self._config, None, read_only=self._read_only)
                if found[0].number > before.number:
                    if self._goes_on_in(found[3]):
                        return found
                    # A leader that was just elected may not have all yet.
                    why = "the stream was replaced by one that lacks what it had"
                if not is_said and found[1].created == self._created:
                    return None
        raise self._lost(why)

    def _goes_on_in(self, file: LogFile) -> bool:
        """Return whether a log has the last event that was taken in: a compaction keeps the
        sequences and times of all. Otherwise the servers have lost some.

        :raises StreamGoneError: when the log was replaced, too.
        """
        before = self._file.state
        is_same = file.header.file_id == self._file.header.file_id
        if not is_same or file.state.last_sequence < before.last_sequence:
            return False
        if not before.last_sequence:
            return True
        found = file.view.events_after(before.last_sequence - 1, 1)
        return found[0].time_ns == before.last_time_ns

    def _move(self) -> bool:
        """Go on in the stream by which a compaction replaced this one; return whether one did."""
        connection, before, state = self.connection, self.connection.stream, self._file.state
        found = self._find_next(before)
        if found is None:
            return False
        stream, facts, storage, file = found
        after = state.last_sequence
        # Where it was replaced once more, readers read from the log what is missing here.
        with suppress(StreamGoneError):
            while self.keeps_events and after < file.state.last_sequence:
                events = file.view.events_after(after, self._config.limits.read_bytes)
                after = events[-1].sequence
                self._staged += events
                self._sizes += [self._config.limits.read_bytes // len(events)] * len(events)
        connection.use(stream)
        self._file, self._storage, self._created = file, storage, facts.created
        self._rewritten = True
        return True

    def _all_staged(self) -> Appended:
        """Return what became durable since the last call."""
        last = self._file.state.last_sequence
        appended = Appended(last, self._staged, self._sizes, self._rewritten)
        self._staged, self._sizes, self._rewritten = [], [], False
        return appended

    # Failing and closing.

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why the journal refuses everything; None while it does not."""
        return self._failure

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

    def release(self) -> None:
        """Disconnect."""
        self.connection.close()
