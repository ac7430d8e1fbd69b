"""The rules of `docs/rules.md` that no other test holds, each in a small agent.

A kill is a copy of the file, made while a tool waits for ever.
"""

import asyncio
import shutil
from collections import Counter
from contextlib import aclosing, nullcontext, suppress

import anyio
import pytest

from memvid_async import (
    ActionKind,
    Generated,
    RecordingConfig,
    ReplayDivergenceError,
    SessionEndedError,
    StoreClosedError,
    UncertainCallError,
    Verdict,
    current_call,
)
from memvid_async.events.calls import AnswerDropped
from memvid_async.recording.command_intake import CommandIntake
from tests.support.loops import turns

pytestmark = pytest.mark.anyio

RUN_AGAIN = {"replay": True, "uncertain": "run"}


class Tools:
    """Tools that count; ``waits``: the name of the one that waits for ever."""

    def __init__(self, waits=None):
        self.waits = waits
        self.ran = Counter()
        self.keys = {}
        self.reached = asyncio.Event()

    async def run(self, name):
        self.ran[name] += 1
        self.keys[name] = current_call().key
        if name == self.waits:
            self.reached.set()
            await asyncio.Event().wait()
        return f"{name} done"

    async def call(self, session, name, **options):
        return await session.call_tool(name, {"name": name}, self.run, **options)


@pytest.fixture
def kill(make_store, tmp_path):
    """Return what lets an agent run until a tool waits, and returns the store as a kill leaves it,
    the session's id, and the tools."""
    count = 0

    async def run(agent, waits="wait", *, store=None, session_id=None, **options):
        nonlocal count
        store = store or await make_store(f"{count}.mva")
        count += 1
        tools = Tools(waits)
        opening = (
            store.session("agent", **options)
            if session_id is None
            else store.resume_session(session_id, **RUN_AGAIN)
        )

        async def live():
            async with opening as session:
                await agent(session, tools)

        task = asyncio.create_task(live())
        await tools.reached.wait()
        shutil.copy(store.path, tmp_path / f"{count}.mva")
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return await make_store(f"{count}.mva"), opening.session_id, tools

    return run


async def one_after_another(session, tools):
    return [await tools.call(session, name) for name in ("one", "wait", "two")]


async def nested(session, tools, *, inner=True):
    async def outer(name):
        if inner:
            await tools.call(session, "inner")
        return await tools.run(name)

    return await session.call_tool("wait", {"name": "wait"}, outer)


# Divergence.


async def test_a_tool_that_runs_again_makes_the_calls_that_it_made(kill):
    """Rule 11."""
    store, session_id, _ = await kill(nested)
    with pytest.raises(ReplayDivergenceError, match="inner"):
        async with store.resume_session(session_id, **RUN_AGAIN) as session:
            await nested(session, Tools(), inner=False)
    assert (await store.get_session(session_id)).ended_ns is None


# Keys.


async def test_every_try_of_a_call_has_its_key(kill):
    """Rules 13 and 14: that of its first start, also in a fork of the session that has that."""
    store, session_id, first = await kill(one_after_another)
    fork = await store.fork(session_id)
    (started,) = (await store.get_session(session_id)).in_flight
    again, forked = Tools(), Tools()
    async with store.resume_session(fork, **RUN_AGAIN) as session:
        await one_after_another(session, forked)
    async with store.resume_session(session_id, **RUN_AGAIN) as session:
        await one_after_another(session, again)
    assert first.keys["wait"] == again.keys["wait"] == forked.keys["wait"] == started.key
    assert started.key == f"{session_id}:{started.sequence}"
    assert again.keys["two"] != forked.keys["two"]
    assert len({*first.keys.values(), *again.keys.values(), *forked.keys.values()}) == 4


# States.


async def test_what_runs_when_the_block_is_left_is_only_listed(make_store):
    """Rule 18."""
    store, tools = await make_store(), Tools("wait")
    async with store.session() as session:
        task = asyncio.create_task(tools.call(session, "wait"))
        await tools.reached.wait()
    task.cancel()
    with suppress(asyncio.CancelledError, SessionEndedError):
        await task
    (left,) = (await store.get_session(session.session_id)).in_flight
    assert left.details.name == "wait"
    fork = await store.fork(session.session_id)
    async with store.resume_session(fork, replay=True) as session:
        pass


async def test_steps_and_reads_are_never_uncertain(kill):
    """Rule 20."""

    async def agent(session, tools):
        async with session.step("plan"):
            await tools.call(session, "one")
            return await tools.call(session, "wait", effect=False)

    store, session_id, first = await kill(agent)
    again = Tools()
    async with store.resume_session(session_id, replay=True) as session:
        assert await agent(session, again) == "wait done"
    assert (first.ran, again.ran) == ({"one": 1, "wait": 1}, {"wait": 1})


async def test_what_a_tool_had_done_is_answered_when_it_runs_again(kill):
    """Rule 21."""
    store, session_id, first = await kill(nested)
    again = Tools()
    async with store.resume_session(session_id, **RUN_AGAIN) as session:
        assert await nested(session, again) == "wait done"
    assert first.ran + again.ran == {"inner": 1, "wait": 2}


async def test_a_crash_of_a_try_asks_again(kill):
    """Rule 22: with one try more."""
    store, session_id, _ = await kill(one_after_another)
    store, session_id, _ = await kill(one_after_another, store=store, session_id=session_id)
    with pytest.raises(UncertainCallError) as caught:
        await store.resume_session(session_id, replay=True).__aenter__()
    ((name, tries),) = [(one.name, one.tries) for one in caught.value.calls]
    assert (name, tries) == ("wait", 2)


# Failures, cancellations, and shutting down.


@pytest.mark.parametrize("how", ["asyncio", "anyio"])
async def test_a_cancellation_while_the_end_is_awaited_supersedes_it(make_store, how):
    """Rule 23."""
    store, tools = await make_store(), Tools()

    async def agent(session, cancels=True):
        told = []

        async def run(name):
            # It is cancelled after this has returned, while its end is recorded.
            if cancels:
                asyncio.get_running_loop().call_soon(cancel)
            return name

        async def calls():
            told.append(await session.call_tool("late", {"name": "late"}, run))

        if how == "asyncio":
            task = asyncio.create_task(calls())
            cancel = task.cancel
            await asyncio.wait([task])
        else:
            with anyio.CancelScope() as scope:
                cancel = scope.cancel
                await calls()
        return [*told, await tools.call(session, "one")]

    async with store.session() as session:
        told = await agent(session)
    assert told == ["one done"]
    async with store.subscribe() as events:
        async for event in events:
            if isinstance(event.payload, AnswerDropped) or events.caught_up:
                break
    assert isinstance(event.payload, AnswerDropped)


async def test_one_that_is_cancelled_as_the_store_closes_ends_as_cancelled(make_store, monkeypatch):
    store = await make_store()

    def closed(*_):
        raise StoreClosedError("the store is closed")

    async def run():
        asyncio.get_running_loop().call_soon(task.cancel)

    async with store.session() as session:
        task = asyncio.create_task(session.call_tool("late", {}, run))
        monkeypatch.setattr(CommandIntake, "submit_at_once", closed)
        await asyncio.wait([task])
        monkeypatch.undo()
    assert task.cancelled()


async def test_a_call_that_takes_too_long_fails(make_store):
    """Rule 24: its own timeout is not a cancellation by the agent."""
    store, tools = await make_store(), Tools("wait")
    async with store.session() as session:
        with pytest.raises(TimeoutError):
            await tools.call(session, "wait", timeout=0.001)
    (failed,) = (await store.get_session(session.session_id)).actions
    assert failed.error_detail.type_name == "builtins.TimeoutError"
    async with store.serve(session.session_id) as recorded:
        with pytest.raises(TimeoutError):
            await Tools().call(recorded, "wait")


async def test_a_handle_records_nothing_after_its_block(make_store):
    """Rule 28."""
    store, tools = await make_store(), Tools()
    async with store.session() as session:
        pass
    with pytest.raises(SessionEndedError):
        await tools.call(session, "one")
    with pytest.raises(SessionEndedError):
        await session.put("late")
    assert not tools.ran


@pytest.mark.parametrize("asked_to_end", [False, True])
async def test_nested_task_groups_are_no_shutdown(make_store, asked_to_end):
    """Rule 29: a task that ended one in another may count as being cancelled for ever."""
    store, tools = await make_store(), Tools("wait")
    opening, entered = store.session(), asyncio.Event()

    async def fail():
        raise ValueError

    async def live():
        async with opening as session:
            await tools.call(session, "one")
            with suppress(BaseExceptionGroup):
                async with asyncio.TaskGroup() as outer:
                    outer.create_task(fail())
                    async with asyncio.TaskGroup() as inner:
                        inner.create_task(turns(1))
                        inner.create_task(fail())
            await tools.call(session, "two")
            if asked_to_end:
                entered.set()
                await tools.call(session, "wait")

    task = asyncio.create_task(live())
    if asked_to_end:
        await tools.reached.wait()
        task.cancel()
    await asyncio.wait([task])
    session = await store.get_session(opening.session_id)
    assert (session.ended_ns is None) is asked_to_end
    assert [one.details.name for one in session.actions[:2]] == ["one", "two"]
    if asked_to_end:
        async with store.resume_session(opening.session_id, **RUN_AGAIN) as again:
            for name in ("one", "two", "wait"):
                await Tools().call(again, name)


# Streams.


async def test_a_stream_that_was_half_read_breaks_off(kill):
    """Rules 30 to 32: its chunks are recorded with the next event; what follows is not made."""

    async def agent(session, tools):
        told = []

        async def model(prompt):
            tools.ran["model"] += 1
            for chunk in ("a", "b", "c"):
                yield chunk

        try:
            async with aclosing(session.stream_model("?", model)) as stream:
                async for chunk in stream:
                    told.append(chunk)
                    if chunk == "b":
                        told.append(await tools.call(session, "wait"))
        except ConnectionResetError:
            told.append("broken")
        return told

    store, session_id, _ = await kill(agent)
    again = Tools()
    async with store.resume_session(session_id, **RUN_AGAIN) as session:
        told = await agent(session, again)
    assert told == ["a", "b", "wait done", "broken"]
    assert again.ran == {"wait": 1}
    async with store.serve(session_id) as recorded:
        assert await agent(recorded, Tools()) == told


# Steps and changed code.


async def test_that_a_step_raised_is_noted_and_not_served(make_store):
    """Rule 35."""
    store, tools = await make_store(), Tools()

    async def agent(session, error=None):
        async with session.step("plan"):
            await tools.call(session, "one")
            if error is not None:
                raise error

    async with store.session() as session:
        with pytest.raises(KeyError):
            await agent(session, KeyError("k"))
    step = (await store.get_session(session.session_id)).actions[-1]
    assert (step.kind, step.error) == (ActionKind.STEP, "KeyError: 'k'")
    async with store.serve(session.session_id) as recorded:
        await agent(recorded)


async def test_the_recorded_part_is_changed_by_a_fork(make_store):
    """Rules 36 to 40: what an exception ended goes on only so."""
    store, tools = await make_store(), Tools()

    async def agent(session, version, *names):
        told = [await session.once("version", lambda: version)]
        async with session.step(f"a step of version {version}"):
            return [*told, *[await tools.call(session, name) for name in names]]

    async with store.session() as session:
        await agent(session, 1, "one", "two")
        original = session.session_id
        with pytest.raises(KeyError):  # noqa: PT012 - what leaves the block
            async with store.session() as failed:
                await agent(failed, 1, "one", "two")
                raise KeyError
    with pytest.raises(SessionEndedError):
        await store.resume_session(failed.session_id, replay=True).__aenter__()
    for names in (("one", "other"), ("one",), ("new", "one", "two")):
        fork = await store.fork(failed.session_id)
        with pytest.raises(ReplayDivergenceError):
            async with store.resume_session(fork, replay=True) as session:
                await agent(session, 2, *names)
    fork = await store.fork(failed.session_id, action_index=1)
    async with store.resume_session(fork, replay=True) as session:
        assert await agent(session, 2, "one", "other") == [1, "one done", "other done"]
    assert tools.ran == {"one": 2, "two": 2, "other": 1}
    assert (await store.get_session(original)).fork is None


async def test_a_fork_is_cut_at_the_end_of_an_action(make_store):
    """Rules 38 and 53: what was in flight there is uncertain, what had not begun is not there."""
    store, tools, gate = await make_store(), Tools(), asyncio.Event()

    async def slow(name):
        await gate.wait()
        return await tools.run(name)

    async def agent(session):
        async def first():
            await tools.call(session, "one")
            gate.set()

        await asyncio.gather(first(), session.call_tool("slow", {"name": "slow"}, slow))
        await tools.call(session, "two")

    async with store.session() as session:
        await agent(session)
    fork = await store.fork(session.session_id, action_index=0)
    with pytest.raises(UncertainCallError, match="slow") as caught:
        await store.resume_session(fork, replay=True).__aenter__()
    assert [one.name for one in caught.value.calls] == ["slow"]
    async with store.resume_session(fork, **RUN_AGAIN) as session:
        await agent(session)
    assert tools.ran == {"one": 1, "slow": 2, "two": 2}


# What is compared, and what it costs.


async def test_match_says_what_is_compared_of_a_resumed_call(kill):
    """Rule 44."""
    store, session_id, _ = await kill(one_after_another)
    for match, is_same in ((("name",), True), (None, False)):
        fork = await store.fork(session_id)
        resuming = store.resume_session(fork, match=match, **RUN_AGAIN)
        with nullcontext() if is_same else pytest.raises(ReplayDivergenceError):
            async with resuming as session:
                await session.call_tool("one", {"name": "changed"}, Tools().run)
                await Tools().call(session, "wait")
        assert ((await store.get_session(fork)).ended_ns is not None) is is_same


@pytest.mark.parametrize(("options", "events"), [({}, 2), ({"effect": False}, 1)])
async def test_a_call_with_an_effect_is_two_events(make_store, options, events):
    """Rules 46 and 47: it returns when its end is on the disk."""
    store, tools = await make_store(), Tools()
    async with store.session() as session:
        before = store.last_sequence
        await tools.call(session, "one", **options)
        assert store.last_sequence - before == events
        async with store.subscribe(before) as durable:
            assert [(await anext(durable)).sequence for _ in range(events)][-1] == before + events


# Counting.


async def test_calls_that_began_count_and_their_ends_are_taken(make_store):
    """Rules 48 and 49: the index is that of the end."""
    store, tools, gate = await make_store(), Tools(), asyncio.Event()

    async def slow(name):
        await gate.wait()

    config = RecordingConfig(max_actions=2, auto_checkpoint_interval=2)
    async with store.session(config=config) as session:
        first = asyncio.create_task(session.call_tool("slow", {"name": "s"}, slow))
        await turns(1)
        await tools.call(session, "one")
        with pytest.raises(SessionEndedError):
            await tools.call(session, "two")
        gate.set()
        await first
    actions = (await store.get_session(session.session_id)).actions
    calls = [one for one in actions if one.kind is ActionKind.TOOL_CALL]
    assert [one.details.name for one in calls] == ["one", "slow"]
    assert calls[0].started > calls[1].started
    assert [str(one.kind) for one in actions].count("checkpoint") == 1
    assert tools.ran == {"one": 1}


async def test_usage_counts_what_was_paid(kill):
    """Rule 50: every try, and no answer from the recording."""

    async def agent(session, tools):
        async def model(prompt):
            tools.ran["model"] += 1
            yield Generated("no", input_tokens=10)
            if tools.ran["model"] == 1:
                raise OSError

        with suppress(OSError):
            await session.call_model("?", model)
        await session.call_model("?", model)
        await tools.call(session, "wait")

    store, session_id, _ = await kill(agent)
    (before,) = await store.usage(by="session")
    assert before.input_tokens == 20
    async with store.resume_session(session_id, **RUN_AGAIN) as session:
        await agent(session, Tools())
    (after,) = await store.usage(by="session")
    assert after.input_tokens == 20
    async with store.serve(session_id) as recorded:
        await agent(recorded, Tools())
    assert await store.usage(by="session") == [after]


async def test_a_resumed_session_compares_as_one_that_was_never_killed(kill):
    """Rules 51 and 52."""
    store, session_id, _ = await kill(one_after_another)
    async with store.session("agent") as whole:
        await one_after_another(whole, Tools())
    open_yet = await store.compare(whole.session_id, session_id)
    (changed,) = open_yet.changed
    assert [(one.field, one.b) for one in changed.differences if one.field == "error"] == [
        ("error", "in flight")
    ]
    counts = (await store.replay(session_id).report()).counts
    assert counts[Verdict.UNVERIFIABLE] == 1
    async with store.resume_session(session_id, **RUN_AGAIN) as session:
        await one_after_another(session, Tools())
    assert (await store.compare(whole.session_id, session_id)).is_equal
