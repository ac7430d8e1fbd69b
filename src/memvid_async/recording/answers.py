"""Who answers a call: the tool or the model itself, or a recording.

There is one implementation of the calls, for a session that records and for one that answers. Where
a session has :class:`Answers`, it asks them before it records that a call begins, and does what the
:class:`CallAnswer` says. `replay/` has such answers. Without them, every call runs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol
from uuid import UUID

from attrs import define, frozen

from ..events.calls import LanePath
from ..events.content import EMPTY, Content
from ..events.details import ActionKind
from ..events.event import Action
from .lanes import Lane


@define(eq=False)
class AskedCall:
    """A call of the agent, before anything is recorded of it.

    ``lane``: the task that makes it. ``scope``: the first start of the call that it is part of; 0
    for none, and a step is not one. ``content``: what is always compared: the kind, the name of the
    tool, the digest of the input. ``facts``: what is compared where a recording has it too: the
    fields of the details, and the messages, of which there is the digest, too. ``asked``: the
    input, for errors. ``is_new``: whether it was cancelled while it waited for its turn to begin,
    and the recording has none in its place.
    """

    lane: Lane
    scope: int
    content: tuple[ActionKind, str | None, bytes | None]
    facts: Mapping[str, Hashable] = EMPTY
    asked: Any = None
    messages_digest: bytes | None = None
    is_new: bool = False


@frozen
class CallAnswer:
    """What happens with a call.

    ``action``: it is answered with this recorded action, and nothing runs. Else it runs: it begins,
    or, with ``first``, the call that began there and of which nobody said how it ended is tried
    again, as ``settled_by`` decided. With ``chunks`` it is a stream of which that much had come: it
    fails after them, as a dropped connection does, which is recorded as its end. ``parent``: as the
    recorded call has it. ``session_id``: of the session that recorded ``first``, of which this one
    may be a fork.
    """

    action: Action | None = None
    first: int | None = None
    try_number: int = 1
    settled_by: str | None = None
    chunks: tuple[str | bytes, ...] = ()
    parent: int | None = None
    session_id: UUID | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether there is a recorded call in this place."""
        return self.action is not None or self.first is not None


class Answers(Protocol):
    """What a recording answers."""

    @property
    def is_live(self) -> bool:
        """Whether a call that is made now runs, as everything recorded was handed over."""
        ...

    async def ask(self, call: AskedCall) -> CallAnswer:
        """Return what happens with a call, when it is its turn.

        A recorded stream is answered once its first chunks are due; :meth:`chunks` waits for them.

        :raises ReplayDivergenceError, ReplayStopped: when the agent does what it did not do then.
        :raises asyncio.CancelledError: when the agent cancels the call. There is nothing to record
            but what ``call.is_new`` says.
        """
        ...

    async def chunks(self, call: AskedCall, passed: int) -> int | None:
        """Return how many chunks of a recorded stream may be passed on, more than ``passed``; None
        when the whole of it may. To be called only for calls that were answered.

        It raises what :meth:`ask` does.
        """
        ...

    def held(self) -> AbstractContextManager[None]:
        """The time in which a thread reads what answers a call: the agent does not know it yet, so
        nobody is told anything else meanwhile."""
        ...

    async def value(self, content: Content) -> str | bytes:
        """Return a recorded output; until it is read, it is as in :meth:`held`.

        :raises ContentNotFoundError, CorruptFileError: when it cannot be read.
        """
        ...

    async def rest(self, waited_ms: int) -> None:
        """Wait as long as a model was waited for before a chunk came, at the pace that is asked
        for; by default not at all."""
        ...

    async def withdraw(self, call: AskedCall) -> None:
        """The agent stopped to read a stream that is answered."""
        ...

    async def leave(self, first: int) -> None:
        """A call that was tried again has returned or failed, which is not recorded yet.

        :raises ReplayDivergenceError: when calls inside of it are recorded that were not made.
        """
        ...

    def abandon(self, first: int) -> None:
        """The agent has cancelled a call that was tried again."""
        ...

    # Steps. They are told by the sequence of their start.

    def claim_step(self, start: int | None, name: str | None) -> bool:
        """Go on with the recorded step that began there; whether there is one of this name with
        which no other goes on."""
        ...

    def parent_of(self, start: int | None) -> int | None:
        """Return what a recorded step is part of; None for none."""
        ...

    def claim_step_without_calls(
        self, parent: int | None, lane: LanePath, name: str | None, *, knows_parent: bool = True
    ) -> int | None:
        """Go on with the next step of this name there that was open when its process ended, or of
        which no call is a part, and return its start; None where there is none. ``knows_parent``:
        whether ``parent`` says what it is part of."""
        ...

    def is_open_step(self, start: int) -> bool:
        """Whether the end of a step is to be recorded."""
        ...
