"""The handle of one open session, which is also its ``async with`` block."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from attrs import evolve

from ..core.commands import EndSession, ResumeSession, StartAction, StartSession
from ..errors import (
    InvalidValueError,
    MemvidAsyncError,
    NoActiveSessionError,
    SessionEndedError,
    StoreClosedError,
)
from ..events.details import ActionKind
from ..events.event import Action
from .action_recorder import ActionRecorder
from .call_methods import CallMethods
from .call_recorder import CallRecorder
from .command_intake import CommandIntake
from .in_force import Block
from .lanes import Lanes
from .prepare_values import prepare_count, prepare_metadata, prepare_name
from .scrubbing import limits_for
from .session_calls import SessionCalls

# How a block is left when its process is asked to end.
_SHUTDOWN = (asyncio.CancelledError, KeyboardInterrupt)


class SessionRecorder(CallMethods, ActionRecorder[Action]):
    """The handle of one open session: ``async with store.session(…) as recorder``.

    Inside the block, ``store.record_…()`` records into this session, too: in the same task and in
    tasks that it starts. Leaving the block ends the session, cancelled or not; leaving it by an
    exception keeps the error in ``Session.error``. The block may be left in another task than the
    one that entered it.
    """

    def __init__(
        self,
        intake: CommandIntake,
        command: StartSession | ResumeSession,
        large_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(intake)
        self._command = command
        # Metadata that the command lacks until a thread has prepared it.
        self._large_metadata = large_metadata
        self._block: Block | None = None
        self._calls: SessionCalls | None = None

    def __repr__(self) -> str:
        if self._block is None:
            state = "to be entered by async with"
        else:
            state = "left" if self._block.is_left else "entered"
        return f"<SessionRecorder of {self.session_id}: {state}>"

    @property
    def session_id(self) -> UUID:
        """The session's id."""
        return self._command.session_id

    async def create_checkpoint(self) -> int:
        """Mark a checkpoint in this session; its id, counted from 0 within the session.

        :raises SessionEndedError: when the session takes no further actions.
        """
        return await self._intake.checkpoint(self._choice())

    async def record_start(
        self,
        kind: ActionKind,
        name: str | None = None,
        *,
        provider: str | None = None,
        model: str | None = None,
        task: str | None = None,
        parent: int | None = None,
    ) -> int:
        """Record that something begins which somebody else runs; return the start's sequence.

        Pass that as ``started`` to the ``record_…`` call that says how it ended, and as ``parent``
        to those of what was part of it. ``kind``: a step or a tool call with its name, a find whose
        ``name`` is its mode, or an ask with ``provider`` and ``model``. ``parent``: as there. Until
        it ends it is one of ``Session.in_flight``.

        :raises InvalidValueError: when it is of another kind, or cannot be recorded.
        :raises SessionEndedError: when the session takes no further actions.
        """
        intake = self._intake
        limits = limits_for(kind, intake.limits)
        detail: tuple[Any, ...]
        if kind is ActionKind.ASK:
            detail = (
                None if provider is None else prepare_name(provider, "provider", limits),
                None if model is None else prepare_name(model, "model", limits),
            )
        elif kind is ActionKind.FIND:
            detail = (prepare_name(name, "name", limits), 0)
        elif kind is ActionKind.STEP or kind is ActionKind.TOOL_CALL:
            detail = (prepare_name(name, "name", limits),)
        else:
            raise InvalidValueError(
                f"a step, a tool call, a find or an ask begins before it ends, not {kind!r:.80}"
            )
        above = None if parent is None else prepare_count(parent, "parent")
        named = intake.task_name() if task is None else intake.check_task(task)
        command = StartAction(self._choice(), kind, detail, None, named, above, ())
        first: int = await intake.submit(command)
        return first

    async def annotate(self, metadata: Mapping[str, Any]) -> None:
        """Add to the session's metadata; what it has of the same key is replaced.

        :raises InvalidValueError: when it cannot be recorded.
        :raises LimitExceededError: when it is too long, alone or with what there is.
        :raises SessionNotFoundError: when the session was deleted.
        """
        await self._intake.annotate(self.session_id, metadata)

    def _choice(self) -> int:
        return self._entered_block().session

    def _answer(self, action: Action) -> Action:
        return action

    def _entered_block(self) -> Block:
        if self._block is None:
            raise NoActiveSessionError("the session is not open; use it in an async with block")
        return self._block

    # The block.

    async def __aenter__(self) -> Self:
        if self._block is not None:
            raise InvalidValueError("a session recorder is entered once; make another")
        if isinstance(self._command, StartSession):
            number = await self._start(self._command)
        else:
            number = await self._intake.submit(self._command)
        self._calls = await self._make_calls(number)
        self._block = self._intake.blocks.enter(number)
        self._enter_calls()
        return self

    @property
    def _takes_calls(self) -> bool:
        return self._block is not None and not self._block.is_left

    async def _make_calls(self, number: int) -> SessionCalls:
        """Return what makes the calls of the block; the task that enters it asks for it.

        :raises SessionActiveError: when the session's agent runs elsewhere.
        """
        command = self._command
        recorder = CallRecorder(self._intake, number, self.session_id)
        if isinstance(command, ResumeSession):
            # Where nothing was made as a call, any number may go on recording.
            recorder.check_elsewhere()
        starts = not isinstance(command, StartSession) or command.config.record_starts
        return SessionCalls(
            self._intake, number, self.session_id, starts=starts, lanes=Lanes(), recorder=recorder
        )

    @property
    def _made(self) -> SessionCalls:
        if self._entered_block().is_left or self._calls is None:
            raise SessionEndedError(self.session_id)
        return self._calls

    async def _start(self, command: StartSession) -> int:
        """Start the session and return its number. Cancelled, it ends what it may have started."""
        intake = self._intake
        if self._large_metadata is None:
            starting = intake.submit(command)
        else:
            metadata = await intake.preparing.run(
                prepare_metadata, self._large_metadata, intake.limits
            )
            command = evolve(command, metadata=metadata)
            starting = intake.submit(command, intake.limits.value_bytes)
        try:
            number: int = await starting
        except asyncio.CancelledError:
            self._end_soon(EndSession(command.session_id, "CancelledError"))
            raise
        return number

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        block = self._entered_block()
        block.leave()
        calls = self._calls
        try:
            if calls is not None and calls.recorder.is_elsewhere:
                return
            if isinstance(exc, _SHUTDOWN) and await self._suspend():
                return
            await self._end(EndSession(block.session, self._intake.describe(exc)))
        except SessionEndedError:
            # The session was full, or was ended or deleted, before the block was left.
            pass
        except MemvidAsyncError:
            # An error of the store must not hide the block's own error.
            if exc is None:
                raise
        finally:
            if calls is not None:
                calls.recorder.unlock()

    async def _suspend(self) -> bool:
        """Leave the session open, because the process is asked to end. A session that made no calls
        has nothing to go on with; return whether this one has."""
        calls = self._calls
        if calls is None or not calls.recorder.has_begun or not self._intake.home.is_here:
            return False
        with suppress(MemvidAsyncError):
            await calls.recorder.suspend()
        return True

    async def _end(self, command: EndSession) -> None:
        """End the session. Called off the store's event loop (on another one, or where a pending
        coroutine is collected), it returns before that is done: the loop may be waiting for it.

        :raises SessionEndedError: when the session has ended already.
        :raises StoreClosedError, StoreFailedError, StoreLockedError: when it cannot be ended.
        """
        if not self._intake.home.is_here:
            try:
                self._intake.home.loop.call_soon_threadsafe(self._end_soon, command)
            except RuntimeError:
                raise StoreClosedError("the store's event loop ended before the block") from None
            return
        ended = self._end_soon(command)
        if ended is None:
            raise StoreClosedError("the store was closed before the session's block was left")
        await ended

    def _end_soon(self, command: EndSession) -> asyncio.Future[Any] | None:
        """Queue the end of the session, even if the queue is full; None when it is too late."""
        try:
            future = self._intake.submit_at_once(command)
        except MemvidAsyncError:
            return None
        # Nobody may be left to look at the answer.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future


def calls_of(session: SessionRecorder) -> SessionCalls:
    """Return what makes the calls of a session's block."""
    return session._made  # noqa: SLF001 - no part of what users of a session see
