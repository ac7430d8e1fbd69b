"""The processes of the kill torture: writers that are to die, and followers that are not.

An ack is written to a pipe after the store's; what the other end has read, the store has promised.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import sys
import traceback
import zlib
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import attrs
from attrs import frozen

from memvid_async import (
    RecordingConfig,
    SessionEndedError,
    SessionNotFoundError,
    SessionRecorder,
    Store,
    StoreConfig,
    open_store,
)
from memvid_async.file import catalog as index
from memvid_async.file import log_file as logfile
from memvid_async.file import open_table
from memvid_async.file.journal import Journal
from memvid_async.file.log_file import LogFile
from memvid_async.format.tables import Table
from tests.torture.faults import Fuse
from tests.torture.values import make

CHECKPOINT_EVERY = 5
# The collection in which every writer has a key.
COUNTS = "counts"


@frozen
class Orders:
    """What a writer does, and when it dies.

    ``kill``: "time" (by the parent), "call" (before storage call ``at``), "write" (in write ``at``,
    ``share`` of it done), "toc", "compact", "close" (``at`` calls after that began), "system" (by
    strace) or "none". Sessions of writers below ``oldest`` may be deleted or resumed.
    """

    writer: int
    kill: str
    at: int = 0
    share: float = 0.0
    actions: int = 10
    at_once: int = 1
    resumes: bool = False
    deletes: int = 0
    compacts: bool = False
    oldest: int = 0


def tighten() -> None:
    """Bounds so low that a short life meets every kind of segment. For all openers of a file."""
    index.TOC_LEAST_BYTES, index.TOC_FACTOR = 6000, 1
    index.CHUNK, index.MARK_BYTES = 8, 2000
    index.PAGE_ROWS = dict.fromkeys(Table, 4) | {Table.CONTENTS: 8, Table.MARKS: 8}
    open_table.PAGE_BYTES, open_table.LEAST_PAGES = 200, 1
    logfile._RESERVE, logfile._MOST_RESERVE = 4096, 16384


def _light_fuse(orders: Orders) -> None:
    if orders.kill == "call":
        Fuse(orders.at).install()
    elif orders.kill == "write":
        Fuse(orders.at, orders.share, only="write").install()
    elif orders.kill in ("toc", "compact", "close"):
        owner = LogFile if orders.kill == "toc" else Journal
        name = "save_toc" if orders.kill == "toc" else orders.kill
        Fuse(orders.at, orders.share, armed=False).install().arm_at(owner, name)


Ack = Callable[..., None]


def _acks_to(pipe: int) -> Ack:
    def ack(*what: Any) -> None:
        os.write(pipe, json.dumps(what).encode() + b"\n")

    return ack


async def write(path: str, orders: Orders, ack: Ack) -> None:
    """Live as ordered."""
    draw = random.Random(orders.writer)
    config = StoreConfig(id_factory=lambda: UUID(int=orders.writer), lock_timeout=60.0)
    async with open_store(path, config=config) as store:
        ack("opened")
        others = await store.list_sessions(include_open=True)
        old = [s for s in others if s.session_id.int < orders.oldest]
        left_open = [s for s in old if s.ended_ns is None]
        if orders.resumes and left_open:
            recorder = store.resume_session(draw.choice(left_open).session_id)
        else:
            recorder = store.session(
                f"writer {orders.writer}",
                RecordingConfig(auto_checkpoint_interval=CHECKPOINT_EVERY),
            )
        # Another one may delete or end a session that we resumed.
        try:
            async with recorder:
                session = recorder.session_id.int
                ack("entered", session)
                half = orders.actions // 2
                await _record(store, recorder, orders, range(half), ack)
                await _tidy(store, orders, draw, [s.session_id for s in old], ack)
                await _record(store, recorder, orders, range(half, orders.actions), ack)
            ack("left", session)
        except (SessionEndedError, SessionNotFoundError):
            if not orders.resumes:
                raise
    ack("closed")


async def _record(
    store: Store, recorder: SessionRecorder, orders: Orders, numbers: range, ack: Ack
) -> None:
    """Record actions; after each batch a key of a collection says how many there are."""
    session, counts = recorder.session_id.int, store.collection(COUNTS)
    for first in range(numbers.start, numbers.stop, orders.at_once):
        calls: list[Awaitable[Any]] = []
        some = range(first, min(first + orders.at_once, numbers.stop))
        for number in some:
            made = make(orders.writer, number)
            calls.append(getattr(recorder, made.method)(*made.args, **made.keywords))
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for number, answer in zip(some, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            ack("action", answer.sequence, orders.writer, number, session)
        version = await counts.put(f"{orders.writer}", some.stop, metadata={"batch": len(some)})
        ack("counted", version, orders.writer, some.stop)


async def _tidy(
    store: Store, orders: Orders, draw: random.Random, old: list[UUID], ack: Ack
) -> None:
    for session_id in draw.sample(old, min(orders.deletes, len(old))):
        try:
            await store.delete_session(session_id)
        except SessionNotFoundError:
            continue
        ack("deleted", session_id.int)
    if orders.compacts:
        ack("compacted", (await store.compact()).generation)


def times_hash(sequence: int, time_ns: int, before: int) -> int:
    """What stays of an event for ever, rolled into one number."""
    return zlib.crc32(struct.pack("<QQ", sequence, time_ns), before)


async def follow(path: str, orders: int, ack: Ack) -> None:
    """Follow until the pipe ``orders`` names a sequence; tell the hash of all up to there."""
    loop = asyncio.get_running_loop()
    until = 0

    def told() -> None:
        nonlocal until
        until = int(os.read(orders, 100) or b"-1")
        loop.remove_reader(orders)
        if last >= until:
            waiting.set()

    waiting = asyncio.Event()
    last = rolled = 0
    loop.add_reader(orders, told)
    config = StoreConfig(poll_interval=0.005)
    async with open_store(path, config=config, read_only=True) as store:

        async def consume() -> None:
            nonlocal last, rolled
            async with store.subscribe() as events:
                async for event in events:
                    if event.sequence != last + 1:
                        raise AssertionError(f"{event.sequence} came after {last}")
                    last = event.sequence
                    rolled = times_hash(last, event.time_ns, rolled)
                    if until and last >= until:
                        return

        consuming = asyncio.create_task(consume())
        met = asyncio.create_task(waiting.wait())
        await asyncio.wait({consuming, met}, return_when=asyncio.FIRST_COMPLETED)
        if consuming.done():
            consuming.result()
        for task in (consuming, met):
            task.cancel()
        await asyncio.wait({consuming, met})
    ack("followed", last, rolled)


def _live(job: Callable[[Ack], Awaitable[None]], pipe: int) -> int:
    ack = _acks_to(pipe)
    try:
        asyncio.run(job(ack))  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - the parent is told
        ack("failed", traceback.format_exc())
        return 1
    return 0


def fork(path: str, orders: Orders | int, close: list[int]) -> tuple[int, int]:
    """A child that writes, or (given a pipe) follows; its pid, and the pipe with its acks."""
    heard, pipe = os.pipe()
    pid = os.fork()
    if pid:
        os.close(pipe)
        return pid, heard
    status = 1
    try:
        for descriptor in (*close, heard):
            os.close(descriptor)
        if isinstance(orders, Orders):
            _light_fuse(orders)
            status = _live(lambda ack: write(path, orders, ack), pipe)
        else:
            status = _live(lambda ack: follow(path, orders, ack), pipe)
    finally:
        os._exit(status)


def main() -> int:
    """A writer in an interpreter of its own, for strace: path and orders as arguments."""
    tighten()
    orders = Orders(**json.loads(sys.argv[2]))
    return _live(lambda ack: write(sys.argv[1], orders, ack), 1)


def as_argument(orders: Orders) -> str:
    return json.dumps(attrs.asdict(orders))


if __name__ == "__main__":
    sys.exit(main())
