"""Content: the bytes of an input, an output or a frame, as they are known without being read."""

from __future__ import annotations

import hashlib

from attrs import frozen

from .frozen_dict import FrozenDict
from .values import LARGE, encoded, preview

EMPTY = FrozenDict()


def content_digest(data: str | bytes) -> bytes:
    """BLAKE2b-256 (RFC 7693) of the bytes; of the UTF-8 encoding for text."""
    if isinstance(data, str) and len(data) > LARGE:
        digest = hashlib.blake2b(digest_size=32)
        for piece in encoded(data):
            digest.update(piece)
        return digest.digest()
    raw = data.encode() if isinstance(data, str) else data
    return hashlib.blake2b(raw, digest_size=32).digest()


@frozen
class StoredContent:
    """What is known of content that has an event of its own, the one with this ``sequence``.

    ``parts``: of content too long for one event, the sequences of the events that hold it, in
    order; else empty.
    """

    digest: bytes
    size: int
    preview: str
    sequence: int
    parts: tuple[int, ...] = ()


@frozen(eq=False, repr=False)
class Content:
    """What was an action's input or output: read it back with ``await store.read_content(…)``.

    ``digest``: BLAKE2b-256 of the bytes (32 bytes). ``size``: in bytes. ``preview``: at most 512
    characters, without control characters but newline and tab. Equal when the digests are.
    """

    # Small content carries its data and derives the rest when asked, which keeps recording cheap;
    # large content carries what was derived, and the sequence of the event that holds the data.
    data: str | bytes | None
    stored: StoredContent | None = None

    @property
    def digest(self) -> bytes:
        """BLAKE2b-256 of the bytes."""
        return self.stored.digest if self.stored is not None else content_digest(self.data or b"")

    @property
    def size(self) -> int:
        """Length in bytes."""
        if self.stored is not None:
            return self.stored.size
        return len(self.data.encode()) if isinstance(self.data, str) else len(self.data or b"")

    @property
    def preview(self) -> str:
        """How it begins, safe to print."""
        return self.stored.preview if self.stored is not None else preview(self.data or b"")

    def __eq__(self, other: object) -> bool:
        return self.digest == other.digest if isinstance(other, Content) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"Content(digest={self.digest.hex()[:16]}…, size={self.size}, "
            f"preview={self.preview[:40]!r})"
        )
