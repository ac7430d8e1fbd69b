"""The keys of collections that a store has open: the live ones, and those of past moments.

They are folded and read in a thread of their own, so that a get waits neither for the loop nor for
the search index of the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..config import Limits
from ..engine.engine import Engine
from ..engine.worker import Worker
from ..engine.writer import Writer
from ..recording.command_intake import CommandIntake
from ..search import DamagedSearchIndexError, KeptKey, KeyIndex
from .folded_keys import FoldedKeys
from .projection_saver import ProjectionSaver
from .seen_keys import SeenKeys
from .turns import Turns

T = TypeVar("T")
# After this many bytes were put, the index is folded, and saved where that is due.
_LOOK_BYTES = 1024 * 1024
LIVE = 2**63


class KeyRecall:
    """Reads collections for a store and its views."""

    def __init__(self, engine: Engine, intake: CommandIntake, limits: Limits) -> None:
        self._engine = engine
        self._most_open = limits.open_memories
        self._live = FoldedKeys()
        self._past: dict[int, FoldedKeys] = {}
        self.turns = Turns()
        self.seen = SeenKeys()
        self._worker = Worker("memvid_async keys")
        self._saver = ProjectionSaver(engine, intake, self._worker, self._live, _LOOK_BYTES)

    def _folded(self, until: int) -> FoldedKeys:
        if until >= LIVE:
            return self._live
        found = self._past.pop(until, None) or FoldedKeys(until)
        # The most recently used one is last.
        self._past[until] = found
        while len(self._past) > self._most_open:
            self._past.pop(next(iter(self._past))).close()
        return found

    def _read(self, until: int, call: Callable[[FoldedKeys, KeyIndex], T]) -> tuple[T, int]:
        folded = self._folded(until)
        view = self._engine.written_view
        try:
            return call(folded, folded.catch_up(view)), view.state.last_sequence
        except DamagedSearchIndexError:
            # A saved index may load, fold, and still be wrong. The events are not.
            folded.start_again(view)
            return call(folded, folded.catch_up(view)), view.state.last_sequence

    async def read(
        self, call: Callable[[FoldedKeys, KeyIndex], T], until: int = LIVE
    ) -> tuple[T, int]:
        """Return what ``call`` returns for the keys as of now (or after the event ``until``), made
        in the thread; and the sequence of the last event that they may have."""
        await self._engine.fresh_view()
        return await self._worker.run(self._read, until, call)

    async def newest(self, number: int, now: int, where: Any) -> list[KeptKey]:
        """Return the keys of a collection, those that changed last first, without their values."""
        found, _ = await self.read(lambda _, index: index.newest(number, now, where))
        return found

    def note_put(self, size: int) -> None:
        """Count ``size`` bytes that were put; from time to time, fold them and save the index."""
        self._saver.note_put(size)

    def leave(self) -> None:
        """Release the file that a compaction replaced."""
        if not self._saver.closing:
            self._worker.start(self._leave)

    def _leave(self) -> None:
        view = self._engine.written_view
        for folded in (self._live, *self._past.values()):
            folded.leave(view)

    async def finish(self, writer: Writer | None) -> None:
        """Save the index a last time where that is due, and close everything."""
        self._live.expect_closing()
        try:
            await self._saver.finish(writer)
        finally:
            for folded in (self._live, *self._past.values()):
                self._worker.start(folded.close)
            self._worker.stop()
