"""JSON documents, as the commands print them: plain values with stable snake_case names."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import attrs

from .. import (
    Action,
    ActionStarted,
    Answer,
    Checkpoint,
    Content,
    ContentNotFoundError,
    FindResult,
    ForkPoint,
    Frame,
    MessageRun,
    Session,
    SessionSummary,
    Store,
)
from .text import iso_time
from .tree import TreeNode

Document = dict[str, Any]
# Longer integers become hexadecimal: Python does not write very long ones in decimal.
_DECIMAL_BITS = 4096
# The messages of this many asks are read together.
_READ_TOGETHER = 250


def dump(document: object, *, indent: int | None = None) -> str:
    """Return JSON in ASCII, so that no recorded character reaches a terminal unescaped."""
    return json.dumps(document, indent=indent, allow_nan=False)


def dump_told(document: object, *, indent: int | None = None) -> str:
    """Return a document of ours as JSON for programs, with its times as :func:`with_times` has
    them."""
    return dump(with_times(document), indent=indent)


# What was recorded under these keys is somebody else's: it is left as it is.
_THEIRS = frozenset(("metadata", "arguments", "messages", "parameters", "fields", "config"))


def with_times(document: Any) -> Any:
    """Return a document for programs: nanoseconds as text, since many of them round such numbers,
    and beside each time ISO 8601 in UTC, under the name without ``_ns``."""
    if isinstance(document, list):
        return [with_times(item) for item in document]
    if not isinstance(document, dict):
        return document
    told: Document = {}
    for name, value in document.items():
        if name in _THEIRS:
            told[name] = value
        elif name.endswith("_ns") and (value is None or type(value) is int):
            told[name] = None if value is None else str(value)
            if name != "duration_ns":
                told[name.removesuffix("_ns")] = None if value is None else iso_time(value)
        else:
            told[name] = with_times(value)
    return told


def plain(value: object) -> Any:
    """Return a recorded value as JSON can hold it.

    Bytes become ``{"$base64": text}``, a map with keys other than str ``{"$pairs": [[key, value],
    …]}``, and a float that is not finite or an integer of more than 4096 bits a str.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: plain(item) for key, item in value.items()}
        return {"$pairs": [[plain(key), plain(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and value.bit_length() > _DECIMAL_BITS:
        return hex(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def summary_document(summary: SessionSummary) -> Document:
    """Return a session as listed."""
    return {
        **attrs.asdict(summary, recurse=False),
        "session_id": str(summary.session_id),
        "metadata": plain(summary.metadata),
        "fork": fork_document(summary.fork),
    }


def tree_document(node: TreeNode, *, with_depth: bool) -> Document:
    """Return a session in the tree of forks; of a deleted parent only its id."""
    place = {"depth": node.depth} if with_depth else {}
    if node.summary is None:
        return {"session_id": str(node.session_id), "is_deleted": True, **place}
    return {**summary_document(node.summary), **place}


def fork_document(fork: ForkPoint | None) -> Document | None:
    """Return where a fork leaves its parent; the hash in hexadecimal."""
    if fork is None:
        return None
    return {
        **attrs.asdict(fork),
        "parent_id": str(fork.parent_id),
        "memory_hash": fork.memory_hash.hex(),
    }


def session_document(
    session: Session, actions: list[Document], in_flight: list[Document]
) -> Document:
    """Return a whole session. ``actions``, ``in_flight``: as :func:`read_action` and
    :func:`read_started` return them."""
    return {
        "session_id": str(session.session_id),
        "name": session.name,
        "created_ns": session.created_ns,
        "ended_ns": session.ended_ns,
        "error": session.error,
        "version": session.version,
        "metadata": plain(session.metadata),
        "fork": fork_document(session.fork),
        "checkpoints": [checkpoint_document(checkpoint) for checkpoint in session.checkpoints],
        "in_flight": in_flight,
        "actions": actions,
    }


async def read_started(store: Store, started: ActionStarted, *, full: bool) -> Document:
    """Return the beginning of a call, with its arguments; ``full``: with its whole input too."""
    document: Document = {
        "start_sequence": started.call,
        "parent_sequence": started.parent,
        "started_ns": started.time_ns,
        "kind": started.kind.value,
        "details": plain(attrs.asdict(started.details)),
        "task": started.task,
        "try_number": started.try_number,
        "input": await read_content_document(store, started.input, full=full),
    }
    await _add_arguments(store, started, document)
    return document


async def _add_arguments(store: Store, made: Action | ActionStarted, document: Document) -> None:
    if made.kind in ("tool_call", "step") and made.input is not None:
        document["arguments"] = await _unless_erased(store.read_arguments(made))


def checkpoint_document(checkpoint: Checkpoint) -> Document:
    """Return a checkpoint; hashes in hexadecimal."""
    snapshot = checkpoint.snapshot
    return {
        "checkpoint_id": checkpoint.checkpoint_id,
        "at_index": checkpoint.at_index,
        "time_ns": checkpoint.time_ns,
        "state_hash": checkpoint.state_hash.hex(),
        "snapshot": {
            "frame_count": snapshot.frame_count,
            "memory_hash": snapshot.memory_hash.hex(),
            "log_sequence": snapshot.log_sequence,
            "generation": snapshot.generation,
        },
    }


async def read_action(
    store: Store, action: Action, *, full: bool, messages: Sequence[Any] | None = None
) -> Document:
    """Return an action with its arguments; None in place of what was erased.

    ``full``: with its whole contents, its messages, the frames that it retrieved and the last ones
    of an error's traceback too. ``messages``: those of an ask, where the caller has read them.
    """
    document: Document = {
        "index": action.index,
        "sequence": action.sequence,
        "time_ns": action.time_ns,
        "kind": action.kind.value,
        "details": plain(attrs.asdict(action.details)),
        "input": await read_content_document(store, action.input, full=full),
        "output": await read_content_document(store, action.output, full=full),
        "affected_frames": list(action.affected_frames),
        "duration_ms": action.duration_ms,
        "started_ns": action.started_ns,
        "start_sequence": action.started,
        "parent_sequence": action.parent,
        "task": action.task,
        "error": action.error,
        "metadata": plain(action.metadata),
        "retrieval": None if action.retrieval is None else plain(attrs.asdict(action.retrieval)),
        "reply": None if action.reply is None else plain(attrs.asdict(action.reply)),
    }
    await _add_arguments(store, action, document)
    if action.kind == "ask" and full:
        if messages is None:
            messages = await _unless_erased(store.read_messages(action))
        document["messages"] = messages
    if action.error_detail is not None and full:
        document["traceback"] = list(action.error_detail.frames)
    if action.retrieval is not None and full:
        context = await store.read_context(action)
        document["context"] = [plain(attrs.asdict(item)) for item in context.items]
    return document


async def read_actions(store: Store, actions: Iterable[Action]) -> AsyncGenerator[Document, None]:
    """Yield actions whole. Of an ask's messages, a :class:`MessageRun` stands for those that an
    earlier ask has: a chat that grows is read in the time that its messages take once."""
    waiting = iter(actions)
    while some := list(islice(waiting, _READ_TOGETHER)):
        for action, messages in zip(some, await new_messages(store, some), strict=True):
            yield await read_action(store, action, full=True, messages=messages)


async def new_messages(store: Store, actions: Sequence[Action]) -> list[list[Any]]:
    """Return the messages of each action that no earlier ask has, as JSON can hold them; none where
    they were erased."""
    try:
        read = await store.read_new_messages(actions)
    except ContentNotFoundError:
        if len(actions) == 1:
            return [[]]
        return [(await new_messages(store, [action]))[0] for action in actions]
    return [
        [one if isinstance(one, MessageRun) else plain(one) for one in messages]
        for messages in read
    ]


async def _unless_erased(reading: Awaitable[object]) -> Any:
    try:
        return plain(await reading)
    except ContentNotFoundError:
        return None


async def read_content_document(
    store: Store, content: Content | None, *, full: bool
) -> Document | None:
    """Return a content; ``full``: with its bytes. One that was erased says so."""
    if content is None:
        return None
    if not full:
        return content_document(content)
    data = content.data
    if data is not None:
        # What is small is with its action: nothing is read, in no other thread.
        return content_document(content, data.encode() if isinstance(data, str) else data)
    try:
        return content_document(content, await store.read_content(content))
    except ContentNotFoundError:
        return {**content_document(content), "is_erased": True}


def content_document(content: Content, data: bytes | None = None) -> Document:
    """Return a content, with its bytes where they are passed."""
    document: Document = {
        "digest": content.digest.hex(),
        "size": content.size,
        "preview": content.preview,
    }
    if data is not None:
        try:
            document["text"] = data.decode()
        except UnicodeDecodeError:
            document["base64"] = base64.b64encode(data).decode()
    return document


# --- the memory ---------------------------------------------------------------------------------


def frame_document(frame: Frame, data: bytes | None = None) -> Document:
    """Return a frame, with its content's bytes where they are passed."""
    return {
        **plain(attrs.asdict(frame, recurse=False, filter=attrs.filters.exclude("content"))),
        "content": content_document(frame.content, data),
    }


def find_document(result: FindResult) -> Document:
    """Return what a search found."""
    document: Document = plain(attrs.asdict(result))
    return document


def answer_document(question: str, answer: Answer, *, with_reply: bool) -> Document:
    """Return the question, what was found and, ``with_reply``, the reply."""
    document: Document = {
        "question": question,
        "hits": [plain(attrs.asdict(hit)) for hit in answer.hits],
        "context": [plain(attrs.asdict(item)) for item in answer.context.items],
    }
    if with_reply:
        document |= {"reply": str(answer), "duration_ms": answer.duration_ms}
    return document
