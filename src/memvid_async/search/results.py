"""What a search index keeps of a frame, and what it returns. Plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from attrs import field, frozen

from ..events.frames import Version


@frozen
class IndexedFrame:
    """A frame as the search index keeps it: everything but its text.

    ``sequence`` and ``offset``: where the event with the frame's newest content is, for the reader
    of the text; ``place``: which of that event's frames it is, from 0. ``embedding``: float32,
    little-endian; its length is four times the dimension.
    """

    frame_id: int
    sequence: int
    offset: int
    time_ns: int
    updated_ns: int
    title: str | None = None
    uri: str | None = None
    media_type: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict)
    size: int = 0
    embedding: bytes | None = None
    embedding_model: str | None = None
    place: int = 0

    @property
    def version(self) -> Version:
        """The sequence of the event with the frame's newest content, and its place there."""
        return self.sequence, self.place


class Found(NamedTuple):
    """A frame that a find returns. A higher ``score`` is better; it is a multiple of 1e-6."""

    frame_id: int
    score: float


class FramePlace(NamedTuple):
    """Where the text of a frame is, and what a hit shows with it."""

    offset: int
    sequence: int
    place: int
    media_type: str | None
    title: str | None
    uri: str | None

    @property
    def version(self) -> Version:
        """The sequence of the event that holds the text, and the frame's place there."""
        return self.sequence, self.place
