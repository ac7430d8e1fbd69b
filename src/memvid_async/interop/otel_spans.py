"""OpenTelemetry's spans as plain values, and what an action has of one.

The attributes are those of the semantic conventions for generative AI.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from .. import ActionKind

# What a span's operation is recorded as; all other spans are steps.
_KINDS = {
    "chat": ActionKind.ASK,
    "generate_content": ActionKind.ASK,
    "text_completion": ActionKind.ASK,
    "embeddings": ActionKind.ASK,
    "retrieval": ActionKind.FIND,
    "execute_tool": ActionKind.TOOL_CALL,
}
OPERATION = "gen_ai.operation.name"
MODEL = "gen_ai.request.model"
PROVIDERS = ("gen_ai.provider.name", "gen_ai.system")
INPUT_TOKENS = ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")
OUTPUT_TOKENS = ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
CACHED_TOKENS = ("gen_ai.usage.cache_read.input_tokens",)
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
TOOL, ARGUMENTS, RESULT = (
    "gen_ai.tool.name",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
)
QUERY, DOCUMENTS = "gen_ai.retrieval.query.text", "gen_ai.retrieval.documents"
AGENT, CONVERSATION = "gen_ai.agent.name", "gen_ai.conversation.id"
_NAMES = (AGENT, "gen_ai.workflow.name")
# Of a value in metadata, which is nested itself.
_MOST_DEPTH = 16
# How programs write JSON: the arguments of json.dumps. What one of them makes again is kept as the
# value that it stands for.
_JSON_STYLES: tuple[dict[str, Any], ...] = tuple(
    {"separators": separators, "ensure_ascii": is_ascii}
    for separators in ((", ", ": "), (",", ":"))
    for is_ascii in (True, False)
)

Record = dict[str, Any]
"""A span as a map of plain values; ids are in hexadecimal digits, as OpenTelemetry prints them."""


@define
class SpanFields:
    """What an action has of a span. ``moved``: the attributes that are not kept besides, each with
    the style of its JSON; None for a text as it is."""

    kind: ActionKind
    name: str
    provider: str | None = None
    model: str | None = None
    query: str = ""
    messages: list[Any] = Factory(list)
    arguments: Any = None
    output: str | None = None
    usage: dict[str, Any] = Factory(dict)
    result_count: int = 0
    moved: dict[str, int | None] = Factory(dict)


# From a span.


def record_of(span: ReadableSpan) -> Record:
    """Return an ended span as plain values."""
    context, parent, scope = span.get_span_context(), span.parent, span.instrumentation_scope
    assert context is not None
    return {
        "name": span.name,
        "trace_id": f"{context.trace_id:032x}",
        "span_id": f"{context.span_id:016x}",
        "trace_flags": int(context.trace_flags),
        "trace_state": dict(context.trace_state),
        "parent_id": None if parent is None else f"{parent.span_id:016x}",
        "parent_is_remote": parent is not None and parent.is_remote,
        "kind": span.kind.name,
        "start_ns": span.start_time or 0,
        "end_ns": span.end_time or span.start_time or 0,
        "status": [span.status.status_code.name, span.status.description],
        "attributes": plain(span.attributes or {}),
        "events": [[e.name, e.timestamp, plain(e.attributes or {})] for e in span.events],
        "links": [
            [f"{n.context.trace_id:032x}", f"{n.context.span_id:016x}", plain(n.attributes or {})]
            for n in span.links
        ],
        "scope": None
        if scope is None
        else [scope.name, scope.version, scope.schema_url, plain(scope.attributes or {})],
        "resource": [plain(span.resource.attributes), span.resource.schema_url],
    }


def plain(value: Any, depth: int = 0) -> Any:
    """Return an attribute as CBOR can hold it; what is nested too deep as its text."""
    if isinstance(value, str):
        # Half of a surrogate pair has no place in UTF-8.
        return value if value.isascii() else value.encode(errors="replace").decode()
    if depth == _MOST_DEPTH and not isinstance(value, (bytes, int, float)):
        return None if value is None else repr(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item, depth + 1) for item in value]
    return value


def fields_of(record: Record) -> SpanFields:
    """Return what an action has of a span."""
    given = record["attributes"]
    operation = given.get(OPERATION)
    kind = _KINDS.get(operation, ActionKind.STEP) if isinstance(operation, str) else ActionKind.STEP
    if operation is None and MODEL in given:
        kind = ActionKind.ASK
    name = record["name"]
    if kind is ActionKind.STEP:
        query, output = _said(_parsed(given.get(INPUT)), "user"), _said(_parsed(given.get(OUTPUT)))
        found = SpanFields(kind, _text_in(given, *_NAMES) or name, output=output or None)
        found.arguments = query or None
    elif kind is ActionKind.ASK:
        found = _ask(given, name)
    elif kind is ActionKind.TOOL_CALL:
        found = SpanFields(kind, _text_in(given, TOOL) or name)
        found.arguments = _parsed(given.get(ARGUMENTS))
        _move(found, given, RESULT, "output")
    else:
        found = SpanFields(
            kind, _text_in(given, "gen_ai.data_source.id") or "retrieval", query=name
        )
        _move(found, given, QUERY, "query")
        documents = _parsed(given.get(DOCUMENTS))
        found.result_count = len(documents) if isinstance(documents, list) else 0
    return found


def _ask(given: Mapping[str, Any], name: str) -> SpanFields:
    found = SpanFields(ActionKind.ASK, name, _text_in(given, *PROVIDERS), _text_in(given, MODEL))
    messages = _parsed(given.get(INPUT))
    if isinstance(messages, list) and messages:
        found.messages = messages
        style = _style(given[INPUT], messages)
        if style is not None:
            found.moved[INPUT] = style
    found.query = _said(messages, "user") or _text_in(given, "gen_ai.prompt") or name
    output = _said(_parsed(given.get(OUTPUT))) or _text_in(given, OUTPUT, "gen_ai.completion")
    found.output = output or None
    counts = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    for field, names in {**counts, "cached_tokens": CACHED_TOKENS}.items():
        count = next((given[one] for one in names if one in given), None)
        if type(count) is int and count >= 0:
            found.usage[field] = count
    return found


def _move(found: SpanFields, given: Mapping[str, Any], attribute: str, field: str) -> None:
    """Keep a text in a field of the action instead of the attributes."""
    value = given.get(attribute)
    if isinstance(value, str) and value:
        setattr(found, field, value)
        found.moved[attribute] = None
    elif value is not None:
        setattr(found, field, json.dumps(value))


def _text_in(given: Mapping[str, Any], *names: str) -> str | None:
    return next((given[name] for name in names if isinstance(given.get(name), str)), None) or None


def _parsed(value: Any) -> Any:
    """Return what the JSON in an attribute stands for; another value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return plain(json.loads(value))
    except (ValueError, RecursionError):
        return value


def _style(text: Any, value: Any) -> int | None:
    """Return how to make the JSON of a value again; None where no style makes it."""
    made = (json.dumps(value, **style) for style in _JSON_STYLES)
    return next((number for number, one in enumerate(made) if one == text), None)


def json_of(value: Any, style: int) -> str:
    """Return the JSON of a value in a style."""
    return json.dumps(value, **_JSON_STYLES[style])


def _said(messages: Any, role: str | None = None) -> str:
    """Return the text of the last message (of a role, if there is one): its parts of text."""
    if isinstance(messages, str):
        return messages
    if not isinstance(messages, list):
        return ""
    for message in reversed(messages):
        if isinstance(message, Mapping) and role in (None, message.get("role")):
            parts = message.get("parts", message.get("content"))
            if isinstance(parts, str):
                return parts
            texts = [
                part.get("content", part.get("text"))
                for part in (parts if isinstance(parts, list) else ())
                if isinstance(part, Mapping) and part.get("type") == "text"
            ]
            return "\n".join(text for text in texts if isinstance(text, str))
    return ""


def failure_of(record: Record) -> str | None:
    """Return how a span failed, in words; None where it did not."""
    code, description = record["status"]
    if code != StatusCode.ERROR.name:
        return None
    raised = [e[2] for e in record["events"] if e[0] == "exception"]
    named = [f"{e.get('exception.type')}: {e.get('exception.message')}" for e in raised]
    found = description or (named[-1] if named else record["attributes"].get("error.type"))
    return str(found or "error")


# To a span.


def span_of(record: Mapping[str, Any]) -> ReadableSpan:
    """Return the span that a record is of."""
    trace_id, parent_id, scope = int(record["trace_id"], 16), record["parent_id"], record["scope"]
    flags, state = (
        TraceFlags(record["trace_flags"]),
        TraceState(list(record["trace_state"].items())),
    )

    def context(span_id: str, *, trace: int = trace_id, remote: bool = False) -> SpanContext:
        return SpanContext(trace, int(span_id, 16), remote, flags, state)

    code, description = record["status"]
    attributes, schema_url = record["resource"]
    return ReadableSpan(
        record["name"],
        context(record["span_id"]),
        None if parent_id is None else context(parent_id, remote=record["parent_is_remote"]),
        Resource(_thawed(attributes), schema_url),
        _thawed(record["attributes"]),
        [Event(name, _thawed(given), time_ns) for name, time_ns, given in record["events"]],
        [
            Link(context(span, trace=int(trace, 16)), _thawed(given))
            for trace, span, given in record["links"]
        ],
        SpanKind[record["kind"]],
        None,
        Status(StatusCode[code], description),
        record["start_ns"],
        record["end_ns"],
        None if scope is None else _scope(*scope),
    )


def _scope(
    name: str, version: str | None, schema_url: str | None, attributes: Mapping[str, Any]
) -> InstrumentationScope:
    return InstrumentationScope(name, version, schema_url, _thawed(attributes))


def _thawed(value: Any) -> Any:
    """Return an attribute as the SDK has it: a sequence is a tuple."""
    if isinstance(value, Mapping):
        return {key: _thawed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_thawed(item) for item in value)
    return value
