"""The memory through a session's handle: served and resumed, it answers what it answered then."""

import asyncio

import pytest

from memvid_async import (
    FrameNotFoundError,
    Generated,
    InvalidValueError,
    ReplayDivergenceError,
    Verdict,
    open_store,
)

pytestmark = pytest.mark.anyio


async def model(prompt):
    yield f"{len(prompt.context.items)} of them"
    yield Generated(", I think.", input_tokens=7, output_tokens=3)


def never(_prompt):
    raise AssertionError("what was recorded must not be asked again")


async def agent(session, generate=model):
    """Do everything that there is with a memory, also what fails."""
    told = [
        await session.put("An otter sleeps in the river.", title="Otters", uri="a:1", tags=["x"]),
        await session.put_many(["A fox runs.", {"content": b"An otter eats.", "title": "More"}]),
    ]
    told.append(await session.find("otter", top_k=5))
    first, (second, third) = told[:2]
    told.append(await session.update(first, title="Sleeping otters"))
    told.append(await session.update(second, "A red fox runs."))
    told.append(await session.find("otter river", tags=["x"], syntax=False))
    told.append(await session.delete(third))
    for wrong in (
        lambda: session.delete(third),
        lambda: session.put(7),
        lambda: session.find("otter", top_k=0),
    ):
        try:
            await wrong()
        except (FrameNotFoundError, InvalidValueError) as error:
            told.append((str(error), isinstance(error, FrameNotFoundError)))
    told.append(await session.put("An otter again.", key="once"))
    told.append(await session.put("An otter again.", key="once"))
    told += await asyncio.gather(session.put("One."), session.find("one"), session.put("Two."))
    asked = {"provider": "local", "model": "small", "messages": [{"role": "user", "content": "?"}]}
    told.append(await session.ask("Who sleeps in the river?", generate=generate, **asked))
    return told


async def record(store):
    async with store.session("memory") as session:
        told = await agent(session)
    return session.session_id, told


async def test_a_served_memory_answers_what_it_answered(tmp_path):
    """Rule 42."""
    async with open_store(tmp_path / "a.mva") as store:
        session_id, told = await record(store)
        # What the memory holds by now is not what was found then.
        await store.update(1, "It is a beaver that sleeps.", title="Beavers")
        before = store.last_sequence
        async with store.serve(session_id) as recorded:
            assert await agent(recorded, never) == told
            counts = recorded.report().counts
        assert counts[Verdict.SERVED] == len((await store.get_session(session_id)).actions)
        assert store.last_sequence == before
        replayed = (await store.replay(session_id).report()).counts
        assert not replayed[Verdict.DIVERGED]
    async with (
        open_store(tmp_path / "a.mva", read_only=True) as store,
        store.serve(session_id, match=lambda _kind, _field, value: value) as recorded,
    ):
        assert await agent(recorded, never) == told


class Stopped:
    """A session of which the process is asked to end at its n-th call."""

    def __init__(self, session, calls):
        self.session = session
        self.left = calls

    def __getattr__(self, name):
        if not self.left:
            raise asyncio.CancelledError
        self.left -= 1
        return getattr(self.session, name)


@pytest.mark.parametrize("calls", range(0, 17, 3))
async def test_a_resumed_memory_puts_nothing_twice(tmp_path, calls):
    """Rules 20 and 42."""
    async with open_store(tmp_path / "whole.mva") as store:
        session_id, _ = await record(store)
        whole = [str(one.kind) for one in (await store.get_session(session_id)).actions]
    async with open_store(tmp_path / "a.mva") as store:
        with pytest.raises(asyncio.CancelledError):  # noqa: PT012 - what leaves the block
            async with store.session() as session:
                await session.put("first", key="first")
                await agent(Stopped(session, calls))
        async with store.resume_session(session.session_id, replay=True) as session:
            await session.put("first", key="first")
            again = await agent(session)
        async with store.serve(session.session_id) as recorded:
            assert await recorded.put("first", key="first") == 1
            assert await agent(recorded, never) == again
        actions = (await store.get_session(session.session_id)).actions
        assert [str(one.kind) for one in actions[1:]] == whole
        assert len([frame async for frame in store.frames()]) == 6


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s: s.put("A beaver."), "data"),
        (lambda s: s.put_many(["A beaver."]), "count"),
        (lambda s: s.find("beaver", top_k=5), "query"),
        (lambda s: s.delete(7), "frame_id"),
    ],
)
async def test_another_call_of_the_memory_diverges(tmp_path, call, field):
    async with open_store(tmp_path / "a.mva") as store:
        session_id, _ = await record(store)
        with pytest.raises(ReplayDivergenceError) as caught:
            async with store.serve(session_id) as recorded:
                await call(recorded)
        assert [one.field for one in caught.value.differences] == [field]


@pytest.mark.parametrize(
    ("more", "field"),
    [({"top_k": 3}, "top_k"), ({"mode": "hybrid"}, "mode"), ({"tags": ["y"]}, "filters")],
)
async def test_how_is_searched_is_compared(tmp_path, more, field):
    async with open_store(tmp_path / "a.mva") as store:
        await store.put("An otter.", tags=["y"])
        async with store.session() as session:
            await session.find("otter", title="Otters")
            await session.find("otter")
        with pytest.raises(ReplayDivergenceError) as caught:  # noqa: PT012 - what leaves the block
            async with store.serve(session.session_id) as recorded:
                await recorded.find("otter", title="Otters")
                await recorded.find("otter", **more)
        assert [one.field for one in caught.value.differences] == [field]


async def test_what_an_ask_calls_is_inside_of_it_and_a_dead_one_is_uncertain(tmp_path):
    async with open_store(tmp_path / "a.mva") as store:
        await store.put("An otter sleeps.")
        async with store.session() as session:

            async def generate(prompt):
                return await session.call_tool("look", {"at": str(prompt.question)}, lambda at: at)

            async def fail(_prompt):
                raise OSError("no network")

            await session.ask("otter?", generate=generate)
            with pytest.raises(OSError, match="no network"):
                await session.ask("fox?", generate=fail)
        recorded = await store.get_session(session.session_id)
        look, ask, failed = recorded.actions
        assert look.parent == ask.started is not None
        assert (failed.error, failed.started is None) == ("OSError: no network", False)
        async with store.serve(session.session_id) as served:
            assert str(await served.ask("otter?", generate=never)) == "otter?"
            with pytest.raises(OSError, match="no network"):
                await served.ask("fox?", generate=never)


async def test_the_store_itself_does_nothing_again_for_an_agent_that_is_answered(tmp_path):
    """Neither its memory nor its collections, until all was answered, and but for tools that run.

    Rule 43."""
    interrupted = [True]

    async def agent(store, session, see):
        async def save():
            await session.call_tool("inner", {}, lambda: "in")
            await store.put("by a tool")
            await notes.append("saved", [len(await notes.items("saved"))])
            if interrupted:
                interrupted.clear()
                raise KeyboardInterrupt

        await session.call_tool("first", {}, lambda: 1)
        for call in (
            lambda: store.put("by the agent"),
            lambda: store.find("agent"),
            lambda: notes.put("a", 1),
            lambda: notes.get("a"),
            lambda: notes.append("list", [1]),
            lambda: notes.pop("list"),
            lambda: notes.delete("a"),
        ):
            await see(call)
        return await session.call_tool("save", {}, save)

    async def allowed(call):
        await call()

    async def refused(call):
        with pytest.raises(InvalidValueError, match="session that answers from its recording"):
            await call()

    async with open_store(tmp_path / "a.mva") as store:
        session, notes = store.session(), store.collection("notes")

        async def live():
            async with session:
                await session.call_tool("zero", {}, lambda: 0)
                await agent(store, session, allowed)

        with pytest.raises(KeyboardInterrupt):
            await live()
        options = {"replay": True, "uncertain": "run"}
        async with store.resume_session(session.session_id, **options) as again:
            await again.call_tool("zero", {}, lambda: 0)
            await agent(store, again, refused)
            await store.put("alive")
            # Who only serves is answered to its end.
            async with store.serve(session.session_id, unserved="allow") as served:
                await refused(lambda: store.put("served"))
                await refused(lambda: notes.get("saved"))
                assert await served.call_tool("zero", {}) == 0
            assert await notes.items("saved") == [0, 1]
        # By the agent once, by the tool that ran twice, and once when all was answered.
        assert [frame.frame_id async for frame in store.frames()] == [1, 2, 3, 4]
