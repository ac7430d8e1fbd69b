"""Where what is done with the memory is recorded: in the session in force, or in a handle's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Protocol

from ..core.commands import ChangeMemory, OnlyOnce, Repeated, SessionChoice
from ..events.event import Action
from .action_draft import ActionDraft
from .command_intake import CommandIntake
from .made_calls import OpenCall
from .session_calls import SessionCalls

# What the decider answers: the ids of the frames, and the recorded action; None where what is to be
# replaced must be looked for again.
Changed = tuple[list[int], Action | None] | Repeated | None


class RecordedIn(Protocol):
    """What the memory asks, to have a change made or a search recorded."""

    @property
    def session(self) -> SessionChoice:
        """The session that a command is for."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the caller's context has lost the sessions that are open."""
        ...

    def change(self, command: ChangeMemory | OnlyOnce, size: int) -> Awaitable[Changed]:
        """Make a change of about ``size`` bytes, and return the decider's answer."""
        ...

    def asking(self) -> AbstractAsyncContextManager[None]:
        """The time in which a model answers. Entering it records that it is asked."""
        ...

    def record(self, draft: ActionDraft, error: BaseException | None) -> Awaitable[Action | None]:
        """Record a search or an ask that ended so."""
        ...

    async def note_repeated(self, frame_ids: list[int]) -> None:
        """Note that a put added nothing, because its key had been used for these frames."""
        ...


class InForce:
    """Recorded in the session in force, if there is one."""

    def __init__(self, intake: CommandIntake) -> None:
        self._intake = intake

    @property
    def session(self) -> SessionChoice:
        """See :class:`RecordedIn`.

        :raises InvalidValueError: as :meth:`SessionBlocks.check_not_replaying` does.
        """
        blocks = self._intake.blocks
        blocks.check_not_replaying("use the session's own put, find, ask, …")
        return blocks.entered

    @property
    def is_lost(self) -> bool:
        """See :class:`RecordedIn`."""
        return self._intake.blocks.are_lost

    def change(self, command: ChangeMemory | OnlyOnce, size: int) -> Awaitable[Changed]:
        """See :class:`RecordedIn`."""
        return self._intake.submit(command, size)

    def asking(self) -> AbstractAsyncContextManager[None]:
        """See :class:`RecordedIn`. An ask outside of calls is recorded when it ends."""
        return nullcontext()

    def record(self, draft: ActionDraft, error: BaseException | None) -> Awaitable[Action | None]:
        """See :class:`RecordedIn`."""
        draft = draft._replace(error=self._intake.describe(error))
        return self._intake.record(self.session, draft)

    async def note_repeated(self, frame_ids: list[int]) -> None:
        """See :class:`RecordedIn`. Nothing was done, so nothing is recorded."""


class MemoryCall:
    """Recorded as a call of a session's handle: with who made it, so that it can be served.

    ``is_recorded``: whether its end was.
    """

    def __init__(self, calls: SessionCalls, opened: OpenCall) -> None:
        self._calls = calls
        self._opened = opened
        self.is_recorded = False

    @property
    def session(self) -> SessionChoice:
        """See :class:`RecordedIn`."""
        return self._calls.session

    @property
    def is_lost(self) -> bool:
        """See :class:`RecordedIn`. A handle knows its session."""
        return False

    async def change(self, command: ChangeMemory | OnlyOnce, size: int) -> Changed:
        """See :class:`RecordedIn`."""
        facts = self._opened.facts()
        if isinstance(command, OnlyOnce):
            inner = command.command
            assert isinstance(inner, ChangeMemory)
            command = command._replace(command=inner._replace(call=facts))
        else:
            command = command._replace(call=facts)
        try:
            changed: Changed = await self._calls.recorder.change(command, size, _action_of)
        except asyncio.CancelledError:
            self.is_recorded = True
            raise
        self.is_recorded = isinstance(changed, tuple) and not isinstance(changed, Repeated)
        return changed

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[None]:
        """See :class:`RecordedIn`."""
        calls, opened = self._calls, self._opened
        # Where a call is cancelled while its start is recorded, its end is recorded with it.
        self.is_recorded = True
        await calls.begin(opened)
        self.is_recorded = False
        with calls.running(opened):
            yield

    async def note_repeated(self, frame_ids: list[int]) -> None:
        """See :class:`RecordedIn`. It is an action, as the call is answered from it."""
        calls, opened = self._calls, self._opened
        self.is_recorded = True
        await calls.end_with(opened, None, calls.draft(opened, None)._replace(frames=frame_ids))

    async def record(self, draft: ActionDraft, error: BaseException | None) -> Action | None:
        """See :class:`RecordedIn`."""
        calls, opened = self._calls, self._opened
        self.is_recorded = True
        draft = draft._replace(task=opened.task, error=error, call=calls.facts(opened, error))
        return await calls.end_with(opened, error, draft)


def _action_of(changed: Changed) -> Action | None:
    return changed[1] if isinstance(changed, tuple) and not isinstance(changed, Repeated) else None
