"""Opening, looking and closing: the store as a whole."""

import asyncio
import gc
import os
import sys
import threading
import uuid
import warnings
from pathlib import Path

import pytest

from memvid_async import (
    ActionKind,
    Durability,
    InvalidValueError,
    Limits,
    NotAStoreError,
    RecordingConfig,
    StoreConfig,
    StoreLockedError,
    StoreNotFoundError,
    StoreReadOnlyError,
    TornTail,
    open_store,
)
from tests.support.loops import turns

KIB = 1024


async def fill(store, count, size=100):
    """Record a session of ``count`` puts, and return its id."""
    async with store.session() as recorder:
        await asyncio.gather(*(recorder.record_put(n, "x" * size) for n in range(count)))
    return recorder.session_id


def names(folder):
    return sorted(path.name for path in folder.iterdir())


async def test_both_forms_open_the_same_store(tmp_path):
    path = tmp_path / "store.mva"
    async with open_store(path) as store:
        session_id = await store.start_session()
        assert store.path == path
        assert not store.read_only
    store = await open_store(str(path))
    assert store.active_session_id == session_id
    await store.aclose()
    async with await open_store(os.fspath(path)) as store:
        assert store.active_session_id == session_id
    async with open_store(path, read_only=True) as store:
        assert store.active_session_id == session_id
        assert store.read_only


async def test_leaving_the_block_by_an_exception_closes_the_store(tmp_path):
    async def use():
        async with open_store(tmp_path / "store.mva") as store:
            await store.start_session()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await use()
    async with open_store(tmp_path / "store.mva") as store:
        assert store.is_recording


async def test_a_relative_path_is_of_the_folder_it_was_opened_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opening = open_store("store.mva")
    monkeypatch.chdir("/")
    async with opening as store:
        assert store.path == tmp_path / "store.mva"
    assert (tmp_path / "store.mva").is_file()


async def test_there_is_one_file_and_nobody_else_may_read_it(make_store, tmp_path):
    store = await make_store()
    await fill(store, 300, 5000)
    assert names(tmp_path) == ["store.mva"]
    await store.aclose()
    assert names(tmp_path) == ["store.mva"]
    assert (tmp_path / "store.mva").stat().st_mode & 0o777 == 0o600


async def test_a_new_file_holds_nothing(make_store):
    store = await make_store()
    assert store.last_sequence == 0
    assert await store.list_sessions(include_open=True) == []
    assert store.torn_tail == TornTail(0, 0)
    report = await store.verify()
    assert (report.ok, report.problems) == (True, ())
    assert (report.event_count, report.session_count, report.content_count) == (0, 0, 0)


async def test_reading_never_creates_a_file(tmp_path):
    with pytest.raises(StoreNotFoundError):
        await open_store(tmp_path / "none.mva", read_only=True)
    with pytest.raises(FileNotFoundError):
        await open_store(tmp_path / "no" / "folder.mva")
    (tmp_path / "empty.mva").touch()
    with pytest.raises(NotAStoreError):
        await open_store(tmp_path / "empty.mva", read_only=True)
    assert names(tmp_path) == ["empty.mva"]
    assert (tmp_path / "empty.mva").read_bytes() == b""


async def test_a_creation_that_was_killed_opens_as_new_for_writing(make_store, tmp_path):
    store = await make_store()
    await store.aclose()
    header = (tmp_path / "store.mva").read_bytes()
    for length in (0, 1, 8, 31, 36, 500, len(header) - 1):
        (tmp_path / "store.mva").write_bytes(header[:length])
        store = await make_store()
        assert store.last_sequence == 0
        await store.start_session()
        await store.aclose()


async def test_what_a_read_only_store_refuses_and_what_it_answers(make_store, tmp_path):
    writer = await make_store()
    session_id = await fill(writer, 3)
    left_open = await writer.session().__aenter__()
    action = await left_open.record_put(1, "x" * 5000)
    await writer.aclose()
    before = (tmp_path / "store.mva").read_bytes()
    store = await make_store(read_only=True)
    for call in (
        store.start_session(),
        store.end_session(),
        store.create_checkpoint(),
        store.delete_session(session_id),
        store.record_put(1, "x"),
        store.record_ask("q", provider="p", model="m", response="r" * 100_000, duration_ms=1),
        store.session().__aenter__(),
        store.resume_session(left_open.session_id).__aenter__(),
    ):
        with pytest.raises(StoreReadOnlyError):
            await call
    assert len((await store.get_session(session_id)).actions) == 3
    assert len(await store.list_sessions(include_open=True)) == 2
    assert await store.read_content(action.input) == b"x" * 5000
    assert (await store.verify()).ok
    assert store.statistics().session_count == 2
    await store.aclose()
    assert (tmp_path / "store.mva").read_bytes() == before


async def test_the_statistics_count(make_store, tmp_path):
    store = await make_store()
    ids = [await fill(store, 4, 2000) for _ in range(3)]
    await store.start_session()
    await store.delete_session(ids[0])
    async with store.subscribe():
        found = store.statistics()
        assert found.subscriber_count == 1
    assert found.path == tmp_path / "store.mva"
    assert found.last_sequence == store.last_sequence
    assert (found.session_count, found.open_session_count) == (3, 1)
    assert found.content_count == 1
    assert (found.bytes_dropped, found.generation) == (0, 0)
    assert (found.pending_commands, found.pending_bytes) == (0, 0)
    assert store.statistics().subscriber_count == 0
    await store.aclose()
    assert found.file_bytes == (tmp_path / "store.mva").stat().st_size


async def test_pending_commands_are_counted(make_store):
    store = await make_store()
    await store.start_session()
    tasks = [asyncio.create_task(store.record_put(n, "x" * 1000)) for n in range(10)]
    await turns(1)
    found = store.statistics()
    assert found.pending_commands == 10
    assert found.pending_bytes > 10_000
    await asyncio.gather(*tasks)
    found = store.statistics()
    assert (found.pending_commands, found.pending_bytes) == (0, 0)


async def test_verify_tells_how_far_it_is(make_store):
    store = await make_store()
    await fill(store, 3000, 1000)
    seen = []
    report = await store.verify(progress=lambda done, total: seen.append((done, total)))
    assert report.ok
    assert report.event_count == store.last_sequence
    assert seen == sorted(seen)
    assert len(seen) > 2
    assert seen[-1] == (store.statistics().file_bytes,) * 2
    assert report.byte_count == seen[-1][0]


async def test_verify_finds_a_flipped_bit_and_says_where(make_store, tmp_path):
    store = await make_store(check=False)
    await fill(store, 50)
    await store.aclose()
    data = bytearray((tmp_path / "store.mva").read_bytes())
    store = await make_store(check=False)
    data[len(data) // 2] ^= 4
    (tmp_path / "store.mva").write_bytes(data)
    report = await store.verify()
    assert not report.ok
    assert 0 < report.problems[0].offset <= len(data) // 2
    assert report.event_count < store.last_sequence


async def test_a_torn_tail_is_reported_and_cut_by_a_writer_only(make_store, tmp_path):
    path = tmp_path / "store.mva"
    store = await make_store()
    session_id = await fill(store, 5)
    await store.aclose()
    whole = path.read_bytes()
    path.write_bytes(whole + b"torn tail")
    reader = await make_store(read_only=True)
    assert reader.torn_tail == TornTail(9, len(whole))
    assert len((await reader.get_session(session_id)).actions) == 5
    await reader.aclose()
    assert path.read_bytes() == whole + b"torn tail"
    store = await make_store()
    assert store.torn_tail == TornTail(9, len(whole))
    assert store.statistics().bytes_dropped == 9
    await store.aclose()
    assert path.read_bytes() == whole


async def test_a_file_that_was_deleted_or_replaced_is_not_written_any_more(make_store, tmp_path):
    for how in ("deleted", "replaced"):
        store = await make_store(check=False)
        await store.start_session(how)
        await store.record_put(1, "x")
        (tmp_path / "store.mva").unlink()
        if how == "replaced":
            other = await open_store(tmp_path / "store.mva")
            await other.aclose()
            fresh = (tmp_path / "store.mva").read_bytes()
        with pytest.raises(Exception, match="deleted or replaced"):
            await store.record_put(2, "x")
        await store.aclose()
        if how == "replaced":
            assert (tmp_path / "store.mva").read_bytes() == fresh


async def test_a_lock_held_elsewhere_is_waited_for_and_then_named(make_store, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    config = StoreConfig(lock_timeout=0.05)
    store = await make_store(config=config)
    await store.start_session()
    with (tmp_path / "store.mva").open("rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(StoreLockedError) as caught:
            await store.record_put(1, "x")
        assert caught.value.pid in (os.getpid(), None)
        with pytest.raises(StoreLockedError):
            await open_store(tmp_path / "store.mva", config=config)
        reader = await make_store(read_only=True)
        assert reader.is_recording
    # A lock that was waited for in vain is not a failure of the store.
    assert await store.record_put(2, "x") is not None
    session = await store.end_session()
    assert [action.details.frame_id for action in session.actions] == [2]


async def test_a_thread_is_not_left_behind(tmp_path):
    before = set(threading.enumerate())
    for number in range(5):
        for read_only in (False, True):
            # A thread of the store before may still be ending.
            others = set(threading.enumerate())
            async with open_store(tmp_path / f"{number}.mva", read_only=read_only) as store:
                if not read_only:
                    await fill(store, 3, 100_000)
                await store.list_sessions()
                assert len(set(threading.enumerate()) - others) <= 2
        with pytest.raises(NotAStoreError):
            await open_store(tmp_path)
    left = set(threading.enumerate()) - before
    for thread in left:
        await asyncio.to_thread(thread.join, 10)
    assert not [thread for thread in left if thread.is_alive() and "memvid" in thread.name]


async def test_no_descriptor_is_left_behind(tmp_path):
    folder = Path("/proc/self/fd")
    if sys.platform != "linux":
        pytest.skip("no /proc to count descriptors in")
    async with open_store(tmp_path / "store.mva") as store:
        await fill(store, 3)
    before = len(names(folder))
    for _ in range(10):
        async with open_store(tmp_path / "store.mva") as store:
            await store.list_sessions()
        for wrong in (tmp_path, "/dev/null", tmp_path / "no" / "where"):
            with pytest.raises(NotAStoreError):
                await open_store(wrong)
    assert len(names(folder)) <= before


async def test_a_store_that_is_never_closed_says_so(tmp_path):
    stores = [await open_store(tmp_path / "store.mva")]
    writer = stores[0]._engine.writer
    with pytest.warns(ResourceWarning, match=r"store\.mva"):
        stores.clear()
    await writer.aclose()


async def test_an_opening_that_is_never_awaited_does_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_store(tmp_path / "store.mva")
        gc.collect()
    assert names(tmp_path) == []


async def test_other_implementations_of_clock_and_ids_are_used(make_store):
    ids = [uuid.UUID(int=number) for number in (7, 8, 9)]
    store = await make_store(config=StoreConfig(clock=lambda: 12345, id_factory=iter(ids).__next__))
    assert await store.start_session() == ids[1]
    session = await store.end_session()
    assert (session.created_ns, session.ended_ns) == (12345, 12345)


@pytest.mark.parametrize(
    "clock", [lambda: 1.5, lambda: None, lambda: "now", lambda: True, lambda: 2**64, lambda: 1 // 0]
)
async def test_a_clock_that_is_no_clock_fails_the_command_alone(make_store, clock):
    broken = [False]
    store = await make_store(config=StoreConfig(clock=lambda: clock() if broken[0] else 1000))
    session_id = await store.start_session()
    broken[0] = True
    with pytest.raises((InvalidValueError, ZeroDivisionError)):
        await store.record_put(1, "x")
    broken[0] = False
    await store.record_put(2, "x")
    assert len((await store.get_session(session_id)).actions) == 1


@pytest.mark.parametrize("made", [None, "id", 5, uuid.UUID(int=0).bytes])
async def test_an_id_factory_that_makes_no_ids_is_named(make_store, tmp_path, made):
    config = StoreConfig(id_factory=lambda: made)
    with pytest.raises(InvalidValueError, match="id_factory"):
        await open_store(tmp_path / "store.mva", config=config)
    store = await make_store()
    await store.aclose()
    store = await make_store(config=config)
    with pytest.raises(InvalidValueError, match="id_factory"):
        await store.start_session()
    with pytest.raises(InvalidValueError, match="id_factory"):
        store.session()


async def test_the_same_calls_give_the_same_bytes_whatever_the_batching(tmp_path):
    """Same commands in the same order, same clock, same ids: the same file."""

    async def record(path, durability, *, together):
        numbers, ticks = iter(range(1, 100)), iter(range(10**6))
        config = StoreConfig(
            durability=durability,
            clock=lambda: next(ticks),
            id_factory=lambda: uuid.UUID(int=next(numbers)),
        )
        async with open_store(path, config=config) as store:
            await store.start_session("s", RecordingConfig(auto_checkpoint_interval=7))
            calls = [
                store.record_ask(
                    f"q{n % 9}" * 300,
                    provider="p",
                    model="m",
                    response=f"r{n}" * (n % 40),
                    duration_ms=n / 3,
                    messages=[{"n": i} for i in range(n % 5)],
                    task="t",
                )
                for n in range(500)
            ]
            if together:
                await asyncio.gather(*calls)
            else:
                for call in calls:
                    await call
            await store.end_session()
        return path.read_bytes()

    reference = await record(tmp_path / "0", Durability.SYNC, together=False)
    assert await record(tmp_path / "1", Durability.SYNC, together=True) == reference
    assert await record(tmp_path / "2", Durability.BUFFERED, together=False) == reference
    assert await record(tmp_path / "3", Durability.BUFFERED, together=True) == reference


async def test_every_kind_of_action_has_its_method(make_store):
    store = await make_store()
    for kind in ActionKind:
        # These are made by calls of their own, and not noted afterwards.
        if kind not in (ActionKind.CHECKPOINT, ActionKind.STEP, ActionKind.ONCE):
            assert callable(getattr(store, f"record_{kind}"))
            assert callable(getattr(store.session(), f"record_{kind}"))


async def test_limits_of_the_configuration_hold_at_their_least(make_store):
    least = Limits(queue_bytes=1, batch_bytes=1, tail_bytes=1, read_bytes=4 * KIB)
    store = await make_store(config=StoreConfig(limits=least))
    async with store.session() as recorder, store.subscribe() as events:
        actions = await asyncio.gather(
            *(recorder.record_put(n, "x" * (n * 30)) for n in range(200))
        )
        assert [action.index for action in actions] == list(range(200))
        got = [await anext(events) for _ in range(store.last_sequence)]
    assert [event.sequence for event in got] == list(range(1, len(got) + 1))


async def test_content_is_still_kept_once_when_the_last_toc_was_not_pointed_at(
    make_store, tmp_path
):
    """A crash before the newest slot (docs/format.md) reached the disk: opening starts from the TOC
    before it, and meets the pages that were written since."""
    path = tmp_path / "store.mva"
    for batches in (9, 10, 11, 12):
        path.unlink(missing_ok=True)
        bodies = [f"{number} ".ljust(1100, "x") for number in range(60 * batches)]

        async def record(bodies=bodies):
            store = await make_store()
            async with store.session() as recorder:
                for first in range(0, len(bodies), 60):
                    some = bodies[first : first + 60]
                    await asyncio.gather(*(recorder.record_put(1, body) for body in some))
            count = store.statistics().content_count
            await store.aclose()
            return count

        assert await record() == len(bodies)
        data = bytearray(path.read_bytes())
        newest = max((512, 1024), key=lambda at: int.from_bytes(data[at : at + 8], "little"))
        data[newest : newest + 20] = bytes(20)
        path.write_bytes(data)
        assert await record() == len(bodies)
