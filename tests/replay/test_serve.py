"""A recorded session that answers: by content, in order per task, and nothing else runs."""

import asyncio
import random
import uuid

import pytest

from memvid_async import (
    ActionKind,
    Durability,
    Generated,
    InvalidValueError,
    RecordedCallError,
    ReplayDivergenceError,
    SessionNotFoundError,
    StoreConfig,
    StoreReadOnlyError,
    Verdict,
)
from tests.support.loops import turns

BUFFERED = StoreConfig(durability=Durability.BUFFERED)
ASK = {"provider": "local", "model": "small", "duration_ms": 1}


@pytest.fixture
async def store(make_store):
    return await make_store(config=BUFFERED)


def never(*_args, **_kwargs):
    raise AssertionError("a served call must not run")


async def record_plan(store, plan, *, task=None):
    """Calls as (name, input, answer), each with a task."""
    async with store.session("plan") as recorder:
        for name, given, answer, *rest in plan:
            own = rest[0] if rest else task
            if name == "ask":
                await recorder.record_ask(given, response=answer, task=own, **ASK)
            elif name == "find":
                await recorder.record_find(
                    given, mode="lex", result_count=len(answer), result_frames=answer, task=own
                )
            else:
                await recorder.record_tool_call(name, arguments=given, result=answer, task=own)
    return recorder.session_id


async def test_every_sort_of_call_is_answered_and_nothing_runs(store):
    session = await record_plan(
        store,
        [
            ("ask", "Why?", "Because."),
            ("look", {"at": [1, b"\x00"]}, "a cat"),
            ("find", "cat", (4, 2)),
            ("ask", "Sure?", "Yes. " * 500),
            ("look", {"at": 2}, b"\xff"),
            ("look", {"at": 3}, None),
        ],
        task="main",
    )
    before = store.last_sequence
    async with store.serve(session) as recorded:
        options = {"task": "main"}
        assert await recorded.ask("Why?", generate=never, provider="local", **options) == "Because."
        assert await recorded.call_tool("look", {"at": [1, b"\x00"]}, never, **options) == "a cat"
        found = await recorded.find("cat", mode="lex", run=never, **options)
        assert (found.result_frames, found.result_count) == ((4, 2), 2)
        assert [r.index for r in recorded.unserved] == [3, 4, 5]
        chunks = [chunk async for chunk in recorded.stream("Sure?", model="small", **options)]
        assert "".join(chunks) == "Yes. " * 500
        assert await recorded.call_tool("look", {"at": 2}, **options) == b"\xff"
        assert await recorded.call_tool("look", {"at": 3}, **options) is None
        assert recorded.session_id is None
        assert recorded.unserved == ()
        report = recorded.report()
    assert report.counts == {**dict.fromkeys(Verdict, 0), Verdict.SERVED: 6}
    assert store.last_sequence == before


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (("Why not?", {}), "query"),
        (("Why?", {"provider": "far"}), "provider"),
        (("Why?", {"model": "large"}), "model"),
        (("Why?", {"retrieved_frames": [9]}), "retrieved_frames"),
        (("Why?", {"messages": [{"role": "user", "content": "Why now?"}]}), "messages"),
    ],
)
async def test_another_question_diverges_with_the_nearest(store, ask, field):
    async with store.session() as recorder:
        await recorder.record_put(1, "no call")
        messages = [{"role": "user", "content": "Why?"}]
        await recorder.record_ask("Why?", response="So.", messages=messages, **ASK)
    query, options = ask
    async with store.serve(recorder.session_id) as recorded:
        with pytest.raises(ReplayDivergenceError) as caught:
            await recorded.ask(query, generate=never, **options)
        assert caught.value.nearest.index == 1
        (difference,) = caught.value.differences
        assert difference.field == field
        assert f"{field}:\n" in str(caught.value)
        (skipped, step) = recorded.report().steps
        assert (skipped.verdict, skipped.reason) == (Verdict.SKIPPED, "a put is not a call")
        assert (step.verdict, step.index) == (Verdict.DIVERGED, 1)
        # The recording stands where it stood.
        assert await recorded.ask("Why?", messages=messages) == "So."


async def test_the_nearest_is_of_the_same_tool_and_most_like_it(store):
    plan = [
        ("ask", "Where is the red ball?", "There."),
        ("throw", {"what": "the red ball"}, "thrown"),
        ("look", {"for": "the blue door"}, "seen"),
        ("look", {"for": "the red ball"}, "lost"),
    ]
    async with store.serve(await record_plan(store, plan)) as recorded:
        with pytest.raises(ReplayDivergenceError, match="the nearest is action 3") as caught:
            await recorded.call_tool("look", {"for": "the red balloon"})
        assert caught.value.nearest.index == 3
        with pytest.raises(ReplayDivergenceError, match="comes before it"):
            await recorded.call_tool("look", {"for": "the red ball"})
        with pytest.raises(ReplayDivergenceError) as caught:
            await recorded.call_tool("catch", {"what": "the red ball"})
        assert [d.field for d in caught.value.differences] == ["name"]
    async with store.serve(await record_plan(store, [])) as recorded:
        with pytest.raises(ReplayDivergenceError, match="no such call is left") as caught:
            await recorded.find("anything")
        assert caught.value.nearest is None


async def test_a_call_out_of_order_diverges(store):
    session = await record_plan(store, [("t", 1, "one"), ("t", 2, "two")], task="worker")
    async with store.serve(session) as recorded:
        with pytest.raises(ReplayDivergenceError):
            await recorded.call_tool("t", 2, task="worker")
        assert await recorded.call_tool("t", 1, task="worker") == "one"
        assert await recorded.call_tool("t", 2, task="worker") == "two"
        with pytest.raises(ReplayDivergenceError):
            await recorded.call_tool("t", 2, task="worker")


async def test_one_task_does_not_get_what_another_did(store):
    plan = [("t", 0, "of a", "a"), ("t", 0, "of b", "b"), ("t", 1, "only b", "b")]
    async with store.serve(await record_plan(store, plan)) as recorded:
        assert await recorded.call_tool("t", 0, task="b") == "of b"
        with pytest.raises(ReplayDivergenceError):
            await recorded.call_tool("t", 1, task="a")
        assert await recorded.call_tool("t", 0, task="a") == "of a"


async def test_what_failed_fails_again(store):
    async with store.session() as recorder:
        await recorder.record_tool_call("t", arguments={}, error="TimeoutError: 5 s")
        await recorder.record_ask("q", response=None, error="no model", **ASK)
    async with store.serve(recorder.session_id) as recorded:
        with pytest.raises(RecordedCallError, match="TimeoutError: 5 s") as caught:
            await recorded.call_tool("t", {})
        assert caught.value.action.index == 0
        with pytest.raises(RecordedCallError, match="no model"):
            await recorded.ask("q")


# --- many tasks -----------------------------------------------------------------------------------


def make_scripts(chosen, count):
    """What each task does: calls whose content others make too, with answers of its own."""
    return [
        [
            (chosen.choice(["ask", "look", "listen"]), str(chosen.randrange(3)), f"{task}.{step}")
            for step in range(chosen.randrange(1, 7))
        ]
        for task in range(count)
    ]


async def interleave(chosen, scripts, act):
    """Let each script act from a task of its own, one call at a time, in a random order."""
    gates = [asyncio.Semaphore(0) for _ in scripts]
    moved = asyncio.Event()

    async def follow(number):
        for call in scripts[number]:
            await gates[number].acquire()
            await act(number, call)
            moved.set()

    tasks = [asyncio.create_task(follow(n), name=f"agent-{n}") for n in range(len(scripts))]
    order = [n for n, script in enumerate(scripts) for _ in script]
    chosen.shuffle(order)
    for number in order:
        moved.clear()
        gates[number].release()
        await moved.wait()
    await asyncio.gather(*tasks)


async def test_a_thousand_interleavings_of_tasks_are_served_right(store):
    chosen = random.Random(2024)
    for _ in range(50):
        scripts = make_scripts(chosen, 5)
        async with store.session() as recorder:

            async def act(_, call, recorder=recorder):
                name, given, answer = call
                if name == "ask":
                    await recorder.record_ask(given, response=answer, **ASK)
                else:
                    await recorder.record_tool_call(name, arguments=given, result=answer)

            await interleave(chosen, scripts, act)
        for _ in range(20):
            async with store.serve(recorder.session_id) as recorded:

                async def check(_, call, recorded=recorded):
                    name, given, answer = call
                    if name == "ask":
                        assert await recorded.ask(given) == answer
                    else:
                        assert await recorded.call_tool(name, given) == answer

                await interleave(chosen, scripts, check)
                assert recorded.unserved == ()


async def test_tasks_without_names_follow_whoever_did_the_same(store):
    # Both begin alike, so either may have been meant; what comes second tells which it was.
    plan = [
        ("t", "hello", "hi", "Task-1001"),
        ("t", "hello", "hi", "Task-1002"),
        ("t", "left", "L", "Task-1001"),
        ("t", "right", "R", "Task-1002"),
    ]
    session = await record_plan(store, plan)

    async def agent(recorded, way):
        await recorded.call_tool("t", "hello")
        await turns(1)
        return await recorded.call_tool("t", way)

    for ways in (["left", "right"], ["right", "left"]):
        async with store.serve(session) as recorded:
            answers = await asyncio.gather(*(agent(recorded, way) for way in ways))
            assert answers == [{"left": "L", "right": "R"}[way] for way in ways]
            assert recorded.unserved == ()


async def test_tasks_of_one_name_are_told_apart_where_the_recording_made_them(store):
    async def agent(recorded, city):
        await turns(1)
        assert await recorded.call_tool("weather", {"city": city}, weather) == f"sun in {city}"
        return await recorded.call_tool("time", {"city": city}, lambda city: f"noon in {city}")

    async def weather(city):
        await turns(1)
        return f"sun in {city}"

    async def run(recorded, cities):
        jobs = [asyncio.create_task(agent(recorded, c), name="tool") for c in cities]
        return await asyncio.gather(*jobs)

    async with store.serve(None, missing="run") as recorded:
        await run(recorded, ["Rome", "Oslo", "Bern"])
    session = await store.get_session(recorded.session_id)
    assert {a.task for a in session.actions} == {"tool", "tool (2)", "tool (3)"}
    async with store.serve(session.session_id) as recorded:
        answers = await run(recorded, ["Bern", "Rome", "Oslo"])
        assert answers == ["noon in Bern", "noon in Rome", "noon in Oslo"]


# --- what is missing may run ----------------------------------------------------------------------


async def test_what_is_missing_runs_when_told_so_and_all_is_recorded_anew(store):
    session = await record_plan(
        store,
        [
            ("ask", "Why?", "Because."),
            ("look", {"at": 1}, "a cat"),
            ("find", "cat", (4, 2)),
            ("ask", "Sure?", "Yes."),
        ],
    )
    ran = []

    async def look(at):
        ran.append(at)
        return {"seen": at, "ok": True}

    async with store.serve(session, missing="run") as recorded:
        assert await recorded.ask("Why?", generate=never) == "Because."
        assert await recorded.call_tool("look", {"at": 2}, look) == {"seen": 2, "ok": True}
        assert (await recorded.find("cat", run=never)).result_frames == (4, 2)
        assert (await recorded.find("dog", run=lambda query: [len(query)])).result_frames == (3,)
        assert await recorded.ask("Sure?", generate=never) == "Yes."
        with pytest.raises(ZeroDivisionError):
            await recorded.call_tool("divide", {"by": 0}, lambda by: 1 / by)
        with pytest.raises(ReplayDivergenceError):
            await recorded.call_tool("divide", {"by": 0})
        report = recorded.report()
    assert ran == [2]
    assert report.counts[Verdict.SERVED] == 3
    assert report.counts[Verdict.SKIPPED] == 1
    assert [s.action.kind for s in report.steps if s.verdict is Verdict.DIVERGED] == [
        ActionKind.TOOL_CALL,
        ActionKind.FIND,
        ActionKind.TOOL_CALL,
    ]
    comparison = await store.compare(session, recorded.session_id)
    assert comparison.first_divergence == 1
    assert len(comparison.equal) == 3
    assert [d.field for d in comparison.changed[0].differences] == ["arguments", "result"]
    new = await store.get_session(recorded.session_id)
    assert new.metadata["memvid_async"]["served_from"] == str(session)
    assert new.actions[-1].error == "ZeroDivisionError: division by zero"
    # What ran is served from now on, as the value that it was.
    async with store.serve(recorded.session_id) as again:
        assert await again.ask("Why?") == "Because."
        assert await again.call_tool("look", {"at": 2}, never) == {"seen": 2, "ok": True}


async def test_streams_come_back_in_their_chunks(store):
    async def chunks(prompt):
        for word in (prompt.question, "", Generated(" and"), " on"):
            yield word

    async def breaks(prompt):
        yield prompt.question
        yield " so far"
        raise OSError("the line is dead")

    async with store.serve(None, missing="run") as recorded:
        came = [chunk async for chunk in recorded.stream("cassette", generate=chunks)]
        assert came == ["cassette", "", " and", " on"]
    async with store.serve(recorded.session_id) as again:
        assert [chunk async for chunk in again.stream("cassette")] == came
    async with store.session() as session:
        options = {"provider": "local", "model": "small"}
        await store.ask("own", generate=chunks, **options)
        with pytest.raises(OSError, match="dead"):
            await store.ask("broken", generate=breaks, **options)
    async with store.serve(session.session_id) as recorded:
        assert [c async for c in recorded.stream("own")] == ["own", "", " and", " on"]
        broken = recorded.stream("broken")
        assert [await anext(broken), await anext(broken)] == ["broken", " so far"]
        with pytest.raises(RecordedCallError, match="the line is dead"):
            await anext(broken)


async def test_models_may_stream_or_tell_tokens(store):
    async def chunks(prompt):
        for word in prompt.question.split():
            yield word

    async with store.serve(None, missing="run") as recorded:
        assert await recorded.ask("a b", generate=chunks) == "ab"
        assert await recorded.ask("c", generate=lambda p: Generated(str(p), 1, 2)) == "c"
        assert await recorded.ask("d", generate=lambda _: 7) == "7"
        with pytest.raises(InvalidValueError):
            await recorded.call_tool("t", {}, lambda: {1, 2})


async def test_wrong_use_is_named(make_store, store):
    with pytest.raises(InvalidValueError):
        store.serve("name")
    with pytest.raises(InvalidValueError):
        store.serve(uuid.uuid4(), missing="ignore")
    with pytest.raises(SessionNotFoundError):
        await store.serve(uuid.uuid4()).__aenter__()
    session = await record_plan(store, [("t", 1, "one")])
    await store.sync()
    reading = await make_store(read_only=True)
    async with reading.serve(session) as recorded:
        assert await recorded.call_tool("t", 1) == "one"
        with pytest.raises(InvalidValueError):
            await recorded.ask(7)
    with pytest.raises(StoreReadOnlyError):
        await reading.serve(session, missing="run").__aenter__()


# --- how the callables are called -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["call", "count", "self", "name", "arguments", "run", "task", "kind", "given", "tool"]
)
async def test_arguments_are_passed_by_name_whatever_they_are_called(store, name):
    namespace = {}
    exec(f"def one({name}): return [{name}]", namespace)
    tools = {"one": namespace["one"], "any": lambda **given: [given[name]]}
    async with store.serve(None, missing="run") as recorded:
        for tool, run in tools.items():
            assert await recorded.call_tool(tool, {name: 3}, run) == [3]
    async with store.serve(recorded.session_id) as again:
        for tool, run in tools.items():
            assert await again.call_tool(tool, {name: 3}, run) == [3]


@pytest.mark.parametrize(
    ("arguments", "run"),
    [
        ({"city": "Rome"}, lambda: "sun"),
        ({"city": "Rome"}, lambda town: "sun"),
        ({}, lambda city: "sun"),
        ({1: "Rome"}, lambda **given: "sun"),
        ("Rome", lambda city: "sun"),
        (None, lambda: "sun"),
    ],
)
async def test_arguments_that_do_not_fit_are_refused_before_anything_is_recorded(
    store, arguments, run
):
    async with store.serve(None, missing="run") as recorded:
        with pytest.raises(TypeError):
            await recorded.call_tool("weather", arguments, run)
        with pytest.raises(TypeError):
            await recorded.ask("Why?", generate=lambda question, messages: question)
        with pytest.raises(TypeError):
            await recorded.find("Why?", run=lambda *, query: query)
    assert (await store.get_session(recorded.session_id)).actions == ()


async def test_what_cannot_be_recorded_is_refused_before_it_runs(store):
    long, ran = "x" * 1000, []

    def look(at):
        ran.append(at)

    async with store.serve(None, missing="run") as recorded:
        for refused in (
            recorded.ask("Why?", generate=ran.append, model=long),
            recorded.ask("Why?", generate=ran.append, provider=7),
            recorded.ask("Why?", generate=ran.append, task=long),
            recorded.ask("Why?", generate=ran.append, retrieved_frames=[-1]),
            recorded.find("Why?", run=ran.append, mode=long),
            recorded.call_tool(long, {"at": 1}, look),
            recorded.call_tool("t", {"at": "x" * 2**21}, look),
        ):
            with pytest.raises(ValueError, match=r"name_chars|value_bytes|must be"):
                await refused
    assert ran == []
    assert (await store.get_session(recorded.session_id)).actions == ()


async def test_arguments_are_recorded_as_they_were_when_the_tool_was_called(store):
    def greedy(items):
        items.append("more")
        return len(items)

    async with store.serve(None, missing="run") as recorded:
        assert await recorded.call_tool("greedy", {"items": ["one"]}, greedy) == 2
    async with store.serve(recorded.session_id) as again:
        assert await again.call_tool("greedy", {"items": ["one"]}) == 2


async def test_counts_and_chunks_are_recorded_whether_a_model_ran_or_was_served(store):
    async def counted(_):
        yield Generated("a", input_tokens=9, cached_tokens=5)
        yield Generated("bc", output_tokens=2, cost_usd=0.5)

    async def look(session_id):
        (ask,) = (await store.get_session(session_id)).actions
        reply = ask.reply
        assert (reply.input_tokens, reply.output_tokens) == (9, 2)
        assert (reply.cached_tokens, reply.cost_usd) == (5, 0.5)

    async with store.session() as own:
        await store.ask("Why?", generate=counted)
    async with store.serve(None, missing="run") as ran:
        assert await ran.ask("Why?", generate=counted, task="t") == "abc"
    for source in (own.session_id, ran.session_id):
        await look(source)
        for _ in range(2):
            async with store.serve(source, missing="run") as served:
                task = None if source == own.session_id else "t"
                came = [chunk async for chunk in served.stream("Why?", generate=never, task=task)]
                assert came == ["a", "bc"]
            await look(source := served.session_id)


async def test_a_reply_that_breaks_off_is_recorded_as_far_as_it_came(store):
    begun = asyncio.Event()

    async def breaks(_):
        yield "so "
        yield "far"
        raise OSError("the line is dead")

    async def hangs(_):
        yield "only this"
        begun.set()
        await asyncio.Event().wait()

    async with store.serve(None, missing="run") as recorded:
        with pytest.raises(OSError, match="dead"):
            await recorded.ask("one", generate=breaks, task="t")
        asking = asyncio.create_task(recorded.ask("two", generate=hangs, task="t"))
        await begun.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    async with store.serve(recorded.session_id) as again:
        for question, chunks in (("one", ["so ", "far"]), ("two", ["only this"])):
            stream = again.stream(question, task="t")
            assert [await anext(stream) for _ in chunks] == chunks
            with pytest.raises(RecordedCallError):
                await anext(stream)
