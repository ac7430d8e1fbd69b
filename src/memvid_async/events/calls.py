"""Calls and steps: that they began, how they came to an end, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from attrs import field, frozen

from .content import EMPTY, Content, as_value
from .details import WITH_ARGUMENTS, ActionKind, Details
from .printing import brief, counted

LanePath = tuple[str | int, ...]
"""Which asyncio task made a call: the lanes from that of the session's block, which is not in it,
to the task's own. Each is a task's name, or the number of one that nobody named."""


@frozen
class ErrorDetail:
    """An exception as it was recorded, so that an equal one can be raised again."""

    module: str
    """The module of its class."""
    qualname: str
    """The qualified name of its class in that module."""
    arguments: tuple[Any, ...] | None = field(default=None, repr=brief)
    """Its ``args``; None where they cannot be recorded."""
    attributes: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """Those of its other attributes that can be recorded."""
    frames: tuple[str, ...] = field(default=(), repr=counted("frame"))
    """The last frames of its traceback, the innermost last: ``file:line in function``."""
    members: tuple[ErrorDetail, ...] = field(default=(), repr=counted("member"))
    """Of a group of exceptions, its members; empty where they are too many to be recorded."""

    @property
    def type_name(self) -> str:
        """Its class, with the module."""
        return f"{self.module}.{self.qualname}"


@frozen
class Usage:
    """What a model counted for an ask; None where it counted nothing."""

    input_tokens: int | None = None
    """Tokens that the model read."""
    output_tokens: int | None = None
    """Tokens that it wrote."""
    cached_tokens: int | None = None
    """Tokens that it read from a cache: a part of ``input_tokens``."""
    cost_usd: float | None = None
    """What it cost, in US dollars."""


class CallFacts(NamedTuple):
    """What only an action has that was made as a call: its end refers to its start."""

    started: int | None = None
    """The sequence of its :class:`ActionStarted`; None for an action in one piece."""
    started_ns: int | None = None
    """The time of that event; None where there is none."""
    parent: int | None = None
    """The sequence of the :class:`ActionStarted` of the call or step around it."""
    lane: LanePath | None = None
    """The asyncio task that made it; None where it has a start, which says so, and where it was
    recorded by a ``record_…`` call."""
    seen: int | None = None
    """As a start's; None where the lane is None."""
    error_detail: ErrorDetail | None = None
    """The exception that it raised; None where it was cancelled from outside, as then it raised
    none."""
    settled_by: str | None = None
    """Who said how it ended, where it did not end by itself."""
    raw: Content | None = None
    """The output as it came from the network, where that is something else."""


NO_CALL = CallFacts()


@frozen
class ActionStarted:
    """A call or a step began; its action is recorded when it ends. Or a call is tried again."""

    sequence: int
    """Its event's place in the log."""
    time_ns: int
    """When it began, in nanoseconds since the Unix epoch."""
    session_id: UUID | None
    """The session that recorded it."""
    kind: ActionKind
    """What its action will be."""
    details: Details
    """The fields of its kind, as far as they are known."""
    input: Content | None
    """As an action's."""
    task: str | None = None
    """As an action's."""
    parent: int | None = None
    """The sequence of the start of the call or step around it; None for none."""
    lane: LanePath = ()
    """The asyncio task that made it."""
    seen: int = 0
    """The sequence of the last end of a call that the agent had been told of when it made this one;
    0 for none. Another run tells it neither more nor less by then."""
    first: int | None = None
    """Of a call that is tried again, the sequence of its first start; else None."""
    try_number: int = 1
    """Which try it is, from 1."""
    settled_by: str | None = None
    """Who decided to try it again; None for a first try."""
    messages_digest: bytes | None = field(default=None, repr=False)
    """BLAKE2b-128 over the hashes of an ask's messages, which are kept with its end; None where it
    has none."""

    def __attrs_post_init__(self) -> None:
        if self.input is not None and self.kind in WITH_ARGUMENTS:
            object.__setattr__(self, "input", as_value(self.input))

    @property
    def call(self) -> int:
        """What identifies the call: the sequence of its first start."""
        return self.first or self.sequence

    @property
    def key(self) -> str:
        """The call's key, the same on every try: the id of the session and the sequence of its
        first start. Where a fork tries again what its parent began, that is the parent's id, which
        this event does not have: the start in ``Session.in_flight`` and ``current_call()`` do."""
        return call_key(self.session_id, self.call)


def call_key(session_id: UUID | None, first: int) -> str:
    """Return a call's key; ``first``: the sequence of its first start."""
    return f"{session_id}:{first}"


@frozen
class ChunksCame:
    """Chunks of a reply were passed on before the call ended."""

    started: int
    """The sequence of the call's first start."""
    seen: int
    """As a start's, when they were passed on."""
    first: int
    """The number of the first of these chunks, from 0."""
    chunks: tuple[str | bytes, ...] = field(repr=counted("chunk"))
    """The chunks, in order."""


@frozen
class AnswerDropped:
    """A call was cancelled after its action was recorded, before its caller got the answer."""

    action_sequence: int
    """The action's place in the log."""


@frozen
class SessionChanged:
    """A session was renamed or annotated; it may have ended before."""

    changes: Mapping[str, Any] = field(repr=brief)
    """``name``: the new one. ``metadata``: what is added to it, or replaced in it, by key."""


@frozen
class SessionResumed:
    """A session's block was entered again, to answer from the recording what had ended."""

    through: int
    """The sequence of the last event that is answered from the recording."""
    reopened: tuple[tuple[int, int], ...] = field(default=(), repr=counted("call"))
    """The calls that are in flight again, since the agent did not decide that they were cancelled,
    or did not go on after it: of each the sequence of its first start, and the time of that."""


@frozen
class SessionSuspended:
    """A session's block was left by a shutdown. The session stays open, calls that the shutdown
    cancelled are in flight, and calls that began after it are not repeated."""

    since: int
    """The sequence of the last event before the shutdown."""
