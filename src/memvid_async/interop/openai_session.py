"""Conversations of the OpenAI Agents SDK, in a collection. See :mod:`.openai_agents`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from agents import SessionSettings
from attrs import frozen

from .. import Collection, Store, SyncStore, VersionConflictError
from .collection_bridge import Bridge

T = TypeVar("T")


class MemvidSession:
    """A conversation of the Agents SDK: a list in a collection.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; it is not closed.
    ``session_settings``: the SDK's, or a dict of theirs. ``collection``: the collection's name.

    Several processes may use one conversation at once; each item that was added is in it once, and
    popped once. A compaction of the SDK replaces the end of the conversation in one command, unless
    something came meanwhile.
    """

    def __init__(
        self,
        session_id: str,
        store: Store | SyncStore,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
        collection: str = "openai-agents",
    ) -> None:
        self.session_id = session_id
        self.session_settings: SessionSettings | None = SessionSettings().resolve(session_settings)
        self._bridge = Bridge(store, collection)

    async def get_items(self, limit: int | None = None) -> list[Any]:
        """Return the last ``limit`` items, oldest first; by default as many as the settings say."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit

        async def read(c: Collection) -> list[Any]:
            # A negative limit is none, as in the SDK's own sessions.
            if limit is None or limit < 0:
                return await c.items(self.session_id)
            return await c.tail(self.session_id, limit)

        return await self._bridge.run(read, fresh=True)

    async def add_items(self, items: list[Any]) -> None:
        """Add items, all of them or none."""
        if items:
            await _settled(self._bridge.run(lambda c: c.append(self.session_id, items)))

    async def pop_item(self) -> Any:
        """Take off the last item, and return it; None when there is none."""
        return await _settled(self._bridge.run(lambda c: c.pop(self.session_id), fresh=True))

    async def clear_session(self) -> None:
        """Delete all items. ``compact()`` erases the bytes."""
        await _settled(self._bridge.run(lambda c: c.delete(self.session_id)))

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[Any], bool] | None = None
    ) -> _Snapshot | None:
        """Return the last items, and what replaces those from one of them on: the SDK's compaction
        asks for it by this name. ``prune_prefix``: which of the items before are dropped then."""
        if type(self) is not MemvidSession:
            # What a subclass adds would be passed by.
            return None
        value = await self._bridge.run(lambda c: c.get(self.session_id), fresh=True)
        items, version = ([], 0) if value is None else (value.data, value.version)
        start = max(0, len(items) - limit)

        async def replace_suffix(first: int, output: list[Any]) -> bool:
            keep = start + first
            if keep >= len(items):
                return False
            pruned = 0
            while prune_prefix is not None and pruned < keep and prune_prefix(items[pruned]):
                pruned += 1
            new, kept = (output, keep) if not pruned else ([*items[pruned:keep], *output], 0)
            write = partial(
                Collection.write_list,
                key=self.session_id,
                items=new,
                keep=kept,
                if_version=version,
            )
            try:
                await self._bridge.run(write)
            except VersionConflictError:
                return False
            return True

        return _Snapshot(items[start:], start == 0, replace_suffix)


@frozen
class _Snapshot:
    """The last items of a conversation. ``complete``: whether they are all of them.

    ``replace_suffix(first, output)`` replaces those from ``first`` on by ``output``; returns
    whether the conversation was still the same.
    """

    items: list[Any]
    complete: bool
    replace_suffix: Callable[[int, list[Any]], Awaitable[bool]]


async def _settled(change: Coroutine[Any, Any, T]) -> T:
    """Await a change; cancelled, raise that once the change is made: the SDK reads it then."""
    made = asyncio.ensure_future(change)
    try:
        return await asyncio.shield(made)
    except asyncio.CancelledError:
        while not made.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([made])
        if not made.cancelled():
            made.exception()
        raise
