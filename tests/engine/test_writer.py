"""The writer: what is acked and when, what a failing disk does, what is bounded."""

import asyncio
import contextlib
import errno
import fcntl
import os

import pytest
from attrs import evolve as replace

from memvid_async import (
    CorruptFileError,
    Durability,
    Limits,
    OutOfMemoryError,
    RecordingConfig,
    SessionEndedError,
    StoreClosedError,
    StoreConfig,
    StoreFailedError,
    open_store,
)
from memvid_async.file import journal as journals
from tests.support.loops import read_until, run_dry

# Too long to come by itself within a test: flushing is what the test asks for.
NEVER = 1000.0
BUFFERED = StoreConfig(durability=Durability.BUFFERED, flush_interval=NEVER)
TINY = Limits(tail_bytes=1, read_bytes=4096)
MIB = 1024 * 1024


async def follow(subscription, delivered):
    """Hand on each sequence as it comes, until the subscription ends."""
    async with subscription:
        async for event in subscription:
            delivered.put_nowait(event.sequence)


async def frames(store, session_id):
    session = await store.get_session(session_id)
    return [a.details.frame_id for a in session.actions if a.kind == "put"]


# Acks.


async def test_nothing_is_acked_or_delivered_before_the_sync_returns(disk, make_store):
    store = await make_store()
    session_id = await store.start_session()
    await store.record_put(0, "x")
    delivered = asyncio.Queue()
    followers = [
        asyncio.create_task(follow(subscription, delivered))
        for subscription in (store.subscribe(), store.subscribe(session_id=session_id))
    ]
    assert sorted([await delivered.get() for _ in range(4)]) == [1, 1, 2, 2]
    with disk.held():
        calls = [
            store.record_put(1, "x"),
            store.create_checkpoint(),
            store.sync(),
            store.session().__aenter__(),
            store.end_session(),
        ]
        waiting = [asyncio.create_task(call) for call in calls]
        await disk.until_held()
        await run_dry()
        assert not any(task.done() for task in waiting)
        assert delivered.empty()
    await asyncio.gather(*waiting)
    assert sorted([await delivered.get() for _ in range(7)]) == [3, 3, 4, 4, 5, 6, 6]
    for follower in followers:
        follower.cancel()


async def test_what_waits_meanwhile_is_written_together(disk, make_store):
    store = await make_store()
    await store.start_session()
    with disk.held():
        first = asyncio.create_task(store.record_put(0, "x"))
        await disk.until_held()
        rest = [asyncio.create_task(store.record_put(n, "x")) for n in range(1, 101)]
        await run_dry()
        before = disk.counts["sync"], disk.counts["write"]
    await asyncio.gather(first, *rest)
    assert (disk.counts["sync"], disk.counts["write"]) == (before[0] + 1, before[1] + 1)


async def test_a_refused_command_fails_alone(make_store):
    store = await make_store()
    async with store.session(config=RecordingConfig(max_actions=1)) as few, store.session() as many:
        results = await asyncio.gather(
            few.record_put(0, "x"),
            many.record_put(1, "x"),
            few.record_put(2, "x"),
            store.delete_session(few.session_id),
            store.delete_session(few.session_id),
            many.record_put(3, "x"),
            return_exceptions=True,
        )
        refused = [type(result) for result in results if isinstance(result, Exception)]
        assert [refusal.__name__ for refusal in refused] == [
            "SessionEndedError",
            "SessionNotFoundError",
        ]
    assert await frames(store, many.session_id) == [1, 3]


async def test_readers_are_answered_while_a_batch_is_being_written(disk, make_store):
    """What they see is what was there before, whatever the batch is about to add: positions of a
    session, its end, contents, a TOC."""
    store = await make_store()
    async with store.session() as recorder:
        await asyncio.gather(*(recorder.record_put(n, "x") for n in range(60)))
        large = await recorder.record_put(60, "y" * 5000)
        before = await store.get_session(recorder.session_id)
        with disk.held():
            recording = [
                asyncio.create_task(recorder.record_put(n, f"{n}" * 4000)) for n in range(61, 400)
            ]
            await disk.until_held()
            assert await store.get_session(recorder.session_id) == before
            assert await store.read_content(large.input) == b"y" * 5000
            assert [s.action_count for s in await store.list_sessions(include_open=True)] == [61]
            assert (await store.verify()).ok
            async with store.subscribe(session_id=recorder.session_id) as subscription:
                got = [await anext(subscription) for _ in range(60)]
            assert got[0].sequence == 1
        await asyncio.gather(*recording)
    assert await frames(store, recorder.session_id) == list(range(400))


# Buffered.


async def test_buffered_acks_before_the_disk_and_reads_what_was_written(disk, make_store):
    store = await make_store(config=BUFFERED)
    async with store.session("open", metadata={"a": 1}) as recorder:
        await recorder.record_put(0, "x")
        before = dict(disk.counts)
        actions = [await recorder.record_put(n, "x" * n * 20) for n in range(1, 100)]
        assert disk.counts["sync"] == before["sync"]
        delivered = asyncio.Queue()
        following = asyncio.create_task(follow(store.subscribe(), delivered))
        await run_dry()
        assert delivered.empty()
        session = await store.get_session(recorder.session_id)
        assert session.actions[1:] == tuple(actions)
        assert session.metadata == {"a": 1}
        assert await store.read_content(actions[-1].input) == b"x" * 1980
        wanted = list(range(1, store.last_sequence + 1))
        assert [await delivered.get() for _ in wanted] == wanted
        following.cancel()


async def test_a_buffer_as_large_as_a_batch_is_written_without_being_asked(disk, make_store):
    config = replace(BUFFERED, limits=Limits(batch_bytes=5_000))
    store = await make_store(config=config)
    await store.start_session()
    before = disk.counts["sync"]
    for number in range(40):
        await store.record_put(number, "x" * 400)
    async with store.subscribe() as events:
        await read_until(events, 2)
    assert disk.counts["sync"] > before


async def test_sync_is_the_barrier(disk, make_store):
    store = await make_store(config=BUFFERED)
    await store.start_session()
    await store.record_put(1, "a unique body")
    file = disk.names["store.mva"]
    assert b"a unique body" not in file.durable
    with disk.held():
        syncing = [asyncio.create_task(store.sync()) for _ in range(3)]
        await disk.until_held()
        await run_dry()
        assert not any(task.done() for task in syncing)
    await asyncio.gather(*syncing)
    assert b"a unique body" in file.durable
    before = disk.counts["sync"]
    await store.sync()
    assert disk.counts["sync"] == before


async def test_ending_a_session_of_a_buffered_store_is_durable(disk, make_store):
    store = await make_store(config=BUFFERED)
    await store.start_session()
    await store.record_put(1, "a unique body")
    before = disk.counts["sync"]
    await store.end_session()
    assert disk.counts["sync"] > before
    assert b"a unique body" in disk.names["store.mva"].durable


async def test_the_disk_has_it_soon_although_nobody_asks(disk, make_store):
    """The delivery shows that it was made durable."""
    config = StoreConfig(durability=Durability.BUFFERED, flush_interval=0.05)
    store = await make_store(config=config)
    await store.start_session()
    async with store.subscribe() as subscription:
        for number in range(3):
            before = disk.counts["sync"]
            await store.record_put(number, "x")
            while (await anext(subscription)).sequence < store.last_sequence:
                pass
            assert disk.counts["sync"] > before


async def test_a_buffer_that_grows_large_is_written_before_its_time(disk, make_store):
    store = await make_store(config=BUFFERED)
    async with store.session() as recorder:
        before = disk.counts["sync"]
        for number in range(12):
            await recorder.record_put(number, os.urandom(MIB))
        assert disk.counts["sync"] > before
        assert store.statistics().file_bytes > 4 * MIB


async def test_a_buffered_store_holds_the_lock_from_its_first_unwritten_event_to_the_flush(
    make_store, tmp_path
):
    store = await make_store(config=BUFFERED)

    def locked():
        with (tmp_path / "store.mva").open("rb") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    assert not locked()
    await store.start_session()
    assert locked()
    await store.record_put(1, "x")
    assert locked()
    await store.sync()
    assert not locked()
    async with store.session() as recorder:
        assert locked()
    await store.sync()
    with pytest.raises(SessionEndedError):
        await recorder.record_put(1, "x")
    await store.sync()
    assert not locked()


# Bounds.


async def test_the_queue_is_bounded_and_callers_wait_for_room(disk, make_store):
    limits = Limits(queue_bytes=100_000, batch_bytes=20_000)
    store = await make_store(config=StoreConfig(limits=limits))
    async with store.session() as recorder:
        with disk.held():
            tasks = [
                asyncio.create_task(recorder.record_put(n, os.urandom(5000))) for n in range(200)
            ]
            await disk.until_held()
            await run_dry()
            found = store.statistics()
            assert found.pending_bytes <= limits.queue_bytes + 6000
            assert found.pending_commands < 25
            for task in tasks[150::7]:
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        done = [
            number for number, result in enumerate(results) if not isinstance(result, BaseException)
        ]
        assert set(range(150)) <= set(done)
    found = await frames(store, recorder.session_id)
    assert set(done) <= set(found)
    assert len(found) == len(set(found))


async def test_what_counts_is_all_that_a_command_holds(disk, make_store):
    limits = Limits(queue_bytes=1_000_000)
    store = await make_store(config=StoreConfig(limits=limits))
    async with store.session() as recorder:
        with disk.held():
            tasks = [
                asyncio.create_task(recorder.record_put(n, "", metadata={"m": "x" * 60_000}))
                for n in range(100)
            ]
            sessions = [store.session(metadata={"m": "x" * 60_000}) for _ in range(100)]
            tasks += [asyncio.create_task(session.__aenter__()) for session in sessions]
            await disk.until_held()
            await run_dry()
            held = sum(
                len(getattr(command, "extras", command).metadata.get("m", ""))
                for command, *_ in store._engine.writer._queue
                if command is not None
            )
            assert held <= limits.queue_bytes + 120_000
        await asyncio.gather(*tasks)


async def test_a_batch_is_bounded(disk, make_store):
    store = await make_store(config=StoreConfig(limits=Limits(batch_bytes=50_000)))
    async with store.session() as recorder:
        with disk.held():
            tasks = [
                asyncio.create_task(recorder.record_put(n, os.urandom(20_000))) for n in range(40)
            ]
            await disk.until_held()
            await run_dry()
            before = disk.counts["write"]
        await asyncio.gather(*tasks)
        assert disk.counts["write"] - before >= 10


# A disk that fails.

CALLS = ["write", "sync"]
DURABILITIES = pytest.mark.parametrize("durability", Durability, ids=lambda value: value.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [0, 1, 2, 5])
async def test_a_failed_write_or_sync_is_never_acked(disk, make_store, call, after):
    store = await make_store()
    session_id = await store.start_session()
    acked = [(await store.record_put(n, "x")).details.frame_id for n in range(3)]
    disk.fail(call, after)
    failed = False
    for number in range(3, 20):
        try:
            action = await store.record_put(number, "x" * 2000)
        except StoreFailedError:
            failed = True
        else:
            assert not failed
            acked.append(action.details.frame_id)
    assert failed
    disk.heal()
    for refused in (
        store.record_put(99, "x"),
        store.record_put(99, "x" * 100_000),
        store.sync(),
        store.end_session(),
        store.create_checkpoint(),
        store.session().__aenter__(),
        store.delete_session(session_id),
    ):
        with pytest.raises(StoreFailedError):
            await refused
    await store.aclose()
    with pytest.raises(StoreFailedError):
        await store.record_put(99, "x")
    store = await make_store()
    found = await frames(store, session_id)
    assert found[: len(acked)] == acked
    assert found == list(range(len(found)))
    assert await store.record_put(100, "x") is not None
    assert await frames(store, session_id) == [*found, 100]


async def test_a_failure_fails_the_whole_batch_and_all_that_wait(disk, make_store):
    store = await make_store()
    session_id = await store.start_session()
    with disk.held():
        first = asyncio.create_task(store.record_put(0, "x"))
        await disk.until_held()
        waiting = [asyncio.create_task(store.record_put(n, "x")) for n in range(1, 400)]
        await run_dry()
        disk.fail("sync", -1)
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(result) for result in results[1:]] == [StoreFailedError] * 399
    await store.aclose()
    disk.heal()
    store = await make_store()
    found = await frames(store, session_id)
    assert found == list(range(len(found)))
    if not isinstance(results[0], StoreFailedError):
        assert found[:1] == [0]


async def test_a_write_that_fails_half_way_is_cut(disk, make_store):
    store = await make_store()
    session_id = await store.start_session()
    await store.record_put(0, os.urandom(3000))
    disk.fail("write", number=errno.ENOSPC, share=0.5)
    with pytest.raises(StoreFailedError, match="space"):
        await store.record_put(1, os.urandom(3000))
    disk.heal()
    await store.aclose()
    store = await make_store()
    assert store.torn_tail.bytes_dropped > 0
    assert await frames(store, session_id) == [0]


@pytest.mark.parametrize("call", CALLS)
async def test_buffered_events_that_never_reach_the_disk_are_not_lost_in_silence(
    disk, make_store, call
):
    store = await make_store(config=BUFFERED)
    session_id = await store.start_session()
    await store.sync()
    acked = await store.record_put(1, "x")
    assert acked is not None
    disk.fail(call)
    with pytest.raises(StoreFailedError):
        await store.sync()
    for refused in (store.sync, store.end_session, lambda: store.get_session(session_id)):
        with pytest.raises(StoreFailedError):
            await refused()
    with contextlib.suppress(StoreFailedError):
        await store.aclose()


@pytest.mark.parametrize("call", CALLS)
async def test_closing_says_so_when_buffered_events_cannot_be_written(disk, make_store, call):
    store = await make_store(config=BUFFERED)
    await store.start_session()
    await store.sync()
    await store.record_put(1, "x")
    disk.fail(call)
    with pytest.raises(StoreFailedError):
        await store.aclose()
    disk.heal()
    with contextlib.suppress(StoreFailedError):
        await store.aclose()


async def test_a_flush_that_fails_by_itself_fails_what_comes_after(disk, make_store):
    config = StoreConfig(durability=Durability.BUFFERED, flush_interval=0.001)
    store = await make_store(config=config)
    await store.start_session()
    await store.sync()
    disk.fail("sync")
    async with store.subscribe(after=store.last_sequence) as subscription:
        await store.record_put(1, "x")
        with pytest.raises(StoreFailedError):
            await anext(subscription)
    with pytest.raises(StoreFailedError):
        await store.sync()
    with contextlib.suppress(StoreFailedError):
        await store.aclose()


@pytest.mark.parametrize("limits", [Limits(), TINY], ids=["all in memory", "tiny tail"])
async def test_a_subscription_gets_all_that_was_durable_and_then_the_failure(
    disk, make_store, limits
):
    store = await make_store(config=StoreConfig(limits=limits))
    session_id = await store.start_session()
    await asyncio.gather(*(store.record_put(n, "x" * 300) for n in range(100)))
    durable, delivered = store.last_sequence, asyncio.Queue()
    async with store.subscribe() as subscription:
        got = [(await anext(subscription)).sequence]
        disk.fail("sync")
        with pytest.raises(StoreFailedError):
            await store.record_put(100, "x")
        disk.heal()
        with pytest.raises(StoreFailedError):
            await follow(subscription, delivered)
    got += [delivered.get_nowait() for _ in range(delivered.qsize())]
    assert got == list(range(1, durable + 1))
    for read in (lambda: store.get_session(session_id), store.list_sessions, store.verify):
        with pytest.raises(StoreFailedError):
            await read()


async def test_a_failed_read_is_named_and_fails_no_write(disk, make_store):
    store = await make_store()
    async with store.session() as recorder:
        action = await recorder.record_put(1, "x" * 5000)
        disk.fail("read")
        for read in (store.get_session(recorder.session_id), store.read_content(action.input)):
            with pytest.raises(StoreFailedError):
                await read
        disk.heal()
        assert await frames(store, recorder.session_id) == [1]
        assert (await recorder.record_put(2, "x")).index == 1


@pytest.mark.parametrize("call", ["write", "sync", "truncate", "read"])
async def test_an_opening_that_fails_is_named_and_can_be_tried_again(
    disk, make_store, tmp_path, call
):
    path = tmp_path / "store.mva"
    store = await make_store()
    session_id = await store.start_session()
    await store.record_put(1, "x")
    await store.aclose()
    if call in ("write", "sync"):
        path = tmp_path / "new.mva"
    else:
        torn = disk.names[path.name]
        torn.write(len(torn.cache), b"torn")
    disk.fail(call)
    with pytest.raises(StoreFailedError):
        await open_store(path)
    disk.heal()
    store = await make_store(path.name)
    if path.name == "store.mva":
        assert await frames(store, session_id) == [1]
    else:
        await store.start_session()
    assert await store.record_put(2, "x") is not None


async def test_a_file_cut_short_under_a_running_store_is_named_damage(make_store, tmp_path):
    store = await make_store(check=False)
    session_id = await store.start_session()
    await asyncio.gather(*(store.record_put(n, "x" * 900) for n in range(50)))
    os.truncate(tmp_path / "store.mva", 10_000)
    for _ in range(3):
        with pytest.raises((CorruptFileError, StoreFailedError)):
            await store.record_put(99, "x")
    with pytest.raises((CorruptFileError, StoreFailedError)):
        await store.get_session(session_id)
    await store.aclose()
    with pytest.raises((CorruptFileError, StoreFailedError, StoreClosedError)):
        await store.record_put(99, "x")


@DURABILITIES
async def test_a_bug_in_the_writer_wedges_nobody(tmp_path, monkeypatch, durability):
    """Whatever goes wrong inside, who waits is told."""
    store = await open_store(tmp_path / "store.mva", config=StoreConfig(durability=durability))
    await store.start_session()
    raised = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_exception_handler", raised.append, raising=False)

    def fail(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(journals, "stage_run", fail)
    tasks = [asyncio.create_task(store.record_put(n, "x")) for n in range(300)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    expected = (StoreFailedError, OutOfMemoryError, MemoryError)
    assert all(isinstance(result, expected) for result in results)
    with pytest.raises(StoreFailedError):
        await store.sync()
    with contextlib.suppress(StoreFailedError):
        await store.aclose()
