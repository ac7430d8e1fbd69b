"""The in-memory log: the newest durable events, for live subscribers, and their wake-up."""

from __future__ import annotations

from collections.abc import Callable

import anyio

from ..core.appended import Appended
from ..events.event import Event


class Tail:
    """A bounded tail of the log, in memory. Older events are read from the file.

    ``last_sequence``: of the newest event. ``readers``: how many subscriptions are entered.
    ``tail_bytes``: the size of the events held. ``on_end`` is called once after :meth:`close`, when
    the last reader has left. ``on_rewritten`` is called when a compaction has replaced the log.
    ``on_readers`` is told how many there are, at each change.

    Events are kept only while there are readers: a hundred thousand objects that nobody reads would
    cost the garbage collector a quarter of the writer's speed.
    """

    def __init__(
        self, last_sequence: int, tail_bytes: int, on_end: Callable[[], None] = lambda: None
    ) -> None:
        self.last_sequence = last_sequence
        self.closed = False
        self.readers = 0
        self._on_end = on_end
        self.on_rewritten: Callable[[], object] = lambda: None
        self.on_readers: Callable[[int], object] = lambda _: None
        self._ended = False
        self.tail_bytes = 0
        self._most = tail_bytes
        self._events: list[Event] = []
        self._sizes: list[int] = []
        self._news: anyio.Event | None = None

    def __len__(self) -> int:
        return len(self._events)

    def publish(self, appended: Appended) -> None:
        """Add events that became durable, and wake the readers that wait for them."""
        if appended.rewritten:
            # The rewritten log has other versions of the events in memory.
            self._forget()
            self.on_rewritten()
        before, self.last_sequence = self.last_sequence, appended.last_sequence
        if self.last_sequence == before:
            return
        # A reader that came meanwhile reads the others from the file.
        if self.readers and len(appended.added) == self.last_sequence - before:
            self._events += appended.events
            self._sizes += appended.sizes
            self.tail_bytes += sum(appended.sizes)
            if self.tail_bytes > self._most:
                self._trim()
        elif self._events:
            self._forget()
        self.wake()

    def _forget(self) -> None:
        self._events, self._sizes, self.tail_bytes = [], [], 0

    def _trim(self) -> None:
        """Drop events down to three quarters of the bound, so that the lists are rarely moved."""
        keep, drop = self._most * 3 // 4, 0
        while self.tail_bytes > keep:
            self.tail_bytes -= self._sizes[drop]
            drop += 1
        del self._events[:drop]
        del self._sizes[:drop]

    def after(self, sequence: int, most: int) -> list[Event] | None:
        """Return at most ``most`` events above ``sequence``; None when they have left memory."""
        start = sequence + 1 - (self.last_sequence + 1 - len(self._events))
        if start < 0:
            return None
        return self._events[start : start + most]

    def enter(self) -> None:
        """Count one more reader."""
        self.readers += 1
        self.on_readers(self.readers)

    def leave(self) -> None:
        """Count one reader less; the last one of a closed tail ends it."""
        self.readers -= 1
        self.on_readers(self.readers)
        self._end_if_last()

    def close(self) -> None:
        """Expect no more events, and call ``on_end`` once there are no readers."""
        self.closed = True
        self.wake()
        self._end_if_last()

    def _end_if_last(self) -> None:
        if self.closed and not self.readers and not self._ended:
            self._ended = True
            self._on_end()

    def wake(self) -> None:
        """Let all waiting readers look again."""
        if self._news is not None:
            self._news.set()
            self._news = None

    async def wait(self) -> None:
        """Return after the next :meth:`publish`, :meth:`close` or :meth:`wake`."""
        if self._news is None:
            self._news = anyio.Event()
        await self._news.wait()
