"""Many at once: tasks, stores, loops in threads, processes; and a fork, which is none of these."""

import asyncio
import os
import random
import subprocess
import sys
import threading

import pytest

from memvid_async import (
    ActionRecorded,
    Durability,
    Limits,
    RecordingConfig,
    SessionNotFoundError,
    StoreConfig,
    open_store,
)
from tests.support.loops import turns

TINY = Limits(tail_bytes=1, read_bytes=4096)
CONFIGS = {
    "sync": StoreConfig(limits=TINY),
    "buffered": StoreConfig(durability=Durability.BUFFERED, flush_interval=0.001, limits=TINY),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


async def frames(store, session_id):
    session = await store.get_session(session_id)
    return [action.details.frame_id for action in session.actions if action.kind == "put"]


@every_config
async def test_tasks_that_do_everything_at_once_each_see_their_own_in_order(make_store, config):
    """Every agent knows what its own sessions must hold, and looks whenever it likes."""
    store = await make_store(config=config)
    await store.start_session("shared")

    async def agent(number):
        rng = random.Random(number)
        finished = {}
        for part in range(6):
            most = rng.choice([None, None, 3])
            expected = []
            recording = RecordingConfig(
                max_actions=most, auto_checkpoint_interval=rng.choice([0, 2])
            )
            async with store.session(f"{number}/{part}", recording) as recorder:
                for step in range(rng.randrange(1, 15) if most is None else most):
                    frame = number * 10_000 + part * 100 + step
                    data = f"{frame} " * rng.choice([1, 5, 400, 400])
                    owner = rng.choice([store, recorder])
                    action = await owner.record_put(frame, data)
                    expected.append(frame)
                    if rng.random() < 0.3:
                        assert await frames(store, recorder.session_id) == expected
                    if rng.random() < 0.2:
                        assert await store.read_content(action.input) == data.encode()
                    if rng.random() < 0.1:
                        await store.list_sessions(include_open=rng.random() < 0.5)
            if rng.random() < 0.3:
                await store.delete_session(recorder.session_id)
                with pytest.raises(SessionNotFoundError):
                    await store.get_session(recorder.session_id)
            else:
                finished[recorder.session_id] = expected
            await store.record_delete(number * 100 + part)
        return finished

    finished = await asyncio.gather(*(agent(number) for number in range(20)))
    for sessions in finished:
        for session_id, expected in sessions.items():
            assert await frames(store, session_id) == expected
    shared = await store.end_session()
    assert sorted(action.details.frame_id for action in shared.actions) == sorted(
        number * 100 + part for number in range(20) for part in range(6)
    )
    assert (await store.verify()).ok
    listed = {summary.session_id for summary in await store.list_sessions()}
    assert listed == {shared.session_id}.union(*finished)


@every_config
async def test_reading_sessions_while_they_are_recorded_ended_and_deleted(make_store, config):
    """A reader sees a session as it was at one moment, or is told that it is not there."""
    store = await make_store(config=config)
    current, done = [], False

    async def write():
        nonlocal done
        for _ in range(12):
            async with store.session(metadata={"of": "it"}) as recorder:
                current.append(recorder.session_id)
                for batch in range(6):
                    first = batch * 20
                    await asyncio.gather(
                        *(
                            recorder.record_put(n, "x" * (n % 3) * 600)
                            for n in range(first, first + 20)
                        )
                    )
            if len(current) % 3:
                await store.delete_session(recorder.session_id)
        done = True

    async def read(seed):
        rng, reads = random.Random(seed), 0
        seen = {}
        while not done:
            if not current:
                await turns(1)
                continue
            session_id = rng.choice(current[-4:])
            try:
                session = await store.get_session(session_id)
            except SessionNotFoundError:
                reads += 1
                await turns(1)
                continue
            found = [action.details.frame_id for action in session.actions]
            assert found == list(range(len(found)))
            assert len(found) >= seen.get(session_id, 0)
            assert session.metadata == {"of": "it"}
            assert session.ended_ns is None or len(found) == 120
            seen[session_id] = len(found)
            reads += 1
        return reads

    writing = asyncio.create_task(write())
    reads = await asyncio.gather(*(read(seed) for seed in range(4)))
    await writing
    assert sum(reads) > 20


@every_config
async def test_verifying_finds_no_fault_however_much_is_being_written(make_store, config):
    store = await make_store(config=config)
    done = False

    async def write(number):
        while not done:
            async with store.session() as recorder:
                for step in range(30):
                    await recorder.record_put(step, "x" * (step % 5) * 400)
            if number % 2:
                await store.delete_session(recorder.session_id)

    writing = [asyncio.create_task(write(number)) for number in range(4)]
    for _ in range(25):
        report = await store.verify()
        assert report.ok, report.problems
    done = True
    await asyncio.gather(*writing)


@every_config
async def test_two_stores_of_one_file_both_write_and_both_see_everything(make_store, config):
    stores = [await make_store(config=config) for _ in range(2)]
    body = os.urandom(50_000)

    async def work(number, store):
        ids = []
        for part in range(10):
            async with store.session(f"{number}/{part}") as recorder:
                for step in range(10):
                    await recorder.record_put(step, body if step == 5 else f"{number} {step}")
            ids.append(recorder.session_id)
        return ids

    async def follow(store):
        async with store.subscribe() as events:
            return [event async for event in events]

    following = [asyncio.create_task(follow(store)) for store in stores]
    first, second = await asyncio.gather(*(work(n, store) for n, store in enumerate(stores)))
    for _ in range(2):
        for store in stores:
            await store.start_session()
            await store.end_session()
    for store in stores:
        for session_id in (*first, *second):
            assert await frames(store, session_id) == list(range(10))
        assert store.statistics().content_count == 1
    for store in stores:
        await store.aclose()
    one, two = await asyncio.gather(*following)
    shorter = min(len(one), len(two))
    assert one[:shorter] == two[:shorter]
    for got in (one, two):
        assert [event.sequence for event in got] == list(range(1, len(got) + 1))
        assert len(got) >= 20 * 12 + 1


async def test_a_read_only_store_follows_one_that_writes(make_store):
    writer = await make_store()
    reader = await make_store(read_only=True, config=StoreConfig(limits=TINY, poll_interval=0.001))
    async with writer.session() as recorder, reader.subscribe() as events:
        got = []
        for number in range(30):
            await asyncio.gather(*(recorder.record_put(n, "x" * number * 50) for n in range(10)))
            while len(got) < writer.last_sequence:
                got.append(await anext(events))
            assert len((await reader.get_session(recorder.session_id)).actions) == 10 * (number + 1)
        assert (await reader.verify()).ok
    assert [event.sequence for event in got] == list(range(1, len(got) + 1))


def test_a_store_in_each_of_several_threads(tmp_path):
    """Each has a loop of its own; the file is shared."""
    path = tmp_path / "store.mva"
    failures, ids = [], []

    async def work(number):
        async with open_store(path) as store:
            async with store.session(str(number)) as recorder:
                for step in range(40):
                    await recorder.record_put(step, f"{number} {step}")
            ids.append(recorder.session_id)

    def run(number):
        try:
            asyncio.run(work(number))
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []

    async def check():
        async with open_store(path) as store:
            assert (await store.verify()).ok
            for session_id in ids:
                assert await frames(store, session_id) == list(range(40))

    asyncio.run(check())
    assert len(ids) == 4


# Processes.

WRITING_CHILD = """
import asyncio, sys
from memvid_async import *
async def main(path, number, durability):
    config = StoreConfig(durability=Durability(durability), flush_interval=0.002)
    async with open_store(path, config=config) as store:
        async def agent(part):
            for _ in range(3):
                async with store.session(f"{number}/{part}") as recorder:
                    for step in range(25):
                        data = f"{number} {part} {step} " * (step % 9 * 30)
                        await recorder.record_put(step, data)
                        await store.record_delete(step)
        await asyncio.gather(*(agent(part) for part in range(4)))
        await store.sync()
        print(store.last_sequence)
asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_write_one_file(make_store):
    store = await make_store()
    await store.start_session("before")
    children = [
        await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-W", "error", "-c", WRITING_CHILD, store.path, str(n), durability],
            stdout=subprocess.PIPE,
        )
        for n, durability in enumerate(["sync", "buffered"])
    ]

    def wait():
        return [child.communicate()[0] for child in children]

    waiting = asyncio.create_task(asyncio.to_thread(wait))
    own = 0
    while not waiting.done():
        # Gaps between the commands let the others have the lock.
        await store.record_put(own, "in between")
        own += 1
        await asyncio.wait([waiting], timeout=0.002)
    said = [int(line) for line in await waiting]
    assert [child.returncode for child in children] == [0, 0]
    await store.end_session()
    assert store.last_sequence >= max(said)
    assert (await store.verify()).ok
    before, *others = await store.list_sessions()
    assert before.action_count == own
    assert sorted(summary.name for summary in others) == sorted(
        f"{number}/{part}" for number in range(2) for part in range(4) for _ in range(3)
    )
    for summary in others:
        session = await store.get_session(summary.session_id)
        kinds = [(str(a.kind), a.details.frame_id) for a in session.actions]
        assert kinds == [(kind, step) for step in range(25) for kind in ("put", "delete")]
        number, part = summary.name.split("/")
        for action in session.actions[::2]:
            step = action.details.frame_id
            expected = f"{number} {part} {step} " * (step % 9 * 30)
            assert await store.read_content(action.input) == expected.encode()


async def test_a_second_process_sees_and_streams_what_the_first_wrote(make_store):
    store = await make_store()
    recorder = await store.session("first").__aenter__()
    await recorder.record_put(1, "x" * 3000)
    script = """
import asyncio, sys
from uuid import UUID
from memvid_async import *
async def main(path, session_id):
    async with open_store(path, read_only=True) as store, store.subscribe() as events:
        print(len((await store.get_session(UUID(session_id))).actions), flush=True)
        async for event in events:
            print(event.sequence, type(event.payload).__name__, flush=True)
            if isinstance(event.payload, SessionEnded):
                return
asyncio.run(main(*sys.argv[1:]))
"""
    command = [sys.executable, "-W", "error", "-c", script, store.path, str(recorder.session_id)]
    child = await asyncio.to_thread(subprocess.Popen, command, stdout=subprocess.PIPE, text=True)

    def lines(count):
        return [child.stdout.readline().strip() for _ in range(count)]

    seen = await asyncio.to_thread(lines, 4)
    assert seen == ["1", "1 SessionStarted", "2 ContentStored", "3 ActionRecorded"]
    await recorder.record_put(2, "y")
    assert await asyncio.to_thread(lines, 1) == ["4 ActionRecorded"]
    await recorder.__aexit__(None, None, None)
    assert await asyncio.to_thread(lines, 1) == ["5 SessionEnded"]
    assert await asyncio.to_thread(child.wait, 20) == 0
    child.stdout.close()


FORKING = """
import asyncio, gc, os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forking beside threads
from memvid_async import *

async def in_child(store, recorder, action):
    calls = {
        "record": lambda: store.record_put(2, "from the child"),
        "record large": lambda: store.record_put(2, "x" * 100_000),
        "recorder": lambda: recorder.record_put(2, "from the child"),
        "sync": store.sync,
        "list": store.list_sessions,
        "get": lambda: store.get_session(recorder.session_id),
        "read": lambda: store.read_content(action.input),
        "verify": store.verify,
        "session": lambda: store.session().__aenter__(),
        "close": store.aclose,
    }
    for name, call in calls.items():
        try:
            await call()
        except StoreClosedError:
            pass
        except BaseException as error:
            print(name, repr(error), flush=True)
        else:
            if name != "close":
                print(name, "was not refused", flush=True)

async def main(path):
    async with open_store(path) as store, store.session() as recorder:
        action = await recorder.record_put(1, "y" * 3000)
        child = os.fork()
        if child == 0:
            warnings.simplefilter("ignore")
            asyncio.run(in_child(store, recorder, action))
            os._exit(0)
        os.waitpid(child, 0)
        await recorder.record_put(3, "z")
        session = await store.get_session(recorder.session_id)
        assert [each.details.frame_id for each in session.actions] == [1, 3]
        assert (await store.verify()).ok
    print("done")

asyncio.run(main(sys.argv[1]))
"""


def test_a_store_is_refused_in_a_forked_child_and_goes_on_in_its_own_process(tmp_path):
    path = tmp_path / "store.mva"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKING, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["done"], done.stderr
    assert done.returncode == 0

    async def check():
        async with open_store(path) as store:
            assert (await store.verify()).ok
            events = []
            async with store.subscribe() as subscription:
                while len(events) < store.last_sequence:
                    events.append(await anext(subscription))
            return [
                e.payload.action.details.frame_id
                for e in events
                if isinstance(e.payload, ActionRecorded)
            ]

    assert asyncio.run(check()) == [1, 3]
