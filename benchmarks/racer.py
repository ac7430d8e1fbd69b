"""A process that races when it is told to: a line of JSON in for each race, and one out.

`python -m benchmarks.racer CONTENDER [--pinned]`
"""

import asyncio
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from memvid_async import open_store

from .contenders import OPENERS, Race, race
from .samples import asks


def main() -> None:
    """Race until there are no more orders."""
    name = sys.argv[1]
    if "--pinned" in sys.argv:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    samples = asks(4_096)
    syncs = _timed_syncs()
    for line in sys.stdin:
        order = json.loads(line)
        some = list(itertools.islice(itertools.cycle(samples), order["count"]))
        gc.collect()
        syncs.clear()
        path, tasks = Path(order["path"]), order["tasks"]
        if order["what"] == "sessions":
            raced = asyncio.run(sessions(path, order["count"], tasks))
        else:
            raced = asyncio.run(race(OPENERS[name], path, some, tasks))
        print(json.dumps(_told(raced, syncs)), flush=True)


async def sessions(path: Path, count: int, tasks: int) -> Race:
    """Start and end sessions from many tasks at once."""
    taken: list[float] = []
    async with open_store(path) as store:

        async def work() -> None:
            for _ in range(count // tasks):
                begun = time.perf_counter()
                async with store.session("short"):
                    pass
                taken.append(time.perf_counter() - begun)

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(tasks)))
        return Race(time.perf_counter() - start, taken)


def _timed_syncs() -> list[float]:
    """Let every sync from Python be timed, and return where the seconds go."""
    taken: list[float] = []
    real: Callable[[int], None] = os.fdatasync

    def timed(descriptor: int) -> None:
        start = time.perf_counter()
        real(descriptor)
        taken.append(time.perf_counter() - start)

    os.fdatasync = timed  # type: ignore[assignment]
    return taken


def _told(raced: Race, syncs: list[float]) -> dict[str, float]:
    latencies = sorted(raced.latencies)
    places = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "worst": 1.0}
    last = len(latencies) - 1
    told = {key: latencies[round(last * place)] for key, place in places.items()}
    return {"seconds": raced.seconds, "slowest_sync": max(syncs, default=0.0), **told}


if __name__ == "__main__":
    main()
