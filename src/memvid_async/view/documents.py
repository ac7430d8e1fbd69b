"""JSON documents, as the commands print them: plain values with stable snake_case names."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import attrs

from .. import (
    Action,
    ActionRecorded,
    Answer,
    AuditReport,
    Checkpoint,
    CheckpointCreated,
    CompactReport,
    Comparison,
    Content,
    ContentNotFoundError,
    ContentStored,
    Difference,
    EmbeddingModelSet,
    EmbeddingsMade,
    Event,
    FindResult,
    ForkPoint,
    Frame,
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    MemoryConfigured,
    PruneReport,
    RecoverReport,
    ReplayReport,
    Session,
    SessionEnded,
    SessionStarted,
    SessionSummary,
    Store,
    StoreStatistics,
    Unknown,
    Usage,
    UsageRow,
    VerifyReport,
)
from .tree import TreeNode

Document = dict[str, Any]
# Longer integers become hexadecimal: Python does not write very long ones in decimal.
_DECIMAL_BITS = 4096

# The content comes last, because it is long.
_FIELDS = (
    *(field.name for field in attrs.fields(FramePut) if field.name not in ("content", "branch")),
    "content",
)


def dump(document: object, *, indent: int | None = None) -> str:
    """Return JSON in ASCII, so that no recorded character reaches a terminal unescaped."""
    return json.dumps(document, indent=indent, allow_nan=False)


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


def session_document(session: Session, actions: list[Document]) -> Document:
    """Return a whole session. ``actions``: as :func:`read_action` returns them."""
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
        "actions": actions,
    }


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

    ``full``: with its whole contents, its messages and the frames that it retrieved too.
    ``messages``: those of an ask, where the caller has read them.
    """
    document: Document = {
        "index": action.index,
        "sequence": action.sequence,
        "time_ns": action.time_ns,
        "kind": action.kind.value,
        "details": plain(attrs.asdict(action.details)),
        "input": await _read_content(store, action.input, full=full),
        "output": await _read_content(store, action.output, full=full),
        "affected_frames": list(action.affected_frames),
        "duration_ms": action.duration_ms,
        "task": action.task,
        "error": action.error,
        "metadata": plain(action.metadata),
        "retrieval": None if action.retrieval is None else plain(attrs.asdict(action.retrieval)),
        "reply": None if action.reply is None else plain(attrs.asdict(action.reply)),
    }
    if action.kind in ("tool_call", "step") and action.input is not None:
        document["arguments"] = await _unless_erased(store.read_arguments(action))
    if action.kind == "ask" and full:
        if messages is None:
            messages = await _unless_erased(store.read_messages(action))
        document["messages"] = messages
    if action.retrieval is not None and full:
        context = await store.read_context(action)
        document["context"] = [plain(attrs.asdict(item)) for item in context.items]
    return document


async def _unless_erased(reading: Awaitable[object]) -> Any:
    try:
        return plain(await reading)
    except ContentNotFoundError:
        return None


async def _read_content(store: Store, content: Content | None, *, full: bool) -> Document | None:
    if content is None:
        return None
    try:
        return content_document(content, await store.read_content(content) if full else None)
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


async def _read_changes(store: Store, values: Mapping[str, Any], *, full: bool) -> Document:
    """Return fields of a frame; of an embedding only its dimension."""
    document: Document = {}
    for name, value in values.items():
        if name == "content":
            document[name] = await _read_content(store, value, full=full)
        elif name == "embedding":
            document["dimension"] = 0 if value is None else len(value) // 4
        else:
            document[name] = plain(value)
    return document


# --- events -------------------------------------------------------------------------------------


async def read_event(store: Store, event: Event, *, full: bool = False) -> Document:
    """Return an event of the log with its payload; ``full`` as for :func:`read_action`."""
    return {
        "sequence": event.sequence,
        "time_ns": event.time_ns,
        "session_id": None if event.session_id is None else str(event.session_id),
        "type": event_type(event),
        "payload": await _read_payload(store, event.payload, full=full),
    }


def event_type(event: Event) -> str:
    """Return the class name of an event's payload, in snake case."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(event.payload).__name__).lower()


async def _read_frame(store: Store, frame: FramePut | FrameErased, *, full: bool) -> Document:
    """A frame as it was put; of one that was erased since, what is left."""
    if isinstance(frame, FrameErased):
        return {"frame_id": frame.frame_id, "digest": frame.digest.hex()}
    values = {name: getattr(frame, name) for name in _FIELDS}
    return await _read_changes(store, values, full=full)


async def _read_payload(store: Store, payload: object, *, full: bool) -> Document:
    match payload:
        case SessionStarted():
            return {
                "name": payload.name,
                "ambient": payload.ambient,
                "config": attrs.asdict(payload.config),
                "metadata": plain(payload.metadata),
                "fork": fork_document(payload.fork),
            }
        case SessionEnded():
            return {"error": payload.error}
        case ContentStored():
            return {"digest": payload.digest.hex(), "size": payload.size}
        case ActionRecorded():
            return {"action": await read_action(store, payload.action, full=full)}
        case CheckpointCreated():
            return {
                "action": await read_action(store, payload.action, full=full),
                "checkpoint": checkpoint_document(payload.checkpoint),
            }
        case FramesPut():
            frames = [await _read_frame(store, frame, full=full) for frame in payload]
            return {"frame_id": payload.frame_id, "branch": payload.branch, "frames": frames}
        case FrameUpdated():
            return {
                "frame_id": payload.frame_id,
                "changes": await _read_changes(store, payload.changes, full=full),
                "branch": payload.branch,
            }
        case FrameErased() | EmbeddingModelSet():
            return {**attrs.asdict(payload), "digest": payload.digest.hex()}
        case FrameDeleted() | MemoryConfigured():
            return attrs.asdict(payload)
        case EmbeddingsMade():
            return {"move": payload.move, "count": payload.count}
        case Unknown():
            return {"kind": payload.kind, "fields": plain(payload.fields)}
    return {}


def action_outline(action: Action) -> Document:
    """Return which action it is, without its contents."""
    return {"index": action.index, "kind": action.kind.value, "task": action.task}


def difference_document(difference: Difference) -> Document:
    """Return a field that differs, and how."""
    return {"field": difference.field, "diff": difference.diff}


def comparison_document(comparison: Comparison) -> Document:
    """Return two sessions compared; actions by their index in their session."""
    return {
        "session_a": str(comparison.session_a),
        "session_b": str(comparison.session_b),
        "is_equal": comparison.is_equal,
        "first_divergence": comparison.first_divergence,
        "equal": [[a.index, b.index] for a, b in comparison.equal],
        "changed": [
            {
                "a": action_outline(changed.a),
                "b": action_outline(changed.b),
                "differences": [difference_document(d) for d in changed.differences],
            }
            for changed in comparison.changed
        ],
        "only_in_a": [action_outline(action) for action in comparison.only_in_a],
        "only_in_b": [action_outline(action) for action in comparison.only_in_b],
    }


def audit_document(report: AuditReport) -> Document:
    """Return what each model answered, and how often that was the recorded answer."""
    return {
        "session_id": str(report.session_id),
        "is_equal": report.is_equal,
        "models": [plain(attrs.asdict(model)) for model in report.models],
        "answers": [
            {
                "index": answer.index,
                "model": answer.model,
                "verdict": answer.verdict.value,
                "reason": answer.reason,
                "answer": plain(answer.answer),
                "diff": answer.diff,
                "duration_ms": answer.duration_ms,
                "input_tokens": answer.input_tokens,
                "output_tokens": answer.output_tokens,
                "cached_tokens": answer.cached_tokens,
                "cost_usd": answer.cost_usd,
            }
            for answer in report.answers
        ],
    }


def replay_document(report: ReplayReport) -> Document:
    """Return the verdict on each action of a session."""
    return {
        "session_id": str(report.session_id),
        "checkpoint_id": report.checkpoint_id,
        "match_rate": report.match_rate,
        "counts": {verdict.value: count for verdict, count in report.counts.items()},
        "steps": [
            {
                **action_outline(step.action),
                "verdict": step.verdict.value,
                "reason": step.reason,
                "differences": [difference_document(d) for d in step.differences],
            }
            for step in report.steps
        ],
    }


def info_document(
    store: Store, statistics: StoreStatistics, sessions: Iterable[SessionSummary]
) -> Document:
    """Return a store's statistics, its ambient session, and what its sessions used."""
    active = store.active_session_id
    return {
        **plain(attrs.asdict(statistics)),
        "path": str(statistics.path),
        "active_session_id": None if active is None else str(active),
        "is_recording": store.is_recording,
        **totals_document(sessions),
    }


_SUMMED = (
    "ask_count",
    "tool_call_count",
    "failed_count",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_usd",
)


@attrs.frozen
class Used:
    """What actions used together: tokens, and US dollars."""

    input_tokens: int
    output_tokens: int
    cost_usd: float


def used_of(usages: Iterable[Usage]) -> Used:
    """Return what asks used together."""
    counted = list(usages)
    return Used(
        sum(usage.input_tokens or 0 for usage in counted),
        sum(usage.output_tokens or 0 for usage in counted),
        math.fsum(usage.cost_usd or 0 for usage in counted),
    )


def totals_document(rows: Iterable[SessionSummary | UsageRow]) -> Document:
    """Return the sums of sessions or of rows of usage: whole numbers, and the cost in dollars."""
    found = list(rows)
    totals: Document = {name: sum(getattr(row, name) for row in found) for name in _SUMMED}
    return {**totals, "cost_usd": round(math.fsum(row.cost_usd for row in found), 12)}


def usage_document(by: str, rows: Sequence[UsageRow]) -> Document:
    """Return what calls used, and what that is in all."""
    shown = [{**attrs.asdict(row), "session_id": _id(row.session_id)} for row in rows]
    return {"by": by, "rows": shown, "total": totals_document(rows)}


def match_document(action: Action, session: str | None, lines: list[str]) -> Document:
    """Return the lines of an action that a pattern was found in, and where the action is."""
    return {
        "session_id": _id(action.session_id),
        "session": session,
        "index": action.index,
        "sequence": action.sequence,
        "kind": action.kind.value,
        "lines": lines,
    }


def _id(session_id: UUID | None) -> str | None:
    return None if session_id is None else str(session_id)


def verify_document(report: VerifyReport, bytes_dropped: int) -> Document:
    """Return what verifying found, and the size in bytes of the torn tail that follows it."""
    return {**plain(attrs.asdict(report)), "bytes_dropped": bytes_dropped}


def report_document(report: CompactReport | RecoverReport | PruneReport) -> Document:
    """Return what writing a new file did, or deleting; ids as text."""
    document: Document = plain(attrs.asdict(report))
    return document
