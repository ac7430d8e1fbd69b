"""Which session is in force: the innermost open one whose block the caller is in, else the ambient
one, else none."""

import asyncio
import contextlib
import contextvars
import gc
import itertools
import threading
import weakref

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    ActionKind,
    Durability,
    NoActiveSessionError,
    RecordingConfig,
    SessionEndedError,
    StoreClosedError,
    StoreConfig,
    UnrecordedWarning,
    open_store,
)

FEW = RecordingConfig(max_actions=1)


async def frames(store, session_id):
    """The frame ids that the session's puts name, in order."""
    session = await store.get_session(session_id)
    return [action.details.frame_id for action in session.actions if action.kind == "put"]


async def error_of(store, session_id):
    """The error that ended a session; it must have ended."""
    session = await store.get_session(session_id)
    assert session.ended_ns is not None
    return session.error


async def test_the_innermost_block_is_in_force_and_leaving_restores_the_outer(make_store):
    store = await make_store()
    ambient = await store.start_session()
    await store.record_put(0, "x")
    async with store.session() as outer:
        await store.record_put(1, "x")
        async with store.session() as inner:
            await store.record_put(2, "x")
            await outer.record_put(3, "x")
            assert await store.create_checkpoint() == 0
        await store.record_put(4, "x")
    await store.record_put(5, "x")
    assert await frames(store, ambient) == [0, 5]
    assert await frames(store, outer.session_id) == [1, 3, 4]
    assert await frames(store, inner.session_id) == [2]
    assert len((await store.get_session(inner.session_id)).checkpoints) == 1


async def test_child_tasks_inherit_the_session_and_others_do_not_see_it(make_store):
    store = await make_store()
    ambient = await store.start_session()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def outsider():
        await entered.wait()
        await store.record_put(1, "x")
        leave.set()

    other = asyncio.create_task(outsider())
    async with store.session() as recorder:
        entered.set()
        await leave.wait()

        async def child(number):
            await store.record_put(number, "x")
            async with asyncio.TaskGroup() as group:
                group.create_task(store.record_put(number + 1, "x"))

        await asyncio.create_task(child(10))
    await other
    assert await frames(store, ambient) == [1]
    assert await frames(store, recorder.session_id) == [10, 11]


async def test_sessions_of_two_stores_do_not_mix(make_store):
    one, two = await make_store("one"), await make_store("two")
    await two.start_session()
    async with one.session() as first:
        await two.record_put(1, "x")
        async with two.session() as second:
            await one.record_put(2, "x")
            await two.record_put(3, "x")
    assert await frames(one, first.session_id) == [2]
    assert await frames(two, second.session_id) == [3]
    assert await frames(two, two.active_session_id) == [1]


# An ended session is never in force.


async def end_left(store, recorder, stack):
    await stack.aclose()


async def end_full(store, recorder, stack):
    await recorder.record_delete(0)


async def end_deleted(store, recorder, stack):
    await store.delete_session(recorder.session_id)


async def end_by_another(store, recorder, stack):
    async with open_store(store.path) as other, other.resume_session(recorder.session_id):
        pass


@pytest.mark.parametrize("end", [end_left, end_full, end_deleted, end_by_another])
@pytest.mark.parametrize("outwards", ["outer", "ambient"])
async def test_a_task_that_outlives_a_session_goes_on_to_the_next_one_outwards(
    make_store, end, outwards
):
    store, ended = await make_store(), asyncio.Event()

    async def late():
        await ended.wait()
        mark = await store.create_checkpoint()
        action = await store.record_put(1, "x")
        frame_id = await store.put("a frame")
        await store.find("frame")
        answer = await store.ask("?", generate=lambda _: "paid", provider="p", model="m")
        return mark, action.kind, frame_id, answer.text, answer.action.kind

    async with contextlib.AsyncExitStack() as stack:
        if outwards == "outer":
            outer = (await stack.enter_async_context(store.session())).session_id
        else:
            outer = await store.start_session()
        inner = await stack.enter_async_context(contextlib.AsyncExitStack())
        recorder = await inner.enter_async_context(store.session(config=FEW))
        straggler = asyncio.create_task(late())
        await end(store, recorder, inner)
        ended.set()
        assert await straggler == (0, "put", 1, "paid", "ask")
        for call in (recorder.record_put(2, "x"), recorder.create_checkpoint()):
            with pytest.raises(SessionEndedError):
                await call
        actions = (await store.get_session(outer)).actions
        assert [str(action.kind) for action in actions] == [
            *("checkpoint", "put", "put", "find", "ask"),
        ]


async def test_a_task_that_outlives_every_session_works_on_without_one(make_store):
    store, ended = await make_store(), asyncio.Event()

    async def late():
        await ended.wait()
        with pytest.raises(NoActiveSessionError):
            await store.create_checkpoint()
        await store.put("a frame")
        await store.update(1, "another frame")
        found = await store.find("frame")
        answer = await store.ask("frame", generate=lambda _: "paid", provider="p", model="m")
        await store.delete(1)
        with pytest.warns(UnrecordedWarning):
            recorded = await store.record_put(1, "x")
        return recorded, len(found.hits), answer.text, answer.action

    async with store.session() as recorder:
        straggler = asyncio.create_task(late())
    ended.set()
    assert await straggler == (None, 1, "paid", None)
    assert (await store.get_session(recorder.session_id)).actions == ()


async def test_a_worker_that_was_started_lazily_in_a_block_goes_on(make_store):
    store, waiting = await make_store(), asyncio.Queue()

    async def work():
        while (number := await waiting.get()) is not None:
            await store.record_put(number, "x")
            waiting.task_done()

    async with store.session() as first:
        worker = asyncio.create_task(work())
        waiting.put_nowait(1)
        await waiting.join()
    ambient = await store.start_session()
    waiting.put_nowait(2)
    await waiting.join()
    # Another block is not the worker's: it was not started in it.
    async with store.session() as second:
        waiting.put_nowait(3)
        await waiting.join()
    waiting.put_nowait(None)
    await worker
    assert await frames(store, first.session_id) == [1]
    assert await frames(store, ambient) == [2, 3]
    assert await frames(store, second.session_id) == []


async def test_which_session_is_open_is_decided_action_by_action(make_store):
    """All are queued while each session is open; each goes where there is room when its turn is."""
    store = await make_store()
    three = RecordingConfig(max_actions=3)
    ambient = await store.start_session(config=three)
    async with store.session(config=three) as outer, store.session(config=three) as inner:
        actions = await asyncio.gather(*(store.record_put(n, "x") for n in range(9)))
    assert [action.index for action in actions] == [0, 1, 2] * 3
    assert await frames(store, inner.session_id) == [0, 1, 2]
    assert await frames(store, outer.session_id) == [3, 4, 5]
    assert await frames(store, ambient) == [6, 7, 8]


async def test_a_fork_that_was_left_no_longer_has_the_callers_memory(make_store):
    store, inside, left = await make_store(), asyncio.Event(), asyncio.Event()
    await store.put("of all")
    async with store.session() as parent:
        await parent.record_delete(9)
    fork = await store.fork(parent.session_id)

    async def late():
        forked = await store.put("of the fork")
        inside.set()
        await left.wait()
        return forked, await store.put("of all again"), [f.frame_id async for f in store.frames()]

    async with store.resume_session(fork):
        straggler = asyncio.create_task(late())
        await inside.wait()
    left.set()
    assert await straggler == (2, 3, [1, 3])


# A block may be left in another task or context.


async def in_task(awaitable):
    """Await it in a task of its own, which has a context of its own."""

    async def wait():
        return await awaitable

    return await asyncio.create_task(wait())


async def dependency(store, opened):
    """What a web framework or a test runner makes of a block: a generator."""
    async with store.session() as recorder:
        opened.append(recorder.session_id)
        yield recorder


@pytest.mark.parametrize("enter_in", ["this task", "another"])
async def test_a_generator_is_finished_in_another_task(make_store, enter_in):
    store, opened = await make_store(), []
    given = dependency(store, opened)
    recorder = await (anext(given) if enter_in == "this task" else in_task(anext(given)))
    await recorder.record_put(1, "x")
    with pytest.raises(StopAsyncIteration):
        await in_task(anext(given))
    assert await error_of(store, opened[0]) is None
    with pytest.warns(UnrecordedWarning):
        assert await store.record_put(2, "x") is None
    assert await frames(store, opened[0]) == [1]


async def test_a_generator_is_closed_in_another_task(make_store):
    store, opened = await make_store(), []
    given = dependency(store, opened)
    await in_task(anext(given))
    await in_task(given.aclose())
    assert await error_of(store, opened[0]) == "GeneratorExit"


async def test_an_error_that_is_thrown_in_from_another_task_comes_out(make_store):
    store, opened = await make_store(), []
    given = dependency(store, opened)
    await in_task(anext(given))
    with pytest.raises(ValueError, match="the caller's own"):
        await in_task(given.athrow(ValueError("the caller's own")))
    assert await error_of(store, opened[0]) == "ValueError: the caller's own"


async def test_a_generator_that_was_abandoned_is_closed_by_the_collector(make_store):
    store, opened = await make_store(), []
    ambient = await store.start_session()

    async def use():
        async for recorder in dependency(store, opened):
            await recorder.record_put(1, "x")
            break

    await asyncio.create_task(use())
    gc.collect()
    async with store.subscribe(session_id=opened[0]) as events:
        async for event in events:
            if type(event.payload).__name__ == "SessionEnded":
                break
    assert await error_of(store, opened[0]) == "GeneratorExit"
    await store.record_put(2, "x")
    assert await frames(store, ambient) == [2]


async def test_a_block_is_left_by_whoever_holds_the_stack(make_store):
    """One task enters, another leaves, and a third that was started inside goes on."""
    store, stack = await make_store(), contextlib.AsyncExitStack()
    recorded, left = asyncio.Event(), asyncio.Event()
    ambient = await store.start_session()

    async def enter():
        recorder = await stack.enter_async_context(store.session())
        await store.record_put(1, "x")

        async def inside():
            await store.record_put(2, "x")
            recorded.set()
            await left.wait()
            await store.record_put(3, "x")

        return recorder, asyncio.create_task(inside())

    recorder, inside = await asyncio.create_task(enter())
    await recorded.wait()
    await in_task(stack.aclose())
    left.set()
    await inside
    assert await frames(store, recorder.session_id) == [1, 2]
    assert await frames(store, ambient) == [3]


def test_a_block_is_left_in_another_event_loop(tmp_path):
    """Nothing there can wait for the store's loop; the block's own error comes out all the same."""
    path, opened = tmp_path / "store.mva", []

    async def enter():
        store = await open_store(path)
        given = [dependency(store, opened) for _ in range(2)]
        for one in given:
            await anext(one)
        return store, given, await store.session().__aenter__()

    async def leave(given):
        with pytest.raises(StopAsyncIteration):
            await anext(given[0])
        with pytest.raises(ValueError, match="the caller's own"):
            await given[1].athrow(ValueError("the caller's own"))

    async def look(store):
        await store.sync()
        errors = [await error_of(store, session_id) for session_id in opened[:2]]
        await store.aclose()
        return errors

    with asyncio.Runner() as runner:
        store, given, late = runner.run(enter())
        with asyncio.Runner() as other:
            other.run(leave(given))
        assert runner.run(look(store)) == [None, "ValueError: the caller's own"]
    own = ValueError("the caller's own")
    assert asyncio.run(late.__aexit__(ValueError, own, None)) is None
    with pytest.raises(StoreClosedError):
        asyncio.run(late.__aexit__(None, None, None))


def test_a_coroutine_that_is_collected_inside_a_block_is_quiet(tmp_path):
    """Its loop has ended by then; nothing can be awaited, and nothing is raised."""

    async def hang(store, entered):
        async with store.session():
            entered.set_result(None)
            await asyncio.get_running_loop().create_future()

    async def start():
        store = await open_store(tmp_path / "store.mva")
        entered = asyncio.get_running_loop().create_future()
        coroutine = hang(store, entered)
        task = asyncio.ensure_future(coroutine)
        await entered
        return store, coroutine, task

    loop = asyncio.new_event_loop()
    store, coroutine, task = loop.run_until_complete(start())
    # The collector would say that the task never came to its end.
    task._log_destroy_pending = False
    coroutine.close()
    loop.run_until_complete(store.sync())
    (left,) = loop.run_until_complete(store.list_sessions())
    assert loop.run_until_complete(error_of(store, left.session_id)) == "GeneratorExit"
    loop.run_until_complete(store.aclose())
    loop.close()


@pytest.fixture
async def recorded(make_store):
    """A block that a test is in, left when it ends."""
    store = await make_store()
    async with store.session() as recorder:
        yield store, recorder


async def test_a_fixture_holds_the_block_that_the_test_is_in(recorded):
    store, recorder = recorded
    await store.record_put(1, "x")
    await asyncio.gather(store.record_put(2, "x"))
    assert await frames(store, recorder.session_id) == [1, 2]


async def test_blocks_left_out_of_order_never_record_elsewhere(make_store):
    """Two interleaved generators, each with a session of its own, share the task's context."""
    store = await make_store()
    ambient = await store.start_session()
    for order in ((0, 1), (1, 0)):
        opened = []
        given = [dependency(store, opened) for _ in range(2)]
        recorders = [await anext(one) for one in given]
        await given[order[0]].aclose()
        await store.record_put(1, "x")
        await recorders[order[1]].record_put(2, "x")
        await given[order[1]].aclose()
        assert await frames(store, opened[order[0]]) == []
        assert await frames(store, opened[order[1]]) == [1, 2]
    await store.record_put(3, "x")
    assert await frames(store, ambient) == [3]


async def planning(session, name):
    """A step, as a generator makes it."""
    async with session.step(name):
        yield


@pytest.mark.parametrize("order", ["0 in turn", "1 in turn", "0 elsewhere", "1 elsewhere"])
async def test_what_follows_a_step_that_was_left_is_no_part_of_it(make_store, order):
    """Two interleaved generators, each with a step of its own; one is left first, perhaps by
    another task."""
    store = await make_store()
    async with store.session() as session:
        given = [planning(session, name) for name in "ab"]
        for one in given:
            await anext(one)
        first, how = int(order[0]), order[2:]
        finish = given[first].aclose()
        await (in_task(finish) if how == "elsewhere" else finish)
        inside = await store.record_put(1, "x")
        await given[1 - first].aclose()
        assert (await store.record_put(2, "x")).parent is None
        async with session.step("c"):
            called = await session.call_tool("where", {}, lambda: "here")
    read = await store.get_session(session.session_id)
    starts = {a.details.name: a.started for a in read.actions if a.kind is ActionKind.STEP}
    assert (called, inside.parent) == ("here", starts["ba"[first]])
    assert read.actions[-2].parent == starts["c"]
    assert not read.in_flight


async def test_a_context_does_not_gather_blocks_that_were_left_elsewhere(make_store):
    store, opened = await make_store(), []
    await store.start_session()
    before = len(contextvars.copy_context())
    kept = set()
    for _ in range(20):
        given = dependency(store, opened)
        await anext(given)
        kept.add(sum(len(v) for v in contextvars.copy_context().values() if type(v) is tuple))
        await in_task(given.aclose())
    assert len(kept) == 1
    # One variable holds the lanes of all sessions, one what their tools look for.
    assert len(contextvars.copy_context()) <= before + 2


async def test_a_context_does_not_keep_a_closed_store(tmp_path):
    async def use():
        store = await open_store(tmp_path / "store.mva")
        await store.session().__aenter__()
        await store.aclose()
        return weakref.ref(store)

    store = await use()
    gc.collect()
    assert store() is None


# Who is inside a block.


async def test_the_tasks_of_every_kind_of_group_are_inside(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await asyncio.gather(store.record_put(1, "x"), store.record_put(1, "x"))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.record_put(2, "x"))
        async with anyio.create_task_group() as group:
            group.start_soon(store.record_put, 3, "x")
        async with asyncio.timeout(3600):
            await asyncio.wait_for(store.record_put(4, "x"), 3600)
        loop = asyncio.get_running_loop()
        called = loop.create_future()
        loop.call_soon(lambda: called.set_result(asyncio.ensure_future(store.record_put(5, "x"))))
        await (await called)
    assert await frames(store, recorder.session_id) == [1, 1, 2, 3, 4, 5]


async def test_a_context_says_which_block_a_thread_or_a_call_is_in(make_store):
    store, loop = await make_store(), asyncio.get_running_loop()
    ambient = await store.start_session()
    outside = contextvars.copy_context()

    def record(number):
        return asyncio.run_coroutine_threadsafe(store.record_put(number, "x"), loop).result()

    async with store.session() as recorder:
        inside = contextvars.copy_context()
        # A context of its own, in which nothing was entered; then a copy of this one.
        thread = threading.Thread(target=record, args=(1,))
        thread.start()
        await asyncio.to_thread(thread.join)
        await asyncio.to_thread(record, 2)
        await anyio.to_thread.run_sync(anyio.from_thread.run, store.record_put, 2, "x")
        await outside.run(asyncio.create_task, store.record_put(3, "x"))
        await inside.run(asyncio.create_task, store.record_put(4, "x"))
    await inside.run(asyncio.create_task, store.record_put(5, "x"))
    assert await frames(store, recorder.session_id) == [2, 2, 4]
    assert await frames(store, ambient) == [1, 3, 5]


# Whatever is nested in whatever, against a list of blocks per context.


class Oracle:
    """Which session an action must land in, kept as plainly as it is said."""

    def __init__(self):
        self.blocks = {}  # of a context: (store, session) as entered there or where it was copied
        self.room = {}  # of an open session: how many actions it still takes
        self.ambient = {}  # of a store: its session

    def in_force(self, context, store):
        mine = [s for where, s in self.blocks[context] if where == store and s in self.room]
        return mine[-1] if mine else self.ambient.get(store)

    def recorded(self, session):
        if session in self.room:
            self.room[session] -= 1
            if not self.room[session]:
                self.ended(session)

    def ended(self, session):
        self.room.pop(session, None)
        self.ambient = {store: held for store, held in self.ambient.items() if held != session}


class Player:
    """Plays steps on two stores, each in one of several contexts, and compares."""

    def __init__(self, stores):
        self.stores = stores
        self.oracle = Oracle()
        self.contexts = [contextvars.copy_context()]
        self.oracle.blocks[0] = []
        self.recorders = []
        self.expected = {}
        self.frame_ids = itertools.count()

    async def step(self, what, context, pick, most):
        task = asyncio.create_task(
            getattr(self, what)(context % len(self.contexts), pick, most),
            context=self.contexts[context % len(self.contexts)],
        )
        await task

    async def spawn(self, context, pick, most):
        self.contexts.append(contextvars.copy_context())
        self.oracle.blocks[len(self.contexts) - 1] = list(self.oracle.blocks[context])

    async def enter(self, context, pick, most):
        store = pick % 2
        config = RecordingConfig(max_actions=most)
        recorder = await self.stores[store].session(config=config).__aenter__()
        self.recorders.append((store, recorder))
        self.oracle.blocks[context].append((store, recorder.session_id))
        self.oracle.room[recorder.session_id] = most or 1000

    async def leave(self, context, pick, most):
        if self.recorders:
            _, recorder = self.recorders.pop(pick % len(self.recorders))
            await recorder.__aexit__(None, None, None)
            self.oracle.ended(recorder.session_id)

    async def delete(self, context, pick, most):
        if self.recorders:
            store, recorder = self.recorders[pick % len(self.recorders)]
            with contextlib.suppress(Exception):
                await self.stores[store].delete_session(recorder.session_id)
            self.oracle.ended(recorder.session_id)
            self.expected.pop(recorder.session_id, None)

    async def ambient(self, context, pick, most):
        store = self.stores[pick % 2]
        held = self.oracle.ambient.get(pick % 2)
        assert store.active_session_id == held
        if held is None:
            held = await store.start_session(config=RecordingConfig(max_actions=most))
            self.oracle.ambient[pick % 2] = held
            self.oracle.room[held] = most or 1000
        else:
            await store.end_session()
            self.oracle.ended(held)

    async def record(self, context, pick, most):
        wanted = self.oracle.in_force(context, pick % 2)
        frame_id = next(self.frame_ids)
        unrecorded = pytest.warns(UnrecordedWarning) if wanted is None else contextlib.nullcontext()
        with unrecorded:
            action = await self.stores[pick % 2].record_put(frame_id, "x")
        assert (action is None) == (wanted is None)
        if wanted is not None:
            self.expected.setdefault(wanted, (pick % 2, []))[1].append(frame_id)
            self.oracle.recorded(wanted)

    async def check(self):
        for session, (store, expected) in self.expected.items():
            assert await frames(self.stores[store], session) == expected


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["record", "record", "record", "enter", "enter", "leave", "spawn", "ambient", "delete"]
        ),
        st.integers(0, 4),
        st.integers(0, 7),
        st.sampled_from([None, None, 1, 2]),
    ),
    min_size=12,
    max_size=40,
)


@given(steps=STEPS, durability=st.sampled_from(Durability))
def test_an_action_lands_in_the_innermost_open_block_of_its_context(
    tmp_path_factory, steps, durability
):
    folder = tmp_path_factory.mktemp("nested")
    config = StoreConfig(durability=durability)

    async def play():
        async with (
            open_store(folder / "one", config=config) as one,
            open_store(folder / "two", config=config) as two,
        ):
            player = Player((one, two))
            for step in steps:
                await player.step(*step)
            await player.check()

    asyncio.run(play())


# The step that an action is part of.


async def test_an_action_is_a_child_of_the_step_it_is_recorded_in(make_store):
    store, other = await make_store(), await make_store("other.mva")
    six = RecordingConfig(max_actions=6)
    async with (
        other.session() as elsewhere,
        store.session() as outer,
        outer.step("outer"),
        store.session(config=six) as inner,
        inner.step("plan"),
        inner.step("think"),
    ):
        await store.put("what is found")
        found = await store.find("found")
        asked = await store.record_ask("why?", response="so")
        called = await asyncio.create_task(inner.record_tool_call("t", arguments={}))
        passed = await outer.record_ask("in its own step?")
        # The inner session is full by now, so the outer one is in force.
        fallen = await store.record_ask("and whose step is this?")
        alone = await elsewhere.record_ask("in a session without steps")
    assert len(found.hits) == 1
    recorded = await store.get_session(inner.session_id)
    think, _ = [action for action in recorded.actions if action.kind == ActionKind.STEP]
    (search,) = [action for action in recorded.actions if action.kind == ActionKind.FIND]
    assert {search.parent, asked.parent, called.parent} == {think.started}
    (step,) = (await store.get_session(outer.session_id)).actions[-1:]
    assert passed.parent == step.started
    assert (fallen.session_id, fallen.parent) == (outer.session_id, None)
    assert alone.parent is None
