"""The payloads of the events that move a memory to another embedding model.

The embeddings are made batch by batch, and used from one event on: until then, and after a crash
on the way, the memory has those of the model before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from attrs import field, frozen

# A frame's id, and the version of it that an embedding is of: its sequence and place.
_FRAME = struct.Struct("<QQI")


class NewEmbedding(NamedTuple):
    """The embedding of one version of a frame."""

    frame_id: int
    """The frame."""
    sequence: int
    """The sequence of the event that holds the text that was embedded."""
    place: int
    """Which of that event's frames it is, from 0."""
    vector: bytes
    """float32 numbers, little-endian, one after another."""


@frozen
class EmbeddingsMade:
    """Some of the embeddings of another model; an :class:`EmbeddingModelSet` puts them in use."""

    move: int
    """The sequence of the first of these events for the same model; 0 in that one itself."""
    frames: bytes = field(repr=False)
    """Of each embedding the frame's id (8 bytes), and the sequence (8) and place (4) of the version
    that was embedded, little-endian."""
    vectors: bytes = field(repr=False)
    """The embeddings, all of one dimension: float32 numbers, little-endian, one after another."""

    @property
    def count(self) -> int:
        """How many embeddings there are."""
        return len(self.frames) // _FRAME.size

    def __iter__(self) -> Iterator[NewEmbedding]:
        size = len(self.vectors) // max(1, self.count)
        for number, frame in enumerate(_FRAME.iter_unpack(self.frames)):
            frame_id, sequence, place = frame
            vector = self.vectors[number * size : (number + 1) * size]
            yield NewEmbedding(frame_id, sequence, place, vector)


@frozen
class EmbeddingModelSet:
    """The memory, and those of all forks, have another embedding model from now on.

    Each frame has the embedding that was made of its present version, or none.
    """

    model: str
    """The model."""
    dimension: int
    """How many numbers an embedding has; 0 where nothing was embedded."""
    move: int
    """The sequence of the first :class:`EmbeddingsMade` that counts; 0 for none."""
    digest: bytes
    """The BLAKE2b-256 of all embeddings that were made, in order (32 bytes)."""


def pack_embeddings(move: int, made: Iterable[NewEmbedding]) -> EmbeddingsMade:
    """Return the payload of these embeddings."""
    made = list(made)
    frames = b"".join(_FRAME.pack(*one[:3]) for one in made)
    return EmbeddingsMade(move, frames, b"".join(one.vector for one in made))


def check_embeddings(made: EmbeddingsMade) -> EmbeddingsMade:
    """Return the payload if it has an embedding of whole numbers, as long as the others, for each
    of its frames.

    :raises ValueError: when it has not.
    """
    if len(made.frames) % _FRAME.size or len(made.vectors) % (4 * max(1, made.count)):
        raise ValueError("embeddings do not fit their frames")
    if bool(made.frames) != bool(made.vectors):
        raise ValueError("frames without embeddings, or embeddings without frames")
    if any(max(frame) >= 2**63 for frame in _FRAME.iter_unpack(made.frames)):
        raise ValueError("an embedding has a bad frame")
    return made
