"""Closing, and the end of the event loop with work pending."""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import uuid

import anyio
import pytest

from memvid_async import (
    Durability,
    Limits,
    SessionEndedError,
    StoreClosedError,
    StoreConfig,
    StoreLockedError,
    open_store,
)
from memvid_async.engine.writer import Writer
from memvid_async.storage import FileStorage
from tests.support.depth import ENDINGS_OF_UVLOOP
from tests.support.disk import SimStorage
from tests.support.loops import run_dry, turns, until_called

NEVER = 1000.0
LARGE = "x" * 100_000
DURABILITIES = pytest.mark.parametrize("durability", Durability, ids=lambda value: value.value)


async def frames(path, session_id):
    async with open_store(path) as store:
        assert (await store.verify()).ok
        session = await store.get_session(session_id)
    return [action.details.frame_id for action in session.actions]


@DURABILITIES
async def test_closing_writes_what_waits(tmp_path, durability):
    path = tmp_path / "store.mva"
    config = StoreConfig(durability=durability, flush_interval=NEVER)
    store = await open_store(path, config=config)
    session_id = await store.start_session()
    tasks = [asyncio.create_task(store.record_put(n, "x" * n)) for n in range(2000)]
    await turns(1)
    await store.aclose()
    assert all(task.done() for task in tasks)
    assert [task.result().index for task in tasks] == list(range(2000))
    assert await frames(path, session_id) == list(range(2000))


async def test_what_comes_after_closing_began_is_refused_and_the_rest_is_written(
    tmp_path, disk, monkeypatch
):
    path = tmp_path / "store.mva"
    store = await open_store(path)
    session_id = await store.start_session()
    disk.hold()
    before = [asyncio.create_task(store.record_put(n, "x")) for n in range(300)]
    await run_dry()
    began = until_called(monkeypatch, Writer, "aclose")
    closing = [asyncio.create_task(store.aclose()) for _ in range(3)]
    await began.wait()
    for late in (store.record_put(999, "x"), store.sync(), store.start_session()):
        with pytest.raises(StoreClosedError):
            await late
    assert not any(task.done() for task in closing)
    disk.let_go()
    await asyncio.gather(*closing, *before)
    assert await frames(path, session_id) == list(range(300))


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_closed_store_refuses_everything_and_leaves_nobody_waiting(tmp_path, read_only):
    path = tmp_path / "store.mva"
    async with open_store(path) as store, store.session() as recorder:
        action = await recorder.record_put(1, LARGE)
        small = await recorder.record_put(1, "x")
        asked = await recorder.record_ask(
            "q", provider="p", model="m", response="r", duration_ms=1, messages=[LARGE]
        )
    store = await open_store(path, read_only=read_only)
    session_id = recorder.session_id
    untouched = await open_store(path, read_only=read_only)
    await store.get_session(session_id)

    def reading(closed):
        yield closed.list_sessions()
        yield closed.get_session(session_id)
        yield closed.read_content(action.input)
        yield closed.read_content(small.input)
        yield closed.read_messages(asked)
        yield closed.verify()

    def writing(closed):
        yield closed.sync()
        yield closed.start_session()
        yield closed.end_session()
        yield closed.create_checkpoint()
        yield closed.delete_session(uuid.uuid4())
        yield closed.record_put(1, "x")
        yield closed.record_put(1, LARGE)
        yield closed.record_find("q", mode="m", result_count=0, result_frames=())
        yield closed.session(metadata={"a": LARGE}).__aenter__()
        yield closed.resume_session(session_id).__aenter__()

    for closed in (store, untouched):
        await closed.aclose()
        await closed.aclose()
        for call in (*reading(closed), *(() if read_only else writing(closed))):
            with pytest.raises(StoreClosedError):
                await call
        for look in (closed.statistics, closed.subscribe):
            with pytest.raises(StoreClosedError):
                look()
        assert closed.last_sequence == 6
        assert not closed.is_recording
        assert closed.path == path


async def test_reading_that_is_under_way_ends_when_the_store_closes(tmp_path):
    path = tmp_path / "store.mva"
    store = await open_store(path)
    async with store.session() as recorder:
        await asyncio.gather(*(recorder.record_put(n, os.urandom(3000)) for n in range(1000)))
    reads = [
        asyncio.create_task(call)
        for _ in range(4)
        for call in (store.verify(), store.get_session(recorder.session_id), store.list_sessions())
    ]
    large = asyncio.create_task(recorder.record_put(1, "x" * 5_000_000))
    await turns(1)
    await store.aclose()
    for result in await asyncio.gather(*reads, large, return_exceptions=True):
        assert not isinstance(result, Exception) or isinstance(
            result, (StoreClosedError, SessionEndedError)
        ), repr(result)


@DURABILITIES
async def test_a_block_that_is_left_after_closing_says_so_but_hides_no_error(tmp_path, durability):
    path = tmp_path / "store.mva"
    left_open = []

    async def use(error=None):
        store = await open_store(path, config=StoreConfig(durability=durability))
        async with store.session() as recorder:
            left_open.append(recorder.session_id)
            await store.aclose()
            if error is not None:
                raise error

    with pytest.raises(StoreClosedError):
        await use()
    with pytest.raises(ZeroDivisionError):
        await use(ZeroDivisionError())
    async with open_store(path) as store:
        for session_id in left_open:
            async with store.resume_session(session_id):
                pass
            assert (await store.get_session(session_id)).ended_ns is not None


async def test_a_writer_that_is_cancelled_fails_who_waits_and_acks_only_what_is_durable(
    tmp_path, disk
):
    """The end of a loop cancels every task, the store's own among them."""
    path = tmp_path / "store.mva"
    store = await open_store(path)
    session_id = await store.start_session()
    disk.hold()
    first = asyncio.create_task(store.record_put(0, "x"))
    await disk.until_held()
    waiting = [asyncio.create_task(store.record_put(n, "x")) for n in range(1, 600)]
    barrier = asyncio.create_task(store.sync())
    await run_dry()
    store._engine.writer._task.cancel()
    await run_dry()
    assert not first.done()
    store._engine.writer._task.cancel()
    disk.let_go()
    results = await asyncio.gather(first, *waiting, barrier, return_exceptions=True)
    acked = [r.details.frame_id for r in results[:-1] if not isinstance(r, Exception)]
    refused = [result for result in results if isinstance(result, Exception)]
    assert {type(error) for error in refused} == {StoreClosedError}
    assert len(refused) >= 300
    with pytest.raises(StoreClosedError):
        await store.record_put(1, "x")
    await store.aclose()
    found = await frames(path, session_id)
    assert found[: len(acked)] == acked
    assert found == list(range(len(found)))


@pytest.mark.parametrize("call", ["room", "enter", "lock"])
async def test_whoever_waits_for_something_else_is_told_too(tmp_path, disk, call):
    path = tmp_path / "store.mva"
    config = StoreConfig(limits=Limits(queue_bytes=1), lock_timeout=0.2)
    store = await open_store(path, config=config)
    await store.start_session()
    with contextlib.ExitStack() as stack:
        if call == "lock":
            holder = stack.enter_context(contextlib.closing(SimStorage(disk, path.name)))
            holder.lock(0)
        else:
            disk.hold()
        tasks = [asyncio.create_task(store.record_put(n, "x")) for n in range(20)]
        if call == "enter":
            tasks += [asyncio.create_task(store.session().__aenter__()) for _ in range(5)]
        await run_dry()
        store._engine.writer._task.cancel()
        await run_dry()
        disk.let_go()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        expected = (StoreClosedError, StoreLockedError) if call == "lock" else StoreClosedError
        assert all(isinstance(result, expected) for result in results[2:])
        await store.aclose()


# Whole processes.

PREAMBLE = """
import asyncio, gc, os, sys, threading
import anyio
from memvid_async import *
path = sys.argv[1]
def ack(action):
    os.write(1, b"%d\\n" % action.details.frame_id)
async def reached(store, sequence):
    async with store.subscribe(after=sequence - 1) as events:
        await anext(events)
async def agent(store, first, *, forever=True):
    async with store.session() as recorder:
        for number in range(first, first + 10**6):
            ack(await recorder.record_put(number, "x" * (number % 50) * 40))
            if not forever and number > first + 20:
                return
"""

LEFT = """
        loop = asyncio.new_event_loop()
        async def main():
            store = await open_store(path)
            await agent(store, 0, forever=False)
            await agent(store, 10**6, forever=False)
            await agent(store, 2 * 10**6, forever=False)
            return store
        {}loop.run_until_complete(main())
        loop.close()
    """
ENDINGS = {
    "returning": """
        async def main():
            store = await open_store(path)
            tasks = [asyncio.create_task(agent(store, n * 10**6)) for n in range(5)]
            await reached(store, 100)
            main.kept = store, tasks
        asyncio.run(main())
    """,
    "raising": """
        async def main():
            store = await open_store(path)
            async with asyncio.TaskGroup() as group:
                for n in range(5):
                    group.create_task(agent(store, n * 10**6))
                await reached(store, 100)
                raise SystemExit(0)
        asyncio.run(main())
    """,
    "interrupted": """
        async def main():
            async with open_store(path) as store, asyncio.TaskGroup() as group:
                for n in range(5):
                    group.create_task(agent(store, n * 10**6))
                await reached(store, 100)
                os.kill(os.getpid(), 2)
        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            pass
    """,
    "anyio": """
        async def main():
            store = await open_store(path)
            async with anyio.create_task_group() as group:
                for n in range(5):
                    group.start_soon(agent, store, n * 10**6)
                await reached(store, 100)
                group.cancel_scope.cancel()
        anyio.run(main)
    """,
    "buffered": """
        async def main():
            config = StoreConfig(durability=Durability.BUFFERED, flush_interval=1000)
            store = await open_store(path, config=config)
            global ack
            pending, told = [], ack
            ack = pending.append
            await asyncio.gather(*(agent(store, n * 10**6, forever=False) for n in range(5)))
            await store.sync()
            for action in pending:
                told(action)
            asyncio.create_task(agent(store, 10**8))
            ack = lambda action: None
            await reached(store, 300)
        asyncio.run(main())
    """,
    "subscribed": """
        async def main():
            store = await open_store(path)
            reader = await open_store(path, read_only=True)
            async def follow(store):
                async with store.subscribe() as events:
                    async for event in events:
                        pass
            tasks = [asyncio.create_task(follow(each)) for each in (store, reader)]
            tasks += [asyncio.create_task(agent(store, 0))]
            tasks += [asyncio.create_task(store.verify())]
            await reached(store, 100)
        asyncio.run(main())
    """,
    "closed by hand": """
        loop = asyncio.new_event_loop()
        store = loop.run_until_complete(open_store(path)._open())
        tasks = [loop.create_task(agent(store, n * 10**6)) for n in range(5)]
        async def wait():
            await reached(store, 100)
        loop.run_until_complete(wait())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.gather(*asyncio.all_tasks(loop), return_exceptions=True))
        loop.close()
    """,
    "closed without cancelling": LEFT.format(""),
    "kept until the interpreter ends": LEFT.format("store = "),
    "stopped in a thread": """
        def work():
            async def main():
                store = await open_store(path)
                tasks = [asyncio.create_task(agent(store, n * 10**6)) for n in range(5)]
                await reached(store, 100)
            asyncio.run(main())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    """,
}


@pytest.mark.parametrize(
    ("ending", "loop"),
    [*((ending, "asyncio") for ending in ENDINGS)]
    + [(ending, "uvloop") for ending in ENDINGS_OF_UVLOOP],
)
def test_a_process_whose_loop_ends_with_work_pending(tmp_path, ending, loop):
    """It ends by itself, says nothing but that the store was not closed, and every ack holds."""
    path = tmp_path / "store.mva"
    script = PREAMBLE
    if loop == "uvloop":
        pytest.importorskip("uvloop")
        script += "import uvloop\nasyncio.set_event_loop_policy(uvloop.EventLoopPolicy())\n"
    script += textwrap.dedent(ENDINGS[ending])
    # A store that was not closed says so when it is freed; that is not looked for here.
    script += "\nimport warnings\nwarnings.simplefilter('ignore', ResourceWarning)\ngc.collect()\n"
    strict = ["-W", "error", "-W", "ignore::ResourceWarning", "-W", "ignore::DeprecationWarning"]
    child = subprocess.run(
        [sys.executable, *strict, "-c", script, str(path)],
        capture_output=True,
        check=False,
    )
    said = child.stderr.decode()
    if ending in ("closed without cancelling", "kept until the interpreter ends"):
        # Python says so of any task that outlives its loop; the store adds nothing.
        assert said.startswith("Task was destroyed but it is pending!\ntask: <Task pending name=")
        assert said.count("\n") == 2
    else:
        assert said == ""
    assert child.returncode == 0
    acked = {int(line) for line in child.stdout.split()}
    assert len(acked) > 50

    async def check():
        async with open_store(path) as store:
            assert (await store.verify()).ok
            found = set()
            for summary in await store.list_sessions(include_open=True):
                session = await store.get_session(summary.session_id)
                numbers = [action.details.frame_id for action in session.actions]
                assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
                found.update(numbers)
            return found

    assert acked <= anyio.run(check)


def test_a_store_outlives_no_loop_but_can_still_be_closed(tmp_path):
    """Closing it from another loop, after its own has ended, is quiet."""

    async def begin():
        store = await open_store(tmp_path / "store.mva")
        await store.start_session()
        return store

    store = asyncio.run(begin())

    async def use():
        with pytest.raises(StoreClosedError):
            await store.record_put(1, "x")
        with pytest.raises(StoreClosedError):
            await store.list_sessions()
        await store.aclose()

    asyncio.run(use())


def test_signals_do_not_reach_the_stores_threads(tmp_path):
    """A signal handler runs while the store's threads wait: nothing of theirs is interrupted."""
    hits = []

    async def main():
        async with open_store(tmp_path / "store.mva") as store:
            await store.start_session()
            for number in range(200):
                os.kill(os.getpid(), signal.SIGUSR1)
                await store.record_put(number, "x")
            return len((await store.end_session()).actions)

    before = signal.signal(signal.SIGUSR1, lambda *_: hits.append(1))
    try:
        assert asyncio.run(main()) == 200
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert hits


def test_what_a_buffered_store_had_acked_is_written_as_the_loop_ends(tmp_path):
    path = tmp_path / "a.mva"
    config = StoreConfig(durability=Durability.BUFFERED, flush_interval=NEVER)

    async def record():
        store = await open_store(path, config=config)
        await store.start_session()
        for number in range(3):
            await store.record_find(
                f"question {number}", mode="m", result_count=0, result_frames=()
            )
        return store

    store = asyncio.run(record())

    async def recorded():
        async with open_store(path, read_only=True) as store:
            (summary,) = await store.list_sessions(include_open=True)
            return summary.action_count

    assert asyncio.run(recorded()) == 3
    asyncio.run(store.aclose())


async def test_a_buffered_writer_that_is_cancelled_writes_what_it_staged(tmp_path, monkeypatch):
    path = tmp_path / "store.mva"
    config = StoreConfig(durability=Durability.BUFFERED, flush_interval=NEVER)
    store = await open_store(path, config=config)
    holder = os.open(path, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    locking = until_called(monkeypatch, FileStorage, "lock")
    starting = asyncio.create_task(store.start_session())
    await locking.wait()
    store._engine.writer._task.cancel()
    await run_dry()
    assert not starting.done()
    os.close(holder)
    session_id = await starting
    await asyncio.wait([store._engine.writer._task])
    with pytest.raises(StoreClosedError):
        await store.record_put(1, "x")
    await store.aclose()
    async with open_store(path, read_only=True) as again:
        assert (await again.get_session(session_id)).ended_ns is None
