"""Actions of a recording as spans: those that came from spans as they were, others by the semantic
conventions for generative AI."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .. import (
    Action,
    AskDetails,
    Content,
    FindDetails,
    Session,
    StepDetails,
    Store,
    ToolCallDetails,
)
from .otel_spans import (
    ARGUMENTS,
    CACHED_TOKENS,
    CONVERSATION,
    INPUT,
    INPUT_TOKENS,
    MODEL,
    OPERATION,
    OUTPUT,
    OUTPUT_TOKENS,
    PROVIDERS,
    QUERY,
    RESULT,
    TOOL,
    Record,
    json_of,
)

_SCOPE: list[Any] = ["memvid_async", None, None, {}]
_NO_STATUS = ["UNSET", None]
_MASK = 2**64 - 1


async def restored(store: Store, action: Action, base: Record, kept: Mapping[str, Any]) -> Record:
    """Return the span that an action came from. ``base``: what all spans of its session share.
    ``kept``: the metadata of the action."""
    attributes = dict(kept["attributes"])
    for name, style in kept.get("moved", {}).items():
        if style is not None:
            attributes[name] = json_of(await store.read_messages(action), style)
        else:
            text = await _text(store, action.input if name == QUERY else action.output)
            attributes[name] = text
    return {**base, **kept, "attributes": attributes}


async def own_records(store: Store, session: Session) -> list[Record]:
    """Return a session that came from no spans as those of a trace: its own first."""
    number = session.session_id.int
    root = (number & _MASK) or 1
    ended = session.ended_ns
    if ended is None:
        ended = max((action.time_ns for action in session.actions), default=session.created_ns)
    base = {"trace_id": f"{number:032x}", "resource": [{"service.name": "memvid_async"}, ""]}
    found: list[Record] = [
        base
        | _span(root, None, session.name or "session", session.created_ns, ended, session.error)
        | {"attributes": {OPERATION: "invoke_workflow", CONVERSATION: str(session.session_id)}}
    ]
    for action in session.actions:
        began = action.started_ns
        if began is None:
            began = action.time_ns - int(action.duration_ms * 1e6)
        span = _span(
            action.started or action.sequence,
            action.parent or root,
            action.kind.value,
            began,
            max(began, action.time_ns),
            action.error,
        )
        found.append(base | span | await _described(store, action))
    return found


def _span(
    number: int, parent: int | None, name: str, began: int, ended: int, error: str | None
) -> Record:
    return {
        "name": name,
        "span_id": f"{number:016x}",
        "trace_flags": 1,
        "trace_state": {},
        "parent_id": None if parent is None else f"{parent:016x}",
        "parent_is_remote": False,
        "kind": "INTERNAL",
        "start_ns": began,
        "end_ns": ended,
        "status": _NO_STATUS if error is None else ["ERROR", error],
        "events": [],
        "links": [],
        "scope": _SCOPE,
    }


async def _described(store: Store, action: Action) -> Record:
    """Return the name and the attributes of an action's span, and its kind."""
    details, attributes = action.details, dict[str, Any]()
    name, kind = action.kind.value, "INTERNAL"
    if isinstance(details, AskDetails):
        name, kind = f"chat {details.model or ''}".strip(), "CLIENT"
        attributes = await _ask(store, action, details)
    elif isinstance(details, ToolCallDetails):
        name = f"execute_tool {details.name}"
        attributes = {OPERATION: "execute_tool", TOOL: details.name}
        attributes[ARGUMENTS] = _json(await store.read_arguments(action))
        if action.output is not None:
            attributes[RESULT] = await _text(store, action.output)
    elif isinstance(details, FindDetails):
        name, kind = "retrieval", "CLIENT"
        attributes = {OPERATION: "retrieval", QUERY: await _text(store, action.input)}
    elif isinstance(details, StepDetails):
        name = details.name
    if action.error_detail is not None:
        attributes["error.type"] = action.error_detail.type_name
    elif action.error is not None:
        attributes["error.type"] = action.error.partition(":")[0]
    return {"name": name, "kind": kind, "attributes": attributes}


async def _ask(store: Store, action: Action, details: AskDetails) -> Record:
    attributes: Record = {OPERATION: "chat"}
    for name, value in ((PROVIDERS[0], details.provider), (MODEL, details.model)):
        if value is not None:
            attributes[name] = value
    messages = await store.read_messages(action) if details.message_count else None
    if messages is None:
        messages = [{"role": "user", "content": await _text(store, action.input)}]
    attributes[INPUT] = _json([_message(one) for one in messages])
    if action.output is not None:
        said = {"role": "assistant", "content": await _text(store, action.output)}
        attributes[OUTPUT] = _json([_message(said)])
    usage = action.usage
    if usage is not None:
        counts = {
            INPUT_TOKENS[0]: usage.input_tokens,
            OUTPUT_TOKENS[0]: usage.output_tokens,
            CACHED_TOKENS[0]: usage.cached_tokens,
        }
        attributes |= {name: count for name, count in counts.items() if count is not None}
    return attributes


def _message(message: Any) -> Any:
    """Return a message with its text as a part, as the conventions have it."""
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), str):
        return message
    others = {name: value for name, value in message.items() if name != "content"}
    return {**others, "parts": [{"type": "text", "content": message["content"]}]}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=repr)


async def _text(store: Store, content: Content | None) -> str:
    return "" if content is None else (await store.read_content(content)).decode(errors="replace")
