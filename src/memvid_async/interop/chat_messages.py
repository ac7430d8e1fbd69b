"""What one message of a chat transcript says, whichever of the known formats it is in.

The formats tell themselves apart by the shape of a message, so a transcript needs no declaration,
and may mix them:

======================  =========================================================================
format                  a message is
======================  =========================================================================
OpenAI chat, Inspect    ``{"role", "content", "tool_calls" | "function_call" | "tool_call_id"}``
OpenAI Responses, Codex ``{"type": "message" | "function_call" | "function_call_output" | …}``,
                        in Codex under ``payload`` of a line of type ``response_item``
Anthropic, Claude Code  ``{"role", "content": [{"type": "text" | "tool_use" | "tool_result"}]}``,
                        in Claude Code under ``message`` of a line of type ``user``, ``assistant``
LangChain               ``{"type": "human" | "ai" | "tool"}``; older dumps have the fields under
                        ``data``, and LangChain's own serialization under ``kwargs``
ShareGPT                ``{"from": "human" | "gpt" | "observation", "value"}``
======================  =========================================================================

Sources: the API references of OpenAI and Anthropic; ``langchain_core.messages``; the session files
of Claude Code 2 and Codex CLI 0.5x; Inspect's log schema; the ShareGPT data sets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from attrs import frozen

SEPARATOR = "\n\n"
"""Stands between texts that are joined: of the messages of a query, of the parts of a result."""


class Voice(Enum):
    """Who speaks in a message."""

    MODEL = "model"
    """The model: its turn."""
    ASKED = "asked"
    """The user, or a tool with its result: the model answers it."""
    BESIDE = "beside"
    """Neither: instructions, notes of the program, settings."""


@frozen
class ToolCall:
    """A tool call that a message asks for."""

    id: Any
    """What its result names; None where the format has no ids."""
    name: str
    """The tool's name; empty where the message has none."""
    arguments: Any
    """The arguments, as the message has them: often JSON in a string."""
    source: Any
    """The call as it stands in the message."""


@frozen
class ToolResult:
    """What a tool call returned."""

    id: Any
    """The id of its call; None where the message names none."""
    name: str | None
    """The tool's name, where the message has it."""
    text: str
    """What it returned: as text, or else as JSON."""
    failed: bool = False
    """Whether the message says that the call failed."""
    reason: str | None = None
    """How it failed, where the message says that besides the text."""


@frozen
class Reading:
    """What one message says."""

    voice: Voice
    texts: tuple[str, ...] = ()
    """What it says, part by part."""
    thoughts: tuple[str, ...] = ()
    """The reasoning beside it, part by part."""
    calls: tuple[ToolCall, ...] = ()
    results: tuple[ToolResult, ...] = ()
    speaker: str | None = None
    model: str | None = None
    usage: Mapping[str, int] = {}
    """``input_tokens``, ``output_tokens`` and ``cached_tokens``, as far as the message has them."""
    turn: Any = None
    """Neighbouring messages with one value that is not None are pieces of one turn."""


_MODEL = frozenset({"assistant", "ai", "gpt", "model", "chatgpt", "AIMessage", "AIMessageChunk"})
_ASKING = frozenset({"user", "human", "HumanMessage", "HumanMessageChunk"})
_RESULT = frozenset(
    {"tool", "function", "observation", "ToolMessage", "ToolMessageChunk", "FunctionMessage"}
)
_BESIDE = frozenset({"system", "developer", "SystemMessage", "ChatMessage"})
_ROLES = _MODEL | _ASKING | _RESULT | _BESIDE
# Of each call the field with its arguments; then, of what the API runs itself, that of the result.
_ITEM_CALLS = {
    "function_call": "arguments",
    "custom_tool_call": "input",
    "local_shell_call": "action",
    "shell_call": "action",
    "apply_patch_call": "operation",
    "computer_call": "action",
    "mcp_call": "arguments",
    "web_search_call": "action",
    "file_search_call": "queries",
    "code_interpreter_call": "code",
    "image_generation_call": "revised_prompt",
}
_ITEM_OWN_RESULTS = {
    "mcp_call": "output",
    "file_search_call": "results",
    "code_interpreter_call": "outputs",
    "image_generation_call": "result",
}
_ITEM_RESULTS = frozenset(
    f"{kind}_call_output"
    for kind in ("function", "custom_tool", "local_shell", "shell", "apply_patch", "computer")
)
_ITEMS = frozenset({"message", "reasoning", *_ITEM_CALLS, *_ITEM_RESULTS})
_ENVELOPES = ("message", "payload", "data", "kwargs")
_RESPONSES_TURN = "responses"
_MODEL_PATHS = (
    ("model",),
    ("extra", "response", "model"),
    ("info", "config", "model", "model_name"),
    ("response_metadata", "model_name"),
    ("response_metadata", "model"),
    ("output", "model"),  # a sample of Inspect's
    ("payload", "model"),  # a line of Codex's
)
_USAGES = ("usage", "usage_metadata")


def is_message(value: Any) -> bool:
    """Whether a JSON value has the shape of a message of a known format."""
    return isinstance(value, dict) and _open(value) is not None


def read_message(value: Any) -> Reading:
    """Read one message. What has no known shape says nothing."""
    opened = _open(value) if isinstance(value, dict) else None
    if opened is None:
        return Reading(Voice.BESIDE, model=find_model(value) if isinstance(value, dict) else None)
    kind, body = opened
    if kind in _ITEMS:
        return _read_item(kind, body)
    if kind in _RESULT:
        return _read_result(body)
    return _read_speech(kind, body, value)


def find_model(value: Mapping[str, Any]) -> str | None:
    """Return the name of the model that a message, or a run besides its messages, mentions."""
    for path in _MODEL_PATHS:
        found: Any = value
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found
    return None


def as_text(content: Any) -> str:
    """Return content as one text: its texts joined, or JSON where it has none; None is empty."""
    parts = content if isinstance(content, list) else [content]
    texts = [text for text in map(_spoken, parts) if text is not None]
    if texts or content is None:
        return SEPARATOR.join(texts)
    return dump(content)


def dump(value: Any) -> str:
    """Return a value as compact JSON that keeps the letters of every script."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- the shapes ---------------------------------------------------------------------------------


def _open(value: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Return a message's kind, and the object that has its fields; None for another shape."""
    role = value.get("role")
    if isinstance(role, str) and not isinstance(value.get("payload"), dict):
        return role, value
    sender = value.get("from")
    if isinstance(sender, str) and "value" in value:
        return _sharegpt(sender, value)
    kind = value.get("type")
    if not isinstance(kind, str):
        return None
    inner = next((value[key] for key in _ENVELOPES if isinstance(value.get(key), dict)), None)
    if inner is not None:
        return _open_envelope(kind, value, inner)
    return (kind, value) if kind in _ROLES or kind in _ITEMS else None


def _open_envelope(
    kind: str, value: dict[str, Any], inner: dict[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    if kind == "constructor":  # LangChain: the last item of its id is the class
        path = value.get("id")
        name = path[-1] if isinstance(path, list) and path else None
        return (name, inner) if name in _ROLES else None
    if kind in _ROLES:  # Claude Code and LangChain's older dumps
        role = inner.get("role")
        return (role if isinstance(role, str) else kind), inner
    if kind == "response_item":  # Codex
        item = inner.get("type")
        return (item, inner) if item in _ITEMS else None
    return None


def _sharegpt(sender: str, value: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if sender == "function_call":
        call = _load(value["value"])
        fields = call if isinstance(call, dict) else {"arguments": call}
        return "assistant", {"tool_calls": [fields]}
    return sender, {**value, "content": value["value"]}


def _read_speech(kind: str, body: dict[str, Any], line: dict[str, Any]) -> Reading:
    """Read what a model, a user or a program says; the parts may hold calls and results."""
    content = body.get("content")
    listed = content if isinstance(content, list) else ()
    parts = [part for part in listed if isinstance(part, dict)]
    results = tuple(_part_result(part) for part in parts if _is_result(part))
    voice = Voice.MODEL if kind in _MODEL else Voice.ASKED if kind in _ASKING else Voice.BESIDE
    if voice is Voice.MODEL and results:
        # The API ran the tool within the turn: the model does not say what it returned.
        content = [one for one in listed if not (isinstance(one, dict) and _is_result(one))]
    texts = tuple(_texts(content))
    if not texts and content is not None and not isinstance(content, list):
        texts = (as_text(content),)
    if voice is not Voice.MODEL:
        return Reading(voice, texts, results=results, speaker=_str(body.get("name")))
    refusal = _str(body.get("refusal"))
    audio = body.get("audio")
    if not texts and isinstance(audio, dict) and isinstance(audio.get("transcript"), str):
        texts = (audio["transcript"],)
    # Claude Code writes a line for each part of a reply; all have the reply's id.
    turn = _str(body.get("id")) if body is line.get("message") else None
    if any(part.get("type") == "output_text" for part in parts):
        turn = _RESPONSES_TURN
    return Reading(
        voice,
        texts if refusal is None else (*texts, refusal),
        tuple(_thoughts(body, parts)),
        (*_tool_calls(body), *(_part_call(part) for part in parts if _is_call(part))),
        results,
        _str(body.get("name")),
        find_model(body),
        _usage(body),
        turn,
    )


def _read_result(body: dict[str, Any]) -> Reading:
    content, error = body.get("content"), body.get("error")
    said = error.get("message") if isinstance(error, dict) else None
    texts = tuple(_texts(content)) or ((as_text(content),) if content is not None else ())
    name = _str(body.get("name")) or _str(body.get("function"))
    failed = isinstance(error, dict) or body.get("status") == "error"
    text = SEPARATOR.join(texts) or _str(said) or ""
    result = ToolResult(body.get("tool_call_id"), name, text, failed, _str(said))
    return Reading(Voice.ASKED, texts, results=(result,))


def _read_item(kind: str, body: dict[str, Any]) -> Reading:
    """Read an item of OpenAI's Responses API, which Codex keeps too."""
    call_id = body.get("call_id") or body.get("id")
    if kind in _ITEM_CALLS:
        name = _str(body.get("name")) or (kind.removesuffix("_call") if "name" not in body else "")
        call = ToolCall(call_id, name, body.get(_ITEM_CALLS[kind]), body)
        return Reading(
            Voice.MODEL, calls=(call,), results=_own_result(kind, body), turn=_RESPONSES_TURN
        )
    if kind in _ITEM_RESULTS:
        text = as_text(body.get("output"))
        result = ToolResult(call_id, None, text, body.get("status") == "failed")
        return Reading(Voice.ASKED, (text,), results=(result,))
    if kind == "reasoning":
        thoughts = (*_texts(body.get("summary")), *_texts(body.get("content")))
        return Reading(Voice.MODEL, thoughts=thoughts, turn=_RESPONSES_TURN)
    role = body.get("role")
    voice = Voice.MODEL if role in _MODEL else Voice.ASKED if role in _ASKING else Voice.BESIDE
    turn = _RESPONSES_TURN if voice is Voice.MODEL else None
    return Reading(voice, tuple(_texts(body.get("content"))), turn=turn)


def _own_result(kind: str, body: dict[str, Any]) -> tuple[ToolResult, ...]:
    """Return the result that an item holds of its own call."""
    said, error = body.get(_ITEM_OWN_RESULTS.get(kind, "")), body.get("error")
    if said is None and error is None:
        return ()
    reason = None if error is None else as_text(error)
    text = reason or "" if said is None else as_text(said)
    return (
        ToolResult(body.get("call_id") or body.get("id"), None, text, error is not None, reason),
    )


# --- the parts ----------------------------------------------------------------------------------


def _texts(content: Any) -> Iterator[str]:
    """Iterate over the texts of content: of a text, of an object with one, of a list of either."""
    for part in content if isinstance(content, list) else (content,):
        text = _spoken(part)
        if text is not None:
            yield text
        elif isinstance(part, dict) and _is_result(part):
            yield as_text(part.get("content"))


def _spoken(part: Any) -> str | None:
    if isinstance(part, dict):
        return _str(part.get("text")) or _str(part.get("refusal"))
    return _str(part)


def _thoughts(body: dict[str, Any], parts: list[dict[str, Any]]) -> Iterator[str]:
    for holder in (body, *parts):
        for key in ("reasoning_content", "reasoning", "thinking"):
            if isinstance(holder.get(key), str):
                yield holder[key]


def _tool_calls(body: dict[str, Any]) -> Iterator[ToolCall]:
    """Iterate over the calls beside a message's content; a legacy ``function_call`` is last.

    LangChain has those apart whose arguments are not JSON.
    """
    listed = (body.get("tool_calls"), body.get("invalid_tool_calls"))
    calls = [call for some in listed if isinstance(some, list) for call in some]
    if isinstance(body.get("function_call"), dict):
        calls.append({"function": body["function_call"]})
    for source in calls:
        call: dict[str, Any] = source if isinstance(source, dict) else {}
        bodies = (call.get(kind) for kind in ("function", "custom"))
        inner = next((inner for inner in bodies if isinstance(inner, dict)), call)
        # In Inspect's log, `function` is the name itself.
        name = _str(inner.get("name")) or _str(inner.get("function")) or ""
        key = next((key for key in ("arguments", "args", "input") if key in inner), "")
        yield ToolCall(call.get("id"), name, inner.get(key), source)


def _is_call(part: dict[str, Any]) -> bool:
    return part.get("type") in ("tool_use", "server_tool_use", "mcp_tool_use")


def _part_call(part: dict[str, Any]) -> ToolCall:
    return ToolCall(part.get("id"), _str(part.get("name")) or "", part.get("input"), part)


def _is_result(part: dict[str, Any]) -> bool:
    return str(part.get("type")).endswith("tool_result") and "tool_use_id" in part


def _part_result(part: dict[str, Any]) -> ToolResult:
    content = part.get("content")
    failed = part.get("is_error") is True or (isinstance(content, dict) and "error_code" in content)
    return ToolResult(part["tool_use_id"], None, as_text(content), failed)


def _usage(body: dict[str, Any]) -> dict[str, int]:
    """Return the tokens of a reply. Anthropic does not count cached tokens as input; we do."""
    found = next((body[key] for key in _USAGES if isinstance(body.get(key), dict)), None)
    if found is None:
        return {}
    read = _count(found, "cache_read_input_tokens")
    written = _count(found, "cache_creation_input_tokens")
    details = found.get("prompt_tokens_details") or found.get("input_token_details")
    cached = read
    if cached is None and isinstance(details, dict):
        cached = _count(details, "cached_tokens", "cache_read")
    asked = _count(found, "input_tokens", "prompt_tokens")
    if asked is not None:
        asked += (read or 0) + (written or 0)
    counts = {
        "input_tokens": asked,
        "output_tokens": _count(found, "output_tokens", "completion_tokens"),
        "cached_tokens": cached if asked is not None else None,
    }
    return {name: count for name, count in counts.items() if count is not None}


def _count(found: dict[str, Any], *names: str) -> int | None:
    """Return the first of these that is a plausible number of tokens."""
    for name in names:
        value = found.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
            return value
    return None


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _load(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value
