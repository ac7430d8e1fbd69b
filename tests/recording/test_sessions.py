"""Sessions: the file's ambient one, and any number of the caller's own."""

import asyncio
import contextlib
import gc
import itertools
import uuid

import pytest

from memvid_async import (
    Durability,
    InvalidValueError,
    LimitExceededError,
    NoActiveSessionError,
    RecordingConfig,
    SessionActiveError,
    SessionEndedError,
    SessionNotFoundError,
    StateSnapshot,
    StoreConfig,
    UnrecordedWarning,
)
from tests.support.loops import turns

DURABILITIES = pytest.mark.parametrize("durability", Durability, ids=lambda value: value.value)


def kinds(session):
    return [str(action.kind) for action in session.actions]


async def frames(store, session_id):
    """The frame ids that the session's puts name, in order."""
    session = await store.get_session(session_id)
    return [action.details.frame_id for action in session.actions if action.kind == "put"]


async def is_open(store, session_id):
    opened = await store.list_sessions(include_open=True)
    return {summary.session_id: summary.ended_ns is None for summary in opened}[session_id]


# The ambient session.


@DURABILITIES
async def test_the_ambient_session_from_start_to_end(make_store, durability):
    store = await make_store(config=StoreConfig(durability=durability))
    assert store.active_session_id is None
    assert not store.is_recording
    with pytest.warns(UnrecordedWarning):
        assert await store.record_put(1, "nobody records") is None
    with pytest.raises(NoActiveSessionError):
        await store.end_session()
    with pytest.raises(NoActiveSessionError):
        await store.create_checkpoint()

    session_id = await store.start_session("first")
    assert store.active_session_id == session_id
    assert store.is_recording
    with pytest.raises(SessionActiveError):
        await store.start_session("second")
    first = await store.record_put(1, "x")
    assert await store.create_checkpoint() == 0
    second = await store.record_delete(1)
    assert await store.list_sessions() == []
    session = await store.end_session()
    assert store.active_session_id is None
    assert not store.is_recording
    assert session.session_id == session_id
    assert session.name == "first"
    assert session.error is None
    assert [session.actions[0], session.actions[2]] == [first, second]
    assert await store.get_session(session_id) == session
    with pytest.warns(UnrecordedWarning):
        assert await store.record_put(2, "after") is None

    again = await store.start_session()
    assert again != session_id
    assert (await store.end_session()).name is None
    (one, two) = await store.list_sessions()
    assert (one.session_id, one.action_count, one.checkpoint_count) == (session_id, 3, 1)
    assert (two.session_id, two.action_count, two.checkpoint_count) == (again, 0, 0)


@DURABILITIES
async def test_the_ambient_session_outlives_the_process_and_goes_on(make_store, durability):
    config = StoreConfig(durability=durability)
    store = await make_store(config=config)
    session_id = await store.start_session("long", RecordingConfig(max_actions=4))
    await store.record_put(0, "x")
    await store.create_checkpoint()
    for number in (1, 2):
        await store.aclose()
        store = await make_store(config=config)
        assert store.active_session_id == session_id
        with pytest.raises(SessionActiveError):
            await store.start_session()
        await store.record_put(number, "x")
    assert store.is_recording
    await store.record_put(3, "x")
    assert not store.is_recording
    assert await frames(store, session_id) == [0, 1, 2, 3]
    with pytest.raises(NoActiveSessionError):
        await store.end_session()


async def test_two_tasks_never_both_start_the_ambient_session(make_store):
    store = await make_store()
    results = await asyncio.gather(
        *(store.start_session(str(n)) for n in range(20)), return_exceptions=True
    )
    started = [result for result in results if isinstance(result, uuid.UUID)]
    assert started == [store.active_session_id]
    assert sum(isinstance(result, SessionActiveError) for result in results) == 19


async def test_two_stores_of_one_file_never_both_start_the_ambient_session(make_store):
    one, two = await make_store(), await make_store()
    results = await asyncio.gather(
        *(store.start_session() for store in (one, two) * 5), return_exceptions=True
    )
    (started,) = [result for result in results if isinstance(result, uuid.UUID)]
    await asyncio.gather(one.sync(), two.sync())
    assert one.active_session_id == two.active_session_id == started
    assert await two.record_put(1, "by the other") is not None
    session = await one.end_session()
    with pytest.warns(UnrecordedWarning):
        assert await two.record_put(2, "too late") is None
    assert [action.details.frame_id for action in session.actions] == [1]


async def test_auto_record_starts_a_session_where_there_is_none(make_store):
    recording = RecordingConfig(auto_record=True, auto_checkpoint_interval=2)
    store = await make_store(config=StoreConfig(recording=recording))
    session_id = store.active_session_id
    assert store.is_recording
    for number in range(2):
        await store.record_put(number, "x")
    await store.aclose()
    store = await make_store(config=StoreConfig(recording=recording))
    assert store.active_session_id == session_id
    assert kinds(await store.end_session()) == ["put", "put", "checkpoint"]
    assert not store.is_recording
    await store.aclose()
    store = await make_store(read_only=True, config=StoreConfig(recording=recording))
    assert not store.is_recording
    await store.aclose()
    store = await make_store()
    assert not store.is_recording
    one, two = [await make_store(config=StoreConfig(recording=recording)) for _ in range(2)]
    assert one.active_session_id == two.active_session_id
    assert one.active_session_id not in (None, session_id)


# What a session's configuration does.


async def test_a_checkpoint_after_every_so_many_actions(make_store):
    store = await make_store()
    config = RecordingConfig(auto_checkpoint_interval=3)
    async with store.session(config=config) as recorder:
        await recorder.record_put(0, "x")
        await recorder.record_delete(0)
        assert await recorder.create_checkpoint() == 0
        await recorder.record_put_many([1])
        await recorder.record_find("q", mode="m", result_count=0, result_frames=())
        last = await recorder.record_update(1, "x")
        assert await recorder.create_checkpoint() == 2
        for number in range(4):
            await recorder.record_tool_call("t", arguments=number)
    session = await store.get_session(recorder.session_id)
    assert kinds(session) == [
        *("put", "delete", "checkpoint", "put_many", "find", "update", "checkpoint", "checkpoint"),
        *("tool_call", "tool_call", "tool_call", "checkpoint", "tool_call"),
    ]
    assert [action.index for action in session.actions] == list(range(13))
    assert [mark.checkpoint_id for mark in session.checkpoints] == [0, 1, 2, 3]
    assert [mark.at_index for mark in session.checkpoints] == [2, 6, 7, 11]
    assert session.actions[6].details.checkpoint_id == 1
    snapshot = session.checkpoints[1].snapshot
    empty = session.checkpoints[0].snapshot.memory_hash
    assert snapshot == StateSnapshot(0, empty, last.sequence, 0)
    assert len({mark.state_hash for mark in session.checkpoints}) == 1
    assert (await store.list_sessions())[0].checkpoint_count == 4


async def test_checkpoints_fall_where_they_are_due_whoever_records(make_store):
    one, two = await make_store(), await make_store()
    session_id = await one.start_session(config=RecordingConfig(auto_checkpoint_interval=5))
    await two.sync()
    await asyncio.gather(*(store.record_put(n, "x") for store in (one, two) for n in range(50)))
    session = await one.end_session()
    assert session.session_id == session_id
    assert kinds(session) == (["put"] * 5 + ["checkpoint"]) * 20


@pytest.mark.parametrize("ambient", [False, True])
async def test_max_actions_ends_the_session_in_the_same_step(make_store, ambient):
    store = await make_store()
    config = RecordingConfig(max_actions=4, auto_checkpoint_interval=2)
    async with contextlib.AsyncExitStack() as stack:
        if ambient:
            owner, session_id = store, await store.start_session("few", config)
        else:
            owner = await stack.enter_async_context(store.session("few", config))
            session_id = owner.session_id
        unrecorded = pytest.warns(UnrecordedWarning) if ambient else contextlib.nullcontext()
        with unrecorded:
            results = await asyncio.gather(
                *(owner.record_put(n, "x") for n in range(9)), return_exceptions=True
            )
        assert [action.index for action in results[:4]] == [0, 1, 3, 4]
        if ambient:
            assert results[4:] == [None] * 5
        else:
            assert {type(result) for result in results[4:]} == {SessionEndedError}
            with pytest.raises(SessionEndedError):
                await owner.create_checkpoint()
        assert not await is_open(store, session_id)
    session = await store.get_session(session_id)
    assert kinds(session) == ["put", "put", "checkpoint"] * 2
    assert session.ended_ns == session.actions[-1].time_ns
    assert session.error is None
    sequence = store.last_sequence
    events = []
    async with store.subscribe(after=sequence - 3) as subscription:
        async for event in subscription:
            events.append(type(event.payload).__name__)
            if event.sequence == sequence:
                break
    assert events == ["ActionRecorded", "CheckpointCreated", "SessionEnded"]


async def test_a_session_takes_the_stores_configuration_unless_it_has_its_own(make_store):
    store = await make_store(config=StoreConfig(recording=RecordingConfig(max_actions=1)))
    await store.start_session()
    await store.record_put(1, "x")
    assert not store.is_recording
    async with store.session() as recorder:
        await recorder.record_put(1, "x")
        with pytest.raises(SessionEndedError):
            await recorder.record_put(2, "x")
    async with store.session(config=RecordingConfig()) as recorder:
        for number in range(3):
            await recorder.record_put(number, "x")


# Sessions of the caller's own.


@DURABILITIES
async def test_any_number_at_once_each_holds_its_own(make_store, durability):
    store = await make_store(config=StoreConfig(durability=durability))
    await store.start_session()

    async def agent(number):
        async with store.session(f"agent {number}", metadata={"number": number}) as recorder:
            for step in range(10):
                await recorder.record_put(number * 100 + step, "x")
                await turns(1)
            return recorder.session_id

    ids = await asyncio.gather(*(agent(number) for number in range(50)))
    assert len(set(ids)) == 50
    for number, session_id in enumerate(ids):
        session = await store.get_session(session_id)
        assert session.name == f"agent {number}"
        assert session.metadata == {"number": number}
        assert await frames(store, session_id) == [number * 100 + step for step in range(10)]
        assert session.ended_ns >= session.actions[-1].time_ns >= session.created_ns
    assert await frames(store, store.active_session_id) == []
    names = [summary.name for summary in await store.list_sessions()]
    assert sorted(names) == sorted(f"agent {number}" for number in range(50))


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (ValueError("bad \ud800 luck"), "ValueError: bad \ufffd luck"),
        (KeyError(), "KeyError"),
        (asyncio.CancelledError(), "CancelledError"),
        (KeyboardInterrupt("stop"), "KeyboardInterrupt: stop"),
        (RuntimeError("x" * 100_000), "RuntimeError: " + "x" * (8192 - 14)),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_leaving_by_an_exception_keeps_it(make_store, error, kept):
    store = await make_store()
    recorder = store.session()

    async def use():
        async with recorder:
            await recorder.record_put(1, "x")
            raise error

    with pytest.raises(type(error)) as caught:
        await use()
    assert caught.value is error
    session = await store.get_session(recorder.session_id)
    assert session.ended_ns is not None
    assert session.error == kept


async def test_an_exception_that_cannot_be_printed_ends_the_session_all_the_same(make_store):
    class SilentError(Exception):
        def __str__(self):
            raise TypeError("no text")

    store = await make_store()
    recorder = store.session()
    with pytest.raises(SilentError):
        async with recorder:
            raise SilentError
    session = await store.get_session(recorder.session_id)
    assert session.ended_ns is not None
    assert session.error.startswith("SilentError")


async def test_a_recorder_is_of_use_only_inside_its_block(make_store):
    store = await make_store()
    recorder = store.session()
    with pytest.raises(NoActiveSessionError):
        await recorder.record_put(1, "x")
    with pytest.raises(NoActiveSessionError):
        await recorder.create_checkpoint()
    async with recorder:
        with pytest.raises(InvalidValueError):
            await recorder.__aenter__()
        await recorder.record_put(1, "x")
    for call in (recorder.record_put(2, "x"), recorder.create_checkpoint()):
        with pytest.raises(SessionEndedError):
            await call
    with pytest.raises(InvalidValueError):
        await recorder.__aenter__()
    assert await frames(store, recorder.session_id) == [1]
    assert len(await store.list_sessions(include_open=True)) == 1


async def test_a_session_that_was_never_entered_leaves_no_trace(make_store):
    store = await make_store()
    store.session("unused")
    with pytest.raises(LimitExceededError):
        store.session("x" * 257)
    await store.sync()
    assert store.last_sequence == 0


# Resuming.


@DURABILITIES
async def test_a_session_that_was_left_open_is_resumed(make_store, durability):
    config = StoreConfig(durability=durability)
    store = await make_store(config=config)
    recorder = await store.session("cut off", RecordingConfig(max_actions=3)).__aenter__()
    await recorder.record_put(1, "x")
    await store.aclose()

    store = await make_store(config=config)
    assert store.active_session_id is None
    assert await store.list_sessions() == []
    assert await is_open(store, recorder.session_id)
    async with store.resume_session(recorder.session_id) as resumed:
        assert resumed.session_id == recorder.session_id
        await store.record_put(2, "x")
        assert await resumed.create_checkpoint() == 0
    assert await frames(store, recorder.session_id) == [1, 2]
    session = await store.get_session(recorder.session_id)
    assert (session.name, session.error) == ("cut off", None)
    with pytest.raises(SessionEndedError):
        async with store.resume_session(recorder.session_id):
            pass
    with pytest.raises(SessionNotFoundError):
        async with store.resume_session(uuid.uuid4()):
            pass
    await store.delete_session(recorder.session_id)
    with pytest.raises(SessionNotFoundError):
        async with store.resume_session(recorder.session_id):
            pass


# Reading, listing, deleting.


async def test_an_open_session_reads_as_far_as_it_goes(make_store):
    store = await make_store()
    async with store.session("open", metadata={"a": 1}) as recorder:
        action = await recorder.record_put(1, "x")
        session = await store.get_session(recorder.session_id)
        assert session.actions == (action,)
        assert session.ended_ns is None
        assert session.metadata == {"a": 1}
        (summary,) = await store.list_sessions(include_open=True)
        assert summary.ended_ns is None
        assert summary.duration_ns == action.time_ns - session.created_ns
        assert await store.list_sessions() == []


async def test_sessions_are_listed_oldest_first_with_their_figures(make_store):
    ticks = itertools.count(1000, 10)
    store = await make_store(config=StoreConfig(clock=lambda: next(ticks)))
    recorders = [await store.session(str(number)).__aenter__() for number in range(3)]
    for recorder in reversed(recorders):
        await recorder.record_put(1, "x")
        await recorder.__aexit__(None, None, None)
    summaries = await store.list_sessions()
    assert [summary.name for summary in summaries] == ["0", "1", "2"]
    assert [summary.created_ns for summary in summaries] == [1000, 1010, 1020]
    assert [summary.ended_ns for summary in summaries] == [1080, 1060, 1040]
    assert [summary.duration_ns for summary in summaries] == [80, 50, 20]


async def test_time_is_the_clocks_and_may_step_back(make_store):
    times = iter([500, 400, 600, -100, 300])
    store = await make_store(config=StoreConfig(clock=lambda: next(times)))
    async with store.session() as recorder:
        actions = [await recorder.record_put(number, "x") for number in range(3)]
    assert [action.time_ns for action in actions] == [400, 600, -100]
    (summary,) = await store.list_sessions()
    assert (summary.created_ns, summary.ended_ns, summary.duration_ns) == (500, 300, 0)


@pytest.mark.parametrize("state", ["ended", "open", "ambient"])
async def test_a_deleted_session_is_gone_at_once(make_store, state):
    store = await make_store()
    async with store.session("kept") as kept:
        await kept.record_put(1, "x")
    if state == "ambient":
        session_id = await store.start_session()
    else:
        recorder = await store.session().__aenter__()
        session_id = recorder.session_id
        action = await recorder.record_ask(
            "y" * 5000, provider="p", model="m", response="r", duration_ms=1, messages=["a"]
        )
        if state == "ended":
            await recorder.__aexit__(None, None, None)
    await store.delete_session(session_id)
    assert not store.is_recording
    for _ in range(2):
        summaries = await store.list_sessions(include_open=True)
        assert [summary.name for summary in summaries] == ["kept"]
        for call in (store.get_session(session_id), store.delete_session(session_id)):
            with pytest.raises(SessionNotFoundError):
                await call
        await store.aclose()
        store = await make_store()
    if state != "ambient":
        with pytest.raises(InvalidValueError):
            await store.read_messages(action)
        assert await store.read_content(action.input) == b"y" * 5000


async def test_ids_that_repeat_are_refused(make_store):
    fixed = uuid.uuid4()
    store = await make_store(config=StoreConfig(id_factory=lambda: fixed))
    async with store.session():
        with pytest.raises(InvalidValueError):
            await store.start_session()
    assert len(await store.list_sessions(include_open=True)) == 1


@pytest.mark.parametrize("form", [str, lambda i: str(i).upper(), lambda i: i.hex], ids=range(3))
async def test_a_session_is_named_by_the_str_of_its_id_too(make_store, form):
    store = await make_store()
    opened = await store.session("left open").__aenter__()
    await opened.record_put(1, "x")
    known, wanted = opened.session_id, form(opened.session_id)
    assert await store.get_session(wanted) == await store.get_session(known)
    view = await store.at(session_id=wanted)
    assert await view.get_session(wanted) == await store.get_session(known)
    async with store.subscribe(session_id=wanted) as events:
        assert (await anext(events)).session_id == known
    async with store.resume_session(wanted) as resumed:
        await resumed.record_put(2, "x")
    assert resumed.session_id == known
    forked = await store.fork(wanted, action_index=0)
    async with store.resume_session(form(forked)):
        pass
    report = await store.replay(wanted).report()
    assert report.session_id == known
    assert (await store.compare(wanted, form(forked))).session_b == forked
    assert (await store.audit(wanted, {})).session_id == known
    async with store.serve(wanted) as served:
        assert served.session_id is None
    for call in (store.get_session, store.delete_session):
        missing = uuid.uuid4()
        with pytest.raises(SessionNotFoundError) as caught:
            await call(form(missing))
        assert caught.value.session_id == missing
    with pytest.raises(SessionNotFoundError) as caught:
        store.subscribe(session_id=form(missing))
    assert caught.value.session_id == missing
    await store.delete_session(wanted)
    with pytest.raises(SessionNotFoundError):
        await store.get_session(wanted)


async def test_sessions_are_listed_page_by_page(make_store):
    store = await make_store()
    made = []
    for number in range(7):
        async with store.session(f"session {number}") as recorder:
            made.append(recorder.session_id)
    async with store.session("still open") as recorder:
        for newest_first in (False, True):
            for include_open in (False, True):
                expected = [*made, recorder.session_id] if include_open else list(made)
                if newest_first:
                    expected.reverse()
                found, after = [], None
                while page := await store.list_sessions(
                    include_open=include_open, newest_first=newest_first, after=after, limit=3
                ):
                    assert len(page) <= 3
                    found += [summary.session_id for summary in page]
                    after = str(page[-1].session_id)
                assert found == expected
    view = await store.at(sequence=store.last_sequence)
    (last,) = await view.list_sessions(newest_first=True, limit=1)
    assert last.session_id == recorder.session_id
    assert await store.list_sessions(limit=0) == []
    await store.delete_session(made[3])
    with pytest.raises(SessionNotFoundError):
        await store.list_sessions(after=made[3])
    for wrong in ({"limit": -1}, {"limit": "many"}, {"after": "no id"}):
        with pytest.raises(InvalidValueError):
            await store.list_sessions(**wrong)


async def test_an_ended_session_is_a_row_that_is_read_when_somebody_looks(make_store):
    """What the collector goes through does not grow with the sessions that have ended."""
    store = await make_store()
    await store.start_session("begins")
    await store.end_session()
    for _ in range(300):
        async with store.session("ends"):
            pass
    sessions = store._engine.view.state.sessions
    assert (len(sessions.open), len(sessions.packed)) == (0, 301)
    assert {type(row) for row in sessions.packed.values()} == {bytes}
    assert not gc.is_tracked(sessions.packed._copy())
    await store.aclose()
    again = await make_store()
    assert again._engine.view.state == store._engine.view.state
    assert (await again.list_sessions())[0].name == "begins"
