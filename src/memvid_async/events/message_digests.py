"""Digests of messages, which tell whether two asks were asked the same.

The ids of tool calls are left out: no two replies have the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import cbor2

from .content import content_digest


def value_digest(value: Any) -> bytes:
    """Return the BLAKE2b-128 digest of a value's deterministic CBOR."""
    return _digest(cbor2.dumps(value, canonical=True))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def chained_digest(last: bytes, message: bytes) -> bytes:
    """Return the digest of messages with one more. ``last``: that of those before, empty for none;
    ``message``: that of the one."""
    return content_digest(last + message)[:16]


def messages_digest(messages: Sequence[Any], items: Sequence[bytes] | None = None) -> bytes:
    """Return the digest of messages. ``items``: each as deterministic CBOR, where that is known."""
    last = b""
    for place, message in enumerate(messages):
        shorter = drop_call_ids(message)
        is_known = items is not None and shorter is message
        digest = _digest(items[place]) if items and is_known else value_digest(shorter)
        last = chained_digest(last, digest)
    return last


def drop_call_ids(message: Any) -> Any:
    """Remove the ids of tool calls from a message in the OpenAI format; return others unchanged."""
    if not isinstance(message, Mapping):
        return message
    calls = message.get("tool_calls")
    if "tool_call_id" not in message and not isinstance(calls, list):
        return message
    kept = {key: value for key, value in message.items() if key != "tool_call_id"}
    if isinstance(calls, list):
        kept["tool_calls"] = [
            {key: value for key, value in call.items() if key != "id"}
            if isinstance(call, Mapping)
            else call
            for call in calls
        ]
    return kept
