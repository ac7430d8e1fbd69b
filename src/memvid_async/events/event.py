"""The facts a store keeps: values, the payload of every kind of event, and the event itself.

Everything here is immutable. An :class:`Event` is the only source of truth; sessions, checkpoints
and the TOC are folded from events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from attrs import field, frozen

from ..config import RecordingConfig
from .content import EMPTY, Content, content_digest
from .frames import (
    ForkPoint,
    FrameDeleted,
    FrameErased,
    FramePut,
    FrameUpdated,
    MemoryConfigured,
    Reply,
    Retrieval,
)
from .printing import brief, counted, html_table


class ActionKind(StrEnum):
    """What an action did."""

    PUT = "put"
    PUT_MANY = "put_many"
    FIND = "find"
    ASK = "ask"
    CHECKPOINT = "checkpoint"
    UPDATE = "update"
    DELETE = "delete"
    TOOL_CALL = "tool_call"


@frozen
class PutDetails:
    """A frame was put."""

    frame_id: int


@frozen
class PutManyDetails:
    """Several frames were put at once."""

    frame_ids: tuple[int, ...]


@frozen
class UpdateDetails:
    """A frame was updated."""

    frame_id: int


@frozen
class DeleteDetails:
    """A frame was deleted."""

    frame_id: int


@frozen
class FindDetails:
    """A search: ``result_count`` is what the search reported, ``result_frames`` what it named."""

    mode: str
    result_count: int
    result_frames: tuple[int, ...]


@frozen
class AskDetails:
    """A question to a model; ``message_count`` messages are read with ``store.read_messages``."""

    provider: str
    model: str
    retrieved_frames: tuple[int, ...]
    message_count: int


@frozen
class ToolCallDetails:
    """A tool call; its arguments are read with ``store.read_arguments``."""

    name: str


@frozen
class CheckpointDetails:
    """A checkpoint was made."""

    checkpoint_id: int


Details = (
    PutDetails
    | PutManyDetails
    | UpdateDetails
    | DeleteDetails
    | FindDetails
    | AskDetails
    | ToolCallDetails
    | CheckpointDetails
)


def make_details(
    kind: ActionKind, detail: tuple[Any, ...], frames: tuple[int, ...], messages: int
) -> Details:
    """The details of an action, from what a command or the file keeps of them."""
    if kind is ActionKind.ASK:
        return AskDetails(detail[0], detail[1], frames, messages)
    if kind is ActionKind.TOOL_CALL:
        return ToolCallDetails(detail[0])
    if kind is ActionKind.FIND:
        return FindDetails(detail[0], detail[1], frames)
    if kind is ActionKind.PUT_MANY:
        return PutManyDetails(frames)
    return _FRAME_DETAILS[kind](frames[0])


_FRAME_DETAILS: dict[ActionKind, Callable[[int], Details]] = {
    ActionKind.PUT: PutDetails,
    ActionKind.UPDATE: UpdateDetails,
    ActionKind.DELETE: DeleteDetails,
}


# Without slots it is made in half the time, and one is made per record.
@frozen(slots=False)
class Action:
    """One recorded step of a session.

    ``index``: its place in the session, from 0. ``sequence``: its event's place in the log.
    ``time_ns``: nanoseconds since the Unix epoch. ``duration_ms``: milliseconds, as given.
    ``input`` / ``output``: an ask's query and response, a find's query, a put's or update's data,
    a tool call's arguments (deterministic CBOR) and result; None where there is none.
    ``affected_frames``: the ids of the frames it named. ``task``: which task of the agent did it.
    ``error``: how it failed, or None. ``retrieval``: of the store's own finds and asks, how the
    memory was searched. ``reply``: of its asks, how the reply came.
    """

    index: int
    sequence: int
    time_ns: int
    kind: ActionKind
    details: Details
    input: Content | None
    output: Content | None
    affected_frames: tuple[int, ...]
    duration_ms: float
    task: str | None = None
    error: str | None = None
    metadata: Mapping[str, Any] = EMPTY
    retrieval: Retrieval | None = None
    reply: Reply | None = None


@frozen
class StateSnapshot:
    """What a checkpoint pins: the memory at that point, and where in the log it was.

    ``memory_hash``: a rolling digest over the frame events (32 bytes). ``generation``: how often
    the file had been compacted.
    """

    frame_count: int
    memory_hash: bytes
    log_sequence: int
    generation: int


@frozen
class Checkpoint:
    """A marked point of a session from which state can be rebuilt.

    ``at_index``: the index of the checkpoint's own action; the state is that after every action
    before it. ``state_hash`` covers the snapshot's frame_count and memory_hash.
    """

    checkpoint_id: int
    at_index: int
    time_ns: int
    snapshot: StateSnapshot

    @property
    def state_hash(self) -> bytes:
        """BLAKE2b-256 of the frame count (8 bytes, big-endian) and the memory hash."""
        count = self.snapshot.frame_count.to_bytes(8, "big")
        return content_digest(count + self.snapshot.memory_hash)


@frozen
class Session:
    """A recorded session, whole but for the content, which ``store.read_content`` reads.

    ``created_ns`` / ``ended_ns``: nanoseconds since the Unix epoch; ``ended_ns`` is None while it
    is open. ``error``: the exception that left its block, if one did. ``version``: the file's
    format version.
    """

    session_id: UUID
    name: str | None
    created_ns: int
    ended_ns: int | None
    error: str | None
    actions: tuple[Action, ...] = field(repr=counted("action"))
    checkpoints: tuple[Checkpoint, ...] = field(repr=counted("checkpoint"))
    metadata: Mapping[str, Any] = field(repr=brief)
    version: int
    fork: ForkPoint | None = None

    def _repr_html_(self) -> str:
        """A notebook's table: the session's actions."""
        state = "open" if self.ended_ns is None else "ended"
        named = "" if self.name is None else f" {self.name!r}"
        caption = f"Session{named} {self.session_id}, {state}, {len(self.actions):,} actions"
        head = ("index", "action", "of", "input", "output", "ms", "error")
        return html_table(caption, head, map(_table_row, self.actions), len(self.actions))


def _table_row(action: Action) -> tuple[Any, ...]:
    names = ("name", "model", "mode", "frame_id", "checkpoint_id")
    details = action.details
    about = next((getattr(details, name) for name in names if hasattr(details, name)), None)
    begins = (None if one is None else one.preview for one in (action.input, action.output))
    return action.index, action.kind, about, *begins, f"{action.duration_ms:,.1f}", action.error


@frozen
class SessionSummary:
    """A session as listed. ``duration_ns`` runs to its end, or to its latest event while open."""

    session_id: UUID
    name: str | None
    created_ns: int
    ended_ns: int | None
    action_count: int
    checkpoint_count: int
    duration_ns: int
    fork: ForkPoint | None = None


@frozen
class SessionStarted:
    """A session began; ``ambient`` when it is the file's own, ``fork`` when it goes on from one."""

    name: str | None
    ambient: bool
    config: RecordingConfig
    metadata: Mapping[str, Any] = EMPTY
    fork: ForkPoint | None = None


@frozen
class SessionEnded:
    """A session ended; ``error`` says how it failed, if it did."""

    error: str | None = None


@frozen
class SessionDeleted:
    """The event's session was deleted: hidden from now on, its bytes erased by compaction."""


@frozen
class ContentStored:
    """Content of 1 KiB or more entered the file; actions refer to it by sequence.

    ``data`` is there while it is being written; a subscription delivers digest and size alone.
    """

    digest: bytes
    size: int
    data: str | bytes | None = field(default=None, repr=False, eq=False)


# CBOR tags, used nowhere but inside a stored message: [action index, place] and [sequence, text?].
TAG_PIECE, TAG_CONTENT = 59_001, 59_002


@frozen
class StoredMessages:
    """An ask's messages as they are kept: what an earlier ask of the session holds, by reference.

    The first ``shared_count`` messages are those of the action at ``shared_index`` (-1: none);
    ``items`` are the others as CBOR, in which a string kept elsewhere is a tagged reference;
    ``hashes``: per item, 16 bytes, BLAKE2b-128 over the prefix that ends with it.
    """

    shared_index: int
    shared_count: int
    hashes: bytes
    items: tuple[bytes, ...]

    @property
    def count(self) -> int:
        """How many messages there are in all."""
        return self.shared_count + len(self.items)


@frozen
class ActionRecorded:
    """An action was recorded."""

    action: Action
    messages: StoredMessages | None = None


@frozen
class CheckpointCreated:
    """A checkpoint was made, asked for or by the session's interval; also an action."""

    action: Action
    checkpoint: Checkpoint


def make_checkpoint(
    checkpoint_id: int,
    index: int,
    sequence: int,
    now: int,
    snapshot: StateSnapshot,
    task: str | None,
) -> CheckpointCreated:
    """A checkpoint and the action that it also is."""
    details = CheckpointDetails(checkpoint_id)
    action = Action(index, sequence, now, ActionKind.CHECKPOINT, details, None, None, (), 0, task)
    return CheckpointCreated(action, Checkpoint(checkpoint_id, index, now, snapshot))


@frozen
class Erased:
    """What was here belonged to a deleted session; only its sequence and time remain."""


@frozen
class Unknown:
    """An event of a kind that this release does not know, as it stands in the file."""

    kind: int
    fields: tuple[Any, ...]


Payload = (
    SessionStarted
    | SessionEnded
    | SessionDeleted
    | ContentStored
    | ActionRecorded
    | CheckpointCreated
    | MemoryConfigured
    | FramePut
    | FrameUpdated
    | FrameDeleted
    | FrameErased
    | Erased
    | Unknown
)


@frozen
class Event:
    """An immutable fact: its place in the log, its time, the session it belongs to, its payload.

    ``session_id`` is None for what belongs to no session. ``session`` is the session's number:
    the sequence of its :class:`SessionStarted` event, or 0.
    """

    sequence: int
    time_ns: int
    session_id: UUID | None
    payload: Payload
    session: int = field(default=0, repr=False)
