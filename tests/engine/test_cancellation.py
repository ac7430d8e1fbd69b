"""Every operation, cancelled at every step it takes, in both moments a step can be cancelled in."""

import asyncio
import contextlib
from collections.abc import Coroutine

import anyio
import pytest

from memvid_async import (
    Durability,
    Limits,
    MemvidAsyncError,
    NoActiveSessionError,
    RecordingConfig,
    SessionActiveError,
    StoreConfig,
    UnrecordedWarning,
    open_store,
)
from tests.support.loops import turns

LARGE = "x" * 100_000


class Stepped(Coroutine):
    """A coroutine that has its own task cancelled at its n-th step.

    A step is a time that it waits. ``late``: not while it waits, but when what it waited for has
    come and it was not yet told.
    """

    def __init__(self, inner, step, *, late):
        self._inner = inner
        self._left = step
        self._late = late
        self.reached = False

    def send(self, value):
        waited_for = self._inner.send(value)
        self._left -= 1
        if self._left == 0:
            self.reached = True
            cancel = asyncio.current_task().cancel
            if self._late and waited_for is not None:
                # Called before the task's own callback, which is added when this returns.
                waited_for.add_done_callback(lambda _: cancel())
            else:
                asyncio.get_running_loop().call_soon(cancel)
        return waited_for

    def throw(self, *error):
        return self._inner.throw(*error)

    def close(self):
        self._inner.close()

    def __await__(self):
        return self


async def cancelled_everywhere(operation, check, *, most=60):
    """Run ``operation()`` again and again, cancelled one step later each time, until it is done
    before it comes to that; ``check(outcome)`` after each. An outcome is what was returned, what
    was raised, or None for a cancellation."""
    for late in (False, True):
        for step in range(1, most):
            stepped = Stepped(operation(), step, late=late)
            task = asyncio.create_task(stepped)
            await asyncio.wait([task])
            outcome = None if task.cancelled() else task.exception() or task.result()
            await check(outcome)
            if not stepped.reached:
                break
        else:
            pytest.fail(f"not done after {most} steps")


@pytest.fixture(params=[Durability.SYNC, Durability.BUFFERED], ids=["sync", "buffered"])
async def store(request, make_store):
    config = StoreConfig(durability=request.param, flush_interval=0.001)
    return await make_store(config=config)


async def none_open(store):
    await store.sync()
    sessions = await store.list_sessions(include_open=True)
    return all(session.ended_ns is not None for session in sessions)


RECORDINGS = {
    "small": lambda recorder, n: recorder.record_put(n, "x"),
    "content of its own": lambda recorder, n: recorder.record_put(n, f"{n}" + "y" * 3000),
    "prepared off the loop": lambda recorder, n: recorder.record_put(n, f"{n}" + LARGE),
    "messages": lambda recorder, n: recorder.record_ask(
        "q",
        provider="p",
        model="m",
        response="r",
        duration_ms=1,
        retrieved_frames=[n],
        messages=[LARGE, n],
    ),
}


@pytest.mark.parametrize("record", RECORDINGS.values(), ids=RECORDINGS)
async def test_recording_is_whole_or_not_at_all(store, record):
    config = RecordingConfig(auto_checkpoint_interval=1)
    async with store.session(config=config) as recorder:
        attempts, returned = 0, []

        def operation():
            nonlocal attempts
            attempts += 1
            return record(recorder, attempts)

        async def check(outcome):
            if outcome is not None:
                returned.append(outcome)
            later = await recorder.record_delete(1000 + attempts)
            actions = (await store.get_session(recorder.session_id)).actions
            assert later in actions
            assert [action.index for action in actions] == list(range(len(actions)))
            found = [action.affected_frames[0] for action in actions if action.affected_frames]
            assert len(found) == len(set(found))
            assert all(action in actions for action in returned)
            kinds = [action.kind == "checkpoint" for action in actions]
            assert kinds == [bool(i % 2) for i in range(len(kinds))]

        await cancelled_everywhere(operation, check)
        assert returned
    assert await none_open(store)


async def test_recording_while_the_queue_is_full(make_store):
    """A caller that waits for room and is cancelled takes none of it."""
    limits = Limits(queue_bytes=1)
    store = await make_store(config=StoreConfig(limits=limits))
    async with store.session() as recorder:
        returned = []

        async def operation():
            others = [asyncio.create_task(recorder.record_delete(5)) for _ in range(4)]
            await turns(1)
            try:
                return await recorder.record_put(7, "x")
            finally:
                with anyio.CancelScope(shield=True):
                    await asyncio.gather(*others)

        async def check(outcome):
            if outcome is not None:
                returned.append(outcome)
            await recorder.record_delete(6)
            found = store.statistics()
            assert (found.pending_commands, found.pending_bytes) == (0, 0)

        await cancelled_everywhere(operation, check)
        actions = (await store.get_session(recorder.session_id)).actions
        assert all(action in actions for action in returned)


async def test_a_sessions_block_leaves_none_open_wherever_it_is_cancelled(store):
    entered, outcomes = [], []

    async def operation():
        async with store.session("block", metadata={"a": 1}) as recorder:
            entered.append(recorder.session_id)
            await store.record_put(1, "x")
            await recorder.create_checkpoint()
        return recorder.session_id

    async def check(outcome):
        outcomes.append(outcome)
        assert await none_open(store)
        with pytest.warns(UnrecordedWarning):
            assert await store.record_put(1, "x") is None
        for session_id in entered:
            session = await store.get_session(session_id)
            assert session.ended_ns is not None
            assert session.error in (None, "CancelledError")

    await cancelled_everywhere(operation, check)
    assert outcomes[-1] == entered[-1]
    assert None in outcomes
    async with store.session() as recorder:
        await recorder.record_put(2, "x")


async def test_resuming_a_session_never_loses_it(store, make_store):
    opened = []
    for number in range(100):
        recorder = await store.session(str(number)).__aenter__()
        await recorder.record_put(0, "x")
        opened.append(recorder.session_id)
        recorder._block.leave()
    await store.sync()
    waiting = iter(opened)
    tried = []

    async def operation():
        async with store.resume_session(tried[-1]) as resumed:
            await resumed.record_put(1, "x")
        return True

    def next_operation():
        tried.append(next(waiting))
        return operation()

    async def check(outcome):
        await store.sync()
        session = await store.get_session(tried[-1])
        frames = [action.details.frame_id for action in session.actions]
        assert frames in ([0], [0, 1])
        if outcome:
            assert session.ended_ns is not None
        if session.ended_ns is None:
            async with store.resume_session(tried[-1]):
                await store.record_put(2, "x")
        with pytest.warns(UnrecordedWarning):
            assert await store.record_put(3, "x") is None

    await cancelled_everywhere(next_operation, check)


async def test_starting_and_ending_the_ambient_session(store):
    def start():
        return store.start_session("ambient")

    async def end():
        with contextlib.suppress(NoActiveSessionError):
            await store.end_session()

    async def after_start(outcome):
        await store.sync()
        if outcome is not None:
            assert store.active_session_id == outcome
        try:
            await store.start_session()
        except SessionActiveError:
            assert store.is_recording
        session = await store.end_session()
        assert session.ended_ns is not None

    async def after_end(_):
        await store.sync()
        if not store.is_recording:
            await store.start_session()
        await store.record_put(1, "x")

    await cancelled_everywhere(start, after_start)
    await store.start_session()
    await cancelled_everywhere(end, after_end)
    await store.end_session()
    assert await none_open(store)


async def test_reading_and_everything_else(store):
    async with store.session() as recorder:
        action = await recorder.record_put(1, LARGE)
        asked = await recorder.record_ask(
            "q", provider="p", model="m", response="r", duration_ms=1, messages=[1, LARGE]
        )
        session = await store.get_session(recorder.session_id)

        async def deletes():
            async with store.session("to delete") as other:
                await other.record_put(2, "x")
            await store.delete_session(other.session_id)
            return True

        async def reads_on():
            async with store.subscribe() as events:
                got = [(await anext(events)).sequence for _ in range(3)]
                await store.record_put(3, "x")
                return got

        operations = [
            (lambda: store.get_session(recorder.session_id), lambda found: found == session),
            (lambda: store.read_content(action.input), lambda found: found == LARGE.encode()),
            (lambda: store.read_messages(asked), lambda found: found == [1, LARGE]),
            (store.list_sessions, lambda found: found == []),
            (store.verify, lambda found: found.ok),
            (reads_on, lambda found: found == [1, 2, 3]),
            (store.sync, lambda _: True),
            (recorder.create_checkpoint, lambda found: type(found) is int),
            (deletes, lambda found: found is True),
        ]
        for operation, is_right in operations:

            async def check(outcome, is_right=is_right):
                assert outcome is None or is_right(outcome), outcome

            await cancelled_everywhere(operation, check)
            await recorder.record_delete(9)
            session = await store.get_session(recorder.session_id)
        actions = (await store.get_session(recorder.session_id)).actions
        assert [each.index for each in actions] == list(range(len(actions)))


async def test_opening(tmp_path):
    """Cancelled, it leaves no lock, no descriptor and no half-made file."""
    path = tmp_path / "store.mva"
    config = StoreConfig(recording=RecordingConfig(auto_record=True), lock_timeout=5)

    async def operation():
        async with open_store(path, config=config) as store:
            await store.record_put(1, "x")
        return True

    async def check(outcome):
        assert not isinstance(outcome, Exception)
        async with open_store(path, config=config) as store:
            assert await store.record_put(2, "x") is not None
            assert (await store.verify()).ok
            assert store.torn_tail.bytes_dropped == 0

    await cancelled_everywhere(operation, check)
    async with open_store(path, read_only=True) as store:
        assert len(await store.list_sessions(include_open=True)) == 1


@pytest.mark.parametrize("durability", Durability, ids=lambda value: value.value)
async def test_closing(tmp_path, durability):
    """Cancelled, it goes on closing; what was asked for before is written, and it can be awaited
    again."""
    path = tmp_path / "store.mva"
    config = StoreConfig(durability=durability, flush_interval=1000)
    stores, acked = [], []

    async def operation():
        store = await open_store(path, config=config)
        stores.append(store)
        async with store.session("s") as recorder:
            acked.append((recorder.session_id, await recorder.record_put(1, "x")))
            await store.aclose()
        return True

    async def check(outcome):
        if isinstance(outcome, Exception):
            assert isinstance(outcome, MemvidAsyncError)
        for store in stores:
            await store.aclose()
            with pytest.raises(MemvidAsyncError):
                await store.sync()
        async with open_store(path) as store:
            for session_id, action in acked:
                assert (await store.get_session(session_id)).actions == (action,)

    await cancelled_everywhere(operation, check)


async def test_a_read_only_store(make_store):
    writer = await make_store()
    reader = await make_store(read_only=True, config=StoreConfig(poll_interval=0.001))
    async with writer.session() as recorder, reader.subscribe() as events:
        got = []

        async def operation():
            await recorder.record_put(1, "x")
            await reader.list_sessions()
            await reader.get_session(recorder.session_id)
            return await anext(events)

        async def check(outcome):
            assert not isinstance(outcome, Exception)
            if outcome is not None:
                got.append(outcome.sequence)

        await cancelled_everywhere(operation, check)
        while got[-1] < writer.last_sequence:
            got.append((await anext(events)).sequence)
        assert got == list(range(1, len(got) + 1))


# The other ways to be cancelled.


async def test_under_a_cancelled_anyio_scope_the_block_still_ends_its_session(store):
    """A scope cancels every wait within it again, leaving included."""
    for where in ("before", "inside", "while leaving"):
        with anyio.CancelScope() as scope:
            if where == "before":
                scope.cancel()
            async with store.session(where) as recorder:
                if where == "inside":
                    scope.cancel()
                await recorder.record_put(1, "x")
                scope.cancel()
        assert scope.cancel_called
        assert await none_open(store)


async def test_closing_under_a_cancelled_anyio_scope_closes(tmp_path):
    with anyio.CancelScope() as scope:
        async with open_store(tmp_path / "store.mva") as store:
            session_id = await store.start_session()
            scope.cancel()
    assert store._engine.writer._task.done()
    async with open_store(tmp_path / "store.mva") as store:
        assert store.active_session_id == session_id


async def test_when_one_of_a_group_fails_the_others_sessions_end(store):
    started = asyncio.Event()
    recorders = []

    async def agent():
        async with store.session() as recorder:
            recorders.append(recorder)
            for number in range(10_000):
                await recorder.record_put(number, "x")
                if number == 3:
                    started.set()

    async def fails():
        await started.wait()
        raise ZeroDivisionError

    async def together():
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(agent())
            group.create_task(fails())

    with pytest.raises(ExceptionGroup):
        await together()
    assert await none_open(store)
    for recorder in recorders:
        session = await store.get_session(recorder.session_id)
        assert session.error == "CancelledError"
        assert [a.details.frame_id for a in session.actions] == list(range(len(session.actions)))


async def test_a_timeout_of_no_time_at_all_a_thousand_times(store):
    async with store.session() as recorder:
        for number in range(1000):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await recorder.record_put(number, "x" * (number % 7) * 400)
        await recorder.record_put(1000, "x")
        session = await store.get_session(recorder.session_id)
    found = [action.details.frame_id for action in session.actions]
    assert found == sorted(set(found))
    assert found[-1] == 1000
