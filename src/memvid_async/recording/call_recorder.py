"""Recording calls: that they begin, before they do; what came of a stream; how they end.

The agent is told of ends in the order of the log, and handed the chunks of streams, one at a time:
each once it has reacted to the one before, so that what it does then can be told apart in the
recording. Each start says of which ends it had been told.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from ..core.commands import Command, NoteEvent, StartAction
from ..engine.kept_future import KeptFuture
from ..errors import SessionActiveError, StoreClosedError
from ..events.calls import AnswerDropped, ChunksCame, SessionSuspended
from ..events.decided import sequence_of
from ..events.event import Action
from .action_draft import ActionDraft
from .command_intake import CommandIntake
from .settling import Settling

ActionOf = Callable[[Any], Action | None]
SequenceOf = Callable[[Any], int | None]

# In Python 3.11 a task's count of cancellations may stay above 0 after task groups in each other.
_FIRST_RISE = 0 if sys.version_info >= (3, 12) else -1


class CallRecorder:
    """Records the calls of one session's block.

    ``session_id``: None where nothing is recorded. ``seen``: the sequence of the last end that the
    agent was told of. ``has_begun``: whether the session has calls. ``is_elsewhere``: whether its
    agent turned out to run elsewhere.
    """

    def __init__(
        self,
        intake: CommandIntake,
        session: int,
        session_id: UUID | None = None,
    ) -> None:
        self._intake = intake
        self._session = session
        self._session_id = session_id
        self._is_locked = False
        self.is_elsewhere = False
        self.loop = intake.home.loop
        self._came: list[ChunksCame] = []
        # The sequences of ends that the agent is to be told of, the answers, and who waits for
        # them, in the order of the log. Chunks that it is to be handed have neither.
        self._telling: deque[tuple[int, Any, Told | asyncio.Future[None]]] = deque()
        # How many ends it has not reacted to yet, and whether it was told of one last.
        self._ends = 0
        self._is_end_told = False
        self._settling = Settling(self.loop)
        self._task = asyncio.current_task()
        # How often the block's task was being cancelled, and the last event before that.
        self._rises: list[tuple[int, int]] = []
        self._last = 0
        self.seen = 0
        self.has_begun = False

    # Who runs the agent.

    def lock(self) -> bool:
        """Keep others from running the session's agent; return whether nobody does.

        :raises OSError: when there is no file for locks.
        """
        assert self._session_id is not None
        self._is_locked = self._intake.locks.take(self._session_id)
        return self._is_locked

    def check_elsewhere(self) -> None:
        """Return if nobody runs the session's agent, as far as is known here.

        :raises SessionActiveError: when somebody does.
        """
        assert self._session_id is not None
        with suppress(OSError):  # as in _note_call
            if not self._intake.locks.is_free(self._session_id):
                raise SessionActiveError(runs_already(self._session_id))

    def unlock(self) -> None:
        """The agent has ended."""
        if self._is_locked:
            assert self._session_id is not None
            self._is_locked = False
            self._intake.locks.release(self._session_id)

    def _note_call(self) -> None:
        """Lock before the first call, so that sessions which make none cost nothing.

        :raises SessionActiveError: when another one has made a call in the session, or resumed it.
        """
        if self.has_begun:
            return
        with suppress(OSError):  # nobody resumes either, where there is no file for locks
            self.is_elsewhere = not self.lock()
        if self.is_elsewhere:
            raise SessionActiveError(
                f"session {self._session_id} was resumed elsewhere, and its agent makes calls there"
            )
        self.has_begun = True

    def go_on(self, after: int) -> None:
        """Note that the session has calls up to this event, and that the agent is told of all."""
        self.seen = self._last = after
        self.has_begun = True

    # What is recorded.

    async def begin(self, command: StartAction, size: int) -> int:
        """Record that a call begins, durably, and return its first start.

        Cancelled, it raises :class:`CancelledBeginning` with that start, once it is recorded.
        """
        self._note_call()
        self._come_to_event()
        intake = self._intake
        began: KeptFuture[int] = KeptFuture(loop=self.loop)
        await intake.submit_kept(command, size, began)
        try:
            first = await began
            if intake.is_dirty:
                written: KeptFuture[None] = KeptFuture(loop=self.loop)
                await intake.submit_kept(None, 0, written)
                await written
        except asyncio.CancelledError:
            if began.exception() is not None:
                raise
            raise CancelledBeginning(began.result()) from None
        self._last = max(self._last, first)
        return first

    async def end(self, draft: ActionDraft) -> Action:
        """Record how a call ended, and return it when the agent may be told.

        Cancelled meanwhile, it records that the agent did not get the answer.
        """
        told = self._record(draft)
        try:
            action: Action = await told
        except asyncio.CancelledError:
            await self._drop(told)
            raise
        return action

    async def change(self, command: Command, size: int, action_of: ActionOf) -> Any:
        """Make a call whose effect and end are one command, of about ``size`` bytes, and return its
        answer when the agent may be told. Cancelled meanwhile, it does what :meth:`end` does.

        ``action_of`` returns the action in an answer; None where it has none.
        """

        def sequence(answer: Any) -> int | None:
            action = action_of(answer)
            return None if action is None else sequence_of(action)

        self._note_call()
        self._come_to_event()
        told = Told(self, sequence)
        await self._intake.submit_kept(command, size, told)
        try:
            return await told
        except asyncio.CancelledError:
            await self._drop(told)
            raise

    async def _drop(self, told: Told) -> None:
        """Record that nobody got an answer, because its task was cancelled before."""
        number = told.sequence(told.result())
        if number is not None:
            # A task that is cancelled late ends as cancelled.
            with suppress(StoreClosedError):
                await self.dropped(number)

    async def cancelled(self, draft: ActionDraft) -> None:
        """Record that a call was cancelled, however often this is cancelled too."""
        await in_any_case(self._record(draft))

    async def end_step(self, draft: ActionDraft) -> None:
        """Record how a step ended. Its task goes on before that is durable: what it makes of what
        it was told must not take longer than where the step is not recorded again."""
        self._come_to_event()
        recording = self._intake.record(self._session, draft)
        if isinstance(recording, asyncio.Future):
            recording.add_done_callback(self._step_ended)
        else:
            # It is large, or has to wait for room in the queue.
            await recording

    def _step_ended(self, recording: asyncio.Future[Action]) -> None:
        # What failed is raised by what is recorded next, at the latest by the session's end.
        if not recording.cancelled() and recording.exception() is None:
            self._last = max(self._last, sequence_of(recording.result()))

    async def dropped(self, action_sequence: int) -> None:
        """Record that a call was cancelled after its action was recorded."""
        self._come_to_event()
        told = Told(self, int)
        note = NoteEvent(self._session, AnswerDropped(action_sequence))
        self._intake.submit_at_once(note, told)
        await in_any_case(told)

    def _record(self, draft: ActionDraft) -> Told:
        """Record how a call ended; return what gets its action when the agent may be told."""
        self._come_to_event()
        told = Told(self, sequence_of)
        recording = self._intake.record(self._session, draft, told)
        if recording is not told:
            # It is large, or has to wait for room in the queue.
            asyncio.ensure_future(recording).add_done_callback(told.fail_with)
        return told

    def recorded(self, told: Told, answer: Any, number: int) -> None:
        """The end with this sequence is in the log: tell the agent when it is its turn."""
        self._last = max(self._last, number)
        self._telling.append((number, answer, told))
        self._ends += 1
        if self._ends == 1:
            self._intake.expect(1)
        if not self._settling.is_under_way:
            self._settling.start(self._settled)

    async def hand(self, first: int, number: int, chunk: str | bytes) -> None:
        """Wait until a chunk may be passed on, and note it; that is appended before the next event
        of the session."""
        if self._settling.is_under_way:
            handed: asyncio.Future[None] = self.loop.create_future()
            self._telling.append((0, None, handed))
            await handed
        else:
            self._settling.start(self._settled)
        last = self._came[-1] if self._came else None
        if last is not None and (last.started, last.seen) == (first, self.seen):
            self._came[-1] = ChunksCame(first, self.seen, last.first, (*last.chunks, chunk))
        else:
            self._came.append(ChunksCame(first, self.seen, number, (chunk,)))

    def _come_to_event(self) -> None:
        """Do what comes before every event of the session."""
        self.look()
        if self._came:
            self._append_chunks()

    def _append_chunks(self) -> None:
        for note in self._came:
            ended = self._intake.submit_at_once(NoteEvent(self._session, note))
            ended.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._came.clear()

    # Telling.

    def _tell(self) -> None:
        sequence, answer, told = self._telling.popleft()
        if isinstance(told, Told):
            self.seen = sequence
            self._is_end_told = True
            told.tell(answer)
        elif not told.done():
            told.set_result(None)
        self._settling.start(self._settled)

    def _settled(self) -> None:
        """The agent has reacted: tell it of the next end, or hand it the next chunk."""
        if self._is_end_told:
            self._is_end_told = False
            self._ends -= 1
            if not self._ends:
                self._intake.expect(-1)
        if self._telling:
            self._tell()

    # Shutting down.

    def look(self) -> None:
        """Note from which event on the block's task is being cancelled: only a rise says so."""
        value = self._task.cancelling() if self._task is not None else 0
        if not value and not self._rises:
            return
        while self._rises and self._rises[-1][0] > value:
            self._rises.pop()
        if value > (self._rises[-1][0] if self._rises else 0):
            self._rises.append((value, self._last))

    @property
    def is_ending(self) -> bool:
        """Whether the block's task is being cancelled."""
        self.look()
        return bool(self._rises)

    async def suspend(self) -> None:
        """Record that the block is left by a shutdown."""
        self._come_to_event()
        since = self._rises[_FIRST_RISE][1] if self._rises else self._last
        note = NoteEvent(self._session, SessionSuspended(since))
        await in_any_case(asyncio.ensure_future(self._intake.submit(note)))


class Told(KeptFuture[Any]):
    """What a call waits for that has ended: it gets the answer to the recording of that, in its
    turn.

    The writer sets the answers in the order of the log, all of a batch at once. ``sequence``
    returns that of the event in an answer; None where it has none, and so no turn.
    """

    def __init__(self, recorder: CallRecorder, sequence: SequenceOf) -> None:
        super().__init__(loop=recorder.loop)
        self._recorder = recorder
        self.sequence = sequence

    def set_result(self, result: Any) -> None:
        """Wait for the turn."""
        number = self.sequence(result)
        if number is None:
            super().set_result(result)
        else:
            self._recorder.recorded(self, result, number)

    def tell(self, answer: Any) -> None:
        """It is its turn."""
        super().set_result(answer)

    def fail_with(self, recording: asyncio.Future[Any]) -> None:
        """Fail as a recording did, before it was queued or by its answer."""
        error = asyncio.CancelledError() if recording.cancelled() else recording.exception()
        if error is not None and not self.done():
            self.set_exception(error)


class CancelledBeginning(asyncio.CancelledError):
    """A call was cancelled while its start was recorded, which it is. ``first``: that start."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first


def runs_already(session_id: UUID) -> str:
    """Say that the agent of a session runs."""
    return (
        f"the agent of session {session_id} runs already, here or in another process; wait for "
        "that to end"
    )


async def in_any_case(future: asyncio.Future[Any]) -> Any:
    """Return a future's result, however often the waiting is cancelled."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(future)
    return future.result()
