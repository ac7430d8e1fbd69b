"""`session.timeout`: whether it fired is recorded, and an agent that runs again sees it so."""

import asyncio

import pytest

from memvid_async import InvalidValueError, open_store
from tests.support.loops import turns


class Calls:
    """What ran."""

    def __init__(self):
        self.ran = []

    async def quick(self, name):
        self.ran.append(name)
        return name

    async def endless(self, name):
        self.ran.append(name)
        await asyncio.Event().wait()


async def agent(session, calls, seconds, second):
    """A call, and one that may take too long, in a timeout; then one more."""
    told = []
    try:
        async with session.timeout(seconds):
            told.append(await session.call_tool("a", {"name": "a"}, calls.quick))
            told.append(await session.call_tool("b", {"name": "b"}, second))
    except TimeoutError:
        told.append("too late")
    told.append(await session.call_tool("c", {"name": "c"}, calls.quick))
    return told


@pytest.mark.parametrize("fires", [False, True])
async def test_a_run_again_sees_it_as_it_was(make_store, fires):
    """Rule 41."""
    store, calls = await make_store(), Calls()
    second = calls.endless if fires else calls.quick
    async with store.session("agent") as session:
        live = await agent(session, calls, 0.05 if fires else 60, second)
    assert live == (["a", "too late", "c"] if fires else ["a", "b", "c"])
    assert calls.ran == ["a", "b", "c"]
    # Others run and other seconds change nothing: what is recorded counts.
    async with store.serve(session.session_id) as served:
        assert await agent(served, calls, 60 if fires else 0, calls.quick) == live
        assert served.unserved == ()
    assert calls.ran == ["a", "b", "c"]


async def test_three_at_once_fire_each_for_itself(make_store):
    store, calls = await make_store(), Calls()

    async def one(session, name):
        run = calls.endless if name == "b" else calls.quick
        try:
            async with session.timeout(0.05 if name == "b" else 60):
                await asyncio.gather(session.call_tool(name, {"name": name}, run), turns(3))
        except TimeoutError:
            return f"{name} too late"
        return name

    async def three(session):
        return await asyncio.gather(*(one(session, name) for name in "abc"))

    async with store.session("agent") as session:
        live = await three(session)
    assert live == ["a", "b too late", "c"]
    async with store.serve(session.session_id) as served:
        assert await three(served) == live


async def test_in_a_timeout_that_was_not_over_the_seconds_begin_again(tmp_path):
    calls, reached = Calls(), asyncio.Event()

    async def waits(name):
        reached.set()
        await calls.endless(name)

    async with open_store(tmp_path / "a.mva") as store:
        opening = store.session("agent")

        async def live():
            async with opening as session:
                await agent(session, calls, 60, waits)

        task = asyncio.create_task(live())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        resuming = store.resume_session(opening.session_id, replay=True, uncertain="run")
        async with resuming as session:
            assert await agent(session, calls, 0.05, calls.endless) == ["a", "too late", "c"]
        async with store.serve(opening.session_id) as served:
            assert await agent(served, calls, 0, calls.quick) == ["a", "too late", "c"]
    assert calls.ran == ["a", "b", "b", "c"]


async def test_other_errors_leave_it_as_they_are(make_store):
    store = await make_store()
    async with store.session("agent") as session:
        for error in (KeyError("k"), TimeoutError("the agent's own")):
            with pytest.raises(type(error)) as caught:
                async with session.timeout(60):
                    raise error
            assert caught.value is error
        with pytest.raises(TimeoutError):
            async with session.timeout(0):
                await asyncio.Event().wait()
        # The loop would take them, and break for all of its tasks when it waits next.
        for wrong in ("60", None, True, float("nan"), float("inf"), 10**400, [1]):
            with pytest.raises(InvalidValueError, match="number of seconds"):
                async with session.timeout(wrong):
                    pass
            with pytest.raises(InvalidValueError, match="number of seconds"):
                await session.sleep(wrong)
            if wrong is not None:
                with pytest.raises(InvalidValueError, match="number of seconds"):
                    await session.call_tool("t", {}, dict, timeout=wrong)
    recorded = await store.get_session(session.session_id)
    assert len(recorded.actions) == 6


async def test_a_cancellation_from_outside_ends_what_waits(make_store):
    store, entered = await make_store(), asyncio.Event()
    async with store.session("agent") as session:

        async def outer():
            async with session.timeout(60):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(outer())
        await entered.wait()
        names = {one: one.get_coro().__qualname__ for one in asyncio.all_tasks()}
        (watching,) = (one for one, name in names.items() if "timeout" in name)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watching.cancelled()
