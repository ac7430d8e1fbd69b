"""Buffered recording: the await returns once the action is in the log, before the disk has it."""

import asyncio
import itertools
from functools import partial
from pathlib import Path

from memvid_async import Durability

from . import contenders, floor
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread
from .samples import asks


def run(directory: Path, scale: Scale) -> Result:
    """Compare one buffered task, final `sync()` included, with building and encoding alone."""
    samples = asks(4_096) * max(1, round(5 * scale.factor))
    opener = partial(contenders.ours, durability=Durability.BUFFERED)
    numbers = itertools.count()

    def record() -> float:
        path = directory / f"buffered-{next(numbers)}"
        return asyncio.run(contenders.race(opener, path, samples, 1)).seconds

    seconds = alternate(
        {"record": record, "build and encode": lambda: floor.build_and_encode(samples)},
        scale.rounds,
    )
    values = ratios(seconds["record"], seconds["build and encode"])
    figure = Figure(
        case="buffered, 1 task",
        against="building and encoding the event",
        values=values,
        unit="x",
        must=3,
        at_least=False,
    )
    rows = [
        [name, *spread([second / len(samples) * 1e6 for second in taken], ".1f")]
        for name, taken in seconds.items()
    ]
    columns = ("what", "µs an action, median", "least", "most")
    note = f"{len(samples):,} asks a sample; recording includes the final `sync()`."
    return Result(
        figures=[figure],
        details=[Detail(title="Buffered recording", columns=columns, rows=rows, note=note)],
    )
