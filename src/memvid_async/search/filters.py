"""Filters as SQL conditions on the table ``frames``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cbor2

from ..values import decode_value
from .rows import Filters

HAS_METADATA = "has_metadata"
_NO_METADATA = b"\xa0"


def conditions(filters: Filters | None) -> tuple[list[str], list[Any]]:
    """The conditions, to be joined by AND, and their parameters in order."""
    found: list[str] = []
    given: list[Any] = []
    if filters is None:
        return found, given

    def add(condition: str, *parameters: Any) -> None:
        found.append(condition)
        given.extend(parameters)

    for tag in filters.tags:
        add("EXISTS (SELECT 1 FROM tags WHERE tag = ? AND tags.id = frames.id)", tag)
    if filters.uri:
        add("frames.uri >= ?", filters.uri)
        above = _after(filters.uri)
        if above is not None:
            add("frames.uri < ?", above)
    if filters.title is not None:
        add("frames.title = ?", filters.title)
    if filters.media_type is not None:
        add("frames.media_type = ?", filters.media_type)
    if filters.since_ns is not None:
        add("frames.time_ns >= ?", filters.since_ns)
    if filters.until_ns is not None:
        add("frames.time_ns < ?", filters.until_ns)
    for key, value in filters.metadata.items():
        name, wanted = cbor2.dumps(key, canonical=True), cbor2.dumps(value, canonical=True)
        # The bytes are somewhere in the map before it is worth decoding.
        add("instr(frames.metadata, ?) > 0", name + wanted)
        add(f"{HAS_METADATA}(frames.metadata, ?, ?)", name, wanted)
    return found, given


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as kept: deterministic CBOR, so equal values are equal bytes."""
    return cbor2.dumps(dict(metadata), canonical=True) if metadata else _NO_METADATA


def has_metadata(metadata: bytes, name: bytes, wanted: bytes) -> bool:
    """Whether the top level of this map holds the value under the name; all as encoded."""
    key = decode_value(name)
    held = decode_value(metadata)
    return key in held and bool(cbor2.dumps(held[key], canonical=True) == wanted)


def _after(prefix: str) -> str | None:
    """The least text that is above all that begin with the prefix, in the order of UTF-8."""
    last = ord(prefix[-1])
    if last == 0x10FFFF:
        return _after(prefix[:-1]) if prefix[:-1] else None
    return prefix[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
