"""The memory through a session's own handle: recorded there, whichever session is in force."""

import asyncio

import pytest

from memvid_async import SessionEndedError, open_store

pytestmark = pytest.mark.anyio


async def test_the_memory_through_a_handle_is_recorded_in_its_session(tmp_path):
    async with open_store(tmp_path / "a.mva") as store, store.session("outer") as outer:
        async with store.session("inner") as inner:
            first = await outer.put("an otter sleeps", title="Otters")
            assert await asyncio.create_task(outer.put_many(["a fox", "a wolf"])) == [2, 3]
            await outer.update(first, title="An otter")
            await outer.delete(3)
            found = await outer.find("otter")
            answer = await outer.ask("who sleeps?", generate=lambda prompt: "the otter")
            await store.put("into the session in force")
            assert [hit.frame_id for hit in found.hits] == [first]
            assert answer.action.session_id == outer.session_id
        kinds = [str(one.kind) for one in (await store.get_session(outer.session_id)).actions]
        assert kinds == ["put", "put_many", "update", "delete", "find", "ask"]
        assert len((await store.get_session(inner.session_id)).actions) == 1
        for call in (inner.put("late"), inner.find("late"), inner.delete(1)):
            with pytest.raises(SessionEndedError):
                await call
        assert [frame.frame_id async for frame in store.frames()] == [1, 2, 4]


async def test_a_fork_s_handle_has_the_fork_s_memory(tmp_path):
    async with open_store(tmp_path / "a.mva") as store:
        async with store.session() as parent:
            await parent.put("shared")
        forked = await store.fork(parent.session_id)
        async with store.resume_session(forked) as fork, store.session() as other:
            own = await fork.put("only the fork's")
            assert [hit.frame_id for hit in (await fork.find("fork")).hits] == [own]
            assert not (await other.find("fork")).hits
