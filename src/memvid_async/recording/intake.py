"""What comes in: arguments are prepared and commands queued."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from attrs import evolve

from ..config import Limits
from ..core.commands import (
    Command,
    CreateCheckpoint,
    EndSession,
    ResumeSession,
    SessionChoice,
    StartSession,
)
from ..engine.worker import Worker
from ..engine.writer import LogCall, Writer
from ..errors import MemvidAsyncError, SessionEndedError, StoreClosedError, StoreReadOnlyError
from ..events.values import LARGE
from .draft import ActionDraft
from .in_force import SessionBlocks
from .prepare import prepare_action, prepare_metadata, prepare_name, prepared_size, rough_size

_SMALL_COMMAND_BYTES = 256


class Intake:
    """The way in to the writer, for a store and its session recorders."""

    def __init__(self, writer: Writer | None, preparing: Worker, limits: Limits) -> None:
        self.limits = limits
        self._writer = writer
        self._preparing = preparing
        self.blocks = SessionBlocks()
        self._loop = asyncio.get_running_loop()

    # Commands.

    async def submit(self, command: Command | None, size: int = _SMALL_COMMAND_BYTES) -> Any:
        """Queue a command once there is room, and give its answer.

        :raises StoreReadOnlyError, StoreClosedError, StoreFailedError, StoreLockedError: see there.
        """
        writer = self._need_writer()
        if writer.is_full:
            await writer.wait_for_room()
        return await writer.submit(command, size)

    async def run_alone(self, call: LogCall) -> Any:
        """Make a call of the log with nothing else going on; its answer."""
        return await self._need_writer().submit_call(call)

    def _need_writer(self) -> Writer:
        if self._writer is None:
            raise StoreReadOnlyError("the store was opened read-only")
        return self._writer

    def record(self, session: SessionChoice, draft: ActionDraft) -> Awaitable[Any]:
        """Record an action; the answer is the :class:`Action`, None where no session was open."""
        task = self.task_name() if draft.task is None else self.check_task(draft.task)
        size = _SMALL_COMMAND_BYTES + rough_size(draft.input) + rough_size(draft.output)
        if draft.metadata is not None or draft.messages != ():
            size += rough_size(draft.metadata) + rough_size(draft.messages)
        writer = self._need_writer()
        if size >= LARGE or writer.is_full:
            return self._record_slowly(writer, session, draft, task, size)
        return writer.submit(prepare_action(session, draft, task, self.limits), size)

    async def _record_slowly(
        self,
        writer: Writer,
        session: SessionChoice,
        draft: ActionDraft,
        task: str | None,
        size: int,
    ) -> Any:
        writer.check()
        if size >= LARGE:
            command = await self._preparing.run(prepare_action, session, draft, task, self.limits)
            size = prepared_size(command)
        else:
            command = prepare_action(session, draft, task, self.limits)
        await writer.wait_for_room()
        return await writer.submit(command, size)

    def check_task(self, task: str) -> str:
        """The name of a task, as the caller gave it.

        :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
        """
        return prepare_name(task, "task", self.limits)

    def task_name(self) -> str | None:
        """The name of the asyncio task that runs; None outside one."""
        # Given the loop, it need not look for it; this is half the cost.
        task = asyncio.current_task(self._loop)
        name = task.get_name()[: self.limits.name_chars] if task is not None else None
        # Nobody gave it to be recorded: what UTF-8 cannot hold does not stop the recording.
        return name if name is None or name.isascii() else name.encode(errors="replace").decode()

    async def checkpoint(self, session: SessionChoice) -> int:
        """Mark a checkpoint in a session; its id."""
        action = await self.submit(CreateCheckpoint(session, self.task_name()))
        checkpoint_id: int = action.details.checkpoint_id
        return checkpoint_id

    async def open_session(
        self, command: StartSession | ResumeSession, large_metadata: Mapping[str, Any] | None
    ) -> int:
        """Start or resume a session; its number. Cancelled, a started one is ended again.

        ``large_metadata``: metadata that is not in the command yet, as it has to be prepared in a
        thread.
        """
        size = _SMALL_COMMAND_BYTES
        if large_metadata is not None and isinstance(command, StartSession):
            metadata = await self._preparing.run(prepare_metadata, large_metadata, self.limits)
            command, size = evolve(command, metadata=metadata), self.limits.value_bytes
        try:
            number: int = await self.submit(command, size)
        except asyncio.CancelledError:
            if isinstance(command, StartSession):
                self._end_soon(EndSession(command.session_id, "CancelledError"))
            raise
        return number

    def _end_soon(self, command: EndSession) -> asyncio.Future[Any] | None:
        """Queue the end of a session, whether there is room or not; None once it is too late."""
        try:
            future = self._need_writer().submit(command, _SMALL_COMMAND_BYTES)
        except MemvidAsyncError:
            return None
        # Nobody may be left to look at the answer.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return future

    async def leave_session(self, number: int, error: BaseException | None) -> None:
        """End a session as its block is left; a store that cannot any more hides no error of the
        block's own."""
        ended = self._end_soon(EndSession(number, self.describe(error)))
        try:
            if ended is None:
                raise StoreClosedError("the store was closed before the session's block was left")
            await ended
        except SessionEndedError:
            # max_actions, end or delete came first.
            pass
        except MemvidAsyncError:
            if error is None:
                raise

    def describe(self, error: BaseException | None) -> str | None:
        """An exception in words, as it is recorded; None for None."""
        if error is None:
            return None
        try:
            said = str(error)
        except Exception:  # noqa: BLE001 - somebody's exception need not be printable
            said = ""
        text = f"{type(error).__name__}: {said}" if said else type(error).__name__
        text = text.encode("utf-8", "replace").decode()
        return text[: self.limits.error_chars]
