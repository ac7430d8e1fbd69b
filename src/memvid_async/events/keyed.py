"""Keyed values: the payloads of the events that change a collection, and what is read of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from ..errors import CorruptFileError
from .content import EMPTY
from .printing import brief, counted
from .values import decode_value


@frozen
class Value:
    """What a collection holds under a key."""

    key: str
    """The key."""
    data: Any
    """What was put; of a list its items."""
    metadata: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """What it can be found by, besides its key."""
    version: int = 0
    """The sequence of the event that changed the key last."""
    updated_ns: int = 0
    """When that was, in nanoseconds since the Unix epoch."""
    expires_ns: int | None = None
    """From when on it is hidden, in nanoseconds since the Unix epoch; None for never."""


@frozen
class CollectionCreated:
    """The first change of a collection. The event's sequence is the collection's number."""

    name: str
    """Its name."""


# These are made for every put; without slots in half the time.
@frozen(slots=False)
class KeyPut:
    """A key got a value, in place of what it had."""

    key: str
    """The key."""
    data: bytes = field(repr=brief)
    """The value, as CBOR."""
    metadata: bytes | None = field(default=None, repr=brief)
    """Its metadata, a map as CBOR; None for an empty one."""
    expires_ns: int | None = None
    """From when on it is hidden, in nanoseconds since the Unix epoch; None for never."""
    embedding_model: str | None = None
    """The model of its embeddings; None when it has none."""
    embeddings: tuple[bytes, ...] = field(default=(), repr=counted("embedding"))
    """What it is found by where a collection is searched by meaning: one embedding of each text in
    it, as float32 numbers, little-endian."""

    @property
    def value(self) -> Any:
        """The value itself.

        :raises CorruptFileError: when the file holds something else in its place.
        """
        try:
            return decode_value(self.data)
        except ValueError as error:
            raise CorruptFileError(0, f"a keyed value is none: {error}") from None


@frozen
class KeyDeleted:
    """A key was deleted."""

    key: str
    """The key."""


@frozen
class PrefixDeleted:
    """Every key that begins so was deleted."""

    prefix: str
    """How they begin; the empty text for all keys."""


@frozen
class ListChanged:
    """A list kept some of its items, and got more at its end."""

    key: str
    """The key."""
    first: int = 0
    """The place of the first item that it kept, from 0."""
    count: int | None = None
    """How many items it kept, from that one on; None for all."""
    items: tuple[bytes, ...] = field(default=(), repr=counted("item"))
    """The items that follow those, each as CBOR."""


@frozen
class KeyRenewed:
    """A value that expires was given more time. Its version and the rest of it are as before."""

    key: str
    """The key."""
    version: int
    """The version that it had, and has."""
    expires_ns: int
    """From when on it is hidden now, in nanoseconds since the Unix epoch."""


KeyChange = KeyPut | KeyDeleted | PrefixDeleted | ListChanged | KeyRenewed


@frozen(slots=False)
class CollectionChanged:
    """Keys of a collection changed, all at once, in this order."""

    collection: int
    """The collection's number: the sequence of its :class:`CollectionCreated`."""
    changes: tuple[KeyChange, ...] = field(repr=counted("change"))
    """What changed."""


COLLECTION_EVENTS = (CollectionCreated, CollectionChanged)


@frozen
class KeyUsed:
    """A command had an idempotency key. The same command with the same key gets the same answer."""

    key_hash: bytes
    """BLAKE2b-128 of the key, and of what it is unique in (16 bytes)."""
    content_hash: bytes
    """BLAKE2b-128 of what the command holds (16 bytes)."""
    answer: int
    """The sequence of the event that is its answer."""
