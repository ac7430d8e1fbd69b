"""Putting documents one by one, beside memvid-sdk, where that is installed."""

import asyncio
import importlib.util
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

from memvid_async import open_store

from . import memory_cases
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread

DOCUMENTS = 200


def run(directory: Path, scale: Scale) -> Result:
    """Compare the seconds of both for the same documents; nothing without the other package."""
    if importlib.util.find_spec("memvid_sdk") is None:
        return Result()
    texts = memory_cases.documents(scale.count(DOCUMENTS), seed=3)
    numbers = itertools.count()
    seconds = alternate(
        {
            "memvid_async": lambda: asyncio.run(_ours(directory / f"{next(numbers)}.mva", texts)),
            "memvid-sdk": lambda: _theirs(directory / f"{next(numbers)}.mv2", texts),
        },
        min(scale.rounds, 3),
    )
    figure = Figure(
        case="put, one by one",
        against=f"memvid-sdk, {len(texts)} documents",
        values=ratios(seconds["memvid-sdk"], seconds["memvid_async"]),
        unit="x as fast",
        must=1,
    )
    rows = [
        [name, *spread([second / len(texts) * 1e3 for second in taken], ".2f")]
        for name, taken in seconds.items()
    ]
    columns = ("what", "ms a document, median", "least", "most")
    note = "Ours is durable when each put returns; memvid-sdk's own promise was not looked into."
    details = [Detail(title="Beside memvid-sdk", columns=columns, rows=rows, note=note)]
    return Result(figures=[figure], details=details)


async def _ours(path: Path, texts: Sequence[str]) -> float:
    async with open_store(path) as store:
        start = time.perf_counter()
        for text in texts:
            await store.put(text)
        return time.perf_counter() - start


def _theirs(path: Path, texts: Sequence[str]) -> float:
    import memvid_sdk

    memory = memvid_sdk.create(str(path))
    start = time.perf_counter()
    for number, text in enumerate(texts):
        memory.put(title=f"document {number}", text=text)
    seconds = time.perf_counter() - start
    memory.close()
    return seconds
