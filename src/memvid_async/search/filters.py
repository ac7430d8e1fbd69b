"""Filters as SQL conditions on the table ``frames``."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import cbor2
from attrs import field, frozen

from ..errors import InvalidValueError
from ..events.values import check_text, decode_value, encode_value

HAS_METADATA = "has_metadata"
NO_METADATA = b"\xa0"


@frozen
class Filters:
    """Which frames are looked at: those that pass every condition. None and empty pass all."""

    tags: tuple[str, ...] = ()
    """The frame has all of these tags."""
    uri: str | None = None
    """The frame's URI begins with this."""
    title: str | None = None
    """The frame's title equals this."""
    media_type: str | None = None
    """The frame's media type equals this."""
    metadata: Mapping[str, Any] = field(factory=dict)
    """The frame's metadata has each of these keys at its top level, with an equal value of the
    same type."""
    since_ns: int | None = None
    """The frame was created at this time or later, in nanoseconds since 1970."""
    until_ns: int | None = None
    """The frame was created before this time, in nanoseconds since 1970."""


# Conditions to join by AND, and their parameters in order.
Conditions = tuple[list[str], list[Any]]


def conditions(filters: Filters | None) -> Conditions:
    """Translate filters to SQL.

    :raises InvalidValueError: when a filter has a value that no frame can have.
    """
    found: list[str] = []
    parameters: list[Any] = []
    if filters is None:
        return found, parameters

    def add(condition: str, *values: Any) -> None:
        found.append(condition)
        parameters.extend(values)

    for tag in filters.tags:
        check_text(tag, "a tag")
        add("EXISTS (SELECT 1 FROM tags WHERE tag = ? AND tags.id = frames.id)", tag)
    if filters.uri:
        add("frames.uri >= ?", check_text(filters.uri, "uri"))
        above = _after(filters.uri)
        if above is not None:
            add("frames.uri < ?", above)
    for name in ("title", "media_type"):
        text = getattr(filters, name)
        if text is not None:
            add(f"frames.{name} = ?", check_text(text, name))
    for name, operator in (("since_ns", ">="), ("until_ns", "<")):
        time_ns = getattr(filters, name)
        if time_ns is not None:
            add(f"frames.time_ns {operator} ?", _check_time(time_ns, name))
    for key, value in filters.metadata.items():
        encoded = encode_value({key: value}, "metadata", "filter", sys.maxsize)[1:]
        # A cheap look for the bytes first: only a map that holds them is worth decoding.
        add("instr(frames.metadata, ?) > 0", encoded)
        add(f"{HAS_METADATA}(frames.metadata, ?)", encoded)
    return found, parameters


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Encode metadata as deterministic CBOR, so that equal values are equal bytes."""
    return cbor2.dumps(dict(metadata), canonical=True) if metadata else NO_METADATA


def has_metadata(metadata: bytes, encoded: bytes) -> bool:
    """Whether an encoded map holds an encoded pair of key and value at its top level."""
    held = decode_value(metadata)
    return any(
        cbor2.dumps({key: value}, canonical=True)[1:] == encoded for key, value in held.items()
    )


def _check_time(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise InvalidValueError(f"{name} must be nanoseconds since 1970, not {value!r:.80}")
    return value


def _after(prefix: str) -> str | None:
    """The least text above every text that begins with ``prefix``, in the order of UTF-8.

    None when there is no such text.
    """
    prefix = prefix.rstrip("\U0010ffff")
    if not prefix:
        return None
    last = ord(prefix[-1])
    return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
