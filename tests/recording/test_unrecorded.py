"""A recording that finds no session says so, at the line that asked for it."""

import asyncio
import contextvars
import inspect
import warnings

import anyio
import pytest

from memvid_async import RecordingConfig, StoreConfig, StoreReadOnlyError, UnrecordedWarning


@pytest.fixture
def shown():
    """The warnings of a test, as Python shows them when nothing was said about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.resetwarnings()
        yield caught


def here():
    """The line of the caller."""
    return inspect.currentframe().f_back.f_lineno


CALLS = {
    "ask": {"query": "q", "provider": "p", "model": "m", "response": "r", "duration_ms": 1},
    "find": {"query": "q", "mode": "m", "result_count": 0, "result_frames": ()},
    "put": {"frame_id": 1, "data": "x"},
    "put_many": {"frame_ids": [1]},
    "update": {"frame_id": 1, "data": "x"},
    "delete": {"frame_id": 1},
    "tool_call": {"name": "t", "arguments": None},
}


@pytest.mark.parametrize("kind", CALLS)
async def test_every_record_call_warns_at_its_own_line(make_store, shown, kind):
    store = await make_store()
    record = getattr(store, f"record_{kind}")
    before = here()
    assert await record(**CALLS[kind]) is None
    (warning,) = shown
    assert warning.category is UnrecordedWarning
    assert (warning.filename, warning.lineno) == (__file__, before + 1)
    assert "store.session()" in str(warning.message)
    assert store.last_sequence == 0


async def test_it_warns_once_for_each_line(make_store, shown):
    store = await make_store()
    for number in range(3):
        await store.record_put(number, "x")
        await store.record_put(number, "x")
    lines = [warning.lineno for warning in shown]
    assert len(lines) == 2
    assert lines[1] == lines[0] + 1


async def record_later(store):
    return await store.record_put(1, "x")


async def test_it_points_at_the_callers_code_through_whatever_awaits_for_it(make_store, shown):
    store = await make_store()
    await record_later(store)
    await asyncio.gather(record_later(store))
    async with anyio.create_task_group() as group:
        group.start_soon(record_later, store)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(record_later(store))
    assert {warning.filename for warning in shown} == {__file__}
    assert len(shown) == 1
    await asyncio.wait_for(store.record_put(1, "x"), 3600)
    assert not [one for one in shown if one.filename.startswith(asyncio.__path__[0])]


async def test_a_session_in_force_silences_it(make_store):
    store = await make_store()
    async with store.session() as recorder:
        assert await store.record_put(1, "x") is not None
        assert await recorder.record_put(1, "x") is not None
    await store.start_session()
    assert await store.record_put(1, "x") is not None
    config = StoreConfig(recording=RecordingConfig(auto_record=True))
    assert await (await make_store("auto", config=config)).record_put(1, "x") is not None


async def test_what_does_its_work_without_a_session_does_not_warn(make_store):
    store = await make_store()
    frame_id = await store.put("otters")
    await store.update(frame_id, "otters sleep")
    assert len((await store.find("otters")).hits) == 1
    answer = await store.ask("otters?", generate=lambda *_: "yes", provider="p", model="m")
    assert (answer.text, answer.action) == ("yes", None)
    await store.put_many(["one", "two"])
    await store.delete(frame_id)


async def test_a_warning_that_was_made_an_error_is_raised(make_store):
    store = await make_store()
    with pytest.raises(UnrecordedWarning):
        await store.record_put(1, "x")


async def test_a_store_that_is_read_only_refuses(make_store):
    await make_store()
    store = await make_store(read_only=True)
    with pytest.raises(StoreReadOnlyError):
        await store.record_put(1, "x")


def call_from_a_thread(store, call, run=lambda do: do()):
    """Await a call of the store in a thread's name, as code in an executor does."""
    loop = asyncio.get_running_loop()

    def do():
        return asyncio.run_coroutine_threadsafe(call(store), loop).result(30)

    return loop.run_in_executor(None, run, do)


WORK = {
    "put": lambda store: store.put("otter"),
    "put_many": lambda store: store.put_many(["otter"]),
    "update": lambda store: store.update(1, title="t"),
    "find": lambda store: store.find("otter"),
    "ask": lambda store: store.ask("otter?", generate=lambda _: "yes"),
    "delete": lambda store: store.delete(1),
}


@pytest.mark.parametrize("name", WORK)
async def test_an_executor_that_loses_the_context_is_told(make_store, shown, name):
    store = await make_store()
    await store.put("otter")
    async with store.session() as recorder:
        await call_from_a_thread(store, WORK[name])
        assert [one.category for one in shown] == [UnrecordedWarning]
        assert "copy_context" in str(shown[0].message)
        assert (await store.get_session(recorder.session_id)).actions == ()
        await call_from_a_thread(store, WORK["find"], contextvars.copy_context().run)
        await asyncio.to_thread(lambda: None)
        assert len((await store.get_session(recorder.session_id)).actions) == 1
    assert len(shown) == 1


async def test_who_is_in_no_session_on_purpose_is_not_told(make_store):
    store = await make_store()
    await call_from_a_thread(store, WORK["put"])
    entered, leave = asyncio.Event(), asyncio.Event()

    async def another():
        async with store.session():
            entered.set()
            await leave.wait()

    working = asyncio.create_task(another())
    await entered.wait()
    for call in WORK.values():
        await call(store)
    await asyncio.create_task(store.put("otter"))
    leave.set()
    await working
    await call_from_a_thread(store, WORK["find"])
    await store.start_session()
    async with store.session():
        await call_from_a_thread(store, WORK["find"])
        await call_from_a_thread(store, WORK["put"])
    assert len((await store.end_session()).actions) == 2
