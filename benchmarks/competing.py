"""Processes that add one to the same key, each on the condition that nobody else did meanwhile."""

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path

from memvid_async import Check, Put, SyncStore, VersionConflictError, open_store

KEY = "count"


async def add(path: Path, count: int) -> list[float]:
    """Add one ``count`` times; return the seconds that each took, all its attempts together."""
    waits = []
    async with open_store(path) as store:
        counts = store.collection("counts")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        for _ in range(count):
            began, won = time.perf_counter(), False
            while not won:
                held = await counts.get(KEY)
                assert held is not None
                try:
                    await counts.apply([Check(KEY, held.version), Put(KEY, held.data + 1)])
                except VersionConflictError:
                    continue
                won = True
            waits.append(time.perf_counter() - began)
    return waits


def compete(path: Path, processes: int, count: int) -> list[float]:
    """Let processes add one to a new key, ``count`` times each; return the seconds of each time.

    :raises AssertionError: when an addition was lost.
    """
    with SyncStore.open(path) as store:
        store.collection("counts").put(KEY, 0)
    command = [sys.executable, "-m", "benchmarks.competing", str(path), str(count)]
    root = Path(__file__).resolve().parents[1]
    children = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(processes)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
    waits: list[float] = []
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"\n")
        child.stdin.flush()
    for child in children:
        said, _ = child.communicate()
        assert child.returncode == 0
        waits += json.loads(said)
    with SyncStore.open(path) as store:
        held = store.collection("counts").get(KEY)
    assert held is not None
    assert held.data == processes * count, "an addition was lost"
    return waits


if __name__ == "__main__":
    print(json.dumps(asyncio.run(add(Path(sys.argv[1]), int(sys.argv[2])))))
