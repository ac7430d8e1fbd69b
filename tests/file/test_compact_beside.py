"""compact() beside others that write: as of when it began, and after that all that they wrote."""

import asyncio
import contextlib
import tempfile
import threading
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    Delete,
    DeletePrefix,
    Durability,
    MemvidAsyncError,
    NotCompactedError,
    StoreClosedError,
    StoreConfig,
    open_store,
)
from memvid_async.core import commands
from memvid_async.file.compact import fold_nothing
from memvid_async.file.journal import Journal
from memvid_async.file.successor import Successor
from memvid_async.storage import FileStorage
from memvid_async.store import store as store_module
from tests.support.asking import answers, verified
from tests.support.naive import Naive, Record, command, fixed_config, start
from tests.support.plans import PLANS, examples, small_tables

pytestmark = pytest.mark.one_loop
LARGE = "recorded once more " * 100


@pytest.fixture
def path(tmp_path):
    return tmp_path / "compacted.mva"


def opened(path):
    # Waits for the writers of a store beside it.
    return Journal.open(FileStorage.open(path), evolve(fixed_config(), lock_timeout=10))


def begun(journal):
    """A compaction that has copied all that there is."""
    successor, _ = journal.begin_compaction()
    successor.copy(lambda *_: None, fold_nothing)
    return successor


def put(session, text):
    return command(Record(session, "put", text, frames=(1,)))


def delete(number):
    return commands.DeleteSession(start(number).session_id)


@examples(0.5)
@given(st.lists(PLANS, max_size=25), st.data())
def test_any_history_beside_it_is_that_of_a_compaction_when_it_began(plans, data):
    """Two journals write while one of them compacts, or both do."""
    with tempfile.TemporaryDirectory() as folder, small_tables():
        path = Path(folder) / "any.mva"
        naive, first, second = Naive(), opened(path), opened(path)
        copying = []
        for plan in plans:
            turn = data.draw(st.sampled_from([first, second]))
            if copying and data.draw(st.integers(0, 3)) == 0:
                compacting, successor, left = copying.pop(0)
                report, _ = compacting.install(successor)
                if report is not None:
                    naive.compact(left)
                    copying = [(*others, None) for *others, _ in copying]
                elif left is None or data.draw(st.booleans()):
                    assert compacting.compact(lambda *_: None)[0] is not None
                    naive.compact()
                    copying = [(*others, None) for *others, _ in copying]
            elif len(copying) < 2 and data.draw(st.integers(0, 3)) == 0:
                left = naive.left()
                copying.append((turn, begun(turn), left))
            op = plan.resolve(naive)
            turn.commit([command(op)])
            naive.apply(op, turn.view.state.last_time_ns)
        for _, successor, _ in copying:
            successor.discard()
        for journal in (first, second):
            journal.commit([])
            assert answers(journal) == naive.answers()
            assert verified(journal).ok
            journal.close()
            journal.release()
        assert list(Path(folder).iterdir()) == [path]


def test_what_is_deleted_while_it_runs_goes_with_the_next_one(path):
    one, two = opened(path), opened(path)
    one.commit([start(1), start(2), put(1, f"EARLY {LARGE}"), put(2, f"LATE {LARGE}"), delete(1)])
    successor = begun(one)
    two.commit([delete(2)])
    report, _ = one.install(successor)
    raw = path.read_bytes()
    assert report.generation == 1
    assert b"EARLY" not in raw
    assert b"LATE" in raw
    assert list(one.view.state.sessions) == []
    one.compact(lambda *_: None)
    assert b"LATE" not in path.read_bytes()
    two.refresh()
    assert answers(two) == answers(one)
    for journal in (one, two):
        assert verified(journal).ok
        journal.release()


def test_a_content_that_was_left_out_and_is_used_again_needs_another_copy(path):
    one = opened(path)
    one.commit([start(1), start(2), put(1, LARGE), delete(1)])
    successor = begun(one)
    one.commit([put(2, LARGE)])
    assert one.install(successor)[0] is None
    assert one.view.state.generation == 0
    assert list(path.parent.iterdir()) == [path]
    report, _ = one.compact(lambda *_: None)
    assert report.generation == 1
    assert path.read_bytes().count(LARGE.encode()) == 1
    assert verified(one).ok
    one.release()


def test_of_two_at_once_the_second_sees_that_it_came_too_late(path):
    one, two = opened(path), opened(path)
    one.commit([start(1)])
    first, second = begun(one), begun(two)
    assert one.install(first)[0].generation == 1
    assert two.install(second)[0] is None
    assert list(path.parent.iterdir()) == [path]
    assert two.compact(lambda *_: None)[0].generation == 2
    for journal in (one, two):
        journal.release()


def test_an_opener_leaves_the_file_of_a_compaction_that_is_under_way(path):
    one = opened(path)
    one.commit([start(1)])
    successor = begun(one)
    opened(path).release()
    assert one.install(successor)[0].generation == 1
    # A killed one holds no lock.
    left = begun(one)
    left.file.storage.close()
    assert len(list(path.parent.iterdir())) == 2
    opened(path).release()
    assert list(path.parent.iterdir()) == [path]
    one.release()


def test_one_that_was_abandoned_leaves_nothing(path):
    one = opened(path)
    one.commit([start(1)])
    successor, _ = one.begin_compaction()
    successor.abandon()
    with pytest.raises(NotCompactedError):
        successor.copy(lambda *_: None, fold_nothing)
    assert list(path.parent.iterdir()) == [path]
    outcome, _ = one.install(successor)
    assert isinstance(outcome, NotCompactedError)
    one.commit([start(2)])
    one.release()


# The whole store.


class Held:
    """Holds compactions of this process after they have copied, until released."""

    def __init__(self, monkeypatch):
        self.reached, self.opened = threading.Event(), threading.Event()
        fold = store_module.fold_projections

        def held(view):
            self.reached.set()
            assert self.opened.wait(30)
            return fold(view)

        monkeypatch.setattr(store_module, "fold_projections", held)

    async def until_reached(self):
        assert await asyncio.to_thread(self.reached.wait, 30)


@pytest.fixture
def held(monkeypatch):
    held = Held(monkeypatch)
    yield held
    held.opened.set()


@pytest.mark.parametrize("durability", Durability)
async def test_all_go_on_while_it_copies(path, held, durability):
    config = StoreConfig(durability=durability)
    async with open_store(path, config=config) as store, open_store(path) as other:
        await store.delete(await store.put("GONE " * 300))
        async with store.subscribe() as events:
            compacting = asyncio.create_task(store.compact())
            await held.until_reached()
            await store.put("from here")
            await other.put("from there")
            await store.refresh()
            assert [hit.frame_id for hit in (await store.find("from")).hits] == [2, 3]
            await store.delete(2)
            assert store.statistics().generation == 0
            held.opened.set()
            assert (await compacting).generation == 1
            await store.put("and after")
            seen = [await anext(events) for _ in range(store.last_sequence)]
        assert [event.sequence for event in seen] == list(range(1, store.last_sequence + 1))
        assert {hit.frame_id for hit in (await store.find("from after")).hits} == {3, 4}
        assert (await store.verify()).ok
    assert b"GONE" not in path.read_bytes()


async def test_a_key_that_changed_before_it_is_not_taken_for_one_that_did_not(path):
    """Of a key that was deleted nothing is left, so that nobody notes the deletion any more."""
    async with open_store(path) as store:
        keys = store.collection("keys")
        version = await keys.put("key", 1)
        view = store.last_sequence
        await keys.delete("key")
        await store.compact()
        recent = store._engine.log._journal._file.catalog.recent_keys
        assert recent.floor > view >= version


async def test_a_cancelled_one_leaves_nothing_and_the_store_goes_on(path, held):
    async with open_store(path) as store:
        await store.put("a frame")
        compacting = asyncio.create_task(store.compact())
        await held.until_reached()
        compacting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compacting
        await store.put("another")
        held.opened.set()
        assert (await store.compact()).generation == 1
    assert list(path.parent.iterdir()) == [path]


async def test_closing_ends_one_that_is_under_way(path, held):
    async with open_store(path) as store:
        await store.put("a frame")
        compacting = asyncio.create_task(store.compact())
        await held.until_reached()
        asyncio.get_running_loop().call_later(0.05, held.opened.set)
    # What it comes to first: that it was abandoned, or that there is nothing to install it in.
    with pytest.raises((NotCompactedError, StoreClosedError)):
        await compacting
    assert list(path.parent.iterdir()) == [path]


async def test_two_calls_at_once_compact_one_after_the_other(path, monkeypatch):
    copied, install = [], Successor.install
    monkeypatch.setattr(
        Successor, "install", lambda *given: copied.append(install(*given)) or copied[-1]
    )
    async with open_store(path) as store:
        await store.put("a frame")
        reports = await asyncio.gather(store.compact(), store.compact())
    assert [report.generation for report in reports] == [1, 2]
    assert copied == reports


async def test_a_move_to_another_model_that_ends_meanwhile_is_whole(path):
    """Embeddings that nobody used when the copy was made are used now."""
    vectors, successors = {}, []

    def embed(texts):
        if vectors and not successors:
            successors.append(begun(journal))
        for text in texts:
            vectors[text] = [float(len(vectors)), 1.0]
        return [vectors[text] for text in texts]

    async with open_store(path) as store:
        await store.put_many([f"frame {at} " + "x" * 300_000 for at in range(3)])
        journal = opened(path)
        assert await store.set_embedding_model("model", embed) == 3
        outcome, _ = journal.install(successors[0])
        assert outcome is None
        journal.compact(lambda *_: None)
        journal.release()
        await store.refresh()
        near = {"mode": "semantic", "embedding": [2.0, 1.0], "embedding_model": "model"}
        assert len((await store.find("", **near)).hits) == 3
        assert (await store.verify()).ok


KEYS = ("a/1", "a/2", "b")
TEXTS = ("word " * 5, LARGE, "other " * 300)
COUNTS = st.integers(0, 3)
CHANGES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(TEXTS)),
    st.tuples(st.sampled_from(["update", "delete"]), st.integers(1, 4), st.sampled_from(TEXTS)),
    st.tuples(
        st.sampled_from(["value", "list", "write"]), st.sampled_from(KEYS), st.integers(0, 3)
    ),
    st.tuples(st.sampled_from(["gone", "gone below", "renew"]), st.sampled_from(KEYS)),
)


async def change(store, what, *given):
    """Change a memory or keys, once; what cannot be is refused, and changes nothing."""
    values, lists = store.collection("values"), store.collection("lists")
    with contextlib.suppress(MemvidAsyncError):
        if what == "put":
            await store.put(given[0])
        elif what == "update":
            await store.update(given[0], given[1])
        elif what == "delete":
            await store.delete(given[0])
        elif what == "value":
            await values.put(given[0], [given[1]] * 300, ttl=10**6)
        elif what == "renew":
            await values.get(given[0], ttl=10**7)
        elif what == "list":
            await lists.append(given[0], [given[1], LARGE])
        elif what == "write":
            await lists.write_list(given[0], ["w"], keep=given[1])
        else:
            prefix = what == "gone below"
            for each in (values, lists):
                change = DeletePrefix(given[0][:1]) if prefix else Delete(given[0])
                await each.apply([change])


async def seen(store):
    """What is there for everybody to see."""
    frames = [
        (frame.frame_id, await store.read_content(frame.content)) async for frame in store.frames()
    ]
    values = [(one.key, one.data) async for one in store.collection("values").scan()]
    lists = store.collection("lists")
    keys = [one.key async for one in lists.scan()]
    return frames, values, [(key, await lists.items(key)) for key in keys]


@examples(0.15)
@given(st.lists(CHANGES, max_size=12), st.lists(CHANGES, max_size=12))
def test_nothing_that_can_be_seen_changes_when_others_change_it_meanwhile(before, meanwhile):
    async def run(path, *, compacts):
        async with open_store(path) as store:
            for each in before:
                await change(store, *each)
            journal = opened(path)
            successor = begun(journal) if compacts else None
            for each in meanwhile:
                await change(store, *each)
            if successor is not None and journal.install(successor)[0] is None:
                assert list(Path(path).parent.iterdir()) == [path]
            journal.release()
            await store.refresh()
            assert (await store.verify()).ok
            return await seen(store)

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        wanted = asyncio.run(run(Path(one, "store.mva"), compacts=False))
        assert asyncio.run(run(Path(two, "store.mva"), compacts=True)) == wanted
