"""The rows of events that change collections (kinds 40 and 41), and of idempotency keys (42)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..events.keyed import (
    CollectionChanged,
    CollectionCreated,
    KeyChange,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    KeyUsed,
    ListChanged,
    PrefixDeleted,
)
from .counts import is_count
from .frame_rows import read_bytes
from .kinds import COLLECTION_CHANGED, COLLECTION_CREATED, KEY_USED
from .places import FIRST_CHANGE

PUT, DELETED, PREFIX_DELETED, LIST, RENEWED = range(5)

KeyedEvent = CollectionCreated | CollectionChanged | KeyUsed


def keyed_row(payload: KeyedEvent) -> list[Any]:
    """Return the row of an event that changes a collection, or that notes a key."""
    if isinstance(payload, CollectionChanged):
        return [COLLECTION_CHANGED, payload.collection, *map(change_field, payload.changes)]
    if isinstance(payload, CollectionCreated):
        return [COLLECTION_CREATED, payload.name, None]
    return [KEY_USED, payload.key_hash, payload.content_hash, payload.answer]


def change_field(change: KeyChange) -> list[Any]:
    """Return a change as its row holds it."""
    if isinstance(change, KeyPut):
        if change.embedding_model is not None:
            embedding = [change.embedding_model, *change.embeddings]
            return [PUT, change.key, change.data, change.metadata, change.expires_ns, embedding]
        if change.expires_ns is not None:
            return [PUT, change.key, change.data, change.metadata, change.expires_ns]
        if change.metadata is not None:
            return [PUT, change.key, change.data, change.metadata]
        return [PUT, change.key, change.data]
    if isinstance(change, KeyDeleted):
        return [DELETED, change.key]
    if isinstance(change, PrefixDeleted):
        return [PREFIX_DELETED, change.prefix]
    if isinstance(change, KeyRenewed):
        return [RENEWED, change.key, change.version, change.expires_ns]
    return [LIST, change.key, None, None, change.first, change.count, *change.items]


def read_keyed_row(row: list[Any]) -> KeyedEvent:
    """Read the event in a row of a kind in :data:`.kinds.KEYED_KINDS`.

    :raises TypeError, IndexError: when the row is not such an event.
    """
    kind = row[0]
    if kind == COLLECTION_CHANGED:
        changes = tuple(map(read_change, row[FIRST_CHANGE:]))
        if not changes:
            raise TypeError("no change of a collection")
        return CollectionChanged(_count(row[1]), changes)
    if kind == COLLECTION_CREATED:
        return CollectionCreated(_text(row[1]))
    return KeyUsed(read_bytes(row[1], 16), read_bytes(row[2], 16), _count(row[3]))


def read_change(field: Any) -> KeyChange:
    """Read one change of a collection.

    :raises TypeError, IndexError: when it is not a change.
    """
    if not isinstance(field, list):
        raise TypeError("a change of a collection is not a list")
    read = _READERS.get(field[0]) if type(field[0]) is int else None
    if read is None:
        raise TypeError("a change of a collection of an unknown kind")
    return read(_text(field[1]), field)


def _read_put(key: str, field: list[Any]) -> KeyPut:
    metadata = field[3] if len(field) > 3 else None
    expires = field[4] if len(field) > 4 else None
    if metadata is not None:
        read_bytes(metadata)
    if expires is not None:
        _time(expires)
    data, embedding = read_bytes(field[2]), field[5] if len(field) > 5 else None
    if embedding is None:
        return KeyPut(key, data, metadata, expires)
    if not isinstance(embedding, list) or not embedding:
        raise TypeError("an embedding is not a list of a model and vectors")
    vectors = tuple(map(read_bytes, embedding[1:]))
    return KeyPut(key, data, metadata, expires, _text(embedding[0]), vectors)


def _time(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise TypeError("a value has a bad time")
    return value


def _read_list(key: str, field: list[Any]) -> ListChanged:
    _, _, _, _, first, count, *items = field
    if count is not None:
        _count(count)
    return ListChanged(key, _count(first), count, tuple(map(read_bytes, items)))


_READERS: dict[int, Callable[[str, list[Any]], KeyChange]] = {
    PUT: _read_put,
    DELETED: lambda key, _: KeyDeleted(key),
    PREFIX_DELETED: lambda key, _: PrefixDeleted(key),
    LIST: _read_list,
    RENEWED: lambda key, field: KeyRenewed(key, _count(field[2]), _time(field[3])),
}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a key or a name is not text")
    return value


def _count(value: Any) -> int:
    if not is_count(value):
        raise TypeError("a number or a count is not an int of at least 0")
    return value  # type: ignore[no-any-return]
