"""Replaying a session beside recording it buffered: asks, and what the memory is asked to do."""

import asyncio
import itertools
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

from memvid_async import (
    Durability,
    RecordingConfig,
    SessionRecorder,
    Store,
    StoreConfig,
    open_store,
)

from . import memory_cases
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread
from .samples import asks, record

ACTIONS = 100_000
MEMORY_ACTIONS = 4_000
CONFIG = StoreConfig(
    durability=Durability.BUFFERED, recording=RecordingConfig(auto_checkpoint_interval=1_000)
)

Fill = Callable[[Store, SessionRecorder, int], Awaitable[None]]


async def fill_asks(_: Store, recorder: SessionRecorder, count: int) -> None:
    """Record asks of somebody else's model."""
    for ask in itertools.islice(itertools.cycle(asks(4_096)), count):
        await record(recorder, ask)


async def fill_memory(store: Store, _: SessionRecorder, count: int) -> None:
    """Put, and find what was put, in turn."""
    texts = memory_cases.documents(count // 2, seed=2)
    for number, text in enumerate(texts):
        await store.put(text)
        await store.find(" ".join(texts[number // 2].split()[:2]), top_k=5)


def run(directory: Path, scale: Scale) -> Result:
    """Compare the seconds of both, and what replaying holds."""
    figures, rows = [], []
    for what, fill, full in (
        ("asks", fill_asks, ACTIONS),
        ("puts and finds", fill_memory, MEMORY_ACTIONS),
    ):
        count = scale.count(full, multiple=4)
        path = directory / f"replay-{what.split()[0]}"
        seconds = alternate(_contenders(fill, count, path), scale.rounds)
        figures.append(
            Figure(
                case="replay",
                against=f"recording {count:,} {what}, buffered",
                values=ratios(seconds["replay"], seconds["record"]),
                unit="x",
                must=3,
                aim=1.5,
                at_least=False,
            )
        )
        rows += [
            [f"{name} {what}", *spread([second / count * 1e6 for second in taken], ".1f")]
            for name, taken in seconds.items()
        ]
    figures.append(_growth(directory, scale))
    columns = ("what", "µs an action, median", "least", "most")
    note = "A checkpoint every 1,000 actions. Replaying includes opening the file."
    return Result(
        figures=figures, details=[Detail(title="Replay", columns=columns, rows=rows, note=note)]
    )


def _contenders(fill: Fill, count: int, path: Path) -> dict[str, Callable[[], float]]:
    """Recording into a new file each time, and replaying the first."""
    numbers = itertools.count()
    return {
        "record": lambda: asyncio.run(_record(path.with_suffix(f".{next(numbers)}"), fill, count)),
        "replay": lambda: asyncio.run(_replay(path.with_suffix(".0"), count)),
    }


def _growth(directory: Path, scale: Scale) -> Figure:
    """What Python holds at most while it replays a long session."""
    count = scale.count(ACTIONS, multiple=4)
    path = directory / "growth"
    asyncio.run(_record(path, fill_asks, count))
    tracemalloc.start()
    asyncio.run(_replay(path, count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Figure(
        case="replay, memory",
        against=f"{count:,} asks; the file has {path.stat().st_size / 1e6:.0f} MB",
        values=[peak / 1e6],
        unit="MB",
        must=25,
        aim=10,
        at_least=False,
    )


async def _record(path: Path, fill: Fill, count: int) -> float:
    async with open_store(path, config=CONFIG) as store:
        start = time.perf_counter()
        async with store.session() as recorder:
            await fill(store, recorder, count)
        await store.sync()
        return time.perf_counter() - start


async def _replay(path: Path, count: int) -> float:
    start, steps = time.perf_counter(), 0
    async with open_store(path, read_only=True) as store:
        (summary,) = await store.list_sessions()
        async for step in store.replay(summary.session_id):
            assert not step.differences
            steps += 1
    assert steps >= count
    return time.perf_counter() - start
