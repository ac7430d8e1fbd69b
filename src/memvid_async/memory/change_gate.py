"""Lets changes of a memory run side by side, and from time to time one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class ChangeGate:
    """``async with gate``: a change, beside others. ``async with gate.alone()``: none beside it.

    It counts the changes of this process only.
    """

    def __init__(self) -> None:
        self._under_way = 0
        self._one_alone = asyncio.Lock()
        # Set while there is one alone, which waits for the changes under way.
        self._idle: asyncio.Event | None = None
        self._opened = asyncio.Event()

    async def __aenter__(self) -> None:
        while self._idle is not None:
            await self._opened.wait()
        self._under_way += 1

    async def __aexit__(self, *_: object) -> None:
        self._under_way -= 1
        if self._idle is not None and not self._under_way:
            self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold new changes, and wait for those under way."""
        async with self._one_alone:
            self._idle, self._opened = asyncio.Event(), asyncio.Event()
            try:
                if self._under_way:
                    await self._idle.wait()
                yield
            finally:
                self._idle = None
                self._opened.set()
