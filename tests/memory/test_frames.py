"""Frames: put, changed, listed and found; in one store, in several, and by followers."""

from typing import Any

import anyio
import pytest

from memvid_async import (
    ActionKind,
    ActionRecorded,
    ContentNotFoundError,
    Durability,
    FrameNotFoundError,
    InvalidValueError,
    LimitExceededError,
    StoreClosedError,
    StoreConfig,
    StoreReadOnlyError,
    open_store,
)
from memvid_async.search.search_index import SearchIndex
from tests.support.frame_calls import actions_of, all_ids, body, ids_of, stream

KIB = 1024
MIB = 1024 * KIB


async def test_what_is_put_comes_back(make_store):
    store = await make_store()
    first = await store.put(
        "The otter sleeps.",
        title="Otters",
        uri="mv2://animals/otter",
        metadata={"n": 1, "deep": {"list": [1, None, b"x"]}},
        tags=("animal", "river", "animal"),
        media_type="text/plain",
    )
    second = await store.put(b"\x00\xff", media_type="application/octet-stream")
    third = await store.put("")
    assert (first, second, third) == (1, 2, 3)
    frame = await store.get(1)
    assert (frame.frame_id, frame.title, frame.uri) == (1, "Otters", "mv2://animals/otter")
    assert frame.metadata == {"n": 1, "deep": {"list": [1, None, b"x"]}}
    assert (frame.tags, frame.media_type) == (("animal", "river"), "text/plain")
    assert frame.created_ns == frame.updated_ns > 0
    assert await store.read_content(frame.content) == b"The otter sleeps."
    assert frame.content.preview == "The otter sleeps."
    assert await body(store, 2) == b"\x00\xff"
    assert await body(store, 3) == b""
    assert await ids_of(store, "otters sleeping") == [1]


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 70_000, 3 * MIB])
@pytest.mark.parametrize("kind", [str, bytes])
async def test_content_of_any_size_comes_back_and_is_found(make_store, size, kind):
    store = await make_store()
    words = ("needle " + "haystack " * (size // 9 + 1))[:size]
    await store.put(words if kind is str else words.encode(), media_type="text/plain")
    assert await body(store, 1) == words.encode()
    assert (await store.get(1)).content.size == size
    assert await ids_of(store, "needle" if size > 6 else words) == [1]


async def test_the_same_large_content_is_kept_once_and_opens_to_the_same_state(make_store):
    store = await make_store()
    text = "the same words " * 4000
    await store.put(text)
    before = store.statistics().file_bytes
    await store.put(text)
    await store.update(1, text)
    assert store.statistics().file_bytes < before + 2000
    snapshot = store._engine.view.state.snapshot()
    await store.aclose()
    again = await make_store()
    assert again._engine.view.state.snapshot() == snapshot
    assert await body(again, 2) == text.encode()


async def test_put_many_is_all_or_nothing(make_store):
    store = await make_store()
    assert await store.put_many([]) == []
    given = ["one", b"two", {"content": "three", "title": "T", "tags": ["t"], "metadata": {"a": 1}}]
    assert await store.put_many(iter(given)) == [1, 2, 3]
    assert [await body(store, n) for n in (1, 2, 3)] == [b"one", b"two", b"three"]
    assert (await store.get(3)).metadata == {"a": 1}
    for wrong, error in (
        ({"content": 5}, InvalidValueError),
        ({"content": "5", "title": "x" * 5_000}, LimitExceededError),
    ):
        with pytest.raises(error) as caught:
            await store.put_many(["four", wrong, "six"])
        assert caught.value.__notes__ == ["in item 1"]
        with pytest.raises(error) as caught:
            await store.put(**wrong)
        assert not hasattr(caught.value, "__notes__")
    assert await all_ids(store) == [1, 2, 3]
    assert await store.put("four") == 4


async def test_an_update_changes_what_it_names_and_nothing_else(make_store):
    store = await make_store()
    await store.put("first words", title="T", uri="u", tags=["a"], metadata={"k": 1})
    before = await store.get(1)
    await store.update(1, title="new title")
    after = await store.get(1)
    assert (after.title, after.uri, after.tags, after.metadata) == (
        "new title",
        "u",
        ("a",),
        {"k": 1},
    )
    assert after.created_ns == before.created_ns
    assert after.updated_ns >= before.updated_ns
    assert after.sequence == before.sequence
    await store.update(1, "second words", tags=(), metadata=None, uri=None, title=None)
    after = await store.get(1)
    assert (after.title, after.uri, after.tags, after.metadata) == (None, None, (), {})
    assert after.sequence == store.last_sequence
    assert await body(store, 1) == b"second words"
    assert await ids_of(store, "first") == []
    assert await ids_of(store, "second") == [1]


async def test_a_media_type_makes_bytes_searchable_or_not(make_store):
    store = await make_store()
    await store.put(b"legible words")
    assert await ids_of(store, "legible") == []
    await store.update(1, media_type="text/plain")
    assert await ids_of(store, "legible") == [1]
    await store.update(1, media_type="image/png")
    assert await ids_of(store, "legible") == []
    assert await body(store, 1) == b"legible words"


async def test_a_deleted_frame_is_hidden_at_once_and_its_id_never_comes_back(make_store):
    store = await make_store()
    await store.put_many(["one word", "two words", "three words"])
    await store.delete(2)
    assert await all_ids(store) == [1, 3]
    assert await ids_of(store, "two") == []
    for call in (store.get(2), store.delete(2), store.update(2, "x"), store.update(2, title="x")):
        with pytest.raises(FrameNotFoundError):
            await call
    assert await store.put("four") == 4
    await store.delete(4)
    await store.aclose()
    store = await make_store()
    assert await store.put("five") == 5


@pytest.mark.parametrize("limit", [0, 1, 99, 100, 101, 250, 300])
async def test_no_more_frames_are_read_than_the_limit(make_store, monkeypatch, limit):
    store = await make_store()
    ids = await store.put_many([f"frame {number}" for number in range(250)])
    read: list[int] = []
    scan = SearchIndex.scan

    def counted(index: SearchIndex, **options: Any) -> Any:
        rows = scan(index, **options)
        read.extend(row.frame_id for row in rows)
        return rows

    monkeypatch.setattr(SearchIndex, "scan", counted)
    listed = [frame.frame_id async for frame in store.frames(limit=limit)]
    assert listed == read == ids[:limit]
    newest = [frame.frame_id async for frame in store.frames(limit=limit, newest_first=True)]
    assert newest == ids[::-1][:limit]


async def test_a_context_is_what_an_ask_passes_to_its_model(make_store):
    store = await make_store()
    await store.put_many(
        ["Rain in Oslo.", "Sun in Rome.", {"content": "Fog in Oslo.", "tags": ["x"]}]
    )
    prompts = []
    await store.ask("Oslo?", generate=lambda prompt: prompts.append(prompt) or "", tags=["x"])
    assert await store.context("Oslo?", tags=["x"]) == prompts[0].context
    moment = await store.at(sequence=store.last_sequence)
    assert [item.text for item in (await moment.context("Oslo", top_k=1)).items] == [
        "Rain in Oslo."
    ]
    with pytest.raises(InvalidValueError):
        await store.context("Oslo?", mode="semantic")


async def test_frames_are_listed_in_order_and_filtered(make_store):
    store = await make_store()
    for n in range(1, 251):
        await store.put(f"frame {n}", tags=["odd"] if n % 2 else (), uri=f"mv2://{n % 10}/{n}")
    assert await all_ids(store) == list(range(1, 251))
    assert await all_ids(store, newest_first=True) == list(range(250, 0, -1))
    assert await all_ids(store, tags=["odd"]) == list(range(1, 251, 2))
    assert await all_ids(store, after=240, tags=["odd"]) == [241, 243, 245, 247, 249]
    assert await all_ids(store, after=11, newest_first=True, uri="mv2://0/") == [10]
    created = (await store.get(5)).created_ns
    assert await all_ids(store, until_ns=created) == [1, 2, 3, 4]
    assert (await all_ids(store, since_ns=created))[:2] == [5, 6]


async def test_find_is_filtered_by_every_field(make_store):
    store = await make_store()
    await store.put("same words", tags=["a", "b"], uri="x://1", title="One", metadata={"k": 1})
    await store.put("same words", tags=["a"], uri="x://2", title="Two", metadata={"k": True})
    await store.put("same words", uri="y://3", media_type="text/plain", metadata={"k": [1]})
    # The fewer words a frame has besides, the better it is.
    assert await ids_of(store, "words") == [3, 2, 1]
    assert await ids_of(store, "words", tags=["a"]) == [2, 1]
    assert await ids_of(store, "words", tags=["a", "b"]) == [1]
    assert await ids_of(store, "words", uri="x://") == [2, 1]
    assert await ids_of(store, "words", title="Two") == [2]
    assert await ids_of(store, "words", media_type="text/plain") == [3]
    assert await ids_of(store, "words", metadata={"k": 1}) == [1]
    assert await ids_of(store, "words", metadata={"k": [1]}) == [3]
    assert await ids_of(store, "words", top_k=2) == [3, 2]


async def test_identifiers_are_found_whole_and_by_their_parts(make_store):
    store = await make_store()
    await store.put_many(
        ["call getUserName()", "C++ for POL-358", "C# for POL-359", "a C compiler", "in python3"]
    )
    asked = ("getusername", "user", "C++", "c#", "C", "POL-359", '"pol-358"', "python")
    found = [await ids_of(store, query) for query in asked]
    assert found == [[1], [1], [2], [3], [4], [3, 2], [2], [5]]
    for query, marked in (
        ("getUserName", "call [getUserName]()"),
        ("python", "in [python3]"),
        ("in", "[in] python3"),
        ("in python", "in [python3]"),  # a function word counts where there is nothing else
    ):
        assert (await store.find(query)).hits[0].snippet == marked


async def test_texts_of_other_types_and_encodings_are_found(make_store):
    store = await make_store()
    for data, media_type in (
        (b'{"city": "Oslo"}', "application/ld+json"),
        ("Zürich".encode("utf-16"), "text/plain"),
        ("Genève".encode("latin-1"), "text/csv"),
        ("Tromsø".encode(), "image/svg+xml"),
    ):
        await store.put(data, media_type=media_type)
    found = [await ids_of(store, city) for city in ("oslo", "zurich", "Genève", "Tromsø")]
    assert found == [[1], [2], [3], [4]]


async def test_a_query_without_syntax_is_text(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await store.put_many(["a quick brown fox", "a lazy dog -fox", "title case"])
        assert await ids_of(store, "dog -fox title:case", syntax=False) == [3, 2, 1]
        assert await ids_of(store, '"quick dog" -lazy', syntax=False) == [2, 1]
        answer = await store.ask("dog -fox", generate=lambda _: "no", syntax=False)
    assert await ids_of(store, "dog -fox") == []
    assert [hit.frame_id for hit in answer.hits] == [2, 1]
    assert answer.hits[0].snippet == "a lazy [dog] -[fox]"
    session = await store.get_session(recorder.session_id)
    finds = [action.retrieval.syntax for action in session.actions if action.retrieval]
    assert finds == [False, False, False]
    report = await store.replay(recorder.session_id).report()
    assert {step.verdict.name for step in report.steps} <= {"MATCHED", "SKIPPED"}
    view = await store.at(sequence=store.last_sequence)
    plain = await view.find("dog -fox", syntax=False)
    assert [hit.frame_id for hit in plain.hits] == [2, 1]
    with pytest.raises(InvalidValueError, match="syntax"):
        await store.find("dog", syntax="no")


async def test_words_that_every_frame_has_still_order_a_small_memory(make_store):
    store = await make_store()
    await store.put_many(["tea", "tea or coffee, and a long talk about tea and weather", "tea tea"])
    found = await store.find("tea")
    assert [hit.frame_id for hit in found.hits] == [3, 1, 2]
    assert len({hit.score for hit in found.hits}) == 3
    assert all(hit.score > 0.001 for hit in found.hits)
    assert (await store.find("coffee tea")).hits[0].frame_id == 2


async def test_every_put_is_found_by_the_next_find(make_store):
    store = await make_store()
    for n in range(60):
        frame_id = await store.put(f"word{n} common")
        assert await ids_of(store, f"word{n}") == [frame_id]
    assert len(await ids_of(store, "common", top_k=100)) == 60


async def test_equal_scores_come_in_the_order_of_ids(make_store):
    store = await make_store()
    await store.put_many(["just the same text"] * 30)
    found = await store.find("same text", top_k=30)
    assert [hit.frame_id for hit in found.hits] == list(range(1, 31))
    assert len({hit.score for hit in found.hits}) == 1


async def test_hits_carry_a_snippet_title_and_uri(make_store):
    store = await make_store()
    await store.put("Before it. The quick otter swims. After it.", title="T", uri="u")
    result = await store.find("otters")
    (hit,) = result.hits
    assert (hit.title, hit.uri) == ("T", "u")
    assert "[otter]" in hit.snippet
    assert hit.score > 0
    assert (result.mode, result.as_of, result.incomplete) == ("lexical", store.last_sequence, 0)
    assert result.duration_ms > 0


async def test_outside_a_session_nothing_is_recorded(make_store):
    store = await make_store()
    await store.put("words")
    await store.update(1, title="t")
    await store.find("words")
    answer = await store.ask("words", generate=lambda _: "fine", provider="p", model="m")
    await store.delete(1)
    assert (answer.text, answer.action) == ("fine", None)
    async with store.subscribe() as events:
        names = []
        async for event in events:
            names.append(type(event.payload).__name__)
            if event.sequence == store.last_sequence:
                break
    assert names == ["MemoryConfigured", "FramesPut", "FrameUpdated", "FrameDeleted"]
    assert await store.list_sessions(include_open=True) == []


async def test_a_file_keeps_the_language_of_its_first_frame(make_store):
    store = await make_store(config=StoreConfig(language="none"))
    await store.put("many otters")
    assert await ids_of(store, "otter") == []
    await store.aclose()
    store = await make_store(config=StoreConfig(language="english"))
    await store.put("more otters")
    assert await ids_of(store, "otter") == []
    assert await ids_of(store, "otters") == [1, 2]


# Buffered stores, followers, other processes.


async def test_a_buffered_store_sees_its_own_writes(make_store):
    config = StoreConfig(durability=Durability.BUFFERED, flush_interval=3600)
    store = await make_store(config=config)
    async with store.session() as recorder:
        assert await store.put("first words") == 1
        assert await ids_of(store, "words") == [1]
        assert await store.put_many(["second words", "third " * 300]) == [2, 3]
        await store.update(1, "changed")
        assert (await store.get(1)).content.preview == "changed"
        await store.delete(2)
        assert await all_ids(store) == [1, 3]
        await store.sync()
    assert len(await actions_of(store, recorder)) == 5


async def test_a_follower_sees_the_frames_of_another(make_store):
    writer = await make_store()
    await writer.put("from the start")
    follower = await make_store(read_only=True)
    assert await ids_of(follower, "start") == [1]
    await writer.put("and later")
    await writer.update(1, "changed since")
    assert await ids_of(follower, "later") == [2]
    assert (await follower.get(1)).content.preview == "changed since"
    await writer.delete(2)
    await writer.compact()
    await writer.put("after the compaction")
    assert await all_ids(follower) == [1, 3]
    assert await ids_of(follower, "compaction") == [3]
    for call in (
        follower.put("x"), follower.put_many(["x"]), follower.update(1, "x"), follower.delete(1),
        follower.put(stream(b"x")),
    ):  # fmt: skip
        with pytest.raises(StoreReadOnlyError):
            await call
    answer = await follower.ask(
        "changed", generate=lambda prompt: str(prompt.context), provider="p", model="m"
    )
    assert (answer.text, answer.action) == ("[1] changed since", None)


async def test_two_stores_write_into_one_memory(make_store):
    one, two = await make_store(), await make_store()
    given = []
    for n in range(20):
        given.append(await (one, two)[n % 2].put(f"frame {n} words"))
        assert await ids_of((one, two)[n % 2], f"{n}", top_k=50) == [n + 1]
    assert given == list(range(1, 21))
    async with anyio.create_task_group() as group:
        for n in range(40):
            group.start_soon((one, two)[n % 2].put, f"together {n}")
    # A writer takes in what others wrote when it writes itself.
    await one.put("the last of one")
    await two.put("the last of two")
    await one.update(1, title="now it has seen both")
    await two.sync()
    assert await all_ids(one) == list(range(1, 63))
    await one.delete(3)
    with pytest.raises(FrameNotFoundError):
        await two.update(3, "x")
    await two.compact()
    await one.put("in the new file")
    await two.put("the last of all")
    await one.delete(64)
    await two.delete(63)
    await one.delete(62)
    assert await all_ids(one) == [n for n in range(1, 62) if n != 3]
    found = [hit.frame_id for hit in (await one.find("together", top_k=99)).hits]
    assert sorted(found) == list(range(21, 61))


async def test_many_tasks_put_and_find_at_once(make_store):
    store = await make_store()

    async def work(n):
        for k in range(10):
            frame_id = await store.put(f"task{n} step{k}")
            assert frame_id in await ids_of(store, f"task{n}", top_k=100)

    async with anyio.create_task_group() as group:
        for n in range(12):
            group.start_soon(work, n)
    assert await all_ids(store) == list(range(1, 121))


async def test_a_closed_store_says_so(make_store):
    store = await make_store()
    await store.put("x")
    await store.aclose()
    for call in (store.put("y"), store.get(1), store.find("x"), all_ids(store), store.delete(1)):
        with pytest.raises(StoreClosedError):
            await call


async def test_content_of_another_file_is_not_found(make_store):
    store, other = await make_store(), await make_store("other.mva")
    await other.put(stream(b"x" * (2 * MIB)))
    content = (await other.get(1)).content
    with pytest.raises(ContentNotFoundError):
        await store.read_content(content)
    with pytest.raises(ContentNotFoundError):
        async for _ in store.stream_content(content):
            pass


async def test_a_subscriber_gets_frames_without_the_data_of_large_ones(make_store):
    store = await make_store()
    async with store.session(), store.subscribe(after=0) as events:
        await store.put("x" * 5000, title="T")
        found = []
        async for event in events:
            found.append(event)
            if isinstance(event.payload, ActionRecorded):
                break
    (put,) = next(e.payload for e in found if type(e.payload).__name__ == "FramesPut")
    assert (put.frame_id, put.title, put.content.size) == (1, "T", 5000)
    assert put.content.data is None
    assert found[-1].payload.action.kind is ActionKind.PUT


async def test_frames_in_a_file_opened_by_path_alone(tmp_path):
    async with open_store(tmp_path / "f.mva") as store:
        await store.put("kept")
    async with open_store(tmp_path / "f.mva", read_only=True) as store:
        assert await ids_of(store, "kept") == [1]
