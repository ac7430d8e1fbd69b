"""Reads beside a compaction finish in the file where they began, which is closed after them."""

import asyncio
import sys
import threading
from pathlib import Path

import pytest

from memvid_async import StoreConfig, open_store
from memvid_async.memory import folded
from memvid_async.memory.folded import FoldedMemory
from memvid_async.storage import FileStorage
from memvid_async.store import folding

pytestmark = pytest.mark.one_loop
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
COUNT = 40
QUICK = StoreConfig(poll_interval=0.001)


@pytest.fixture
async def path(tmp_path):
    path = tmp_path / "compacted.mva"
    async with open_store(path) as store:
        await store.put_many([f"alpha {at} " + "x" * 2000 for at in range(COUNT)])
        await store.delete(COUNT)
    return path


def replaced(path):
    """Which of this process's open files were replaced at this path."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(each.readlink()))
        except FileNotFoundError:
            continue
    return [name for name in found if name == f"{path} (deleted)"]


class Gate:
    """Holds reads of files in threads of some name, until opened."""

    def __init__(self, monkeypatch, thread):
        self.reached, self.opened = threading.Event(), threading.Event()
        self._thread = thread
        read = FileStorage.read

        def held(storage, offset, length):
            if self._thread in threading.current_thread().name and not self.opened.is_set():
                self.reached.set()
                assert self.opened.wait(30)
            return read(storage, offset, length)

        monkeypatch.setattr(FileStorage, "read", held)

    async def until_reached(self):
        assert await asyncio.to_thread(self.reached.wait, 30)


CALLS = {
    "find": lambda store: store.find("alpha", top_k=COUNT),
    "get": lambda store: store.get(2),
    "frames": lambda store: anext(store.frames()),
    "ask": lambda store: store.ask("alpha", generate=str, top_k=COUNT),
}


@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "follower"])
@pytest.mark.parametrize("call", CALLS)
@LINUX
async def test_a_read_that_two_compactions_overtake_gives_what_it_would_have(
    path, monkeypatch, call, read_only
):
    def told(result):
        hits = getattr(result, "hits", None)
        return result.frame_id if hits is None else [hit.frame_id for hit in hits]

    async with open_store(path) as store:
        expected = told(await CALLS[call](store))
        async with open_store(path, read_only=read_only, config=QUICK) as reader:
            gate = Gate(monkeypatch, "memory")
            reading = asyncio.create_task(CALLS[call](reader))
            await gate.until_reached()
            await store.compact()
            await reader.refresh()
            await store.compact()
            await reader.refresh()
            assert replaced(path)
            gate.opened.set()
            assert told(await reading) == expected
            assert told(await CALLS[call](reader)) == expected
            del reading
        await store.get(1)
    assert replaced(path) == []


@LINUX
@pytest.mark.parametrize("read_only", [False, True], ids=["writer", "follower"])
async def test_a_replaced_file_is_closed_without_another_find(path, read_only):
    async with open_store(path) as store, open_store(path, read_only=read_only) as reader:
        for each in (store, reader):
            await each.find("alpha")
        for _ in range(3):
            await store.compact()
            await reader.refresh()
            for each in (store, reader):
                await each._recall._worker.run(lambda: None)
            assert replaced(path) == []


async def test_a_subscription_that_reads_the_old_file_goes_on_in_the_new_one(path, monkeypatch):
    async with open_store(path) as store, open_store(path, read_only=True, config=QUICK) as reader:
        gate = Gate(monkeypatch, "reads")
        async with reader.subscribe() as events:
            following = asyncio.create_task(anext(aiter(events)))
            await gate.until_reached()
            await store.compact()
            gate.opened.set()
            assert (await following).sequence == 1
            seen = [1]
            async for event in events:
                seen.append(event.sequence)
                if event.sequence == store.last_sequence:
                    break
        assert seen == list(range(1, store.last_sequence + 1))


async def test_verifying_goes_on_with_the_new_file(path, monkeypatch):
    async with open_store(path) as store:
        gate = Gate(monkeypatch, "reads")
        verifying = asyncio.create_task(store.verify())
        await gate.until_reached()
        await store.compact()
        gate.opened.set()
        report = await verifying
        assert report.ok
        assert report.byte_count == store.statistics().file_bytes


async def test_nobody_folds_the_memory_again_after_a_compaction(tmp_path, monkeypatch):
    """The new file has a saved search index from the moment it is there."""
    path = tmp_path / "large.mva"
    texts = [f"alpha {at} " + "some words of no importance " * 80 for at in range(300)]
    async with open_store(path) as store, open_store(path, read_only=True) as reader:
        await store.put_many(texts)
        await store.delete(7)
        for each in (store, reader):
            assert len((await each.find("alpha", top_k=400)).hits) == 299
        await store.compact()
        await reader.refresh()
        put = []
        with monkeypatch.context() as patch:
            patch.setattr(FoldedMemory, "_put", lambda *given: put.append(given))
            for each in (store, reader):
                assert len((await each.find("alpha", top_k=400)).hits) == 299
            async with open_store(path) as later:
                assert len((await later.find("alpha 7 some")).hits) == 10
        assert put == []
        assert (await store.verify()).ok
    assert b"alpha 6 some" not in path.read_bytes()


async def test_a_memory_that_took_long_to_fold_is_saved_however_small_it_is(tmp_path, monkeypatch):
    """What is left of frames that were deleted is folded too."""
    monkeypatch.setattr(folding, "_WORTH_EVENTS", 40)
    async with open_store(tmp_path / "small.mva") as store:
        for at in range(25):
            await store.put(f"alpha {at}")
            if at >= 4:
                await store.delete(at - 3)
        await store.compact()
        saved = store._engine.written_view.saved_projection("memory", store.last_sequence)
        assert saved.through == store.last_sequence
        assert (await store.verify()).ok
        put = []
        monkeypatch.setattr(FoldedMemory, "_put", lambda *given: put.append(given))
        assert len((await store.find("alpha")).hits) == 4
        assert put == []


async def test_a_memory_that_cannot_be_folded_does_not_stop_a_compaction(path, monkeypatch):
    def broken(*_):
        raise folded.CorruptFileError(1, "broken")

    async with open_store(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(FoldedMemory, "due", broken)
            assert (await store.compact()).generation == 1
        assert len((await store.find("alpha", top_k=COUNT)).hits) == COUNT - 1
