"""Steps of an agent that runs again: those that are recorded go on, none is recorded twice."""

import asyncio
from collections import Counter

import pytest

from memvid_async import RecordingConfig, Verdict, open_store

pytestmark = pytest.mark.anyio


async def agent(session, stop=lambda _place: None):
    """Steps in each other, in a loop, and in two tasks; some have no calls."""
    place = 0

    async def look(n):
        nonlocal place
        stop(place)
        place += 1
        return await session.call_tool("look", {"n": n}, lambda n: n)

    async def part(n):
        async with session.step("part", input={"n": n}) as step:
            step.output = await look(n)

    async with session.step("plan") as plan:
        async with session.step("empty"):
            pass
        for n in range(2):
            await part(n)
        async with asyncio.TaskGroup() as group:
            for n in (10, 20):
                group.create_task(part(n), name=f"worker {n}")
        plan.output = await look(30)
    async with session.step("end"):
        pass


async def tree(store, session_id):
    """Return each action, with the name and the input of what it is part of; how often."""
    session = await store.get_session(session_id)
    assert session.in_flight == ()
    by_start = {one.started: one for one in session.actions}

    def named(action):
        given = None if action.input is None else action.input.data
        return action.details.name, given, action.output and action.output.data

    return Counter(
        (str(named(one)), str(named(by_start[one.parent])) if one.parent else "", str(one.error))
        for one in session.actions
    )


async def whole(path):
    async with open_store(path) as store:
        async with store.session() as session:
            await agent(session)
        async with store.serve(session.session_id) as recorded:
            await agent(recorded)
        counts = (await store.replay(session.session_id).report()).counts
        assert (counts[Verdict.SKIPPED], counts[Verdict.UNVERIFIABLE]) == (12, 0)
        return await tree(store, session.session_id)


@pytest.mark.parametrize("dies_at", range(5))
async def test_a_step_goes_on_where_its_process_was_asked_to_end(tmp_path, dies_at):
    """Rules 33 and 34."""

    def stop(place):
        if place == dies_at:
            raise asyncio.CancelledError

    wanted = await whole(tmp_path / "whole.mva")
    async with open_store(tmp_path / "a.mva") as store:
        with pytest.raises(asyncio.CancelledError):  # noqa: PT012 - what leaves the block
            async with store.session() as session:
                await session.call_tool("first", {}, dict)
                await agent(session, stop)
        async with store.resume_session(session.session_id, replay=True) as session:
            await session.call_tool("first", {}, dict)
            await agent(session)
        found = await tree(store, session.session_id)
        # What the shutdown cancelled is recorded as such, and went on.
        done = {one: n for one, n in found.items() if one[2] == "None" and "first" not in one[0]}
        assert done == wanted


@pytest.mark.parametrize("index", range(1, 12, 2))
async def test_a_fork_in_the_middle_of_steps_goes_on_with_them(tmp_path, index):
    wanted = await whole(tmp_path / "whole.mva")
    async with open_store(tmp_path / "a.mva") as store:
        async with store.session() as session:
            await agent(session)
        fork = await store.fork(session.session_id, action_index=index)
        async with store.resume_session(fork, replay=True, uncertain="run") as session:
            await agent(session)
        assert await tree(store, fork) == wanted


@pytest.mark.parametrize("dies_at", range(6))
async def test_a_step_without_calls_is_recorded_once(tmp_path, dies_at):
    """Known by its name, its task and how often that entered one of that name before."""

    async def agent(session, dies_at=None):
        place = 0

        async def maybe(name):
            nonlocal place
            if place == dies_at:
                raise asyncio.CancelledError
            place += 1
            async with session.step("outer"), session.step(name):
                if name == "call":
                    await session.call_tool("look", {"n": place}, lambda n: n)

        await session.call_tool("first", {}, dict)
        for name in ("none", "call", "none", "none", "call", "none"):
            await maybe(name)

    async with open_store(tmp_path / "a.mva") as store:
        async with store.session() as session:
            await agent(session)
        wanted = await tree(store, session.session_id)
        with pytest.raises(asyncio.CancelledError):
            async with store.session() as session:
                await agent(session, dies_at)
        async with store.resume_session(session.session_id, replay=True) as again:
            await agent(again)
        assert await tree(store, session.session_id) == wanted


async def test_without_starts_a_step_is_one_event(tmp_path):
    config = RecordingConfig(record_starts=False)
    async with open_store(tmp_path / "a.mva") as store:
        async with store.session(config=config) as session:
            await agent(session)
        actions = (await store.get_session(session.session_id)).actions
        assert len(actions) == 12
        assert {one.started for one in actions} == {None}
