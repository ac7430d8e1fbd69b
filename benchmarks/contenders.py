"""The stores that are compared.

Each provides an agent with a function that records one ask and returns when it is durable.
"""

import asyncio
import io
import json
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from attrs import asdict, frozen

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


_PRAGMAS = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
_CREATE = (
    "CREATE TABLE actions (id INTEGER PRIMARY KEY, session TEXT, time_ns INTEGER, kind TEXT,"
    " query TEXT, response TEXT, provider TEXT, model TEXT, duration_ms INTEGER, frames TEXT)"
)
_INSERT = "INSERT INTO actions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def _values(name: str, ask: Ask) -> tuple[Any, ...]:
    frames = ",".join(map(str, ask.retrieved_frames))
    values = (name, time.time_ns(), "ask", ask.query, ask.response, ask.provider, ask.model)
    return (*values, ask.duration_ms, frames)


class Aiosqlite:
    """One connection, a row and a commit per action; tasks that commit together share a sync."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Record]:
        connection = self._connection

        async def record(ask: Ask) -> None:
            await connection.execute(_INSERT, _values(name, ask))
            await connection.commit()

        yield record

    async def flush(self) -> None:
        await self._connection.commit()


@asynccontextmanager
async def aiosqlite(path: Path) -> AsyncIterator[Aiosqlite]:
    """Open aiosqlite in WAL mode with `synchronous=FULL`, which syncs the log at every commit."""
    import aiosqlite as library

    async with library.connect(path) as connection:
        for statement in (*_PRAGMAS, _CREATE):
            await connection.execute(statement)
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


class GroupCommit:
    """What somebody writes by hand in forty lines: `sqlite3` in a thread, and one commit for all
    that wait."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[None]]] = []
        self._wake, self._path, self._closing = threading.Event(), path, False
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        for statement in (*_PRAGMAS, _CREATE):
            connection.execute(statement)
        while not self._closing:
            self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            if batch:
                connection.execute("BEGIN")
                connection.executemany(_INSERT, [values for values, _ in batch])
                connection.execute("COMMIT")
                self._loop.call_soon_threadsafe(self._done, [future for _, future in batch])
        connection.close()

    @staticmethod
    def _done(futures: list[asyncio.Future[None]]) -> None:
        for future in futures:
            if not future.done():
                future.set_result(None)

    @asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Record]:
        async def record(ask: Ask) -> None:
            future = self._loop.create_future()
            self._waiting.append((_values(name, ask), future))
            self._wake.set()
            await future

        yield record

    async def flush(self) -> None:
        """Every record is committed when its await returns."""

    def close(self) -> None:
        self._closing = True
        self._wake.set()
        self._thread.join()


@asynccontextmanager
async def group_commit(path: Path) -> AsyncIterator[GroupCommit]:
    """Open the forty lines, in WAL mode with `synchronous=FULL` as aiosqlite is."""
    store = GroupCommit(path)
    try:
        yield store
    finally:
        await asyncio.to_thread(store.close)


class Lines:
    """A line of JSON and a `fdatasync` per action, in a thread; one at a time."""

    def __init__(self, descriptor: int, encode: Callable[[str, Ask], bytes]) -> None:
        self._descriptor, self._encode = descriptor, encode
        self._lock = asyncio.Lock()

    def _append(self, data: bytes) -> None:
        os.write(self._descriptor, data)
        os.fdatasync(self._descriptor)

    @asynccontextmanager
    async def agent(self, name: str) -> AsyncIterator[Record]:
        async def record(ask: Ask) -> None:
            data = self._encode(name, ask)
            async with self._lock:
                await asyncio.to_thread(self._append, data)

        yield record

    async def flush(self) -> None:
        """Every line is synced when its await returns."""


@asynccontextmanager
async def jsonl(path: Path) -> AsyncIterator[Lines]:
    """Open a file of lines of JSON."""

    def encode(name: str, ask: Ask) -> bytes:
        fields = {"session": name, "time_ns": time.time_ns(), "kind": "ask", **asdict(ask)}
        return json.dumps(fields).encode() + b"\n"

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield Lines(descriptor, encode)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def mcap(path: Path) -> AsyncIterator[Lines]:
    """Open mcap, a container of robots' messages: JSON too, each message whole and synced."""
    from mcap.writer import Writer

    buffer = io.BytesIO()
    writer = Writer(buffer, use_chunking=False)
    writer.start()
    schema = writer.register_schema("ask", "jsonschema", b"{}")
    channels: dict[str, int] = {}

    def encode(name: str, ask: Ask) -> bytes:
        if name not in channels:
            channels[name] = writer.register_channel(name, "json", schema)
        now = time.time_ns()
        writer.add_message(channels[name], now, json.dumps(asdict(ask)).encode(), now)
        data = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return data

    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield Lines(descriptor, encode)
    finally:
        writer.finish()  # type: ignore[no-untyped-call, unused-ignore]
        os.write(descriptor, buffer.getvalue())
        os.close(descriptor)


OPENERS: dict[str, Opener] = {
    "memvid_async": ours,
    "buffered": partial(ours, durability=Durability.BUFFERED),
    "aiosqlite": aiosqlite,
    "forty lines of sqlite3": group_commit,
    "AsyncSqliteSaver": langgraph,
    "JSONL, a sync a line": jsonl,
    "mcap, a sync a message": mcap,
}
# Of each contender the package that it needs, beside those of the library.
PACKAGES = {
    "aiosqlite": "aiosqlite",
    "AsyncSqliteSaver": "langgraph.checkpoint.sqlite",
    "mcap, a sync a message": "mcap",
}


@frozen
class Race:
    """What a race took: seconds in all, and of each action seconds until its await returned."""

    seconds: float
    latencies: list[float]


async def race(opener: Opener, path: Path, asks: list[Ask], tasks: int) -> Race:
    """Record `asks` from `tasks` tasks at once, until all are durable.

    Opening, starting and ending the agents' sessions is not timed.
    """
    async with opener(path) as contender:
        barrier = asyncio.Barrier(tasks + 1)
        latencies: list[float] = []

        async def work(number: int) -> None:
            clock, note = time.perf_counter, latencies.append
            async with contender.agent(f"agent {number}") as record:
                await barrier.wait()
                for ask in asks[number::tasks]:
                    begun = clock()
                    await record(ask)
                    note(clock() - begun)
                await barrier.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(tasks):
                group.create_task(work(number))
            await barrier.wait()
            start = time.perf_counter()
            await barrier.wait()
            await contender.flush()
            return Race(time.perf_counter() - start, latencies)
