"""What a store keeps: values, the payload of every kind of event, and the event itself.

Everything here is immutable. An :class:`Event` is the only source of truth; sessions, checkpoints
and the TOC are folded from events.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

from attrs import field, fields, frozen

from ..config import RecordingConfig
from .calls import (
    NO_CALL,
    ActionStarted,
    AnswerDropped,
    CallFacts,
    ChunksCame,
    ErrorDetail,
    SessionChanged,
    SessionResumed,
    SessionSuspended,
    Usage,
)
from .content import EMPTY, Content, as_value, content_digest
from .conversion import UNCONVERTED, Conversion
from .details import WITH_ARGUMENTS, ActionKind, CheckpointDetails, Details
from .embeddings import EmbeddingModelSet, EmbeddingsMade
from .frames import (
    ForkPoint,
    FrameDeleted,
    FrameErased,
    FramesPut,
    FrameUpdated,
    MemoryConfigured,
    Retrieval,
)
from .keyed import CollectionChanged, CollectionCreated, KeyUsed
from .printing import amount, brief, counted, html_table
from .prompts import Reply


class _ActionValues(Protocol):
    """What an action is made of when somebody looks at it."""

    def action(self) -> Action: ...


class _MadeLater:
    """The base of what may be made at the first look: until then it has only this slot."""

    __slots__ = ("_values",)

    _values: _ActionValues | None


# Without slots it is made in half the time.
@frozen(slots=False)
class Action(_MadeLater):
    """One recorded step of a session."""

    index: int
    """Its place in the session, from 0."""
    sequence: int
    """Its event's place in the log."""
    time_ns: int
    """When it was recorded, in nanoseconds since the Unix epoch."""
    kind: ActionKind
    """What it did."""
    details: Details
    """The fields of its kind."""
    input: Content | None
    """An ask's or a find's query, a put's or an update's data, a tool call's arguments or a step's
    input (deterministic CBOR, whose preview is JSON); None where there is none."""
    output: Content | None
    """An ask's response, a tool call's result; None where there is none."""
    affected_frames: tuple[int, ...] = field(repr=brief)
    """The ids of the frames that it put, changed, deleted, found or retrieved."""
    duration_ms: float
    """How long it took, in milliseconds, as the caller said."""
    task: str | None = None
    """Which task of the agent did it."""
    error: str | None = field(default=None, repr=brief)
    """How it failed; None if it did not."""
    metadata: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """The caller's own data about it."""
    retrieval: Retrieval | None = None
    """How the memory was searched, if the store's own find or ask did it."""
    reply: Reply | None = None
    """How the reply came, if the store's own ask got it."""
    conversion: Conversion = UNCONVERTED
    """What had to be changed before it could be recorded; 0 for nothing."""
    session_id: UUID | None = None
    """The session that recorded it; of a fork's shared actions, the parent."""
    call: CallFacts = field(default=NO_CALL, repr=False)
    """What only a call's action has."""

    def __attrs_post_init__(self) -> None:
        if self.input is not None and self.kind in WITH_ARGUMENTS:
            object.__setattr__(self, "input", as_value(self.input))

    @property
    def started(self) -> int | None:
        """The sequence of its :class:`ActionStarted`; None for an action in one piece."""
        return self.call.started

    @property
    def started_ns(self) -> int | None:
        """When it began, in nanoseconds since the Unix epoch; None for an action in one piece."""
        return self.call.started_ns

    @property
    def parent(self) -> int | None:
        """The sequence of the :class:`ActionStarted` of the call or step around it, if any."""
        return self.call.parent

    @property
    def error_detail(self) -> ErrorDetail | None:
        """The exception that it raised, as far as it was recorded."""
        return self.call.error_detail

    @property
    def raw(self) -> Content | None:
        """Its output as it came from the network, where that is something else."""
        return self.call.raw

    @property
    def usage(self) -> Usage | None:
        """What the model counted for it; None where it counted nothing."""
        return None if self.reply is None else self.reply.usage

    # A type checker must not take any name for an attribute.
    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Make the action: it is asked for a field that is not there yet."""
            if name not in _ACTION_FIELDS:
                raise AttributeError(f"an Action has no attribute {name!r}")
            values, made = self._values, self.__dict__
            # None: another thread made it meanwhile.
            if values is not None:
                made.update(values.action().__dict__)
                _set_values(self, None)
            return made[name]

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields, for a copy or a pickle."""
        return {name: getattr(self, name) for name in _ACTION_FIELDS}


_ACTION_FIELDS = tuple(one.name for one in fields(Action))
_set_values = _MadeLater.__dict__["_values"].__set__
_new = object.__new__


def action_of(values: _ActionValues) -> Action:
    """Return the action with these values; it is made when somebody looks at it."""
    action = _new(Action)
    _set_values(action, values)
    return action


def fields_of(action: Action) -> tuple[Any, ...]:
    """Return all fields of an action, for :func:`action_from`."""
    return tuple(getattr(action, name) for name in _ACTION_FIELDS)


def action_from(fields: tuple[Any, ...]) -> Action:
    """Return the action with these fields. Nothing is checked."""
    action = _new(Action)
    action.__dict__.update(zip(_ACTION_FIELDS, fields, strict=True))
    return action


@frozen
class StateSnapshot:
    """What a checkpoint pins: the memory at that point, and where in the log it was."""

    frame_count: int
    """Frames in the memory."""
    memory_hash: bytes
    """A rolling digest over the frame events (32 bytes)."""
    log_sequence: int
    """The sequence of the last event before the checkpoint."""
    generation: int
    """How often the file had been compacted."""


@frozen
class Checkpoint:
    """A marked point of a session from which state can be rebuilt."""

    checkpoint_id: int
    """Its id, from 0 within the session."""
    at_index: int
    """The index of its own action. The state is that after every action before it."""
    time_ns: int
    """When it was made, in nanoseconds since the Unix epoch."""
    snapshot: StateSnapshot
    """What it pins."""

    @property
    def state_hash(self) -> bytes:
        """BLAKE2b-256 of the frame count (8 bytes, big-endian) and the memory hash."""
        count = self.snapshot.frame_count.to_bytes(8, "big")
        return content_digest(count + self.snapshot.memory_hash)


@frozen
class Session:
    """A recorded session. Its large contents are read by ``store.read_content``."""

    session_id: UUID
    """Its id."""
    name: str | None
    """Its name."""
    created_ns: int
    """When it started, in nanoseconds since the Unix epoch."""
    ended_ns: int | None
    """When it ended, in nanoseconds since the Unix epoch; None while it is open."""
    error: str | None = field(repr=brief)
    """The exception that left its block, if one did."""
    actions: tuple[Action, ...] = field(repr=counted("action"))
    """Its actions, in order. From 1,024 of them on, each look makes an equal one."""
    checkpoints: tuple[Checkpoint, ...] = field(repr=counted("checkpoint"))
    """Its checkpoints, in order."""
    metadata: Mapping[str, Any] = field(repr=brief)
    """What it was started with."""
    version: int
    """The version of the file's format."""
    fork: ForkPoint | None = None
    """Where a fork leaves its parent, with whose actions it begins."""
    in_flight: tuple[ActionStarted, ...] = field(default=(), repr=counted("call"))
    """The calls and steps that began and of which nobody said how they ended, in order: the first
    start of each, with the number of its last try."""

    def _repr_html_(self) -> str:
        """A notebook's table: the session's actions."""
        state = "open" if self.ended_ns is None else "ended"
        named = "" if self.name is None else f" {self.name!r}"
        caption = (
            f"Session{named} {self.session_id}, {state}, {amount(len(self.actions), 'action')}"
        )
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
    """A session as listed."""

    session_id: UUID
    """Its id."""
    name: str | None
    """Its name."""
    created_ns: int
    """When it started, in nanoseconds since the Unix epoch."""
    ended_ns: int | None
    """When it ended, in nanoseconds since the Unix epoch; None while it is open."""
    action_count: int
    """How many actions it has, checkpoints included."""
    checkpoint_count: int
    """How many checkpoints it has."""
    duration_ns: int
    """Nanoseconds to its end; to its latest event while it is open. 0 where the clock stepped back
    before its start."""
    fork: ForkPoint | None = None
    """Where a fork leaves its parent."""
    error: str | None = field(default=None, repr=brief)
    """The exception that left its block, if one did."""
    metadata: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """What it was started with, and what was added since."""
    ask_count: int = 0
    """How many of its actions are asks. This and what follows counts a fork's own actions only, so
    that nothing is counted twice."""
    tool_call_count: int = 0
    """How many are tool calls."""
    failed_count: int = 0
    """How many failed, steps not counted."""
    in_flight_count: int = 0
    """Calls and steps that began and of which nobody said how they ended."""
    input_tokens: int = 0
    """The sum of what its models read, where they counted it."""
    output_tokens: int = 0
    """The sum of what they wrote."""
    cached_tokens: int = 0
    """The sum of what they read from a cache, a part of ``input_tokens``."""
    cost_usd: float = 0
    """The sum of what they cost, in US dollars."""


@frozen
class SessionStarted:
    """A session began."""

    name: str | None
    """Its name."""
    ambient: bool
    """Whether it is the file's own."""
    config: RecordingConfig
    """How it records."""
    metadata: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """What it was started with."""
    fork: ForkPoint | None = None
    """Where a fork leaves its parent."""


@frozen
class SessionEnded:
    """A session ended."""

    error: str | None = field(default=None, repr=brief)
    """How it failed, if it did."""


@frozen
class SessionDeleted:
    """The event's session was deleted: hidden from now on, its bytes erased by compaction."""


@frozen
class ContentStored:
    """Content of 1 KiB or more entered the file; actions refer to it by sequence."""

    digest: bytes
    """BLAKE2b-256 of its bytes (32 bytes)."""
    size: int
    """Its length in bytes."""
    data: str | bytes | None = field(default=None, repr=False, eq=False)
    """The content itself while it is being written; a subscription does not deliver it."""


# CBOR tags, used nowhere but inside a stored message: [action index, place] and [sequence, text?].
TAG_PIECE, TAG_CONTENT = 59_001, 59_002


@frozen
class MessageRun:
    """Messages of an ask that are those of an earlier one of the session."""

    index: int
    """The index of the earlier ask."""
    first: int
    """The place of the first of them in the earlier ask, from 0."""
    count: int
    """How many they are."""


@frozen
class StoredMessages:
    """An ask's messages as they are kept: those that an earlier ask holds are not repeated."""

    hashes: bytes = field(repr=False)
    """By which later asks find the messages that are stored here: the BLAKE2b-128 of each (16
    bytes), and before a row of them that comes after a run that of the chain of messages up to it.
    """
    parts: tuple[bytes | MessageRun, ...] = field(repr=counted("part"))
    """The messages in order: one as CBOR, in which a text that the file already holds is a tagged
    reference; or a run of an earlier ask's."""

    @property
    def own(self) -> tuple[bytes, ...]:
        """The messages that are stored here."""
        return tuple(part for part in self.parts if isinstance(part, bytes))

    @property
    def hash_count(self) -> int:
        """How many hashes there must be."""
        is_own = [isinstance(part, bytes) for part in self.parts]
        after_runs = sum(own and not before for before, own in pairwise(is_own))
        return sum(is_own) + after_runs

    @property
    def count(self) -> int:
        """How many messages there are in all."""
        return sum(map(message_count, self.parts))


def message_count(part: bytes | MessageRun) -> int:
    """Return how many messages a part of an ask's messages is."""
    return 1 if isinstance(part, bytes) else part.count


@frozen
class ActionRecorded:
    """An action was recorded."""

    action: Action
    """The action."""
    messages: StoredMessages | None = None
    """An ask's messages, as they are kept."""


@frozen
class CheckpointCreated:
    """A checkpoint was made, on request or at the session's interval. It is an action too."""

    action: Action
    """The action."""
    checkpoint: Checkpoint
    """The checkpoint."""


def make_checkpoint(
    session_id: UUID | None,
    checkpoint_id: int,
    index: int,
    sequence: int,
    now: int,
    snapshot: StateSnapshot,
    task: str | None,
) -> CheckpointCreated:
    """Return a checkpoint's event, with the action that it also is."""
    details = CheckpointDetails(checkpoint_id)
    action = Action(
        index,
        sequence,
        now,
        ActionKind.CHECKPOINT,
        details,
        None,
        None,
        (),
        0,
        task,
        session_id=session_id,
    )
    return CheckpointCreated(action, Checkpoint(checkpoint_id, index, now, snapshot))


@frozen
class Erased:
    """An event of a deleted session was here; only its sequence and time are left."""


@frozen
class Unknown:
    """An event of a kind that this release does not know."""

    kind: int
    """The number of its kind."""
    fields: tuple[Any, ...] = field(repr=brief)
    """Its fields, as they are in the file."""


Payload = (
    SessionStarted
    | SessionEnded
    | SessionDeleted
    | ContentStored
    | ActionStarted
    | ActionRecorded
    | ChunksCame
    | AnswerDropped
    | CheckpointCreated
    | SessionChanged
    | SessionResumed
    | SessionSuspended
    | MemoryConfigured
    | FramesPut
    | FrameUpdated
    | FrameDeleted
    | FrameErased
    | EmbeddingsMade
    | EmbeddingModelSet
    | CollectionCreated
    | CollectionChanged
    | KeyUsed
    | Erased
    | Unknown
)


@frozen
class Event:
    """An immutable fact. All state is folded from events."""

    sequence: int
    """Its place in the log: 1, 2, 3 … without gaps."""
    time_ns: int
    """When its command was decided, in nanoseconds since the Unix epoch."""
    session_id: UUID | None
    """The session that it belongs to; None where it belongs to none."""
    payload: Payload
    """What happened."""
    session: int = field(default=0, repr=False)
    """The session's number: the sequence of its :class:`SessionStarted` event; 0 for none."""
