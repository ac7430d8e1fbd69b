"""The keyword arguments that several calls on a memory take, as types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Required, TypedDict


class FrameFields(TypedDict, total=False):
    """The fields of a frame but its content: what :meth:`Store.put` and :meth:`Store.update` take
    by name. None stands for none."""

    title: str | None
    """Searched, and shown with a hit."""
    uri: str | None
    """Where it comes from."""
    metadata: Mapping[str, Any] | None
    """A CBOR map."""
    tags: Iterable[str]
    """Each is kept once."""
    media_type: str | None
    """What its bytes are; bytes of text are searched as text is."""
    embedding: Iterable[float] | None
    """Numbers, finite and not all zero; kept as float32."""
    embedding_model: str | None
    """The name of the model that the embedding is of."""


class FrameItem(FrameFields):
    """A frame as an item of :meth:`Store.put_many`."""

    content: Required[str | bytes]
    """Its body."""


class AskFilters(TypedDict, total=False):
    """The filters of :meth:`Store.ask` but ``frame_metadata``: its ``metadata`` is the action's."""

    tags: Iterable[str] | None
    """All of them are on the frame."""
    uri: str | None
    """Its URI begins with this."""
    title: str | None
    """Its title is this."""
    media_type: str | None
    """Its media type is this."""
    since_ns: int | None
    """Put at this time or later, in nanoseconds since the Unix epoch."""
    until_ns: int | None
    """Put before this time, in nanoseconds since the Unix epoch."""


class FrameFilters(AskFilters, total=False):
    """Which frames are asked for, by name: those that pass every filter given. None is no filter.

    :meth:`Store.find` and :meth:`Store.frames` take them, and :class:`WhatIf`.
    """

    metadata: Mapping[str, Any] | None
    """Each key is there at the top level, with this value, of the same type."""


class Unchanged(Enum):
    """The default of an argument that may be None; a signature shows its name."""

    UNCHANGED = "UNCHANGED"

    def __repr__(self) -> str:
        return self.value


UNCHANGED: Final = Unchanged.UNCHANGED
