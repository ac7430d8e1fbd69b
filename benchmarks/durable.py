"""Durable recording: every await returns once its action is on the disk."""

import asyncio
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path

from . import contenders, floor
from .harness import Detail, Figure, Result, Scale, alternate, paired_ratio, spread
from .samples import Ask, asks

# tasks: (actions of the fast contenders, actions of the saver), sized for about a second each
COUNTS = {1: (2_000, 1_000), 64: (25_600, 2_560), 256: (25_600, 2_560)}
# (tasks, against): (must reach, aim)
GOALS = {
    (1, "aiosqlite"): (1.0, 1.3),
    (1, "bare loop"): (0.45, 0.65),
    (64, "aiosqlite"): (1.5, 3.0),
    (64, "AsyncSqliteSaver"): (12.0, None),
    (256, "aiosqlite"): (1.5, 3.0),
}


def run(directory: Path, scale: Scale) -> Result:
    """Compare the rates of durable recording from 1, 64 and 256 tasks."""
    samples = asks(4_096)
    figures: list[Figure] = []
    rows: list[list[str]] = []
    for tasks, (many, few) in COUNTS.items():
        fast = _cycle(samples, scale.count(many, multiple=tasks))
        slow = _cycle(samples, scale.count(few, multiple=tasks))
        seconds = alternate(_contenders(directory, tasks, fast, slow), scale.rounds)
        counts = {"AsyncSqliteSaver": len(slow)}
        rates = {
            name: [counts.get(name, len(fast)) / second for second in taken]
            for name, taken in seconds.items()
        }
        rows += [[str(tasks), name, *spread(rate)] for name, rate in rates.items()]
        for name in list(rates)[1:]:
            must, aim = GOALS.get((tasks, name), (None, None))
            value = paired_ratio(rates["memvid_async"], rates[name])
            case = f"durable, {tasks} task{'s' * (tasks > 1)}"
            figures.append(
                Figure(case=case, against=name, value=value, unit="x", must=must, aim=aim)
            )
    columns = ("tasks", "store", "actions/s, median", "least", "most")
    note = (
        "Each task has a session (for the saver, a thread) of its own;"
        " starting and ending them is not timed."
    )
    detail = Detail(title="Durable recording", columns=columns, rows=rows, note=note)
    return Result(figures=figures, details=[detail])


def _contenders(
    directory: Path, tasks: int, fast: list[Ask], slow: list[Ask]
) -> dict[str, Callable[[], float]]:
    numbers = itertools.count()

    def race(opener: contenders.Opener, samples: list[Ask]) -> Callable[[], float]:
        def once() -> float:
            path = directory / f"durable-{tasks}-{next(numbers)}"
            return asyncio.run(contenders.race(opener, path, samples, tasks))

        return once

    found: dict[str, Callable[[], float]] = {"memvid_async": race(contenders.ours, fast)}
    if importlib.util.find_spec("aiosqlite"):
        found["aiosqlite"] = race(contenders.aiosqlite, fast)
    if importlib.util.find_spec("langgraph"):
        found["AsyncSqliteSaver"] = race(contenders.langgraph, slow)
    if tasks == 1:
        found["bare loop"] = lambda: floor.bare_loop(directory / f"bare-{next(numbers)}", fast)
    return found


def _cycle(samples: list[Ask], count: int) -> list[Ask]:
    return list(itertools.islice(itertools.cycle(samples), count))
