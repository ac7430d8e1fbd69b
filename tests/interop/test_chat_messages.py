"""The formats of chats: the same conversation in each of them is the same session."""

import io
import json
import zipfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.interop import transcripts
from memvid_async.interop.chat_messages import Voice, is_message, read_message
from memvid_async.interop.chat_plans import PlannedAsk, plan_run, rebuild_run
from memvid_async.interop.transcripts import TranscriptError, open_transcripts
from tests.support.chats import runs_of, same

USAGE = {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2}
USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": "it"}}
GAVE = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "A cat."}]}


def line(kind: str, **message: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": "u", "message": {"role": kind, **message}}


def item(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026", "type": "response_item", "payload": {"type": kind, **payload}}


def spoken(role: str, kind: str, text: str) -> dict[str, Any]:
    return item("message", role=role, content=[{"type": kind, "text": text}])


def langchain(name: str, **kwargs: Any) -> dict[str, Any]:
    return {"lc": 1, "type": "constructor", "id": ["langchain", "messages", name], "kwargs": kwargs}


LOOK = {"name": "look", "args": {"at": "it"}, "id": "t1"}
# What is asked, the turn that calls `look`, its result, and the answer: in every format.
FORMATS: dict[str, list[Any]] = {
    "openai": [
        {"role": "user", "content": "What?"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "t1", "function": {"name": "look", "arguments": '{"at":"it"}'}}],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "A cat."},
        {"role": "assistant", "content": "It is a cat."},
    ],
    "openai functions": [
        {"role": "user", "content": "What?"},
        {
            "role": "assistant",
            "content": None,
            "function_call": {"name": "look", "arguments": '{"at":"it"}'},
        },
        {"role": "function", "name": "look", "content": "A cat."},
        {"role": "assistant", "content": "It is a cat."},
    ],
    "anthropic": [
        {"role": "user", "content": "What?"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm."}, USE]},
        {"role": "user", "content": [GAVE]},
        {"role": "assistant", "content": [{"type": "text", "text": "It is a cat."}]},
    ],
    "claude code": [
        {"type": "summary", "summary": "cats"},
        line("user", content="What?"),
        line("assistant", id="m1", content=[{"type": "thinking", "thinking": "Hm."}], usage=USAGE),
        line("assistant", id="m1", content=[USE], usage=USAGE),
        line("user", content=[GAVE]),
        line("assistant", id="m2", content=[{"type": "text", "text": "It is a cat."}]),
    ],
    "codex": [
        {"timestamp": "2026", "type": "session_meta", "payload": {"id": "x"}},
        spoken("developer", "input_text", "Be brief."),
        spoken("user", "input_text", "What?"),
        {"timestamp": "2026", "type": "event_msg", "payload": {"type": "user_message"}},
        item("reasoning", summary=[{"type": "summary_text", "text": "Hm."}]),
        item("function_call", name="look", arguments='{"at":"it"}', call_id="t1"),
        item("function_call_output", call_id="t1", output="A cat."),
        spoken("assistant", "output_text", "It is a cat."),
    ],
    "responses": [
        {"role": "user", "content": "What?"},
        {"type": "function_call", "name": "look", "arguments": '{"at":"it"}', "call_id": "t1"},
        {"type": "function_call_output", "call_id": "t1", "output": "A cat."},
        {"type": "message", "role": "assistant", "content": [{"text": "It is a cat."}]},
    ],
    "langchain": [
        {"type": "human", "content": "What?"},
        {"type": "ai", "content": "", "tool_calls": [LOOK]},
        {"type": "tool", "content": "A cat.", "tool_call_id": "t1"},
        {"type": "ai", "content": "It is a cat."},
    ],
    "langchain dicts": [
        {"type": "human", "data": {"content": "What?"}},
        {"type": "ai", "data": {"content": "", "tool_calls": [LOOK]}},
        {"type": "tool", "data": {"content": "A cat.", "tool_call_id": "t1"}},
        {"type": "ai", "data": {"content": "It is a cat."}},
    ],
    "langchain serialized": [
        langchain("HumanMessage", content="What?"),
        langchain("AIMessage", content="", tool_calls=[LOOK]),
        langchain("ToolMessage", content="A cat.", tool_call_id="t1"),
        langchain("AIMessage", content="It is a cat."),
    ],
    "inspect": [
        {"role": "user", "content": "What?", "source": "input"},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "reasoning": "Hm."}],
            "tool_calls": [{"id": "t1", "function": "look", "arguments": {"at": "it"}}],
        },
        {"role": "tool", "tool_call_id": "t1", "function": "look", "content": "A cat."},
        {"role": "assistant", "content": "It is a cat."},
    ],
    "sharegpt": [
        {"from": "human", "value": "What?"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "it"}}'},
        {"from": "observation", "value": "A cat."},
        {"from": "gpt", "value": "It is a cat."},
    ],
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("lines", [False, True], ids=["json", "lines"])
def test_a_conversation_is_the_same_session_in_every_format(name, lines):
    messages = FORMATS[name]
    data: Any = "\n".join(map(json.dumps, messages)).encode() if lines else messages
    (run,) = runs_of(data)
    plan = plan_run(run)
    first, call, last = plan.actions
    assert (first.query, last.query) == ("What?", "A cat.")
    assert not json.loads(first.response)["content"]
    assert len(json.loads(first.response)["tool_calls"]) == 1
    assert (call.name, call.arguments, call.result) == ("look", {"at": "it"}, "A cat.")
    assert (last.response, plan.notes) == ("It is a cat.", ())
    assert same(rebuild_run(plan.metadata, plan.actions), messages)


def test_tokens_are_counted_once_for_a_reply_of_several_lines():
    (run,) = runs_of(FORMATS["claude code"])
    assert plan_run(run).actions[0].usage == {
        "input_tokens": 7,
        "output_tokens": 3,
        "cached_tokens": 2,
    }


@pytest.mark.parametrize(
    ("call", "result", "error"),
    [
        (USE, {**GAVE, "is_error": True}, "A cat."),
        (USE, {**GAVE, "content": "", "is_error": True}, "failed"),
        (USE, {**GAVE, "content": {"error_code": "late"}}, '{"error_code":"late"}'),
    ],
)
def test_a_call_that_failed_has_an_error(call, result, error):
    messages = [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    assert plan_run(runs_of(messages)[0]).actions[1].error == error


def ask(*calls: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **fields}


LOOK = {"id": "t1", "function": {"name": "look", "arguments": "{}"}}
READ = {"id": "t1", "function": {"name": "read", "arguments": "{}"}}
SAID = {"role": "tool", "tool_call_id": "t1", "content": "one"}
USES = {"type": "server_tool_use", "id": "t1", "name": "web_search", "input": {}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "t1", "content": "one"}
RAN = {"type": "code_interpreter_call", "id": "t1", "code": "1", "outputs": "one"}
ODD_CALLS: dict[str, tuple[list[Any], list[tuple[str, str | None, str | None]]]] = {
    "two under one id": (
        [ask(LOOK, READ), SAID, {**SAID, "content": "two"}],
        [("look", "one", None), ("read", "two", None)],
    ),
    "run within the turn": (
        [{"role": "assistant", "content": [USES, FOUND, {"type": "text", "text": "x"}]}],
        [("web_search", "one", None)],
    ),
    "run by the API": ([RAN], [("code_interpreter", "one", None)]),
    "that the API could not run": (
        [{"type": "mcp_call", "id": "t1", "name": "look", "error": "gone"}],
        [("look", "gone", "gone")],
    ),
    "with arguments that are no JSON": (
        [
            {"type": "ai", "invalid_tool_calls": [{"name": "look", "args": "{", "id": "t1"}]},
            {"type": "tool", "tool_call_id": "t1", "content": "one"},
        ],
        [("look", "one", None)],
    ),
    "with an error beside the result": (
        [ask(LOOK), {**SAID, "error": {"type": "timeout", "message": "late"}}],
        [("look", "one", "late")],
    ),
}


@pytest.mark.parametrize("name", ODD_CALLS)
def test_calls_of_odd_shapes_have_their_results(name):
    messages, wanted = ODD_CALLS[name]
    plan = plan_run(runs_of(messages)[0])
    assert [(step.name, step.result, step.error) for step in plan.actions[1:]] == wanted
    assert "one" not in (json.loads(plan.actions[0].response)["content"] or "")
    assert same(rebuild_run(plan.metadata, plan.actions), messages)


def test_a_result_is_never_guessed():
    def call(number: int) -> dict[str, Any]:
        return {"id": f"c{number}", "function": {"name": "look", "arguments": "{}"}}

    turn = {"role": "assistant", "tool_calls": [call(1), call(2)]}
    nameless = {"role": "assistant", "tool_calls": [{"function": {"name": "look"}}] * 2}
    for messages in (
        [turn, {"role": "tool", "tool_call_id": "c3", "content": "x"}],
        [turn, {"role": "tool", "content": "x"}],
        [nameless, {"role": "tool", "content": "x"}],
    ):
        plan = plan_run(runs_of(messages)[0])
        assert [step.result for step in plan.actions[1:]] == [None, None]
        assert same(rebuild_run(plan.metadata, plan.actions), messages)


@pytest.mark.parametrize(
    ("content", "result"),
    [({"a": 1}, '{"a":1}'), ([1, 2], "[1,2]"), (7, "7"), (None, ""), ([{"text": "x"}], "x")],
)
def test_a_result_that_is_no_text_is_json(content, result):
    messages = [*FORMATS["openai"][:2], {"role": "tool", "tool_call_id": "t1", "content": content}]
    plan = plan_run(runs_of(messages)[0])
    assert plan.actions[1].result == result


def test_a_refusal_and_reasoning_alone_are_the_response():
    turns = [
        {"refusal": "No."},
        {"reasoning_content": "Hm."},
        {"content": "x", "reasoning": "Hm."},
        {"audio": {"id": "a", "transcript": "Yes."}},
    ]
    runs = runs_of([[{"role": "assistant", "content": None, **turn}] for turn in turns])
    assert [plan_run(run).actions[0].response for run in runs] == ["No.", "Hm.", "x", "Yes."]


def test_the_items_of_a_response_are_one_turn():
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    ]
    plan = plan_run(runs_of(items)[0])
    assert [(step.query, step.response) for step in plan.actions] == [("q", "a")]
    assert same(rebuild_run(plan.metadata, plan.actions), items)


def test_samples_of_a_log_are_runs():
    log = {"eval": {"model": "m"}, "samples": [{"id": 1, "messages": FORMATS["inspect"]}] * 2}
    assert [plan_run(run).name for run in runs_of(log, "log.json")] == ["log#0", "log#1"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("header.json", json.dumps({"eval": {}}))
        file.writestr("samples/1_epoch_1.json", json.dumps(log["samples"][0]))
    (run,) = runs_of(archive.getvalue(), "log.eval")
    assert plan_run(run).name == "samples/1_epoch_1"


def zip_of(count: int, compression: int = zipfile.ZIP_STORED, data: bytes = b"[]") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", compression) as file:
        for number in range(count):
            file.writestr(f"{number}.json", data)
    return archive.getvalue()


def test_what_a_zip_claims_is_bounded(monkeypatch):
    with pytest.raises(TranscriptError, match="more than 1000 bytes"):
        list(open_transcripts("a.zip", zip_of(1, zipfile.ZIP_DEFLATED, b" " * 10**6), 1_000))
    with pytest.raises(TranscriptError, match="the zip cannot be read"):
        list(open_transcripts("a.zip", zip_of(1)[:-30]))
    with pytest.raises(TranscriptError, match=r"no regular file named \*\.json"):
        list(open_transcripts("a.zip", zip_of(1).replace(b"0.json", b"0.html")))
    monkeypatch.setattr(transcripts, "MAX_MEMBERS", 10)
    with pytest.raises(TranscriptError, match="more than 10 members"):
        list(open_transcripts("a.zip", zip_of(11)))
    monkeypatch.setattr(transcripts, "_MOST_ZIP_DIRECTORY", 500)
    with pytest.raises(TranscriptError, match="too many members"):
        list(open_transcripts("a.zip", zip_of(10)))


@pytest.mark.parametrize("torn", [b'{"role": "us', b'{"role": "user", "\xff', bytes(9)])
@pytest.mark.parametrize("line", [1, 3, 5])
def test_a_torn_line_costs_that_line(torn, line):
    lines = [json.dumps(m).encode() for m in FORMATS["openai"]]
    run, error = runs_of(b"\n".join([*lines[: line - 1], torn, *lines[line - 1 :]]))
    assert len(plan_run(run).actions) == 3
    assert str(error).startswith(f"chat.json: line {line} is not JSON")
    assert plan_run(run).name == "chat"


def test_an_odd_line_is_kept_and_noted():
    odd = {"session_id": "x"}
    data = "\n".join(map(json.dumps, [odd, *FORMATS["openai"]])).encode()
    plan = plan_run(runs_of(data)[0])
    assert plan.notes == ("chat.json: line 1 has no known format; it is kept as it is",)
    assert rebuild_run(plan.metadata, plan.actions)[0] == odd


def test_the_word_ustar_makes_no_tar():
    text = "x" * 400
    data = json.dumps([{"role": "user", "content": text}, {"role": "ai", "content": "a"}]).encode()
    start = 257
    data = data[:start] + b"ustar" + data[start + 5 :]
    assert len(plan_run(runs_of(data)[0]).actions) == 1


keys = st.sampled_from(
    [
        "role",
        "from",
        "value",
        "type",
        "content",
        "text",
        "parts",
        "payload",
        "message",
        "data",
        "kwargs",
        "id",
        "name",
        "input",
        "output",
        "tool_calls",
        "function",
        "function_call",
        "arguments",
        "tool_use_id",
        "tool_call_id",
        "call_id",
        "usage",
        "error",
        "refusal",
        "reasoning",
        "is_error",
        "status",
        "model",
        "lc",
    ]
)
words = st.sampled_from(
    [
        "user",
        "assistant",
        "tool",
        "human",
        "ai",
        "gpt",
        "message",
        "reasoning",
        "tool_use",
        "tool_result",
        "function_call",
        "function_call_output",
        "response_item",
        "constructor",
        "AIMessage",
        "look",
        "{}",
        "x",
    ]
)
shapes = st.recursive(
    words | st.none() | st.integers(0, 3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(shapes, max_size=5))
def test_any_shape_is_read_and_comes_back(messages):
    (run,) = runs_of([{"messages": messages}])
    readings = [read_message(message) for message in messages]
    if any(reading.voice is Voice.MODEL for reading in readings):
        plan = plan_run(run)
        assert same(rebuild_run(plan.metadata, plan.actions)["messages"], messages)
        asks = [step for step in plan.actions if isinstance(step, PlannedAsk)]
        assert len(asks) >= 1
        assert all(
            map(is_message, (messages[a.metadata["imported_chat"]["position"]] for a in asks))
        )
