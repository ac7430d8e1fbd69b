"""Long work in a thread: it tells how far it is, and ends early where its call is cancelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio

from ..engine.home import Home
from ..engine.worker import Worker
from ..errors import StoreFailedError
from ..stream.client_loop import ClientLoops

T = TypeVar("T")


async def run_telling(
    what: str, progress: Callable[[int, int], None] | None, work: Callable[..., T], *given: Any
) -> T:
    """Return what ``work`` returns, called with what is given, what makes the loops of its
    connections, and a function that tells how far it is.

    ``what``: the work's name. ``progress`` is called on the loop with what is told. Where the call
    is cancelled, the next telling raises in the thread, and so does waiting for a server; its end
    is waited for.
    """
    loop, stopped, client_loops = Home().loop, threading.Event(), ClientLoops()

    def tell(done: int, total: int) -> None:
        if stopped.is_set():
            raise StoreFailedError(f"the {what} was cancelled")
        if progress is not None:
            loop.call_soon_threadsafe(progress, done, total)

    worker = Worker(f"memvid_async {what}")
    job = worker.start(work, *given, client_loops, tell)
    try:
        return await job.wait()
    except asyncio.CancelledError:
        stopped.set()
        client_loops.interrupt()
        with anyio.CancelScope(shield=True), suppress(Exception):
            await job.wait()
        raise
    finally:
        worker.stop()
