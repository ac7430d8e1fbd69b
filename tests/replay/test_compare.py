"""Comparing sessions: aligned by content, every field told, ids and times left out."""

import json
import random
import uuid
from contextlib import asynccontextmanager

import pytest

from memvid_async import (
    ActionKind,
    ContentNotFoundError,
    Durability,
    InvalidValueError,
    SessionNotFoundError,
    StoreConfig,
)
from memvid_async.file.file_view import FileView
from memvid_async.replay.textdiff import text_diff

ASK = {"provider": "local", "model": "small", "response": "Because.", "duration_ms": 3}
BUFFERED = StoreConfig(durability=Durability.BUFFERED)


@pytest.fixture
async def store(make_store):
    return await make_store(config=BUFFERED)


async def record(store, *calls, **options):
    """A session of these calls, each a method's name and its arguments."""
    async with store.session(**options) as recorder:
        for name, args, kwargs in calls:
            await getattr(recorder, name)(*args, **kwargs)
    return recorder.session_id


def call(name, *args, **kwargs):
    return name, args, kwargs


EVERY_KIND = [
    call("record_ask", "Why?", **ASK, messages=[{"role": "user", "content": "Why?"}]),
    call("record_find", "where", mode="lex", result_count=2, result_frames=(3, 4)),
    call("record_put", 7, "a note"),
    call("record_put_many", (8, 9)),
    call("record_update", 7, "a better note"),
    call("record_delete", 8),
    call("record_tool_call", "look", arguments={"at": [1, b"\x00"]}, result="a cat"),
    call("create_checkpoint"),
]


async def test_a_session_equals_itself_and_its_like(store):
    first = await record(store, *EVERY_KIND, name="first")
    second = await record(store, *EVERY_KIND, name="second")
    for other in (first, second):
        comparison = await store.compare(first, other)
        assert comparison.is_equal
        assert comparison.first_divergence is None
        assert comparison.changed == comparison.only_in_a == comparison.only_in_b == ()
        assert [(a.kind, a.index, b.index) for a, b in comparison.equal] == [
            (kind, i, i)
            for i, kind in enumerate(
                ["ask", "find", "put", "put_many", "update", "delete", "tool_call", "checkpoint"]
            )
        ]


@pytest.mark.parametrize(
    ("place", "changes", "field"),
    [
        (0, {"args": ("Why not?",)}, "query"),
        (0, {"response": "So."}, "response"),
        (0, {"response": None}, "response"),
        (0, {"provider": "far"}, "provider"),
        (0, {"model": "large"}, "model"),
        (0, {"retrieved_frames": (1,)}, "retrieved_frames"),
        (0, {"messages": [{"role": "user", "content": "Why now?"}]}, "messages"),
        (0, {"messages": []}, "messages"),
        (0, {"task": "planner"}, "task"),
        (0, {"error": "TimeoutError"}, "error"),
        (0, {"metadata": {"k": 1}}, "metadata"),
        (1, {"args": ("here",)}, "query"),
        (1, {"mode": "sem"}, "mode"),
        (1, {"result_count": 3}, "result_count"),
        (1, {"result_frames": (4, 3)}, "result_frames"),
        (2, {"args": (6, "a note")}, "frame_id"),
        (2, {"args": (7, "a not")}, "data"),
        (3, {"args": ((9, 8),)}, "frame_ids"),
        (4, {"args": (7, "x")}, "data"),
        (5, {"args": (9,)}, "frame_id"),
        (6, {"arguments": {"at": [1, b"\x01"]}}, "arguments"),
        (6, {"result": b"\xff"}, "result"),
    ],
)
async def test_every_field_is_compared(store, place, changes, field):
    calls = list(EVERY_KIND)
    name, args, kwargs = calls[place]
    changes = dict(changes)
    calls[place] = (name, changes.pop("args", args), {**kwargs, **changes})
    comparison = await store.compare(await record(store, *EVERY_KIND), await record(store, *calls))
    assert not comparison.is_equal
    assert comparison.first_divergence == place
    (changed,) = comparison.changed
    assert (changed.a.index, changed.b.index) == (place, place)
    (difference,) = changed.differences
    assert difference.field == field
    assert difference.a != difference.b or field == "messages"
    assert any(line[0] in "+-" for line in difference.diff.splitlines())
    assert comparison.only_in_a == comparison.only_in_b == ()
    assert len(comparison.equal) == len(EVERY_KIND) - 1


@pytest.mark.parametrize(
    ("change", "field"),
    [({"top_k": 1}, "top_k"), ({"tags": ["toy"]}, "filters"), ({}, "scores")],
)
async def test_how_the_memory_was_searched_is_compared(store, change, field):
    await store.put("a red ball", tags=["toy"])
    await store.put("a red door and a red wall", tags=["toy"])
    sessions = []
    for options in ({}, change):
        async with store.session() as recorder:
            await store.find("red", **options)
        sessions.append(recorder.session_id)
        if not change:
            await store.put("nothing of the kind " * 30, tags=["toy"])
    comparison = await store.compare(*sessions)
    assert field in {d.field for d in comparison.changed[0].differences}
    assert (await store.compare(sessions[0], sessions[0])).is_equal


async def test_another_tool_is_no_change_of_the_same_call(store):
    a = await record(store, call("record_tool_call", "look", arguments=1))
    b = await record(store, call("record_tool_call", "listen", arguments=1))
    comparison = await store.compare(a, b)
    assert [x.details.name for x in comparison.only_in_a] == ["look"]
    assert [x.details.name for x in comparison.only_in_b] == ["listen"]
    assert comparison.changed == comparison.equal == ()


async def test_times_durations_and_made_up_task_names_are_no_content(store):
    a = await record(store, call("record_ask", "Why?", **ASK, task="Task-7"))
    b = await record(store, call("record_ask", "Why?", **{**ASK, "duration_ms": 99}, task="Task-8"))
    assert (await store.compare(a, b)).is_equal


async def test_ids_of_tool_calls_are_no_content(store):
    def run(call_id):
        asked = {"id": call_id, "function": {"name": "look", "arguments": "{}"}}
        response = json.dumps({"content": None, "tool_calls": [asked]})
        messages = [
            {"role": "user", "content": "Look " * 300},
            {"role": "assistant", "tool_calls": [asked]},
            {"role": "tool", "tool_call_id": call_id, "content": "A cat."},
        ]
        return (
            call("record_ask", "Look", **{**ASK, "response": response}, messages=messages[:1]),
            call("record_tool_call", "look", arguments={}, result="A cat."),
            call("record_ask", "A cat.", **ASK, messages=messages),
        )

    a, b = await record(store, *run("call_1")), await record(store, *run("call_2"))
    assert (await store.compare(a, b)).is_equal


async def test_an_inserted_action_moves_nothing(store):
    tools = [call("record_tool_call", "t", arguments=i) for i in range(20)]
    extra = call("record_put", 1, "new")
    a = await record(store, *tools)
    b = await record(store, *tools[:5], extra, *tools[5:15], *tools[16:])
    comparison = await store.compare(a, b)
    assert comparison.first_divergence == 5
    assert [x.index for x in comparison.only_in_a] == [15]
    assert [x.kind for x in comparison.only_in_b] == [ActionKind.PUT]
    assert comparison.changed == ()
    assert [(x.index, y.index) for x, y in comparison.equal][3:8] == [
        (3, 3),
        (4, 4),
        (5, 6),
        (6, 7),
        (7, 8),
    ]


async def test_every_action_is_in_one_place_of_the_answer(store):
    chosen = random.Random(11)
    for _ in range(20):
        sides = []
        for _ in range(2):
            calls = [chosen.choice(EVERY_KIND) for _ in range(chosen.randrange(15))]
            sides.append(await record(store, *calls))
        comparison = await store.compare(*sides)
        for k, only in enumerate((comparison.only_in_a, comparison.only_in_b)):
            paired = [pair[k] for pair in comparison.equal]
            paired += [(c.a, c.b)[k] for c in comparison.changed]
            indexes = sorted(action.index for action in (*paired, *only))
            assert indexes == list(range(len((await store.get_session(sides[k])).actions)))
        mirrored = await store.compare(*sides[::-1])
        assert len(mirrored.equal) == len(comparison.equal)
        assert mirrored.first_divergence == comparison.first_divergence


async def test_large_texts_are_told_by_their_differing_lines(store):
    lines = [f"line {i}" for i in range(2_000)]
    a = await record(store, call("record_put", 1, "\n".join(lines)))
    lines[1_000] = "another"
    b = await record(store, call("record_put", 1, "\n".join(lines)))
    (changed,) = (await store.compare(a, b)).changed
    assert changed.differences[0].diff.splitlines() == [
        "  …",
        "  line 998",
        "  line 999",
        "- line 1000",
        "+ another",
        "  line 1001",
        "  line 1002",
        "  …",
    ]


async def test_what_was_erased_is_said_to_be(make_store):
    # Only a recovery leaves a reference to what is gone; the reader is made to say so here.
    store = await make_store(config=BUFFERED)
    a = await record(store, call("record_put", 1, "x" * 2_000))
    b = await record(store, call("record_put", 1, "y" * 2_000))
    async with erased(store):
        (changed,) = (await store.compare(a, b)).changed
    assert changed.differences[0].diff == "  (erased)"


@asynccontextmanager
async def erased(store):
    def gone(*_):
        raise ContentNotFoundError("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileView, "value", gone)
        yield


async def test_a_session_must_exist(store):
    mine = await record(store)
    with pytest.raises(SessionNotFoundError):
        await store.compare(mine, uuid.uuid4())
    with pytest.raises(InvalidValueError):
        await store.compare(mine, "name")


def test_long_lines_are_shown_where_they_differ():
    a, b = "x" * 1_000 + "left" + "z" * 50, "x" * 1_000 + "right" + "z" * 50
    assert text_diff(a, b).splitlines() == [
        "- …" + "x" * 60 + "left" + "z" * 50,
        "+ …" + "x" * 60 + "right" + "z" * 50,
    ]
