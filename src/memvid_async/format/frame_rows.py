"""The rows of events that change the memory (kinds 20 to 24), as :mod:`.codec` puts them into
segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import cbor2

from ..events.content import EMPTY, Content, StoredContent
from ..events.digests import frame_digest
from ..events.frames import (
    FRAME_FIELDS,
    ForkPoint,
    FrameDeleted,
    FrameErased,
    FramePut,
    FrameUpdated,
    MemoryConfigured,
)
from ..events.frozen_dict import FrozenDict
from ..events.puts import TextPuts
from ..events.values import check_value, decode_value, is_count, preview

PUT, UPDATED, FRAME_DELETED, FRAME_ERASED, CONFIGURED = range(20, 25)
FRAME_KINDS = frozenset(range(20, 25))
# Kinds whose row holds content at :data:`CONTENT_PLACE`.
HOLDERS = frozenset({PUT, UPDATED})
CONTENT_PLACE = 4

ReadContent = Callable[[int], Content]
FrameEvent = FramePut | FrameUpdated | FrameDeleted | FrameErased | MemoryConfigured


def content_field(content: Content) -> str | bytes | int | list[Any]:
    """Content as a row holds it: itself, the sequence of its event, or ``[digest, size, sequence,
    …]`` when it is in parts; a frame's row never holds the sequence alone."""
    stored = content.stored
    if stored is None:
        return content.data  # type: ignore[return-value]
    if stored.parts:
        return [stored.digest, stored.size, *stored.parts]
    return stored.sequence


def _frame_content_field(content: Content) -> str | bytes | list[Any]:
    """Content as the row of a frame holds it: the digest is in the row, as the memory's hash is
    folded without reading what the row refers to."""
    stored = content.stored
    if stored is None:
        return content.data  # type: ignore[return-value]
    return [stored.digest, stored.size, *(stored.parts or (stored.sequence,))]


def read_content_field(value: Any, content: ReadContent) -> Content:
    """The content that a row holds; ``content`` gives one by the sequence of its event.

    :raises TypeError: when it is none.
    """
    if isinstance(value, (str, bytes)):
        return Content(value)
    if isinstance(value, list) and len(value) > 2:
        digest, size, *parts = value
        if not all(map(is_count, (size, *parts))):
            raise TypeError("content in parts has a bad size or part")
        first, several = content(parts[0]), tuple(parts) if len(parts) > 1 else ()
        stored = StoredContent(read_bytes(digest, 32), size, first.preview, parts[0], several)
        return Content(None, stored)
    if not is_count(value):
        raise TypeError("content is neither data nor a sequence")
    return content(value)


def content_sequences(value: Any) -> list[int]:
    """The sequences of the content events that a content field names."""
    if isinstance(value, list):
        return [part for part in value[2:] if is_count(part)]
    return [value] if is_count(value) else []


def frame_row(payload: FrameEvent) -> list[Any]:
    """The row of an event that changes the memory."""
    if isinstance(payload, MemoryConfigured):
        return [CONFIGURED, payload.analyser, payload.embedding_model, payload.dimension]
    if isinstance(payload, FrameErased):
        return [FRAME_ERASED, payload.frame_id, payload.is_new, payload.branch, payload.digest]
    if isinstance(payload, FrameDeleted):
        return [FRAME_DELETED, payload.frame_id, payload.branch]
    if isinstance(payload, FramePut):
        # Every put is encoded: spelled out, it takes a third of the time.
        row: list[Any] = [
            PUT,
            payload.frame_id,
            payload.branch,
            0,
            _frame_content_field(payload.content),
            payload.title,
            payload.uri,
            payload.media_type,
            list(payload.tags) or None,
            cbor2.dumps(dict(payload.metadata)) if payload.metadata else None,
            payload.embedding,
            payload.embedding_model,
        ]
    else:
        values = payload.changes
        mask = sum(1 << i for i, name in enumerate(FRAME_FIELDS) if name in values)
        row = [UPDATED, payload.frame_id, payload.branch, mask]
        row += [_field(name, values.get(name)) for name in FRAME_FIELDS]
    while row[-1] is None:
        row.pop()
    return row


def text_rows(puts: TextPuts) -> Iterator[list[Any]]:
    """:func:`frame_row` of each of these events."""
    for frame_id, text in enumerate(puts.texts, puts.frame_id):
        yield [PUT, frame_id, 0, 0, text]


def _field(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "content":
        return _frame_content_field(value)
    if name == "metadata":
        return cbor2.dumps(dict(value)) if value else None
    return (list(value) or None) if name == "tags" else value


def read_frame_row(row: list[Any], content: ReadContent) -> FrameEvent:
    """The event in a row of a kind in :data:`FRAME_KINDS`.

    :raises TypeError, IndexError, ValueError: when it is none.
    """
    kind = row[0]
    if kind == CONFIGURED:
        model = None if row[2] is None else _typed(row[2], str)
        return MemoryConfigured(_typed(row[1], str), model, _count(row[3]))
    if not is_count(row[1]) or not row[1]:
        raise TypeError("a frame id is not an int of at least 1")
    if kind == FRAME_DELETED:
        return FrameDeleted(row[1], _count(row[2]))
    if kind == FRAME_ERASED:
        return FrameErased(row[1], row[2] is True, read_bytes(row[4], 32), _count(row[3]))
    _, frame_id, branch, mask, *fields = row
    if is_text_put(row):
        return FramePut(frame_id, Content(fields[0]), branch=branch)
    fields += [None] * (len(FRAME_FIELDS) - len(fields))
    names = FRAME_FIELDS if kind == PUT else _named(_count(mask))
    values = {
        name: _read_field(name, value, content)
        for name, value in zip(FRAME_FIELDS, fields, strict=False)
        if name in names
    }
    if kind == PUT:
        return FramePut(frame_id, branch=_count(branch), **values)
    return FrameUpdated(frame_id, FrozenDict(values), _count(branch))


def is_text_put(row: Sequence[Any]) -> bool:
    """Whether it is the row of a put of text and nothing else, as most are."""
    return (
        row[0] == PUT
        and len(row) == CONTENT_PLACE + 1
        and type(row[CONTENT_PLACE]) is str
        and is_count(row[1])
        and row[1] > 0
        and is_count(row[2])
    )


def _named(mask: int) -> list[str]:
    return [name for i, name in enumerate(FRAME_FIELDS) if mask >> i & 1]


def _read_field(name: str, value: Any, content: ReadContent) -> Any:
    if name == "content":
        if is_count(value):
            raise TypeError("content has no digest")
        return read_content_field(value, content)
    if name == "tags":
        return tuple(_typed(tag, str) for tag in _typed(value or [], list))
    if name == "metadata":
        return read_map(value)
    if value is None:
        return None
    if name == "embedding":
        data = read_bytes(value)
        if len(data) % 4:
            raise TypeError("an embedding is not whole float32 numbers")
        return data
    return _typed(value, str)


def erased_row(row: list[Any], content: ReadContent) -> list[Any]:
    """What compaction leaves of the row of a put or an update."""
    payload = read_frame_row(row, content)
    assert isinstance(payload, (FramePut, FrameUpdated))
    is_new = isinstance(payload, FramePut)
    return frame_row(FrameErased(payload.frame_id, is_new, frame_digest(payload), payload.branch))


def fork_row(fork: ForkPoint | None) -> list[Any] | None:
    """A fork point as a list, in the order of its fields."""
    if fork is None:
        return None
    return [
        fork.parent,
        fork.parent_id.bytes,
        fork.sequence,
        fork.action_count,
        fork.checkpoint_count,
        fork.branch,
        fork.last_frame,
        fork.frame_count,
        fork.memory_hash,
    ]


def read_fork_row(value: Any) -> ForkPoint | None:
    """The fork point in a list, None for None.

    :raises TypeError, ValueError: when it is neither.
    """
    if value is None:
        return None
    parent, parent_id, sequence, actions, checkpoints, branch, last, count, digest = _typed(
        value, list
    )
    for number in (parent, sequence, actions, checkpoints, branch, last, count):
        _count(number)
    parent_uuid = UUID(bytes=read_bytes(parent_id, 16))
    hashed = read_bytes(digest, 32)
    return ForkPoint(
        parent, parent_uuid, sequence, actions, checkpoints, branch, last, count, hashed
    )


def read_map(data: Any) -> Mapping[str, Any]:
    """The CBOR map in bytes; an empty one for None.

    :raises TypeError, ValueError: when it is neither.
    """
    if data is None:
        return EMPTY
    value = decode_value(read_bytes(data))
    if not isinstance(value, dict):
        raise TypeError("metadata is not a map")
    check_value(value, "metadata")
    return FrozenDict(value)


def _count(value: Any) -> int:
    if not is_count(value):
        raise TypeError("a count or an id is not an int of at least 0")
    return value  # type: ignore[no-any-return]


def read_bytes(value: Any, length: int | None = None) -> bytes:
    """The value itself, when it is bytes (of this length).

    :raises TypeError: when it is anything else.
    """
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise TypeError("bytes have a wrong type or length")
    return value


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a field is not {kind.__name__}")
    return value


def stored_content(row: Sequence[Any], sequence: int) -> Content | None:
    """The small content that the row of a frame holds itself, as content of that event; None where
    it holds none."""
    data = row[CONTENT_PLACE] if row[0] in HOLDERS and len(row) > CONTENT_PLACE else None
    if not isinstance(data, (str, bytes)):
        return None
    whole = Content(data)
    return Content(None, StoredContent(whole.digest, whole.size, preview(data), sequence))
