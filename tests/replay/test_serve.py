"""A recorded session that answers its agent's calls, in their places and in order."""

import asyncio
import importlib
import sys

import pytest

from memvid_async import (
    Durability,
    Generated,
    InvalidValueError,
    RecordedCallError,
    ReplayDivergenceError,
    SessionNotFoundError,
    StoreConfig,
    Verdict,
)
from memvid_async.errors import ReplayStopped
from memvid_async.events.values import LARGE
from memvid_async.recording import replies
from memvid_async.replay.handover import Handover
from tests.support.loops import turns

BUFFERED = StoreConfig(durability=Durability.BUFFERED)
ASK = {"provider": "local", "model": "small"}


class RateLimitError(Exception):
    def __init__(self, after):
        super().__init__("slow down")
        self.after = after


@pytest.fixture
async def store(make_store):
    return await make_store(config=BUFFERED)


def never(**_arguments):
    raise AssertionError("a served call must not run")


def never_asked(_prompt):
    raise AssertionError("a served model must not be asked")


async def test_of_a_recording_without_calls_all_run(store):
    async with store.serve(None, missing="run") as recorded:
        assert await recorded.call_tool("look", {"count": 3}, lambda count: count) == 3
    session = await store.get_session(recorded.session_id)
    assert [action.details.name for action in session.actions] == ["look"]
    assert session.ended_ns is not None
    async with store.serve(session.session_id) as again:
        assert await again.call_tool("look", {"count": 3}, never) == 3
    with pytest.raises(InvalidValueError):
        store.serve(None)


async def agent(session, run):
    """Every sort of call, three tasks at once, and an error that it handles."""
    told = [await session.call_tool("look", {"at": 1, "b": 2, "a": 1}, run)]
    try:
        await session.call_tool("fail", {}, run)
    except RateLimitError as error:
        told.append((error.after, str(error)))

    async def model(prompt):
        for word in ("It ", "rains."):
            yield Generated(word, output_tokens=1)

    async with session.step("think"):
        messages = [{"role": "user", "content": "Rain?"}]
        reply = await session.call_model(messages, lambda _: "yes", **ASK)
        told.append((str(reply), reply.output_tokens))
    told.append([chunk async for chunk in session.stream_model("And?", model)])
    told.append(await session.once("choice", lambda: {"z": 1, "a": [None]}))
    told += await asyncio.gather(
        *(session.call_tool("look", {"at": at}, run) for at in ("x", "y", "z"))
    )
    done, left = await asyncio.wait(
        [asyncio.create_task(session.call_tool("look", {"at": at}, run)) for at in "pq"],
        return_when=asyncio.FIRST_COMPLETED,
    )
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    return [*told, sorted(str(task.result()) for task in done)]


def look(at=None, **given):
    return {"seen": at, **given}


async def record(store):
    async def run(**given):
        if not given:
            raise RateLimitError(7)
        if given["at"] == "q":
            await asyncio.Event().wait()
        return look(**given)

    async with store.session("agent") as session:
        told = await agent(session, run)
    return session.session_id, told


async def test_an_unchanged_agent_is_told_the_same_and_nothing_runs(store):
    """Rules 16, 17 and 41."""
    session_id, told = await record(store)
    before = store.last_sequence
    async with store.serve(session_id) as recorded:
        again = await agent(recorded, never)
        assert recorded.unserved == ()
        counts = recorded.report().counts
    assert again == told
    # The order of a dict's items is the recorded one, too.
    assert [str(one) for one in again] == [str(one) for one in told]
    assert set(counts) == set(Verdict)
    assert counts[Verdict.SERVED] == 10
    assert store.last_sequence == before


async def test_a_failure_is_of_its_own_type_and_a_recorded_one(store):
    """Rule 16."""
    session_id, _ = await record(store)
    async with store.serve(session_id, unserved="allow") as recorded:
        await recorded.call_tool("look", {"at": 1, "b": 2, "a": 1})
        with pytest.raises(RateLimitError) as caught:
            await recorded.call_tool("fail", {})
    assert isinstance(caught.value, RecordedCallError)
    assert (caught.value.after, str(caught.value)) == (7, "slow down")
    assert caught.value.action.index == 1


async def test_a_failure_s_type_is_imported_where_that_can_be_done(store, tmp_path, monkeypatch):
    for name, error in (("shop_client", "Refused"), ("broken_client", "Gone")):
        (tmp_path / f"{name}.py").write_text(f"class {error}(Exception): pass")
    monkeypatch.syspath_prepend(str(tmp_path))

    async def buy():
        raise importlib.import_module("shop_client").Refused("no")

    async def vanish():
        raise importlib.import_module("broken_client").Gone("away")

    async with store.session() as session:
        for run in (buy, vanish):
            with pytest.raises(Exception, match=r"no|away"):
                await session.call_tool("shop", {}, run)
    del sys.modules["shop_client"], sys.modules["broken_client"]
    (tmp_path / "broken_client.py").write_text("raise SystemExit(3)")
    async with store.serve(session.session_id) as recorded:
        with pytest.raises(RecordedCallError) as caught:
            await recorded.call_tool("shop", {}, never)
        assert isinstance(caught.value, importlib.import_module("shop_client").Refused)
        with pytest.raises(RecordedCallError, match="away") as caught:
            await recorded.call_tool("shop", {}, never)
        assert type(caught.value) is RecordedCallError


async def test_an_error_of_a_file_comes_back_with_its_file(store, tmp_path):
    missing = tmp_path / "missing"

    async def read():
        return missing.read_text()

    async with store.session() as session:
        with pytest.raises(FileNotFoundError) as first:
            await session.call_tool("read", {}, read)
    async with store.serve(session.session_id) as recorded:
        with pytest.raises(FileNotFoundError) as again:
            await recorded.call_tool("read", {}, never)
    assert isinstance(again.value, RecordedCallError)
    assert str(again.value) == str(first.value)
    assert (again.value.errno, again.value.filename) == (first.value.errno, str(missing))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda s: s.call_tool("look", {"at": 2}), "arguments"),
        (lambda s: s.call_tool("listen", {"at": 1}), "name"),
        (lambda s: s.call_model("look?", lambda _: ""), "kind"),
    ],
)
async def test_another_call_diverges_and_stops_the_session(store, call, field):
    """Rules 2, 11, 12 and 37."""
    session_id, _ = await record(store)
    with pytest.raises(ReplayDivergenceError) as left:  # noqa: PT012 - what leaves the block
        async with store.serve(session_id) as recorded:
            with pytest.raises(ReplayDivergenceError) as caught:
                await call(recorded)
            assert field in [one.field for one in caught.value.differences]
            assert caught.value.nearest.index == 0
            with pytest.raises(ReplayStopped):
                await recorded.call_tool("look", {"at": 1, "b": 2, "a": 1})
    assert left.value is caught.value


async def test_calls_that_nobody_asks_for_are_a_divergence(store):
    """Rules 11 and 37."""
    session_id, _ = await record(store)
    with pytest.raises(ReplayDivergenceError, match="nobody asked for it"):
        async with store.serve(session_id):
            pass
    async with store.serve(session_id, unserved="allow") as recorded:
        assert len(recorded.unserved) == 10


async def test_what_nobody_recorded_waits_and_is_missing_then(store):
    """Rule 10."""
    async with store.session() as session:
        await session.call_tool("t", {"n": 1}, lambda n: n)
    with pytest.raises(ReplayDivergenceError, match="no such call is left"):  # noqa: PT012
        async with store.serve(session.session_id) as recorded:
            assert await recorded.call_tool("t", {"n": 1}) == 1
            await recorded.call_tool("t", {"n": 2})


async def test_a_call_that_nobody_makes_is_not_waited_for_for_ever(store):
    """Rule 11."""
    async with store.session() as session:
        await asyncio.gather(*(session.call_tool("t", {"n": n}, lambda n: n) for n in (1, 2)))
    for asked, match in (((1, 3), '"n": 3 } is not recorded'), ((1,), 'asked for it: {"n": 2}')):
        with pytest.raises(ReplayDivergenceError, match=match):
            async with store.serve(session.session_id, stall=0.01) as recorded:
                await asyncio.gather(*(recorded.call_tool("t", {"n": n}) for n in asked))


async def test_what_is_compared_can_be_said(store):
    """Rule 44."""
    async with store.session() as session:
        await session.call_tool("t", {"day": 1, "n": 1}, lambda day, n: n)
        await session.call_model("on day 1", lambda _: "fine", **ASK)

    def match(kind, field, value):
        if field == "arguments":
            return {"n": value["n"]}
        return None if field in ("query", "model") else value

    async with store.serve(session.session_id, match=match) as recorded:
        assert await recorded.call_tool("t", {"day": 2, "n": 1}) == 1
        reply = await recorded.call_model("on day 2", never_asked, provider="local", model="large")
        assert str(reply) == "fine"
    async with store.serve(session.session_id, match=("name",)) as recorded:
        assert await recorded.call_tool("t", {"n": 9}) == 1
        await recorded.call_model("?", never_asked)


async def test_what_comes_after_the_recording_runs_in_a_fork_where_it_may(store):
    async with store.session() as session:
        await session.call_tool("t", {"n": 1}, lambda n: n)
    async with store.serve(session.session_id, missing="run") as recorded:
        assert await recorded.call_tool("t", {"n": 1}, never) == 1
        assert await recorded.call_tool("t", {"n": 2}, lambda n: -n) == -2
        await recorded.annotate({"forked": True})
    forked = await store.get_session(recorded.session_id)
    assert forked.metadata == {"forked": True}
    assert [action.output.data for action in forked.actions] == ["1", "-2"]
    async with store.serve(recorded.session_id) as again:
        assert [await again.call_tool("t", {"n": n}) for n in (1, 2)] == [1, -2]
        before = store.last_sequence
        await again.annotate({"served": True})
        with pytest.raises(InvalidValueError):
            await again.annotate({"a set": {1}})
    assert store.last_sequence == before


async def test_what_was_recorded_without_calls_is_served_by_the_tasks_names(store):
    async with store.session() as session:
        for task in ("a", "b"):
            await session.record_tool_call("t", arguments={}, result=f"of {task}", task=task)
        await session.record_find("q", mode="lex", result_count=1, result_frames=(4,), task="a")
        await session.record_ask("Why?", response="So.", task="b", **ASK)
    async with store.serve(session.session_id) as recorded:

        async def of_a():
            first = await recorded.call_tool("t", {}, task="a")
            found = await recorded.find("q", task="a")
            return first, [hit.frame_id for hit in found.hits]

        async def of_b():
            first = await recorded.call_tool("t", {}, task="b")
            reply = await recorded.call_model("Why?", never_asked, model="small", task="b")
            return first, str(reply)

        assert await asyncio.gather(of_b(), of_a()) == [("of b", "So."), ("of a", [4])]


async def test_ends_of_one_batch_are_told_in_the_order_of_the_log(store):
    """Rule 7: a large result is recorded by way of a thread, small ones are queued at once."""
    words = ("late" * LARGE, "soon", "later" * LARGE, "sooner")

    async def agent(session):
        told = []

        async def one(n):
            told.append(await session.call_tool("t", {"n": n}, lambda n: words[n], effect=False))

        await asyncio.gather(*(one(n) for n in range(4)))
        return [*told, await session.call_tool("after", {}, lambda: "all")]

    async with store.session() as session:
        told = await agent(session)
    actions = (await store.get_session(session.session_id)).actions
    assert told == [(await store.read_content(one.output)).decode() for one in actions]
    async with store.serve(session.session_id, stall=0.5) as recorded:
        assert await agent(recorded) == told


async def test_streams_keep_their_pace_when_asked(store, monkeypatch):
    """Time is what the test says: a clock that jumps by what a model takes for each chunk."""
    now = 0.0
    monkeypatch.setattr(replies, "perf_counter", lambda: now)

    async def model(_prompt):
        nonlocal now
        for word, takes in (("It ", 1.5), ("rains", 0.25), (".", 0)):
            now += takes
            yield word

    async def agent(session):
        async def reading():
            return [chunk async for chunk in session.stream_model("Rain?", model)]

        # The other task has nothing to do meanwhile, and is not late.
        return await asyncio.gather(reading(), session.call_tool("t", {}, dict))

    async with store.session() as session:
        told = await agent(session)
    assert told == [["It ", "rains", "."], {}]
    (ask,) = [a async for a in store.actions(session.session_id, kind="ask")]
    assert ask.reply.waits_ms == (1500, 250, 0)
    rests = []

    async def rest(_, seconds):
        rests.append(seconds)
        await turns(8)

    monkeypatch.setattr(Handover, "rest", rest)
    for pace, waited in ((None, []), (1, [1.5, 0.25, 0]), (2.0, [0.75, 0.125, 0])):
        async with store.serve(session.session_id, pace=pace) as recorded:
            assert await agent(recorded) == told
        assert rests == waited
        rests.clear()
    for pace in (0, -1, "fast", float("nan"), True):
        with pytest.raises(InvalidValueError, match="pace"):
            store.serve(session.session_id, pace=pace)


async def test_nobody_is_late_while_a_stream_rests(store):
    async def model(_prompt):
        yield "a"
        yield "b"

    async def agent(session):
        async def reading():
            chunks = [chunk async for chunk in session.stream_model("?", model)]
            return [*chunks, await session.call_tool("t", {"n": 1}, lambda n: n)]

        return await asyncio.gather(reading(), session.call_tool("t", {"n": 2}, lambda n: n))

    async with store.session() as session:
        told = await agent(session)
    async with store.serve(session.session_id, stall=0.001, pace=0.01) as recorded:
        assert await agent(recorded) == told


@pytest.mark.parametrize(
    "options",
    [{"missing": "ignore"}, {"order": "any"}, {"unserved": 1}, {"match": 3}, {"errors": {"a": 1}}],
)
async def test_bad_options_are_refused(store, options):
    session_id, _ = await record(store)
    with pytest.raises(InvalidValueError):
        store.serve(session_id, **options)
    with pytest.raises(SessionNotFoundError):
        await store.serve("00000000-0000-0000-0000-000000000000").__aenter__()


async def test_parallel_streams_come_in_the_order_in_which_they_came(store):
    """Rule 7: also where no call comes in between, and their answers are of any size."""
    gates = {name: asyncio.Queue() for name in "ab"}

    async def agent(session, generate):
        told = []

        async def read(name):
            async for chunk in session.stream_model(name, generate):
                told.append((name, str(chunk)))  # noqa: PERF401 - both streams do it

        async def call(name, size):
            told.append(await session.call_tool(name, {}, lambda: name * size))

        await asyncio.gather(read("a"), read("b"), call("large", 1000), call("small", 1))
        return told

    async def generate(prompt):
        mine = gates[str(prompt)]
        while (chunk := await mine.get()) is not None:
            yield chunk

    def let_come():
        for name, chunk in [*zip("abbaba", "123456", strict=True), ("a", None), ("b", None)]:
            gates[name].put_nowait(chunk)

    let_come()
    async with store.session("agent") as session:
        told = await agent(session, generate)
    assert sum(len(one) == 2 for one in told) == 6
    for _ in range(3):
        async with store.serve(session.session_id) as recorded:
            assert await agent(recorded, never_asked) == told


async def test_tasks_of_a_step_are_found_beneath_the_task_that_made_the_last_call(store):
    async def agent(session):
        async def part(place):
            async with session.step("part"):
                calls = (session.call_tool("look", {"at": at}, look) for at in range(2))
                return [place, *await asyncio.gather(*calls)]

        return await asyncio.gather(part(0), part(1))

    async with store.session("agent") as session:
        told = await agent(session)
    async with store.serve(session.session_id) as recorded:
        assert await agent(recorded) == told


async def test_a_stream_that_the_agent_stopped_reading_is_stopped_at_once(store):
    """The reader is told in its turn, and what it does next comes after that."""

    async def agent(session):
        told = []
        stream = session.stream_model("words", generate)
        async for chunk in stream:
            told.append(str(chunk))
            break
        await stream.aclose()
        return [*told, await session.call_tool("look", {"at": 1}, look)]

    async def generate(prompt):
        for word in ("one", "two", "three"):
            yield word

    async with store.session("agent") as session:
        told = await agent(session)
    async with store.serve(session.session_id) as recorded:
        assert await agent(recorded) == told
        assert not recorded.unserved
