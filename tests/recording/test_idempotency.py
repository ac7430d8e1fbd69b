"""Idempotency keys: the same call again adds nothing and gets the first answer."""

import pytest

from memvid_async import Durability, InvalidValueError, StoreConfig, open_store

RECORDS = {
    "record_ask": {"query": "q" * 1100, "response": "r", "messages": ["m"], "model": "m"},
    "record_find": {"query": "q", "mode": "lexical", "result_count": 0, "result_frames": []},
    "record_put": {"frame_id": 1, "data": "d"},
    "record_put_many": {"frame_ids": [1, 2]},
    "record_update": {"frame_id": 1, "data": "d"},
    "record_delete": {"frame_id": 1},
    "record_tool_call": {"name": "n", "arguments": {"a": 1}, "result": "r" * 70_000},
}
OTHERS = {
    "record_ask": {"messages": ["other"]},
    "record_find": {"mode": "other"},
    "record_put": {"data": b"d"},
    "record_put_many": {"frame_ids": [2, 1]},
    "record_update": {"frame_id": 2},
    "record_delete": {"error": "failed"},
    "record_tool_call": {"arguments": {"a": 2}},
}


@pytest.mark.parametrize("durability", Durability)
@pytest.mark.parametrize("name", RECORDS)
async def test_an_action_is_recorded_once(make_store, name, durability):
    store = await make_store("a.mva", config=StoreConfig(durability=durability))
    given = RECORDS[name]
    async with store.session() as session:
        record = getattr(session, name)
        first = await record(**given, key="k", duration_ms=1, task="one")
        last = store.last_sequence
        again = await record(**given, key="k", duration_ms=2, task="two")
        assert again == first
        assert store.last_sequence == last
        with pytest.raises(InvalidValueError, match="something else"):
            await record(**{**given, **OTHERS[name]}, key="k")
        assert (await record(**given, key="another")).index == 1
        assert (await record(**given)).index == 2
    assert len((await store.get_session(session.session_id)).actions) == 3


async def test_a_key_is_of_its_session(make_store):
    store = await make_store()
    async with store.session() as one, store.session() as two:
        first = await one.record_delete(1, key="k")
        second = await two.record_delete(2, key="k")
    assert first != second
    assert [first.affected_frames, second.affected_frames] == [(1,), (2,)]


async def test_a_frame_is_put_once_in_any_process_and_after_anything(make_store):
    store = await make_store("a.mva")
    other = await make_store("a.mva")
    first = await store.put("an otter", title="t", key="k")
    assert await other.put("an otter", title="t", key="k") == first
    assert await store.put(b"bytes " * 400, key="large") == 2
    async with store.session() as session:
        assert await store.put("an otter", title="t", key="k") == first
    assert not (await store.get_session(session.session_id)).actions
    for call in (store.put("an otter", key="k"), store.put("a fox", title="t", key="k")):
        with pytest.raises(InvalidValueError, match="something else"):
            await call
    await store.delete(first)
    await store.compact()
    await store.aclose()
    async with open_store(store.path) as again:
        assert await again.put("an otter", title="t", key="k") == first
        assert await again.put(b"bytes " * 400, key="large") == 2
        assert again.statistics().frame_count == 1


async def test_a_fork_has_keys_of_its_own(make_store):
    store = await make_store()
    async with store.session() as session:
        first = await store.put("an otter", key="k")
    fork = await store.fork(session.session_id)
    async with store.resume_session(fork):
        second = await store.put("an otter", key="k")
        assert await store.put("an otter", key="k") == second
    assert second != first


async def test_the_key_of_a_deleted_session_goes_with_it(make_store):
    store = await make_store()
    async with store.session() as session:
        await session.record_delete(1, key="k")
    await store.delete_session(session.session_id)
    report = await store.compact()
    # Its start, the action, the key and its end; the deletion stays.
    assert report.erased_events == 4


@pytest.mark.parametrize("key", ["k" * 2000, 5, "\ud800"])
async def test_a_key_that_cannot_be_is_refused(make_store, key):
    store = await make_store()
    async with store.session() as session:
        for call in (store.put("x", key=key), session.record_delete(1, key=key)):
            with pytest.raises(InvalidValueError if key != "k" * 2000 else ValueError):
                await call
