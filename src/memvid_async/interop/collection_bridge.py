"""A collection for frameworks that call from any thread or event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from .. import Collection, KeySearch, Store, StoreConfig, SyncStore, open_store
from .given_store import GivenStore

T = TypeVar("T")


class Bridge:
    """A store's collection, for its own event loop, for others and for threads."""

    def __init__(
        self, store: Store | SyncStore, collection: str, search: KeySearch | None = None
    ) -> None:
        self._given = GivenStore(store)
        self.sync = self._given.sync
        self._name = collection
        self._search = search

    async def run(self, call: Callable[[Collection], Awaitable[T]], *, fresh: bool = False) -> T:
        """Await ``call(collection)`` on the store's loop; ``fresh``: it sees what any process had
        acked before."""
        if self._given.own is not None and self._given.is_here:
            return await self._made(self._given.own, call, fresh=fresh)
        return await asyncio.wrap_future(self.submit(call, fresh=fresh))

    def wait(self, call: Callable[[Collection], Awaitable[T]], *, fresh: bool = False) -> T:
        """Wait for ``call(collection)`` in a thread that is not the loop's.

        :raises InvalidStateError: in the loop's own thread, which would wait for itself.
        """
        if self._given.is_here:
            raise asyncio.InvalidStateError(
                "this would wait for the event loop that it runs on; call the method that begins "
                "with 'a' and await it"
            )
        return self.submit(call, fresh=fresh).result()

    def either(self, call: Callable[[Collection], Awaitable[T]]) -> Any:
        """Return ``call(collection)``: to be awaited on the store's loop, waited for elsewhere."""
        return self.run(call) if self._given.is_here else self.wait(call)

    def submit(
        self, call: Callable[[Collection], Awaitable[T]], *, fresh: bool = False
    ) -> Future[T]:
        """Start ``call(collection)`` in a task of its own, from any thread, and do not wait."""
        return self.sync.submit(lambda store: self._made(store, call, fresh=fresh))

    async def _made(
        self, store: Store, call: Callable[[Collection], Awaitable[T]], *, fresh: bool
    ) -> T:
        if fresh:
            await store.refresh()
        return await call(store.collection(self._name, search=self._search))


class OpenFrom:
    """Opens a file for one adapter, in a ``with`` or an ``async with`` block.

    ``end``: what is awaited on the adapter before the file is closed; without a loop around the
    block, what the adapter began ends with the store's own loop.
    """

    def __init__(
        self,
        make: Callable[[Store | SyncStore], Any],
        path: str | os.PathLike[str],
        config: StoreConfig | None,
        end: Callable[[Any], Awaitable[object]] | None = None,
    ) -> None:
        self._make = make
        self._path = path
        self._config = config
        self._end = end
        self._made: Any = None
        self._sync: SyncStore | None = None
        self._store: Store | None = None

    def __enter__(self) -> Any:
        self._sync = SyncStore.open(self._path, config=self._config)
        return self._make(self._sync)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._sync is not None:
            self._sync.close()

    async def __aenter__(self) -> Any:
        self._store = await open_store(self._path, config=self._config)
        self._made = self._make(self._store)
        return self._made

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._store is not None:
            try:
                if self._end is not None:
                    await self._end(self._made)
            finally:
                await self._store.aclose()


def part(name: object) -> str:
    """Return a part of a key, so that different names never make the same key."""
    return str(name).replace("%", "%25").replace("/", "%2f")


def name_of(encoded: str) -> str:
    """Return the name in a part of a key."""
    return encoded.replace("%2f", "/").replace("%25", "%")
