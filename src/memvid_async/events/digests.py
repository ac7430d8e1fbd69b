"""Digests of what happened to frames. The memory's hash is folded from these."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import cbor2

from .content import Content, content_digest
from .embeddings import EmbeddingModelSet
from .frames import (
    FRAME_FIELDS,
    FrameErased,
    FramesPut,
    FrameUpdated,
    KeptFrame,
    MemoryConfigured,
)
from .pace import unhurried


def memory_digest(payload: Any) -> bytes:
    """Return the BLAKE2b-256 digest of what an event does to the memory, contents by digest."""
    if isinstance(payload, FramesPut):
        kept = payload.kept
        frames = b"".join(map(frame_digest, kept if len(kept) == 1 else unhurried(kept)))
        return _of("FramesPut", payload.frame_id, payload.branch, frames)
    if isinstance(payload, FrameErased):
        return payload.digest
    if isinstance(payload, MemoryConfigured):
        model, dimension = payload.embedding_model, payload.dimension
        return _of("MemoryConfigured", payload.analyser, model, dimension)
    if isinstance(payload, EmbeddingModelSet):
        return _of("EmbeddingModelSet", payload.model, payload.dimension, payload.digest)
    changes = payload.changes if isinstance(payload, FrameUpdated) else {}
    named = [(name, _plain(changes[name])) for name in FRAME_FIELDS if name in changes]
    return _of(type(payload).__name__, payload.frame_id, payload.branch, *sum(named, ()))


_NO_FIELDS = (None,) * 7


def frame_digest(kept: KeptFrame) -> bytes:
    """Return the digest of a frame as it was put: its content's, if it has no other field."""
    if isinstance(kept, (str, bytes)):
        return content_digest(kept)
    if isinstance(kept, FrameErased):
        return kept.digest
    # Spelled out rather than looped over, which takes a third of the time.
    fields = (
        kept.title,
        kept.uri,
        kept.media_type,
        kept.tags or None,
        dict(kept.metadata) if kept.metadata else None,
        kept.embedding,
        kept.embedding_model,
    )
    if fields == _NO_FIELDS:
        return kept.content.digest
    data = cbor2.dumps((kept.content.digest, *fields))
    return hashlib.blake2b(data, digest_size=32, person=b"frame fields").digest()


def _of(*fields: Any) -> bytes:
    return content_digest(cbor2.dumps(fields))


def _plain(value: Any) -> Any:
    if isinstance(value, Content):
        return value.digest
    if isinstance(value, (Mapping, tuple)) and not value:
        # The file keeps empty metadata and empty tags as null.
        return None
    return dict(value) if isinstance(value, Mapping) else value
