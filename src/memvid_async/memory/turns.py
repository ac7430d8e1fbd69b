"""Turns: who won a condition on a key lets others go first, where processes compete for it.

The winner has the newest version at once, and the lock is free; the others first have to see that
they lost. Without a pause one process would win many times in a row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

# A lost condition says that others compete, for this many seconds.
_COMPETING_S = 1.0
# The first pause, in seconds. Each win in a row doubles it, at most this often.
_PAUSE_S, _MOST_DOUBLINGS = 0.004, 5


class Turns:
    """The turns of one store at conditions on keys."""

    def __init__(self) -> None:
        self._won_version = -1
        self._in_a_row = 0
        self._lost_at = -_COMPETING_S

    async def wait(self, checks: Iterable[tuple[str, int]]) -> None:
        """Wait before a condition is decided that follows the store's own last win."""
        if not any(version == self._won_version for _, version in checks):
            return
        if asyncio.get_running_loop().time() - self._lost_at < _COMPETING_S:
            pause = _PAUSE_S * 2 ** min(self._in_a_row, _MOST_DOUBLINGS)
            self._in_a_row += 1
            await asyncio.sleep(pause)

    def won(self, version: int) -> None:
        """Note that a condition held; ``version``: what the keys have now."""
        self._won_version = version

    def lost(self, version: int) -> None:
        """Note that a condition did not hold; ``version``: what the key has. A store's own tasks
        may have competed."""
        if version == self._won_version:
            return
        self._in_a_row = 0
        self._lost_at = asyncio.get_running_loop().time()
