"""The rows of events that change the memory (kinds 20 to 26), for segments of :mod:`.codec`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cbor2

from ..events.content import EMPTY, Content, StoredContent
from ..events.digests import frame_digest, memory_digest
from ..events.embeddings import (
    EmbeddingModelSet,
    EmbeddingsMade,
    check_embeddings,
    pack_embeddings,
)
from ..events.frames import (
    FRAME_FIELDS,
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    KeptFrame,
    MemoryConfigured,
)
from ..events.frozen_dict import FrozenDict
from ..events.pace import unhurried
from ..events.values import check_value, decode_value, preview
from .counts import are_counts, is_count
from .kinds import (
    CONFIGURED,
    EMBEDDINGS_MADE,
    FRAME_DELETED,
    FRAME_UPDATED,
    FRAMES_PUT,
    MODEL_SET,
    UPDATE_ERASED,
)
from .places import FIRST_FRAME

# Kinds whose row holds frames or their content.
HOLDERS = frozenset({FRAMES_PUT, FRAME_UPDATED})
# The place of the content in the row of an update.
CONTENT_PLACE = 4

ReadContent = Callable[[int], Content]
FrameEvent = (
    FramesPut
    | FrameUpdated
    | FrameDeleted
    | FrameErased
    | MemoryConfigured
    | EmbeddingsMade
    | EmbeddingModelSet
)


def content_field(content: Content) -> str | bytes | int | list[Any]:
    """Return content as a row holds it: the data, or the sequence of its event.

    Content in parts is ``[digest, size, sequence, …]``. A frame's row never holds only a sequence.
    """
    stored = content.stored
    if stored is None:
        return content.data  # type: ignore[return-value]
    if stored.parts:
        return [stored.digest, stored.size, *stored.parts]
    return stored.sequence


def _frame_content_field(content: Content) -> str | bytes | list[Any]:
    """Return content as the row of a frame holds it.

    The row has the digest, because the memory's hash is folded without reading what the row refers
    to.
    """
    stored = content.stored
    if stored is None:
        return content.data  # type: ignore[return-value]
    return [stored.digest, stored.size, *(stored.parts or (stored.sequence,))]


def read_content_field(value: Any, content: ReadContent) -> Content:
    """Return the content in a field; ``content`` returns one by the sequence of its event.

    :raises TypeError: when the field is not a content.
    """
    if isinstance(value, (str, bytes)):
        return Content(value)
    if isinstance(value, list) and len(value) > 2:
        digest, size, *parts = value
        if not are_counts((size, *parts)):
            raise TypeError("content in parts has a bad size or part")
        first, several = content(parts[0]), tuple(parts) if len(parts) > 1 else ()
        stored = StoredContent(read_bytes(digest, 32), size, first.preview, parts[0], several)
        return Content(None if several else first.data, stored)
    if not is_count(value):
        raise TypeError("content is neither data nor a sequence")
    return content(value)


def content_sequences(value: Any) -> list[int]:
    """Return the sequences of the content events that a content field names."""
    if isinstance(value, list):
        return [part for part in value[2:] if is_count(part)]
    return [value] if is_count(value) else []


def frame_row(payload: FrameEvent) -> list[Any]:
    """Return the row of an event that changes the memory."""
    if isinstance(payload, FramesPut):
        items: Iterable[Any] = payload.kept
        if not _is_plain(payload.kept):
            items = map(_item, unhurried(payload.kept))
        return [FRAMES_PUT, payload.frame_id, payload.branch, None, *items]
    if isinstance(payload, MemoryConfigured):
        return [CONFIGURED, payload.analyser, payload.embedding_model, payload.dimension]
    if isinstance(payload, FrameErased):
        return [UPDATE_ERASED, payload.frame_id, payload.branch, payload.digest]
    if isinstance(payload, FrameDeleted):
        return [FRAME_DELETED, payload.frame_id, payload.branch]
    if isinstance(payload, EmbeddingsMade):
        return [EMBEDDINGS_MADE, payload.move, payload.frames, payload.vectors]
    if isinstance(payload, EmbeddingModelSet):
        return [MODEL_SET, payload.model, payload.dimension, payload.move, payload.digest]
    values = payload.changes
    mask = sum(1 << i for i, name in enumerate(FRAME_FIELDS) if name in values)
    row: list[Any] = [FRAME_UPDATED, payload.frame_id, payload.branch, mask]
    row += [_field(name, values.get(name)) for name in FRAME_FIELDS]
    while row[-1] is None:
        row.pop()
    return row


def _item(kept: KeptFrame) -> str | bytes | list[Any]:
    """Return a frame as the row of a put holds it."""
    if isinstance(kept, (str, bytes)):
        return kept
    if isinstance(kept, FrameErased):
        return [None, kept.digest]
    # Spelled out rather than looped over, which takes a third of the time.
    item: list[Any] = [
        _frame_content_field(kept.content),
        kept.title,
        kept.uri,
        kept.media_type,
        list(kept.tags) or None,
        cbor2.dumps(dict(kept.metadata)) if kept.metadata else None,
        kept.embedding,
        kept.embedding_model,
    ]
    while item[-1] is None:
        item.pop()
    return item


def _field(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "content":
        return _frame_content_field(value)
    if name == "metadata":
        return cbor2.dumps(dict(value)) if value else None
    return (list(value) or None) if name == "tags" else value


def read_frame_row(row: list[Any], content: ReadContent) -> FrameEvent:
    """Read the event in a row of a kind in :data:`FRAME_KINDS`.

    :raises TypeError, IndexError, ValueError: when the row is not such an event.
    """
    kind = row[0]
    if kind == CONFIGURED:
        model = None if row[2] is None else _typed(row[2], str)
        return MemoryConfigured(_typed(row[1], str), model, _count(row[3]))
    if kind == EMBEDDINGS_MADE:
        return read_embeddings(row)
    if kind == MODEL_SET:
        _, named, *counts, digest = row[:5]
        dimension, move = map(_count, counts)
        return EmbeddingModelSet(_typed(named, str), dimension, move, read_bytes(digest, 32))
    frame_id, branch = row[1:3]
    if not are_counts((frame_id, branch)) or not frame_id:
        raise TypeError("a frame id is not an int of at least 1, or a branch not one of at least 0")
    if kind == FRAMES_PUT:
        return _read_frames(frame_id, branch, row[FIRST_FRAME:], content)
    if kind == FRAME_DELETED:
        return FrameDeleted(frame_id, branch)
    if kind == UPDATE_ERASED:
        return FrameErased(frame_id, read_bytes(row[3], 32), branch)
    names = _named(_count(row[3]))
    values = _read_fields(row[CONTENT_PLACE:], names, content)
    return FrameUpdated(frame_id, FrozenDict(values), branch)


def read_embeddings(row: list[Any]) -> EmbeddingsMade:
    """Read embeddings that were made.

    :raises TypeError, IndexError, ValueError: when the row does not hold them.
    """
    made = EmbeddingsMade(_count(row[1]), read_bytes(row[2]), read_bytes(row[3]))
    return check_embeddings(made)


def _read_frames(frame_id: int, branch: int, items: list[Any], content: ReadContent) -> FramesPut:
    if not items or frame_id + len(items) > 2**63:
        raise TypeError("a put of no frame, or of too many")
    kept: Iterable[KeptFrame] = items
    if not _is_plain(items):
        kept = (
            item if type(item) in _PLAIN else _read_item(frame_id + at, branch, item, content)
            for at, item in enumerate(unhurried(items))
        )
    return FramesPut(frame_id, tuple(kept), branch)


_PLAIN = {str, bytes}


def _is_plain(frames: Sequence[Any]) -> bool:
    """Whether every frame has a content and no other field."""
    return set(map(type, frames)) <= _PLAIN


def _read_item(frame_id: int, branch: int, item: Any, content: ReadContent) -> KeptFrame:
    """Read a frame in the row of a put that has more than its content."""
    item = _typed(item, list)
    if item[0] is None:
        return FrameErased(frame_id, read_bytes(item[1], 32), branch)
    values = {
        name: _read_field(name, value, content)
        for name, value in zip(FRAME_FIELDS, item, strict=False)
        if value is not None
    }
    return FramePut(frame_id, branch=branch, **values)


def _read_fields(fields: list[Any], names: Sequence[str], content: ReadContent) -> dict[str, Any]:
    """Read the named fields of a frame."""
    filled = fields + [None] * (len(FRAME_FIELDS) - len(fields))
    return {
        name: _read_field(name, value, content)
        for name, value in zip(FRAME_FIELDS, filled, strict=False)
        if name in names
    }


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


def without_frames(
    row: list[Any], is_gone: Callable[[int], bool], content: ReadContent
) -> list[Any]:
    """Return what compaction leaves of the row of a put or an update.

    ``is_gone`` tells by its id whether a frame is gone.
    """
    kind, frame_id, branch = row[:3]
    if kind == FRAME_UPDATED:
        if not is_gone(frame_id):
            return row
        payload = read_frame_row(row, content)
        return frame_row(FrameErased(frame_id, memory_digest(payload), branch))
    left = row[:FIRST_FRAME]
    for at, item in enumerate(unhurried(row[FIRST_FRAME:]), frame_id):
        if is_gone(at):
            plain = type(item) in _PLAIN
            kept = item if plain else _read_item(at, branch, item, content)
            item = [None, frame_digest(kept)]  # noqa: PLW2901 - what is left of it
        left.append(item)
    return left


def without_embeddings(row: list[Any], is_gone: Callable[[int], bool]) -> list[Any]:
    """Return what compaction leaves of embeddings that were made: those of frames that are left."""
    made = read_embeddings(row)
    left = [one for one in made if not is_gone(one.frame_id)]
    return row if len(left) == made.count else frame_row(pack_embeddings(made.move, left))


def content_fields(row: list[Any]) -> Iterator[tuple[int, Any]]:
    """Iterate over the frames of a put or an update: the id and the content field or None."""
    if row[0] == FRAME_UPDATED:
        yield row[1], row[CONTENT_PLACE] if len(row) > CONTENT_PLACE else None
    else:
        yield from enumerate(map(item_content, row[FIRST_FRAME:]), row[1])


def part_content(kind: int, part: Any) -> Any:
    """Return the content field of a frame that a put holds, or of the row of an update.

    None where it has none.
    """
    if kind == FRAMES_PUT:
        return item_content(part)
    return part[CONTENT_PLACE] if kind == FRAME_UPDATED and len(part) > CONTENT_PLACE else None


def item_content(item: Any) -> Any:
    """Return the content field of a frame in the row of a put; None for an erased frame."""
    return item[0] if isinstance(item, list) and item else item


def read_optional(value: Any, kind: type) -> Any:
    """Return a field that is of this type, or null.

    :raises TypeError: when it is anything else.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"a field is not {kind.__name__}")
    return value


def read_map(data: Any) -> Mapping[str, Any]:
    """Decode a CBOR map; None is an empty one.

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
    """Return the value if it is bytes (of this length).

    :raises TypeError: when it is anything else.
    """
    if not isinstance(value, bytes) or (length is not None and len(value) != length):
        raise TypeError("bytes have a wrong type or length")
    return value


def _typed(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"a field is not {kind.__name__}")
    return value


def held_data(row: Sequence[Any]) -> str | bytes | None:
    """Return the small content in the row of a put (of its first frame) or of an update.

    None where the row itself holds none.
    """
    data = None
    if row[0] in HOLDERS and len(row) > CONTENT_PLACE:
        # An update's content has the place of a put's first frame.
        data = item_content(row[CONTENT_PLACE]) if row[0] == FRAMES_PUT else row[CONTENT_PLACE]
    return data if isinstance(data, (str, bytes)) else None


def stored_content(data: str | bytes, sequence: int) -> StoredContent:
    """Return what is known of content that the event with this sequence holds."""
    whole = Content(data)
    return StoredContent(whole.digest, whole.size, preview(data), sequence)
