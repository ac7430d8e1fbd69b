"""The synchronous core of a store on a stream: take in, decide, append if nobody else has.

A writer is a follower that appends. It is to a stream what :class:`..file.journal.Journal` is to a
file, and is called in the same way: by one thread at a time. In place of a lock, an append says
which message it follows. The server takes it only where that is the last one. Who loses takes in
what came, decides again, and appends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from ..core.appended import Appended
from ..core.commands import Command
from ..core.reports import CompactReport
from ..errors import (
    CorruptFileError,
    MemvidAsyncError,
    NotCompactedError,
    StoreFailedError,
    StoreLockedError,
    StoreReadOnlyError,
)
from ..events.event import Erased
from ..events.values import checked_time
from ..file.file_view import FileView
from ..file.log_file import LogFile
from .batch_draft import BatchDraft
from .followed_stream import FollowedStream
from .messages import (
    BATCH_BYTES,
    NUMBER_BYTES,
    WRITER_BYTES,
    Message,
    MessageKind,
    cut_batch,
    decode_message,
    mark,
)
from .server_answers import LostRaceError, StreamGoneError
from .stream_successor import StreamSuccessor
from .turn_order import WANTS

# Closing saves a TOC when at least this many bytes follow the last one; fewer are quickly folded.
_CLOSING_TOC_BYTES = 64 * 1024
# Of a batch in parts, the next part is waited for at most this long: then its writer is taken for
# dead.
_PART_PATIENCE = 2.0


class StreamJournal(FollowedStream):
    """The log of a store on a stream, to which this process appends. Made by :meth:`open`."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._draft: BatchDraft | None = None
        self._commands: list[Command] = []
        self._batches = 0
        # When the others were told that this writer waits; 0 once it has had its turn.
        self._told = 0.0

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
            self._wait_for_turn(has_lost=is_fresh)
            self._wait_for_parts()
            draft = BatchDraft(self._file)
            try:
                self._file.catalog.load_tables()
                outcomes = [draft.stage(command, self._now) for command in commands]
            except StreamGoneError:
                self._take_in(self._look())
                continue
            if not draft.size:
                # What refuses them may have changed since.
                last = self._look()
                if last == self._storage.last:
                    return outcomes
                self._take_in(last)
                continue
            if self._publish(draft.data, self._storage.toc, draft):
                return outcomes
            if is_fresh and time.monotonic() >= until:
                raise StoreLockedError(None, self._config.lock_timeout)
            self._check_writable()
            is_fresh = True

    def _publish(self, data: bytes, toc: tuple[int, int], draft: BatchDraft | None = None) -> bool:
        """Append bytes of the log after all that was taken in; return whether nobody was first.

        ``draft``: what they are of, where that is known: then they are not read again.
        """
        batch, at = self._next_batch(), self._storage.size()
        messages = cut_batch(at, toc, batch, data, self.connection.most_payload)
        return self._send(messages, draft)

    def _next_batch(self) -> bytes:
        self._batches += 1
        return self._writer + self._batches.to_bytes(BATCH_BYTES - WRITER_BYTES)

    def _send(self, messages: Sequence[Message], draft: BatchDraft | None = None) -> bool:
        storage, stream, batch = self._storage, self.connection.stream, messages[0].batch
        for message in messages:
            expected, payload = storage.last, message.encode()

            def stored(expected: int = expected) -> bool | None:
                found = self.connection.fetch(stream, expected + 1, 1, expected + 1)
                return decode_message(found[0][1]).batch == batch if found else None

            def is_gone() -> bool:
                self._look()
                return self.connection.stream != stream

            begun = time.monotonic()
            try:
                sequence = self.connection.publish(
                    stream, payload, expected, stored=stored, is_gone=is_gone
                )
            except LostRaceError as lost:
                # From now on, what others append comes without being asked for.
                self.connection.watch()
                # Who was passed over says so again.
                self._told = 0.0
                self._tell_waiting()
                self._take_in(self._look() if lost.last <= expected else lost.last)
                return lost.in_doubt and draft is not None and self._holds(draft)
            now = time.monotonic()
            self._add(sequence, message, now)
            self._order.note_append(now - begun)
            self._told = 0.0
        if draft is None:
            self._fold()
        else:
            self._fold_own(draft)
        return True

    def _holds(self, draft: BatchDraft) -> bool:
        """Return whether the log, which goes on in another stream, has a batch that the stream
        before may have taken. A compaction keeps sequences and times; a batch is there whole."""
        own = draft.own[0][0][0]
        found = self._file.view.events_after(own.sequence - 1, self._config.limits.read_bytes)
        if not found or found[0].time_ns != own.time_ns:
            return False
        is_erased = isinstance(found[0].payload, Erased)
        return is_erased or found[0].session_id == own.session_id

    def _fold_own(self, draft: BatchDraft) -> None:
        """Take in what this process decided, without reading it again."""
        try:
            self._file.take_in_own(draft.derived, draft.own, draft.checksum, draft.state)
        except BaseException as error:
            self.fail(StoreFailedError(f"a batch could not be taken in: {error!r}"))
            raise
        if self.keeps_events:
            for events, _, _, size in draft.own:
                self._staged += [event.without_data() for event in events]
                self._sizes += [*[0] * (len(events) - 1), size]

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
        while self._storage.is_unfinished:
            storage = self._storage
            last = storage.last
            self.connection.watch()
            self.connection.wait_for(last, _PART_PATIENCE)
            self._take_in(self._look())
            if storage.last == last:
                return

    def _wait_for_turn(self, *, has_lost: bool) -> None:
        """Let other writers have their turns, those that use them."""
        order, connection = self._order, self.connection
        while True:
            if connection.news:
                self._take_in(0)
            for writer in connection.take_losers():
                order.note_lost(writer)
            wait = order.wait(has_lost=has_lost)
            if wait is None:
                return
            connection.watch()
            self._tell_waiting()
            if wait.has_begun:
                connection.pause(wait.seconds)
            elif not connection.wait_for(self._storage.last, wait.seconds):
                order.pass_over(wait.writer)
            # Who has waited would only lose while the other one's turn lasts.
            has_lost = True

    def _tell_waiting(self) -> None:
        """Tell the others that this writer waits for its turn, and again while it does."""
        now = time.monotonic()
        if now - self._told > WANTS / 4:
            self._told = now
            self.connection.tell_lost(self._writer)

    def _now(self) -> int:
        """Return the clock's time. It may be before the last event's: sequences are the order."""
        return checked_time(self._config.clock())

    def _save_due(self) -> None:
        """Append a TOC, or a page for one, where it is due. Where somebody else is first, it is
        due again after the next batch. Positions that are due wait for that batch."""
        if self._file.catalog.toc_is_due(self._storage.size()):
            twin = self._file.fork()
            # What is appended already must not fail for it.
            with suppress(StreamGoneError):
                twin.stage_due()
                self._publish_fork(twin)

    def _publish_fork(self, twin: LogFile) -> bool:
        data, slot = twin.staged
        if not data or self._storage.is_unfinished:
            return False
        try:
            toc = (slot.toc, slot.sequence) if slot is not None else self._storage.toc
            return self._publish(data, toc)
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

    # Compaction.

    def begin_compaction(self) -> tuple[StreamSuccessor | MemvidAsyncError, Appended]:
        """Claim the stream for a compaction, and create the one that replaces it.

        What others claimed before is given up by them when they see this.
        """
        self._check()
        self._check_writable()
        now, listed = self._now(), self.connection.own_streams()
        if not self._mark(MessageKind.CLAIM):
            return NotCompactedError(
                "others appended again and again, for too long"
            ), self._all_staged()
        facts, claim = self.connection.facts(), self._storage.claim
        replicas = 1 if facts is None else facts.replicas
        left = [one for one in listed if one != self.connection.stream]
        try:
            successor = StreamSuccessor(
                self.connection, self._file, claim, left, replicas, self._config, now
            )
        except NotCompactedError as error:
            return error, self._all_staged()
        except StoreFailedError as error:
            return NotCompactedError(str(error)), self._all_staged()
        return successor, self._all_staged()

    def install(
        self, successor: StreamSuccessor
    ) -> tuple[CompactReport | MemvidAsyncError | None, Appended]:
        """Copy the rest, continue in the new stream, and delete the old one.

        An error that leaves the stream as it was is returned in place of the report; None when the
        copy cannot be used: another compaction came, or what it lacks was used again.
        """
        self._check()
        before, old = self._file.view.end, self.connection.stream

        def is_copied() -> bool:
            nonlocal before
            before = self._file.view.end
            return self._storage.claim == successor.claim and successor.catch_up(self._file)

        try:
            number = successor.number.to_bytes(NUMBER_BYTES)
            has_moved = self._mark(MessageKind.MOVED, is_copied, number)
        except (CorruptFileError, NotCompactedError) as refusal:
            return refusal, self._all_staged()
        if not has_moved:
            if self._storage.claim == successor.claim:
                successor.discard()
            return None, self._all_staged()
        # Nothing of it is left when this returns, nor of what others left before it.
        stream = self.connection.stream
        for one in {old, *self.connection.own_streams()}:
            if one.number < stream.number:
                self.connection.delete(one)
        state, after = self._file.state, self._file.view.end
        report = CompactReport(before, after, successor.erased, state.generation)
        return report, self._all_staged()

    def _mark(
        self, kind: MessageKind, holds: Callable[[], bool] = lambda: True, data: bytes = b""
    ) -> bool:
        """Append a mark after all that others appended; return whether it is there.

        It is not where ``holds`` does not, or where others are first for ``lock_timeout`` seconds.
        """
        until = time.monotonic() + self._config.lock_timeout
        has_lost = False
        self._take_in(self._look())
        while True:
            self._wait_for_turn(has_lost=has_lost)
            # What came while it waited is looked at too.
            if not holds():
                break
            storage, batch = self._storage, self._next_batch()
            if self._send([mark(kind, storage.size(), storage.toc, batch, data)]):
                self._take_in(0)
                return True
            if time.monotonic() >= until:
                break
            has_lost = True
        return False

    # Failing and closing.

    def _check_writable(self) -> None:
        if self._read_only or self._file.state.beyond:
            why = "it was opened read-only" if self._read_only else "a newer release wrote to it"
            raise StoreReadOnlyError(f"the store cannot be written: {why}")

    def close(self) -> None:
        """Save a TOC where that saves the next opening work."""
        ok = self._failure is None and not self._read_only and not self._file.state.beyond
        if ok and self._file.since_toc >= _CLOSING_TOC_BYTES:
            twin = self._file.fork()
            twin.save_toc()
            self._publish_fork(twin)
