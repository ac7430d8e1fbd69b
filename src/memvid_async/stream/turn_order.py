"""Whose turn it is to append, among processes that want to: who lost a race says so to the others.

A turn lasts some messages, because handing it over costs more than an append. The next one is that
of the writer whose last message is the oldest, among those that lost. Others leave it a moment.
Nothing depends on this but time: who is not first loses, and who says that it wants to and then
does not is waited for once.
"""

from __future__ import annotations

import time
from typing import NamedTuple

# A writer that lost wants its turn for this many seconds.
WANTS = 1.0
# While others want to, one writer appends for this many seconds, and at least this many messages.
_TURN, _LEAST_MESSAGES = 0.02, 4
# A turn that is not used is over after this many times what an append takes, within these bounds in
# seconds.
_IDLE_FACTOR, _LEAST_IDLE, _MOST_IDLE = 8, 0.005, 0.1
# How many writers are remembered.
_MOST_WRITERS = 1024


class Wait(NamedTuple):
    """For whom to wait, and how long."""

    writer: bytes
    """The other one."""
    seconds: float
    """For so long it may append. Then it is asked again."""
    has_begun: bool
    """Whether it has its turn already: then its next message changes nothing."""


class TurnOrder:
    """The order of the writers, as one of them (``own``) sees it."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        # Of each writer the place of its last message among those seen here.
        self._last: dict[bytes, int] = {}
        self._seen = 0
        # Of each writer that lost, when it said so.
        self._wanting: dict[bytes, float] = {}
        # Whose turn it is, since when, how many messages it has sent, and when the last one came.
        self._holder = own
        self._since = self._at = 0.0
        self._count = 0
        self._append_time = 0.0

    def note(self, writer: bytes, at: float) -> None:
        """Note that a message of this writer came, at this time of the monotonic clock."""
        self._at = at
        if writer != self._holder:
            self._holder, self._since, self._count = writer, at, 0
        self._count += 1
        self._seen += 1
        self._last.pop(writer, None)
        self._last[writer] = self._seen
        if len(self._last) > _MOST_WRITERS:
            del self._last[next(iter(self._last))]
        self._wanting.pop(writer, None)

    def note_lost(self, writer: bytes) -> None:
        """Note that a writer said that it lost."""
        if writer != self._own:
            self._wanting[writer] = time.monotonic()

    def note_append(self, seconds: float) -> None:
        """Note how long an append took."""
        self._append_time += (seconds - self._append_time) / 8

    def wait(self, *, has_lost: bool) -> Wait | None:
        """Return for which writer to wait; None for none.

        ``has_lost``: whether the caller has lost a race for what it wants to append.
        """
        now = time.monotonic()
        idle = min(max(_IDLE_FACTOR * self._append_time, _LEAST_IDLE), _MOST_IDLE)
        quiet = self._at + idle - now
        is_mine = self._holder == self._own
        if is_mine and quiet <= 0:
            # It was not used for a while: a new one begins.
            self._since, self._count = now, 0
        left = self._since + _TURN - now
        if left <= 0 and self._count < _LEAST_MESSAGES:
            left = idle
        if left > 0:
            if is_mine or quiet <= 0 or not (has_lost or self._wanting):
                return None
            return Wait(self._holder, min(left, quiet), has_begun=True)
        mine = self._last.get(self._own, 0)
        for writer, said in list(self._wanting.items()):
            if said < now - WANTS:
                del self._wanting[writer]
            elif self._last.get(writer, 0) < mine:
                return Wait(writer, idle, has_begun=False)
        return None

    def pass_over(self, writer: bytes) -> None:
        """Note that a writer did not use its turn."""
        self._wanting.pop(writer, None)
