"""A session whose process died, resumed: what had finished is answered, then it goes on live."""

import asyncio
import itertools
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from memvid_async import (
    RUN,
    Failed,
    InvalidValueError,
    ReplayDivergenceError,
    Result,
    SessionActiveError,
    UncertainCallError,
    current_call,
    open_store,
)
from memvid_async.replay.history import History, PastCall
from memvid_async.replay.matching import Outcome
from tests.support.fork_server import ForkServer, serve
from tests.support.loops import turns
from tests.torture.jobs import say

pytestmark = pytest.mark.anyio


class Tools:
    """Tools that count their effects in files, and die where they are told to."""

    def __init__(self, folder, dies_in=None, dies_at="middle"):
        self.folder = Path(folder)
        self.dies = dies_in, dies_at

    def effects(self, name):
        path = self.folder / name
        return len(path.read_text().split()) if path.exists() else 0

    def count(self, name):
        with (self.folder / name).open("a") as file:
            file.write(f"{current_call().key}\n")

    async def run(self, name):
        if self.dies == (name, "start"):
            os._exit(9)
        self.count(name)
        await turns(1)
        if self.dies == (name, "middle"):
            os._exit(9)
        if self.dies == (name, "never"):
            say("there")
            await asyncio.Event().wait()
        return f"{name} done"

    async def model(self, prompt):
        self.count("model")
        for word in (str(prompt), " is", " so"):
            yield word
            if self.dies == ("model", "middle"):
                os._exit(9)


async def agent(session, tools):
    """Two tools one after the other, three at once, and a model's stream."""
    told = [await session.call_tool(name, {"name": name}, tools.run) for name in ("one", "two")]
    several = (session.call_tool(name, {"name": name}, tools.run) for name in ("a", "b", "c"))
    told += await asyncio.gather(*several)
    try:
        async for chunk in session.stream_model("It", tools.model):
            told.append(chunk)
    except ConnectionResetError:
        told.append("broken")
    return told


WHOLE = ["one done", "two done", "a done", "b done", "c done", "It", " is", " so"]


async def first_life(path, folder, dies_in, dies_at):
    # As services do.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    async with open_store(path) as store, store.session("agent") as session:
        say(str(session.session_id))
        await agent(session, Tools(folder, dies_in, dies_at))


@pytest.fixture(scope="module")
def server():
    running = ForkServer(__name__)
    yield running
    running.close()


@pytest.fixture
def die(server, tmp_path):
    """Let an agent die in a process of its own, and return its session's id."""

    def let_die(dies_in, dies_at="middle"):
        server.bear(tmp_path / "a.mva", tmp_path, dies_in, dies_at)
        session_id = server.hear()
        assert server.end() == 9
        return session_id

    return let_die


@pytest.fixture
def wait_in(server, tmp_path):
    """Let an agent wait in a tool, in a process of its own, and return its session's id."""

    def let_wait(name):
        server.bear(tmp_path / "a.mva", tmp_path, name, "never")
        session_id = server.hear()
        assert server.hear() == "there"
        return session_id

    return let_wait


@pytest.mark.parametrize("dies_in", ["one", "two", "a", "c"])
@pytest.mark.parametrize("dies_at", ["start", "middle"])
async def test_nothing_happens_twice_that_was_not_reported(die, tmp_path, dies_in, dies_at):
    """Rules 15, 19 and 21."""
    path = tmp_path / "a.mva"
    session_id = die(dies_in, dies_at)
    tools = Tools(tmp_path)
    before = {name: tools.effects(name) for name in ("one", "two", "a", "b", "c", "model")}
    async with open_store(path) as store:
        with pytest.raises(UncertainCallError) as caught:
            await store.resume_session(session_id, replay=True).__aenter__()
        reported = {call.name for call in caught.value.calls}
        assert dies_in in reported
        assert caught.value.key == caught.value.call.key == caught.value.calls[0].key
        async with store.resume_session(session_id, replay=True, uncertain="run") as session:
            assert await agent(session, tools) == WHOLE
        for name, times in before.items():
            assert tools.effects(name) == times + (name in reported or not times)
        ended = await store.get_session(session_id)
        assert (ended.error, ended.in_flight) == (None, ())
        async with store.serve(session_id) as recorded:
            assert await agent(recorded, tools) == WHOLE
        assert tools.effects("model") == 1


async def test_a_stream_that_was_half_read_is_not_made_again(die, tmp_path):
    """Rule 31: of which nothing was recorded."""
    path = tmp_path / "a.mva"
    session_id = die("model")
    async with open_store(path) as store:
        with pytest.raises(UncertainCallError, match="ask"):
            await store.resume_session(session_id, replay=True).__aenter__()
        # No event came after its first chunk, so nobody knows of that.
        async with store.resume_session(session_id, replay=True, uncertain="run") as session:
            assert await agent(session, Tools(tmp_path)) == WHOLE


@pytest.mark.parametrize("is_async", [False, True])
async def test_somebody_decides_and_that_is_recorded(die, tmp_path, is_async):
    """Rule 22."""
    path = tmp_path / "a.mva"
    session_id = die("c")
    asked = []

    def decide(call):
        asked.append(call)
        return {"a": Result("a was there"), "b": Failed(ValueError("no b")), "c": RUN}[call.name]

    async def decide_later(call):
        await turns(1)
        return decide(call)

    async def tolerant(session):
        tools, told = Tools(tmp_path), []
        for name in ("one", "two"):
            await session.call_tool(name, {"name": name}, tools.run)
        several = (session.call_tool(name, {"name": name}, tools.run) for name in ("a", "b", "c"))
        told += await asyncio.gather(*several, return_exceptions=True)
        return [str(one) for one in told]

    async with open_store(path) as store:
        options = {"replay": True, "uncertain": decide_later if is_async else decide}
        async with store.resume_session(session_id, **options) as session:
            told = await tolerant(session)
        assert told == ["a was there", "no b", "c done"]
        assert [(one.name, one.arguments, one.tries) for one in asked] == [
            (name, {"name": name}, 1) for name in ("a", "b", "c")
        ]
        async with store.serve(session_id) as recorded:
            assert await tolerant(recorded) == told
        failed = (await store.get_session(session_id)).actions[3]
        assert (failed.error, failed.call.settled_by) == (
            "ValueError: no b",
            options["uncertain"].__qualname__,
        )


async def test_what_a_policy_raises_records_nothing(die, tmp_path):
    """Rule 22."""
    path = tmp_path / "a.mva"
    session_id = die("one")
    async with open_store(path) as store:
        for wrong in (lambda call: 1 / 0, lambda call: "run"):
            with pytest.raises((ZeroDivisionError, InvalidValueError)):
                await store.resume_session(session_id, replay=True, uncertain=wrong).__aenter__()
        with pytest.raises(InvalidValueError):
            store.resume_session(session_id, replay=True, uncertain="never")
        assert len((await store.get_session(session_id)).in_flight) == 1


async def test_a_divergence_leaves_the_session_open(die, tmp_path):
    """Rule 12."""
    path = tmp_path / "a.mva"
    session_id = die("two")
    async with open_store(path) as store:
        with pytest.raises(ReplayDivergenceError):  # noqa: PT012 - what leaves the block
            async with store.resume_session(session_id, replay=True, uncertain="run") as session:
                # An agent that swallows everything.
                with suppress(Exception):
                    await session.call_tool("other", {"name": "x"}, Tools(tmp_path).run)
        assert (await store.get_session(session_id)).ended_ns is None
        async with store.resume_session(session_id, replay=True, uncertain="run") as session:
            assert await agent(session, Tools(tmp_path)) == WHOLE


async def test_one_process_resumes_at_a_time(die, tmp_path):
    """Rule 54."""
    path = tmp_path / "a.mva"
    session_id = die("one", "start")
    async with open_store(path) as store:
        with pytest.raises(SessionActiveError):  # noqa: PT012 - the second of two blocks
            async with store.resume_session(session_id, replay=True, uncertain="run") as session:
                try:
                    again = store.resume_session(session_id, replay=True, uncertain="run")
                    await again.__aenter__()
                finally:
                    assert await agent(session, Tools(tmp_path)) == WHOLE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_process_that_is_asked_to_end_in_the_middle_of_calls(
    server, wait_in, tmp_path, number
):
    """Rules 25 and 26."""
    path, tools = tmp_path / "a.mva", Tools(tmp_path)
    session_id = wait_in("b")
    assert server.end(number) == 2
    async with open_store(path) as store:
        session = await store.get_session(session_id)
        assert (session.ended_ns, session.error) == (None, None)
        with pytest.raises(UncertainCallError) as caught:
            await store.resume_session(session_id, replay=True).__aenter__()
        uncertain = {call.name for call in caught.value.calls}
        assert {"b"} <= uncertain <= {"a", "b", "c"}
        before = {name: tools.effects(name) for name in ("one", "two", "a", "b", "c")}
        async with store.resume_session(session_id, replay=True, uncertain="run") as session:
            assert await agent(session, tools) == WHOLE
        for name, times in before.items():
            assert tools.effects(name) == times + (name in uncertain or not times)


async def test_an_agent_that_lives_in_another_process_is_not_resumed(server, wait_in, tmp_path):
    """Rule 54."""
    path = tmp_path / "a.mva"
    session_id = wait_in("two")
    async with open_store(path) as store:
        for options in ({"replay": True, "uncertain": "run"}, {"replay": True}, {}):
            with pytest.raises(SessionActiveError, match="in another process"):
                await store.resume_session(session_id, **options).__aenter__()
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
        async with store.resume_session(session_id, replay=True, uncertain="run") as session:
            assert await agent(session, Tools(tmp_path)) == WHOLE


async def test_an_agent_that_lives_in_this_process_is_not_resumed(tmp_path):
    """Rule 54."""
    tools, first = Tools(tmp_path), {"name": "one"}
    async with open_store(tmp_path / "a.mva") as store:
        async with store.session("agent") as session:
            session_id = session.session_id
            # Without a call there is nothing that could happen twice.
            async with store.resume_session(session_id) as beside:
                await beside.record_put(1, "x")
        async with store.session("agent") as session:
            await session.call_tool("one", first, tools.run)
            async with open_store(tmp_path / "a.mva") as another:
                for opened, replay in itertools.product((store, another), (True, False)):
                    with pytest.raises(SessionActiveError):
                        await opened.resume_session(session.session_id, replay=replay).__aenter__()
    store = await open_store(tmp_path / "a.mva")
    abandoned = await store.session("agent").__aenter__()
    await abandoned.call_tool("one", first, tools.run)
    await store.aclose()
    async with (
        open_store(tmp_path / "a.mva") as store,
        store.resume_session(abandoned.session_id, replay=True) as session,
    ):
        assert await session.call_tool("one", first, tools.run) == "one done"
    assert tools.effects("one") == 2


@pytest.mark.parametrize("is_new", [True, False])
async def test_an_agent_that_was_resumed_before_its_first_call_makes_none(tmp_path, is_new):
    tools = Tools(tmp_path)
    async with open_store(tmp_path / "a.mva") as store:
        opening = store.session("agent")
        if not is_new:
            async with store.session("ended") as ended:
                pass
            opening = store.resume_session(await store.fork(ended.session_id))
        with pytest.raises(SessionActiveError, match="resumed elsewhere"):  # noqa: PT012
            async with opening as session:
                again = await store.resume_session(session.session_id, replay=True).__aenter__()
                await session.call_tool("one", {"name": "one"}, tools.run)
        assert tools.effects("one") == 0
        assert await again.call_tool("one", {"name": "one"}, tools.run) == "one done"
        await again.__aexit__(None, None, None)
        assert (await store.get_session(session.session_id)).error is None


async def test_a_shutdown_is_no_decision(tmp_path):
    """Rules 25 and 26."""
    reached = asyncio.Event()

    async def slow(name):
        reached.set()
        await asyncio.Event().wait()

    async def waiting(session, tool):
        try:
            return await session.call_tool("slow", {"name": "s"}, tool)
        finally:
            await session.call_tool("clean up", {"name": "c"}, Tools(tmp_path).run)

    async with open_store(tmp_path / "a.mva") as store:
        session = store.session("agent")

        async def live():
            async with session:
                await waiting(session, slow)

        task = asyncio.create_task(live())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        session_id = session.session_id
        assert (await store.get_session(session_id)).ended_ns is None
        with pytest.raises(UncertainCallError, match="slow"):
            await store.resume_session(session_id, replay=True).__aenter__()
        async with store.resume_session(session_id, replay=True, uncertain="run") as resumed:
            assert await waiting(resumed, Tools(tmp_path).run) == "s done"
        assert (await store.get_session(session_id)).error is None


async def shut_down(store, opening, agent, until):
    """Run an agent in a session's block, and ask it to end after that is done; its session's id."""

    async def live():
        async with opening as session:
            await agent(session)

    task = asyncio.create_task(live())
    await until()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await store.get_session(opening.session_id)).ended_ns is None
    return opening.session_id


async def test_a_shutdown_while_calls_are_answered_is_no_decision(tmp_path):
    """Rule 25."""
    tools, first, second = Tools(tmp_path), asyncio.Event(), asyncio.Event()

    async def waiting(session, here, wait=True):
        done = await session.call_tool("one", {"name": "one"}, tools.run)
        here.set()
        if wait:
            await asyncio.Event().wait()
        return [done, await session.call_tool("two", {"name": "two"}, tools.run)]

    async with open_store(tmp_path / "a.mva") as store:
        opening = store.session("agent")
        session_id = await shut_down(store, opening, lambda s: waiting(s, first), first.wait)
        again = store.resume_session(session_id, replay=True)
        await shut_down(store, again, lambda s: waiting(s, second), second.wait)
        async with store.resume_session(session_id, replay=True) as resumed:
            assert await waiting(resumed, first, wait=False) == ["one done", "two done"]
        assert [tools.effects(name) for name in ("one", "two")] == [1, 1]


async def test_a_shutdown_while_an_inner_call_begins_is_no_decision(tmp_path):
    """Rules 25 and 26."""
    tools, inner = Tools(tmp_path), asyncio.Event()

    async def nested(session):
        async def outer(name):
            # What sets it runs before the start of the inner call is recorded.
            asyncio.get_running_loop().call_soon(inner.set)
            return await session.call_tool("in", {"name": "in"}, tools.run)

        return await session.call_tool("out", {"name": "out"}, outer)

    async with open_store(tmp_path / "a.mva") as store:
        session_id = await shut_down(store, store.session("agent"), nested, inner.wait)
        with pytest.raises(UncertainCallError) as caught:
            await store.resume_session(session_id, replay=True).__aenter__()
        assert [call.name for call in caught.value.calls] == ["out"]
        async with store.resume_session(session_id, replay=True, uncertain="run") as resumed:
            assert await nested(resumed) == "in done"
        assert tools.effects("in") == 1


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_read_that_was_cancelled_does_not_show_that_the_agent_went_on(goes_on):
    """Rules 17 and 27."""
    history = History()
    history.began(PastCall(1, (), 0, 0, "tool", {}))
    history.ended(1, 2, None, None, is_cancelled=True)
    # A read is recorded in one piece: it began before that.
    history.began(PastCall(3, (), 0, 0, "read", {}), is_cancelled=True)
    history.ended(3, 3, None, None, is_cancelled=True)
    if goes_on:
        history.began(PastCall(4, (), 0, 0, "tool", {}))
    outcomes = {call.start: call.outcome for call in history.recorded()}
    if goes_on:
        assert outcomes == {1: Outcome.CANCELLED, 3: Outcome.CANCELLED, 4: Outcome.IN_FLIGHT}
    else:
        assert outcomes == {1: Outcome.IN_FLIGHT}


async def test_a_timeout_that_fires_while_a_call_begins(tmp_path):
    """Rule 23."""
    tools = Tools(tmp_path)
    async with open_store(tmp_path / "a.mva") as store, store.session("agent") as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await session.call_tool("one", {"name": "one"}, tools.run)
        (action,) = (await store.get_session(session.session_id)).actions
        assert (action.error, action.error_detail) == ("CancelledError", None)
        assert tools.effects("one") == 0


async def test_an_ask_of_which_somebody_decided_is_served_with_its_messages(tmp_path):
    reached = asyncio.Event()

    async def agent(session, model):
        return str(await session.call_model([{"role": "user", "content": "Rain?"}], model))

    async def slow(prompt):
        reached.set()
        await asyncio.Event().wait()

    async with open_store(tmp_path / "a.mva") as store:
        session = store.session("agent")

        async def live():
            async with session:
                await agent(session, slow)

        task = asyncio.create_task(live())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        options = {"replay": True, "uncertain": lambda call: Result("no")}
        async with store.resume_session(session.session_id, **options) as resumed:
            assert await agent(resumed, slow) == "no"
        async with store.serve(session.session_id) as recorded:
            assert await agent(recorded, slow) == "no"


if __name__ == "__main__":
    serve(first_life)
