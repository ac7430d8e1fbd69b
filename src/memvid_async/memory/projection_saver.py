"""Folding and saving a projection from time to time, while others write."""

from __future__ import annotations

import asyncio
from typing import Protocol

from ..engine.engine import Engine
from ..engine.event_log import View
from ..engine.worker import Worker
from ..engine.writer import Writer
from ..errors import MemvidAsyncError
from ..recording.command_intake import CommandIntake
from .folded import Due


class Saveable(Protocol):
    """A projection that is saved. All of it is called in the thread that folds it."""

    @property
    def is_open(self) -> bool:
        """Whether it has folded anything yet."""
        ...

    @property
    def most_unsaved(self) -> int:
        """How many bytes may be put while a save goes on."""
        ...

    def due(self, view: View) -> Due | None:
        """Fold a view, and return what :meth:`EventLog.save_projection` takes, if it is due."""
        ...

    def saved(self, at: int) -> None:
        """Note where it was saved; 0 when it was not."""
        ...

    def rest(self) -> None:
        """Release what saving needs."""
        ...


class ProjectionSaver:
    """Folds what was put, after every ``look_bytes`` of it, and saves the projection when that is
    due. ``worker``: the thread that folds it.
    """

    def __init__(
        self,
        engine: Engine,
        intake: CommandIntake,
        worker: Worker,
        live: Saveable,
        look_bytes: int,
    ) -> None:
        self._engine = engine
        self._intake = intake
        self._worker = worker
        self._live = live
        self._look_bytes = look_bytes
        self._put_bytes = 0
        self._saving: asyncio.Task[None] | None = None
        self.closing = False

    def note_put(self, size: int) -> None:
        """Count ``size`` bytes that were put; from time to time, fold them and save the index."""
        self._put_bytes += size
        if self._put_bytes >= self._look_bytes and self._saving is None and not self.closing:
            self._put_bytes = 0
            self._saving = asyncio.create_task(self._save(), name="memvid_async index")
            self._saving.add_done_callback(self._saved)

    async def wait_for_room(self, size: int) -> None:
        """Return once ``size`` more bytes may be put while a save goes on.

        So what must be folded again after a kill stays a small part of all.
        """
        while self._saving is not None and self._put_bytes + size > self._live.most_unsaved:
            await asyncio.wait([self._saving])
            # Its callback may start the next one.
            await asyncio.sleep(0)

    def _saved(self, task: asyncio.Task[None]) -> None:
        self._saving = None
        if not task.cancelled() and task.exception() is None:
            # What was put meanwhile does not wait for the next put.
            self.note_put(0)
        if not self._is_saving and not self.closing:
            self._worker.start(self._live.rest)

    @property
    def _is_saving(self) -> bool:
        return self._saving is not None

    async def _save(self) -> None:
        try:
            due = await self._worker.run(lambda: self._live.due(self._engine.written_view))
        except MemvidAsyncError:
            # Nothing is lost: the next reader folds again, and raises the error.
            return
        if due is None:
            return
        dump, saved_at = due, 0
        try:
            saved_at = await self._intake.run_alone(lambda log: log.save_projection(*dump))
        except MemvidAsyncError:
            # The index can be folded again, and the next write raises the error.
            return
        finally:
            self._worker.start(self._live.saved, saved_at)

    async def finish(self, writer: Writer | None) -> None:
        """Save the index a last time where that is due; begin no save from now on."""
        self.closing = True
        if self._saving is not None and writer is not None:
            await asyncio.wait([self._saving])
        used = self._live.is_open or self._put_bytes
        if used and writer is not None and writer.failure is None:
            await self._save()
