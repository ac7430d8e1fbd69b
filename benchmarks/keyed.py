"""Collections: puts beside recorded tool calls, reads of 100,000 keys, a chat written whole."""

import asyncio
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import cbor2

from memvid_async import Collection, Put, Store, open_store

from .competing import compete
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread

TASKS = 64
PROCESSES, ADDITIONS = 8, 1250
KEYS, PREFIX, CONDITIONED, TURNS = 100_000, 5_000, 2_000, 200
READS = 25
_AT_ONCE = 1000


def run(directory: Path, scale: Scale) -> Result:
    """Measure puts against tool calls, and what reading takes."""
    each = scale.count(TASKS * 100, multiple=TASKS) // TASKS
    contenders = {
        "record_tool_call": lambda: asyncio.run(_durable(directory, _record, each)),
        "put": lambda: asyncio.run(_durable(directory, _put, each)),
    }
    seconds = alternate(contenders, scale.rounds)
    keys = scale.count(KEYS, multiple=_AT_ONCE)
    path = directory / "keys.mva"
    asyncio.run(_fill(path, keys))
    reads = [asyncio.run(_read(path)) for _ in range(scale.rounds)]
    chats = [asyncio.run(_chat(directory)) for _ in range(scale.rounds)]
    figures = [
        Figure(
            case=f"put of a collection, {TASKS} tasks",
            against="record_tool_call",
            values=ratios(seconds["put"], seconds["record_tool_call"]),
            unit="x",
            must=1.3,
            aim=1.1,
            at_least=False,
        ),
        Figure(
            case=f"a chat of {TURNS} turns, written whole with each",
            against="its distinct messages",
            values=chats,
            unit="x",
            must=1.5,
            aim=1.2,
            at_least=False,
        ),
    ]
    must = {"first": 40.0, "get": 0.3, "last ten": 1.0, "$gte": 3.0}
    names = {
        "first": f"the first get after opening, {keys:,} keys",
        "get": f"get by key, {keys:,} keys",
        "last ten": f"the last ten keys of a prefix of {PREFIX:,}",
        "$gte": f"ten of {CONDITIONED:,} by $gte",
    }
    rows = [
        [names[name], *spread([read[name] for read in reads], ".2f"), f"{bound:g}"]
        for name, bound in must.items()
    ]
    longest = [_longest_wait(directory, scale) for _ in range(scale.rounds)]
    case = f"the longest wait of {PROCESSES} processes that change one key on a condition"
    rows.append([case, *spread(longest, ".0f"), "1000"])
    columns = ("read", "ms, median", "least", "most", "must be at most")
    note = f"A sample is the median of {READS} reads, but for the first one and the longest wait."
    detail = Detail(title="Reading collections", columns=columns, rows=rows, note=note)
    return Result(figures=figures, details=[detail])


async def _durable(
    directory: Path, work: Callable[[Store, int, int], Awaitable[None]], each: int
) -> float:
    """Return the seconds that the tasks take, each doing ``each`` durable calls."""
    path = directory / "puts.mva"
    path.unlink(missing_ok=True)
    async with open_store(path) as store, store.session():
        start = time.perf_counter()
        await asyncio.gather(*(work(store, task, each) for task in range(TASKS)))
        return time.perf_counter() - start


async def _record(store: Store, _task: int, each: int) -> None:
    for n in range(each):
        await store.record_tool_call("tool", arguments={"n": n, "text": "hello"}, result="ok")


async def _put(store: Store, task: int, each: int) -> None:
    collection = store.collection("puts")
    for n in range(each):
        await collection.put(f"{task}/{n}", {"n": n, "text": "hello"})


def _longest_wait(directory: Path, scale: Scale) -> float:
    """Return the milliseconds that the slowest change took, all its attempts together."""
    path = directory / "competing.mva"
    path.unlink(missing_ok=True)
    return max(compete(path, PROCESSES, scale.count(ADDITIONS))) * 1e3


async def _fill(path: Path, keys: int) -> None:
    async with open_store(path) as store:
        many, few = store.collection("many"), store.collection("few")
        for begin in range(0, keys, _AT_ONCE):
            puts = [
                Put(f"{n // PREFIX:04}/{n:06}", {"n": n}) for n in range(begin, begin + _AT_ONCE)
            ]
            await many.apply(puts)
        await few.apply([Put(f"{n:04}", n, {"score": n}) for n in range(CONDITIONED)])


async def _read(path: Path) -> dict[str, float]:
    """Return the milliseconds that each kind of read takes."""
    copy = path.with_suffix(".copy")
    shutil.copy(path, copy)
    taken = {}
    async with open_store(copy, read_only=True) as store:
        many, few = store.collection("many"), store.collection("few")
        start = time.perf_counter()
        await many.get(f"{0:04}/{7:06}")
        taken["first"] = (time.perf_counter() - start) * 1e3
        taken["get"] = await _median(lambda: many.get(f"{0:04}/{9:06}"))
        taken["last ten"] = await _median(lambda: _scanned(many, f"{0:04}/", {}))
        taken["$gte"] = await _median(
            lambda: _scanned(few, "", {"score": {"$gte": CONDITIONED - 10}})
        )
    return taken


async def _scanned(collection: Collection, prefix: str, where: dict[str, object]) -> None:
    found = [one async for one in collection.scan(prefix, reverse=True, limit=10, where=where)]
    assert len(found) == 10


async def _median(read: Callable[[], Awaitable[object]]) -> float:
    taken = []
    for _ in range(READS):
        start = time.perf_counter()
        await read()
        taken.append((time.perf_counter() - start) * 1e3)
    return statistics.median(taken)


async def _chat(directory: Path) -> float:
    """Return the size of a file with a chat, per byte of its distinct messages."""
    path = directory / "chat.mva"
    path.unlink(missing_ok=True)
    chat: list[dict[str, str]] = []
    async with open_store(path) as store:
        collection = store.collection("chats")
        for turn in range(TURNS):
            chat.append({"role": "user", "content": f"turn {turn} " + "words of it " * 42})
            await collection.write_list("chat", chat)
        size = store.statistics().file_bytes
    return size / sum(len(cbor2.dumps(message)) for message in chat)
