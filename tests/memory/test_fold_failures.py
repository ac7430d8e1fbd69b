"""A fold is all or nothing: whatever fails in it, the next one finds what it would have found."""

import pytest

from memvid_async import StoreFailedError, open_store
from memvid_async.file.journal import Journal
from memvid_async.memory.folded import FoldedMemory
from memvid_async.storage import RamStorage
from tests.support.depth import READS_EVERY
from tests.support.frame_plans import eager_saving
from tests.support.naive import fixed_config

WORDS = ("otter", "river", "stone")


class Failing(RamStorage):
    """Memory whose nth read fails, once."""

    def __init__(self, data):
        super().__init__(data)
        self.reads = 0
        self.fails_at = None
        self.error = None

    def read(self, offset, length):
        self.reads += 1
        if self.reads == self.fails_at:
            raise self.error
        return super().read(offset, length)


@pytest.fixture(params=["folded again", "saved before"])
async def data(request, tmp_path):
    """A file with puts of one and of many, large bodies, updates and deletes."""
    path = tmp_path / "store.mva"
    async with open_store(path, config=fixed_config()) as store:
        await store.put_many([f"an {WORDS[n % 3]} number {n} " + "x" * 300 for n in range(60)])
        if request.param == "saved before":
            with eager_saving():
                await store.put("an otter that is saved")
                await store.aclose()
            store = await open_store(path, config=fixed_config())
        await store.put_many([f"a {WORDS[n % 3]} of size {n} " + "y" * 1500 for n in range(20)])
        for frame_id in range(3, 30, 4):
            await store.update(frame_id, f"changed to {WORDS[frame_id % 3]} " + "z" * 1200)
        await store.delete(5)
        await store.put("one more river", title="The end")
        await store.aclose()
    return path.read_bytes()


def opened(data):
    storage = Failing(data)
    return storage, Journal.open(storage, fixed_config(), read_only=True).view, FoldedMemory()


def found(memory, view):
    index = memory.catch_up(view)
    return [[(hit.frame_id, hit.score) for hit in index.find(word, top_k=100)] for word in WORDS]


@pytest.mark.parametrize("error", [StoreFailedError("reading failed: EIO"), MemoryError()])
async def test_a_fold_that_fails_at_any_read_is_made_good_by_the_next(data, error):
    storage, view, memory = opened(data)
    before = storage.reads
    expected = found(memory, view)
    memory.close()
    total = storage.reads - before
    assert total > 10
    for n in range(1, total + 1, READS_EVERY):
        storage, view, memory = opened(data)
        storage.fails_at, storage.error = storage.reads + n, error
        with pytest.raises(type(error)):
            found(memory, view)
        assert found(memory, view) == expected, n
        assert not memory.missing
        memory.close()
