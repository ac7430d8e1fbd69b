"""Deletes what has expired of a LangGraph store, from time to time. See :mod:`.langgraph`."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context

from .. import Collection, MemvidAsyncError, StoreClosedError

_LOG = logging.getLogger(__name__)


class Sweeper:
    """At most one task on the store's event loop, which ends when it is stopped or the store is
    closed. Its methods are called on that loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self, c: Collection, seconds: float) -> asyncio.Task[None]:
        """Sweep at this interval from now on; one that goes on already stays as it is."""
        if self._task is None or self._task.done():
            self._stopping = asyncio.Event()
            # In no session: it is not part of what the agent does that starts it.
            sweeping = _sweep(c, seconds, self._stopping)
            self._task = asyncio.create_task(sweeping, context=Context())
        return self._task

    async def stop(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - as theirs has it
        """Let it end, and return whether it did within this many seconds."""
        self._stopping.set()
        if self._task is None:
            return True
        ended, _ = await asyncio.wait([self._task], timeout=timeout)
        return bool(ended)


async def _sweep(c: Collection, seconds: float, stopping: asyncio.Event) -> None:
    while True:
        try:
            await asyncio.wait_for(stopping.wait(), seconds)
        except TimeoutError:
            pass
        else:
            return
        try:
            await c.sweep()
        except StoreClosedError:
            return
        except MemvidAsyncError:
            _LOG.exception("expired items could not be swept; they are hidden all the same")
