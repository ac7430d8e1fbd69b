"""What pages gather from the log and keep is what the store itself says, whenever it is asked."""

import pytest
from attrs import evolve

from memvid_async import FrameDeleted, FramesPut, FrameUpdated, StoreConfig
from memvid_async.view import memory_pages
from memvid_async.view.gathered import Gathered
from memvid_async.view.memory_pages import frame_page

DAY_NS = 86_400 * 10**9


@pytest.fixture
async def store(make_store):
    now = 0

    def clock():
        nonlocal now
        now += DAY_NS // 9
        return now

    return await make_store(config=StoreConfig(clock=clock))


async def record(store, name):
    async with store.session(name) as session:
        for number in range(7):
            await session.record_ask(
                "q", model=None if number == 3 else f"m{number % 2}", response="r", duration_ms=2,
                input_tokens=number, output_tokens=2, cached_tokens=1, cost_usd=0.1, task=name,
            )  # fmt: skip
            error = "boom" if number % 3 == 0 else None
            await session.record_tool_call(f"{name}-tool", arguments={}, error=error)
        await session.record_find("q", mode="lex", result_count=0, result_frames=())
    return session.session_id


async def said(store, **between):
    return [await store.usage(by=by, **between) for by in ("day", "model", "tool")]


def rounded(tables):
    return [[evolve(row, cost_usd=round(row.cost_usd, 9)) for row in rows] for rows in tables]


async def test_it_says_what_calls_used_as_the_store_does(store):
    gathered = Gathered(store)
    await gathered.catch_up()
    assert gathered.usage(None, None) == ([], [], [])
    first = await record(store, "one")
    for step in ("one", "two", "deleted"):
        if step == "two":
            second = await record(store, "two")
        if step == "deleted":
            await store.delete_session(first)
        await gathered.catch_up()
        assert rounded(gathered.usage(None, None)) == rounded(await said(store))
        between = {"since_ns": 2 * DAY_NS, "until_ns": 4 * DAY_NS}
        assert rounded(gathered.usage(*between.values())) == rounded(await said(store, **between))
    assert gathered.sessions(name="two-tool") == gathered.sessions(task="two") == {second}
    assert gathered.sessions(name="m1", task="one") == gathered.sessions(name="lex") == set()


async def test_a_frame_has_its_changes_wherever_they_lie(store, monkeypatch):
    monkeypatch.setattr(memory_pages, "_NEAR", 5)
    await store.put_many([f"town {number}" for number in range(4)])
    await store.put("village")
    for number in range(3):
        await store.update(3, f"changed {number}")
        await record(store, f"run {number}" * (number % 2))
    await store.update(3, title="T")
    await store.delete(3)
    gathered = Gathered(store)
    await gathered.catch_up()
    wanted = []
    async with store.subscribe() as events:
        async for event in events:
            match event.payload:
                case FramesPut() if 3 in event.payload.frame_ids:
                    wanted.append(event.sequence)
                case FrameUpdated(frame_id=3) | FrameDeleted(frame_id=3):
                    wanted.append(event.sequence)
            if event.sequence == store.last_sequence:
                break
    assert len(wanted) == 6
    assert gathered.frame_changes(3) == wanted
    page = "".join([part async for part in frame_page(store, gathered, 3, {})])
    assert [f'href="?at={one}"' in page for one in wanted] == [True] * 6
    assert [f">changed {one}" in page for one in range(3)] == [True] * 3
    assert gathered.frame_changes(0) == []
