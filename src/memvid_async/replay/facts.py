"""The facts of an action: those of its properties that a comparison looks at.

Facts are the kind, the fields of the details, the input and the output, the messages, how the
memory was searched, the metadata, the task, the error, and a checkpoint's state hash. Not compared
is what says when and where an action was recorded: index, sequence, time, duration, checkpoint id,
and where in the log the found frames were. Not compared either are ids that were made up during the
run: the ids of tool calls within an ask's response and messages, the names that asyncio chooses
for tasks (``Task-7``), and what this library itself notes in metadata.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from typing import Any

import attrs

from ..events.content import content_digest
from ..events.details import ActionKind, Details
from ..events.event import Action
from ..events.frames import Retrieval
from ..events.message_digests import drop_call_ids, value_digest

PROVENANCE = ("memvid_async", "imported_chat")
"""The metadata keys under which this library notes where an action came from."""

INPUT_NAMES = {
    ActionKind.ASK: "query",
    ActionKind.FIND: "query",
    ActionKind.PUT: "data",
    ActionKind.UPDATE: "data",
    ActionKind.TOOL_CALL: "arguments",
}
OUTPUT_NAMES = {ActionKind.ASK: "response", ActionKind.TOOL_CALL: "result"}

# Fields of details that are not compared here: an id, and a count of messages, which are compared
# themselves.
_NOT_COMPARED = {"checkpoint_id", "message_count"}
_AUTOMATIC_TASK = re.compile(r"Task-\d+")
_MOST_JSON = 1 << 20


def details_fields(details: Details) -> list[tuple[str, Any]]:
    """Return the fields of an action's details that are compared, with their values."""
    names = (attribute.name for attribute in attrs.fields(type(details)))
    return [(name, getattr(details, name)) for name in names if name not in _NOT_COMPARED]


def retrieval_fields(retrieval: Retrieval | None) -> list[tuple[str, Hashable]]:
    """Return how the memory was searched, and the scores; without its sequence at that moment."""
    if retrieval is None:
        return []
    embedding = retrieval.embedding
    return [
        ("top_k", retrieval.top_k),
        ("filters", value_digest(dict(retrieval.parameters))),
        ("scores", tuple(round(score, 6) for score in retrieval.scores)),
        ("embedding", None if embedding is None else content_digest(embedding).hex()),
        ("embedding_model", retrieval.embedding_model),
        ("syntax", retrieval.syntax),
    ]


def task_name(task: str | None) -> str | None:
    """Return the task's name; None for a name that asyncio made up."""
    return None if task is None or _AUTOMATIC_TASK.fullmatch(task) else task


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata without what this library notes itself."""
    return {key: value for key, value in metadata.items() if key not in PROVENANCE}


def may_hold_calls(action: Action) -> bool:
    """Whether an action's output may be a response with tool calls, whose ids are not compared."""
    output = action.output
    if action.kind is not ActionKind.ASK or output is None or output.size > _MOST_JSON:
        return False
    return output.preview.startswith("{")


def without_call_ids(data: str | bytes) -> str | bytes:
    """Remove the ids of tool calls from a response in JSON; return any other response unchanged."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    if '"tool_calls"' not in text:
        return data
    try:
        return json.dumps(drop_call_ids(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return data
