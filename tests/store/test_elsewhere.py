"""A store used where it may not be: one error of ours, nothing done, and closing is quiet."""

import asyncio
import copy
import functools
import inspect
import os
import pickle
import sys
import threading

import pytest

from memvid_async import (
    Durability,
    SessionRecorder,
    Store,
    StoreClosedError,
    StoreConfig,
    StoreFailedError,
    StoreView,
    SyncStore,
    WrongLoopError,
    open_store,
    recover,
)

# Every public call of a store, with arguments that would do.
CALLS = {
    "actions": lambda s: anext(s.actions()),
    "annotate_session": lambda s: s.annotate_session(s.ended, {"a": 1}),
    "ask": lambda s: s.ask("a fox", generate=s.effect),
    "at": lambda s: s.at(sequence=1),
    "audit": lambda s: s.audit(s.ended, {"m": s.effect}),
    "collection": lambda s: s.collection("ghosts").put("a fox", 1),
    "compact": lambda s: s.compact(),
    "compare": lambda s: s.compare(s.ended, s.ended),
    "create_checkpoint": lambda s: s.create_checkpoint(),
    "delete": lambda s: s.delete(0),
    "delete_session": lambda s: s.delete_session(s.ended),
    "end_session": lambda s: s.end_session(),
    "find": lambda s: s.find("fox"),
    "context": lambda s: s.context("fox"),
    "fork": lambda s: s.fork(s.ended),
    "frames": lambda s: anext(s.frames()),
    "get": lambda s: s.get(0),
    "get_session": lambda s: s.get_session(s.ended),
    "get_summary": lambda s: s.get_summary(s.ended),
    "list_sessions": lambda s: s.list_sessions(),
    "prune": lambda s: s.prune(keep_last=0),
    "put": lambda s: s.put("ghost"),
    "put_many": lambda s: s.put_many(["ghost"]),
    "read_arguments": lambda s: s.read_arguments(s.tool),
    "read_chunks": lambda s: s.read_chunks(s.asked),
    "read_content": lambda s: s.read_content(s.asked.output),
    "read_context": lambda s: s.read_context(s.asked),
    "read_messages": lambda s: s.read_messages(s.chat),
    "record_ask": lambda s: s.record_ask("q", provider="p", model="m", response="r"),
    "read_new_messages": lambda s: s.read_new_messages([s.chat]),
    "record_delete": lambda s: s.record_delete(0),
    "record_find": lambda s: s.record_find("q", mode="m", result_count=0, result_frames=[]),
    "record_put": lambda s: s.record_put(0, "x" * 100_000),
    "record_put_many": lambda s: s.record_put_many([0]),
    "record_step": lambda s: s.record_step("t"),
    "record_tool_call": lambda s: s.record_tool_call("t", arguments={}),
    "record_update": lambda s: s.record_update(0, "x"),
    "refresh": lambda s: s.refresh(),
    "replay": lambda s: s.replay(s.ended).report(),
    "rename_session": lambda s: s.rename_session(s.ended, "a ghost"),
    "resume_session": lambda s: s.resume_session(s.ended).__aenter__(),
    "serve": lambda s: s.serve(s.ended).__aenter__(),
    "session": lambda s: s.session().__aenter__(),
    "usage": lambda s: s.usage(),
    "set_embedding_model": lambda s: s.set_embedding_model("m", s.effect),
    "start_session": lambda s: s.start_session(),
    "start_session_if_none": lambda s: s.start_session_if_none(),
    "statistics": lambda s: s.statistics(),
    "stream_content": lambda s: anext(s.stream_content(s.asked.output)),
    "subscribe": lambda s: s.subscribe(),
    "sync": lambda s: s.sync(),
    "update": lambda s: s.update(0, "ghost"),
    "verify": lambda s: s.verify(),
    "why": lambda s: s.why(s.asked),
}
VIEW_CALLS = {
    "collection": lambda v: v.collection("ghosts").get("a fox"),
    "find": lambda v: v.find("fox"),
    "context": lambda v: v.context("fox"),
    "frames": lambda v: anext(v.frames()),
    "get": lambda v: v.get(0),
    "get_session": lambda v: v.get_session(v.ended),
    "list_sessions": lambda v: v.list_sessions(),
}


def public_calls(kind):
    return {
        name
        for name, value in vars(kind).items()
        if not name.startswith("_") and not isinstance(value, property) and name != "aclose"
    }


def test_every_public_call_is_tried():
    assert set(CALLS) == public_calls(Store)
    assert set(VIEW_CALLS) == public_calls(StoreView)


class Filled:
    """A store with something in it, and what calls of it need."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        return getattr(self._store, name)

    effects = 0

    def effect(self, prompt=None):
        self.effects += 1
        return "done"

    async def fill(self):
        await self.put("a fox")
        async with self.session() as session:
            self.ended = session.session_id
            answer = await self.ask("a fox", generate=lambda prompt: "it runs")
            self.asked = answer.action
            self.chat = await session.record_ask(
                "q", provider="p", model="m", response="r", messages=[{"role": "user"}]
            )
            self.tool = await session.record_tool_call("t", arguments={"a": 1}, result="r")
        return self


@pytest.fixture
async def filled(make_store):
    return await Filled(await make_store()).fill()


async def made(call):
    answer = call()
    if inspect.isawaitable(answer):
        answer = await answer
    return answer


def in_another_loop(call):
    return asyncio.run(made(call))


def without_a_loop(call):
    """Drive a call as another library's loop would, such as trio's."""
    coroutine = made(call)
    try:
        coroutine.send(None)
    finally:
        coroutine.close()


# They wait for nothing, so they may be called in any function that runs on the loop.
NOT_ASYNC = ("statistics", "subscribe")


async def as_a_guest(call):
    """Drive a call on the store's own loop as a library would that is a guest there."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    outcome = []

    def drive():
        try:
            outcome.append(without_a_loop(call))
        except BaseException as error:  # noqa: BLE001 - it is raised below
            outcome.append(error)
        done.set()

    loop.call_soon(drive)
    await done.wait()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]


@pytest.mark.parametrize("somewhere", [in_another_loop, without_a_loop, as_a_guest])
async def test_every_call_is_refused_elsewhere_and_does_nothing(filled, somewhere):
    view = await filled.at(sequence=filled.last_sequence)
    seen = Filled(view)
    seen.ended = filled.ended
    before, refusals = filled.last_sequence, {}
    for calls, subject in ((CALLS, filled), (VIEW_CALLS, seen)):
        for name, call in calls.items():
            if somewhere is as_a_guest and name in NOT_ASYNC:
                continue
            try:
                made_there = functools.partial(call, subject)
                if somewhere is as_a_guest:
                    await as_a_guest(made_there)
                else:
                    await asyncio.to_thread(somewhere, made_there)
                refusals[name] = "it was done"
            except WrongLoopError as error:
                refusals[name] = str(error)
    said = "another library's event loop runs" if somewhere is as_a_guest else "is another one than"
    assert not {name: why for name, why in refusals.items() if said not in why}
    await filled.refresh()
    assert filled.last_sequence == before
    assert filled.effects == 0
    assert await filled.put("at home") > 0


async def test_handles_are_refused_elsewhere(filled):
    async with filled.session() as empty:
        pass
    async with (
        filled.session() as session,
        filled.subscribe() as events,
        filled.serve(empty.session_id, missing="run") as served,
    ):
        await anext(events)
        before = filled.last_sequence
        calls = [
            lambda: session.record_tool_call("t", arguments={}),
            session.create_checkpoint,
            lambda: served.call_tool("t", {}, filled.effect),
            lambda: served.ask("q", generate=filled.effect),
            events.__anext__,
            events.wait_caught_up,
        ]
        for call in calls:
            for somewhere in (in_another_loop, without_a_loop):
                # What was read ahead may still be delivered.
                events._buffer.clear()
                with pytest.raises(WrongLoopError):
                    await asyncio.to_thread(somewhere, call)
        await filled.refresh()
        assert filled.last_sequence == before
        assert filled.effects == 0
        await asyncio.to_thread(in_another_loop, events.aclose)
        await session.record_tool_call("t", arguments={})
    assert isinstance(session, SessionRecorder)


async def test_what_belongs_to_an_open_store_is_not_pickled_or_copied(filled):
    store = filled._store
    async with store.session() as session:
        for one in (store, store.collection("ghosts"), session, SyncStore.of(store)):
            for make in (pickle.dumps, copy.deepcopy):
                with pytest.raises(WrongLoopError, match="open the file there"):
                    make(one)


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_store_can_be_closed_from_another_threads_loop(make_store, tmp_path, read_only):
    await make_store()
    store = await open_store(tmp_path / "store.mva", read_only=read_only)
    await asyncio.to_thread(in_another_loop, store.aclose)
    with pytest.raises(StoreClosedError):
        await store.list_sessions()
    await store.aclose()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("ended", ["run", "closed"])
@pytest.mark.parametrize("subscribed", [False, True])
def test_a_store_whose_loop_has_ended_closes_quietly(tmp_path, read_only, ended, subscribed):
    """``closed``: a loop that was closed without cancelling its tasks, as ``asyncio.run`` does."""
    path = tmp_path / "a.mva"
    kept, before = [], set(threading.enumerate())

    async def opened():
        if read_only:
            async with open_store(path):
                pass
        store = await open_store(path, read_only=read_only)
        if not read_only:
            await store.put("one")
        await store.find("one")
        if subscribed:
            kept.append(await store.subscribe().__aenter__())
        return store

    if ended == "run":
        store = asyncio.run(opened())
    else:
        loop = asyncio.new_event_loop()
        store = loop.run_until_complete(opened())
        loop.set_exception_handler(lambda *_: None)
        loop.close()

    async def later():
        with pytest.raises(StoreClosedError):
            await store.list_sessions()
        for events in kept:
            await events.aclose()
        await store.aclose()
        await store.aclose()
        async with open_store(path) as again:
            return [frame async for frame in again.frames()]

    assert len(asyncio.run(later())) == (0 if read_only else 1)
    started = set(threading.enumerate()) - before
    for thread in started:
        thread.join(5)
    assert not [thread for thread in started if thread.is_alive()]


def test_acked_events_that_a_closed_loop_left_unwritten_are_not_lost_silently(tmp_path):
    config = StoreConfig(durability=Durability.BUFFERED, flush_interval=1000)
    loop = asyncio.new_event_loop()

    async def opened():
        store = await open_store(tmp_path / "a.mva", config=config)
        await store.put("one")
        return store

    store = loop.run_until_complete(opened())
    # It would tell of the writer's task, which is dropped as it is.
    loop.set_exception_handler(lambda *_: None)
    loop.close()
    with pytest.raises(StoreFailedError, match="not written"):
        asyncio.run(store.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process")
def test_a_forked_child_is_refused(tmp_path):
    async def main():
        store = await open_store(tmp_path / "a.mva")
        await store.put("one")
        pid = os.fork()
        if not pid:
            status = 1
            try:
                asyncio.events._set_running_loop(None)

                async def child():
                    with pytest.raises(WrongLoopError, match="fork"):
                        await store.put("ghost")
                    with pytest.raises(WrongLoopError, match="fork"):
                        await store.list_sessions()
                    await store.aclose()

                asyncio.run(child())
                status = 0
            finally:
                os._exit(status)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        await store.put("two")
        await store.aclose()

    asyncio.run(main())


def test_opening_outside_asyncio_is_refused(tmp_path):
    for call in (lambda: open_store(tmp_path / "a.mva"), lambda: recover(tmp_path / "a", "b")):
        with pytest.raises(WrongLoopError, match="asyncio"):
            without_a_loop(call)
    assert not list(tmp_path.iterdir())
    assert "trio" not in sys.modules
