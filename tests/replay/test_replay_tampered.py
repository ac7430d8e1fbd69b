"""What replaying notices of a recording that was changed in the file, with valid checksums."""

import pytest

from memvid_async import Content, CorruptFileError, Verdict
from tests.replay.test_replay_memory import record, tamper

pytestmark = pytest.mark.anyio

OPTIONS = {"task": "a task", "error": "an error", "metadata": {"a key": "a value"}}


async def record_semantic(store):
    async with store.session() as recorder:
        for number, vector in enumerate(([1, 0], [1, 1], [0, 1])):
            await store.put(f"frame {number}", embedding=vector, embedding_model="m")
        await store.find("frame", mode="semantic", embedding=[1, 0.1], embedding_model="m")  # 3
    return recorder.session_id


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("embedding", b"\0\0\0\0\0\0\x80\x3f"),  # [0, 1]
        ("embedding", b"\0\0\x80\x3f"),
        ("embedding_model", "other"),
        ("mode", "hybrid"),
        ("mode", "lexical"),
    ],
)
async def test_how_an_embedding_was_searched_is_done_again(make_store, monkeypatch, name, value):
    store = await make_store(check=False)
    session = await record_semantic(store)
    assert (await store.replay(session).report()).match_rate == 1
    tamper(monkeypatch, 3, name, value)
    report = await store.replay(session).report()
    assert report.first_divergence == report.steps[3]
    assert report.steps[3].differences


# docs/replay.md names these: nothing in the file attests them but its checksums.
@pytest.mark.parametrize(
    ("index", "name", "value"),
    [
        (1, "time_ns", 1),
        (1, "duration_ms", 9.5),
        (1, "task", "another"),
        (1, "error", "it failed"),
        (1, "metadata", {"a": 1}),
        (8, "output", Content("another reply")),
        (8, "provider", "another"),
        (8, "model", "another"),
        (6, "top_k", 100),
    ],
)
async def test_what_doing_it_again_cannot_notice(make_store, monkeypatch, index, name, value):
    store = await make_store(check=False)
    session = await record(store)
    tamper(monkeypatch, index, name, value)
    report = await store.replay(session).report()
    assert report.counts[Verdict.DIVERGED] == 0


async def record_marked(store):
    """Actions with marks in every field that a caller fills; per action, its marks."""
    marks = []

    def options():
        number = len(marks)
        made = {
            "task": f"task-{number}-of-it",
            "error": f"error-{number}-of-it",
            "metadata": {f"key-{number}-of-it": f"value-{number}-of-it"},
        }
        marks.append([made["task"], made["error"], *made["metadata"], *made["metadata"].values()])
        return made

    async with store.session() as recorder:
        await recorder.record_tool_call(
            "tool-0-of-it", arguments=["given-0-of-it"], result="said-0-of-it", **options()
        )
        marks[-1] += ["tool-0-of-it", "given-0-of-it", "said-0-of-it"]
        await recorder.record_ask(
            "query-1-of-it",
            provider="provider-1-of-it",
            model="model-1-of-it",
            response="response-1-of-it",
            duration_ms=1,
            messages=["message-1-of-it"],
            **options(),
        )
        marks[-1] += [f"{name}-1-of-it" for name in ("query", "provider", "model", "response")]
        marks[-1] += ["message-1-of-it"]
        await recorder.record_put(7, "data-2-of-it", **options())
        marks[-1] += ["data-2-of-it"]
        await recorder.record_find(
            "query-3-of-it", mode="mode-3-of-it", result_count=0, result_frames=(), **options()
        )
        marks[-1] += ["query-3-of-it", "mode-3-of-it"]
        await store.put("body-4-of-it", title="title-4-of-it", tags=["tag-4-of-it"])
        marks.append(["body-4-of-it", "title-4-of-it", "tag-4-of-it"])
        await store.find("body-4-of-it found-5-of-it", uri="uri-5-of-it")
        marks.append(["found-5-of-it", "uri-5-of-it"])
    return recorder.session_id, marks


async def test_a_changed_byte_of_any_field_is_reported_where_it_stands(make_store):
    """Without new checksums nothing can be changed, and the error names the place."""
    store = await make_store(check=False)
    session, marks = await record_marked(store)
    whole = store.path.read_bytes()
    behind = 0
    for of_action in marks:
        places = [whole.index(mark.encode()) for mark in of_action]
        for place in places:
            with store.path.open("r+b") as file:
                file.seek(place)
                file.write(bytes([whole[place] ^ 1]))
            with pytest.raises(CorruptFileError) as caught:
                await store.replay(session).report()
            assert behind < caught.value.offset < place
            with store.path.open("r+b") as file:
                file.seek(place)
                file.write(whole[place : place + 1])
        behind = max(places)
    assert (await store.replay(session).report()).counts[Verdict.DIVERGED] == 0
