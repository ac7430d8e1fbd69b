"""The store for synchronous code: what the asyncio store does, from threads, without await."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from memvid_async import (
    Durability,
    InvalidValueError,
    SessionNotFoundError,
    StoreClosedError,
    StoreConfig,
    StoreNotFoundError,
    SyncStore,
    UnrecordedWarning,
    WrongLoopError,
    open_store,
)


@pytest.fixture
def store(tmp_path):
    with SyncStore.open(tmp_path / "a.mva") as opened:
        yield opened
    with SyncStore.open(tmp_path / "a.mva", read_only=True) as again:
        report = again.verify()
    assert report.ok, report.problems


def test_a_session_records_what_the_thread_does(store):
    with store.session("trip", metadata={"user": "ada"}) as session:
        frame_id = store.put("It rains in Oslo.", title="Forecast")
        call = session.record_tool_call("weather", arguments={"city": "Oslo"}, result="rain")
        answer = store.ask("Umbrella in Oslo?", generate=lambda prompt: "Yes.", model="tiny")
        assert (call.index, call.task) == (1, threading.current_thread().name)
        assert (answer.text, answer.hits[0].frame_id) == ("Yes.", frame_id)
    (summary,) = store.list_sessions()
    assert (summary.name, summary.action_count) == ("trip", 3)
    recorded = store.get_session(session.session_id)
    assert [action.kind for action in recorded.actions] == ["put", "tool_call", "ask"]
    assert store.read_arguments(recorded.actions[1]) == {"city": "Oslo"}
    assert b"".join(store.stream_content(recorded.actions[0].input)) == b"It rains in Oslo."
    assert [frame.title for frame in store.frames()] == ["Forecast"]
    before = store.at(sequence=1)
    assert before.sequence == 1
    assert list(before.frames()) == []
    with pytest.warns(UnrecordedWarning):
        assert store.record_put(1, "after its block") is None


def test_a_generator_that_was_left_closes_quietly_after_the_store(tmp_path):
    """As Python closes it when it exits, or in a forked child."""
    store = SyncStore.open(tmp_path / "a.mva")
    store.put_many(["one", "two"])
    frames = store.frames()
    next(frames)
    store.close()
    frames.close()


def test_a_session_that_fails_keeps_its_error(store):
    with pytest.raises(KeyError), store.session("fails") as session:
        raise KeyError("gone")
    assert "gone" in store.get_session(session.session_id).error


def test_a_recording_is_replayed_and_served(store):
    with store.session("one") as session:
        store.put("It rains in Oslo.")
        assert session.call_tool("weather", {}, lambda: "rain") == "rain"
        assert str(session.call_model("Umbrella?", lambda prompt: "Yes.")) == "Yes."
    steps = list(store.replay(session.session_id))
    assert [step.verdict for step in steps] == ["matched", "skipped", "skipped"]
    assert store.replay(session.session_id).report().match_rate == 1
    with store.serve(session.session_id) as recorded:
        assert recorded.call_tool("weather", {}, lambda: "dry") == "rain"
        assert list(recorded.stream_model("Umbrella?", lambda prompt: "No.")) == ["Yes."]
        assert recorded.unserved == ()
    assert store.compare(session.session_id, session.session_id).is_equal


def test_what_a_thread_recorded_is_served_to_another_one(store):
    def record():
        with store.session("told") as session:
            for n in range(2):
                session.record_tool_call("weather", arguments={"n": n}, result=f"rain {n}")
            session.record_ask("Umbrella?", response="Yes.")
        recordings.append(session.session_id)

    def serve(session_id):
        with store.serve(session_id) as recorded:
            told = [recorded.call_tool("weather", {"n": n}) for n in range(2)]
            told.append(str(recorded.call_model("Umbrella?", lambda prompt: "No.")))
        served.append(told)

    recordings, served = [], []
    record()
    for name in (None, "a worker"):
        in_threads(record, name)
    for session_id in recordings:
        serve(session_id)
        for name in (None, "another worker"):
            in_threads(lambda session_id=session_id: serve(session_id), name)
    assert served == [["rain 0", "rain 1", "Yes."]] * 9


def in_threads(function, name):
    thread = threading.Thread(target=function, name=name)
    thread.start()
    thread.join()


def test_events_are_streamed(store):
    store.put("first")
    with store.subscribe() as events:
        assert next(events).sequence == 1
        store.put("second")
        sequences = [next(events).sequence]
        while not events.caught_up:
            sequences.append(next(events).sequence)
        assert events.last_sequence == store.last_sequence == sequences[-1]
        # One that waits is ended by another thread.
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(list, events)
            events.close()
            assert waiting.result() == []


def test_an_iterator_that_is_left_half_way_is_closed(store):
    store.put_many([f"text {n}" for n in range(5)])
    frames = store.frames()
    assert next(frames).frame_id == 1
    frames.close()
    assert len(list(store.frames())) == 5


def test_errors_are_those_of_the_asyncio_store(store, tmp_path):
    with store.session() as session, pytest.raises(InvalidValueError):
        session.record_put(-1, "x")
    with pytest.raises(SessionNotFoundError):
        store.get_session("00000000-0000-4000-8000-000000000000")
    with pytest.raises(StoreNotFoundError):
        SyncStore.open(tmp_path / "none.mva", read_only=True)
    with pytest.raises(InvalidValueError):
        SyncStore.open(3)
    with pytest.raises(TimeoutError, match="the model's own"):
        store.ask("x", generate=raise_timeout)


def raise_timeout(prompt):
    raise TimeoutError("the model's own")


def test_threads_record_at_the_same_time(store):
    ready = threading.Barrier(8)

    def agent(number):
        threading.current_thread().name = f"agent {number}"
        ready.wait()
        with store.session(f"session {number}") as own:
            for n in range(20):
                store.record_tool_call("count", arguments={"n": n})
        return own.session_id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(agent, range(8)))
    for number, session_id in enumerate(ids):
        actions = store.get_session(session_id).actions
        assert [store.read_arguments(action)["n"] for action in actions] == list(range(20))
        assert {action.task for action in actions} == {f"agent {number}"}


def test_a_tool_may_use_the_store_and_sees_the_callers_variables(store):
    def model(prompt):
        # In a thread of the store's: its calls have a task of their own.
        return store.find("Oslo").hits[0].snippet

    async def async_model(prompt):
        with pytest.raises(WrongLoopError):
            store.find("Oslo")
        return "fine"

    store.put("It rains in Oslo.")
    assert "Oslo" in store.ask("Oslo?", generate=model).text
    assert store.ask("Oslo?", generate=async_model).text == "fine"


def test_ctrl_c_cancels_the_call_and_the_store_goes_on(store):
    seen = []

    async def model(prompt):
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("cancelled")

    with store.session("interrupted") as session:
        with pytest.raises(KeyboardInterrupt):
            store.ask("Umbrella?", generate=model)
        assert seen == ["cancelled"]
        assert session.record_put(1, "goes on").task == threading.current_thread().name


def test_a_closed_store_says_so(tmp_path):
    store = SyncStore.open(tmp_path / "a.mva")
    store.put("one")
    store.close()
    store.close()
    with pytest.raises(StoreClosedError):
        store.put("two")
    with pytest.raises(StoreClosedError):
        store.submit(lambda opened: opened.put("two"))


def run(code, path):
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


UNCLOSED = """
import sys
from memvid_async import Durability, StoreConfig, SyncStore
store = SyncStore.open(sys.argv[1], config=StoreConfig(durability=Durability.BUFFERED))
with store.session("unclosed") as session:
    session.record_put(1, "acked")
"""

FORKED = """
import os, sys, warnings
from memvid_async import SyncStore, WrongLoopError
warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is the point
with SyncStore.open(sys.argv[1]) as store:
    store.put("parent's")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.put("child's")
        except WrongLoopError:
            store.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    store.put("parent's again")
    assert len(list(store.frames())) == 2
"""


def test_a_program_that_forgets_to_close_loses_nothing(tmp_path):
    run(UNCLOSED, tmp_path / "a.mva")
    with SyncStore.open(tmp_path / "a.mva") as store:
        assert store.list_sessions()[0].action_count == 1
        assert store.torn_tail.bytes_dropped == 0


def test_a_dropped_store_warns_and_ends_its_thread(tmp_path):
    store = SyncStore.open(tmp_path / "a.mva")
    thread = store._thread._thread
    with pytest.warns(ResourceWarning, match="unclosed"):
        del store
    thread.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_is_refused_and_the_parent_goes_on(tmp_path):
    run(FORKED, tmp_path / "a.mva")


async def test_threads_of_an_asyncio_program_share_its_store(make_store):
    store = await make_store()
    shared = SyncStore.of(store)
    with pytest.raises(WrongLoopError):
        shared.put("on its own loop it would wait for itself")
    async with store.session("shared") as session:
        # A thread with the caller's context records into the caller's session.
        action = await asyncio.to_thread(shared.record_put, 1, "from a thread")
        frame = await asyncio.to_thread(shared.put, "from a thread")
    recorded = await store.get_session(session.session_id)
    assert [one.index for one in recorded.actions] == [action.index, frame]
    shared.close()
    assert len([one async for one in store.frames()]) == 1, "it does not close what it did not open"


async def test_code_on_another_loop_reaches_the_store(make_store):
    store = await make_store()
    shared = SyncStore.of(store)

    async def elsewhere():
        def put(opened):
            return opened.put("from another loop")

        return await asyncio.wrap_future(shared.submit(put))

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == 1


def test_a_thread_that_waits_for_a_loop_that_ends_is_told(tmp_path):
    started, told = threading.Event(), []

    def wait(shared):
        async def never(prompt):
            started.set()
            await asyncio.Event().wait()

        with pytest.raises(StoreClosedError):
            shared.ask("x", generate=never)
        told.append("the first")
        with pytest.raises(StoreClosedError):
            shared.put("x")
        told.append("the second")

    async def main():
        store = await open_store(tmp_path / "a.mva")
        thread = threading.Thread(target=wait, args=(SyncStore.of(store),))
        thread.start()
        await asyncio.to_thread(started.wait)
        await store.aclose()
        return thread

    asyncio.run(main()).join()
    assert told == ["the first", "the second"]


def test_it_takes_a_configuration(tmp_path):
    config = StoreConfig(durability=Durability.BUFFERED)
    with SyncStore.open(tmp_path / "a.mva", config=config) as store:
        with store.session() as session:
            session.record_put(1, "x")
        store.sync()
        assert store.path == tmp_path / "a.mva"
        assert not store.read_only
