"""Storing a stream of bytes as it comes: in parts, each an event of its own."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable

from ..config import Limits
from ..core.commands import LargeContent, StoreParts
from ..engine.worker import Worker
from ..errors import InvalidValueError, LimitExceededError
from ..events.content import Content, StoredContent, content_digest
from ..events.values import preview
from ..recording.command_intake import CommandIntake
from ..recording.scrubbing import ScrubbingLimits

_PART_BYTES = 1024 * 1024


async def store_stream(
    intake: CommandIntake, preparing: Worker, limits: Limits, chunks: AsyncIterable[bytes]
) -> bytes | Content:
    """Store the parts of a stream, and return the content that refers to them; a stream that is
    shorter than a part, as its bytes.

    :raises InvalidValueError: when it yields anything but bytes.
    :raises LimitExceededError: when it is too long.
    """
    digest, size = hashlib.blake2b(digest_size=32), 0
    # What is scrubbed is looked at in one piece.
    is_whole = type(limits) is ScrubbingLimits
    limit = "content_bytes" if is_whole else "stream_bytes"
    most: int = getattr(limits, limit)
    parts: list[Content] = []
    waiting = bytearray()
    begin = b""

    async def store_part(part: bytes) -> None:
        def prepare() -> LargeContent:
            digest.update(part)
            # It is an event of its own, however small it is, as the last part may be.
            return LargeContent(part, content_digest(part), len(part), preview(part))

        large = await preparing.run(prepare)
        parts.extend(await intake.submit(StoreParts((large,)), len(part)))

    async for chunk in chunks:
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise InvalidValueError(f"a stream must yield bytes, not {type(chunk).__name__}")
        waiting += chunk
        size += len(chunk)
        if size > most:
            raise LimitExceededError(limit, size, most)
        while len(waiting) >= _PART_BYTES and not is_whole:
            part = bytes(waiting[:_PART_BYTES])
            del waiting[:_PART_BYTES]
            begin = begin or part[:4096]
            await store_part(part)
    if not parts:
        return bytes(waiting)
    if waiting:
        await store_part(bytes(waiting))
    sequences = tuple(part.stored.sequence for part in parts if part.stored is not None)
    stored = StoredContent(digest.digest(), size, preview(begin), sequences[0], sequences)
    return Content(None, stored)
