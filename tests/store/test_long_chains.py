"""Depth: forks of forks, updates of one frame, tasks in tasks, more of them than calls can nest."""

import asyncio
import json
import sys

import pytest
from click.testing import CliRunner

from memvid_async import (
    ActionKind,
    Durability,
    InvalidValueError,
    MemvidAsyncError,
    StoreConfig,
    Verdict,
    open_store,
    recover,
)
from memvid_async.cli.arguments import read_json
from memvid_async.cli.command_line import cli
from memvid_async.recording.session_calls import read_result
from tests.support.chains import MARKED_EVERY, fork_chain, forks_as_claimed
from tests.support.depth import CHAIN

pytestmark = pytest.mark.anyio
BUFFERED = StoreConfig(durability=Durability.BUFFERED)


def test_the_chains_are_longer_than_calls_nest():
    assert sys.getrecursionlimit() < CHAIN


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A file with a chain of forks, and the sessions' ids."""
    path = tmp_path_factory.mktemp("chain") / "chain.mva"
    return path, fork_chain(path, CHAIN)


@pytest.fixture
async def chained(chain, tmp_path):
    """A store of a copy, and the sessions' ids."""
    path = tmp_path / "copy.mva"
    path.write_bytes(chain[0].read_bytes())
    async with open_store(path, config=BUFFERED) as store:
        yield store, chain[1]


def expected_kinds(count):
    """The kinds of the actions that the last of ``count`` sessions holds."""
    for i in range(count):
        yield ActionKind.ASK
        if i % MARKED_EVERY == 0:
            yield ActionKind.CHECKPOINT
        yield ActionKind.PUT


async def test_a_fork_of_forks_is_read_and_listed(chained):
    store, ids = chained
    session = await store.get_session(ids[-1])
    assert [action.kind for action in session.actions] == list(expected_kinds(len(ids)))
    assert [action.index for action in session.actions] == list(range(len(session.actions)))
    listed = await store.list_sessions()
    assert [one.session_id for one in listed] == ids
    assert listed[-1].action_count == len(session.actions)


async def test_a_fork_of_forks_is_forked_anywhere(chained):
    store, ids = chained
    whole = list(expected_kinds(len(ids)))
    for wanted, count in (
        ({}, len(whole)),
        ({"action_index": 0}, 1),
        ({"action_index": len(whole) // 2}, len(whole) // 2 + 1),
        ({"checkpoint_id": 0}, 2),
        ({"checkpoint_id": CHAIN // MARKED_EVERY // 2}, None),
    ):
        forked = await store.get_session(await store.fork(ids[-1], **wanted))
        kinds = [action.kind for action in forked.actions]
        assert kinds == whole[: len(kinds)]
        assert forked.fork.action_count == len(kinds)
        if count is None:
            assert kinds[-1] is ActionKind.CHECKPOINT
            assert kinds.count(ActionKind.CHECKPOINT) == wanted["checkpoint_id"] + 1
        else:
            assert len(kinds) == count
    with pytest.raises(MemvidAsyncError, match="no action"):
        await store.fork(ids[-1], action_index=len(whole))
    with pytest.raises(MemvidAsyncError, match="no checkpoint"):
        await store.fork(ids[-1], checkpoint_id=len(whole))


async def test_the_memory_of_a_fork_of_forks_is_searched_and_changed(chained):
    store, ids = chained
    fork = await store.fork(ids[-1])
    async with store.resume_session(fork):
        assert len((await store.find("word3", top_k=CHAIN)).hits) == len(range(3, len(ids), 50))
        first = (await store.find("word3", top_k=1)).hits[0].frame_id
        await store.update(first, content="nothing of it")
        await store.delete(2)
        assert len((await store.find("word3", top_k=CHAIN)).hits) == len(range(3, len(ids), 50)) - 1
    middle = await store.at(session_id=ids[len(ids) // 2])
    assert (await middle.find("word3", top_k=CHAIN)).hits
    early = await store.at(sequence=store.last_sequence // 2)
    assert len(await early.list_sessions(include_open=True)) == pytest.approx(len(ids) / 2, abs=3)
    assert len((await early.get_session(ids[9])).actions) == 21


async def test_a_fork_of_forks_is_replayed_compared_and_served(chained):
    store, ids = chained
    middle = ids[len(ids) // 2]
    report = await store.replay(ids[-1]).report()
    assert report.counts[Verdict.MATCHED] == len(ids) + len(range(0, len(ids), MARKED_EVERY))
    assert report.counts[Verdict.DIVERGED] == report.counts[Verdict.UNVERIFIABLE] == 0
    comparison = await store.compare(middle, ids[-1])
    shared = list(expected_kinds(len(ids) // 2 + 1))
    assert comparison.first_divergence == len(shared)
    async with store.serve(ids[-1], unserved="allow") as served:
        assert served.session_id is None


async def test_finds_in_each_of_many_forks_are_replayed(make_store):
    """Each finds in a memory of its own, made of all before it."""
    store = await make_store(config=BUFFERED)
    async with store.session() as session:
        await store.put("word0")
    last = session.session_id
    for i in range(60):
        last = await store.fork(last)
        async with store.resume_session(last):
            await store.put(f"word{i % 3}")
            await store.find("word1", top_k=5)
    report = await store.replay(last).report()
    assert report.counts[Verdict.MATCHED] == 121


async def test_very_many_updates_of_one_frame(make_store):
    store = await make_store(config=BUFFERED)
    async with store.session() as session:
        frame_id = await store.put("body word0")
        for i in range(CHAIN):
            await store.update(frame_id, content=f"body word{i % 50}")
    last = f"word{(CHAIN - 1) % 50}"
    assert [hit.frame_id for hit in (await store.find(last)).hits] == [frame_id]
    assert not (await store.find(f"word{CHAIN % 50}")).hits
    counts = (await store.replay(session.session_id).report()).counts
    assert counts[Verdict.MATCHED] == CHAIN + 1
    fork = await store.fork(session.session_id, action_index=CHAIN // 2)
    async with store.resume_session(fork):
        assert (await store.find(f"word{(CHAIN // 2 - 1) % 50}")).hits
    assert len((await store.compare(session.session_id, fork)).equal) == CHAIN // 2 + 1
    assert (await store.verify()).ok
    await store.compact()
    assert (await store.get(frame_id)).content.size == len(f"body {last}")


async def test_tasks_in_tasks(make_store):
    """Each starts the next one, and ends."""
    store = await make_store(config=BUFFERED)
    done = asyncio.get_running_loop().create_future()

    async def nest(depth):
        await store.record_tool_call("count", arguments={"depth": depth}, result=str(depth))
        if depth < CHAIN:
            tasks.add(asyncio.create_task(nest(depth + 1), name=f"task {depth + 1}"))
        else:
            done.set_result(None)

    tasks = set()
    async with store.session() as session:
        tasks.add(asyncio.create_task(nest(0), name="task 0"))
        await done
    await asyncio.gather(*tasks)
    actions = (await store.get_session(session.session_id)).actions
    assert [action.task for action in actions] == [f"task {i}" for i in range(CHAIN + 1)]
    assert (await store.replay(session.session_id).report()).counts[Verdict.SKIPPED] == CHAIN + 1
    assert (await store.compare(session.session_id, session.session_id)).is_equal
    async with store.serve(session.session_id, unserved="allow") as served:
        for i in range(3):
            assert await served.call_tool("count", {"depth": i}, task=f"task {i}") == str(i)
    assert (await store.verify()).ok


async def test_blocks_in_tasks_in_blocks(make_store):
    """Each task opens a session in the block in which it was started, and starts the next one."""
    store = await make_store(config=BUFFERED)
    depth = CHAIN // 5
    reached = asyncio.Event()
    tasks = set()

    async def nest(level):
        async with store.session(f"level {level}"):
            action = await store.record_tool_call("count", arguments={"level": level})
            if level < depth:
                tasks.add(asyncio.create_task(nest(level + 1)))
                await reached.wait()
            else:
                reached.set()
            return action.index

    assert await nest(0) == 0
    assert await asyncio.gather(*tasks) == [0] * depth
    assert [one.action_count for one in await store.list_sessions()] == [1] * (depth + 1)


async def test_the_file_of_a_chain_is_verified_compacted_and_recovered(chained, tmp_path):
    store, ids = chained
    await store.delete_session(ids[3])
    await store.sync()
    copy = tmp_path / "recovered.mva"
    report = await recover(tmp_path / "copy.mva", copy)
    assert report.session_count == len(ids) - 1
    assert (await store.verify()).ok
    whole = len(list(expected_kinds(len(ids))))
    for _ in range(2):
        # Those before the deleted one are not found through it any more.
        actions = (await store.get_session(ids[-1])).actions
        assert [action.index for action in actions] == list(range(9, whole))
        await store.compact()
    assert (await store.verify()).ok


def test_the_command_line_takes_a_chain(chain):
    path, ids = chain
    runner = CliRunner()
    tree = runner.invoke(cli, ["sessions", "--tree", str(path)])
    assert tree.exit_code == 0, tree.output
    assert len(tree.output.splitlines()) == len(ids) + 1
    assert len(tree.output) < 400 * len(ids)
    listed = runner.invoke(cli, ["sessions", "--tree", "--json", str(path)])
    assert [one["depth"] for one in json.loads(listed.output)] == list(range(len(ids)))
    for command in (["export", "--format", "jsonl"], ["show"]):
        shown = runner.invoke(cli, [command[0], str(path), str(ids[-1]), *command[1:]])
        assert shown.exit_code == 0, shown.output[-500:]
        assert f"answer {len(ids) - 1}" in shown.output


# Forks that nobody could have made.


CIRCLES = {
    "a fork of itself": [(1, 0)],
    "a fork of a later session": [(3, 1), (0, 1)],
    "two forks of each other": [(3, 1), (1, 0)],
    "two forks of each other by their ids alone": [(0, 1), (1, 0)],
    "a circle of three": [(5, 2), (1, 0), (3, 1)],
    "a circle of three by their ids alone": [(0, 2), (1, 0), (3, 1)],
    "a fork of one that is not there": [(10**15, 0)],
}


async def all_of(store, session_id):
    """Every public call that looks at a session's past."""
    await store.get_session(session_id)
    await store.list_sessions(include_open=True)
    await store.fork(session_id)
    for wanted in ({"action_index": 0}, {"checkpoint_id": 0}):
        with pytest.raises(MemvidAsyncError):
            await store.fork(session_id, **wanted)
    async with store.resume_session(await store.fork(session_id)):
        frame_id = await store.put("a frame")
        await store.find("frame")
        await store.update(frame_id, title="its name")
    await (await store.at(session_id=session_id)).find("frame")
    await store.replay(session_id).report()
    await store.compare(session_id, session_id)
    async with store.serve(session_id, unserved="allow"):
        pass
    assert (await store.verify()).ok
    await store.compact()
    await store.get_session(session_id)


@pytest.mark.parametrize("claim", CIRCLES)
async def test_forks_in_a_circle_end_every_call(tmp_path, claim):
    path = tmp_path / "circle.mva"
    ids = forks_as_claimed(path, CIRCLES[claim])
    async with open_store(path, config=BUFFERED) as store:
        for session_id in ids:
            await all_of(store, session_id)


@pytest.mark.parametrize("claim", CIRCLES)
def test_forks_in_a_circle_end_every_command(tmp_path, claim):
    path = tmp_path / "circle.mva"
    ids = forks_as_claimed(path, CIRCLES[claim])
    listed = CliRunner().invoke(cli, ["sessions", "--tree", "--json", str(path)])
    rows = [one["session_id"] for one in json.loads(listed.output) if "name" in one]
    assert sorted(rows) == sorted(map(str, ids))
    for session_id in ids:
        for command in (["show"], ["export", "--format", "jsonl"], ["export"]):
            shown = CliRunner().invoke(cli, [command[0], str(path), str(session_id), *command[1:]])
            assert shown.exit_code in (0, 1), shown.output
    recovered = asyncio.run(recover(path, tmp_path / "recovered.mva"))
    assert recovered.session_count == len(ids)


def test_json_that_is_nested_too_deep_is_an_error():
    deep = "[" * 100_000
    with pytest.raises(InvalidValueError):
        read_result(deep)
    with pytest.raises(ValueError, match="deep"):
        read_json(deep)
