"""An open event log: its writer or follower, its tail, and the thread that reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

from ..config import StoreConfig
from ..errors import MemvidAsyncError, StoreClosedError, StoreReadOnlyError
from ..events.event import Event
from .event_log import EventLog, Pending, View
from .follower import Follower
from .home import Home, Stays, running_loop
from .subscription import Subscription
from .tail import Tail
from .worker import Worker
from .writer import Writer

T = TypeVar("T")


class Engine(Stays):
    """The open log that all parts of a store share. Made on the event loop.

    ``reads``: the thread that reads views and prepares large arguments.
    """

    def __init__(
        self, log: EventLog, reads: Worker, config: StoreConfig, *, read_only: bool
    ) -> None:
        self.log = log
        self.reads = reads
        self._read_bytes = config.limits.read_bytes
        self.tail = Tail(log.view.state.last_sequence, config.limits.tail_bytes, log.release)
        log.note_readers(0)
        self.tail.on_readers = log.note_readers
        self.home = Home()
        self.writer = None if read_only else Writer(log, self.tail, config, self.home)
        self._follower = Follower(log, self.tail) if read_only else None
        self.closed = False

    # Looking.

    @property
    def view(self) -> View:
        """The log as last taken in, including events that are only staged."""
        engine = self.writer or self._follower
        assert engine is not None
        return engine.view

    @property
    def written_view(self) -> View:
        """The log as last taken in, as far as it is durable."""
        return self.view if self.writer is None else self.writer.written_view

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why the log can no longer be written or followed; None while it can."""
        engine = self.writer or self._follower
        assert engine is not None
        return engine.failure

    def check_open(self) -> None:
        """Return if the log can be read here.

        :raises WrongLoopError: when the caller is not on the event loop that opened the log.
        :raises StoreClosedError, StoreFailedError, CorruptFileError: when it cannot be read.
        """
        self.home.check()
        if self.writer is not None and not self.closed:
            self.writer.check()
        if self._follower is not None and self._follower.failure is not None:
            raise self._follower.failure
        if self.closed or self.tail.closed:
            raise StoreClosedError("the store is closed")

    async def fresh_view(self) -> View:
        """Return a view of all that is readable now.

        Staged events are written first, so that a task reads what it wrote. A follower catches up.
        """
        self.check_open()
        self.home.check_task()
        if self.writer is not None:
            if self.writer.dirty:
                await self.sync()
            # Other tasks may have staged something meanwhile, which this view leaves out.
            return self.writer.written_view
        if self._follower is not None:
            await self._follower.catch_up()
        return self.view

    async def read(self, call: Callable[..., T], *args: Any) -> T:
        """Return the result of ``call(view, *args)``: on a fresh view, in the reading thread."""
        view = await self.fresh_view()
        return await self.reads.run(call, view, *args)

    async def sync(self) -> None:
        """Return once everything recorded before this call is durable.

        :raises StoreFailedError: when it cannot be made so.
        :raises StoreReadOnlyError: in a read-only store.
        """
        if self.writer is None:
            raise StoreReadOnlyError("the store was opened read-only")
        self.home.check()
        self.home.check_task()
        await self.writer.submit(None, 0)

    async def refresh(self) -> None:
        """Return once this store knows everything that any process had acked before this call:
        searches, reads, lists and properties then show it.

        Without it a store open for writing knows what others recorded when it next records
        something itself, or a moment later (``StoreConfig.poll_interval``) once it was searched
        or has a subscriber. It costs a lock and an unlock when there is nothing new. A read-only
        store takes no lock: what a BUFFERED store acked it knows once that has written it.

        :raises StoreLockedError: when another process kept the lock too long.
        :raises StoreReadOnlyError: when a newer release wrote what this one cannot fold.
        :raises StoreClosedError, StoreFailedError, CorruptFileError: when it cannot be read.
        """
        self.check_open()
        self.home.check_task()
        if self.writer is not None:
            # A batch of no commands: the log is caught up with under its lock, as for any other.
            await self.writer.submit_call(lambda log: log.commit(()))
        elif self._follower is not None:
            await self._follower.catch_up()

    def watch(self) -> None:
        """From now on, look regularly for what other processes append."""
        if self.writer is not None:
            self.writer.watch()

    # Streaming.

    def subscribe(self, after: int, number: int | None) -> Subscription:
        """Subscribe to events above the sequence ``after``, of one session ``number`` or all."""
        self.watch()
        return Subscription(
            self.tail,
            self._read_events,
            lambda: self.view.state,
            lambda: self.failure,
            self.home,
            after=after,
            session=number,
        )

    def _read_events(self, after: int, number: int | None) -> Pending[tuple[list[Event], int]]:
        view, limit = self.view, self._read_bytes
        # The folded state may be ahead of what is durable; a reader must not skip that part.
        durable = self.tail.last_sequence

        def read() -> tuple[list[Event], int]:
            if number is not None:
                events, reached = view.session_events(number, after, limit)
                return events, min(reached, durable)
            events = view.events_after(after, limit)
            return events, events[-1].sequence

        return self.reads.start(read)

    # Closing.

    async def aclose(self, finish: Callable[[Writer | None], Awaitable[None]]) -> None:
        """Write what is queued, end the subscriptions and release the log. Safe to call twice.

        The first call begins with ``finish``, while the log can still be written. On another event
        loop it is done on the store's own; where that has ended, what is left is released, and
        ``finish`` gets no writer. In a forked child nothing is done: the file is the parent's.

        :raises StoreFailedError: when events that a buffered store has acked could not be written.
        :raises WrongLoopError: when the store's loop neither runs nor has ended.
        """
        home = self.home
        if home.is_foreign:
            self.closed = True
        elif home.has_ended:
            await self._close_after_loop(finish)
        elif home.is_here or running_loop() is None or not home.loop.is_running():
            home.check()
            await self._close_here(finish)
        else:
            closing = asyncio.run_coroutine_threadsafe(self._close_here(finish), home.loop)
            await asyncio.wrap_future(closing)

    async def _close_after_loop(self, finish: Callable[[Writer | None], Awaitable[None]]) -> None:
        """Release the log. What the loop's end did not cancel can do nothing any more."""
        was_closed, self.closed = self.closed, True
        try:
            if not was_closed:
                await finish(None)
            if self.writer is not None:
                self.writer.check_written()
        finally:
            self.log.release()
            await self.log.wait_released()

    async def _close_here(self, finish: Callable[[Writer | None], Awaitable[None]]) -> None:
        with anyio.CancelScope(shield=True):
            was_closed, self.closed = self.closed, True
            try:
                if not was_closed:
                    await finish(self.writer)
                if self.writer is not None:
                    await self.writer.aclose()
                if self._follower is not None:
                    await self._follower.aclose()
            finally:
                await self.log.wait_released()
