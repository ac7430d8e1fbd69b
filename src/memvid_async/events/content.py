"""Content: the bytes of an input, an output or a frame, and what is known without reading them."""

from __future__ import annotations

import hashlib

from attrs import field, frozen

from .frozen_dict import FrozenDict
from .printing import brief
from .value_preview import value_preview
from .values import LARGE, encoded, preview

EMPTY = FrozenDict()
# The preview of a value is made of at most this many bytes.
BEGIN_BYTES = 2048


def content_digest(data: str | bytes) -> bytes:
    """Return the BLAKE2b-256 digest (RFC 7693) of bytes, or of a text's UTF-8 encoding."""
    if isinstance(data, str) and len(data) > LARGE:
        digest = hashlib.blake2b(digest_size=32)
        for piece in encoded(data):
            digest.update(piece)
        return digest.digest()
    raw = data.encode() if isinstance(data, str) else data
    return hashlib.blake2b(raw, digest_size=32).digest()


@frozen
class StoredContent:
    """What is known of content that has an event of its own."""

    digest: bytes
    """BLAKE2b-256 of its bytes (32 bytes)."""
    size: int
    """Its length in bytes."""
    preview: str
    """How it begins: at most 512 characters, no control characters but newline and tab."""
    sequence: int
    """The sequence of its event; of a content in parts, of the first one's."""
    parts: tuple[int, ...] = field(default=(), repr=brief)
    """The sequences of the events that hold a content which is too long for one event, in order;
    else empty."""
    begin: bytes = field(default=b"", eq=False, repr=False)
    """Its first bytes, of which a value's preview is made; empty for text."""


@frozen(eq=False, repr=False)
class Content:
    """The bytes of an action's input or output, or of a frame.

    Read them with ``await store.read_content(…)``. Two contents are equal when their digests are.
    """

    # Small content carries its data and computes the rest when asked, which keeps recording cheap.
    # Large content carries what was computed, and the sequence of the event that holds the data.
    data: str | bytes | None
    """The content itself where it is small and kept with its event, else None."""
    stored: StoredContent | None = None
    """What is known of large content, which has an event of its own; None for small content."""
    is_value: bool = False
    """Whether the bytes are a value in CBOR: the arguments of a tool call, the input of a step."""

    @property
    def digest(self) -> bytes:
        """The BLAKE2b-256 digest of the bytes, 32 bytes."""
        return self.stored.digest if self.stored is not None else content_digest(self.data or b"")

    @property
    def size(self) -> int:
        """The length in bytes."""
        if self.stored is not None:
            return self.stored.size
        return len(self.data.encode()) if isinstance(self.data, str) else len(self.data or b"")

    @property
    def preview(self) -> str:
        """The beginning as text, of a value as JSON, safe to print: at most 512 characters.

        It has no control characters but newline and tab.
        """
        if self.is_value:
            return value_preview(self._begin())
        return self.stored.preview if self.stored is not None else preview(self.data or b"")

    def _begin(self) -> bytes:
        stored = self.stored
        if stored is not None:
            return stored.begin or stored.preview.encode()
        return self.data.encode() if isinstance(self.data, str) else self.data or b""

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Content) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"Content(digest={self.digest.hex()[:16]}…, size={self.size}, "
            f"preview={self.preview[:40]!r})"
        )


def as_value(content: Content) -> Content:
    """Return a content as a value in CBOR."""
    return content if content.is_value else Content(content.data, content.stored, is_value=True)
