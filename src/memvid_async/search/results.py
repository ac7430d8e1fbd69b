"""Frozen values: what a search index keeps of a frame, and what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from attrs import field, frozen

from ..events.frames import Version


@frozen
class IndexedFrame:
    """A frame as the search index keeps it: everything but its text."""

    frame_id: int
    sequence: int
    """The sequence of the event that holds the frame's newest content."""
    hint: int
    """The log's hint for finding that event."""
    time_ns: int
    """When the frame was put."""
    updated_ns: int
    """When it was last changed; ``time_ns`` if it never was."""
    title: str | None = None
    uri: str | None = None
    media_type: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(factory=dict)
    size: int = 0
    """How many bytes the content has; text as UTF-8."""
    embedding: bytes | None = None
    """float32 numbers, little-endian."""
    embedding_model: str | None = None
    place: int = 0
    """Which of the frames in its event it is, from 0."""

    @property
    def version(self) -> Version:
        """The sequence of the event with the frame's newest content, and its place there."""
        return self.sequence, self.place


class Found(NamedTuple):
    """A frame that a find returns. A higher ``score`` is better; it is a multiple of 1e-6."""

    frame_id: int
    score: float


class FramePlace(NamedTuple):
    """Where the text of a frame is, and what a search returns with it."""

    hint: int
    """The log's hint for finding the event with the text."""
    sequence: int
    """The sequence of that event."""
    place: int
    """Which of the frames in that event it is, from 0."""
    media_type: str | None
    title: str | None
    uri: str | None

    @property
    def version(self) -> Version:
        """The sequence of the event that holds the text, and the frame's place there."""
        return self.sequence, self.place
