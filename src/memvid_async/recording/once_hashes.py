"""What makes two commands with one idempotency key the same, as a hash.

How long something took, which task did it, and the embedding that a model makes of a text may be
others the second time.
"""

from __future__ import annotations

import hashlib
from typing import Any

import cbor2

from ..core.commands import ChangeMemory, LargeContent, NewFrame, RecordAction
from ..events.content import Content
from ..events.decided import NO_EXTRAS


def action_hash(command: RecordAction) -> bytes:
    """Return the hash of what an action holds: BLAKE2b-128."""
    given, output, _, frames, _, *detail = command.fields
    extras = command.extras or NO_EXTRAS
    messages = extras.messages
    return _hash(
        [
            str(command.kind),
            detail,
            _content(given),
            _content(output),
            list(frames or ()),
            extras.error,
            dict(extras.metadata),
            None if messages is None else b"".join(messages.hashes),
        ]
    )


def frames_hash(command: ChangeMemory) -> bytes:
    """Return the hash of what a put holds: BLAKE2b-128."""
    return _hash([str(command.kind), *map(_frame, command.frames)])


def _frame(new: NewFrame | str) -> list[Any]:
    if isinstance(new, str):
        new = NewFrame(new)
    fields = [new.title, new.uri, new.media_type, list(new.tags), dict(new.metadata)]
    return [_content(new.content), *fields]


def _content(data: object) -> Any:
    if isinstance(data, LargeContent):
        return [data.digest, isinstance(data.data, str)]
    if isinstance(data, Content):
        return [data.digest, None]
    return data


def _hash(fields: list[Any]) -> bytes:
    encoded: bytes = cbor2.dumps(fields, canonical=True)
    return hashlib.blake2b(encoded, digest_size=16, person=b"content").digest()
