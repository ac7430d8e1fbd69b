"""A store of either kind, as an adapter is given it."""

from __future__ import annotations

import asyncio

from .. import Store, SyncStore


class GivenStore:
    """A :class:`Store`, on its event loop, or a :class:`SyncStore`.

    ``sync``: the store for any thread. ``own``: the asyncio store; None where there is none.
    """

    def __init__(self, store: Store | SyncStore) -> None:
        self.own = store if isinstance(store, Store) else None
        self.sync = SyncStore.of(store) if isinstance(store, Store) else store
        self._loop = asyncio.get_running_loop() if self.own is not None else None

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on the event loop of the asyncio store, where nothing may wait
        for it."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False
