"""Moving a memory to another embedding model: all at once, whatever happens beside it."""

import asyncio
import math

import pytest

from memvid_async import (
    InvalidValueError,
    MemvidAsyncError,
    StoreConfig,
    StoreReadOnlyError,
    Verdict,
    open_store,
)
from memvid_async.memory import re_embedding

pytest.importorskip("numpy")
pytestmark = pytest.mark.anyio

WORDS = ("otter", "river", "fox", "moss")


def old(texts):
    """Two numbers: of how many words, and of how many otters."""
    return [[1 + len(text.split()), text.count("otter")] for text in texts]


def new(texts):
    """Four numbers: of each word."""
    return [[0.01 + text.count(word) for word in WORDS] for text in texts]


OLD = StoreConfig(embedder=old, embedding_model="old")
NEW = StoreConfig(embedder=new, embedding_model="new")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(re_embedding, "_TEXTS", 3)
    monkeypatch.setattr(re_embedding, "_EVENT_BYTES", 32)


async def fill(store, count=10):
    texts = [" ".join(WORDS[(n * k) % 4] for k in range(1, 5)) + f" {n}" for n in range(count)]
    return await store.put_many(texts)


async def check(store, config=NEW):
    """Each frame with a text has the embedding that the model makes of it; no other has one."""
    frames = [frame async for frame in store.frames()]
    texts = {}
    for frame in frames:
        body = await store.read_content(frame.content)
        texts[frame.frame_id] = "" if body.startswith(b"\0") else body.decode()
    assert {f.frame_id for f in frames if f.embedding_model == config.embedding_model} == {
        frame_id for frame_id, text in texts.items() if text
    }
    for query in ("otter moss", "fox"):
        (wanted,) = config.embedder([query])
        cosines = {}
        for frame_id, text in texts.items():
            if text:
                (vector,) = config.embedder([text])
                dot = sum(a * b for a, b in zip(wanted, vector, strict=True))
                cosines[frame_id] = dot / math.hypot(*wanted) / math.hypot(*vector)
        found = await store.find(query, mode="semantic", embedding=wanted, top_k=100)
        scores = {hit.frame_id: hit.score for hit in found.hits}
        assert scores == pytest.approx(cosines, abs=1e-5)


async def test_a_memory_moves_to_another_model(make_store):
    store = await make_store(config=OLD)
    ids = await fill(store)
    await store.put(b"\0\xff", embedding=[1, 2], embedding_model="old")
    await store.update(ids[0], title="a title")
    await store.update(ids[1], "a fox, again")
    await store.delete(ids[2])
    before = store.last_sequence
    told = []
    assert await store.set_embedding_model("new", new, progress=lambda *of: told.append(of)) == 9
    assert told[-1] == (9, 9)
    assert [done for done, _ in told] == [3, 6, 9, 9]
    await check(store)
    await store.put("moss and moss")
    await check(store)
    with pytest.raises(InvalidValueError, match="'new' with 4"):
        await store.put("x", embedding=[1, 2], embedding_model="old")
    view = await store.at(sequence=before)
    assert (await view.find("otter", mode="semantic", embedding=[1, 1])).hits
    await store.compact()
    await check(store)
    reopened = await make_store(config=NEW)
    await check(reopened)
    with pytest.raises(InvalidValueError, match="old"):
        await (await make_store(config=OLD)).put("an otter")


async def test_a_memory_without_embeddings_gets_some(make_store):
    store = await make_store()
    await fill(store, 4)
    assert await store.set_embedding_model("new", new) == 4
    await check(store)
    async with store.session() as recorder:
        await store.put("otter")
        await store.find("moss otter", mode="hybrid")
    report = await store.replay(recorder.session_id).report()
    assert report.counts[Verdict.MATCHED] == 2


async def test_with_nothing_left_to_embed_the_model_is_set(make_store):
    store = await make_store(config=OLD)
    await store.delete(await store.put("otter"))
    assert await store.set_embedding_model("new", new) == 0
    await store.put("river")
    await check(store)


async def test_forks_and_followers_and_what_was_recorded_before(make_store):
    store = await make_store(config=OLD)
    follower = await make_store(read_only=True)
    ids = await fill(store)
    async with store.session() as recorder:
        await store.find("otter", mode="semantic")
        await store.find("otter", mode="hybrid")
    forked = await store.fork(recorder.session_id)
    async with store.resume_session(forked):
        await store.update(ids[3], "moss in the fork")
        await store.put("otter in the fork")
        await store.find("otter", mode="semantic")
    await store.update(ids[4], "moss after the fork")
    await store.delete(ids[5])
    await check(store, OLD)
    await store.set_embedding_model("new", new)
    await check(store)
    await check(follower)
    async with store.resume_session(await store.fork(forked)):
        await check(store)
        assert len([frame async for frame in store.frames()]) == 11
    for session_id in (recorder.session_id, forked):
        report = await store.replay(session_id).report()
        assert report.counts[Verdict.DIVERGED] == report.counts[Verdict.UNVERIFIABLE] == 0


@pytest.mark.parametrize("bad", [[[1.0]], [[1], [1, 2], [1]], [None] * 3, 5, [[math.nan]] * 3])
async def test_a_bad_embedder_changes_nothing(make_store, bad):
    store = await make_store(config=OLD)
    await fill(store, 3)
    with pytest.raises(InvalidValueError, match="embed"):
        await store.set_embedding_model("new", lambda _: bad)
    await check(store, OLD)
    await store.put("otter")
    await check(store, OLD)
    await store.set_embedding_model("new", new)
    await check(store)


@pytest.mark.parametrize(
    "arguments",
    [(None, new), ("new", None), ("new", lambda: None), ("x" * 10**6, new), ("new", new, 5)],
)
async def test_bad_arguments_are_named(make_store, arguments):
    store = await make_store()
    options = {"progress": arguments[2]} if len(arguments) > 2 else {}
    with pytest.raises((MemvidAsyncError, TypeError)):
        await store.set_embedding_model(*arguments[:2], **options)
    assert store.last_sequence == 0
    reader = await make_store(read_only=True)
    with pytest.raises(StoreReadOnlyError):
        await reader.set_embedding_model("new", new)


class Held:
    """An embedder whose every answer waits until the test says so."""

    def __init__(self):
        self.asked, self.go = asyncio.Queue(), asyncio.Queue()

    async def __call__(self, texts):
        self.asked.put_nowait(texts)
        await self.go.get()
        return new(texts)


async def test_what_happens_on_the_way(make_store):
    """Puts, updates, deletes, compactions and finds while the embeddings are made."""
    store, other = await make_store(config=OLD), await make_store(config=OLD)
    ids = await fill(store)
    held = Held()
    moving = asyncio.create_task(store.set_embedding_model("new", held))
    for step in range(7):
        await held.asked.get()
        await check(store, OLD)
        await store.put(f"otter of step {step}")
        await other.refresh()
        await store.update(ids[step], f"moss of step {step}")
        await other.put(f"river of step {step}")
        if step == 2:
            await store.compact()
        if step == 4:
            await store.delete(ids[9])
        held.go.put_nowait(None)
    for _ in range(100):
        held.go.put_nowait(None)
    count = await moving
    assert count >= 10 + 14 - 1
    await check(store)
    await other.refresh()
    await check(other)
    with pytest.raises(InvalidValueError, match="'new' with 4"):
        await other.put("otter")


async def test_tasks_that_put_and_find_go_on(make_store):
    store = await make_store(config=OLD)
    await fill(store)
    done = asyncio.Event()

    async def work(number):
        async with store.session() as recorder:
            while not done.is_set():
                await store.put(f"otter {number}")
                assert (await store.find("otter", mode="semantic")).hits
                assert (await store.ask("otter", generate=str, mode="hybrid")).hits
            await store.find("moss", mode="hybrid")
        return recorder.session_id

    working = [asyncio.create_task(work(number)) for number in range(4)]
    await store.set_embedding_model("new", new)
    done.set()
    sessions = await asyncio.gather(*working)
    await check(store)
    for session_id in sessions:
        report = await store.replay(session_id).report()
        assert report.counts[Verdict.DIVERGED] == 0, report


async def test_a_move_that_was_killed_leaves_the_old_model(tmp_path):
    path, copy = tmp_path / "killed.mva", tmp_path / "copy.mva"
    async with open_store(path, config=OLD) as store:
        await fill(store)
        held = Held()
        moving = asyncio.create_task(store.set_embedding_model("new", held))
        for step in range(4):
            await held.asked.get()
            copy.write_bytes(path.read_bytes())
            async with open_store(copy, config=OLD) as left:
                await check(left, OLD)
                if step == 3:
                    await left.compact()
                    await check(left, OLD)
                await left.set_embedding_model("new", new)
                await check(left)
                assert (await left.verify()).ok
            held.go.put_nowait(None)
        moving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await moving
        await check(store, OLD)
        await store.put("otter")
        await check(store, OLD)
        size = len(path.read_bytes())
        assert (await store.compact()).bytes_after < size


async def test_the_embeddings_of_a_deleted_frame_are_erased(tmp_path):
    path = tmp_path / "erased.mva"

    def embed(texts):
        return [[0.123456789, 1.0] if "secret" in text else [1.0, 2.0] for text in texts]

    mark = memoryview(bytes.fromhex("ead6fc3d"))
    async with open_store(path) as store:
        await fill(store, 4)
        secret = await store.put("a secret")
        await store.set_embedding_model("new", embed)
        assert bytes(mark) in path.read_bytes()
        await store.delete(secret)
        await store.compact()
        assert bytes(mark) not in path.read_bytes()
        assert (await store.verify()).ok
