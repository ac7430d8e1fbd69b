"""How far a call walks through the house: `python -m scripts.walks`.

Traced are the call events of all threads, in order of time, of functions under
`src/memvid_async`. A room is a folder there, or a module beside them; a change of room is two
calls in a row in different rooms. Every walk is warm: the same was done before it is traced.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

from attrs import Factory, define

import memvid_async
from memvid_async import Store, open_store
from memvid_async.file import log_file

SOURCE = f"{Path(memvid_async.__file__).parent}/"
ASK: dict[str, Any] = {
    "provider": "p",
    "model": "m",
    "response": "Me.",
    "duration_ms": 1.5,
    "task": "walk",
}


@define
class Walk:
    """The rooms that a call went through: one entry for each function it called, in order."""

    name: str
    rooms: list[str] = Factory(list)

    @property
    def room_count(self) -> int:
        """How many rooms there are in it."""
        return len(set(self.rooms))

    @property
    def changes(self) -> int:
        """How often it goes from one room to another."""
        return sum(here != there for here, there in pairwise(self.rooms))


class Tracer:
    """Traces one call at a time, in the threads that were started while it is :meth:`installed`."""

    def __init__(self) -> None:
        self.walks: list[Walk] = []
        self._walk: Walk | None = None

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Have the interpreter report the calls of this thread, and of those that it starts."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)
        try:
            yield
        finally:
            threading.setprofile(None)
            sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, _argument: object) -> None:
        file = frame.f_code.co_filename
        if self._walk is not None and event == "call" and file.startswith(SOURCE):
            self._walk.rooms.append(file[len(SOURCE) :].split("/")[0].removesuffix(".py"))

    async def trace(self, name: str, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await ``call()`` and keep what it went through; its result."""
        self._walk = Walk(name)
        try:
            return await call()
        finally:
            self.walks.append(self._walk)
            self._walk = None


async def walks(folder: Path) -> list[Walk]:
    """The six walks that `docs/design.md` has a table of."""
    tracer = Tracer()
    # A slot is due from time to time, and belongs to no walk.
    never = patch.multiple(log_file, _SLOT_BYTES=2**62, _SLOT_NS=2**62)
    with tracer.installed(), never:
        await _record_and_replay(tracer, folder / "walk.mva")
        await _open_and_follow(tracer, folder / "walk.mva")
    return tracer.walks


async def _record_and_replay(tracer: Tracer, path: Path) -> None:
    async with open_store(path) as store:
        async with store.session("warm") as warm:
            for _ in range(3):
                await store.record_ask("Who?", **ASK)
                await store.put("the quick brown fox jumps")
                await store.find("quick fox")
            await tracer.trace("record_ask", lambda: store.record_ask("Who?", **ASK))
            await tracer.trace("put", lambda: store.put("a lazy dog sleeps"))
            await tracer.trace("a recorded find", lambda: store.find("lazy dog"))
        async with store.session("six actions") as six:
            await store.put("one more fox")
            await store.find("fox")
            for _ in range(4):
                await store.record_ask("Who?", **ASK)
        await store.replay(warm.session_id).report()
        await tracer.trace("replay of six actions", store.replay(six.session_id).report)


async def _open_and_follow(tracer: Tracer, path: Path) -> None:
    async def reopened() -> Store:
        return await open_store(path)

    store = await tracer.trace("open_store", reopened)
    async with (
        store,
        open_store(path, read_only=True) as follower,
        follower.subscribe(follower.last_sequence) as events,
        store.session("followed") as followed,
    ):
        await anext(events)
        await followed.record_ask("Who?", **ASK)
        await anext(events)
        await followed.record_ask("Who?", **ASK)
        await tracer.trace("an event at a follower", events.__anext__)


def table(found: list[Walk]) -> list[str]:
    """The walks as the lines of a table."""
    rows = [f"| {walk.name} | {walk.room_count} | {walk.changes} |" for walk in found]
    return ["| walk | rooms | changes |", "|---|---|---|", *rows]


def main() -> None:
    """Print the walks as a table."""
    with tempfile.TemporaryDirectory() as folder:
        print(*table(asyncio.run(walks(Path(folder)))), sep="\n")


if __name__ == "__main__":
    main()
