"""The way to the writer, for a store and its recorders."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Awaitable, Mapping
from typing import Any
from uuid import UUID

from ..config import Limits
from ..core.commands import (
    ChangeSession,
    Command,
    CreateCheckpoint,
    LargeContent,
    OnlyOnce,
    Repeated,
    SessionChoice,
)
from ..core.held_messages import Messages
from ..engine.event_log import LogCall
from ..engine.home import Home
from ..engine.kept_future import KeptFuture
from ..engine.worker import Worker
from ..engine.writer import Writer
from ..errors import SessionEndedError, StoreReadOnlyError
from ..events.calls import CallFacts
from ..events.event import ActionRecorded, Event
from ..events.values import LARGE
from .action_draft import NO_MESSAGES, ActionDraft, prepare_action, prepared_size
from .in_force import ENCLOSING, SessionBlocks
from .once_hashes import action_hash
from .prepare_values import (
    prepare_error,
    prepare_metadata,
    prepare_name,
    prepare_text,
    rough_size,
)
from .scrubbing import ScrubbingLimits, scrubbed_command
from .session_lock import SessionLocks

_SMALL_COMMAND_BYTES = 256


class CommandIntake:
    """Prepares commands and queues them: small ones on the loop, large ones in a thread.

    All wait while the writer's queue is full.

    ``writer`` is None in a store that was opened read-only. ``preparing`` is the thread for what is
    large. ``blocks``: those of the store's sessions. ``home``: the loop that opened the store.
    ``locks``: those of the sessions whose agents run in this store.
    """

    def __init__(
        self,
        writer: Writer | None,
        preparing: Worker,
        limits: Limits,
        home: Home,
        locks: SessionLocks,
    ) -> None:
        self.limits = limits
        self.preparing = preparing
        self.blocks = SessionBlocks()
        self.locks = locks
        self._writer = writer
        self.home = home

    def _need_writer(self) -> Writer:
        if self._writer is None:
            raise StoreReadOnlyError("the store was opened read-only")
        return self._writer

    # Commands that are prepared.

    async def submit(self, command: Command | None, size: int = _SMALL_COMMAND_BYTES) -> Any:
        """Queue a command of about ``size`` bytes once there is room, and return its answer.

        None stands for a barrier, as in :meth:`Writer.submit`.

        :raises StoreReadOnlyError, StoreClosedError, StoreFailedError, StoreLockedError: it was
            not acked.
        :raises MemvidAsyncError: what the decider refuses it with.
        """
        writer = self._need_writer()
        self.running_task()
        if writer.is_full:
            await writer.wait_for_room()
        return await writer.submit(scrubbed_command(self.limits, command), size)

    async def submit_kept(
        self, command: Command | None, size: int, answer: KeptFuture[Any]
    ) -> None:
        """Queue a command of a call once there is room; ``answer``, which nothing cancels, gets
        its answer. The task was checked when the call was made."""
        writer = self._need_writer()
        if writer.is_full:
            await writer.wait_for_room()
        if command is not None:
            command = scrubbed_command(self.limits, command)
        writer.submit(command, size, answer)

    def expect(self, count: int) -> None:
        """Do what :meth:`Writer.expect` does."""
        self._need_writer().expect(count)

    @property
    def is_dirty(self) -> bool:
        """Whether events are acked that are not on the disk yet (BUFFERED only)."""
        return self._need_writer().dirty

    def check_takes(self, session: int) -> None:
        """Return if a session takes more actions, as far as is known here.

        :raises SessionEndedError: when it does not.
        """
        sessions = self._need_writer().view.state.sessions
        found = sessions.open.get(session)
        if found is None or found.is_full:
            raise SessionEndedError(sessions.session_id(session))

    def submit_at_once(
        self, command: Command, done: asyncio.Future[Any] | None = None
    ) -> asyncio.Future[Any]:
        """Queue a small command whether there is room or not; return its answer's future, which is
        ``done`` where one is passed.

        :raises StoreReadOnlyError, StoreClosedError, StoreFailedError: it cannot be queued.
        """
        cleaned = scrubbed_command(self.limits, command)
        return self._need_writer().submit(cleaned, _SMALL_COMMAND_BYTES, done)

    async def run_alone(self, call: LogCall) -> Any:
        """Make a call of the log while the writer does nothing else, and return its answer."""
        self.running_task()
        return await self._need_writer().submit_call(call)

    # Actions.

    def record(
        self, session: SessionChoice, draft: ActionDraft, done: asyncio.Future[Any] | None = None
    ) -> Awaitable[Any]:
        """Record an action. The answer is the :class:`Action`; None where no session is in force.

        ``done``: gets the answer, too. It is what is returned where the action is queued at once.

        :raises InvalidValueError, LimitExceededError: it cannot be recorded.
        """
        # Unpacked at once: looking up each field takes three times as long.
        # fmt: off
        (
            _, _, given, output, _, _, named, _, metadata, messages, _, _, _, call, key, _, prepared
        ) = draft
        # fmt: on
        if named is None:
            task = self.task_name()
        else:
            task = prepare_name(named, "task", self.limits)
            self.running_task()
        if call is None and ENCLOSING.get():
            parent = self.blocks.parent(session)
            draft = draft if parent is None else draft._replace(call=CallFacts(parent=parent))
        size = _SMALL_COMMAND_BYTES
        size += len(output) if type(output) is str else rough_size(output)
        if prepared is None:
            size += len(given) if type(given) is str else rough_size(given)
        else:
            size += prepared.size if isinstance(prepared, LargeContent) else len(prepared)
        if metadata is not None or messages is not NO_MESSAGES:
            size += rough_size(messages.items if isinstance(messages, Messages) else messages)
            size += rough_size(metadata)
        writer = self._writer or self._need_writer()
        if key is not None:
            return self._record_once(writer, session, draft, task, size)
        if size >= LARGE or writer.queued_bytes >= writer.most_queued:
            return self._record_slowly(writer, session, draft, task, size, done)
        return writer.submit(prepare_action(session, draft, task, self.limits), size, done)

    async def _record_slowly(
        self,
        writer: Writer,
        session: SessionChoice,
        draft: ActionDraft,
        task: str | None,
        size: int,
        done: asyncio.Future[Any] | None,
    ) -> Any:
        """Record an action that is large, or has to wait for room in the queue."""
        writer.check()
        if size >= LARGE:
            command = await self.preparing.run(prepare_action, session, draft, task, self.limits)
            size = prepared_size(command)
        else:
            command = prepare_action(session, draft, task, self.limits)
        await writer.wait_for_room()
        return await writer.submit(command, size, done)

    async def _record_once(
        self,
        writer: Writer,
        session: SessionChoice,
        draft: ActionDraft,
        task: str | None,
        size: int,
    ) -> Any:
        """Record an action unless its key was used; then return the action that was recorded."""
        key = prepare_text(draft.key, "key", "key_chars", self.limits.key_chars)

        def prepare() -> OnlyOnce:
            command = prepare_action(session, draft, task, self.limits)
            return OnlyOnce(command, key, action_hash(command))

        command = await self.preparing.run(prepare) if size >= LARGE else prepare()
        await writer.wait_for_room()
        answer = await writer.submit(command, size)
        if not isinstance(answer, Repeated):
            return answer
        payload = (await self.event_at(answer.sequence)).payload
        assert isinstance(payload, ActionRecorded)
        return payload.action

    async def event_at(self, sequence: int) -> Event:
        """Return an event that this store has appended or taken in."""
        writer = self._need_writer()
        if writer.dirty:
            await self.submit(None, 0)
        events = await self.preparing.run(writer.written_view.events_after, sequence - 1, 1)
        return events[0]

    async def checkpoint(self, session: SessionChoice) -> int:
        """Mark a checkpoint in a session, and return its id."""
        action = await self.submit(CreateCheckpoint(session, self.task_name()))
        checkpoint_id: int = action.details.checkpoint_id
        return checkpoint_id

    async def annotate(self, session_id: UUID, metadata: Mapping[str, Any]) -> None:
        """Add to a session's metadata; raises as :meth:`Sessions.annotate_session` does."""
        added = await self.preparing.run(prepare_metadata, metadata, self.limits)
        most = self.limits.value_bytes
        await self.submit(ChangeSession(session_id, {"metadata": added}, most), most)

    # The agent's task.

    def check_task(self, task: str) -> str:
        """Return a task's name as the caller passed it.

        :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
        """
        return prepare_name(task, "task", self.limits)

    def task_name(self, task: asyncio.Task[Any] | None = None) -> str:
        """Return the name of the asyncio task that runs.

        :raises WrongLoopError: as :meth:`Home.check_task` does.
        """
        limits = self.limits
        name = (task or current_task(self.home.loop) or self.running_task()).get_name()
        if type(limits) is ScrubbingLimits:
            name = limits.value("task", name)
        if len(name) <= limits.name_chars and name.isascii():
            return name
        # Nobody passed this name to be recorded, so one that UTF-8 cannot hold is mended.
        return name[: limits.name_chars].encode(errors="replace").decode()

    def running_task(self) -> asyncio.Task[Any]:
        """Return the asyncio task that runs.

        :raises WrongLoopError: as :meth:`Home.check_task` does.
        """
        # Passing the loop saves half the cost, which is looking for it.
        task = asyncio.current_task(self.home.loop)
        if task is None:
            self.home.check()
            self.home.check_task()
        assert task is not None
        return task

    def describe(self, error: BaseException | None) -> str | None:
        """Return an exception in words, as it is recorded; None for None."""
        return prepare_error(error, self.limits)[0]
