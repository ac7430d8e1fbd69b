"""What goes into the memory index and what comes out of it. Plain frozen values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from attrs import field, frozen

Mode = Literal["lexical", "semantic", "hybrid"]

# A statement takes so many parameters, whatever SQLite was built with.
_PARAMETERS = 900

T = TypeVar("T")


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """The items in order, no more at once than a statement takes."""
    return (items[at : at + _PARAMETERS] for at in range(0, len(items), _PARAMETERS))


@frozen
class IndexedFrame:
    """A frame as the index keeps it: everything but its text.

    ``sequence`` and ``offset``: the event that holds the frame's newest content, for whoever reads
    the text. ``embedding``: float32, little-endian; its length is four times the dimension.
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


@frozen
class Filters:
    """Which frames are asked about: those that pass every condition given.

    ``tags``: all of them are on the frame. ``uri``: its URI begins with this. ``metadata``: each
    key is there at the top level with this value, of the same type. ``since_ns`` and ``until_ns``:
    created at or after, and before. ``title`` and ``media_type``: equal.
    """

    tags: tuple[str, ...] = ()
    uri: str | None = None
    title: str | None = None
    media_type: str | None = None
    metadata: Mapping[str, Any] = field(factory=dict)
    since_ns: int | None = None
    until_ns: int | None = None


class Found(NamedTuple):
    """A frame that a find gives. A higher ``score`` is better; it is a multiple of 1e-6."""

    frame_id: int
    score: float


class Place(NamedTuple):
    """Where the text of a frame is, and what a hit shows besides it."""

    offset: int
    sequence: int
    media_type: str | None
    title: str | None
    uri: str | None
