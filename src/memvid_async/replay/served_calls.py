"""The calls of a served session: recorded ones, which can answer, and live ones."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from attrs import frozen

from ..config import Limits
from ..engine.event_log import View
from ..events.content import content_digest
from ..events.details import ActionKind
from ..events.event import Action
from ..events.prompts import split_text
from ..events.values import as_plain, check_value
from ..recording.prepare_values import (
    prepare_arguments,
    prepare_content,
    prepare_frames,
    prepare_messages,
    prepare_name,
)
from .compare import Side
from .facts import INPUT_NAMES, OUTPUT_NAMES, drop_call_ids, value_digest
from .nearest import Asked
from .recorded import RecordedSession
from .served_lanes import LaneAsk, LaneCall, ServedLanes

NOTE = "memvid_async"
"""The metadata key under which a served session says where an action came from."""

CALLS = (ActionKind.ASK, ActionKind.FIND, ActionKind.TOOL_CALL)
MOST_ARGUMENTS = 1 << 30
"""How many bytes the arguments of a served tool call may have as CBOR."""


@frozen
class ServedCall:
    """A live call of a served session.

    ``call``: what it is matched by. ``asked``: how errors describe it. ``label``: the name of its
    task, as it is recorded. ``arguments``: a tool call's, as they were before the tool got them.
    """

    call: LaneAsk
    asked: Asked
    label: str
    arguments: Any


def check_recordable(live: ServedCall, limits: Limits) -> None:
    """Refuse a call that cannot be recorded, before anything runs.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    asked = live.asked
    names = {"name": asked.name, "task": live.label}
    names |= {what: asked.facts.get(what) for what in ("provider", "model", "mode")}
    for what, name in names.items():
        if name is not None:
            prepare_name(name, what, limits)
    if asked.kind is ActionKind.TOOL_CALL:
        prepare_arguments(live.arguments, limits)
    else:
        prepare_content(asked.input, "query", limits)
    prepare_frames(asked.facts.get("retrieved_frames") or (), limits)
    messages = asked.facts.get("messages")
    if messages is not None:
        prepare_messages(messages, limits)


def plain_messages(messages: Sequence[Any] | None) -> list[Any] | None:
    """Return messages as they can be compared with recorded ones; None for None.

    :raises InvalidValueError: when one could not have been recorded.
    """
    if messages is None:
        return None
    plain = list(as_plain(messages))
    check_value(plain, "messages")
    return plain


def make_lanes(side: Side, ahead: bool) -> ServedLanes:  # noqa: FBT001 - called in a thread
    """Return the calls that a recording can answer, by task."""
    calls = map(_recorded_call, side.recording.actions, side.facts, side.messages)
    return ServedLanes(filter(None, calls), ahead=ahead)


def _recorded_call(
    action: Action, facts: Mapping[str, Hashable], messages: bytes | None
) -> LaneCall | None:
    """Return a recorded action as a call that can answer; None when it is not a call."""
    if action.kind not in CALLS:
        return None
    key = (action.kind, facts.get("name"), facts[INPUT_NAMES[action.kind]])
    answer = (facts.get(OUTPUT_NAMES.get(action.kind, "result_frames")), action.error)
    return LaneCall(action, key, {**facts, "messages": messages}, answer)


def read_messages(view: View, recording: RecordedSession, action: Action) -> list[Any]:
    """Return the messages of a recorded ask."""
    return recording.read_messages(view, action)


def messages_digest(messages: Sequence[Any]) -> bytes:
    """Return the digest of messages, as :meth:`RecordedSession.messages_digest` does."""
    last = b""
    for message in messages:
        last = content_digest(last + value_digest(drop_call_ids(message)))[:16]
    return last


def chunks(text: str | bytes | None, lengths: Sequence[int]) -> list[Any]:
    """Split a response into pieces of these lengths; there are none without a response."""
    return [] if text is None else split_text(text, lengths)


def chunk_lengths(action: Action) -> Sequence[int]:
    """Return the lengths of a response's chunks, as a served session or an ask noted them."""
    note = action.metadata.get(NOTE)
    lengths = note.get("chunks") if isinstance(note, Mapping) else None
    if isinstance(lengths, list):
        return lengths
    return () if action.reply is None else action.reply.chunks
