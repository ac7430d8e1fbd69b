"""The messages of a stream: the bytes of the log, cut where batches end.

All messages one after another are the bytes of a file's log, header included: the first message
is the header, each other one a batch's segments. So what reads a file reads a stream, and one can
be copied into the other. A batch that is longer than a message may be comes in parts, in a row. A
row that was left unfinished counts for nothing: its writer died, and the next batch stands in its
place.
"""

from __future__ import annotations

import struct
from enum import IntEnum

from attrs import frozen

from ..errors import UnsupportedVersionError

# Magic, version, the kind, the part's place and the number of parts, the offset of the batch in the
# log, the newest TOC's offset and the sequence of the last event folded into it, and the batch's
# id: that of its writer, random, and a number.
_HEAD = struct.Struct("<4sBBHHQQQ16s")
HEAD_SIZE = _HEAD.size
BATCH_BYTES, WRITER_BYTES = 16, 8
NUMBER_BYTES = 8
_MAGIC = b"MVAs"
_VERSION = 1


class MessageKind(IntEnum):
    """What a message holds."""

    LOG = 0
    """Bytes of the log."""
    CLAIM = 1
    """Nothing: its writer begins to write the log again, and who began before must not end."""
    MOVED = 2
    """No log: the log goes on in another stream of the store, whose number it holds
    (`NUMBER_BYTES`), and this one is deleted."""
    BEGUN = 3
    """Nothing: the log goes on here. Before it, the stream is what a compaction copies."""
    FOREIGN = 255
    """No message of a store: somebody else published to the subject. It is passed over."""


# In the ids of what a compaction copies, the writer's.
COPYING = bytes(WRITER_BYTES)
# The most parts that a batch can have.
MOST_PARTS = 2**16 - 1


@frozen
class Message:
    """One message, read."""

    kind: MessageKind
    """What it holds."""
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

    @property
    def is_copied(self) -> bool:
        """Whether a compaction wrote it into the stream that is to replace another one."""
        return self.batch[:WRITER_BYTES] == COPYING

    @property
    def next_number(self) -> int:
        """Of a move, the number of the stream in which the log goes on."""
        return int.from_bytes(self.data) if self.kind == MessageKind.MOVED else 0

    def encode(self) -> bytes:
        """Return it as :func:`decode_message` takes it."""
        place = self.part, self.parts
        return (
            _HEAD.pack(_MAGIC, _VERSION, self.kind, *place, self.at, *self.toc, self.batch)
            + self.data
        )


def cut_batch(at: int, toc: tuple[int, int], batch: bytes, data: bytes, most: int) -> list[Message]:
    """Return a batch as messages that take at most ``most`` bytes each."""
    room = most - HEAD_SIZE
    parts = max(1, -(-len(data) // room))
    assert parts <= MOST_PARTS
    return [
        Message(MessageKind.LOG, at, part, parts, toc, batch, data[part * room : (part + 1) * room])
        for part in range(parts)
    ]


def encode_batch(
    at: int, toc: tuple[int, int], batch: bytes, data: bytes, most: int
) -> list[bytes]:
    """Return a batch as :func:`cut_batch` does, encoded."""
    return [message.encode() for message in cut_batch(at, toc, batch, data, most)]


def mark(
    kind: MessageKind, at: int, toc: tuple[int, int], batch: bytes, data: bytes = b""
) -> Message:
    """Return a message that holds nothing of the log, after a log of ``at`` bytes."""
    return Message(kind, at, 0, 1, toc, batch, data)


def encode_mark(
    kind: MessageKind, at: int, toc: tuple[int, int], batch: bytes, data: bytes = b""
) -> bytes:
    """Return a :func:`mark`, encoded."""
    return mark(kind, at, toc, batch, data).encode()


def decode_message(payload: bytes) -> Message:
    """Read a message.

    :raises UnsupportedVersionError: when a newer release wrote it.
    """
    if len(payload) < HEAD_SIZE or not payload.startswith(_MAGIC):
        return Message(MessageKind.FOREIGN, 0, 0, 1, (0, 0), bytes(BATCH_BYTES), b"")
    _, version, kind, part, parts, at, toc, sequence, batch = _HEAD.unpack_from(payload)
    if version != _VERSION or kind > MessageKind.BEGUN:
        raise UnsupportedVersionError(
            f"the stream is of format {version}, which a newer release reads"
        )
    data = payload[HEAD_SIZE:]
    return Message(MessageKind(kind), at, part, parts, (toc, sequence), batch, data)
