"""Writers, subscribers, finds and compactions on one file, for as long as wanted.

    python -m scripts.load 600            ten minutes: four writers, a compaction every 30 s
    python -m scripts.load 60 --every 10  a minute, with one every 10 s

Each writer is a process of its own, deletes what it no longer needs, and times its calls and the
disk's syncs. Printed are the longest calls beside the slowest sync, and what grew: descriptors,
memory, and the file for each event (of a deleted one its time is left, of a frame its digest). The
exit status is 1 when a call took more than a second over the slowest sync, when something grew, or
when a subscriber missed an event. The compactions are timed too, and have no bound: they are what
the calls go on beside.

What others do on the machine is told apart: its load, and by how much a thread that only sleeps
woke too late, at most.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from memvid_async import FrameNotFoundError, Store, open_store
from memvid_async.storage import FileStorage

# Sessions and frames that a writer keeps; older ones are deleted.
KEPT = 20
SUBSCRIBERS = 20
# How long the thread that only sleeps does so, in seconds.
NAP = 0.02
# What takes as long as it takes.
UNBOUNDED = {"sync", "compact", "a nap"}
# The share of the time after which memory and descriptors should stay as they are.
SETTLED = 0.4


def resources() -> dict[str, int]:
    """The process's open descriptors, and its memory in KiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    memory = next(line for line in lines if line.startswith("VmRSS"))
    return {
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "kib": int(memory.split()[1]),
    }


class Watch:
    """Times calls and syncs. ``longest``: milliseconds by the name of a call."""

    def __init__(self) -> None:
        self.longest: dict[str, float] = {}
        self.counts: Counter[str] = Counter()
        sync = FileStorage.sync

        def timed(storage: FileStorage) -> None:
            start = time.perf_counter()
            sync(storage)
            self.note("sync", start)

        FileStorage.sync = timed  # type: ignore[method-assign, assignment]
        threading.Thread(target=self._nap, daemon=True).start()

    def _nap(self) -> None:
        while True:
            start = time.perf_counter()
            time.sleep(NAP)
            self.note("a nap", start + NAP)

    def note(self, name: str, start: float) -> None:
        """Note a call that began at ``start``."""
        took = (time.perf_counter() - start) * 1000
        self.longest[name] = max(took, self.longest.get(name, 0.0))
        self.counts[name] += 1

    async def call(self, name: str, made: Awaitable[Any]) -> Any:
        """Await a call, and time it."""
        start = time.perf_counter()
        try:
            return await made
        finally:
            self.note(name, start)


async def _turn(store: Store, watch: Watch, number: int, frames: deque[int]) -> Any:
    """Do what an agent does; return the session's id."""
    async with store.session(f"turn {number}") as session:
        text = f"fox number {number} " + "words " * (number % 50)
        frames.append(await watch.call("put", store.put(text, tags=[f"{number % 7}"])))
        found = await watch.call("find", store.find("fox words", top_k=5))
        hits = [hit.frame_id for hit in found.hits]
        ask = session.record_ask("which?", provider="p", model="m", response=f"{hits}")
        await watch.call("record_ask", ask)
        await watch.call("record_tool_call", session.record_tool_call("look", arguments=hits))
    if len(frames) > KEPT:
        with_frame = watch.call("delete", store.delete(frames.popleft()))
        try:
            await with_frame
        except FrameNotFoundError:
            print("a frame that was put is gone", file=sys.stderr)
            raise
    return session.session_id


async def _write(path: Path, seconds: float, every: float) -> dict[str, Any]:
    """Be one writer. ``every``: seconds between compactions, 0 for none."""
    watch = Watch()
    sessions: deque[Any] = deque()
    frames: deque[int] = deque()
    start, number, settled = time.monotonic(), 0, resources()
    compacted = start
    async with open_store(path) as store:
        while (now := time.monotonic()) < start + seconds:
            number += 1
            sessions.append(await _turn(store, watch, number, frames))
            if len(sessions) > KEPT:
                await watch.call("delete_session", store.delete_session(sessions.popleft()))
            if every and now - compacted >= every:
                compacted = now
                await watch.call("compact", store.compact())
            if now < start + SETTLED * seconds:
                settled = resources()
        ended = resources()
    return {"longest": watch.longest, "counts": watch.counts, "settled": settled, "ended": ended}


async def _subscribe(store: Store, until: Callable[[], bool]) -> tuple[int, int]:
    """Be one subscriber: how many events came, and how many of them were missing."""
    seen = missing = 0
    last = store.last_sequence
    async with store.subscribe(last) as events:
        while not (until() and events.last_sequence >= store.last_sequence):
            try:
                event = await asyncio.wait_for(anext(events), 0.2)
            except TimeoutError:
                continue
            missing += event.sequence - last - 1
            last, seen = event.sequence, seen + 1
    return seen, missing


async def run(
    path: Path, seconds: float, *, writers: int = 4, every: float = 30.0
) -> dict[str, Any]:
    """Load the file at ``path``; return the figures."""
    async with open_store(path) as store:
        await store.put("the first frame")
    command = [sys.executable, "-m", "scripts.load", f"{seconds}", "--file", str(path)]
    children = [
        await asyncio.create_subprocess_exec(
            *command, "--every", f"{every if at == 0 else 0}", stdout=asyncio.subprocess.PIPE
        )
        for at in range(writers)
    ]
    # Of the file, in bytes for each event of the log: what was deleted leaves a few of them.
    sizes: list[float] = []
    done = False
    async with open_store(path, read_only=True) as store:
        readers = [asyncio.create_task(_subscribe(store, lambda: done)) for _ in range(SUBSCRIBERS)]
        watching = [asyncio.create_task(child.communicate()) for child in children]
        while not all(each.done() for each in watching):
            await asyncio.sleep(seconds / 50)
            size = path.stat().st_size  # noqa: ASYNC240 - nothing waits for it
            sizes.append(size / store.last_sequence)
        outputs = [(await each)[0] for each in watching]
        await store.refresh()
        done = True
        read = [await each for each in readers]
        ok = (await store.verify()).ok
    found = [json.loads(output) for output in outputs]
    longest: dict[str, float] = {}
    for each in found:
        for name, took in each["longest"].items():
            longest[name] = max(took, longest.get(name, 0.0))
    return {
        "calls": sum((Counter(each["counts"]) for each in found), Counter()),
        "longest": longest,
        "settled": [each["settled"] for each in found],
        "ended": [each["ended"] for each in found],
        "sizes": sizes,
        "subscribers": read,
        "verified": ok,
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What is wrong with the figures of a run that was long enough to settle."""
    slowest = found["longest"]["sync"]
    wrong = [
        f"{name} took {took:.0f} ms, and the slowest sync {slowest:.0f}"
        for name, took in found["longest"].items()
        if took > slowest + 1000 and name not in UNBOUNDED
    ]
    for before, after in zip(found["settled"], found["ended"], strict=True):
        if after["descriptors"] > before["descriptors"] + 4:
            wrong.append(f"descriptors: {before['descriptors']}, then {after['descriptors']}")
        if after["kib"] > 1.25 * before["kib"] + 8192:
            wrong.append(f"memory in KiB: {before['kib']}, then {after['kib']}")
    half = len(found["sizes"]) // 2
    if max(found["sizes"][half:]) > 1.5 * max(found["sizes"][:half]):
        wrong.append("the file grew")
    if any(missing for _, missing in found["subscribers"]):
        wrong.append("a subscriber missed events")
    return wrong if found["verified"] else [*wrong, "the file does not verify"]


def main() -> int:
    """Run it, or one of its writers, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between compactions")
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--file", type=Path, help="be one writer of this file")
    given = parser.parse_args()
    if given.file is not None:
        print(json.dumps(asyncio.run(_write(given.file, given.seconds, given.every))))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "load.mva")
        found = asyncio.run(run(path, given.seconds, writers=given.writers, every=given.every))
    loads = ", ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"load of the machine in the last 1, 5 and 15 minutes: {loads}")
    for name, took in sorted(found["longest"].items(), key=lambda each: -each[1]):
        what = "a thread that sleeps woke late by" if name == "a nap" else f"longest {name}:"
        print(f"  {what} {took:,.0f} ms, of {found['calls'][name]:,}")
    for before, after in zip(found["settled"], found["ended"], strict=True):
        print(f"  a writer: {before}, at the end {after}")
    print(f"  the file, in bytes for each event: {[round(size) for size in found['sizes'][::5]]}")
    print(f"  subscribers: {Counter(found['subscribers'])} (events, missing)")
    wrong = faults(found)
    print("fine" if not wrong else "\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
