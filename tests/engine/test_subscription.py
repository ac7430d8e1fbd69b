"""Subscriptions: every durable event once and in order, whether from the file or live, at no cost
to the writer."""

import asyncio
import contextlib
import gc
import itertools
import threading
import uuid
import weakref

import pytest

from memvid_async import (
    Durability,
    Erased,
    Limits,
    RecordingConfig,
    SessionDeleted,
    SessionEnded,
    SessionNotFoundError,
    SessionStarted,
    StoreClosedError,
    StoreConfig,
)
from memvid_async.file.file_view import FileView
from tests.support.loops import read_until, run_dry, turns

TINY = Limits(tail_bytes=1, read_bytes=4096)
# Too long to come by itself within a test: flushing is what the test asks for.
NEVER = 1000.0
CONFIGS = {
    "sync, all in memory": StoreConfig(),
    "sync, tiny tail": StoreConfig(limits=TINY),
    "buffered, all in memory": StoreConfig(durability=Durability.BUFFERED, flush_interval=0.002),
    "buffered, tiny tail": StoreConfig(
        durability=Durability.BUFFERED, flush_interval=0.002, limits=TINY
    ),
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


async def follow(subscription, note):
    """Note each sequence as it comes, until the subscription ends."""
    async for event in subscription:
        note(event.sequence)


async def everything(store, **arguments):
    async with store.subscribe(**arguments) as subscription:
        return await read_until(subscription, store.last_sequence)


async def record(recorder, count, size=60):
    await asyncio.gather(*(recorder.record_put(n, "x" * size) for n in range(count)))


async def test_who_gives_up_again_and_again_has_one_read_made(make_store, monkeypatch):
    """Else each would wait for all before it, and hold the file that it is to read."""
    store = await make_store(config=CONFIGS["sync, tiny tail"])
    await store.start_session()
    await record(store, 3)
    reads, opened, read = [], threading.Event(), FileView.events_after

    def held(view, *given):
        reads.append(given)
        assert opened.wait(30)
        return read(view, *given)

    monkeypatch.setattr(FileView, "events_after", held)
    async with store.subscribe() as events:
        for _ in range(5):
            waiting = asyncio.create_task(anext(events))
            await run_dry()
            waiting.cancel()
            await asyncio.wait([waiting])
        opened.set()
        assert (await anext(events)).sequence == 1
    assert len(reads) == 1


@every_config
async def test_catching_up_and_going_on_live_leaves_no_gap_and_repeats_nothing(make_store, config):
    store = await make_store(config=config)
    done = asyncio.Event()

    async def agent(number):
        for part in range(3):
            async with store.session(f"{number}/{part}") as recorder:
                for step in range(20):
                    await recorder.record_put(step, "x" * (step * 40))

    async def read(pause):
        got = []
        async with store.subscribe() as subscription:
            async for event in subscription:
                got.append(event)
                await turns(pause)
                if done.is_set() and event.sequence == store.last_sequence:
                    break
        return got

    early = [asyncio.create_task(read(pause)) for pause in (0, 1, 7)]
    agents = [asyncio.create_task(agent(number)) for number in range(8)]
    await asyncio.gather(*agents[:3])
    late = [asyncio.create_task(read(pause)) for pause in (0, 3)]
    await asyncio.gather(*agents)
    await store.sync()
    done.set()
    async with store.session("wakes those that wait"):
        pass
    await store.sync()
    reference = await everything(store)
    last = store.last_sequence
    assert [event.sequence for event in reference] == list(range(1, last + 1))
    for got in await asyncio.gather(*early, *late):
        assert got == reference[: len(got)]
        assert len(got) >= last - 2
    await store.aclose()
    store = await make_store(read_only=True)
    assert await everything(store) == reference


@every_config
async def test_from_any_place_on(make_store, config):
    store = await make_store(config=config)
    async with store.session() as recorder:
        await record(recorder, 100, 1500)
    await store.sync()
    reference = await everything(store)
    for after in (0, 1, 2, 50, 99, store.last_sequence - 1):
        assert await everything(store, after=after) == reference[after:]
    async with store.subscribe(after=store.last_sequence) as subscription:
        assert subscription.caught_up
        waiting = asyncio.create_task(anext(subscription))
        session_id = await store.start_session("next")
        await store.sync()
        event = await waiting
        assert event.session_id == session_id
        assert event.payload == SessionStarted("next", ambient=True, config=RecordingConfig())
        assert subscription.last_sequence == event.sequence == store.last_sequence


async def test_from_a_place_that_is_still_to_come(make_store):
    store = await make_store()
    await store.start_session()
    async with store.subscribe(after=3) as subscription:
        waiting = asyncio.create_task(anext(subscription))
        for number in range(4):
            await store.record_put(number, "x")
        event = await waiting
    assert event.sequence == 4
    assert event.payload.action.details.frame_id == 2


@every_config
async def test_one_session_only(make_store, config):
    store = await make_store(config=config)
    async with (
        store.session() as one,
        store.session() as two,
        store.subscribe(session_id=one.session_id) as live,
        store.subscribe(session_id=two.session_id, after=2) as other,
    ):
        for number in range(60):
            await one.record_put(number, "x" * 150)
            for _ in range(number % 4):
                await two.record_put(number, "y" * 250)
            if number % 20 == 0:
                await store.sync()
        await store.sync()
        reference = await everything(store)
        ours = [event for event in reference if event.session_id == one.session_id]
        theirs = [event for event in reference if event.session_id == two.session_id]
        assert await read_until(live, ours[-1].sequence) == ours
        assert await read_until(other, theirs[-1].sequence) == theirs[1:]
    await store.sync()
    ended = {
        event.session_id: event.sequence
        for event in await everything(store)
        if type(event.payload) is SessionEnded
    }
    for recorder in (one, two):
        last = ended[recorder.session_id]
        async with store.subscribe(session_id=recorder.session_id) as subscription:
            found = await read_until(subscription, last)
        assert {event.session_id for event in found} == {recorder.session_id}
    with pytest.raises(SessionNotFoundError):
        store.subscribe(session_id=uuid.uuid4())


@pytest.mark.parametrize("limits", [Limits(), TINY], ids=["all in memory", "tiny tail"])
async def test_one_session_while_events_wait_for_the_disk(make_store, limits):
    """What is staged and not yet durable is neither delivered nor passed over."""
    store = await make_store(
        config=StoreConfig(durability=Durability.BUFFERED, flush_interval=NEVER, limits=limits)
    )
    delivered = asyncio.Queue()
    async with store.session() as recorder, asyncio.TaskGroup() as group:
        await record(recorder, 200)
        await store.sync()
        durable = store.last_sequence
        await record(recorder, 100)
        subscription = store.subscribe(session_id=recorder.session_id)
        following = group.create_task(follow(subscription, delivered.put_nowait))
        got = [await delivered.get() for _ in range(durable)]
        await run_dry()
        assert delivered.empty()
        await record(recorder, 100)
        await store.sync()
        got += [await delivered.get() for _ in range(durable, store.last_sequence)]
        assert got == list(range(1, store.last_sequence + 1))
        following.cancel()


@every_config
async def test_it_says_when_it_has_caught_up(make_store, config):
    store = await make_store(config=config)
    async with store.session() as recorder:
        await record(recorder, 300)
        await store.sync()
        durable = store.last_sequence
        async with store.subscribe() as subscription:
            seen = []
            assert not subscription.caught_up
            following = asyncio.create_task(follow(subscription, seen.append))
            await subscription.wait_caught_up()
            assert len(seen) >= durable
            await asyncio.gather(subscription.wait_caught_up(), subscription.wait_caught_up())
            assert not following.done()
            await recorder.record_put(1, "x")
            await store.sync()
            await subscription.wait_caught_up()
            assert seen == list(range(1, store.last_sequence + 1))
            assert subscription.caught_up
        following.cancel()


async def test_it_has_caught_up_with_its_session_though_others_go_on(make_store):
    store = await make_store()
    async with store.session() as one, store.session() as two:
        await record(one, 3)
        await record(two, 50)
        async with store.subscribe(session_id=one.session_id) as subscription:
            seen = []
            following = asyncio.create_task(follow(subscription, seen.append))
            await subscription.wait_caught_up()
            assert len(seen) == 4
        following.cancel()


@every_config
async def test_a_reader_that_never_reads_slows_nobody_and_misses_nothing(make_store, config):
    store = await make_store(config=config)
    async with (
        store.session() as recorder,
        store.subscribe() as asleep,
        store.subscribe() as slow,
    ):
        await anext(slow)
        await record(recorder, 2000, 200)
        await store.sync()
        found = store.statistics()
        assert found.tail_bytes <= config.limits.tail_bytes
        for subscription in (asleep, slow):
            assert len(subscription._buffer) <= 256
        events = await read_until(asleep, store.last_sequence)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert await read_until(slow, store.last_sequence) == events[1:]


async def test_the_tail_in_memory_is_bounded_however_large_the_events(make_store):
    limits = Limits(tail_bytes=200_000, read_bytes=4096)
    store = await make_store(config=StoreConfig(limits=limits))
    async with store.session() as recorder, store.subscribe() as asleep:
        for _ in range(30):
            await recorder.record_tool_call("t", arguments=None, metadata={"m": "x" * 50_000})
            assert store.statistics().tail_bytes <= limits.tail_bytes
        assert store.statistics().tail_events <= 4
        await anext(asleep)
        held = sum(len(str(event.payload)) for event in asleep._buffer)
        assert held <= limits.tail_bytes
        rest = await read_until(asleep, store.last_sequence)
        assert [event.sequence for event in rest] == list(range(2, store.last_sequence + 1))


@pytest.mark.parametrize("limits", [Limits(), TINY], ids=["all in memory", "tiny tail"])
async def test_a_read_only_store_holds_no_more_than_it_may(make_store, limits):
    limits = Limits(tail_bytes=min(limits.tail_bytes, 20_000), read_bytes=4096)
    writer = await make_store()
    store = await make_store(read_only=True, config=StoreConfig(limits=limits))
    async with writer.session() as recorder, store.subscribe() as asleep:
        for _ in range(5):
            await record(recorder, 200, 300)
            await store.list_sessions()
            assert store.statistics().tail_events <= 300
        assert len(await read_until(asleep, writer.last_sequence)) == writer.last_sequence


@pytest.mark.parametrize("limits", [Limits(), TINY], ids=["all in memory", "tiny tail"])
async def test_a_read_cancelled_in_a_read_only_store_loses_no_event(make_store, limits):
    writer = await make_store()
    config = StoreConfig(limits=limits, poll_interval=NEVER)
    store = await make_store(read_only=True, config=config)
    async with writer.session() as recorder, store.subscribe() as subscription:
        await record(recorder, 20)
        await store.list_sessions()
        got = await read_until(subscription, 10)
        for _ in range(10):
            await record(recorder, 5)
            reading = asyncio.create_task(store.list_sessions())
            await turns(1)
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            await record(recorder, 5)
            await store.list_sessions()
        got += await read_until(subscription, writer.last_sequence)
    assert [event.sequence for event in got] == list(range(1, len(got) + 1))


@every_config
@pytest.mark.parametrize("filtered", [False, True])
async def test_a_deleted_session_is_delivered_as_erased(make_store, config, filtered):
    store = await make_store(config=config)
    async with store.session("kept") as kept:
        await kept.record_put(1, "x" * 3000)
    async with store.session("secret") as secret:
        await record(secret, 40, 300)
        await store.create_checkpoint()
    await store.sync()
    which = {"session_id": secret.session_id} if filtered else {}
    async with store.subscribe(**which) as before:
        first = await anext(before)
        assert type(first.payload) is SessionStarted
        await store.delete_session(secret.session_id)
        await store.sync()
        events = [first, *await read_until(before, store.last_sequence)]
    assert type(events[-1].payload) is SessionDeleted
    assert events[-1].session_id == secret.session_id
    told = [event for event in events[1:-1] if event.session_id == secret.session_id]
    assert told == []
    if not filtered:
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        after = await everything(store)
        erased = [event for event in after if type(event.payload) is Erased]
        assert len(erased) == 43
        assert {event.session_id for event in erased} == {None}
        assert [event.time_ns for event in after] == [event.time_ns for event in events]
        await store.aclose()
        store = await make_store()
        assert await everything(store) == after


# Ending.


async def test_iterating_ends_when_the_subscription_is_closed(make_store):
    store = await make_store()
    await store.start_session()
    subscription = store.subscribe()

    async def follow():
        async with subscription:
            return [event.sequence async for event in subscription]

    following = asyncio.create_task(follow())
    await subscription.wait_caught_up()
    waiting = asyncio.create_task(subscription.wait_caught_up())
    await subscription.aclose()
    assert await following == [1]
    await waiting
    await subscription.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)
    assert store.statistics().subscriber_count == 0


@every_config
async def test_it_ends_after_the_last_event_when_the_store_is_closed(make_store, config):
    store = await make_store(config=config)
    subscriptions = [store.subscribe() for _ in range(3)]

    async def read(subscription, pause):
        got = []
        async with subscription:
            async for event in subscription:
                got.append(event.sequence)
                await turns(pause)
        return got

    following = [
        asyncio.create_task(read(subscription, pause))
        for pause, subscription in enumerate(subscriptions)
    ]
    async with store.session() as recorder:
        await record(recorder, 300)
    await store.aclose()
    last = store.last_sequence
    for got in await asyncio.gather(*following):
        assert got == list(range(1, last + 1))
    with pytest.raises(StoreClosedError):
        store.subscribe()


@every_config
async def test_one_that_lags_behind_a_closed_store_ends_and_never_hangs(make_store, config):
    store = await make_store(config=config)
    async with store.subscribe() as lagging:
        async with store.session() as recorder:
            await record(recorder, 300)
        got = [(await anext(lagging)).sequence]
        await store.aclose()
        with contextlib.suppress(StoreClosedError):
            await follow(lagging, got.append)
        assert got == list(range(1, len(got) + 1))
        with pytest.raises((StoreClosedError, StopAsyncIteration)):
            await anext(lagging)


async def test_two_readers_of_one_subscription_share_it_and_see_nothing_twice(make_store):
    store = await make_store(config=StoreConfig(limits=TINY))
    async with store.session() as recorder:
        await record(recorder, 200)
    got = []
    async with store.subscribe() as subscription:
        readers = [asyncio.create_task(follow(subscription, got.append)) for _ in range(2)]
        await subscription.wait_caught_up()
        results = [reader.exception() for reader in readers if reader.done()]
        assert results or sorted(got) == list(range(1, store.last_sequence + 1))
    await asyncio.gather(*readers, return_exceptions=True)
    assert len(got) == len(set(got))


async def test_a_subscription_nobody_holds_is_freed(make_store):
    store = await make_store()
    await store.start_session()
    subscription = store.subscribe()
    freed = weakref.ref(subscription)
    assert (await anext(subscription)).sequence == 1
    del subscription
    gc.collect()
    assert freed() is None


@every_config
async def test_a_cancelled_wait_for_the_next_event_loses_none(make_store, config):
    store = await make_store(config=config)
    # None lets it come: a wait that is always cancelled may never see a read to its end.
    got, patiences = [], itertools.cycle([0, 1, 2, 3, 5, 8, 20, 100, None])
    async with store.session() as recorder, store.subscribe() as subscription:
        recording = asyncio.create_task(record(recorder, 150))
        while len(got) < 151:
            step = asyncio.create_task(anext(subscription))
            patience = next(patiences)
            if patience is not None:
                await turns(patience)
                step.cancel()
            await asyncio.wait([step])
            if not step.cancelled():
                got.append(step.result().sequence)
        await recording
    assert got == list(range(1, 152))


async def test_reading_much_from_memory_lets_others_have_the_loop(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(tail_bytes=2**26)))
    async with store.session() as recorder, store.subscribe() as subscription:
        await record(recorder, 5000)
        rounds = 0

        async def other():
            nonlocal rounds
            while True:
                rounds += 1
                await turns(1)

        others = asyncio.create_task(other())
        await read_until(subscription, store.last_sequence)
        others.cancel()
        assert rounds >= 5
