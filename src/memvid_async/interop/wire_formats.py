"""What the requests and responses of model APIs say: OpenAI chat and responses, Anthropic messages.

Pure functions of bytes. They never raise, whatever a server sent: what they cannot read is left
out. The formats are those of https://platform.openai.com/docs/api-reference/chat and /responses,
https://docs.anthropic.com/en/api/messages, and, for streams, of server-sent events
(https://html.spec.whatwg.org/multipage/server-sent-events.html).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any

from attrs import define, field, frozen

_HOSTS = {
    "api.anthropic.com": "anthropic",
    "api.cohere.com": "cohere",
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.openai.com": "openai",
    "api.together.xyz": "together",
    "api.x.ai": "xai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": "openrouter",
}
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")
_NEITHER_PARAMETER = ("instructions", "input", "messages", "model", "system", "tools")
_PARAMETER_CHARS = 200
_ERROR_CHARS = 2_000
_END = re.compile(
    rb"data: ?\[DONE\]|event: ?(message_stop|response\.(completed|incomplete|failed))"
)
_LINES = re.compile(r"\r\n|\r|\n")


class Form(Enum):
    """A format of questions and answers, by the end of the path of its address."""

    CHAT = "/chat/completions"
    RESPONSES = "/responses"
    MESSAGES = "/v1/messages"


@frozen
class ModelRequest:
    """A question to a model."""

    form: Form
    provider: str
    """Who is asked: the provider whose host it is, else the one whose format it is."""
    model: str | None
    messages: list[Any]
    """The prompt, one item per message; instructions are a message of the role "system"."""
    parameters: dict[str, Any]
    """Its other fields that are short, and ``tools``: the names of those that it offers."""


@frozen
class ModelReply:
    """A model's answer, or what came of it."""

    text: str = ""
    """The reply; with tool calls a JSON object of ``content`` and ``tool_calls``, as a message of
    OpenAI's chat has them, whatever the format was."""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Tokens read from a cache: a part of ``input_tokens``, as everywhere here."""
    cost_usd: float | None = None
    error: str | None = None
    """What the server said went wrong; None where it did not say so."""


def read_request(method: str, host: str, path: str, body: bytes) -> ModelRequest | None:
    """Return the question that a request asks; None where it is another request."""
    if method != "POST":
        return None
    form = next((form for form in Form if path.endswith(form.value)), None)
    asked = _loads(body)
    if form is None or not isinstance(asked, dict):
        return None
    messages = asked.get("input" if form is Form.RESPONSES else "messages")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list):
        return None
    instructions = asked.get("instructions") or asked.get("system")
    if instructions:
        messages = [{"role": "system", "content": instructions}, *messages]
    model = asked.get("model")
    parameters: dict[str, Any] = {
        name: value
        for name, value in asked.items()
        if name not in _NEITHER_PARAMETER and _is_short(value)
    }
    if tools := [_tool_name(tool) for tool in _list(asked.get("tools"))]:
        parameters["tools"] = tools
    provider = _provider(host) or ("anthropic" if form is Form.MESSAGES else "openai")
    return ModelRequest(
        form, provider, model if isinstance(model, str) else None, messages, parameters
    )


def read_reply(form: Form, status: int, content_type: str, body: bytes) -> ModelReply:
    """Return what a response says; ``body``: whole, or as much as came, without an encoding."""
    growing = _Growing()
    if is_stream(content_type):
        for data in _events(body):
            growing.error = growing.error or _error(data)
            _DELTAS[form](growing, data)
    else:
        answer = _loads(body)
        growing.error = _error(answer)
        _WHOLE[form](growing, answer)
        if growing.error is None and status >= 400:
            growing.error = body[:_ERROR_CHARS].decode("utf-8", "replace").strip()
    return growing.reply(status)


def _is_short(value: Any) -> bool:
    return isinstance(value, (str, int, float)) and len(json.dumps(value)) <= _PARAMETER_CHARS


def is_stream(content_type: str) -> bool:
    """Whether a response of this type is a stream of server-sent events."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


def says_end(part: bytes) -> bool:
    """Whether a part of a streamed answer says that the answer ends there."""
    return _END.search(part) is not None


def _provider(host: str) -> str | None:
    host = host.lower()
    return "azure" if host.endswith(_AZURE) else _HOSTS.get(host)


def _tool_name(tool: Any) -> str:
    name = _at(tool, "name") or _at(tool, "function", "name") or _at(tool, "type")
    return name if isinstance(name, str) else "?"


# --- what was read so far -----------------------------------------------------------------------


@define
class _SpokenCall:
    """A tool call of a reply. ``arguments``: pieces of JSON."""

    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(factory=list)

    @property
    def document(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": "".join(self.arguments)}
        return {"id": self.call_id, "type": "function", "function": function}


@define
class _Growing:
    """A reply as far as it was read. ``calls``: by what tells them apart in its format."""

    texts: list[str] = field(factory=list)
    calls: dict[Any, _SpokenCall] = field(factory=dict)
    usage: dict[str, int] = field(factory=dict)
    cost_usd: float | None = None
    error: str | None = None

    def add_text(self, text: Any) -> None:
        if isinstance(text, str):
            self.texts.append(text)

    def add_call(self, key: Any, call_id: Any, name: Any, arguments: Any) -> None:
        """Begin a call, or go on with it: what is not text is left as it is."""
        call = self.calls.setdefault(key if isinstance(key, (str, int)) else None, _SpokenCall())
        call.call_id = call_id if isinstance(call_id, str) else call.call_id
        call.name = name if isinstance(name, str) else call.name
        if isinstance(arguments, str):
            call.arguments.append(arguments)

    def count(self, usage: Any, *names: str) -> None:
        """Take the token counts of these names; later ones replace earlier ones."""
        for name in names:
            value = _at(usage, *name.split("."))
            if type(value) is int and value >= 0:
                self.usage[name] = value
        cost = _at(usage, "cost")
        if type(cost) in (int, float) and 0 <= cost < 2**63:
            self.cost_usd = float(cost)

    def reply(self, status: int) -> ModelReply:
        """Return what was read. A response of an error counts no tokens."""
        text = "".join(self.texts)
        if self.calls:
            calls = [call.document for call in self.calls.values()]
            text = _dumps({"content": text, "tool_calls": calls})
        error = self.error
        if status >= 400:
            error = f"HTTP {status}: {error}" if error else f"HTTP {status}"
        usage = self.usage
        read = [usage[name] for name in _INPUT if name in usage]
        written = [usage[name] for name in _OUTPUT if name in usage]
        cached = [usage[name] for name in _CACHED if name in usage]
        return ModelReply(
            text,
            min(sum(read), _MOST_TOKENS) if read else None,
            min(written[0], _MOST_TOKENS) if written else None,
            min(cached[0], _MOST_TOKENS) if cached else None,
            self.cost_usd,
            error,
        )


# Anthropic's input_tokens are those that no cache had a part in; here they are all that was read.
_INPUT = (
    "prompt_tokens",
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_OUTPUT = ("completion_tokens", "output_tokens")
_CACHED = (
    "prompt_tokens_details.cached_tokens",
    "input_tokens_details.cached_tokens",
    "cache_read_input_tokens",
)
_MOST_TOKENS = 2**63 - 1
_CHAT_COUNTS = ("prompt_tokens", "completion_tokens", "prompt_tokens_details.cached_tokens")
_RESPONSE_COUNTS = ("input_tokens", "output_tokens", "input_tokens_details.cached_tokens")
_MESSAGE_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


# --- OpenAI chat --------------------------------------------------------------------------------


def _chat_whole(growing: _Growing, answer: Any) -> None:
    _chat_message(growing, _at(answer, "choices", 0, "message"))
    growing.count(_at(answer, "usage"), *_CHAT_COUNTS)


def _chat_delta(growing: _Growing, data: Any) -> None:
    # Other choices than the first are alternatives to it.
    for choice in _list(_at(data, "choices")):
        if _at(choice, "index") in (0, None):
            _chat_message(growing, _at(choice, "delta"))
    growing.count(_at(data, "usage"), *_CHAT_COUNTS)


def _chat_message(growing: _Growing, message: Any) -> None:
    growing.add_text(_at(message, "content"))
    growing.add_text(_at(message, "refusal"))
    for place, call in enumerate(_list(_at(message, "tool_calls"))):
        key = _at(call, "index")
        growing.add_call(
            place if key is None else key,
            _at(call, "id"),
            _at(call, "function", "name") or _at(call, "custom", "name"),
            _at(call, "function", "arguments") or _at(call, "custom", "input"),
        )


# --- OpenAI responses ---------------------------------------------------------------------------


def _responses_whole(growing: _Growing, answer: Any) -> None:
    growing.texts.clear()
    growing.calls.clear()
    for place, item in enumerate(_list(_at(answer, "output"))):
        if _at(item, "type") in ("function_call", "custom_tool_call"):
            arguments = _at(item, "arguments") or _at(item, "input")
            growing.add_call(place, _at(item, "call_id"), _at(item, "name"), arguments)
        for part in _list(_at(item, "content")):
            if _at(part, "type") in ("output_text", "refusal"):
                growing.add_text(_at(part, "text"))
                growing.add_text(_at(part, "refusal"))
    growing.count(_at(answer, "usage"), *_RESPONSE_COUNTS)
    growing.error = growing.error or _error(answer)


def _responses_delta(growing: _Growing, data: Any) -> None:
    kind, place = _at(data, "type"), _at(data, "output_index")
    match kind:
        case "response.completed" | "response.incomplete" | "response.failed":
            # It has the whole response; what came in pieces is not counted twice.
            _responses_whole(growing, _at(data, "response"))
        case "response.output_text.delta" | "response.refusal.delta":
            growing.add_text(_at(data, "delta"))
        case "response.output_item.added":
            item = _at(data, "item")
            if _at(item, "type") in ("function_call", "custom_tool_call"):
                growing.add_call(place, _at(item, "call_id"), _at(item, "name"), None)
        case "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta":
            growing.add_call(place, None, None, _at(data, "delta"))


# --- Anthropic messages -------------------------------------------------------------------------


def _messages_whole(growing: _Growing, answer: Any) -> None:
    for place, block in enumerate(_list(_at(answer, "content"))):
        _messages_block(growing, place, block)
        tool_input = _at(block, "input")
        if _at(block, "type") == "tool_use" and tool_input is not None:
            growing.add_call(place, None, None, _dumps(tool_input))
    growing.count(_at(answer, "usage"), *_MESSAGE_COUNTS)


def _messages_delta(growing: _Growing, data: Any) -> None:
    match _at(data, "type"):
        case "message_start":
            growing.count(_at(data, "message", "usage"), *_MESSAGE_COUNTS)
        case "content_block_start":
            _messages_block(growing, _at(data, "index"), _at(data, "content_block"))
        case "content_block_delta":
            delta = _at(data, "delta")
            growing.add_text(_at(delta, "text"))
            if _at(delta, "type") == "input_json_delta":
                growing.add_call(_at(data, "index"), None, None, _at(delta, "partial_json"))
        case "message_delta":
            growing.count(_at(data, "usage"), *_MESSAGE_COUNTS)


def _messages_block(growing: _Growing, place: Any, block: Any) -> None:
    if _at(block, "type") == "text":
        growing.add_text(_at(block, "text"))
    elif _at(block, "type") == "tool_use":
        growing.add_call(place, _at(block, "id"), _at(block, "name"), None)


_WHOLE = {
    Form.CHAT: _chat_whole,
    Form.RESPONSES: _responses_whole,
    Form.MESSAGES: _messages_whole,
}
_DELTAS = {
    Form.CHAT: _chat_delta,
    Form.RESPONSES: _responses_delta,
    Form.MESSAGES: _messages_delta,
}


# --- JSON and events ----------------------------------------------------------------------------


def _events(body: bytes) -> Iterator[Any]:
    """Yield the data of server-sent events that is JSON; also of a last one that has no end."""
    lines: list[str] = []
    for line in (*_LINES.split(body.decode("utf-8", "replace")), ""):
        if line.startswith("data:"):
            lines.append(line[5:].removeprefix(" "))
        elif not line and lines:
            data = _loads("\n".join(lines))
            lines.clear()
            if data is not None:
                yield data


def _error(answer: Any) -> str | None:
    """Return the message of an error in an answer of any of the formats; None where none is."""
    error = _at(answer, "error")
    if error is None and _at(answer, "type") == "error":
        error = answer
    if error is None or error is False:
        return None
    message = error if isinstance(error, str) else _at(error, "message")
    if not isinstance(message, str):
        message = _dumps(error)
    kind = _at(error, "type") or _at(error, "code")
    found = f"{kind}: {message}" if isinstance(kind, str) and kind != "error" else message
    return found[:_ERROR_CHARS]


def _loads(text: bytes | str) -> Any:
    """Return JSON as a value; None where it is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def _refuse(name: str) -> None:
    """Refuse NaN and the infinities, which JSON does not have."""
    raise ValueError(name)


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "…"


def _at(value: Any, *path: str | int) -> Any:
    """Return what is at a path of keys and indexes; None where nothing is."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, Mapping) else None
        else:
            value = value[step] if isinstance(value, list) and step < len(value) else None
    return value


def _list(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()
