"""A view returns what the store returned at that moment; the live memory is what was put."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from memvid_async import (
    CheckpointNotFoundError,
    FrameNotFoundError,
    InvalidValueError,
    RecordingConfig,
    SessionNotFoundError,
    StoreConfig,
    open_store,
)
from memvid_async.memory import folded as memory
from tests.support.frame_calls import all_ids, ids_of
from tests.support.frame_plans import (
    HISTORIES,
    MODEL,
    QUERIES,
    VECTORS,
    WORDS,
    Life,
    cosine,
    eager_saving,
)
from tests.support.plans import examples, small_tables

SEARCHES = [
    *({"query": query} for query in QUERIES),
    {"query": "otter river", "tags": ["red"]},
    {"query": "river", "uri": "mv2://a/", "metadata": {"k": 1}},
    *({"query": None, "mode": "semantic", "embedding": vector} for vector in VECTORS[1:3]),
    {"query": "fox otter", "mode": "hybrid", "embedding": VECTORS[3]},
]


async def found(place, top_k, search):
    try:
        result = await place.find(**search, top_k=top_k)
    except InvalidValueError as error:
        return str(error)
    return [(hit.frame_id, hit.score, hit.snippet, hit.title) for hit in result.hits]


async def told(place, *, sessions=True):
    """All that a store or a view says of its memory and its sessions."""
    said = {"frames": [frame async for frame in place.frames()]}
    said["newest"] = [frame.frame_id async for frame in place.frames(newest_first=True)]
    for frame in said["frames"]:
        assert await place.get(frame.frame_id) == frame
    for top_k in (2, 100):
        for i, search in enumerate(SEARCHES):
            said["find", i, top_k] = await found(place, top_k, search)
    said["listed"] = await place.list_sessions()
    listed = await place.list_sessions(include_open=True)
    said["all listed"] = listed
    if sessions:
        for summary in listed:
            said[summary.session_id] = await place.get_session(summary.session_id)
    return said


def same(one, other):
    """Equal, but for scores that may differ by a rounding."""
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(key, tuple) and not isinstance(value, str):
            for mine, its in zip(value, other[key], strict=True):
                assert mine[0] == its[0]
                assert mine[1] == pytest.approx(its[1], abs=1e-6)
                assert mine[2:] == its[2:]
        else:
            assert value == other[key], key


async def check_moments(store, life):
    for moment in life.moments:
        lost = life.erased & set(moment.frames)
        gone = life.gone_sessions - moment.sessions_dropped
        for view in (
            await store.at(sequence=moment.sequence),
            await store.at(time_ns=moment.time_ns),
        ):
            result = await view.find("otter", top_k=100)
            assert result.incomplete == len(lost)
            assert result.as_of == moment.sequence
            assert view.sequence == moment.sequence
            if not lost and not gone:
                # A session of a frame that was erased since tells less of it.
                erased = any(n in life.erased for n in range(1, life.last_id + 1))
                async with open_store(moment.path, read_only=True) as stopped:
                    then = await told(stopped, sessions=not erased)
                same(await told(view, sessions=not erased), then)
            else:
                assert await all_ids(view) == sorted(set(moment.frames) - lost)
                for frame_id in lost:
                    with pytest.raises(FrameNotFoundError):
                        await view.get(frame_id)


@examples(0.5)
@given(HISTORIES)
def test_a_view_is_the_store_that_was_stopped_there(history):
    async def live():
        with tempfile.TemporaryDirectory() as folder, eager_saving(), small_tables():
            life = Life(Path(folder))
            store = await life.run(history)
            await check_moments(store, life)
            await store.aclose()
            store = await open_store(life.path, config=life.config)
            await check_moments(store, life)
            # What was saved bit by bit holds what all events together fold to.
            assert (await store.verify()).ok
            await store.compact()
            life.erased = set(range(1, life.last_id + 1)) - set(life.frames)
            life.gone_sessions |= life.dropped
            await check_moments(store, life)
            report = await store.verify()
            assert report.ok, report.problems
            await store.aclose()

    asyncio.run(live())


async def check_naive(store, frames):
    assert await all_ids(store) == sorted(frames)
    for frame_id, naive in frames.items():
        frame = await store.get(frame_id)
        assert await store.read_content(frame.content) == naive.raw
        fields = (frame.title, frame.uri, frame.media_type, frame.tags, dict(frame.metadata))
        assert fields == (naive.title, naive.uri, naive.media_type, naive.tags, naive.metadata)
    for word in WORDS:
        hits = await ids_of(store, word, top_k=1000)
        assert sorted(hits) == [n for n, f in sorted(frames.items()) if word in f.words]
    red = await ids_of(store, "otter river fox", tags=["red"], top_k=1000)
    wanted = {"otter", "river", "fox"}
    naive_red = [n for n, f in sorted(frames.items()) if "red" in f.tags and wanted & f.words]
    assert sorted(red) == naive_red
    vectors = {n: f.vector for n, f in frames.items() if f.vector is not None}
    if vectors:
        result = await store.find(
            None, mode="semantic", embedding=VECTORS[0], embedding_model=MODEL, top_k=1000
        )
        scores = {n: cosine(VECTORS[0], vector) for n, vector in vectors.items()}
        assert {h.frame_id: pytest.approx(h.score, abs=2e-6) for h in result.hits} == scores


@examples(0.5)
@given(HISTORIES)
def test_the_memory_is_what_was_told_with_a_saved_index_or_without(history):
    async def live():
        with tempfile.TemporaryDirectory() as folder, eager_saving(), small_tables():
            life = Life(Path(folder))
            store = await life.run(history)
            await check_naive(store, life.frames)
            before = await told(store)
            await store.aclose()
            async with open_store(life.path, read_only=True) as again:
                same(await told(again), before)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(memory.FoldedMemory, "_load", lambda *_: None)
                async with open_store(life.path, read_only=True) as refolded:
                    same(await told(refolded), before)
                    await check_naive(refolded, life.frames)

    asyncio.run(live())


# By hand.


async def test_a_view_of_a_checkpoint_is_the_memory_before_it(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await store.put("first words")
        await recorder.create_checkpoint()
        await store.put("second words")
        await recorder.create_checkpoint()
        await store.update(1, "changed words")
    await store.delete(2)
    session_id = recorder.session_id
    for checkpoint_id, ids in ((0, [1]), (1, [1, 2])):
        view = await store.at(session_id=session_id, checkpoint_id=checkpoint_id)
        assert await all_ids(view) == ids
        assert (await view.get(1)).content.preview == "first words"
        assert await ids_of(view, "words") == ids
        snapshot = (await store.get_session(session_id)).checkpoints[checkpoint_id].snapshot
        assert view.sequence == snapshot.log_sequence
        assert len(await all_ids(view)) == snapshot.frame_count
        session = await view.get_session(session_id)
        assert len(session.checkpoints) == checkpoint_id
        assert session.ended_ns is None
    view = await store.at(session_id=session_id)
    assert (await view.get(1)).content.preview == "changed words"
    assert await all_ids(view) == [1, 2]


async def test_a_view_before_everything_is_empty(make_store):
    store = await make_store()
    view = await store.at(sequence=0)
    assert await all_ids(view) == []
    assert await ids_of(view, "words") == []
    await store.put("words")
    for empty in (view, await store.at(time_ns=0), await store.at(sequence=1)):
        assert await all_ids(empty) == []
        assert await empty.list_sessions(include_open=True) == []
        with pytest.raises(FrameNotFoundError):
            await empty.get(1)
    assert await all_ids(await store.at(sequence=2)) == [1]


async def test_a_moment_that_is_none_is_named(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await recorder.create_checkpoint()
    for given_moment in (
        {},
        {"sequence": 1, "time_ns": 1},
        {"checkpoint_id": 0},
        {"sequence": -1},
        {"sequence": True},
        {"sequence": store.last_sequence + 1},
        {"time_ns": "now"},
        {"session_id": "x"},
        {"session_id": recorder.session_id, "checkpoint_id": "0"},
    ):
        with pytest.raises(InvalidValueError):
            await store.at(**given_moment)
    with pytest.raises(CheckpointNotFoundError):
        await store.at(session_id=recorder.session_id, checkpoint_id=1)
    other = await make_store("other.mva")
    with pytest.raises(SessionNotFoundError):
        await other.at(session_id=recorder.session_id)


async def test_a_view_outlives_changes_and_compactions_of_the_store(make_store):
    store = await make_store()
    await store.put_many(["one otter", "two otters", "three otters"])
    view = await store.at(sequence=store.last_sequence)
    first = await view.find("otter")
    for n in range(5):
        await store.put(f"later otter {n}")
    await store.update(1, "no such animal")
    assert (await view.find("otter")).hits == first.hits
    await store.compact()
    assert (await view.find("otter")).hits == first.hits
    await store.delete(2)
    assert (await view.find("otter")).hits == first.hits
    await store.compact()
    result = await view.find("otter")
    assert result.incomplete == 1
    assert sorted(hit.frame_id for hit in result.hits) == [1, 3]


async def test_views_beyond_the_bound_are_folded_anew(make_store, monkeypatch):
    folded = []
    restart = memory.FoldedMemory._restart

    def counted(self, *args, **rest):
        folded.append(self)
        return restart(self, *args, **rest)

    monkeypatch.setattr(memory.FoldedMemory, "_restart", counted)
    store = await make_store()
    for n in range(8):
        await store.put(f"number {n} of them")
    views = [await store.at(sequence=n) for n in range(2, 10)]
    for _ in range(2):
        for n, view in enumerate(views, start=1):
            assert await all_ids(view) == list(range(1, n + 1))
    assert len(folded) == 16
    for _ in range(5):
        assert await ids_of(views[-1], "number 3")
    assert len(folded) == 16


async def test_asking_a_view_again_folds_nothing(make_store, monkeypatch):
    store = await make_store()
    await store.put_many([f"text {n}" for n in range(50)])
    view = await store.at(sequence=store.last_sequence)
    await view.find("text")
    monkeypatch.setattr(memory.FoldedMemory, "_take_in", None)
    for _ in range(3):
        assert len(await ids_of(view, "text", top_k=99)) == 50


async def test_a_follower_has_views_too(make_store):
    store = await make_store()
    await store.put("first")
    moment = store.last_sequence
    await store.update(1, "second")
    follower = await make_store(read_only=True)
    view = await follower.at(sequence=moment)
    assert (await view.get(1)).content.preview == "first"
    assert await ids_of(view, "first") == [1]


async def test_a_view_inside_a_session_records_nothing(make_store):
    store = await make_store()
    async with store.session(config=RecordingConfig()) as recorder:
        await store.put("words")
        view = await store.at(sequence=store.last_sequence)
        await view.find("words")
        await view.get(1)
        await all_ids(view)
    assert len((await store.get_session(recorder.session_id)).actions) == 1


async def test_a_view_embeds_the_query_as_the_store_does(make_store):
    config = StoreConfig(embedder=lambda texts: [[len(t), 1.0] for t in texts], embedding_model="m")
    store = await make_store(config=config)
    await store.put("short")
    await store.put("a much longer text")
    view = await store.at(sequence=store.last_sequence)
    await store.put("another")
    assert await ids_of(view, "tiny", mode="semantic") == [1, 2]


@pytest.mark.parametrize("saved", [False, True])
async def test_a_memory_may_be_folded_event_by_event(make_store, saved):
    """As a replay does."""
    store = await make_store()
    with eager_saving() if saved else pytest.MonkeyPatch.context():
        for n in range(4):
            await store.put_many([f"text {n} {k}" for k in range(5)])
            await store.find("text")
        await store.aclose()
    store = await make_store(read_only=True)
    await store.find("text")
    view = store._engine.view
    folded = memory.FoldedMemory(is_live=False)
    for until in range(1, view.state.last_sequence + 1):
        rows = folded.catch_up(view, until).scan()
        # The memory's configuration comes before its frames.
        versions = [(sequence, place) for sequence in range(2, until + 1) for place in range(5)]
        assert [row.version for row in rows] == versions
        assert [row.frame_id for row in rows] == list(range(1, len(versions) + 1))
    folded.close()
