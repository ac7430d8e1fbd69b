"""The kinds of actions, and what an action of each kind has besides what all have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from attrs import field, frozen

from .printing import brief


class ActionKind(StrEnum):
    """What an action did."""

    PUT = "put"
    """A frame was put."""
    PUT_MANY = "put_many"
    """Several frames were put at once."""
    FIND = "find"
    """The memory was searched."""
    ASK = "ask"
    """A model was asked."""
    CHECKPOINT = "checkpoint"
    """A checkpoint was made."""
    UPDATE = "update"
    """A frame was changed."""
    DELETE = "delete"
    """A frame was deleted."""
    TOOL_CALL = "tool_call"
    """A tool was called."""
    STEP = "step"
    """A part of the agent's work, with the actions that were recorded in it."""
    ONCE = "once"
    """The agent read what another run may read otherwise: the time, a random choice."""


WITH_ARGUMENTS = (ActionKind.TOOL_CALL, ActionKind.STEP)
"""The kinds whose input is a value."""


@frozen
class PutDetails:
    """A frame was put."""

    frame_id: int
    """The frame; 0 where putting it failed."""


@frozen
class PutManyDetails:
    """Several frames were put at once."""

    frame_ids: tuple[int, ...] = field(repr=brief)
    """The frames, in the order in which they were put."""


@frozen
class UpdateDetails:
    """A frame was updated."""

    frame_id: int
    """The frame."""


@frozen
class DeleteDetails:
    """A frame was deleted."""

    frame_id: int
    """The frame."""


@frozen
class FindDetails:
    """The memory was searched."""

    mode: str
    """How: lexical, semantic or hybrid, or as somebody else's search names it."""
    result_count: int
    """How many results the search reported."""
    result_frames: tuple[int, ...] = field(repr=brief)
    """The ids of the frames that it found."""


@frozen
class AskDetails:
    """A model was asked."""

    provider: str | None
    """Who served the model; None if nobody was named."""
    model: str | None
    """The model; None if none was named."""
    retrieved_frames: tuple[int, ...] = field(repr=brief)
    """The ids of the frames that were in its prompt."""
    message_count: int
    """How many messages the prompt had; ``store.read_messages`` reads them."""


@frozen
class ToolCallDetails:
    """A tool was called; its arguments are read with ``store.read_arguments``."""

    name: str
    """The tool."""


@frozen
class StepDetails:
    """A part of the agent's work; its input is read with ``store.read_arguments``."""

    name: str
    """The part."""


@frozen
class OnceDetails:
    """The agent read what another run may read otherwise."""

    name: str
    """What it was."""


@frozen
class CheckpointDetails:
    """A checkpoint was made."""

    checkpoint_id: int
    """The checkpoint."""


Details = (
    PutDetails
    | PutManyDetails
    | UpdateDetails
    | DeleteDetails
    | FindDetails
    | AskDetails
    | ToolCallDetails
    | StepDetails
    | OnceDetails
    | CheckpointDetails
)


def make_details(
    kind: ActionKind, detail: Sequence[Any], frames: tuple[int, ...], messages: int
) -> Details:
    """Return the details of an action, from what a command or the file keeps of them."""
    if kind is ActionKind.ASK:
        return AskDetails(detail[0], detail[1], frames, messages)
    if kind is ActionKind.TOOL_CALL:
        return ToolCallDetails(detail[0])
    if kind is ActionKind.FIND:
        return FindDetails(detail[0], detail[1], frames)
    if kind is ActionKind.STEP:
        return StepDetails(detail[0])
    if kind is ActionKind.ONCE:
        return OnceDetails(detail[0])
    if kind is ActionKind.PUT_MANY:
        return PutManyDetails(frames)
    # A put that failed has put none.
    return _FRAME_DETAILS[kind](frames[0] if frames else 0)


_FRAME_DETAILS: dict[ActionKind, Callable[[int], Details]] = {
    ActionKind.PUT: PutDetails,
    ActionKind.UPDATE: UpdateDetails,
    ActionKind.DELETE: DeleteDetails,
}
