"""The stores that are compared.

Each provides an agent with a function that records one ask and returns when it is durable.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from memvid_async import Durability, Store, StoreConfig, open_store

from .samples import Ask, record

Record = Callable[[Ask], Awaitable[object]]


class Contender(Protocol):
    """One open store: `agent(name)` returns the recording function of one of its users."""

    def agent(self, name: str) -> AbstractAsyncContextManager[Record]:
        """Enter one user's session."""

    async def flush(self) -> None:
        """Return when all that was recorded is durable."""


Opener = Callable[[Path], AbstractAsyncContextManager[Contender]]


class Ours:
    """A session of its own per agent."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Record]:
        async with self._store.session(name) as recorder:
            yield partial(record, recorder)

    async def flush(self) -> None:
        await self._store.sync()


@asynccontextmanager
async def ours(path: Path, durability: Durability = Durability.SYNC) -> AsyncIterator[Ours]:
    """Open `memvid_async` as it comes: durable when the await returns."""
    async with open_store(path, config=StoreConfig(durability=durability)) as store:
        yield Ours(store)


class Aiosqlite:
    """One connection, a row and a commit per action; tasks that commit together share a sync."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Record]:
        connection = self._connection
        statement = "INSERT INTO actions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"

        async def record(ask: Ask) -> None:
            frames = ",".join(map(str, ask.retrieved_frames))
            values = (name, time.time_ns(), "ask", ask.query, ask.response, ask.provider, ask.model)
            await connection.execute(statement, (*values, ask.duration_ms, frames))
            await connection.commit()

        yield record

    async def flush(self) -> None:
        await self._connection.commit()


@asynccontextmanager
async def aiosqlite(path: Path) -> AsyncIterator[Aiosqlite]:
    """Open aiosqlite in WAL mode with `synchronous=FULL`, which syncs the log at every commit."""
    import aiosqlite as library

    async with library.connect(path) as connection:
        await connection.execute("PRAGMA journal_mode=WAL")
        await connection.execute("PRAGMA synchronous=FULL")
        await connection.execute(
            "CREATE TABLE actions (id INTEGER PRIMARY KEY, session TEXT, time_ns INTEGER,"
            " kind TEXT, query TEXT, response TEXT, provider TEXT, model TEXT,"
            " duration_ms INTEGER, frames TEXT)"
        )
        await connection.commit()
        yield Aiosqlite(connection)


class LangGraph:
    """One thread per agent, one checkpoint per action."""

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    @asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Record]:
        from langgraph.checkpoint.base import empty_checkpoint

        config: Any = {"configurable": {"thread_id": name, "checkpoint_ns": ""}}

        async def record(ask: Ask) -> None:
            checkpoint = empty_checkpoint()
            checkpoint["channel_values"] = {
                "query": ask.query,
                "response": ask.response,
                "provider": ask.provider,
                "model": ask.model,
                "duration_ms": ask.duration_ms,
                "retrieved_frames": list(ask.retrieved_frames),
            }
            await self._saver.aput(config, checkpoint, {"source": "loop", "step": 1}, {})

        yield record

    async def flush(self) -> None:
        """Every `aput` commits."""


@asynccontextmanager
async def langgraph(path: Path) -> AsyncIterator[LangGraph]:
    """Open LangGraph's `AsyncSqliteSaver`, made to sync at every commit as the others do."""
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    async with AsyncSqliteSaver.from_conn_string(str(path)) as saver:
        await saver.setup()
        await saver.conn.execute("PRAGMA synchronous=FULL")
        yield LangGraph(saver)


async def race(opener: Opener, path: Path, asks: list[Ask], tasks: int) -> float:
    """Record `asks` from `tasks` tasks at once; return the seconds until all are durable.

    Opening, starting and ending the agents' sessions is not timed.
    """
    async with opener(path) as contender:
        barrier = asyncio.Barrier(tasks + 1)

        async def work(number: int) -> None:
            async with contender.agent(f"agent {number}") as record:
                await barrier.wait()
                for ask in asks[number::tasks]:
                    await record(ask)
                await barrier.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                group.create_task(work(number))
            await barrier.wait()
            start = time.perf_counter()
            await barrier.wait()
            await contender.flush()
            return time.perf_counter() - start
