"""What a writer that is alone pays so that others may come: the lock, and looking for events."""

import asyncio
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path
from unittest.mock import patch

from memvid_async import Store, open_store, store
from memvid_async.events import Event
from memvid_async.journal import Flushed, Journal
from memvid_async.storage import FileStorage

from .contenders import Ours
from .harness import Detail, Figure, Result, Scale, alternate, paired_ratio, spread
from .samples import Ask, asks

# Short samples and many of them: the two must meet the same disk.
ACTIONS = 40
SAMPLES_A_ROUND = 40


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

    def _shared_out(self, moved: list[Event]) -> Flushed:
        return Flushed(moved, [])


def run(directory: Path, scale: Scale) -> Result:
    """Compare the time of a durable action with and without what other writers need."""
    samples = list(islice(cycle(asks(4_096)), scale.count(ACTIONS)))
    with asyncio.Runner() as runner:
        shared_store = runner.run(_opened(directory / "shared"))
        with patch.multiple(store, FileStorage=_Unlocked, Journal=_Alone):
            own_store = runner.run(_opened(directory / "own"))
        stores = {"any number of writers": shared_store, "one writer for ever": own_store}
        seconds = alternate(
            {name: _recording(runner, one, samples) for name, one in stores.items()},
            scale.count(SAMPLES_A_ROUND) * scale.rounds,
        )
        for one in stores.values():
            runner.run(one.aclose())
    shared, own = seconds.values()
    figure = Figure(
        case="locking, 1 task",
        against="the same without a lock or a look for others",
        value=paired_ratio(shared, own),
        unit="x",
        must=1.05,
        aim=1.02,
        at_least=False,
    )
    rows = [
        [name, *spread([second / len(samples) * 1e6 for second in taken], ".1f")]
        for name, taken in seconds.items()
    ]
    columns = ("what", "µs a durable action, median", "least", "most")
    note = f"{len(samples)} asks of one task a sample, {len(shared)} samples of each, in turn."
    return Result(
        figures=[figure],
        details=[Detail(title="Locking", columns=columns, rows=rows, note=note)],
    )


async def _opened(path: Path) -> Store:
    return await open_store(path)


def _recording(runner: asyncio.Runner, one: Store, samples: list[Ask]) -> Callable[[], float]:
    async def record() -> float:
        async with Ours(one).agent("agent") as ask:
            start = time.perf_counter()
            for sample in samples:
                await ask(sample)
            return time.perf_counter() - start

    return lambda: runner.run(record())
