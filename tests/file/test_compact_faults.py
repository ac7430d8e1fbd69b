"""compact() that is killed, fails, is cancelled: the old file is left whole, or the new one."""

import asyncio
import threading

import pytest

from memvid_async import CorruptFileError, NotCompactedError, StoreFailedError, open_store
from memvid_async.format.header import LOG_START, decode_header
from tests.support.loops import turns
from tests.torture.children import Child
from tests.torture.faults import Fuse

pytestmark = pytest.mark.one_loop


@pytest.fixture
def path(tmp_path):
    return tmp_path / "compacted.mva"


def beside(path):
    """The file that a compaction writes."""
    file_id = decode_header(path.read_bytes()[:LOG_START]).file_id
    return path.with_name(f"{path.name}.{file_id.hex}.compact")


async def recorded(store, mark, shared):
    """A session with two puts; its id."""
    async with store.session(f"name {mark}") as recorder:
        await recorder.record_put(0, f"put {mark}")
        await recorder.record_put(1, shared)
    return recorder.session_id


async def check(store):
    report = await store.verify()
    assert report.ok, report.problems


async def prepared(path):
    """A file with something deleted, something kept, something open; its last sequence."""
    async with open_store(path) as store:
        shared = "shared " * 300
        gone = await recorded(store, "GONE", shared)
        await recorded(store, "KEPT", shared)
        await store.start_session("ambient")
        await store.record_put(0, "ambient " * 200)
        await store.delete_session(gone)
        return store.last_sequence


async def test_killed_at_any_storage_call_it_leaves_the_old_file_or_the_new_one(path, tmp_path):
    await prepared(path)
    (tmp_path / "folder").mkdir()
    with Child("compact_killed_everywhere", path, tmp_path / "folder") as child:
        *wrong, kills = await asyncio.to_thread(child.rest)
    assert wrong == []
    assert kills > 12


class BrokenError(Exception):
    """A bug in a storage: no error that the store knows."""


@pytest.mark.parametrize("error", [StoreFailedError("disk"), BrokenError()], ids=["disk", "bug"])
async def test_a_storage_call_that_fails_leaves_the_old_file_or_the_new_one(
    tmp_path, monkeypatch, error
):
    at, burned, refused = 0, [""], []
    while burned:
        at += 1
        path = tmp_path / f"failing{at}.mva"
        last = await prepared(path)
        burned = []

        def fail(burned=burned):
            burned.append(threading.current_thread().name)
            raise error

        # A descriptor that is not closed is a leak, not a fault of the disk.
        fuse = Fuse(at, burn=fail, never="close")
        async with open_store(path) as store:
            outcome = None
            with monkeypatch.context() as patch:
                fuse.install(patch.setattr)
                try:
                    await store.compact()
                except (NotCompactedError, StoreFailedError) as caught:
                    outcome = caught
                except BrokenError:
                    assert isinstance(error, BrokenError)
                    outcome = error
            if isinstance(outcome, NotCompactedError) or (
                burned and isinstance(error, StoreFailedError) and fuse.log[at - 1] == "lock"
            ):
                # Nothing was changed: the store goes on.
                assert store.statistics().generation == 0
                await check(store)
                refused.append(fuse.log[at - 1])
                assert (await store.record_put(1, "goes on")).sequence == last + 1
                last += 1
            elif burned:
                with pytest.raises(StoreFailedError):
                    await store.record_put(1, "refused")
        async with open_store(path) as store:
            assert not beside(path).exists()
            assert (await store.record_put(1, "accepted")).sequence == last + 1
            [kept] = await store.list_sessions()
            assert kept.name == "name KEPT"
            await check(store)
    assert at > 6
    assert {"create_beside", "write", "sync", "truncate", "install"} <= set(refused)


async def test_a_damaged_file_is_refused_and_stays_as_it_is(path):
    async with open_store(path) as store:
        await recorded(store, "KEPT", "")
        await store.sync()
        raw = bytearray(path.read_bytes())
        at = raw.index(b"put KEPT")
        raw[at] ^= 1
        with path.open("r+b") as file:
            file.write(raw)
        with pytest.raises(CorruptFileError):
            await store.compact()
        assert path.read_bytes() == raw
        assert not beside(path).exists()
        await store.put("goes on")


async def test_what_a_killed_compaction_left_is_removed_by_the_next_writer_and_no_reader(path):
    await prepared(path)
    left = beside(path)
    left.write_bytes(path.read_bytes()[:LOG_START] + b"half")
    async with open_store(path, read_only=True) as store:
        await check(store)
    assert left.exists()
    async with open_store(path):
        assert not left.exists()


async def test_a_cancelled_call_has_compacted_or_not(path):
    last = await prepared(path)
    async with open_store(path) as store:
        compacting = asyncio.create_task(store.compact())
        await turns(1)
        compacting.cancel()
        await asyncio.wait({compacting})
        assert (await store.record_put(1, "goes on")).sequence == last + 1
        assert store.statistics().generation in (0, 1)
        await check(store)
