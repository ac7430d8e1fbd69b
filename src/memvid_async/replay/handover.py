"""Handing recorded answers over to the tasks that ask for them, in the order of the recording."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum

from attrs import Factory, define

from ..errors import MemvidAsyncError, ReplayDivergenceError, ReplayStopped
from ..recording.answers import AskedCall
from ..recording.settling import Settling
from .matching import Ask, Matching, Mismatch, RecordedCall


class Handed(Enum):
    """What a live call waits for, besides the chunks of a stream."""

    ANSWER = "answer"
    """The recorded end."""
    RUN = "run"
    """Everything recorded was handed over, and nothing says how this call ends."""


@define(eq=False)
class LiveCall:
    """A call of the agent, from its asking to its answer.

    ``content`` and ``facts``: what is compared of it.
    """

    asked: AskedCall
    content: Hashable = None
    facts: Mapping[str, Hashable] = Factory(dict)
    ask: Ask | None = None
    handed: deque[Handed | int | None] = Factory(deque)
    waiter: asyncio.Future[None] | None = None

    @property
    def recorded(self) -> RecordedCall | None:
        """The recorded call in its place; None where there is none."""
        return self.ask.call if self.ask is not None else None

    def hand(self, what: Handed | int | None) -> None:
        """Wake the task that waits; None: somebody else's call diverged."""
        self.handed.append(what)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


Explain = Callable[[RecordedCall | None, LiveCall | None], Awaitable[ReplayDivergenceError]]


class Handover:
    """Decides when each call of a session goes on: with its recorded answer, or alive.

    ``explain`` makes the error for a recorded call that is due and a live one, or one of both.
    ``cancelled`` records that the agent cancelled a call of which the recording does not say so.
    ``stall``: seconds that the agent may take longer than then to ask for what is due.
    ``is_ending``: whether the block is being cancelled from outside.
    """

    def __init__(
        self,
        matching: Matching,
        explain: Explain,
        cancelled: Callable[[RecordedCall], Awaitable[None]],
        stall: float,
        is_ending: Callable[[], bool],
    ) -> None:
        self._matching = matching
        self._explain = explain
        self._record_cancelled = cancelled
        self._stall = stall
        self._is_ending = is_ending
        self._waiting: dict[Ask, LiveCall] = {}
        self._settling = Settling(asyncio.get_running_loop())
        self._held = 0
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._resting = 0
        self._unrecorded: list[LiveCall] = []
        self._recording: asyncio.Task[None] | None = None
        self._cancelled_wrongly: RecordedCall | None = None
        self.error: MemvidAsyncError | None = None
        # Done when it is known why the session diverged.
        self._explained: asyncio.Future[None] | None = None

    @property
    def is_live(self) -> bool:
        """Whether everything recorded was handed over."""
        return self._matching.drained and not self._unrecorded

    # What the agent's tasks call.

    async def ask(self, call: LiveCall) -> None:
        """Match a call; :meth:`wait` then waits for its answer.

        :raises ReplayDivergenceError: when another call is recorded in its place.
        :raises ReplayStopped: when the session has diverged before.
        """
        await self._check()
        if self._cancelled_wrongly is not None:
            await self.diverge(self._cancelled_wrongly, call)
        asked, ask, due = call.asked, None, None
        try:
            ask = self._matching.ask(asked.lane, asked.scope, call.content, call.facts)
        except Mismatch as mismatch:
            due = mismatch.due
        if ask is None:
            # Outside of the handler, so that the error has no context.
            await self.diverge(due, call)
            raise AssertionError("diverge raises")
        call.ask = ask
        self._waiting[ask] = call
        self._let_settle()

    async def wait(self, call: LiveCall) -> Handed | int:
        """Return what comes next for a call: its answer, or the number of a stream's chunks.

        :raises ReplayDivergenceError, ReplayStopped: as :meth:`ask` does.
        """
        ask = call.ask
        assert ask is not None
        try:
            while not call.handed:
                call.waiter = asyncio.get_running_loop().create_future()
                await call.waiter
            handed = call.handed.popleft()
        except asyncio.CancelledError:
            await self.withdraw(call)
            raise
        if handed is None:
            await self._check()
            await self._diverge_late(call)
        if isinstance(handed, Handed):
            self._waiting.pop(ask, None)
        assert handed is not None
        return handed

    async def withdraw(self, call: LiveCall) -> None:
        """The agent cancelled a call that waits, or stopped to read a stream.

        Return when it is its turn to be told that the call is cancelled, like any other end. Where
        the process is being ended, that is at once.

        :raises ReplayDivergenceError: when nobody asks for what comes before.
        """
        if call.ask is None or self._is_over():
            return
        call.handed.clear()
        recorded = call.ask.call
        try:
            if self._matching.withdraw(call.ask) and recorded is not None:
                self._unrecorded.append(call)
        except Mismatch as mismatch:
            # It may be the end of the process, which the agent did not decide.
            self._cancelled_wrongly, recorded = mismatch.due, None
        self._let_settle()
        while recorded is not None and not call.handed and not self._is_ending():
            call.waiter = asyncio.get_running_loop().create_future()
            with suppress(asyncio.CancelledError):
                await call.waiter
        self._waiting.pop(call.ask, None)
        if None in call.handed and not self._is_over():
            await self._diverge_late(call)

    async def _check(self) -> None:
        """Stop the agent, if the session has diverged.

        :raises ReplayStopped: when it has.
        """
        if self._explained is not None:
            await asyncio.shield(self._explained)
        if self.error is not None:
            raise ReplayStopped(str(self.error)) from self.error
        if self._is_closed:
            raise ReplayStopped("the session's block was left")

    async def leave(self, scope: int) -> None:
        """A call that ran again, or the block (0), came to its end.

        :raises ReplayDivergenceError: when calls inside are left that nobody asked for.
        """
        await self._check()
        left = self._matching.unserved(scope)
        if self._cancelled_wrongly is not None:
            await self.diverge(self._cancelled_wrongly, None)
        if left:
            await self.diverge(left[0], None)
        await self.settle()
        await self._check()

    def abandon(self, scope: int) -> None:
        """The agent cancelled a call that ran again: what is recorded inside is not due."""
        self._matching.abandon(scope)
        self._let_settle()

    async def close(self) -> None:
        """Do nothing more, because the block is left; also by a shutdown, with calls that wait."""
        self._is_closed = True
        self._watch(None)
        for one in self._waiting.values():
            one.hand(None)
        await self.settle()

    def _is_over(self) -> bool:
        return self._is_closed or self.error is not None

    async def settle(self) -> None:
        """Wait until what the agent cancelled is recorded."""
        if self._recording is not None:
            await asyncio.shield(self._recording)

    # In the order of the recording.

    def _let_settle(self) -> None:
        """Go on once the agent has reacted."""
        self._settling.start(self._settled)
        self._watch(None)

    def _settled(self) -> None:
        if self._explained is None and not self._held and not self._is_closed:
            self._advance()

    @contextmanager
    def held(self) -> Iterator[None]:
        """See :class:`.answers.Answers`."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            self._let_settle()

    def _advance(self) -> None:
        """Hand over what is due, one at a time; release what waits once everything was."""
        due = self._matching.next()
        if due is not None:
            ask, chunks = due
            if ask in self._waiting:
                self._waiting[ask].hand(Handed.ANSWER if chunks is None else chunks)
            self._let_settle()
        elif not self._matching.drained:
            self._watch(self._matching.due)
        elif not self._unrecorded:
            self._release()
        elif self._recording is None:
            self._recording = asyncio.create_task(self._record())

    def _release(self) -> None:
        for ask in self._matching.release():
            self._waiting[ask].hand(Handed.RUN)
        if not self._matching.drained:
            self._let_settle()

    async def _record(self) -> None:
        """Record what the agent cancelled, and tell it, one at a time."""
        call = self._unrecorded[0]
        assert call.recorded is not None
        try:
            await self._record_cancelled(call.recorded)
        except MemvidAsyncError as error:
            # Nobody else would wake the tasks that wait.
            self.stop(error)
            return
        except BaseException as error:
            self.stop(MemvidAsyncError(f"a cancelled call could not be recorded: {error!r}"))
            raise
        del self._unrecorded[0]
        self._recording = None
        call.hand(Handed.ANSWER)
        self._let_settle()

    async def rest(self, seconds: float) -> None:
        """Wait as long as the model was waited for; meanwhile nobody is late."""
        self._resting += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._resting -= 1
            if not self._resting and self.error is None:
                self._watch(self._matching.due)

    # Where it goes wrong.

    def _watch(self, due: RecordedCall | None) -> None:
        """Diverge when nothing happens for a while, although somebody waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due is not None and self._waiting:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._stall + due.gap, self._give_up)

    def _give_up(self) -> None:
        """Tell one of those that wait; best one for which nothing is recorded."""
        waiting = list(self._waiting.values())
        if waiting and not self._resting and self.error is None:
            next((one for one in waiting if one.recorded is None), waiting[0]).hand(None)

    async def _diverge_late(self, call: LiveCall) -> None:
        """Stop the session where a call waits for what nobody asks for, and raise why: because of
        this call, if nothing is recorded in its place.

        :raises ReplayDivergenceError: always.
        """
        await self.diverge(self._matching.due, call if call.recorded is None else None)

    async def diverge(self, due: RecordedCall | None, call: LiveCall | None) -> None:
        """Stop the session, and raise why.

        :raises ReplayDivergenceError: always.
        """
        self._watch(None)
        self._explained = asyncio.get_running_loop().create_future()
        try:
            error = await self._explain(due, call)
        except BaseException:
            self.stop(ReplayDivergenceError("the agent does not do what it did when recorded"))
            raise
        finally:
            self._explained.set_result(None)
        self.stop(error)
        raise error

    def stop(self, error: MemvidAsyncError) -> None:
        """Let no call go on from now on; those that wait raise :class:`ReplayStopped`."""
        self.error = error
        self._watch(None)
        for one in self._waiting.values():
            one.hand(None)
