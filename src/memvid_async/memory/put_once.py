"""Putting frames, once for each idempotency key."""

from __future__ import annotations

from ..core.commands import ChangeMemory, OnlyOnce, Repeated
from ..events.frames import FramesPut
from ..recording.command_intake import CommandIntake
from ..recording.once_hashes import frames_hash
from ..recording.prepare_values import prepare_text


async def put_once(
    intake: CommandIntake, command: ChangeMemory, size: int, key: str | None
) -> list[int]:
    """Put frames of about ``size`` bytes, unless the key was used, and return their ids; none for a
    put that replaces others, where the memory has changed.

    :raises InvalidValueError: when the key was used for other frames, or is not a key.
    """
    if key is None:
        answer = await intake.submit(command, size)
    else:
        text = prepare_text(key, "key", "key_chars", intake.limits.key_chars)
        answer = await intake.submit(OnlyOnce(command, text, frames_hash(command)), size)
    if isinstance(answer, Repeated):
        payload = (await intake.event_at(answer.sequence)).payload
        assert isinstance(payload, FramesPut)
        return list(payload.frame_ids)
    ids: list[int] = [] if answer is None else answer[0]
    return ids
