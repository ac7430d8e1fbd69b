"""Waiting until an agent has reacted to what it was told.

What a task does next, and what those do that wait for it, takes turns of the event loop: one for
the task, two more for each task, group or gather around it. It has settled when nothing on the loop
can go on without outside help: a thread, a timer, a file. Only then is it told the next thing. So
what it makes of one thing never depends on how soon the next one comes, and it makes the same of it
when it is told again from a recording.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from weakref import WeakKeyDictionary

MOST_TURNS = 32
"""How many turns an agent has at most, where something else keeps the loop busy, or where the loop
does not show what is ready (uvloop's). It is enough for reactions through a dozen nested tasks."""


class _OnLoop:
    """How many settlings wait on a loop: each has a callback that is ready, and none is a
    reaction."""

    count = 0


_WAITING = WeakKeyDictionary[asyncio.AbstractEventLoop, _OnLoop]()


class Settling:
    """Calls back once the agent has settled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # What asyncio's own loops call next. It is only looked at.
        self._ready: Sequence[object] | None = getattr(loop, "_ready", None)
        self._waiting = _WAITING.setdefault(loop, _OnLoop())
        self._left = 0
        self._then: Callable[[], None] | None = None

    @property
    def is_under_way(self) -> bool:
        """Whether something was told to which the agent may still react."""
        return self._left > 0

    def start(self, then: Callable[[], None]) -> None:
        """Call ``then`` once the agent has settled; one that is under way starts again."""
        if not self._left:
            self._waiting.count += 1
            self._loop.call_soon(self._turn)
        self._left, self._then = MOST_TURNS, then

    def _turn(self) -> None:
        self._left -= 1
        if self._left and (self._ready is None or len(self._ready) >= self._waiting.count):
            self._loop.call_soon(self._turn)
            return
        self._left = 0
        self._waiting.count -= 1
        then, self._then = self._then, None
        if then is not None:
            then()
