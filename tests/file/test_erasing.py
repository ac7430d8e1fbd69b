"""After a delete and a compaction nothing of a frame is left in the bytes of the file; the
memory's hash and count stay what they were."""

import asyncio
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given

from memvid_async import ContentNotFoundError, FrameNotFoundError, open_store
from memvid_async.memory import folded as memory
from tests.support.frame_calls import actions_of, all_ids, ids_of, stream
from tests.support.frame_plans import HISTORIES, Life, eager_saving
from tests.support.plans import examples, small_tables

MIB = 1024 * 1024
# Words that nothing else holds, long ones and such as the stemmer shortens.
SECRETS = [
    "xylomarzipanwhistle", "quixotrembling", "zephyrbaking", "vortexpanding", "jazzmuffinries",
    "krakenodding", "wyverniching", "oxidogling", "pyxlemmings", "fjordwalking",
]  # fmt: skip
BODY, LONG, TITLE, TAG, URI, KEY, VALUE, CHANGED, TYPE, STREAM = SECRETS


def left_of(path):
    """Which of the secrets, or their stems, are in the file, plain or in another case."""
    raw = path.read_bytes().lower()
    found = set()
    for word in SECRETS:
        for part in (word, word.removesuffix("ing").removesuffix("s"), word[:8], word[3:11]):
            if part.encode() in raw or part.encode("utf-16-le") in raw:
                found.add(part)
    return found


@pytest.fixture
def eager():
    with eager_saving():
        yield


async def put_secrets(store):
    """Frames that hold the secrets wherever a frame can; their ids."""
    first = await store.put(
        f"a short body with {BODY} in it",
        title=f"title {TITLE}",
        tags=[TAG, "kept"],
        uri=f"mv2://{URI}",
        metadata={KEY: {"deep": [VALUE]}},
        media_type=f"text/{TYPE}",
        embedding=[0.123456, 7.654321],
        embedding_model="m",
    )
    second = await store.put(f"{LONG} is long " * 200)
    third = await store.put("plain at first")
    await store.update(third, f"changed to {CHANGED} " * 3)
    await store.update(third, title=f"{TITLE} again")
    parts = (f"{STREAM} {n} ".encode() * (MIB // 16) for n in range(3))
    fourth = await store.put(stream(*parts), media_type="text/plain")
    return [first, second, third, fourth]


async def summary(store):
    state = store._engine.view.state
    return state.memory.frame_count, state.memory.memory_hash


@pytest.mark.parametrize("in_session", [False, True])
async def test_nothing_of_a_deleted_frame_is_left(make_store, eager, in_session):
    store = await make_store()
    await store.put_many(["it stays", "and so does this " * 100])
    recorder = store.session("records all of it") if in_session else None
    if recorder is not None:
        await recorder.__aenter__()
    ids = await put_secrets(store)
    for words in ("title", "body", "long", "changed", "again"):
        await store.find(words)
        await store.ask(words, generate=lambda _: "reply", provider="p", model="m")
    if recorder is not None:
        await recorder.__aexit__(None, None, None)
    await store.aclose()
    # The saved index holds them as well.
    assert len(left_of(store.path)) >= len(SECRETS)
    store = await make_store()
    for frame_id in ids:
        await store.delete(frame_id)
    before = await summary(store)
    await store.find("stays")
    report = await store.compact()
    assert report.erased_events > 0
    assert await summary(store) == before
    assert left_of(store.path) == set()
    # Nor do they come back when the index is saved again.
    await store.put("new text " * 500)
    assert await ids_of(store, "stays") == [1]
    await store.aclose()
    assert left_of(store.path) == set()
    again = await make_store()
    assert await all_ids(again) == [1, 2, 7]
    assert (await summary(again))[0] == 3
    assert left_of(again.path) == set()


async def test_the_embedding_of_a_deleted_frame_is_gone(make_store, eager):
    store = await make_store()
    vector = [0.1234567, -7.654321, 3.1415926]
    await store.put("kept", embedding=[1, 2, 3], embedding_model="m")
    await store.put("gone", embedding=vector, embedding_model="m")
    result = await store.find(None, mode="semantic", embedding=[1, 0, 0], embedding_model="m")
    assert len(result.hits) == 2
    raw = first_number(vector)
    await store.aclose()
    assert raw in store.path.read_bytes()
    store = await make_store()
    await store.delete(2)
    await store.compact()
    await store.find("kept")
    await store.aclose()
    assert raw not in store.path.read_bytes()


def first_number(vector):
    """The first number of a vector as it stands in a file."""
    return struct.pack("<f", vector[0])


async def test_a_recorded_context_says_what_was_erased_of_it(make_store):
    store = await make_store()
    await store.put_many(["an otter here", "an otter there " * 100])
    async with store.session() as recorder:
        await store.put("an otter everywhere")
        asked = await store.ask("otter", generate=lambda _: "fine", provider="p", model="m")
    assert asked.context.is_complete
    assert len(asked.context.items) == 3
    await store.delete(3)
    await store.delete(2)
    put, ask = await actions_of(store, recorder)
    # Until it is compacted the history can still be read.
    assert await store.read_context(ask) == asked.context
    await store.compact()
    put, ask = await actions_of(store, recorder)
    context = await store.read_context(ask)
    assert not context.is_complete
    assert {item.frame_id: item.text for item in context.items} == {
        1: "an otter here", 2: None, 3: None,
    }  # fmt: skip
    assert [item.score for item in context.items] == [i.score for i in asked.context.items]
    assert await store.read_chunks(ask) == ["fine"]
    with pytest.raises(ContentNotFoundError):
        await store.read_content(put.input)


async def test_content_that_a_session_gave_itself_stays(make_store):
    store = await make_store()
    text = f"{BODY} in a long text " * 100
    await store.put(text)
    async with store.session() as recorder:
        await recorder.record_tool_call("read", arguments=[1], result=text)
    await store.delete(1)
    await store.compact()
    (action,) = await actions_of(store, recorder)
    assert await store.read_content(action.output) == text.encode()
    await store.delete_session(recorder.session_id)
    await store.compact()
    assert left_of(store.path) == set()


async def test_content_of_two_frames_stays_until_both_are_gone(make_store):
    store = await make_store()
    text = f"{LONG} in a long text " * 100
    await store.put_many([text, text])
    await store.delete(1)
    await store.compact()
    assert await store.read_content((await store.get(2)).content) == text.encode()
    assert await ids_of(store, LONG) == [2]
    await store.delete(2)
    await store.compact()
    assert left_of(store.path) == set()


async def test_what_an_update_replaced_stays_for_views_until_the_frame_goes(make_store):
    store = await make_store()
    await store.put(f"{BODY} at first")
    moment = store.last_sequence
    await store.update(1, "nothing left")
    await store.compact()
    view = await store.at(sequence=moment)
    assert await ids_of(view, BODY) == [1]
    assert await ids_of(store, BODY) == []
    await store.delete(1)
    await store.compact()
    assert left_of(store.path) == set()
    view = await store.at(sequence=moment)
    assert (await view.find(BODY)).incomplete == 1
    with pytest.raises(FrameNotFoundError):
        await view.get(1)


async def test_a_frame_put_in_a_session_that_is_deleted_leaves_no_session_behind(make_store):
    store = await make_store()
    async with store.session(f"named {TITLE}") as recorder:
        await store.put("it stays")
        await store.put(f"{BODY} goes")
        await store.find(LONG)
    await store.delete(2)
    await store.delete_session(recorder.session_id)
    await store.compact()
    assert left_of(store.path) == set()
    assert await all_ids(store) == [1]


async def test_another_process_that_has_the_old_file_saves_nothing_of_it(make_store, eager):
    one, two = await make_store(), await make_store()
    await one.put("it stays")
    await one.put(f"{BODY} and {LONG} go")
    await two.put("from the other one")
    assert await ids_of(two, BODY) == [2]
    await one.delete(2)
    await one.compact()
    # It folded the old file; what it saves must be of the new one.
    for n in range(5):
        await two.put(f"more and more {n} " * 200)
        await two.find("more")
    await two.aclose()
    await one.aclose()
    assert left_of(one.path) == set()


@examples(0.3)
@given(HISTORIES)
def test_compaction_changes_neither_hash_nor_count(history):
    async def live():
        with tempfile.TemporaryDirectory() as folder, eager_saving(), small_tables():
            life = Life(Path(folder))
            store = await life.run(history)
            before = await summary(store)
            assert before[0] == len(life.frames)
            await store.compact()
            assert await summary(store) == before
            await store.aclose()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(memory.FoldedMemory, "_load", lambda *_: None)
                async with open_store(life.path, config=life.config) as again:
                    assert await summary(again) == before
                    assert await all_ids(again) == sorted(life.frames)

    asyncio.run(live())
