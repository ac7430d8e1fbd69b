"""Putting frames, once for each idempotency key."""

from __future__ import annotations

from ..core.commands import ChangeMemory, OnlyOnce, Repeated
from ..events.frames import FramesPut
from ..recording.command_intake import CommandIntake
from ..recording.once_hashes import frames_hash
from ..recording.prepare_values import prepare_text
from ..recording.recorded_in import RecordedIn


async def put_once(
    intake: CommandIntake,
    recorded_in: RecordedIn,
    command: ChangeMemory,
    size: int,
    key: str | None,
) -> list[int]:
    """Put frames of about ``size`` bytes, unless the key was used, and return their ids; none for a
    put that replaces others, where the memory has changed.

    :raises InvalidValueError: when the key was used for other frames, or is not a key.
    """
    if key is None:
        answer = await recorded_in.change(command, size)
    else:
        text = prepare_text(key, "key", "key_chars", intake.limits.key_chars)
        once = OnlyOnce(command, text, frames_hash(command))
        answer = await recorded_in.change(once, size)
    if isinstance(answer, Repeated):
        payload = (await intake.event_at(answer.sequence)).payload
        assert isinstance(payload, FramesPut)
        ids = list(payload.frame_ids)
        await recorded_in.note_repeated(ids)
        return ids
    return [] if answer is None else answer[0]
