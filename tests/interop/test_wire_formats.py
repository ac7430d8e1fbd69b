"""What requests and responses of model APIs say, whatever their bytes are."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.interop.wire_formats import Form, read_reply, read_request, says_end

JSON, EVENTS = "application/json", "text/event-stream; charset=utf-8"


def events(*items, named=False):
    lines = []
    for item in items:
        if named:
            lines.append(f"event: {item['type']}\n")
        lines.append(f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n")
    return "".join(lines).encode()


def chat_chunk(delta, **more):
    return {"id": "x", "choices": [{"index": 0, "delta": delta}], **more}


CHAT_TOOL_CALLS = [
    {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": ""}},
    {"index": 0, "function": {"arguments": '{"city": '}},
    {"index": 1, "id": "c2", "function": {"name": "book", "arguments": "{}"}},
    {"index": 0, "function": {"arguments": '"Oslo"}'}},
]
CALLS = [("c1", "weather", '{"city": "Oslo"}'), ("c2", "book", "{}")]
RESPONSE = {
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": CALLS[0][2]},
        {"type": "function_call", "call_id": "c2", "name": "book", "arguments": "{}"},
    ],
    "usage": {"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}},
}
MESSAGE_USAGE = {"input_tokens": 5, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 1}
WITH_CALLS = {
    "chat": (
        Form.CHAT,
        json.dumps(
            {
                "choices": [
                    {
                        "message": {
                            "content": "Hello",
                            "tool_calls": [
                                {"id": i, "function": {"name": n, "arguments": a}}
                                for i, n, a in CALLS
                            ],
                        }
                    },
                    {"message": {"content": "an alternative"}},
                ],
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 3},
                },
            }
        ).encode(),
    ),
    "chat, streamed": (
        Form.CHAT,
        events(
            chat_chunk({"role": "assistant", "content": "Hel"}),
            chat_chunk({"content": "lo"}),
            *(chat_chunk({"tool_calls": [call]}) for call in CHAT_TOOL_CALLS),
            {
                "choices": [],
                "usage": {
                    "prompt_tokens": 9,
                    "completion_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 3},
                },
            },
            "[DONE]",
        ),
    ),
    "responses": (Form.RESPONSES, json.dumps(RESPONSE).encode()),
    "responses, streamed": (
        Form.RESPONSES,
        events(
            {"type": "response.output_text.delta", "output_index": 1, "delta": "Hello"},
            {"type": "response.completed", "response": RESPONSE},
            named=True,
        ),
    ),
    "messages": (
        Form.MESSAGES,
        json.dumps(
            {
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "text", "text": "Hello"},
                    {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
                    {"type": "tool_use", "id": "c2", "name": "book", "input": {}},
                ],
                "usage": {**MESSAGE_USAGE, "output_tokens": 4},
            }
        ).encode(),
    ),
    "messages, streamed": (
        Form.MESSAGES,
        events(
            {"type": "message_start", "message": {"usage": {**MESSAGE_USAGE, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            *(
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": text},
                }
                for text in ("Hel", "lo")
            ),
            *(
                item
                for index, (call_id, name, arguments) in enumerate(CALLS, 1)
                for item in (
                    {
                        "type": "content_block_start",
                        "index": index,
                        "content_block": {"type": "tool_use", "id": call_id, "name": name},
                    },
                    {
                        "type": "content_block_delta",
                        "index": index,
                        "delta": {"type": "input_json_delta", "partial_json": arguments},
                    },
                )
            ),
            {"type": "message_delta", "usage": {"output_tokens": 4}},
            {"type": "message_stop"},
            named=True,
        ),
    ),
}


@pytest.mark.parametrize("name", WITH_CALLS)
def test_every_form_says_the_same(name):
    form, body = WITH_CALLS[name]
    reply = read_reply(form, 200, EVENTS if "streamed" in name else JSON, body)
    spoken = json.loads(reply.text)
    assert spoken["content"] == "Hello"
    made = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in spoken["tool_calls"]
    ]
    assert made == CALLS
    assert reply.error is None
    assert (reply.input_tokens, reply.output_tokens, reply.cached_tokens) == (9, 4, 3)


@pytest.mark.parametrize("name", [name for name in WITH_CALLS if "streamed" in name])
def test_a_stream_that_broke_off_says_what_had_come(name):
    form, body = WITH_CALLS[name]
    texts = []
    for end in range(0, len(body), 7):
        reply = read_reply(form, 200, EVENTS, body[:end])
        texts.append(json.loads(reply.text)["content"] if "{" in reply.text else reply.text)
    assert set(texts) <= {"", "Hel", "Hello"}
    assert texts == sorted(texts, key=len)


@pytest.mark.parametrize("name", [name for name in WITH_CALLS if "streamed" in name])
def test_a_stream_says_where_it_ends(name):
    _, body = WITH_CALLS[name]
    *parts, last = body.split(b"\n\n")[:-1]
    assert says_end(last)
    assert not any(map(says_end, parts))


ERRORS = [
    (Form.CHAT, 429, {"error": {"message": "slow down", "type": "rate_limit"}}),
    (Form.RESPONSES, 429, {"error": {"message": "slow down", "code": "rate_limit"}}),
    (
        Form.MESSAGES,
        429,
        {"type": "error", "error": {"type": "rate_limit", "message": "slow down"}},
    ),
]


@pytest.mark.parametrize(("form", "status", "answer"), ERRORS)
def test_what_a_server_says_went_wrong_is_the_error(form, status, answer):
    reply = read_reply(form, status, JSON, json.dumps(answer).encode())
    assert reply.error == "HTTP 429: rate_limit: slow down"
    assert reply.text == ""


def test_an_error_in_the_middle_of_a_stream_is_one():
    form, body = WITH_CALLS["messages, streamed"]
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    reply = read_reply(
        form, 200, EVENTS, body[: body.index(b'"lo"')] + b"\n\n" + events(overloaded)
    )
    assert reply.error == "overloaded_error: Overloaded"
    assert reply.text == "Hel"


def test_an_error_that_is_not_json_is_its_text():
    assert read_reply(Form.CHAT, 502, "text/html", b"<h1>Bad gateway</h1>").error == (
        "HTTP 502: <h1>Bad gateway</h1>"
    )
    assert read_reply(Form.CHAT, 500, JSON, b"").error == "HTTP 500"


def test_a_cost_is_taken_where_a_provider_says_it():
    answer = {"choices": [{"message": {"content": "x"}}], "usage": {"cost": 0.25}}
    assert read_reply(Form.CHAT, 200, JSON, json.dumps(answer).encode()).cost_usd == 0.25


REQUEST = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0.5,
    "stream": True,
    "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
    "metadata": {"user": "ada"},
    "user": "x" * 1000,
}


def test_a_request_says_who_is_asked_what():
    asked = read_request("POST", "127.0.0.1", "/v1/chat/completions", json.dumps(REQUEST).encode())
    assert asked.form is Form.CHAT
    assert (asked.provider, asked.model) == ("openai", "m")
    assert asked.messages == REQUEST["messages"]
    assert asked.parameters == {"temperature": 0.5, "stream": True, "tools": ["weather"]}


@pytest.mark.parametrize(
    ("host", "path", "provider"),
    [
        ("api.openai.com", "/v1/responses", "openai"),
        ("openrouter.ai", "/api/v1/chat/completions", "openrouter"),
        ("mine.openai.azure.com", "/openai/deployments/x/chat/completions", "azure"),
        ("api.anthropic.com", "/v1/messages", "anthropic"),
        ("localhost", "/v1/messages", "anthropic"),
    ],
)
def test_the_provider_is_the_hosts_else_the_formats(host, path, provider):
    body = {"model": "m", "messages": [], "input": "hi", "system": "be brief", "instructions": None}
    asked = read_request("POST", host, path, json.dumps(body).encode())
    assert asked.provider == provider
    assert asked.messages[0] == {"role": "system", "content": "be brief"}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/chat/completions", b"{}"),
        ("POST", "/v1/embeddings", b'{"messages": []}'),
        ("POST", "/v1/messages/count_tokens", b'{"messages": []}'),
        ("POST", "/v1/messages", b"not json"),
        ("POST", "/v1/messages", b"[]"),
        ("POST", "/v1/messages", b'{"messages": 3}'),
        ("POST", "/v1/messages", b'{"messages": [NaN]}'),
    ],
)
def test_other_requests_ask_no_model(method, path, body):
    assert read_request(method, "api.openai.com", path, body) is None


NAMES = [
    "choices",
    "message",
    "delta",
    "content",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "type",
    "index",
    "output",
    "usage",
    "input_tokens",
    "prompt_tokens",
    "error",
    "text",
    "id",
    "response",
    "item",
]
SCRAPS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(
    form=st.sampled_from(Form),
    status=st.sampled_from([200, 400, 500]),
    scraps=st.lists(SCRAPS, max_size=4),
    cut=st.integers(0, 200),
)
def test_whatever_a_server_sends_can_be_read(form, status, scraps, cut):
    for content_type, body in (
        (JSON, json.dumps(scraps[0] if scraps else None).encode()),
        (EVENTS, events(*(json.dumps(scrap) for scrap in scraps))),
        (EVENTS, events(*(json.dumps({"type": kind, "delta": scraps}) for kind in KINDS))),
    ):
        for data in (body, body[:cut]):
            reply = read_reply(form, status, content_type, data)
            assert isinstance(reply.text, str)
            assert reply.error is not None or status == 200


KINDS = [
    "response.completed",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
]


@given(body=st.binary(max_size=60), path=st.sampled_from([form.value for form in Form]))
def test_whatever_is_asked_can_be_read(body, path):
    read_request("POST", "localhost", path, body)
    wrapped = b'{"model": 3, "messages": [' + body + b'], "input": [], "tools": [1, {}]}'
    read_request("POST", "localhost", path, wrapped)
