"""The events of a log as JSON documents, whatever their payload is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from .. import (
    ActionRecorded,
    ActionStarted,
    AnswerDropped,
    CheckpointCreated,
    ChunksCame,
    CollectionChanged,
    CollectionCreated,
    ContentStored,
    CorruptFileError,
    EmbeddingModelSet,
    EmbeddingsMade,
    Event,
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    KeyPut,
    KeyUsed,
    ListChanged,
    MemoryConfigured,
    SessionChanged,
    SessionEnded,
    SessionResumed,
    SessionStarted,
    SessionSuspended,
    Store,
    Unknown,
)
from .documents import (
    Document,
    checkpoint_document,
    fork_document,
    plain,
    read_action,
    read_content_document,
    read_started,
)

# The content comes last, because it is long.
_FIELDS = (
    *(field.name for field in attrs.fields(FramePut) if field.name not in ("content", "branch")),
    "content",
)


async def read_event(
    store: Store, event: Event, *, full: bool = False, messages: Sequence[Any] | None = None
) -> Document:
    """Return an event of the log with its payload; ``full`` and ``messages`` as for
    :func:`read_action`."""
    return {
        "sequence": event.sequence,
        "time_ns": event.time_ns,
        "session_id": None if event.session_id is None else str(event.session_id),
        "type": event_type(event),
        "payload": await _read_payload(store, event.payload, full=full, messages=messages),
    }


def event_type(event: Event) -> str:
    """Return the class name of an event's payload, in snake case."""
    return _snake_case(event.payload)


def _snake_case(value: object) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(value).__name__).lower()


async def _read_frame(store: Store, frame: FramePut | FrameErased, *, full: bool) -> Document:
    """A frame as it was put; of one that was erased since, what is left."""
    if isinstance(frame, FrameErased):
        return {"frame_id": frame.frame_id, "digest": frame.digest.hex()}
    values = {name: getattr(frame, name) for name in _FIELDS}
    return await _read_changes(store, values, full=full)


async def _read_payload(
    store: Store, payload: object, *, full: bool, messages: Sequence[Any] | None
) -> Document:
    match payload:
        case ActionStarted():
            return await read_started(store, payload, full=full)
        case ActionRecorded():
            action = await read_action(store, payload.action, full=full, messages=messages)
            return {"action": action}
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
    return _payload_document(payload)


def _payload_document(payload: object) -> Document:
    """Return a payload that refers to no content."""
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
        case SessionChanged():
            return {"changes": plain(payload.changes)}
        case ContentStored():
            return {"digest": payload.digest.hex(), "size": payload.size}
        case FrameErased() | EmbeddingModelSet():
            return {**attrs.asdict(payload), "digest": payload.digest.hex()}
        case EmbeddingsMade():
            return {"move": payload.move, "count": payload.count}
        case CollectionChanged():
            changes = [_change_document(change) for change in payload.changes]
            return {"collection": payload.collection, "changes": changes}
        case KeyUsed():
            key, content = payload.key_hash.hex(), payload.content_hash.hex()
            return {"key_hash": key, "content_hash": content, "answer": payload.answer}
        case Unknown():
            return {"kind": payload.kind, "fields": plain(payload.fields)}
        case FrameDeleted() | MemoryConfigured() | CollectionCreated():
            return attrs.asdict(payload)
        case SessionResumed() | SessionSuspended() | ChunksCame() | AnswerDropped():
            document: Document = plain(attrs.asdict(payload))
            return document
    return {}


def _change_document(change: object) -> Document:
    """Return a change of a key; a value that was put as JSON can hold it."""
    kind = {"type": _snake_case(change)}
    if isinstance(change, KeyPut):
        try:
            value = plain(change.value)
        except CorruptFileError:
            # Any file may hold anything.
            value = None
        return {**kind, "key": change.key, "value": value, "expires_ns": change.expires_ns}
    if isinstance(change, ListChanged):
        places = {"first": change.first, "count": change.count, "item_count": len(change.items)}
        return {**kind, "key": change.key, **places}
    fields: Any = change
    return {**kind, **attrs.asdict(fields)}


async def _read_changes(store: Store, values: Mapping[str, Any], *, full: bool) -> Document:
    """Return fields of a frame; of an embedding only its dimension."""
    document: Document = {}
    for name, value in values.items():
        if name == "content":
            document[name] = await read_content_document(store, value, full=full)
        elif name == "embedding":
            document["dimension"] = 0 if value is None else len(value) // 4
        else:
            document[name] = plain(value)
    return document
