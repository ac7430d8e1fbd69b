"""Forks: a shared past, a memory of their own."""

from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memvid_async import (
    CheckpointNotFoundError,
    FrameNotFoundError,
    InvalidValueError,
    RecordingConfig,
    SessionEndedError,
    SessionNotFoundError,
    Verdict,
    open_store,
)
from tests.conftest import COMMON

pytestmark = pytest.mark.anyio


async def bodies(store):
    return {
        frame.frame_id: (await store.read_content(frame.content)).decode()
        async for frame in store.frames()
    }


async def kinds(store, session_id):
    return [str(action.kind) for action in (await store.get_session(session_id)).actions]


async def test_a_fork_goes_on_from_its_parents_past_and_leaves_the_parent_alone(make_store):
    store = await make_store()
    async with store.session("parent", metadata={"of": "it"}) as parent:
        await parent.record_tool_call("a", arguments=1)
        marked = await parent.create_checkpoint()
        await parent.record_tool_call("b", arguments=2)
    before = await store.get_session(parent.session_id)
    forked = await store.fork(parent.session_id, checkpoint_id=marked, name="fork")
    async with store.resume_session(forked) as recorder:
        action = await recorder.record_tool_call("c", arguments=3)
        assert action.index == 2
        assert await recorder.create_checkpoint() == marked + 1
    session = await store.get_session(forked)
    assert [a.index for a in session.actions] == [0, 1, 2, 3]
    assert session.actions[:2] == before.actions[:2]
    assert (session.name, dict(session.metadata)) == ("fork", {})
    assert session.fork.parent_id == parent.session_id
    assert [c.checkpoint_id for c in session.checkpoints] == [0, 1]
    assert await store.get_session(parent.session_id) == before
    listed = {summary.session_id: summary for summary in await store.list_sessions()}
    assert listed[forked].fork == session.fork
    assert (listed[forked].action_count, listed[forked].checkpoint_count) == (4, 2)
    assert listed[parent.session_id].fork is None


@pytest.mark.parametrize(
    ("where", "shared"),
    [({}, 3), ({"action_index": 0}, 1), ({"action_index": 2}, 3), ({"checkpoint_id": 0}, 2)],
)
async def test_a_fork_shares_its_past_up_to_and_with_the_place_it_names(make_store, where, shared):
    store = await make_store()
    async with store.session() as parent:
        await parent.record_tool_call("a", arguments=1)
        await parent.create_checkpoint()
        await parent.record_tool_call("b", arguments=2)
        forked = await store.fork(parent.session_id, **where)
    assert await kinds(store, forked) == ["tool_call", "checkpoint", "tool_call"][:shared]


async def test_what_cannot_be_forked_is_named(make_store):
    store = await make_store()
    async with store.session() as parent:
        await parent.record_tool_call("a", arguments=1)
    with pytest.raises(SessionNotFoundError):
        await store.fork(uuid4())
    with pytest.raises(CheckpointNotFoundError):
        await store.fork(parent.session_id, checkpoint_id=0)
    with pytest.raises(InvalidValueError, match="no action 1"):
        await store.fork(parent.session_id, action_index=1)
    with pytest.raises(InvalidValueError, match="not both"):
        await store.fork(parent.session_id, action_index=0, checkpoint_id=0)
    with pytest.raises(InvalidValueError):
        await store.fork("no id")
    with pytest.raises(InvalidValueError):
        await store.fork(parent.session_id, action_index=-1)
    assert len(await store.list_sessions(include_open=True)) == 1


async def test_a_fork_takes_no_room(make_store):
    store = await make_store()
    async with store.session() as parent:
        for number in range(300):
            await parent.record_tool_call("a", arguments="x" * 500 + str(number))
    before = store.statistics().file_bytes
    forked = await store.fork(parent.session_id)
    assert store.statistics().file_bytes - before < 1000
    assert len((await store.get_session(forked)).actions) == 300


async def test_the_memory_of_a_fork_is_what_it_was_then_plus_its_own(make_store):
    store = await make_store()
    first = await store.put("alpha")
    async with store.session() as parent:
        second = await store.put("beta")
        marked = await parent.create_checkpoint()
        third = await store.put("gamma")
        await store.delete(first)
    forked = await store.fork(parent.session_id, checkpoint_id=marked)
    async with store.resume_session(forked):
        assert await bodies(store) == {first: "alpha", second: "beta"}
        own = await store.put("delta")
        await store.update(second, "beta of the fork")
        with pytest.raises(FrameNotFoundError):
            await store.get(third)
        with pytest.raises(FrameNotFoundError):
            await store.update(third, "not there")
        assert [hit.frame_id for hit in (await store.find("delta gamma")).hits] == [own]
    assert await bodies(store) == {second: "beta", third: "gamma"}
    with pytest.raises(FrameNotFoundError):
        await store.delete(own)
    with pytest.raises(FrameNotFoundError):
        await store.get(own)
    view = await store.at(session_id=forked)
    assert await bodies_of(store, view) == {
        first: "alpha",
        second: "beta of the fork",
        own: "delta",
    }


async def bodies_of(store, view):
    return {
        frame.frame_id: (await store.read_content(frame.content)).decode()
        async for frame in view.frames()
    }


async def test_a_fork_outlives_its_parent_and_a_compaction(make_store):
    store = await make_store()
    kept = await store.put("alpha")
    async with store.session("parent"):
        parent = (await store.list_sessions(include_open=True))[0].session_id
    child = await store.fork(parent)
    async with store.resume_session(child):
        put = await store.put("beta")
    grandchild = await store.fork(child)
    async with store.resume_session(grandchild):
        own = await store.put("gamma")
    for gone in (parent, child):
        await store.delete_session(gone)
    await store.compact()
    async with store.session():
        view = await store.at(session_id=grandchild)
        assert await bodies_of(store, view) == {kept: "alpha", put: "beta", own: "gamma"}
    await store.delete_session(grandchild)
    await store.compact()
    assert b"gamma" not in store.path.read_bytes()
    assert b"beta" not in store.path.read_bytes()
    assert await bodies(store) == {kept: "alpha"}


async def test_a_fork_of_an_open_session_and_of_the_ambient_one(make_store):
    store = await make_store()
    ambient = await store.start_session("ambient")
    await store.record_tool_call("a", arguments=1)
    forked = await store.fork(ambient)
    await store.record_tool_call("b", arguments=2)
    assert store.active_session_id == ambient
    assert await kinds(store, forked) == ["tool_call"]
    await store.end_session()
    async with store.resume_session(forked):
        await store.record_tool_call("c", arguments=3)
    with pytest.raises(SessionEndedError):
        async with store.resume_session(forked):
            pass


async def test_a_fork_records_as_its_parent_did(make_store):
    store = await make_store()
    config = RecordingConfig(auto_checkpoint_interval=2)
    async with store.session(config=config) as parent:
        await store.put("alpha")
    forked = await store.fork(parent.session_id)
    async with store.resume_session(forked):
        await store.put("beta")
        await store.put("gamma")
    snapshots = [c.snapshot for c in (await store.get_session(forked)).checkpoints]
    assert [s.frame_count for s in snapshots] == [3]
    async with store.session() as outside:
        await outside.create_checkpoint()
    (other,) = (await store.get_session(outside.session_id)).checkpoints
    assert other.snapshot.frame_count == 1
    assert other.snapshot.memory_hash != snapshots[0].memory_hash


async def test_forks_are_compared_and_replayed(make_store):
    store = await make_store()
    async with store.session() as parent:
        await store.put("alpha")
        await store.find("alpha")
        marked = await parent.create_checkpoint()
        await store.put("beta")
    forked = await store.fork(parent.session_id, checkpoint_id=marked)
    same = await store.compare(parent.session_id, forked)
    assert (len(same.equal), same.first_divergence) == (3, 3)
    assert [action.index for action in same.only_in_a] == [3]
    async with store.resume_session(forked) as recorder:
        own = await store.put("gamma")
        await store.find("alpha gamma beta")
        await store.update(own, "delta")
        await recorder.create_checkpoint()
    below = await store.fork(forked, action_index=4)
    async with store.resume_session(below):
        await store.find("gamma")
        await store.delete(own)
    for session_id, count in ((parent.session_id, 4), (forked, 7), (below, 7)):
        itself = await store.compare(session_id, session_id)
        assert itself.is_equal
        assert len(itself.equal) == count
        report = await store.replay(session_id).report()
        assert (report.counts[Verdict.MATCHED], len(report.steps)) == (count, count)
    comparison = await store.compare(forked, below)
    assert [(a.index, b.index) for a, b in comparison.equal] == [(i, i) for i in range(5)]
    assert comparison.first_divergence == 5
    await store.delete_session(parent.session_id)
    assert (await store.compare(forked, forked)).is_equal
    for session_id, first in ((forked, 3), (below, 3)):
        report = await store.replay(session_id).report()
        assert [step.index for step in report.steps] == list(range(first, 7))
        assert report.counts[Verdict.MATCHED] == 7 - first


async def test_a_fork_of_what_a_deleted_session_did_is_replayed_from_its_own(make_store):
    store = await make_store()
    async with store.session() as root:
        for text in ("alpha", "beta", "gamma"):
            await store.put(text)
    middle = await store.fork(root.session_id)
    leaf = await store.fork(middle, action_index=0)
    async with store.resume_session(leaf):
        await store.find("alpha beta")
    await store.delete_session(root.session_id)
    report = await store.replay(leaf).report()
    assert [(step.index, str(step.verdict)) for step in report.steps] == [(1, "matched")]
    assert (await store.replay(middle).report()).steps == ()


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "update", "delete", "fork", "enter"]), st.integers(0, 7)),
    max_size=14,
)


@given(STEPS)
@settings(parent=settings(max_examples=25, **COMMON))
async def test_forks_of_forks_each_see_their_own(tmp_path_factory, steps):
    """Against plain dicts, one per memory, that a fork copies."""
    path = tmp_path_factory.mktemp("forks") / "store.mva"
    async with open_store(path) as store:
        async with store.session("root") as root:
            await root.record_tool_call("begin", arguments=None)
        memories = {None: {}}
        sessions = [None]
        current = None
        for number, (what, choice) in enumerate(steps):
            if what == "enter":
                current = sessions[choice % len(sessions)]
                continue
            if what == "fork":
                made = await store.fork(current or root.session_id)
                # What the root shares is the memory at its one action: empty.
                memories[made] = dict(memories[current]) if current else {}
                sessions.append(made)
                continue
            await change(store, memories, current, what, choice, f"text {number}")
        for session in sessions:
            view = await store.at(sequence=store.last_sequence)
            if session is not None:
                view = await store.at(session_id=session)
            assert await bodies_of(store, view) == memories[session]
        assert (await store.verify()).ok
    async with open_store(path) as store:
        for session in sessions[1:]:
            view = await store.at(session_id=session)
            assert await bodies_of(store, view) == memories[session]


async def change(store, memories, current, what, choice, text):
    memory = memories[current]
    if what == "put":
        number = max((key for held in memories.values() for key in held), default=0)
        made = await in_session(store, current, lambda: store.put(text))
        assert made > number or number == 0
        memory[made] = text
    elif memory:
        frame_id = sorted(memory)[choice % len(memory)]
        if what == "update":
            await in_session(store, current, lambda: store.update(frame_id, text))
            memory[frame_id] = text
        else:
            await in_session(store, current, lambda: store.delete(frame_id))
            del memory[frame_id]


async def in_session(store, session, call):
    """Make a call in a session without ending it; in none for None."""
    if session is None:
        return await call()
    recorder = store.resume_session(session)
    number = await store._intake.submit(recorder._command)
    block = store._intake.blocks.enter(number)
    try:
        return await call()
    finally:
        block.leave()
