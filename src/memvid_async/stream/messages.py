"""The messages of a stream: the bytes of the log, cut where batches end.

All messages one after another are the bytes of a file's log, header included: the first message
is the header, each other one a batch's segments. So what reads a file reads a stream, and one can
be copied into the other. A batch that is longer than a message may be comes in parts, in a row. A
row that was left unfinished counts for nothing: its writer died, and the next batch stands in its
place.
"""

from __future__ import annotations

import struct

from attrs import frozen

from ..errors import NotAStoreError

# Magic, version, the part's place and the number of parts, the offset of the batch in the log, the
# newest TOC's offset and the sequence of the last event folded into it, and the batch's id: that of
# its writer, random, and a number.
_HEAD = struct.Struct("<4sHHHQQQ16s")
HEAD_SIZE = _HEAD.size
BATCH_BYTES, WRITER_BYTES = 16, 8
_MAGIC = b"MVAs"
_VERSION = 1
# The most parts that a batch can have.
MOST_PARTS = 2**16 - 1


@frozen
class Message:
    """One message, read."""

    at: int
    """The offset in the log at which its batch begins."""
    part: int
    """Which part of the batch it is, from 0."""
    parts: int
    """How many parts the batch has."""
    toc: tuple[int, int]
    """The offset of the newest TOC before the batch, and the sequence of the last event folded into
    it; zeros for none."""
    batch: bytes
    """The id of the batch: `WRITER_BYTES` of its writer, and a number."""
    data: bytes
    """Bytes of the log."""


def encode_batch(
    at: int, toc: tuple[int, int], batch: bytes, data: bytes, most: int
) -> list[bytes]:
    """Return a batch as messages of at most ``most`` bytes each."""
    room = most - HEAD_SIZE
    parts = max(1, -(-len(data) // room))
    assert parts <= MOST_PARTS
    return [
        _HEAD.pack(_MAGIC, _VERSION, part, parts, at, *toc, batch)
        + data[part * room : (part + 1) * room]
        for part in range(parts)
    ]


def decode_message(payload: bytes) -> Message:
    """Read a message.

    :raises NotAStoreError: when it is not one of a store, or of a newer release.
    """
    try:
        magic, version, part, parts, at, toc, sequence, batch = _HEAD.unpack_from(payload)
    except struct.error:
        magic, version, part, parts, at, toc, sequence, batch = b"", 0, 0, 0, 0, 0, 0, b""
    if magic != _MAGIC:
        raise NotAStoreError("the stream holds messages that are not a store's")
    if version != _VERSION:
        raise NotAStoreError(f"the stream is of format {version}, which a newer release reads")
    return Message(at, part, parts, (toc, sequence), batch, payload[HEAD_SIZE:])
