"""What a call is while it is made: its input, what answers it, and what its action will have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any
from uuid import UUID

from attrs import Factory, define, frozen

from ..core.commands import LargeContent, Prepared
from ..core.held_messages import Messages
from ..events.calls import CallFacts, ErrorDetail
from ..events.content import EMPTY, content_digest
from ..events.details import ActionKind
from ..events.values import decode_value
from .answers import AskedCall, CallAnswer
from .replies import Reading


@frozen
class Call:
    """The call that runs: what a tool may hand to a service that does nothing twice."""

    key: str
    """The same on every try of this call, and of no other one."""
    session_id: UUID
    """The session that records it."""
    started: int | None
    """The sequence of its first start; None where starts are not recorded."""
    name: str | None
    """The tool; None for a model."""


@define(eq=False)
class Step:
    """A part of the agent's work."""

    name: str
    """What it is called."""
    output: Any = None
    """What came of it: set it, and it is recorded when the block is left."""


@define(eq=False)
class MadeCall:
    """A call that the agent makes, its input prepared. ``detail``: see :class:`RecordAction`.

    ``effect``: whether it is recorded before it begins. ``messages_digest``: as a start's.
    """

    kind: ActionKind
    detail: tuple[Any, ...]
    input: Any
    prepared: Prepared | None
    facts: Mapping[str, Hashable] = EMPTY
    task: str | None = None
    messages: Messages | Sequence[Any] = ()
    messages_digest: bytes | None = None
    effect: bool = True
    metadata: Mapping[str, Any] | None = None
    frames: Sequence[int] = ()
    reading: Reading | None = None

    @property
    def given(self) -> Any:
        """The input as it was when the call was made: arguments may be the tool's by now."""
        if self.input is None and isinstance(self.prepared, bytes):
            return decode_value(self.prepared)
        if self.input is None and isinstance(self.prepared, LargeContent):
            data = self.prepared.data
            return decode_value(data) if isinstance(data, bytes) else data
        return self.input

    @property
    def name(self) -> str | None:
        """The name of a tool, a step or what is read once."""
        return self.detail[0] if self.kind in _NAMED else None

    @property
    def size(self) -> int:
        """About how many bytes its input has."""
        given = self.prepared
        if given is None:
            return 0
        return given.size if isinstance(given, LargeContent) else len(given)

    @property
    def content(self) -> tuple[ActionKind, str | None, bytes | None]:
        """What is always compared."""
        given = self.prepared
        digest = None
        if isinstance(given, LargeContent):
            digest = given.digest
        elif given is not None:
            digest = content_digest(given.encode() if isinstance(given, str) else given)
        return self.kind, self.name, digest


_NAMED = (ActionKind.TOOL_CALL, ActionKind.STEP, ActionKind.ONCE)


def cancellations() -> int:
    """Return how often the task that runs is being cancelled."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@define(eq=False)
class OpenCall:
    """A call that runs: its start is recorded, and its end is not.

    ``cancellations``: how often its task was being cancelled when it began to wait for the callee.
    """

    made: MadeCall
    asked: AskedCall
    answer: CallAnswer
    parent: int | None
    task: str | None
    first: int | None = None
    seen: int = 0
    began: float = Factory(time.perf_counter)
    cancellations: int = Factory(cancellations)

    def is_cancelled_by(self, error: BaseException) -> bool:
        """Whether an error says that the call is cancelled from outside, or left by its reader; a
        call may also fail by a cancellation of something else."""
        if isinstance(error, asyncio.CancelledError):
            return cancellations() > self.cancellations
        return isinstance(error, GeneratorExit)

    def facts(self, error: ErrorDetail | None = None, settled_by: str | None = None) -> CallFacts:
        """Return what its action has of it."""
        if self.first is not None:
            # Made as a tuple is: in a third of the time.
            facts = (self.first, None, self.parent, None, None, error, None, None)
            call: CallFacts = tuple.__new__(CallFacts, facts)
            return call
        return CallFacts(
            None, None, self.parent, self.asked.lane.path, self.seen, error, settled_by
        )
