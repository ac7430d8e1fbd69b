"""What does not depend on how much a file holds: recording, opening and reading."""

import asyncio
import itertools
import os
import shutil
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from uuid import UUID

from memvid_async import Store, open_store

from . import built
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread
from .racers import racer

TASKS, ACTIONS = 64, 25_600
ENDED, OPENED, LONG = 100_000, 50_000, 100_000
# Sessions that are started and ended, after this many of them.
SHORT, FEW = 6_400, 1_000
EMPTY, MANY_ENDED = "an empty file", "ended sessions"
# How the process ended that left them open. After a kill the first TOC has to save those that began
# since the last one.
MANY_OPEN = {"open sessions": False, "open sessions, after a kill": True}


def run(directory: Path, scale: Scale) -> Result:
    """Compare a file with a long history to one without, and measure opening and reading it."""
    parts = [
        _recording(directory, scale),
        _starting(directory, scale),
        _rates(directory, scale),
        _opening(directory, scale),
        _long_session(directory, scale),
    ]
    return Result(
        figures=[figure for part in parts for figure in part.figures],
        details=[detail for part in parts for detail in part.details],
    )


def _recording(directory: Path, scale: Scale) -> Result:
    """Durable recording from 64 tasks, with many sessions in the file, pinned to one core."""
    ended, opened = scale.count(ENDED, multiple=64), scale.count(OPENED, multiple=64)
    bases = {
        EMPTY: None,
        MANY_ENDED: built.ended(directory, ended).path,
        **{
            name: built.opened(directory, opened, kill=kill).path
            for name, kill in MANY_OPEN.items()
        },
    }
    count = scale.count(ACTIONS, multiple=TASKS)
    with racer("memvid_async", directory, pinned=True) as one:
        contenders = {name: partial(one.race, TASKS, count, base) for name, base in bases.items()}
        contenders[EMPTY]()
        taken = alternate(contenders, scale.rounds)
    rates = {name: [raced.rate for raced in some] for name, some in taken.items()}
    p99 = {name: [raced.p99 for raced in some] for name, some in taken.items()}
    case = f"durable, {TASKS} tasks, pinned, in a file with"
    figures = [
        Figure(
            case=f"{case} {ended:,} ended sessions",
            against=f"the rate in {EMPTY}",
            values=ratios(rates[MANY_ENDED], rates[EMPTY]),
            unit="x",
            must=0.9,
        ),
        Figure(
            case=f"{case} {ended:,} ended sessions",
            against=f"an ack's p99 in {EMPTY}",
            values=ratios(p99[MANY_ENDED], p99[EMPTY]),
            unit="x",
            must=1.5,
            at_least=False,
        ),
    ]
    for name in MANY_OPEN:
        over = [(raced.worst - raced.slowest_sync) * 1e3 for raced in taken[name]]
        figures += [
            Figure(
                case=f"{case} {opened:,} {name}",
                against=f"the rate in {EMPTY}",
                values=ratios(rates[name], rates[EMPTY]),
                unit="x",
                must=0.8,
            ),
            Figure(
                case=f"{case} {opened:,} {name}",
                against="the longest ack, beyond the slowest sync of its round",
                values=over,
                unit="ms",
                must=30,
                at_least=False,
            ),
        ]
    rows = [
        [name, *spread(rates[name]), *spread([raced.worst * 1e3 for raced in some], ".1f")]
        for name, some in taken.items()
    ]
    columns = ("in a file with", "actions/s, median", "least", "most", "longest ack, ms", "", "")
    detail = Detail(title="Recording with a history", columns=columns, rows=rows)
    return Result(figures=figures, details=[detail])


def _starting(directory: Path, scale: Scale) -> Result:
    """Starting and ending a session, durably, after few others and after very many."""
    few, many = scale.count(FEW, multiple=64), scale.count(ENDED, multiple=64)
    count = scale.count(SHORT, multiple=TASKS)
    bases = {after: built.ended(directory, after).path for after in (few, many)}
    with racer("memvid_async", directory, pinned=True) as one:
        contenders = {
            f"{after:,}": partial(one.race, TASKS, count, bases[after], "sessions")
            for after in (few, many)
        }
        contenders[f"{few:,}"]()
        taken = alternate(contenders, scale.rounds)
    seconds = {after: [raced.seconds for raced in some] for after, some in taken.items()}
    figure = Figure(
        case=f"starting and ending the {many:,}th session",
        against=f"the {few:,}th; {TASKS} tasks, pinned",
        values=ratios(seconds[f"{many:,}"], seconds[f"{few:,}"]),
        unit="x",
        must=1.2,
        at_least=False,
    )
    rows = [
        [after, *spread([one / count * 1e6 for one in some], ".1f")]
        for after, some in seconds.items()
    ]
    columns = ("after", "µs a session, median", "least", "most")
    detail = Detail(title="Starting and ending sessions", columns=columns, rows=rows)
    return Result(figures=[figure], details=[detail])


def _rates(directory: Path, scale: Scale) -> Result:
    """The rate at the end of a million events, beside that at their start."""
    figures = []
    for name, file in (
        ("one after the other", built.contiguous(directory, scale)),
        ("a hundred at a time", built.interleaved(directory, scale)),
    ):
        first, last = (statistics.median(part) for part in (file.tenths[:3], file.tenths[-3:]))
        figures.append(
            Figure(
                case=f"the rate at the end of {file.sessions * file.actions:,} events",
                against=f"at the start; {file.sessions:,} sessions {name}",
                values=[first / last],
                unit="x",
                must=0.9,
            )
        )
    return Result(figures=figures)


def _opening(directory: Path, scale: Scale) -> Result:
    file = built.ended(directory, scale.count(ENDED, multiple=64))
    numbers = itertools.count()

    async def open_and_list() -> tuple[float, float]:
        path = directory / f"opened-{next(numbers)}"
        shutil.copyfile(file.path, path)
        start = time.perf_counter()
        store = await open_store(path)
        opened = time.perf_counter()
        page = await store.list_sessions(newest_first=True, limit=100)
        listed = time.perf_counter()
        assert page
        await store.aclose()
        path.unlink()
        return opened - start, listed - opened

    with _on_one_core():
        taken = [asyncio.run(open_and_list()) for _ in range(scale.rounds + 1)][1:]
    opening, listing = ([part * 1e3 for part in parts] for parts in zip(*taken, strict=True))
    figures = [
        Figure(
            case=f"opening {file.sessions:,} ended sessions",
            against="pinned",
            values=opening,
            unit="ms",
            must=100,
            at_least=False,
        ),
        Figure(
            case="a page of 100 of them, newest first",
            against="pinned",
            values=listing,
            unit="ms",
            must=5,
            at_least=False,
        ),
    ]
    return Result(figures=figures)


def _long_session(directory: Path, scale: Scale) -> Result:
    file = built.long(directory, scale.count(LONG))

    async def read() -> tuple[float, float, float]:
        async with open_store(file.path, read_only=True) as store:
            session_id = (await store.list_sessions())[-1].session_id
            taken, late = await _watched(store.get_session(session_id))
            return taken, late, await _last(store, session_id)

    with _on_one_core():
        rounds = [asyncio.run(read()) for _ in range(scale.rounds + 1)][1:]
    whole, late, last = ([part * 1e3 for part in parts] for parts in zip(*rounds, strict=True))
    what = f"a session of {file.actions:,} actions"
    figures = [
        Figure(
            case=f"reading {what}",
            against="how late the loop is at most; pinned",
            values=late,
            unit="ms",
            must=15,
            at_least=False,
        ),
        Figure(
            case=f"the last 20 actions of {what}",
            against="pinned",
            values=last,
            unit="ms",
            must=3,
            at_least=False,
        ),
    ]
    columns = ("what", "ms, median", "least", "most")
    rows = [["reading it whole", *spread(whole)]]
    return Result(
        figures=figures, details=[Detail(title="A long session", columns=columns, rows=rows)]
    )


async def _watched(reading: Coroutine[object, object, object]) -> tuple[float, float]:
    """Await it; return the seconds that it took, and by how much a timer of 1 ms was late."""
    late, done = 0.0, asyncio.Event()

    async def watch() -> None:
        nonlocal late
        while not done.is_set():
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            late = max(late, time.perf_counter() - begun - 0.001)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.01)
    late, start = 0.0, time.perf_counter()
    await reading
    taken = time.perf_counter() - start
    done.set()
    await watching
    return taken, late


async def _last(store: Store, session_id: UUID) -> float:
    start = time.perf_counter()
    found = [action async for action in store.actions(session_id, newest_first=True, limit=20)]
    taken = time.perf_counter() - start
    assert len(found) == 20
    return taken


@contextmanager
def _on_one_core() -> Iterator[None]:
    """Run the block on one core, where the system can."""
    get: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    if get is None:
        yield
        return
    cores = get(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
