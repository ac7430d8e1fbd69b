"""What a writer that is alone pays so that others may come: the lock, and looking for events."""

import asyncio
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

from memvid_async import Store, open_store
from memvid_async.engine import file_log
from memvid_async.file import journal
from memvid_async.file.journal import Journal
from memvid_async.storage import FileStorage

from .contenders import Ours
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread
from .samples import Ask, asks

# Tasks: actions a sample, samples a round. Short samples and many of them: the two must meet the
# same disk.
SAMPLES = {1: (40, 40), 64: (640, 20)}


class _Unlocked(FileStorage):
    """A file that nobody else can want."""

    def lock(self, timeout: float) -> None:
        pass

    def unlock(self) -> None:
        pass

    def is_current(self) -> bool:
        return True


class _Alone(Journal):
    """A journal that never looks for what others wrote."""

    def _take_in_news(self) -> None:
        pass


def run(directory: Path, scale: Scale) -> Result:
    """Compare the time of a durable action with and without what other writers need."""
    figures: list[Figure] = []
    rows: list[list[str]] = []
    with asyncio.Runner() as runner:
        shared = runner.run(_opened(directory / "shared"))
        with (
            patch.object(journal, "FileStorage", _Unlocked),
            patch.object(file_log, "Journal", _Alone),
        ):
            own = runner.run(_opened(directory / "own"))
        stores = {"any number of writers": shared, "one writer for ever": own}
        for tasks, (actions, times) in SAMPLES.items():
            count = scale.count(actions, multiple=tasks)
            samples = list(islice(cycle(asks(4_096)), count))
            seconds = alternate(
                {name: _recording(runner, one, samples, tasks) for name, one in stores.items()},
                scale.count(times) * scale.rounds,
            )
            figures.append(_figure(tasks, *seconds.values()))
            rows += [
                [str(tasks), name, *spread([one / count * 1e6 for one in taken], ".1f")]
                for name, taken in seconds.items()
            ]
        for one in stores.values():
            runner.run(one.aclose())
    columns = ("tasks", "what", "µs a durable action, median", "least", "most")
    note = "Many short samples of each, in turn; the ratio is that of neighbours."
    return Result(
        figures=figures,
        details=[Detail(title="Locking", columns=columns, rows=rows, note=note)],
    )


def _figure(tasks: int, shared: list[float], own: list[float]) -> Figure:
    return Figure(
        case=f"locking, {tasks} task{'s' * (tasks > 1)}",
        against="the same without a lock or a look for others",
        values=ratios(shared, own),
        unit="x",
        must=1.05,
        aim=1.02,
        at_least=False,
    )


async def _opened(path: Path) -> Store:
    return await open_store(path)


def _recording(
    runner: asyncio.Runner, one: Store, samples: list[Ask], tasks: int
) -> Callable[[], float]:
    async def record() -> float:
        async with Ours(one).agent("agent") as ask:

            async def each(some: list[Ask]) -> None:
                for sample in some:
                    await ask(sample)

            start = time.perf_counter()
            await asyncio.gather(*(each(samples[at::tasks]) for at in range(tasks)))
            return time.perf_counter() - start

    return lambda: runner.run(record())
