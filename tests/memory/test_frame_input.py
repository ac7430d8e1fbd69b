"""What the memory is given: wrong values of every kind, streams, embeddings."""

import asyncio
import hashlib
import tracemalloc

import anyio
import pytest

from memvid_async import (
    ActionKind,
    FrameNotFoundError,
    InvalidValueError,
    LimitExceededError,
    Limits,
    StoreConfig,
)
from tests.support.frame_calls import actions_of, all_ids, body, ids_of, stream

KIB = 1024
MIB = 1024 * KIB

# Wrong input.

LIMITS = Limits(
    content_bytes=2000, value_bytes=500, title_chars=20, name_chars=10, tags=3, dimensions=4,
    top_k=50, frames=5, stream_bytes=3000, query_chars=30,
)  # fmt: skip
WRONG = {
    "content of no type": (lambda s: s.put(5), InvalidValueError),
    "no content": (lambda s: s.put(None), InvalidValueError),
    "a lone surrogate": (lambda s: s.put("\ud800"), InvalidValueError),
    "too much content": (lambda s: s.put("x" * 2001), LimitExceededError),
    "title": (lambda s: s.put("x", title=b"t"), InvalidValueError),
    "long title": (lambda s: s.put("x", title="t" * 21), LimitExceededError),
    "uri": (lambda s: s.put("x", uri=1), InvalidValueError),
    "media type": (lambda s: s.put("x", media_type=1), InvalidValueError),
    "tags as str": (lambda s: s.put("x", tags="abc"), InvalidValueError),
    "a tag of no type": (lambda s: s.put("x", tags=[1]), InvalidValueError),
    "a long tag": (lambda s: s.put("x", tags=["t" * 11]), LimitExceededError),
    "many tags": (lambda s: s.put("x", tags=list("abcd")), LimitExceededError),
    "tags without end": (lambda s: s.put("x", tags=iter(lambda: "t", 2)), LimitExceededError),
    "metadata as list": (lambda s: s.put("x", metadata=[1]), InvalidValueError),
    "metadata with a set": (lambda s: s.put("x", metadata={"a": {1}}), InvalidValueError),
    "large metadata": (lambda s: s.put("x", metadata={"a": "x" * 600}), LimitExceededError),
    "embedding as str": (lambda s: s.put("x", embedding="1"), InvalidValueError),
    "embedding of str": (lambda s: s.put("x", embedding=["1"]), InvalidValueError),
    "embedding of zeros": (lambda s: s.put("x", embedding=[0, 0]), InvalidValueError),
    "empty embedding": (lambda s: s.put("x", embedding=[]), InvalidValueError),
    "embedding with nan": (lambda s: s.put("x", embedding=[float("nan")]), InvalidValueError),
    "embedding beyond float32": (lambda s: s.put("x", embedding=[1e300]), InvalidValueError),
    "long embedding": (lambda s: s.put("x", embedding=[1] * 5), LimitExceededError),
    "endless embedding": (lambda s: s.put("x", embedding=iter(lambda: 1.0, 2)), LimitExceededError),
    "a model without embedding": (lambda s: s.put("x", embedding_model="m"), InvalidValueError),
    "put_many of a str": (lambda s: s.put_many("abc"), InvalidValueError),
    "put_many of a map": (lambda s: s.put_many({"content": "x"}), InvalidValueError),
    "put_many of nothing": (lambda s: s.put_many(5), InvalidValueError),
    "an unknown field": (lambda s: s.put_many([{"content": "x", "titel": "t"}]), InvalidValueError),
    "no content in an item": (lambda s: s.put_many([{"title": "t"}]), InvalidValueError),
    "too many items": (lambda s: s.put_many(["x"] * 6), LimitExceededError),
    "items without end": (lambda s: s.put_many(iter(lambda: "x", 2)), LimitExceededError),
    "update of nothing": (lambda s: s.update(1), InvalidValueError),
    "update with None": (lambda s: s.update(1, None), InvalidValueError),
    "update of an unknown field": (lambda s: s.update(1, titel="x"), InvalidValueError),
    "update of the model alone": (lambda s: s.update(1, embedding_model="m"), InvalidValueError),
    "update of no id": (lambda s: s.update("1", "x"), InvalidValueError),
    "update of no frame": (lambda s: s.update(9, "x"), FrameNotFoundError),
    "delete of no frame": (lambda s: s.delete(0), FrameNotFoundError),
    "delete of no id": (lambda s: s.delete(-1), InvalidValueError),
    "delete of a bool": (lambda s: s.delete(True), InvalidValueError),
    "get of no frame": (lambda s: s.get(2**62), FrameNotFoundError),
    "get of no id": (lambda s: s.get(None), InvalidValueError),
    "get beyond 63 bits": (lambda s: s.get(2**63), InvalidValueError),
    "find of bytes": (lambda s: s.find(b"x"), InvalidValueError),
    "find of nothing": (lambda s: s.find(None), InvalidValueError),
    "a long query": (lambda s: s.find("q" * 31), LimitExceededError),
    "find in a mode": (lambda s: s.find("x", mode="magic"), InvalidValueError),
    "find in no mode": (lambda s: s.find("x", mode=["lexical"]), InvalidValueError),
    "no top_k": (lambda s: s.find("x", top_k=0), InvalidValueError),
    "a true top_k": (lambda s: s.find("x", top_k=True), InvalidValueError),
    "a large top_k": (lambda s: s.find("x", top_k=51), LimitExceededError),
    "an unknown filter": (lambda s: s.find("x", tag="t"), InvalidValueError),
    "a filter of a wrong type": (lambda s: s.find("x", since_ns="today"), InvalidValueError),
    "a title as filter": (lambda s: s.find("x", title=1), InvalidValueError),
    "semantic without embedding": (lambda s: s.find("x", mode="semantic"), InvalidValueError),
    "hybrid without embedding": (lambda s: s.find("x", mode="hybrid"), InvalidValueError),
    "a task": (lambda s: s.find("x", task=1), InvalidValueError),
    "after": (lambda s: all_ids(s, after="x"), InvalidValueError),
    "a filter of frames": (lambda s: all_ids(s, tag="x"), InvalidValueError),
    "a question of bytes": (
        lambda s: s.ask(b"q", generate=lambda _: "", provider="p", model="m"), InvalidValueError
    ),
    "a provider": (
        lambda s: s.ask("q", generate=lambda _: "", provider=1, model="m"), InvalidValueError
    ),
    "a long model": (
        lambda s: s.ask("q", generate=lambda _: "", provider="p", model="m" * 11),
        LimitExceededError,
    ),
    "what cannot generate": (
        lambda s: s.ask("q", generate="no", provider="p", model="m"), InvalidValueError
    ),
    "messages of an ask": (
        lambda s: s.ask("q", generate=lambda _: "", provider="p", model="m", messages="abc"),
        InvalidValueError,
    ),
    "metadata of an ask": (
        lambda s: s.ask("q", generate=lambda _: "", provider="p", model="m", metadata=[1]),
        InvalidValueError,
    ),
    "a stream of text": (lambda s: s.put(stream("text")), InvalidValueError),
    "a long stream": (lambda s: s.put(stream(b"x" * 2000, b"x" * 2000)), LimitExceededError),
    "content to stream": (lambda s: anext(s.stream_content("x")), InvalidValueError),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_input_is_named_and_records_nothing(make_store, name):
    call, error = WRONG[name]
    store = await make_store(config=StoreConfig(limits=LIMITS))
    await store.put("x there")
    async with store.session() as recorder:
        before = store.last_sequence
        with pytest.raises(error):
            await call(store)
        assert store.last_sequence == before
        assert await all_ids(store) == [1]
    assert await actions_of(store, recorder) == ()


async def test_a_long_query_is_refused_before_anything_happens(make_store):
    store = await make_store(config=StoreConfig(limits=LIMITS))
    await store.put("q " * 20)
    view = await store.at(sequence=store.last_sequence)
    calls = []
    async with store.session() as recorder:
        for searching in (
            store.find("q" * 31),
            view.find("q" * 31),
            store.ask("q" * 31, generate=calls.append, provider="p", model="m"),
        ):
            with pytest.raises(LimitExceededError) as refused:
                await searching
            assert (refused.value.limit, refused.value.value) == ("query_chars", 31)
        await store.find("q" * 30)
    assert calls == []
    (action,) = await actions_of(store, recorder)
    assert action.kind is ActionKind.FIND


async def test_frames_given_to_an_ask_are_filtered_by_their_metadata(make_store):
    store = await make_store()
    await store.put_many([{"content": "dry", "metadata": {"n": n}} for n in range(3)])
    async with store.session():
        answer = await store.ask(
            "dry?",
            generate=lambda _: "",
            provider="p",
            model="m",
            metadata={"n": 7},
            frame_metadata={"n": 1},
        )
    assert [hit.frame_id for hit in answer.hits] == [2]
    assert (answer.action.metadata, answer.action.retrieval.parameters) == (
        {"n": 7},
        {"metadata": {"n": 1}},
    )


async def test_a_wrong_provider_is_refused_before_the_model_is_asked(make_store):
    store = await make_store()
    asked = []
    async with store.session():
        with pytest.raises(InvalidValueError):
            await store.ask("q", generate=lambda _: asked.append(1) or "", provider=1, model="m")
    assert asked == []


# Streams.


async def test_a_stream_is_kept_in_parts_and_comes_back_whole(make_store):
    store = await make_store()
    data = b"".join(hashlib.blake2b(n.to_bytes(4, "big")).digest() for n in range(40_000))
    pieces = [data[at : at + 77_777] for at in range(0, len(data), 77_777)]
    async with store.session() as recorder:
        frame_id = await store.put(stream(*pieces), title="S")
    frame = await store.get(frame_id)
    assert frame.content.digest == hashlib.blake2b(data, digest_size=32).digest()
    assert (frame.content.size, frame.title) == (len(data), "S")
    assert await store.read_content(frame.content) == data
    streamed = [piece async for piece in store.stream_content(frame.content)]
    assert b"".join(streamed) == data
    assert len(streamed) == 3
    assert max(map(len, streamed)) == MIB
    (put,) = await actions_of(store, recorder)
    assert await store.read_content(put.input) == data
    await store.update(frame_id, stream(b"shorter"))
    assert await body(store, frame_id) == b"shorter"
    await store.compact()
    view = await store.at(sequence=put.sequence)
    assert await store.read_content((await view.get(frame_id)).content) == data


@pytest.mark.parametrize("size", [0, 1, 1024, MIB, MIB + 1, 2 * MIB])
async def test_a_stream_of_any_length(make_store, size):
    store = await make_store()
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    await store.put(stream(data[: size // 2], b"", bytearray(data[size // 2 :])))
    await store.put(stream(data))
    for frame_id in (1, 2):
        content = (await store.get(frame_id)).content
        assert await store.read_content(content) == data
        assert b"".join([p async for p in store.stream_content(content)]) == data
    await store.aclose()
    again = await make_store()
    assert await body(again, 1) == data


async def test_a_long_stream_holds_little_in_memory(make_store):
    store = await make_store()

    async def chunks():
        for n in range(48):
            yield bytes([n]) * MIB

    tracemalloc.start()
    try:
        frame_id = await store.put(chunks())
        content = (await store.get(frame_id)).content
        length = 0
        async for piece in store.stream_content(content):
            length += len(piece)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert length == 48 * MIB
    assert peak < 16 * MIB


async def test_a_stream_that_ends_in_the_middle_leaves_nothing_to_be_seen(make_store):
    store = await make_store()
    await store.put("there before")

    async def broken():
        for n in range(3):
            yield bytes([n]) * MIB
        raise RuntimeError("gone")

    began = anyio.Event()

    async def endless():
        yield b"y" * (2 * MIB)
        began.set()
        await anyio.sleep_forever()

    async with store.session() as recorder:
        with pytest.raises(RuntimeError):
            await store.put(broken())
        with pytest.raises(RuntimeError):
            await store.update(1, broken())
        async with anyio.create_task_group() as group:
            group.start_soon(store.put, endless())
            await began.wait()
            group.cancel_scope.cancel()
        assert await all_ids(store) == [1]
        assert await store.put("next") == 2
    assert [a.kind for a in await actions_of(store, recorder)] == ["put"]
    large = store.statistics().file_bytes
    await store.compact()
    assert store.statistics().file_bytes < large - 4 * MIB
    assert await body(store, 1) == b"there before"


async def test_cancelled_calls_leave_the_store_sound(make_store):
    store = await make_store()
    for n in range(30):
        with anyio.move_on_after(0) as scope:
            await store.put(f"frame of cancelled {n}")
        assert scope.cancelled_caught
        with anyio.move_on_after(0):
            await store.find("cancelled")
    await store.put("the last")
    ids = await all_ids(store)
    assert ids == list(range(1, len(ids) + 1))
    assert await body(store, ids[-1]) == b"the last"


# Embeddings.


async def test_embeddings_are_searched_by_cosine(make_store):
    store = await make_store()
    for n, vector in enumerate(([1, 0], [1, 1], [0, 2]), start=1):
        await store.put(f"number {n}", embedding=vector, embedding_model="m")
    found = await store.find(None, mode="semantic", embedding=[0, 1], embedding_model="m")
    assert [(hit.frame_id, hit.score) for hit in found.hits] == [(3, 1.0), (2, 0.707107), (1, 0.0)]
    assert (await store.get(1)).embedding_model == "m"
    found = await store.find("one", mode="hybrid", embedding=[1, 0], embedding_model="m", top_k=1)
    assert [hit.frame_id for hit in found.hits] == [1]


async def test_embeddings_may_be_numpy_arrays(make_store):
    np = pytest.importorskip("numpy")
    store = await make_store()
    await store.put("one", embedding=np.array([1.0, 0.0]), embedding_model="m")
    rows = np.eye(2, dtype="float32")
    await store.put_many(
        [{"content": "two", "embedding": row, "embedding_model": "m"} for row in rows]
    )
    await store.update(1, embedding=np.array([0.0, 1.0]), embedding_model="m")
    query = np.array([0, 1], dtype="float16")
    assert await ids_of(store, None, mode="semantic", embedding=query, embedding_model="m") == [
        1,
        3,
        2,
    ]
    with pytest.raises(InvalidValueError):
        await store.put("x", embedding=np.eye(2), embedding_model="m")
    with pytest.raises(InvalidValueError):
        await store.put("x", embedding=np.array(["a"]), embedding_model="m")


async def test_embeddings_of_another_model_or_dimension_are_refused(make_store):
    store = await make_store()
    await store.put("one", embedding=[1, 0], embedding_model="m")
    wrong = [
        {"embedding": [1, 0, 0], "embedding_model": "m"},
        {"embedding": [1, 0], "embedding_model": "n"},
    ]
    wrong.append({"embedding": [1, 0]})
    for fields in wrong:
        for call in (
            lambda fields=fields: store.put("two", **fields),
            lambda fields=fields: store.put_many(["two", {"content": "three", **fields}]),
            lambda fields=fields: store.update(1, **fields),
        ):
            with pytest.raises(InvalidValueError):
                await call()
    with pytest.raises(InvalidValueError):
        await store.find("x", mode="semantic", embedding=[1, 0, 0], embedding_model="m")
    with pytest.raises(InvalidValueError):
        await store.find("x", mode="hybrid", embedding=[1, 0], embedding_model="n")
    mixed = [{"content": "a", "embedding": [1], "embedding_model": "m"}]
    mixed.append({"content": "b", "embedding": [1, 2], "embedding_model": "m"})
    other = await make_store("other.mva")
    with pytest.raises(InvalidValueError):
        await other.put_many(mixed)
    assert await all_ids(store) == [1]
    assert await all_ids(other) == []
    await store.delete(1)
    await store.aclose()
    # The space is the memory's, not the frames'.
    store = await make_store()
    with pytest.raises(InvalidValueError):
        await store.put("x", embedding=[1, 0, 0], embedding_model="m")
    await store.put("x", embedding=[1, 0], embedding_model="m")


def vector_of(text):
    return [float(len(text)), float(text.count("a")) + 0.5]


@pytest.mark.parametrize("is_async", [False, True])
async def test_an_embedder_gives_the_vectors_once_and_they_are_recorded(make_store, is_async):
    calls = []

    def embedder(texts):
        calls.append(list(texts))
        vectors = [vector_of(text) for text in texts]
        return asyncio.sleep(0, vectors) if is_async else vectors

    config = StoreConfig(embedder=embedder, embedding_model="toy")
    store = await make_store(config=config)
    await store.put("banana")
    await store.put_many(
        ["aaa", {"content": "own", "embedding": [1, 1], "embedding_model": "toy"}, "b"]
    )
    await store.put(b"no text")
    assert calls == [["banana"], ["aaa", "b"]]
    await store.update(1, "cherry")
    await store.update(1, title="no new text")
    assert calls[2:] == [["cherry"]]
    first = await store.find("aaa", mode="semantic")
    assert first.hits[0].frame_id == 2
    assert calls[3:] == [["aaa"]]
    await store.aclose()
    # Folding again calls nobody.
    store = await make_store()
    again = await store.find(
        None, mode="semantic", embedding=vector_of("aaa"), embedding_model="toy"
    )
    assert [(h.frame_id, h.score) for h in again.hits] == [
        (h.frame_id, h.score) for h in first.hits
    ]
    assert len(calls) == 4
    assert (await store.get(5)).embedding_model is None


@pytest.mark.parametrize(
    "given", [lambda _: [], lambda _: [[0.0, 0.0]], lambda _: [["x"]], lambda _: 5]
)
async def test_a_bad_embedder_is_named(make_store, given):
    store = await make_store(config=StoreConfig(embedder=given, embedding_model="toy"))
    with pytest.raises(InvalidValueError):
        await store.put("text")
    assert await all_ids(store) == []


async def test_an_error_of_the_embedder_is_raised_and_nothing_put(make_store):
    def embedder(_):
        raise RuntimeError("no service")

    store = await make_store(config=StoreConfig(embedder=embedder))
    with pytest.raises(RuntimeError, match="no service"):
        await store.put("text")
    assert store.last_sequence == 0


async def test_a_changed_text_drops_an_embedding_that_nobody_renews(make_store):
    store = await make_store()
    await store.put("one", embedding=[1, 0], embedding_model="m")
    await store.update(1, "another")
    assert await ids_of(store, None, mode="semantic", embedding=[1, 0], embedding_model="m") == []
    await store.update(1, embedding=[0, 1], embedding_model="m")
    assert await ids_of(store, None, mode="semantic", embedding=[1, 0], embedding_model="m") == [1]
    await store.update(1, embedding=None)
    assert await ids_of(store, None, mode="semantic", embedding=[1, 0], embedding_model="m") == []
