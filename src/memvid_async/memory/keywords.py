"""The types of keyword arguments that several calls on a memory share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Required, TypedDict


class FrameFields(TypedDict, total=False):
    """The fields of a frame without its content, as keyword arguments.

    :meth:`Store.put` and :meth:`Store.update` take them. None clears a field.
    """

    title: str | None
    """Searched, and shown with a hit."""
    uri: str | None
    """Where it comes from."""
    metadata: Mapping[str, Any] | None
    """A CBOR map."""
    tags: Iterable[str]
    """Each is kept once."""
    media_type: str | None
    """The type of its bytes; bytes of a text type are searched as text is."""
    embedding: Iterable[float] | None
    """Numbers, finite and not all zero; kept as float32."""
    embedding_model: str | None
    """The name of the model that the embedding is of."""


class FrameItem(FrameFields):
    """A frame as an item of :meth:`Store.put_many`."""

    content: Required[str | bytes]
    """Its body."""


class AskFilters(TypedDict, total=False):
    """The filters of :meth:`Store.ask`, except ``frame_metadata``.

    Its argument ``metadata`` is the action's, not the frames'.
    """

    tags: Iterable[str] | None
    """The frame has all of these tags."""
    uri: str | None
    """The frame's URI begins with this."""
    title: str | None
    """The frame's title equals this."""
    media_type: str | None
    """The frame's media type equals this."""
    since_ns: int | None
    """The frame was put at this time or later, in nanoseconds since the Unix epoch."""
    until_ns: int | None
    """The frame was put before this time, in nanoseconds since the Unix epoch."""


class FrameFilters(AskFilters, total=False):
    """Which frames are looked at: those that pass every filter. None is not a filter.

    :meth:`Store.find` and :meth:`Store.frames` take them by name, and :class:`WhatIf` as a map.
    """

    metadata: Mapping[str, Any] | None
    """The frame's metadata has each of these keys at its top level, with an equal value of the
    same type."""


class Unchanged(Enum):
    """The type of the default for arguments that may be None; a signature shows its name."""

    UNCHANGED = "UNCHANGED"

    def __repr__(self) -> str:
        return self.value


UNCHANGED: Final = Unchanged.UNCHANGED
