"""A reader's cursor: it catches up from the file, then continues live from the in-memory log."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

import anyio
from attrs import evolve

from ..core.state import State
from ..errors import MemvidAsyncError
from ..events.event import Erased, Event, SessionDeleted
from .event_log import Pending
from .home import Home
from .tail import Tail

# At most this many events are taken from the in-memory log at a time.
_TAKE = 256

# Begins to read events above a sequence from the file, of one session (its number) or of all
# (None). Results in them, and the sequence up to which there are no others.
ReadEvents = Callable[[int, int | None], Pending[tuple[list[Event], int]]]


class Subscription(AsyncIterator[Event]):
    """Events in order, without a gap or a repeat, as soon as they are durable.

    Use it in an ``async with`` block. It ends after the last durable event when the store is
    closed; the file stays open for reading until then. It holds at most ``Limits.read_bytes`` and
    one segment. The writer never waits for it: a subscription that is slower than the in-memory log
    reads from the file.
    """

    def __init__(
        self,
        tail: Tail,
        read: ReadEvents,
        state: Callable[[], State],
        failure: Callable[[], MemvidAsyncError | None],
        home: Home,
        *,
        after: int,
        session: int | None,
    ) -> None:
        self.last_sequence = after
        self._tail = tail
        self._read = read
        self._state = state
        self._failure = failure
        self._home = home
        self._session = session
        # The last sequence taken into the buffer, or skipped as another session's.
        self._cursor = after
        self._buffer: deque[Event] = deque()
        # A read after ``_cursor`` that has begun. A cancelled task leaves it to the next one: who
        # waits for an event for a moment only, again and again, has no second read made meanwhile.
        self._reading: Pending[tuple[list[Event], int]] | None = None
        self._delivered = after
        self._progress = anyio.Event()
        self._filling = anyio.Lock()
        self._entered = self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "caught up" if self.caught_up else "behind"
        return f"<Subscription: {state}, last delivered event {self.last_sequence:,}>"

    async def __aenter__(self) -> Self:
        if not self._entered:
            self._entered = True
            self._tail.enter()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    @property
    def caught_up(self) -> bool:
        """Whether every durable event has been delivered."""
        return not self._buffer and self._cursor >= self._tail.last_sequence

    async def wait_caught_up(self) -> None:
        """Return once every event that is durable now has been delivered, or it is closed.

        Another task must iterate over the subscription meanwhile.
        """
        self._home.check()
        self._home.check_task()
        target = self._tail.last_sequence
        while self._delivered < target and not self._closed:
            await self._progress.wait()

    async def aclose(self) -> None:
        """Stop delivering; iteration ends. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._buffer.clear()
        self._reading = None
        if self._home.is_here:
            self._leave()
        else:
            # On a loop that has ended nobody waits any more.
            with suppress(RuntimeError):
                self._home.loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        self._progress.set()
        self._tail.wake()
        if self._entered:
            self._tail.leave()

    async def __anext__(self) -> Event:
        """Return the next event.

        :raises CorruptFileError: when the file is damaged where the event should be.
        :raises StoreFailedError: when the store failed; all durable events were delivered before.
        """
        while not self._buffer:
            if self._closed:
                raise StopAsyncIteration
            self._home.check()
            self._home.check_task()
            # Two tasks may share a subscription: each event goes to one of them.
            async with self._filling:
                if not self._buffer and not self._closed:
                    await self._fill()
        event = self._buffer.popleft()
        self.last_sequence = event.sequence
        session = event.session
        if (
            session
            and session not in self._state().sessions
            and not isinstance(event.payload, SessionDeleted)
        ):
            return evolve(event, payload=Erased(), session_id=None, session=0)
        return event

    async def _fill(self) -> None:
        """Take the next events into the buffer; wait when there are none."""
        tail, cursor = self._tail, self._cursor
        self._delivered = cursor
        self._progress.set()
        self._progress = anyio.Event()
        head = tail.last_sequence
        if cursor >= head:
            await self._wait()
            return
        events = tail.after(cursor, _TAKE)
        if events is not None:
            self._cursor = events[-1].sequence
            if self._session is not None:
                events = [event for event in events if event.session == self._session]
        else:
            events, self._cursor = await self._read_on(cursor)
        self._buffer.extend(events)

    async def _read_on(self, cursor: int) -> tuple[list[Event], int]:
        if self._reading is None:
            self._reading = self._read(cursor, self._session)
        try:
            found = await self._reading.wait()
        except Exception:
            self._reading = None
            raise
        self._reading = None
        return found

    async def _wait(self) -> None:
        if self._tail.closed:
            await self.aclose()
            failure = self._failure()
            if failure is not None:
                raise failure
            return
        await self._tail.wait()
