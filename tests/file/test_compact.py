"""compact(): what was deleted is gone from the bytes, and nothing else has changed."""

import asyncio
import os
import tempfile
import threading
from pathlib import Path

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    ContentNotFoundError,
    ContentStored,
    Erased,
    RecordingConfig,
    SessionDeleted,
    SessionNotFoundError,
    StoreConfig,
    open_store,
)
from memvid_async.file.journal import Journal
from memvid_async.file.verify import Verifier
from memvid_async.storage import FileStorage
from tests.support.asking import answers, verified
from tests.support.naive import Naive, command, fixed_config
from tests.support.plans import PLANS, examples, small_tables
from tests.torture.children import Child

pytestmark = pytest.mark.one_loop


@pytest.fixture
def path(tmp_path):
    return tmp_path / "compacted.mva"


async def everything(recorder, mark, shared="", end=True):
    """Every kind of action, every text of it with this mark."""
    long = f"{mark} " * 300
    await recorder.record_ask(
        f"query {mark}",
        provider=f"provider {mark}",
        model=f"model {mark}",
        response=long + "response",
        duration_ms=1,
        messages=[
            {"role": "user", "content": f"short message {mark}"},
            {"role": "user", "content": long + "message", f"key {mark}": [mark.encode()]},
        ],
        task=f"task {mark}",
        error=f"error {mark}",
        metadata={f"key {mark}": {"deep": [f"value {mark}", long]}},
    )
    await recorder.record_find(
        f"find {mark}", mode=f"mode {mark}", result_count=0, result_frames=()
    )
    await recorder.record_put(1, f"put {mark}")
    await recorder.record_put(2, (long + "put").encode())
    await recorder.record_update(1, f"update {mark}", task=f"task {mark}")
    await recorder.record_delete(1, error=f"error {mark}")
    await recorder.record_put_many([1, 2], metadata={"m": mark})
    await recorder.record_tool_call(f"tool {mark}", arguments={mark: long}, result=f"result {mark}")
    await recorder.create_checkpoint()
    if shared:
        await recorder.record_put(3, shared)


async def recorded(store, mark, shared=""):
    """A session that has the mark all over it; its id."""
    async with store.session(f"name {mark}", metadata={mark: mark}) as recorder:
        await everything(recorder, mark, shared)
    return recorder.session_id


async def failing(store, mark):
    """A session whose block was left with an error; its id."""
    with pytest.raises(RuntimeError):
        async with store.session() as recorder:
            raise RuntimeError(f"raised {mark}")
    return recorder.session_id


async def events_of(store, **keywords):
    found = []
    async with store.subscribe(**keywords) as events:
        while not found or found[-1].sequence < store.last_sequence:
            found.append(await anext(events))
    return found


async def whole(store, session_id):
    """A session with everything that it refers to."""
    session = await store.get_session(session_id)
    read = []
    for action in session.actions:
        contents = [c for c in (action.input, action.output) if c is not None]
        read += [await store.read_content(content) for content in contents]
        read.append(await store.read_messages(action))
        read.append(await store.read_arguments(action) if action.kind == "tool_call" else None)
    return session, read


async def check(store):
    report = await store.verify()
    assert report.ok, report.problems


# What is gone, and what is not.


async def test_nothing_of_a_deleted_session_is_left_in_the_bytes_but_its_id(path):
    async with open_store(path) as store:
        before = await recorded(store, "KEPT1")
        gone = await recorded(store, "GONE")
        also_gone = await failing(store, "GONE")
        after = await recorded(store, "KEPT2")
        kept = [await whole(store, session_id) for session_id in (before, after)]
        listed = await store.list_sessions()
        assert path.read_bytes().count(b"GONE") > 1000
        for session_id in (gone, also_gone):
            await store.delete_session(session_id)
        hidden = await events_of(store)
        report = await store.compact()
        raw = path.read_bytes()
        assert b"GONE" not in raw
        assert b"KEPT1" in raw
        assert b"KEPT2" in raw
        assert raw.count(gone.bytes) == 1
        assert report.bytes_after < report.bytes_before
        assert report.generation == store.statistics().generation == 1
        left = await events_of(store)
        assert report.erased_events == sum(isinstance(e.payload, Erased) for e in left)
        for old, new in zip(hidden, left, strict=True):
            assert (new.sequence, new.time_ns) == (old.sequence, old.time_ns)
            if not isinstance(new.payload, Erased):
                assert new == old
            else:
                assert isinstance(old.payload, (Erased, ContentStored))
        assert [await whole(store, s) for s in (before, after)] == kept
        assert await store.list_sessions() == [s for s in listed if s.session_id in (before, after)]
        with pytest.raises(SessionNotFoundError):
            await store.get_session(gone)
        await check(store)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    async with open_store(path, read_only=True) as store:
        assert await events_of(store) == left
        assert [await whole(store, s) for s in (before, after)] == kept
        await check(store)


async def test_content_that_another_session_refers_to_is_kept_and_no_other(path):
    shared, own = "shared " * 400, "lonely " * 400
    async with open_store(path) as store:
        first = await recorded(store, "GONE", shared)
        async with store.session("keeper") as keeper:
            kept = await keeper.record_put(0, shared)
        async with store.session("loner") as loner:
            lonely = await loner.record_put(0, own)
        await store.delete_session(first)
        await store.delete_session(loner.session_id)
        # Until it is compacted, the bytes are there.
        assert await store.read_content(lonely.input) == own.encode()
        await store.compact()
        raw = path.read_bytes()
        assert shared.encode() in raw
        assert b"lonely" not in raw
        assert await store.read_content(kept.input) == shared.encode()
        with pytest.raises(ContentNotFoundError):
            await store.read_content(lonely.input)
        # What was erased can be recorded again, and what was kept is not stored twice.
        async with store.session("again") as again:
            anew = await again.record_put(0, own)
            same = await again.record_put(0, shared)
        assert await store.read_content(anew.input) == own.encode()
        assert await store.read_content(same.input) == shared.encode()
        await store.sync()
        assert path.read_bytes().count(shared.encode()) == 1
        await check(store)


async def test_content_that_a_message_refers_to_is_kept(path):
    shared = "from a message " * 200
    async with open_store(path) as store:
        async with store.session("gone") as gone:
            await gone.record_put(0, shared)
        async with store.session("keeper") as keeper:
            ask = await keeper.record_ask(
                "q", provider="p", model="m", response=None, duration_ms=0, messages=[[shared]]
            )
        await store.delete_session(gone.session_id)
        await store.compact()
        assert await store.read_messages(ask) == [[shared]]
        await check(store)


async def test_runs_of_erased_events_are_folded_together(path):
    async with open_store(path) as store:
        async with store.session("long") as recorder:
            for number in range(3000):
                await recorder.record_put(number, "x" * 50)
        kept = await recorded(store, "KEPT")
        await store.delete_session(recorder.session_id)
        before = await whole(store, kept)
        report = await store.compact()
        # Their times are left: some bytes each, nothing more.
        assert report.erased_events == 3002
        assert report.bytes_after < 3002 * 12 + 20_000
        assert await whole(store, kept) == before
        events = await events_of(store)
        assert [e.sequence for e in events] == list(range(1, store.last_sequence + 1))
        assert sum(isinstance(e.payload, Erased) for e in events) == 3002
        assert sum(isinstance(e.payload, SessionDeleted) for e in events) == 1
        for after in (1500, 2999, 3002, 3003):
            part = await events_of(store, after=after)
            assert part == events[after:]
        await check(store)


async def test_compacting_again_changes_nothing_but_the_generation(path):
    async with open_store(path) as store:
        gone, kept = await recorded(store, "GONE"), await recorded(store, "KEPT")
        await store.delete_session(gone)
        first = await store.compact()
        seen, events = await whole(store, kept), await events_of(store)
        second = await store.compact()
        assert (second.bytes_before, second.bytes_after) == (first.bytes_after, first.bytes_after)
        assert (second.erased_events, second.generation) == (0, 2)
        assert await whole(store, kept) == seen
        assert await events_of(store) == events
        await check(store)


async def test_an_empty_store_and_one_with_nothing_deleted_can_be_compacted(path):
    async with open_store(path) as store:
        report = await store.compact()
        assert (report.erased_events, report.generation) == (0, 1)
        kept = await recorded(store, "KEPT")
        seen = await whole(store, kept)
        assert (await store.compact()).erased_events == 0
        assert await whole(store, kept) == seen
        await check(store)


async def test_everything_deleted_leaves_a_small_file(path):
    async with open_store(path) as store:
        for number in range(20):
            await store.delete_session(await recorded(store, f"GONE{number}"))
        report = await store.compact()
        assert report.bytes_before > 100_000
        assert report.bytes_after < 10_000
        assert b"GONE" not in path.read_bytes()
        await check(store)


# It goes on.


async def test_open_sessions_and_the_ambient_one_go_on_across_it(path):
    async with open_store(path) as store:
        config = RecordingConfig(auto_checkpoint_interval=3, max_actions=7)
        gone = await recorded(store, "GONE")
        ambient = await store.start_session("ambient", config)
        for number in range(2):
            await store.record_put(number, "x")
        async with store.session("open", config) as recorder:
            await recorder.record_put(0, "x")
            await store.delete_session(gone)
            await store.compact()
            for number in range(1, 4):
                await recorder.record_put(number, "y")
        await store.record_put(2, "z")
        await store.compact()
        for number in range(3, 7):
            await store.record_put(number, "z")
        assert not store.is_recording
        session = await store.get_session(ambient)
        kinds = [str(action.kind) for action in session.actions]
        assert kinds == (["put"] * 3 + ["checkpoint"]) * 2 + ["put"]
        assert [c.snapshot.generation for c in session.checkpoints] == [1, 2]
        mine = await store.get_session(recorder.session_id)
        assert [str(a.kind) for a in mine.actions] == ["put"] * 3 + ["checkpoint", "put"]
        assert [a.index for a in mine.actions] == list(range(5))
        await check(store)
    async with open_store(path) as store:
        assert (await store.get_session(ambient)) == session


async def test_messages_and_contents_are_shared_across_it(path):
    prompt = [{"role": "user", "content": f"message {i} " * 100} for i in range(8)]

    async def ask(recorder, count):
        return await recorder.record_ask(
            "q",
            provider="p",
            model="m",
            response="r",
            duration_ms=1,
            messages=prompt[:count],
        )

    async with open_store(path) as store, store.session("s") as recorder:
        first = await ask(recorder, 4)
        await store.compact()
        second = await ask(recorder, 8)
        await store.compact()
        for action, count in ((first, 4), (second, 8)):
            assert await store.read_messages(action) == prompt[:count]
        assert path.read_bytes().count(b"message 0 message 0 message 0") <= 100
        await check(store)


async def test_subscriptions_go_on_across_it_without_a_gap_or_a_repeat(path):
    async with open_store(path) as store:
        gone = await recorded(store, "GONE")
        async with store.subscribe() as live, store.subscribe() as slow:
            seen = [await anext(live) for _ in range(store.last_sequence)]
            begun = [await anext(slow) for _ in range(3)]
            await store.delete_session(gone)
            for number in range(3):
                await store.compact()
                await recorded(store, f"KEPT{number}")
            while seen[-1].sequence < store.last_sequence:
                seen.append(await anext(live))
            while begun[-1].sequence < store.last_sequence:
                begun.append(await anext(slow))
        for events in (seen, begun):
            assert [e.sequence for e in events] == list(range(1, store.last_sequence + 1))
        # What was not delivered before is an erased event, or content without its data.
        first = next(e.sequence for e in begun if isinstance(e.payload, SessionDeleted))
        assert {type(e.payload) for e in begun[3 : first - 1]} <= {Erased, ContentStored}


async def test_verifying_goes_on_across_it(path, monkeypatch):
    async with open_store(path) as store:
        async with store.session("s") as recorder:
            for number in range(4):
                await recorder.record_put(number, os.urandom(900_000))
        compacted, step, steps = threading.Event(), Verifier.step, []

        def slow(verifier):
            step(verifier)
            steps.append(1)
            if len(steps) == 1:
                loop.call_soon_threadsafe(begun.set)
                compacted.wait(20)

        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(Verifier, "step", slow)
        verifying = asyncio.create_task(store.verify())
        await begun.wait()
        await store.compact()
        compacted.set()
        report = await verifying
        assert report.ok, report.problems


async def test_progress_is_told_up_to_the_whole(path):
    told = []
    async with open_store(path) as store:
        async with store.session("s") as recorder:
            for number in range(4):
                await recorder.record_put(number, os.urandom(900_000))
        before = store.statistics().file_bytes
        await store.compact(lambda done, total: told.append((done, total)))
    assert len(told) >= 3
    assert told == sorted(told)
    assert told[-1] == (before, before)


async def test_what_is_recorded_while_it_runs_is_kept(path):
    async with open_store(path) as store:
        gone = await recorded(store, "GONE")
        await store.delete_session(gone)
        async with store.session("busy") as recorder:

            async def record():
                for number in range(60):
                    await recorder.record_put(number, f"x{number}")

            recording = asyncio.create_task(record())
            for _ in range(5):
                await store.compact()
            await recording
        session = await store.get_session(recorder.session_id)
        assert [a.details.frame_id for a in session.actions] == list(range(60))
        assert store.statistics().generation == 5
        await check(store)


async def test_other_processes_write_and_follow_while_it_runs_again_and_again(path):
    async with open_store(path, config=StoreConfig(lock_timeout=30)) as store:
        with (
            Child("record", path, 1, 60, 4) as one,
            Child("record", path, 2, 60, 1) as two,
            Child("follow_and_check", path) as follower,
        ):
            for child in (one, two, follower):
                assert await asyncio.to_thread(child.hear) == "ready"
            for child in (one, two):
                child.tell()
            saying = [asyncio.create_task(asyncio.to_thread(c.rest)) for c in (one, two)]
            deleted = 0
            while not all(task.done() for task in saying):
                async with store.session(f"GONE{deleted}") as recorder:
                    await recorder.record_put(deleted, f"GONE{deleted} " * 300)
                await store.delete_session(recorder.session_id)
                assert (await store.compact()).generation == deleted + 1
                deleted += 1
            follower.tell(store.last_sequence)
            assert await asyncio.to_thread(follower.hear) == store.last_sequence
        assert deleted > 1
        await store.compact()
        assert b"GONE" not in path.read_bytes()
        acks = {1: saying[0].result(), 2: saying[1].result()}
        for summary in await store.list_sessions():
            session = await store.get_session(summary.session_id)
            said = [ack[0] for ack in acks[session.metadata["writer"]] if isinstance(ack, list)]
            assert [a.sequence for a in session.actions] == said
            assert len(said) == 60
        await check(store)


# Whatever came before.


@examples(0.6)
@given(st.lists(PLANS, max_size=25), st.data())
def test_any_history_is_as_a_naive_store_that_forgets(plans, data):
    """On a real file, which is read through other openers too."""
    config = fixed_config()
    with tempfile.TemporaryDirectory() as folder, small_tables():
        path = Path(folder) / "any.mva"
        naive = Naive()
        journal = Journal.open(FileStorage.open(path), config)
        other = Journal.open(FileStorage.open(path), config)
        follower = Journal.open(FileStorage.open(path, read_only=True), config, read_only=True)
        compactions = 0
        for plan in plans:
            if data.draw(st.integers(0, 5)) == 0:
                report, _ = data.draw(st.sampled_from([journal, other])).compact(lambda *_: None)
                naive.compact()
                compactions += 1
                assert report.generation == compactions
            op = plan.resolve(naive)
            turn = data.draw(st.sampled_from([journal, other]))
            turn.commit([command(op)])
            naive.apply(op, turn.view.state.last_time_ns)
        journal.compact(lambda *_: None)
        naive.compact()
        follower.refresh()
        other.commit([])
        wanted = naive.answers()
        for opener in (journal, other, follower):
            assert answers(opener) == wanted
            assert verified(opener).ok
            opener.close()
            opener.release()
        again = Journal.open(FileStorage.open(path), evolve(config, lock_timeout=0))
        assert answers(again) == wanted
        again.release()
