"""Chat runs as sessions: what becomes what, and that exactly what was read comes back."""

import asyncio
import json
import math
import os
from contextlib import nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import Durability, InvalidValueError, Limits, StoreConfig
from memvid_async.interop import chats
from memvid_async.interop.chat_plans import (
    KEY,
    PlannedAsk,
    PlannedToolCall,
    plan_run,
    rebuild_run,
)
from memvid_async.interop.chats import read_plans, record_run, restore_run
from memvid_async.interop.transcripts import TranscriptError, open_transcripts, parse_runs
from tests.support.chats import runs_of, same

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"it"}'}}
TURN = {"role": "assistant"}
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "name": "look", "content": "A cat."},
    {"role": "assistant", "content": "It is a cat."},
    {"role": "user", "content": "Thanks."},
]


def plan_of(messages: list[Any], **fields: Any) -> Any:
    (run,) = runs_of({"messages": messages, **fields})
    return plan_run(run)


def stored(plan: Any) -> tuple[dict[str, Any], list[Any]]:
    """A plan as a store returns it: metadata in deterministic CBOR, so with sorted keys."""

    def through(value: Any) -> Any:
        return cbor2.loads(cbor2.dumps(value, canonical=True))

    steps = [
        PlannedAsk(s.query, s.response, "", "", through(s.metadata))
        for s in plan.actions
        if isinstance(s, PlannedAsk)
    ]
    return through(plan.metadata), steps


# --- planning ----------------------------------------------------------------------------------


def test_a_chat_as_steps():
    plan = plan_of(CHAT, task_id=7)
    assert plan.name == "chat"
    first, call, second = plan.actions
    assert (first.query, json.loads(first.response)) == (
        "What is it?",
        {"content": None, "tool_calls": [CALL]},
    )
    assert (call.name, call.arguments, call.result) == ("look", {"at": "it"}, "A cat.")
    assert (second.query, second.response) == ("A cat.", "It is a cat.")
    assert first.metadata[KEY]["answers"][0]["fields"] == CHAT[0]
    assert first.metadata[KEY]["turn"] == [
        {"fields": {"role": "assistant"}, "said": ["content", "tool_calls"]}
    ]
    about = plan.metadata[KEY]
    assert about["fields"] == {"task_id": 7}
    assert about["messages"] == CHAT[5:]


def test_several_messages_are_answered_at_once():
    calls = [{**CALL, "id": "c1"}, {**CALL, "id": "c2"}]
    plan = plan_of(
        [
            {"role": "user", "content": "One."},
            {"role": "user", "content": "Two."},
            {"role": "assistant", "content": "Both.", "tool_calls": calls},
            {"role": "tool", "tool_call_id": "c2", "content": "second"},
            {"role": "tool", "tool_call_id": "c1", "content": "first"},
            {"role": "user", "content": "Well?"},
            {"role": "assistant", "content": "Done."},
        ]
    )
    ask, first, second, last = plan.actions
    assert ask.query == "One.\n\nTwo."
    assert (first.result, second.result) == ("first", "second")
    assert last.query == "second\n\nfirst\n\nWell?"


def test_a_call_without_a_result():
    plan = plan_of([*CHAT[:3], {"role": "exit", "content": "gone"}])
    assert [step.result for step in plan.actions[1:]] == [None]
    assert plan.metadata[KEY]["messages"][-1] == {"role": "exit", "content": "gone"}


def test_an_id_may_repeat_within_a_run():
    turn = CHAT[2]
    results = [{"role": "tool", "tool_call_id": "c1", "content": text} for text in "ab"]
    plan = plan_of([turn, results[0], turn, turn, results[1]])
    assert [s.result for s in plan.actions if isinstance(s, PlannedToolCall)] == ["a", None, "b"]


def test_a_legacy_function_call():
    call = {"name": "look", "arguments": "{}"}
    messages = [
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "look", "content": "seen"},
        {"role": "assistant", "content": "Seen.", "function_call": None},
    ]
    plan = plan_of(messages)
    assert (plan.actions[1].name, plan.actions[1].arguments, plan.actions[1].result) == (
        "look",
        {},
        "seen",
    )
    assert plan.actions[2].response == "Seen."
    assert same(rebuild_run(*stored(plan))["messages"], messages)


def test_content_in_parts():
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    parts = [{"type": "text", "text": "Look:"}, image, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": parts[:1]}]
    plan = plan_of(messages)
    assert plan.actions[0].query == "Look:\n\nWhat is it?"
    assert same(rebuild_run(*stored(plan))["messages"], messages)


@pytest.mark.parametrize(
    ("arguments", "recorded"),
    [
        ('{"b": 1, "a": [2.5, null]}', {"a": [2.5, None], "b": 1}),
        ('{"a":1,"a":2}', {"a": 2}),
        ("", ""),
        ("{broken", "{broken"),
        ('{"a": NaN}', {"a": math.nan}),
        ('{"a": 1e999}', {"a": math.inf}),
        ('{"a": "\\ud800"}', '{"a": "\\ud800"}'),
        ("9" * 30, 10**30 - 1),
        ("9" * 5000, "9" * 5000),
        ("[" * 40 + "]" * 40, "[" * 40 + "]" * 40),
        ({"a": 1}, {"a": 1}),
        (None, None),
    ],
)
def test_arguments_are_a_value_and_their_string_comes_back(arguments, recorded):
    call = {"id": "x", "function": {"name": "f", "arguments": arguments}}
    messages = [{"role": "assistant", "tool_calls": [call]}]
    plan = plan_of(messages)
    assert same(plan.actions[1].arguments, recorded)
    assert same(rebuild_run(*stored(plan))["messages"], messages)


def test_where_the_model_and_the_speaker_are_named():
    turn = {"role": "assistant", "content": "Hi.", "name": "critic"}
    deep = {**turn, "extra": {"response": {"model": "deep"}}}
    models = [
        plan_of([{**turn, "model": "own"}], model="run").actions[0].model,
        plan_of([deep], model="run").actions[0].model,
        plan_of([turn], model="run").actions[0].model,
        plan_of([turn], info={"config": {"model": {"model_name": "far"}}}).actions[0].model,
        plan_of([turn], info={"config": []}).actions[0].model,
    ]
    assert models == ["own", "deep", "run", "far", ""]
    assert plan_of([turn]).actions[0].task == "critic"
    assert plan_of([{**turn, "name": 7}]).actions[0].task == "assistant"


def test_runs_of_one_transcript_have_names_of_their_own():
    runs = runs_of([CHAT, CHAT], "x" * 300 + ".json")
    names = [plan_run(run).name for run in runs]
    assert [len(name) for name in names] == [256, 256]
    assert [name[-3:] for name in names] == ["x#0", "x#1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"role": "user", "content": ' + "9" * 5000 + "}", "has type VeryLongInteger"),
        ('{"role": "user", "content": ' + "[" * 40 + "]" * 40 + "}", "nested more than"),
    ],
)
def test_a_value_that_cannot_be_recorded_is_named_by_its_place(text, message):
    good, bad = runs_of(f'[[{{"role": "ai"}}], [{{"role": "assistant"}}, {text}]]'.encode())
    assert len(plan_run(good).actions) == 1
    with pytest.raises(TranscriptError, match=f"^chat.json, run 1, message 1: .*{message}"):
        plan_run(bad)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([TURN, {"role": "exit", "content": "x" * 2_000}], "after its last turn.*value_bytes"),
        ([{"role": "user", "note": "x" * 2_000}, TURN], "message 1: .*--limit value_bytes=N"),
        ([*[{"role": "user", "note": "x" * 400}, TURN] * 9], None),
        ([*[{"role": "user", "note": "x" * 400}] * 3, TURN], "message 3: .*value_bytes"),
        ([{"role": "assistant", "content": "x" * 800}], "message 0.*content_bytes"),
        ([{"role": "user", "content": "é" * 400}, TURN], "message 1: 800 .*content_bytes"),
    ],
)
def test_what_is_too_large_is_named_before_anything_is_recorded(messages, message):
    (run,) = runs_of(messages)
    limits = Limits(value_bytes=1_000, content_bytes=700)
    with (
        pytest.raises(TranscriptError, match=f"^chat.json.*{message}") if message else nullcontext()
    ):
        plan_run(run, limits)


def test_as_deep_as_a_plan_allows_is_as_deep_as_a_store_takes():
    deepest = 0
    for depth in range(1, 40):
        nested: Any = 0
        for _ in range(depth):
            nested = [nested]
        run = SimpleNamespace(messages=[TURN, {"role": "exit", "extra": nested}])
        try:
            plan = plan_run(runs_of(run.messages)[0])
        except TranscriptError:
            break
        assert same(rebuild_run(*stored(plan)), run.messages)
        deepest = depth
    assert deepest >= 25


# --- there and back ----------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=8)
ids = st.sampled_from(["c1", "c2", None, 3])
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | texts
values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
parts = st.fixed_dictionaries({"type": st.just("text")}, optional={"text": texts | values})
contents = texts | st.none() | st.lists(parts | values, max_size=3) | values
functions = st.fixed_dictionaries(
    {}, optional={"name": texts | values, "arguments": texts | values.map(json.dumps) | values}
)
tool_calls = st.lists(
    st.fixed_dictionaries({}, optional={"id": ids, "type": texts, "function": functions | values})
    | st.fixed_dictionaries({"custom": functions})
    | values,
    max_size=3,
)


def message_of(role: str, **optional: Any) -> st.SearchStrategy[dict[str, Any]]:
    optional = {"content": contents, "name": texts | values, "extra": values, **optional}
    return st.fixed_dictionaries({"role": st.just(role)}, optional=optional)


messages = st.lists(
    st.one_of(
        message_of("system"),
        message_of("user"),
        message_of(
            "assistant",
            tool_calls=tool_calls | values,
            function_call=functions | values,
            model=texts,
            position=values,
        ),
        message_of("tool", tool_call_id=ids),
        message_of("function"),
        values,
    ),
    max_size=10,
)


@given(
    messages,
    st.sampled_from(["traj", "messages", None]),
    st.dictionaries(texts, values, max_size=3),
)
def test_any_run_comes_back_whole(messages, key, fields):
    value = messages if key is None else {**fields, key: messages}
    runs = runs_of([value])
    if key is None and isinstance(runs[0], TranscriptError):
        pytest.fail(str(runs[0]))
    turns = [message for message in messages if is_turn(message)]
    if not turns:
        with pytest.raises(TranscriptError, match="no message of it is a turn of a model"):
            plan_run(runs[0])
        return
    plan = plan_run(runs[0])
    assert same(rebuild_run(*stored(plan)), value)
    asks = [step for step in plan.actions if isinstance(step, PlannedAsk)]
    assert len(asks) == len(turns)


@given(messages, st.data())
def test_a_run_with_a_step_missing_is_not_restored(messages, data):
    messages = [TURN, *messages]
    (run,) = runs_of([messages, CHAT])[:1]
    metadata, steps = stored(plan_run(run))
    lost = data.draw(st.sets(st.integers(0, 20)))
    left = [step for number, step in enumerate(steps) if number not in lost]
    with suppress(InvalidValueError):
        assert same(rebuild_run(metadata, left), messages)


@pytest.mark.parametrize(
    "metadata", [{}, {KEY: 7}, {KEY: {}}, {KEY: {"messages": [], "message_count": 10**18}}]
)
def test_other_metadata_is_not_taken_for_a_run(metadata):
    with pytest.raises(InvalidValueError, match="not a whole imported run"):
        rebuild_run(metadata, [])


# --- through a store ---------------------------------------------------------------------------


def is_turn(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


async def record_all(store: Any, path: Path) -> list[tuple[Any, Any]]:
    """Record every run of a transcript file; the session's id and its plan."""
    return [
        (await record_run(store, plan), plan)
        async for plans in read_plans(path)
        for plan in plans
        if not isinstance(plan, TranscriptError)
    ]


async def test_a_recorded_run_comes_back_from_the_file(tmp_path, make_store):
    runs = [{"messages": CHAT, "reward": 1.0}, {"traj": CHAT[:3], "task_id": 3}, CHAT]
    transcript = tmp_path / "chats.json"
    transcript.write_text(json.dumps(runs), encoding="utf-8")
    store = await make_store()
    recorded = await record_all(store, transcript)
    await store.aclose()

    store = await make_store()
    for (session_id, plan), run in zip(recorded, runs, strict=True):
        session = await store.get_session(session_id)
        assert session.name == plan.name
        assert session.ended_ns is not None
        assert [action.kind for action in session.actions][:2] == ["ask", "tool_call"]
        assert same(await restore_run(store, session_id), run)
    call = (await store.get_session(recorded[1][0])).actions[1]
    assert call.output is None
    assert await store.read_arguments(call) == {"at": "it"}


async def test_a_session_of_another_kind_is_not_restored(make_store):
    store = await make_store()
    async with store.session("by hand") as recorder:
        await recorder.record_tool_call("look", arguments=None)
    with pytest.raises(InvalidValueError, match="not a whole imported run"):
        await restore_run(store, recorder.session_id)


async def test_a_session_that_only_looks_imported_is_not_restored(make_store):
    store = await make_store()
    kept = {KEY: {"messages": [], "message_count": 0, "messages_key": None}}
    async with store.session("by hand", metadata=kept) as recorder:
        await recorder.record_ask(
            "?",
            provider="",
            model="",
            duration_ms=0,
            metadata={KEY: {"from": 7, "answers": [], "turn": []}},
        )
    with pytest.raises(InvalidValueError, match="asks of it are missing"):
        await restore_run(store, recorder.session_id)


def test_half_a_character_costs_that_character():
    data = b'[{"role": "user", "content": "a\\ud83d"}, {"role": "ai", "content": "\\ud83d\\ude00"}]'
    plan = plan_run(runs_of(data)[0])
    assert (plan.actions[0].query, plan.actions[0].response) == ("a\ufffd", "\U0001f600")
    assert ["message 0" in note for note in plan.notes] == [True]


async def test_a_transcript_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(TranscriptError, match=r"^gone\.json: cannot be read: No such file"):
        async for _ in read_plans(tmp_path / "gone.json"):
            pass


async def test_a_file_larger_than_allowed_is_not_read_on(tmp_path):
    path = tmp_path / "large.json"
    path.write_bytes(b" " * 2_000)
    with pytest.raises(TranscriptError, match="more than 1000 bytes"):
        async for _ in read_plans(path, max_bytes=1_000):
            pass


@pytest.mark.parametrize(
    ("transcript", "sessions", "calls", "unanswered"),
    [
        ("tau-bench/gpt-4o-airline.json.gz", 200, 1164, 0),
        ("mini-swe-agent/trajectories.tar.gz", 26, 2054, 24),
    ],
)
async def test_real_runs_come_back_whole(
    shared_data, make_store, transcript, sessions, calls, unanswered
):
    path = shared_data / transcript
    store = await make_store(config=StoreConfig(durability=Durability.BUFFERED))
    recorded = await record_all(store, path)
    await store.aclose()

    data = path.read_bytes()
    runs = [run for part in open_transcripts(path.name, data) for run in parse_runs(part)]
    found, open_calls = 0, 0
    store = await make_store(read_only=True)
    # One of them is an agent that was stopped before the model said anything.
    runs = [run for run in runs if any(map(is_turn, run.messages))]
    assert len(await store.list_sessions()) == len(recorded) == len(runs) == sessions
    for (session_id, plan), run in zip(recorded, runs, strict=True):
        assert same(await restore_run(store, session_id), run.value)
        session = await store.get_session(session_id)
        for action, step in zip(session.actions, plan.actions, strict=True):
            assert action.kind == ("ask" if isinstance(step, PlannedAsk) else "tool_call")
            if isinstance(step, PlannedToolCall):
                found += 1
                open_calls += action.output is None
                assert same(await store.read_arguments(action), step.arguments)
    assert (found, open_calls) == (calls, unanswered)


async def test_a_pipe_is_read_to_its_end(tmp_path):
    """In pieces, from a writer that opens it later."""
    path = tmp_path / "chat.json"
    os.mkfifo(path)
    run = [{"role": "user", "content": "why? " * 50_000}, {"role": "assistant", "content": "so"}]
    data = json.dumps(run).encode()

    def write():
        with path.open("wb") as pipe:
            for at in range(0, len(data), 60_000):
                pipe.write(data[at : at + 60_000])

    writer = asyncio.create_task(asyncio.to_thread(write))
    (plans,) = [plans async for plans in read_plans(path)]
    await writer
    assert [plan.actions[0].response for plan in plans] == ["so"]


async def test_a_pipe_that_never_ends_is_read_as_far_as_it_may_be(tmp_path):
    path = tmp_path / "chat.json"
    os.mkfifo(path)
    line = b'{"role": "user", "content": "again"}\n' * 1000

    def write():
        with suppress(BrokenPipeError), path.open("wb") as pipe:
            while True:
                pipe.write(line)

    writer = asyncio.create_task(asyncio.to_thread(write))
    with pytest.raises(TranscriptError, match="bytes"):
        await anext(read_plans(path, max_bytes=300_000))
    await writer


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
async def test_what_holds_no_transcript_is_refused_soon(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(chats, "_PIPE_SECONDS", 0.05)
    path = Path("/dev/zero") if kind == "device" else tmp_path / "chat.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    refusals = r"nobody has written|neither a regular file|Is a directory"
    with pytest.raises(TranscriptError, match=refusals):
        await anext(read_plans(path))
