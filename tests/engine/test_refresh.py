"""After refresh() a store shows what any process had acked before it, in every way to look."""

import asyncio
import contextlib
import uuid

import pytest

from memvid_async import (
    Durability,
    StoreClosedError,
    StoreConfig,
    StoreLockedError,
    open_store,
)
from tests.torture.children import Child

pytestmark = pytest.mark.one_loop
TIMES = 30
# A store that looks by itself so seldom that it never does within a test.
ALONE = StoreConfig(poll_interval=3600.0)
BUFFERED = StoreConfig(durability=Durability.BUFFERED, flush_interval=0.01)
CONFIGS = pytest.mark.parametrize(
    "config",
    [ALONE, StoreConfig(durability=Durability.BUFFERED, poll_interval=3600.0)],
    ids=["sync", "buffered"],
)


async def shown(store, text, frame_id, session_id):
    """Demand that a frame and the ended session around its put are seen, however one looks."""
    assert store.statistics().frame_count == frame_id
    assert store.statistics().open_session_count == 0
    assert [hit.frame_id for hit in (await store.find(text)).hits] == [frame_id]
    assert await store.read_content((await store.get(frame_id)).content) == text.encode()
    summary = (await store.list_sessions())[-1]
    assert (summary.session_id, summary.name) == (session_id, text)
    assert len((await store.get_session(session_id)).actions) == 1


async def put(store, number):
    text = f"word{number}"
    async with store.session(text) as recorder:
        frame_id = await store.put(text)
    return text, frame_id, recorder.session_id


@CONFIGS
async def test_what_another_process_acked_is_shown(path, config):
    async with open_store(path, config=config) as store:
        with contextlib.ExitStack() as stack:
            child = stack.enter_context(Child("put_when_told", path, TIMES))
            assert child.hear() == "ready"
            for number in range(TIMES):
                child.tell(f"word{number}")
                frame_id, session_id = await asyncio.to_thread(child.hear)
                await store.refresh()
                await shown(store, f"word{number}", frame_id, uuid.UUID(session_id))


@CONFIGS
async def test_what_another_store_of_this_process_acked_is_shown(path, config):
    async with open_store(path, config=config) as store, open_store(path) as other:
        for number in range(TIMES):
            acked = await put(other, number)
            await store.refresh()
            await shown(store, *acked)


@CONFIGS
async def test_what_a_buffered_store_acked_and_has_not_written_is_shown(path, config):
    async with open_store(path, config=config) as store, open_store(path, config=BUFFERED) as other:
        for number in range(TIMES):
            frame_id = await other.put(f"word{number}")
            assert other.statistics().frame_count == frame_id
            await store.refresh()
            assert [hit.frame_id for hit in (await store.find(f"word{number}")).hits] == [frame_id]


async def test_properties_of_a_follower_show_it_too(path):
    async with open_store(path, read_only=True, config=ALONE) as store, open_store(path) as other:
        for number in range(TIMES):
            acked = await put(other, number)
            await store.refresh()
            assert store.last_sequence == other.last_sequence
            await shown(store, *acked)


async def test_the_ambient_session_is_what_another_made_it(path):
    async with open_store(path, config=ALONE) as store, open_store(path) as other:
        started = await other.start_session()
        await store.refresh()
        assert store.active_session_id == started
        await other.end_session()
        await store.refresh()
        assert not store.is_recording


async def test_a_compaction_by_another_is_followed(path):
    async with open_store(path, config=ALONE) as store, open_store(path) as other:
        session = (await put(other, 0))[2]
        await other.delete_session(session)
        await other.compact()
        await store.refresh()
        assert store.statistics().generation == 1
        assert await store.list_sessions() == []


@CONFIGS
async def test_where_nothing_is_new_nothing_is_written(path, config):
    async with open_store(path, config=config) as store:
        await store.put("there")
        await store.sync()
        before = path.read_bytes()
        for _ in range(TIMES):
            await store.refresh()
        assert path.read_bytes() == before


async def test_it_shows_what_the_store_itself_has_only_buffered(path):
    async with open_store(path, config=BUFFERED) as store:
        await store.put("own")
        await store.refresh()
        assert not store.statistics().pending_commands
        async with open_store(path, read_only=True) as follower:
            assert follower.statistics().frame_count == 1


async def test_a_lock_that_is_kept_is_named_and_the_next_one_goes_on(path):
    impatient = StoreConfig(lock_timeout=0.05)
    async with open_store(path, config=impatient) as store:
        with Child("hold_lock", path) as child:
            child.hear()
            with pytest.raises(StoreLockedError):
                await store.refresh()
            child.kill()
            child.wait()
        await store.refresh()
        await store.put("goes on")


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_closed_store_refuses(path, read_only):
    async with open_store(path, read_only=read_only) as store:
        await store.refresh()
    with pytest.raises(StoreClosedError):
        await store.refresh()
