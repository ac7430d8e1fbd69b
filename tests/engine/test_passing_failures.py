"""What the system refuses once, a read or memory, costs the call that needed it and no more."""

import asyncio
import contextlib
import errno
import gc
import itertools
import os
import threading

import pytest

from memvid_async import (
    CorruptFileError,
    MemvidAsyncError,
    OutOfMemoryError,
    StoreConfig,
    StoreFailedError,
    open_store,
)
from memvid_async.file import journal as journal_module
from memvid_async.file.log_file import LogFile
from memvid_async.memory.folded import FoldedMemory
from memvid_async.storage import disk as module
from tests.support.loops import read_until

pytestmark = pytest.mark.one_loop
QUICK = StoreConfig(poll_interval=0.001)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.mva"


def fail_from(monkeypatch, call, at, error):
    """Let the call of the system with this number, from 0, and all after it fail."""
    real, count = getattr(os, call), [0]

    def failing(*given, **named):
        count[0] += 1
        if count[0] > at:
            raise error
        return real(*given, **named)

    monkeypatch.setattr(module.os, call, failing)
    return count


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), MemoryError()], ids=["EIO", "memory"]
)
async def test_any_read_of_what_others_wrote_may_fail(path, monkeypatch, error):
    """Each in turn, in a put; the next put goes on, and all events are delivered once."""
    # A slot is due with each batch of the first, because 0.2 s pass between any two of its events.
    slow = StoreConfig(clock=itertools.count(0, 200_000_000).__next__)
    async with open_store(path, config=slow) as store, open_store(path) as other:
        async with store.subscribe() as events:
            failures = 0
            for at in range(30):
                frames = [f"frame {at} {n} " + "x" * 3000 for n in range(3)]
                await other.put_many([*frames, "from elsewhere " + "y" * 2000])
                with monkeypatch.context() as patch:
                    count = fail_from(patch, "pread", at, error)
                    try:
                        await store.put("mine")
                    except (StoreFailedError, OutOfMemoryError):
                        failures += 1
                    else:
                        # The slot that could not be read is written with the next batch.
                        assert count[0] <= at + 1
                await store.put("goes on")
                if count[0] <= at:
                    break
            assert failures > 2
            await other.refresh()
            assert other.last_sequence == store.last_sequence
            seen = await read_until(events, store.last_sequence)
        assert [event.sequence for event in seen] == list(range(1, store.last_sequence + 1))
        assert (await store.verify()).ok
        assert len((await store.find("elsewhere", top_k=100)).hits) == at + 1


async def test_a_follower_goes_on_after_a_read_that_failed(path, monkeypatch):
    async with open_store(path) as store, open_store(path, read_only=True, config=QUICK) as reader:
        await store.put("one")
        with monkeypatch.context() as patch:
            fail_from(patch, "pread", 0, OSError(errno.EIO, "broken"))
            with pytest.raises(StoreFailedError, match="broken"):
                await reader.refresh()
        await reader.refresh()
        assert reader.last_sequence == store.last_sequence
        assert len((await reader.find("one")).hits) == 1


async def test_damage_that_others_left_still_fails_the_store(path):
    async with open_store(path) as store, open_store(path) as other:
        await other.put("one " * 500)
        raw = bytearray(path.read_bytes())
        size = len(raw.rstrip(b"\0"))
        await store.refresh()
        with path.open("r+b") as file:
            file.truncate(size - 100)
        with pytest.raises(CorruptFileError):
            await store.put("two")
        with pytest.raises(StoreFailedError):
            await store.put("three")


async def test_a_fold_that_stops_in_the_middle_fails_the_store(path, monkeypatch):
    def half(*_given):
        raise MemoryError

    async with open_store(path) as store, open_store(path) as other:
        await other.put("one")
        with monkeypatch.context() as patch:
            patch.setattr(LogFile, "take_in", half)
            with pytest.raises(OutOfMemoryError):
                await store.put("two")
        with pytest.raises(StoreFailedError):
            await store.put("three")


async def test_a_lack_of_memory_between_two_steps_of_a_commit_fails_the_store(path, monkeypatch):
    """What was staged is not in the file, and nothing takes the file for damaged."""

    def fail(*_given):
        raise MemoryError

    async with open_store(path) as store:
        await store.put("one")
        with monkeypatch.context() as patch:
            patch.setattr(journal_module.Journal, "flush", fail)
            with pytest.raises(MemvidAsyncError):
                await store.put("two")
        for call in (store.put("three"), store.find("one"), store.list_sessions()):
            with pytest.raises(StoreFailedError, match="memory"):
                await call
    async with open_store(path) as again:
        assert [frame.frame_id async for frame in again.frames()] == [1]


async def test_a_thread_that_does_not_start_is_named_and_tried_again(path, monkeypatch):
    def fail(*_given):
        raise RuntimeError("can't start new thread")

    async with open_store(path) as store:
        await store.put("one")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            with pytest.raises(StoreFailedError, match="start new thread"):
                await store.find("one")
        assert len((await store.find("one")).hits) == 1


class PanicException(BaseException):
    """As cbor2, which is written in Rust, raises it."""


PanicException.__module__ = "pyo3_runtime"


@pytest.mark.parametrize(
    "error", [MemoryError(), PanicException("no memory")], ids=["memory", "panic"]
)
async def test_a_lack_of_memory_in_the_writers_thread_is_that_commands_alone(
    path, monkeypatch, error
):
    def fail(*_given):
        raise error

    async with open_store(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "encode_events", fail)
            with pytest.raises(OutOfMemoryError):
                await store.put("one")
        assert await store.put("two") == 1
        assert (await store.verify()).ok


async def test_a_lack_of_memory_in_the_writers_task_ends_it_by_name(path, monkeypatch):
    def fail(*_given):
        raise MemoryError

    untold = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: untold.append(context))
    async with open_store(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(store._engine.tail, "publish", fail)
            with pytest.raises(StoreFailedError):
                await store.put("one")
        with pytest.raises(StoreFailedError, match="not enough memory"):
            await store.put("two")
    gc.collect()
    assert not untold
    async with open_store(path) as again:
        assert len((await again.find("one")).hits) == 1


async def test_a_lack_of_memory_in_a_find_is_named_and_the_next_find_is_right(path, monkeypatch):
    def fail(*_given):
        raise MemoryError

    async with open_store(path) as store:
        await store.put("one")
        with monkeypatch.context() as patch:
            patch.setattr(FoldedMemory, "catch_up", fail)
            with pytest.raises(OutOfMemoryError):
                await store.find("one")
        assert len((await store.find("one")).hits) == 1


async def test_a_lack_of_memory_while_closing_is_named_and_loses_nothing(path, monkeypatch):
    def fail(*_given, **_named):
        raise MemoryError

    store = await open_store(path)
    await store.put("one " * 30_000)
    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "tidy", fail)
        with contextlib.suppress(MemvidAsyncError):
            await store.aclose()
    async with open_store(path) as again:
        assert len((await again.find("one")).hits) == 1
        assert (await again.verify()).ok
