"""The writer: the one task that appends.

It takes the waiting commands, lets the event log commit them as one batch, publishes the durable
events, and acks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, TypeVar

from ..config import Durability, StoreConfig
from ..core.appended import Appended
from ..core.commands import Command
from ..errors import (
    MemvidAsyncError,
    StoreClosedError,
    StoreFailedError,
    as_ours,
)
from .event_log import EventLog, LogCall, Pending, View
from .home import Home, Stays
from .tail import Tail

T = TypeVar("T")

# A batch has at most this many commands: a longer one would hold the interpreter, and so delay the
# loop, for more than a few milliseconds.
_BATCH_COMMANDS = 256
# Buffered commands of at most this size are decided on the loop: that costs less than a change of
# threads.
_INLINE_BYTES = 8 * 1024
# At most this many of them in a row are decided without a turn of the loop, so that other tasks
# get theirs.
_SPARED_TURNS = 96


# A batch waits at most this many seconds for commands that are expected.
_EXPECTING = 0.02


# A command in the queue, its size, and the future that waits for its answer. None for the command
# is a barrier: everything queued before is durable when it is answered. A barrier may have a call,
# which is made alone. A plain tuple: one is made for each command.
Request = tuple[Command | None, int, asyncio.Future[Any], LogCall | None]


class Writer(Stays):
    """Owns the log from opening to closing: only its task changes the log.

    ``queued_bytes``: the size of the waiting commands.
    """

    def __init__(self, log: EventLog, tail: Tail, config: StoreConfig, home: Home) -> None:
        self._log = log
        self._tail = tail
        self._home = home
        self._loop = home.loop
        self._buffered = config.durability is Durability.BUFFERED
        self._flush_interval = config.flush_interval
        self._poll_interval = config.poll_interval
        self._watches = False
        self._most_batch = config.limits.batch_bytes
        # At this many ``queued_bytes`` callers wait for room.
        self.most_queued = config.limits.queue_bytes
        self._view: View = log.view
        self.queued_bytes = 0
        self._queue: deque[Request] = deque()
        self._wake: asyncio.Future[None] | None = None
        self._room: deque[asyncio.Future[None]] = deque()
        self._flush_due = False
        self._staged = 0
        self._batch_bytes = 0
        self._spared = 0
        self._closing = False
        self._cancelled = False
        self._expected = 0
        self._gathered: asyncio.Future[None] | None = None
        self._failure: MemvidAsyncError | None = None
        self._task = asyncio.create_task(self._run(), name="memvid_async writer")

    # What callers use.

    @property
    def view(self) -> View:
        """What readers may see: all that is durable; in a BUFFERED store also what is staged."""
        return self._log.view if self._buffered else self._view

    @property
    def written_view(self) -> View:
        """:attr:`view` without events that are only staged: all of it is durable."""
        return self._view

    def watch(self) -> None:
        """From now on, look regularly for what other processes append."""
        if not self._watches:
            self._watches = True
            self._notify()

    @property
    def waiting(self) -> int:
        """How many commands wait for the task."""
        return len(self._queue)

    @property
    def dirty(self) -> bool:
        """Whether events are acked that are not on the disk yet (BUFFERED only)."""
        return self._staged > 0

    def submit(
        self, command: Command | None, size: int, done: asyncio.Future[Any] | None = None
    ) -> asyncio.Future[Any]:
        """Queue a command of about ``size`` bytes, or a barrier (None); return its answer's future,
        which is ``done`` where one is passed.

        :raises StoreClosedError, StoreFailedError: when nothing can be written any more.
        """
        if done is None:
            done = self._loop.create_future()
        if self._staged and command is not None and size <= _INLINE_BYTES and self._is_idle:
            self._stage_now(command, done)
        else:
            self._enqueue((command, size, done, None))
        return done

    @property
    def _is_idle(self) -> bool:
        """Whether the task waits for work, with the lock held, and may be spared a turn."""
        return self._wake is not None and not self._closing and self._spared < _SPARED_TURNS

    def _stage_now(self, command: Command, done: asyncio.Future[Any]) -> None:
        """Decide a buffered command in place of the idle task: waking it takes as long."""
        self._home.check()
        self._spared += 1
        self._staged += 1
        outcome = self._log.stage(command)
        self._settle(done, outcome)
        if self._log.staged_bytes >= self._most_batch:
            self._due()

    def submit_call(self, call: LogCall) -> asyncio.Future[Any]:
        """Queue a call of the log that is made alone; return its answer's future.

        :raises StoreClosedError, StoreFailedError: when nothing can be written any more.
        """
        done: asyncio.Future[Any] = self._loop.create_future()
        self._enqueue((None, 0, done, call))
        return done

    def _enqueue(self, request: Request) -> None:
        if self._failure is not None or self._closing:
            self.check()
        self._home.check()
        self._queue.append(request)
        self.queued_bytes += request[1]
        if self._wake is not None:
            self._notify()
        elif self._gathered is not None and len(self._queue) >= _BATCH_COMMANDS:
            self._gather()

    def expect(self, count: int) -> None:
        """Note that ``count`` more tasks are about to be told what they wait for, or that many
        fewer if it is negative. They are told one after another, and what they queue then may go
        into one batch."""
        self._expected += count
        if not self._expected and self._gathered is not None:
            self._gather()

    def _gather(self) -> None:
        gathered, self._gathered = self._gathered, None
        if gathered is not None and not gathered.done():
            gathered.set_result(None)

    async def _wait_for_expected(self) -> None:
        self._gathered = self._loop.create_future()
        timer = self._loop.call_later(_EXPECTING, self._gather)
        try:
            await self._gathered
        except asyncio.CancelledError:
            self._cancelled = True
        timer.cancel()

    @property
    def is_full(self) -> bool:
        """Whether the queue holds as many bytes as it may."""
        return self.queued_bytes >= self.most_queued

    async def wait_for_room(self) -> None:
        """Return once the queue has room. Tasks get room in the order in which they came."""
        self._home.check()
        while self.is_full and self._failure is None and not self._closing:
            room: asyncio.Future[None] = self._loop.create_future()
            self._room.append(room)
            await room

    @property
    def failure(self) -> MemvidAsyncError | None:
        """Why nothing can be written any more; None while it can, or after a clean close."""
        return None if isinstance(self._failure, StoreClosedError) else self._failure

    async def aclose(self) -> None:
        """Write what is queued, then stop. A second call waits for the first.

        :raises StoreFailedError: when events that a buffered store has acked could not be written.
        """
        self._closing = True
        self._notify()
        if not self._task.done():
            await asyncio.wait([self._task])
        self.check_written()

    def check_written(self) -> None:
        """Return if all that a buffered store has acked was written; the writer has ended.

        :raises StoreFailedError: when it was not; only once.
        """
        lost, self._staged = self._staged, 0
        if lost:
            raise StoreFailedError(f"what was acked last was not written: {self._failure}")

    def check(self) -> None:
        """Return if commands can be queued.

        :raises StoreFailedError, StoreClosedError: when nothing can be written any more.
        """
        if self.failure is not None:
            raise StoreFailedError(f"the store has failed: {self.failure}; open the file again")
        if self._closing:
            raise StoreClosedError("the store is closed")

    # The task.

    def _notify(self) -> None:
        wake, self._wake = self._wake, None
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def _run(self) -> None:
        closed: MemvidAsyncError = StoreClosedError("the store is closed")
        try:
            await self._serve()
            if self._cancelled:
                closed = StoreClosedError("the event loop ended before this was durable")
            else:
                await self._settled(self._log.close())
        except BaseException as raised:
            error = as_ours(raised)
            if not isinstance(error, MemvidAsyncError):
                closed = StoreFailedError(f"the writer failed: {error!r}")
                raise
            closed = error
        finally:
            self._stop(closed)

    async def _serve(self) -> None:
        """Commit batch after batch, until the store is closed or the task is cancelled."""
        while not self._cancelled:
            if self._staged and (self._flush_due or self._closing):
                await self._flush()
            elif self._queue:
                if self._expected:
                    await self._wait_for_expected()
                await self._take_batch()
            elif self._closing:
                return
            elif not await self._wait_for_work():
                await self._look_for_news()
        if self._staged:
            await self._flush()

    async def _wait_for_work(self) -> bool:
        """Wait for a command; return False when it is time to look for what others appended."""
        self._spared = 0
        self._wake = self._loop.create_future()
        timer = None
        if self._watches and not self._staged:
            timer = self._loop.call_later(self._poll_interval, self._notify)
        try:
            await self._wake
        except asyncio.CancelledError:
            self._cancelled = True
            self._wake = None
        if timer is not None:
            timer.cancel()
        return bool(timer is None or self._queue or self._closing or self._cancelled)

    async def _look_for_news(self) -> None:
        """Take in what other processes appended, as a follower does."""
        try:
            has_news = await self._settled(self._log.has_news())
            news = await self._settled(self._log.follow()) if has_news else None
        except MemvidAsyncError as error:
            # The next look tries again, and the next command raises what goes wrong.
            if not self._is_refusal(error):
                raise
            return
        if news is not None:
            self._publish(news)

    def _stop(self, error: MemvidAsyncError) -> None:
        """Refuse everything from now on, and fail the waiting commands."""
        self._failure = self._failure or error
        self._closing = True
        while self._queue:
            _fail(self._queue.popleft(), self._failure)
        self.queued_bytes = 0
        self._make_room()
        self._log.fail(self._failure)
        self._tail.close()

    async def _settled(self, pending: Pending[T]) -> T:
        """Return the result of a call that runs to its end, even if this task is cancelled.

        What it appended must be known before anything else happens.
        """
        while True:
            try:
                return await pending.wait()
            except asyncio.CancelledError:
                self._cancelled = True

    async def _take_batch(self) -> None:
        batch = self._next_batch()
        barrier = batch.pop() if batch[-1][0] is None else None
        try:
            if batch:
                await self._carry_out(batch)
            if barrier is not None:
                await self._carry_out_barrier(barrier)
        except BaseException as error:
            refused = self._is_refusal(error)
            outcome = error if refused else _as_refusal(error)
            for _, _, done, _ in batch if barrier is None else [*batch, barrier]:
                self._settle(done, outcome)
            if not refused:
                raise

    def _is_refusal(self, error: BaseException) -> bool:
        """Whether an error of the log changed nothing: a lock not obtained, a read that failed."""
        return self._log.failure is None and isinstance(error, MemvidAsyncError)

    async def _carry_out(self, batch: list[Request]) -> None:
        commands = [command for command, _, _, _ in batch if command is not None]
        if self._buffered:
            self._answer(batch, await self._stage(commands))
            return

        def acknowledge(committed: tuple[list[Any], Appended]) -> None:
            outcomes, appended = committed
            self._publish(appended)
            self._answer(batch, outcomes)

        # Acked before this task runs again: by then the acked tasks have queued their next command.
        await self._settled(self._log.commit(commands).then(acknowledge))

    async def _carry_out_barrier(self, barrier: Request) -> None:
        if self._staged:
            await self._flush()
        _, _, done, call = barrier
        answer = None
        if call is not None:
            answer, appended = await self._settled(call(self._log))
            self._publish(appended)
        self._settle(done, answer)

    def _next_batch(self) -> list[Request]:
        """Take the waiting requests, in order, up to the first barrier and a batch's bounds."""
        batch: list[Request] = []
        size = 0
        queue = self._queue
        while queue and len(batch) < _BATCH_COMMANDS and size < self._most_batch:
            request = queue.popleft()
            batch.append(request)
            command, bytes_, _, _ = request
            size += bytes_
            if command is None:
                break
        self.queued_bytes -= size
        self._batch_bytes = size
        if self._room:
            self._make_room()
        return batch

    def _make_room(self) -> None:
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    async def _stage(self, commands: list[Command]) -> list[Any]:
        """Decide commands that are flushed later; on the loop where that is quick."""
        log = self._log
        if not log.has_begun:
            await self._settled(log.begin())
        if not self._staged:
            self._loop.call_later(self._flush_interval, self._due)
        self._staged += len(commands)
        if self._batch_bytes <= _INLINE_BYTES:
            outcomes = [log.stage(command) for command in commands]
        else:
            outcomes = await self._settled(log.stage_all(commands))
        if log.staged_bytes >= self._most_batch:
            self._flush_due = True
        return outcomes

    def _due(self) -> None:
        self._flush_due = True
        self._notify()

    async def _flush(self) -> None:
        """Make the staged events durable."""
        appended = await self._settled(self._log.flush())
        self._staged, self._flush_due = 0, False
        self._publish(appended)

    def _publish(self, appended: Appended) -> None:
        self._view = self._log.view
        self._tail.publish(appended)

    def _answer(self, batch: list[Request], outcomes: list[Any]) -> None:
        for (_, _, done, _), outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, BaseException) or done.done():
                self._settle(done, outcome)
            else:
                done.set_result(outcome)

    @staticmethod
    def _settle(done: asyncio.Future[Any], outcome: Any) -> None:
        if done.done():
            return
        if isinstance(outcome, BaseException):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)


def _as_refusal(error: BaseException) -> MemvidAsyncError:
    if isinstance(error, MemvidAsyncError):
        return error
    return StoreFailedError(f"the writer failed: {error!r}")


def _fail(request: Request, error: MemvidAsyncError) -> None:
    _, _, done, _ = request
    if not done.done():
        done.set_exception(error)
