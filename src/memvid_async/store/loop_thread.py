"""The thread of a store for synchronous code, and its event loop."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress

from ..errors import WrongLoopError
from .opening import OpenStore
from .portal import Portal
from .store import Store

_CLOSE_SECONDS = 5.0


class LoopThread:
    """A thread with an event loop, on which a store is opened and closed."""

    def __init__(self, opening: OpenStore) -> None:
        self._opening = opening
        self._opened: Future[tuple[Portal, Store]] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="memvid_async loop", daemon=True)

    @property
    def is_open(self) -> bool:
        """Whether the thread, and with it the store, has not ended."""
        return self._thread.is_alive()

    def start(self) -> tuple[Portal, Store]:
        """Open the store, and return it with the way to its loop."""
        self._thread.start()
        try:
            return self._opened.result()
        except BaseException:
            self.stop()
            raise

    def _run(self) -> None:
        try:
            asyncio.run(self._keep_open())
        except BaseException as error:  # noqa: BLE001 - it is raised where the store is closed
            self._failure = error
            if not self._opened.done():
                self._opened.set_exception(error)

    async def _keep_open(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with self._opening as store:
            self._opened.set_result((Portal(), store))
            del store
            await self._stopping.wait()

    def stop(self) -> None:
        """Let the thread close the store, and wait a moment for that; from any thread."""
        loop, stopping = self._loop, self._stopping
        if loop is None or stopping is None or not self._thread.is_alive():
            return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(stopping.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSE_SECONDS)

    def close(self, portal: Portal, store: Store) -> None:
        """Close the store, wait until the thread has ended, and raise what closing raised."""
        if portal.is_foreign:
            # The thread and the file are the parent's; this marks the store as closed.
            with suppress(StopIteration):
                store.aclose().send(None)
            return
        if threading.current_thread() is self._thread:
            raise WrongLoopError("a store cannot be closed on its own event loop")
        self.stop()
        self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
