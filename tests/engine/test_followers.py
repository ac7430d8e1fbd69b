"""Followers: read-only openers of a file that others write, here and in other processes."""

import asyncio
import os
import shutil
import statistics
import threading
import time
from pathlib import Path

import pytest

from memvid_async import (
    CorruptFileError,
    Erased,
    NotAStoreError,
    StoreClosedError,
    StoreConfig,
    StoreFailedError,
    open_store,
)
from memvid_async.format.header import LOG_START, decode_header
from memvid_async.storage import FileStorage
from tests.support.loops import read_until, turns
from tests.torture.children import Child

pytestmark = pytest.mark.one_loop
QUICK = StoreConfig(poll_interval=0.001)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "followed.mva"


def compact_elsewhere(path):
    """Have another process compact the file."""
    with Child("compact", path, 1) as child:
        child.hear()
        child.tell()
        child.hear()


async def recorded(store, *contents, name="s"):
    """A session with these puts; its id."""
    async with store.session(name) as recorder:
        for number, content in enumerate(contents):
            await recorder.record_put(number, content)
    return recorder.session_id


# It takes nothing and leaves nothing.


async def test_a_follower_changes_nothing_and_never_takes_the_lock(path, monkeypatch):
    async with open_store(path) as store:
        await recorded(store, "a", "b" * 3000)
    path.write_bytes(path.read_bytes() + b"torn off")
    before, status = path.read_bytes(), path.stat()
    calls = set()

    def forbid(name):
        def refused(*_):
            calls.add(name)
            raise AssertionError(name)

        monkeypatch.setattr(FileStorage, name, refused)

    for name in ("write", "truncate", "sync", "sync_directory", "lock", "create_beside", "install"):
        forbid(name)
    forbid("remove")
    async with open_store(path, read_only=True, config=QUICK) as store:
        [summary] = await store.list_sessions()
        await store.get_session(summary.session_id)
        async with store.subscribe() as events:
            await read_until(events, store.last_sequence)
        assert (await store.verify()).ok
        assert store.torn_tail.bytes_dropped == len(b"torn off")
    assert not calls
    after = path.stat()
    assert path.read_bytes() == before
    assert (after.st_mtime_ns, after.st_size, after.st_ino) == (
        status.st_mtime_ns,
        status.st_size,
        status.st_ino,
    )
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


async def test_a_file_that_nobody_may_write_is_followed(path):
    async with open_store(path) as store:
        session_id = await recorded(store, "a")
    path.chmod(0o400)
    async with open_store(path, read_only=True) as store:
        assert len((await store.get_session(session_id)).actions) == 1


async def test_a_follower_opens_and_goes_on_while_another_process_holds_the_lock(path):
    async with open_store(path) as store:
        await recorded(store, "a")
    with Child("hold_lock", path) as child:
        assert child.hear() == "ready"
        async with open_store(path, read_only=True, config=StoreConfig(lock_timeout=0)) as store:
            assert len(await store.list_sessions()) == 1
        child.tell()


# What it sees.


@pytest.mark.parametrize("who", ["follower", "writer"])
async def test_what_is_read_is_a_prefix_whatever_is_recorded_meanwhile(path, who):
    async with open_store(path) as store, open_store(path, read_only=True, config=QUICK) as other:
        done, reader = False, other if who == "follower" else store

        async def write():
            nonlocal done
            async with store.session("long") as recorder:
                for number in range(200):
                    await recorder.record_put(number, "x")
            done = True

        async def read():
            last = looked = 0
            while not done or last < store.last_sequence:
                # A writer has its list already: asking for it lets no other task run.
                await turns(1)
                for summary in await reader.list_sessions(include_open=True):
                    session = await reader.get_session(summary.session_id)
                    frames = [action.details.frame_id for action in session.actions]
                    assert frames == list(range(len(frames)))
                    assert len(frames) >= summary.action_count
                assert reader.last_sequence >= last
                last, looked = reader.last_sequence, looked + 1
            return looked

        writing = asyncio.create_task(write())
        assert min(await asyncio.gather(read(), read())) > 10
        await writing
        assert reader.last_sequence == store.last_sequence == 202


async def test_an_event_acked_in_one_process_is_delivered_in_another(path, capsys):
    count = 300
    async with open_store(path) as store, store.session("s") as recorder:
        with Child("follow", path, 1 + count) as child:
            assert child.hear() == 1
            acked = {}
            for number in range(count):
                action = await recorder.record_put(number, "x")
                acked[action.sequence] = time.monotonic_ns()
                # Sometimes apart by more than a poll, so that idle and busy are both measured.
                if number % 10 == 0:
                    await asyncio.sleep(0.03)
            delivered = dict(await asyncio.to_thread(child.hear))
    assert sorted(delivered) == sorted(acked)
    late = sorted((delivered[s] - acked[s]) / 1e6 for s in acked)
    median, p99 = statistics.median(late), late[len(late) * 99 // 100]
    # How late depends on what else the machine does.
    with capsys.disabled():
        print(
            f"\nacked to delivered: median {median:.1f} ms, p99 {p99:.1f} ms, most {late[-1]:.1f}"
        )


async def test_an_idle_follower_costs_little(path, capsys):
    async with open_store(path) as store:
        await recorded(store, "a")
    with Child("idle", path, 50) as child:
        cpu, seconds = await asyncio.to_thread(child.hear)
    with capsys.disabled():
        print(f"\nidle follower: {cpu / 50 * 1e6:.0f} us a poll, {cpu / seconds:.2%} of a core")
    # A busy loop would make 50 polls in no time, or take all of a core.
    assert seconds > 50 * 0.02 * 0.5
    assert cpu < 0.25


async def test_a_follower_that_is_closed_at_once_leaves_no_thread(path):
    async with open_store(path) as store:
        await recorded(store, "a")
    before = set(threading.enumerate())
    async with open_store(path, read_only=True) as reader:
        threads = set(threading.enumerate()) - before
        # No other task has run since it was opened.
        await reader.aclose()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


async def test_an_idle_follower_before_a_large_torn_tail_does_not_read_it_at_every_look(
    path, monkeypatch
):
    async with open_store(path) as store:
        await recorded(store, "a")
        whole = path.read_bytes()[: store.statistics().file_bytes]
        async with store.session("large") as recorder:
            await recorder.record_put(0, os.urandom(4_000_000))
            torn = path.read_bytes()[len(whole) : len(whole) + 3_000_000]
    # With the slots of then: of what was synced, nothing is torn.
    path.write_bytes(whole + torn)
    count = 0
    looks = asyncio.Event()
    loop = asyncio.get_running_loop()
    read, is_current = FileStorage.read, FileStorage.is_current
    polls = 0

    def counted(storage, offset, length):
        nonlocal count
        data = read(storage, offset, length)
        count += len(data)
        return data

    def looked(storage):
        nonlocal polls
        polls += 1
        if polls == 30:
            loop.call_soon_threadsafe(looks.set)
        return is_current(storage)

    async with open_store(path, read_only=True, config=QUICK) as store:
        monkeypatch.setattr(FileStorage, "read", counted)
        monkeypatch.setattr(FileStorage, "is_current", looked)
        await looks.wait()
        monkeypatch.undo()
        assert count / polls < 600_000
        assert store.last_sequence == 4


@pytest.mark.parametrize("share", [0.02, 0.5, 0.999], ids=str)
async def test_a_torn_tail_before_a_follower_is_passed_once_a_writer_has_cut_it(path, share):
    async with open_store(path) as store:
        await recorded(store, "a")
    async with (
        open_store(path, read_only=True, config=QUICK) as reader,
        reader.subscribe() as events,
    ):
        await read_until(events, 3)
        with Child("die_writing", path, 1, 3, share) as child:
            acks = child.rest()
            assert child.wait() == -9
        more = await read_until(events, acks[-1][0])
        await reader.list_sessions()
        assert reader.last_sequence == acks[-1][0]
        async with open_store(path) as store:
            assert store.torn_tail.bytes_dropped > 0
            await recorded(store, "b", "c")
            more += await read_until(events, store.last_sequence)
        assert [event.sequence for event in more] == list(range(4, reader.last_sequence + 1))
        assert (await reader.verify()).ok


# The file goes away beneath it.


async def test_followers_and_writers_move_on_when_the_file_is_compacted_in_another_process(path):
    async with (
        open_store(path) as writer,
        open_store(path, read_only=True, config=QUICK) as reader,
        reader.subscribe() as live,
    ):
        kept = await recorded(writer, "kept", "k" * 5000, name="kept")
        gone = await recorded(writer, "gone", "g" * 5000, name="gone")
        await read_until(live, writer.last_sequence)
        await writer.delete_session(gone)
        with Child("compact", path, 2) as child:
            assert child.hear() == "ready"
            child.tell()
            assert [child.hear(), child.hear()] == [1, 2]
        before = await reader.get_session(kept)
        assert reader.statistics().generation == 2
        assert await reader.read_content(before.actions[1].input) == b"k" * 5000
        last = writer.last_sequence
        await recorded(writer, "after", name="after")
        assert writer.statistics().generation == 2
        assert writer.last_sequence == last + 3
        new = await read_until(live, writer.last_sequence)
        assert new[0].sequence == last
        async with reader.subscribe() as again, writer.subscribe() as own:
            for events in (await read_until(again, last + 3), await read_until(own, last + 3)):
                assert sum(isinstance(event.payload, Erased) for event in events) == 5
        assert b"gone" not in path.read_bytes()
        assert (await reader.verify()).ok
        assert (await writer.verify()).ok


async def broken(store, events):
    """How a follower ends: the subscription's error, and a reader's."""
    with pytest.raises(StoreFailedError) as raised:
        async for _ in events:
            pass
    with pytest.raises(StoreFailedError):
        await store.list_sessions()
    return str(raised.value)


def delete(path):
    path.unlink()


def another_store(path):
    path.with_name("other.mva").replace(path)


def an_older_copy(path):
    path.with_name("older.mva").replace(path)


def rename_away(path):
    path.rename(path.with_name("elsewhere.mva"))


def rename_directory(path):
    path.parent.rename(path.parent.with_name("elsewhere"))


GONE = [delete, another_store, an_older_copy, rename_away, rename_directory]


async def prepared(path):
    """A store of two sessions; beside it another one, and a copy from before the second."""
    async with open_store(path.with_name("other.mva")) as other:
        await recorded(other, *"abcdefgh")
    async with open_store(path) as store:
        await recorded(store, "a")
    shutil.copy(path, path.with_name("older.mva"))
    async with open_store(path) as store:
        await recorded(store, "b")


@pytest.mark.parametrize("happens", GONE)
async def test_a_follower_ends_with_an_error_when_its_file_is_gone(tmp_path, happens):
    path = tmp_path / "inner" / "followed.mva"
    path.parent.mkdir()
    await prepared(path)
    async with (
        open_store(path, read_only=True, config=QUICK) as reader,
        reader.subscribe() as events,
    ):
        await read_until(events, 6)
        happens(path)
        await broken(reader, events)


@pytest.mark.parametrize("happens", GONE)
async def test_a_writer_never_writes_to_a_file_that_is_gone(tmp_path, happens):
    path = tmp_path / "inner" / "followed.mva"
    path.parent.mkdir()
    await prepared(path)
    store = await open_store(path)
    recorder = store.session("s")
    await recorder.__aenter__()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        ghost = os.pread(descriptor, 1 << 20, 0)
        happens(path)
        there = path.read_bytes() if path.exists() else None
        for _ in range(2):
            with pytest.raises(StoreFailedError):
                await recorder.record_put(0, "lost")
        with pytest.raises((StoreFailedError, StoreClosedError)):
            await recorder.__aexit__(None, None, None)
        await store.aclose()
        assert os.pread(descriptor, 1 << 20, 0) == ghost
        assert (path.read_bytes() if path.exists() else None) == there
    finally:
        os.close(descriptor)


def garbage(path):
    path.with_name("new").write_bytes(b"not a store")
    path.with_name("new").replace(path)


def a_directory(path):
    path.unlink()
    path.mkdir()


def a_link(path):
    path.unlink()
    path.symlink_to(path.with_name("other.mva"))


def cut_short(path):
    os.truncate(path, 1600)


@pytest.mark.parametrize("happens", [garbage, a_directory, a_link, cut_short])
async def test_a_file_that_is_no_store_any_more_is_a_clear_error(path, happens):
    await prepared(path)
    wanted = (StoreFailedError, NotAStoreError, CorruptFileError)
    async with (
        open_store(path, read_only=True, config=QUICK) as reader,
        open_store(path) as store,
        reader.subscribe() as events,
    ):
        await read_until(events, 6)
        happens(path)
        with pytest.raises(wanted):
            await read_until(events, 100)
        with pytest.raises(wanted):
            await store.start_session()
        with pytest.raises(StoreFailedError):
            await store.start_session()


async def test_a_file_replaced_while_it_is_being_opened_is_not_taken_for_the_one_there(
    path, monkeypatch
):
    """Replaced between the system's open and the first look at it."""
    async with open_store(path) as store:
        await recorded(store, "a")
        find, pending = FileStorage._find_name, [True]

        def replaced_before(storage):
            if pending:
                pending.clear()
                compact_elsewhere(path)
            find(storage)

        monkeypatch.setattr(FileStorage, "_find_name", replaced_before)
        async with open_store(path, read_only=True, config=QUICK) as reader:
            await recorded(store, "b")
            await reader.list_sessions()
            assert reader.last_sequence == store.last_sequence


async def test_a_writer_that_waited_for_a_file_which_was_replaced_meanwhile_writes_to_the_new_one(
    path, monkeypatch
):
    """Compacted once before the lock is asked for, and again while it is waited for."""

    async with open_store(path) as store:
        await recorded(store, "a")
        compact_elsewhere(path)
        reopen, pending = FileStorage.reopen, [True]

        def replaced_after(storage):
            opened = reopen(storage)
            if pending:
                pending.clear()
                compact_elsewhere(path)
            return opened

        monkeypatch.setattr(FileStorage, "reopen", replaced_after)
        await recorded(store, "acked")
        last = store.last_sequence
    async with open_store(path, read_only=True) as reader:
        assert reader.last_sequence == last


async def test_an_opener_leaves_the_compaction_alone_that_goes_on_in_the_new_file(
    path, monkeypatch
):
    """Opened before a compaction; by the time it has the lock, somebody compacts the new file."""
    async with open_store(path) as store:
        await recorded(store, "a")
        lock, pending = FileStorage.lock, [True]
        file_id = decode_header(path.read_bytes()[:LOG_START]).file_id
        left = Path(f"{path}.{file_id.hex}.compact")

        def late(storage, timeout):
            if pending:
                pending.clear()
                compact_elsewhere(path)
                left.touch()
                holder = FileStorage.open(path)
                lock(holder, 0)
                try:
                    lock(storage, timeout)
                    assert left.exists()
                finally:
                    holder.close()
            lock(storage, timeout)

        monkeypatch.setattr(FileStorage, "lock", late)
        async with open_store(path) as other:
            monkeypatch.undo()
            assert other.statistics().generation == 1


async def test_waiting_in_vain_for_the_new_files_lock_does_not_fail_the_store(path):
    async with open_store(path, config=StoreConfig(lock_timeout=0.0)) as store:
        await recorded(store, "a")
        compact_elsewhere(path)
        with Child("hold_lock", path) as child:
            child.hear()
            with pytest.raises(Exception, match=f"process {child.pid}"):
                await store.start_session()
            child.tell()
            assert child.hear() == "closed"
        await store.start_session()
