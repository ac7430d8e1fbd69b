"""``put(…, uri=…, replace=True)`` leaves one frame with that URI, however many tasks put one."""

import asyncio

import pytest

from memvid_async import (
    Durability,
    FrameDeleted,
    FramesPut,
    InvalidValueError,
    RecordingConfig,
    StoreConfig,
    Verdict,
)
from memvid_async.memory.change_gate import ChangeGate
from tests.support.loops import run_dry

pytestmark = pytest.mark.anyio
HERE = "mv2://notes/1"


async def held(store, uri=HERE):
    return [frame.frame_id async for frame in store.frames() if frame.uri == uri]


async def test_all_that_have_the_uri_are_replaced_in_one_step(make_store):
    store = await make_store()
    others = [await store.put("otter", uri=uri) for uri in (HERE + "0", HERE[:-1], None)]
    replaced = [await store.put(text, uri=HERE) for text in ("old otter", "older otter")]
    async with store.subscribe(store.last_sequence) as events:
        new = await store.put("new otter", uri=HERE, replace=True, title="t")
        payloads = [(await anext(events)).payload for _ in range(3)]
    assert [type(one) for one in payloads] == [FrameDeleted, FrameDeleted, FramesPut]
    assert [one.frame_id for one in payloads] == [*replaced, new]
    assert await held(store) == [new]
    hits = (await store.find("otter")).hits
    assert {hit.frame_id for hit in hits} == {*others, new}
    assert store.statistics().frame_count == 4


async def test_without_one_it_is_put(make_store):
    store = await make_store()
    assert await held(store) == []
    frame_id = await store.put("otter", uri=HERE, replace=True)
    assert await held(store) == [frame_id]


@pytest.mark.parametrize("bad", [{"replace": True}, {"replace": 1, "uri": HERE}])
async def test_what_to_replace_must_be_said(make_store, bad):
    store = await make_store()
    with pytest.raises(InvalidValueError, match="replace"):
        await store.put("otter", **bad)
    assert store.last_sequence == 0


async def test_a_session_records_a_put_and_replays_it(make_store):
    store = await make_store()
    config = RecordingConfig(auto_checkpoint_interval=1)
    async with store.session(config=config) as recorder:
        await store.put("old", uri=HERE)
        await store.put("new " * 1000, uri=HERE, replace=True)
        await store.find("new")
    session = await store.get_session(recorder.session_id)
    puts = [action for action in session.actions if str(action.kind) == "put"]
    assert [action.affected_frames for action in puts] == [(1,), (2,)]
    report = await store.replay(recorder.session_id).report()
    assert report.counts[Verdict.MATCHED] == len(session.actions)


async def test_a_fork_replaces_in_its_own_memory(make_store):
    store = await make_store()
    first = await store.put("old", uri=HERE)
    async with store.session() as recorder:
        await recorder.record_tool_call("t", arguments=1)
    forked = await store.fork(recorder.session_id)
    async with store.resume_session(forked):
        new = await store.put("new", uri=HERE, replace=True)
        assert await held(store) == [new]
    assert await held(store) == [first]
    await store.put("other", uri=HERE, replace=True)
    async with store.resume_session(await store.fork(forked)):
        assert await held(store) == [new]


@pytest.mark.parametrize("durability", Durability)
async def test_of_many_tasks_and_openers_one_is_last(make_store, durability):
    config = StoreConfig(durability=durability, flush_interval=0.001)
    stores = [await make_store(config=config) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        for number in range(20):
            store = stores[number % 2]
            group.create_task(store.put(f"text {number}", uri=HERE, replace=True))
            group.create_task(store.put(f"other {number}", uri=f"{HERE}/{number % 3}"))
    for store in stores:
        await store.sync()
    for store in stores:
        await store.refresh()
        assert len(await held(store)) == 1
        assert store.statistics().frame_count == 21


async def test_one_alone_waits_for_changes_under_way_and_holds_new_ones():
    gate, order, go = ChangeGate(), [], asyncio.Event()

    async def change(name):
        async with gate:
            order.append(f"{name} begins")
            await go.wait()
            order.append(f"{name} ends")

    async def alone(name):
        async with gate.alone():
            order.append(name)

    tasks = [asyncio.create_task(change("a"))]
    await run_dry()
    for one in (alone("alone"), alone("cancelled"), change("b")):
        tasks.append(asyncio.create_task(one))
        await run_dry()
    assert order == ["a begins"]
    tasks[2].cancel()
    go.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["a begins", "a ends", "alone", "b begins", "b ends"]


async def test_one_alone_that_is_cancelled_opens_the_gate():
    gate, go = ChangeGate(), asyncio.Event()

    async def change():
        async with gate:
            await go.wait()

    async def alone():
        async with gate.alone():
            pytest.fail("a change is under way")

    first, waiting = asyncio.create_task(change()), asyncio.create_task(alone())
    await run_dry()
    second = asyncio.create_task(change())
    await run_dry()
    waiting.cancel()
    await run_dry()
    go.set()
    await asyncio.gather(first, second)
