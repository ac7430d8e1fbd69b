"""The memory: putting, finding, views, opening, and what it costs to hold it."""

import asyncio
import json
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from attrs import frozen

from memvid_async import Store, open_store, recover
from memvid_async.search.query import parse
from memvid_async.search.ranking import WEIGHTS
from memvid_async.search.schema import TOKENIZERS

from . import samples
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread

DOCUMENTS, BATCH, REPEATS = 50_000, 1_000, 25
QUERIES = {
    "two rare words": "document77 coroutine",
    "three common words": "function object value",
    "a natural question": "How does the import system find a module that is inside a package?",
}


@frozen
class Built:
    """A file that a child put documents into, and by how much the child grew."""

    path: Path
    count: int
    growth: int
    size: int


@cache
def built(directory: Path, scale: Scale, *, kill: bool) -> Built:
    """A store of documents, searched once; its process was closed or killed."""
    path = directory / f"frames-{'killed' if kill else 'closed'}"
    count = scale.count(DOCUMENTS)
    command = [sys.executable, "-m", "benchmarks.frames_child", str(path), str(count)]
    with subprocess.Popen(command + ["--hold"] * kill, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if kill:
            child.send_signal(signal.SIGKILL)
    if not line or child.returncode != (-signal.SIGKILL if kill else 0):
        raise RuntimeError(f"the child that puts documents ended with {child.returncode}")
    report = json.loads(line)
    return Built(path, count, report["growth"], report["size"])


def run(directory: Path, scale: Scale) -> Result:
    """Measure every figure of the memory."""
    results = [
        bulk(directory, scale),
        finding(directory, scale),
        views(directory, scale),
        opening(directory, scale),
    ]
    closed = built(directory, scale, kill=False)
    held = Figure(
        case="memory",
        against=f"the bytes of {closed.count:,} documents in a searched memory",
        values=[closed.growth / closed.size],
        unit="x",
        must=4,
        at_least=False,
    )
    return Result(
        figures=[*(figure for result in results for figure in result.figures), held],
        details=[detail for result in results for detail in result.details],
    )


# How late the loop is.


class Lateness:
    """How much later than asked a timer of a millisecond comes, in milliseconds."""

    def __init__(self) -> None:
        self.most = 0.0


@asynccontextmanager
async def lateness() -> AsyncIterator[Lateness]:
    """Watch the loop while the block runs."""
    seen = Lateness()

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            seen.most = max(seen.most, (time.perf_counter() - start - 0.001) * 1e3)

    watcher = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])


# The benchmarks.


def bulk(directory: Path, scale: Scale) -> Result:
    """Documents a second, durable, a thousand at a time; and how late the loop is meanwhile."""
    documents = samples.documents(scale.count(DOCUMENTS))
    late: dict[str, list[float]] = {"a thousand a call": [], "all in one call": []}

    async def put(how: str) -> float:
        path = directory / "bulk"
        batch = BATCH if how == "a thousand a call" else len(documents)
        async with open_store(path) as store, lateness() as seen:
            start = time.perf_counter()
            for at in range(0, len(documents), batch):
                await store.put_many(documents[at : at + batch])
            seconds = time.perf_counter() - start
            # Folds what was put last, too.
            await store.find("object")
        late[how].append(seen.most)
        path.unlink()
        return len(documents) / seconds

    runs = {how: partial(_run_put, put, how) for how in late}
    found = alternate(runs, scale.rounds)
    rates = found["a thousand a call"]
    count = len(documents)
    figures = [
        Figure(
            case="bulk put",
            against=f"{count:,} documents of about 300 bytes, {BATCH:,} a call",
            values=rates,
            unit="documents/s",
            must=20_000,
        ),
        *(
            Figure(
                case="the loop",
                against=f"the latest timer while they are put, {how}, and then found",
                values=times,
                unit="ms",
            )
            for how, times in late.items()
        ),
    ]
    rows = [[how, "documents/s", *spread(rates)] for how, rates in found.items()]
    rows += [[how, "latest timer, ms", *spread(times, ".1f")] for how, times in late.items()]
    columns = ("put_many", "what", "median", "least", "most")
    note = "Durable when each call returns; the index is folded meanwhile."
    return Result(
        figures=figures, details=[Detail(title="Bulk put", columns=columns, rows=rows, note=note)]
    )


def _run_put(put: Callable[[str], Coroutine[Any, Any, float]], how: str) -> float:
    return asyncio.run(put(how))


def bare_table(documents: list[str]) -> sqlite3.Connection:
    """The same documents in an FTS5 table with the columns of the memory's, and their texts."""
    table = sqlite3.connect(":memory:")
    columns = f"body, title, tags, uri, tokenize='{TOKENIZERS['english']}'"
    table.execute(f"CREATE VIRTUAL TABLE w USING fts5({columns})")
    table.executemany("INSERT INTO w (rowid, body) VALUES (?, ?)", enumerate(documents, 1))
    return table


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    """The median of some calls, in seconds."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        await call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def finding(directory: Path, scale: Scale) -> Result:
    """A find beside the bare query; a put beside the record of an ask, and a find after it."""
    closed = built(directory, scale, kill=False)
    table = bare_table(samples.documents(closed.count))
    path = directory / "finding"
    shutil.copyfile(closed.path, path)
    asks = samples.asks(2 * REPEATS * scale.rounds)
    late: list[float] = []

    def bare(query: str) -> float:
        score = f"bm25(w, {', '.join(map(str, WEIGHTS))})"
        marked = "snippet(w, 0, '[', ']', '…', 32)"
        columns = f"rowid, {score} AS score, {marked}, title, uri"
        statement = f"SELECT {columns} FROM w WHERE w MATCH ? ORDER BY score LIMIT 10"
        match, taken = parse(query).match, []
        for _ in range(REPEATS):
            start = time.perf_counter()
            table.execute(statement, (match,)).fetchall()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken)

    with asyncio.Runner() as runner:
        store = runner.run(_open(path))
        runner.run(store.find("warm"))
        finds: dict[str, Callable[[], float]] = {}
        for name, query in QUERIES.items():
            finds[name] = lambda query=query: runner.run(_find(store, query, late))  # type: ignore[misc]
            finds[f"{name}, bare"] = lambda query=query: bare(query)  # type: ignore[misc]
        found = alternate(finds, scale.rounds)
        numbers = iter(asks)
        runner.run(store.start_session("asks"))
        puts: dict[str, Callable[[], float]] = {
            "ask record": lambda: runner.run(timed(lambda: samples.record(store, next(numbers)))),
            "put": lambda: runner.run(timed(lambda: store.put(next(numbers).response))),
            "find after a put": lambda: runner.run(_find_after_put(store)),
        }
        put = alternate(puts, scale.rounds)
        runner.run(store.aclose())
    table.close()
    path.unlink()
    figures = [
        Figure(
            case=f"find, {name}",
            against=f"the bare FTS5 query over {closed.count:,} documents",
            values=ratios(found[name], found[f"{name}, bare"]),
            unit="x",
            must=1.2,
            at_least=False,
        )
        for name in QUERIES
    ]
    figures += [
        Figure(
            case="the loop",
            against="the latest timer while searching",
            values=late,
            unit="ms",
        ),
        Figure(
            case="put",
            against=f"the record of an ask, in a store of {closed.count:,}",
            values=ratios(put["put"], put["ask record"]),
            unit="x",
            must=2,
            at_least=False,
        ),
    ]
    rows = [
        [name, *spread([second * 1e3 for second in taken], ".2f")]
        for name, taken in {**found, **put}.items()
    ]
    columns = ("what", "ms, median", "least", "most")
    note = (
        f"A sample is the median of {REPEATS} calls, through the store. The bare query returns ids,"
        " scores, snippets, titles and URIs of ten rows, from a table that holds the texts and has"
        " the columns and weights of the memory's. What was put is found by the next find."
    )
    return Result(
        figures=figures, details=[Detail(title="Finding", columns=columns, rows=rows, note=note)]
    )


async def _find(store: Store, query: str, late: list[float]) -> float:
    seconds = await timed(lambda: store.find(query))
    async with lateness() as seen:
        for _ in range(5):
            await store.find(query)
    late.append(seen.most)
    return seconds


async def _find_after_put(store: Store) -> float:
    taken = []
    for _ in range(REPEATS):
        word = f"newest{store.last_sequence}"
        frame_id = await store.put(f"{word} of all")
        start = time.perf_counter()
        result = await store.find(word)
        taken.append(time.perf_counter() - start)
        assert [hit.frame_id for hit in result.hits] == [frame_id]
    return statistics.median(taken)


async def _open(path: Path) -> Store:
    return await open_store(path)


def views(directory: Path, scale: Scale) -> Result:
    """The first and the next find in a view of a store that grew as much again since."""
    closed = built(directory, scale, kill=False)
    path = directory / "views"
    shutil.copyfile(closed.path, path)
    query = QUERIES["a natural question"]

    async def measure(sequence: int) -> tuple[float, float, float]:
        async with open_store(path) as store:
            view = await store.at(sequence=sequence)
            start = time.perf_counter()
            await view.find("warm")
            first = time.perf_counter() - start
            await store.find("warm")
            return (
                first,
                await timed(lambda: view.find(query)),
                await timed(lambda: store.find(query)),
            )

    async def grow() -> int:
        async with open_store(path) as store:
            before = store.last_sequence
            more = samples.documents(closed.count, seed=2)
            for at in range(0, len(more), BATCH):
                await store.put_many(more[at : at + BATCH])
        return before

    grown_from = asyncio.run(grow())
    taken = [asyncio.run(measure(grown_from)) for _ in range(scale.rounds)]
    indexing = [index_again(closed.path, directory) for _ in range(scale.rounds)]
    path.unlink()
    firsts, nexts, lives = (list(column) for column in zip(*taken, strict=True))
    figures = [
        Figure(
            case="first find in a view",
            against=f"indexing {closed.count:,} documents, as many put since",
            values=ratios(firsts, indexing),
            unit="x",
            must=1,
            at_least=False,
        ),
        Figure(
            case="next finds in a view",
            against="a live find",
            values=ratios(nexts, lives),
            unit="x",
            must=1.2,
            at_least=False,
        ),
    ]
    named = {
        "first find in a view": firsts,
        "next finds in a view": nexts,
        "a live find": lives,
        "indexing again": indexing,
    }
    rows = [
        [name, *spread([second * 1e3 for second in column], ".2f")]
        for name, column in named.items()
    ]
    columns = ("what", "ms, median", "least", "most")
    return Result(figures=figures, details=[Detail(title="Views", columns=columns, rows=rows)])


def index_again(path: Path, directory: Path) -> float:
    """The seconds from opening a file without a saved index to the end of its first find."""
    copy = directory / "anew"

    async def measure() -> float:
        # What is derived is left out of the new file.
        await recover(path, copy)
        return await _open_and_find(copy)

    seconds = asyncio.run(measure())
    copy.unlink()
    return seconds


async def _open_and_find(path: Path) -> float:
    start = time.perf_counter()
    async with open_store(path) as store:
        await store.find("warm")
        return time.perf_counter() - start


def opening(directory: Path, scale: Scale) -> Result:
    """Opening and the first find, beside indexing everything."""

    def opened(*, kill: bool) -> float:
        copy = directory / "opening"
        shutil.copyfile(built(directory, scale, kill=kill).path, copy)
        seconds = asyncio.run(_open_and_find(copy))
        copy.unlink()
        return seconds

    closed = built(directory, scale, kill=False)
    seconds = alternate(
        {
            "after aclose()": lambda: opened(kill=False),
            "after a kill": lambda: opened(kill=True),
            "indexing again": lambda: index_again(closed.path, directory),
        },
        scale.rounds,
    )
    figures = [
        Figure(
            case="opening, then a find",
            against=f"indexing {closed.count:,} documents; {name}",
            values=ratios(seconds[name], seconds["indexing again"]),
            unit="x",
            must=0.15,
            at_least=False,
        )
        for name in ("after aclose()", "after a kill")
    ]
    rows = [
        [name, *spread([second * 1e3 for second in taken], ",.1f")]
        for name, taken in seconds.items()
    ]
    columns = ("what", "ms, median", "least", "most")
    return Result(
        figures=figures, details=[Detail(title="Opening a memory", columns=columns, rows=rows)]
    )
