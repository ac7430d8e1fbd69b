"""A process that records many small actions, to be measured or killed from outside.

    python -m benchmarks.child FILE SESSIONS ACTIONS TOGETHER [--hold] [--leave-open]

records SESSIONS sessions of ACTIONS actions, TOGETHER of them at a time and taking turns, prints
one line of JSON once everything is durable, and closes the store; with `--hold` it waits to be
killed instead. With `--leave-open` it does not end the sessions.
"""

import argparse
import asyncio
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

from memvid_async import Durability, Store, StoreConfig, open_store

from .machine import peak_resident_bytes, resident_bytes

WARM_UP = 1_000


async def record_session(store: Store, name: str, actions: int) -> None:
    """Record one session of small actions, giving way to the others after each."""
    async with store.session(name) as recorder:
        for number in range(actions):
            await recorder.record_find(
                f"topic {number}", mode="lex", result_count=1, result_frames=(number,)
            )
            await asyncio.sleep(0)


async def record(path: Path, sessions: int, actions: int, together: int) -> None:
    """Record, and report the seconds it took and the bytes by which the process grew."""
    async with open_store(path, config=StoreConfig(durability=Durability.BUFFERED)) as store:
        await record_session(store, "warm-up", WARM_UP)
        await store.sync()
        before, start = resident_bytes(), time.perf_counter()
        numbers = iter(range(sessions))
        leave = "--leave-open" in sys.argv
        times = [start]

        async def work() -> None:
            for number in numbers:
                if leave:
                    await store.session(f"session {number}").__aenter__()
                else:
                    await record_session(store, f"session {number}", actions)
                if not (number + 1) % max(1, sessions // 10):
                    times.append(time.perf_counter())

        async with asyncio.TaskGroup() as group:
            for _ in range(together):
                group.create_task(work())
        await store.sync()
        seconds = time.perf_counter() - start
        growth = max(resident_bytes(), peak_resident_bytes()) - before
        tenths = [after - before for before, after in pairwise(times)]
        report = {"seconds": seconds, "growth": growth, "tenths": tenths}
        print(json.dumps(report), flush=True)
        if "--hold" in sys.argv:
            await asyncio.Event().wait()


def main() -> None:
    """Run the command line above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    for name in ("sessions", "actions", "together"):
        parser.add_argument(name, type=int)
    for flag in ("--hold", "--leave-open"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    asyncio.run(record(options.file, options.sessions, options.actions, options.together))


if __name__ == "__main__":
    main()
