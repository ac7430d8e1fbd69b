"""What children do: ``python -m tests.torture.jobs NAME [JSON arguments]``; see :class:`Child`."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs

from benchmarks import samples
from memvid_async import Event, MemvidAsyncError, SessionEndedError, StoreConfig, open_store
from memvid_async.file.journal import Journal
from memvid_async.recording.action_recorder import ActionRecorder
from memvid_async.storage import FileStorage
from tests.support.asking import answers, verified
from tests.support.naive import command, start
from tests.torture.faults import Fuse, die
from tests.torture.values import make

PATIENT = StoreConfig(lock_timeout=30.0)


def say(value: Any) -> None:
    # One call: a line is whole or not there, whenever the process is killed.
    os.write(1, json.dumps(value).encode() + b"\n")


def hear() -> Any:
    return json.loads(sys.stdin.buffer.readline())


async def told() -> Any:
    return await asyncio.to_thread(hear)


async def call(recorder: ActionRecorder[Any], writer: int, number: int) -> Any:
    """Make the call that ``values.make`` describes; its action."""
    made = make(writer, number)
    return await getattr(recorder, made.method)(*made.args, **made.keywords)


def measure_locks() -> list[float]:
    """How long each wait for the lock took, in seconds; filled as they happen."""
    waits: list[float] = []
    lock = FileStorage.lock

    def measured(storage: FileStorage, timeout: float) -> None:
        before = time.monotonic()
        lock(storage, timeout)
        waits.append(time.monotonic() - before)

    FileStorage.lock = measured  # type: ignore[method-assign]
    return waits


async def record(path: str, writer: int, count: int, at_once: int = 1) -> None:
    """Record into a session of its own; say every ack, and the waits for the lock at the end."""
    waits = measure_locks()
    async with open_store(path, config=PATIENT) as store:
        say("ready")
        await told()
        async with store.session(f"writer {writer}", metadata={"writer": writer}) as recorder:
            for first in range(0, count, at_once):
                numbers = range(first, min(first + at_once, count))
                actions = await asyncio.gather(*(call(recorder, writer, n) for n in numbers))
                for number, action in zip(numbers, actions, strict=True):
                    say([action.sequence, number])
    say({"waits": waits})


async def record_ambient(path: str, writer: int, count: int) -> None:
    """Record into the file's ambient session for as long as there is one; say every answer."""
    async with open_store(path, config=PATIENT) as store:
        say("ready")
        await told()
        for number in range(count):
            action = await call(store, writer, number)
            say([action.sequence, action.index, number] if action is not None else None)


async def start_ambient(path: str) -> None:
    """Start the ambient session, as others do at the same moment; say who won."""
    async with open_store(path, config=PATIENT) as store:
        say("ready")
        await told()
        try:
            started = await store.start_session("ours")
        except MemvidAsyncError as error:
            say(type(error).__name__)
        else:
            say(str(started))


async def resume(path: str, session: str, writer: int, count: int) -> None:
    """Record into a session that another process has open; leave its block when told."""
    async with open_store(path, config=PATIENT) as store:
        async with store.resume_session(UUID(session)) as recorder:
            say("ready")
            await told()
            for number in range(count):
                try:
                    action = await call(recorder, writer, number)
                except SessionEndedError:
                    say("SessionEndedError")
                else:
                    say([action.sequence, action.index, number])
            await told()
        say("left")


async def die_writing(path: str, writer: int, count: int, share: float | None) -> None:
    """Record ``count`` actions, then die in the next write, holding the lock.

    ``share`` of that write is in the file; None: nothing of it. No time passes meanwhile, so that
    the write is not one of a slot, which is due when time has passed.
    """
    at_once = attrs.evolve(PATIENT, clock=itertools.repeat(time.time_ns()).__next__)
    async with (
        open_store(path, config=at_once) as store,
        store.session(f"writer {writer}", metadata={"writer": writer}) as recorder,
    ):
        for number in range(count):
            say([(await call(recorder, writer, number)).sequence, number])
        Fuse(1, share, only="write").install()
        await call(recorder, writer, count)
        say("survived")


async def put_documents(path: str, count: int) -> None:
    """Put ``count`` documents into the memory, say so, and wait to be killed."""
    documents = samples.documents(count)
    async with open_store(path) as store:
        for at in range(0, count, 100):
            await store.put_many(documents[at : at + 100])
        say(count)
        await told()


async def put_when_told(path: str, count: int) -> None:
    """Each time it is told to, put a frame and end a session; say their ids once they are acked."""
    async with open_store(path, config=PATIENT) as store:
        say("ready")
        for _ in range(count):
            text = await told()
            async with store.session(text) as recorder:
                frame_id = await store.put(text)
            say([frame_id, str(recorder.session_id)])


async def follow(path: str, until: int) -> None:
    """Say when (on the machine's monotonic clock) each event up to ``until`` was delivered."""
    times: list[list[int]] = []
    async with open_store(path, read_only=True) as store:
        after = store.last_sequence
        async with store.subscribe(after) as events:
            say(after)
            async for event in events:
                times.append([event.sequence, time.monotonic_ns()])
                if event.sequence >= until:
                    break
    say(times)


async def follow_and_check(path: str) -> None:
    """Follow until told; say the last sequence, or how following ended."""
    async with open_store(path, read_only=True) as store, store.subscribe() as events:
        say("ready")
        last = 0

        async def consume() -> None:
            nonlocal last
            async for event in events:
                assert event.sequence == last + 1, (event.sequence, last)
                last = event.sequence

        consuming = asyncio.create_task(consume())
        target = asyncio.create_task(told())
        await asyncio.wait({consuming, target}, return_when=asyncio.FIRST_COMPLETED)
        try:
            while not consuming.done() and last < target.result():
                await store.list_sessions()
                await events.wait_caught_up()
        except MemvidAsyncError as error:
            say(type(error).__name__)
            return
        consuming.cancel()
        await asyncio.wait({consuming})
        failed = not consuming.cancelled() and consuming.exception()
        say(repr(failed) if failed else last)


async def idle(path: str, polls: int) -> None:
    """Say the CPU seconds, and the seconds, that ``polls`` looks at a quiet file take."""
    counted = 0
    enough = asyncio.Event()
    loop = asyncio.get_running_loop()
    is_current = FileStorage.is_current

    def looked(storage: FileStorage) -> bool:
        nonlocal counted
        counted += 1
        if counted in (10, 10 + polls):
            loop.call_soon_threadsafe(enough.set)
        return is_current(storage)

    FileStorage.is_current = looked  # type: ignore[method-assign]
    async with open_store(path, read_only=True) as store, store.subscribe() as events:

        async def consume() -> list[Event]:
            return [event async for event in events]

        consuming = asyncio.create_task(consume())
        await enough.wait()
        enough.clear()
        before, began = time.process_time(), time.monotonic()
        await enough.wait()
        say([time.process_time() - before, time.monotonic() - began])
        await events.aclose()
        consuming.cancel()
        await asyncio.wait({consuming})


async def hold_lock(path: str) -> None:
    """Hold the file's lock until told."""
    storage = FileStorage.open(Path(path))
    storage.lock(10)
    say("ready")
    hear()
    storage.close()
    say("closed")


async def compact(path: str, times: int) -> None:
    """Compact ``times`` times, each when the parent says so; say each report's generation."""
    async with open_store(path, config=PATIENT) as store:
        say("ready")
        await told()
        for _ in range(times):
            say((await store.compact()).generation)


def compact_killed_everywhere(template: str, folder: str) -> None:
    """Compact copies of a file, each killed one storage call later than the one before, and say
    what is wrong with what is left; at the end, how many kills there were."""
    path, wanted = Path(folder) / "killed.mva", Path(folder) / "whole.mva"
    shutil.copy(template, wanted)
    old = answers(_opened(wanted))
    compacting(wanted, Fuse(0))
    new = answers(_opened(wanted))
    wanted.unlink()
    kills = 0
    for share in (None, 0.0, 0.5, 0.99):
        for at in itertools.count(1):
            shutil.copy(template, path)
            pid = os.fork()
            if pid == 0:
                compacting(path, Fuse(at, share, only=None if share is None else "write"))
                os._exit(0)
            if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
                break
            kills += 1
            for wrong in _left_behind(path, old, new):
                say(f"killed at call {at}, share {share}: {wrong}")
    say(kills)


def _opened(path: Path) -> Journal:
    return Journal.open(FileStorage.open(path, read_only=True), PATIENT, read_only=True)


def compacting(path: Path, fuse: Fuse) -> None:
    """Compact and close with a fuse that counts from there on."""
    journal = Journal.open(FileStorage.open(path), PATIENT)
    if fuse.at:
        fuse.install()
    journal.compact(lambda *_: None)
    journal.close()
    journal.release()


def _left_behind(path: Path, old: object, new: object) -> Iterator[str]:
    """What is wrong after a kill, with the file and what is beside it."""
    reader = _opened(path)
    successor = Path(f"{path}.{reader.file_id.hex}.compact")
    if not set(path.parent.iterdir()) <= {path, successor}:
        yield "another file was left"
    if answers(reader) not in (old, new):
        yield "neither the old file nor the new"
    if not verified(reader).ok:
        yield "it does not verify"
    reader.release()
    journal = Journal.open(FileStorage.open(path), PATIENT)
    if successor.exists():
        yield "the next writer did not remove what was left"
    if answers(journal) not in (old, new):
        yield "a writer finds neither the old file nor the new"
    last = journal.view.state.last_sequence
    outcomes, _ = journal.commit([command(start(999))])
    if journal.view.state.last_sequence != last + 1:
        yield f"nothing can be recorded: {outcomes}"
    journal.compact(lambda *_: None)
    if not verified(journal).ok:
        yield "it does not verify after another compaction"
    journal.release()


def fork_holding_lock(path: str) -> None:
    """Take the lock as a store does, fork, and let the child outlive us. Say the child's pid."""
    journal = Journal.open(FileStorage.open(Path(path)), PATIENT)
    journal.begin()
    ready, forked = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(forked, b"x")
        # A word of the test's, or its end.
        sys.stdin.buffer.readline()
        os._exit(0)
    os.read(ready, 1)
    say(pid)
    die()


def fork_and_close(path: str) -> None:
    """Take the lock, and have a forked child do to it what a careless one would."""
    journal = Journal.open(FileStorage.open(Path(path)), PATIENT)
    journal.begin()
    pid = os.fork()
    if pid == 0:
        refused = 0
        for careless in (journal.flush, journal.begin, journal.refresh, journal.close):
            try:
                careless()
            except MemvidAsyncError:
                refused += 1
        os._exit(refused)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    hear()
    journal.flush()
    journal.release()
    say("closed")


JOBS: dict[str, Callable[..., Awaitable[None] | None]] = {
    job.__name__: job
    for job in (
        record,
        record_ambient,
        start_ambient,
        resume,
        die_writing,
        put_documents,
        put_when_told,
        follow,
        follow_and_check,
        idle,
        hold_lock,
        compact,
        compact_killed_everywhere,
        fork_holding_lock,
        fork_and_close,
    )
}

if __name__ == "__main__":
    started = JOBS[sys.argv[1]](*json.loads(sys.argv[2]))
    if started is not None:
        asyncio.run(started)  # type: ignore[arg-type]
