"""A session as the rules on resuming need it, of a log in main memory, and processes that die.

It records calls as a session of the library does, without a file: thousands of agents can be killed
at every event. What it answers from the recording with is the library's own.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from contextvars import ContextVar
from typing import Any

from attrs import define

from memvid_async import ReplayDivergenceError
from memvid_async.recording.answers import AskedCall
from memvid_async.recording.lanes import Lanes
from memvid_async.replay.handover import SETTLING_TURNS, Handed, Handover, LiveCall
from memvid_async.replay.history import History, PastCall
from memvid_async.replay.matching import Matching, RecordedCall

from .agents import Agent, Program, ToolError, World

_SCOPE: ContextVar[int] = ContextVar("scope", default=0)


class Death(BaseException):
    """The process is dead."""


@define
class Entry:
    """An event."""

    kind: str
    call: int
    data: Any = None


class Log:
    """Events that outlive their process. ``dies_at``: once this many are durable, all ends.

    ``told``: the highest sequence of an end that the agent was told.
    """

    def __init__(self, entries: list[Entry], world: World, dies_at: int | None) -> None:
        self.entries = entries
        self.reported = Counter[str]()
        self.told = max(
            [place for place, one in enumerate(entries, 1) if one.kind in ENDS], default=0
        )
        self._world = world
        self.dies_at = dies_at
        self._queue: list[tuple[Entry, asyncio.Future[int]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._chunks: dict[int, tuple[int, list[str]]] = {}
        self._telling: deque[tuple[int, asyncio.Future[int]]] = deque()
        self._waiting: set[asyncio.Future[int]] = set()
        self.handover: Handover | None = None

    @property
    def starts(self) -> set[str]:
        """The keys of all calls."""
        return {str(place) for place, one in enumerate(self.entries, 1) if one.kind == "start"}

    def again(self, dies_at: int | None) -> Log:
        """Return the log as the next process finds it."""
        log = Log(self.entries, self._world, dies_at)
        log.reported = self.reported
        return log

    def submit(self, entry: Entry) -> asyncio.Future[int]:
        if self._world.is_dead:
            raise Death
        self._close_chunks()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        self._queue.append((entry, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return future

    def fail(self) -> None:
        """Tell all who wait that the process is dead."""
        if self.handover is not None:
            self.handover.stop(ReplayDivergenceError("the process is dead"))
        for future in list(self._waiting):
            if not future.done():
                future.set_exception(Death())

    def note(self, start: int, chunks: list[str]) -> None:
        """Note chunks that the agent has; they are appended before the next event."""
        self._chunks[start] = (self.told, list(chunks))

    def _close_chunks(self) -> None:
        for start, data in self._chunks.items():
            self._queue.append(
                (Entry("chunks", start, data), asyncio.get_running_loop().create_future())
            )
        self._chunks.clear()

    async def _write(self) -> None:
        while self._queue:
            await self._world.pass_time(3)
            if self._world.is_dead:
                return
            batch, self._queue = self._queue, []
            for entry, _ in batch:
                self.entries.append(entry)
                if len(self.entries) == self.dies_at:
                    self._world.is_dead = True
                    self.fail()
                    asyncio.get_running_loop().stop()
                    return
            await self._world.pass_time(3)
            first = len(self.entries) - len(batch) + 1
            for place, (entry, future) in enumerate(batch):
                if entry.kind in ENDS:
                    self._telling.append((first + place, future))
                    if len(self._telling) == 1:
                        self._tell()
                elif not future.done():
                    future.set_result(first + place)
        self._writer = None

    def _tell(self) -> None:
        """Tell the agent of an end, and of the next one some turns of the loop later."""
        sequence, future = self._telling[0]
        if not self._world.is_dead:
            self._close_chunks()
            self.told = sequence
            if not future.done():
                future.set_result(sequence)
            _later(self._told, SETTLING_TURNS)

    def _told(self) -> None:
        self._telling.popleft()
        if self._telling:
            self._tell()


ENDS = ("returned", "failed", "cancelled")


class Rehearsal:
    """A session that records, or answers first. Made and entered by the task of the agent."""

    def __init__(self, log: Log, *, serves: bool = False) -> None:
        self._log = log
        self._serves = serves
        self._lanes = Lanes()
        self._history = read_history(log.entries)
        self._matching = Matching(self._history.recorded(), self._lanes.root)
        self._handover = Handover(
            self._matching, self._explain, self._record_cancelled, 0.05, self._is_ending
        )
        log.handover = self._handover
        self._rises: list[tuple[int, int]] = []
        self._task = asyncio.current_task()
        self._is_left = False

    async def _explain(
        self, due: RecordedCall | None, call: LiveCall | None
    ) -> ReplayDivergenceError:
        asked = call and call.asked
        return ReplayDivergenceError(f"{due} is due, asked was {asked}")

    async def _record_cancelled(self, recorded: RecordedCall) -> None:
        await self._log.submit(Entry("cancelled", recorded.start))

    # The block.

    async def enter(self) -> None:
        """Report what is uncertain."""
        if self._log.entries and not self._serves:
            await self._log.submit(Entry("resumed", 0))
        for call in self._history.calls.values():
            if call.end is None and self._due_inside(call.scope):
                if call.info["kind"] == "stream" and call.chunks:
                    continue
                self._log.reported[str(call.start)] += 1

    def _due_inside(self, scope: int) -> bool:
        return not scope or (
            self._history.calls[scope].end is None
            and self._due_inside(self._history.calls[scope].scope)
        )

    async def leave(self, error: BaseException | None) -> None:
        if self._handover.error is not None:
            raise self._handover.error
        self._is_left = True
        if isinstance(error, asyncio.CancelledError):
            since = self._rises[0][1] if self._rises else len(self._log.entries)
            await self._log.submit(Entry("suspended", 0, since))
            return
        if error is None or isinstance(error, Exception):
            await self._handover.leave(0)
            if not self._serves:
                await self._log.submit(Entry("over", 0))

    # Calls.

    def _look(self, now: int) -> None:
        """Note from which event on the block's task is being cancelled."""
        assert self._task is not None
        value = self._task.cancelling()
        while self._rises and self._rises[-1][0] > value:
            self._rises.pop()
        if value > (self._rises[-1][0] if self._rises else 0):
            self._rises.append((value, now))

    def _is_ending(self) -> bool:
        assert self._task is not None
        return self._task.cancelling() > 0

    async def _ask(self, kind: str, content: Any) -> tuple[LiveCall, Handed | int]:
        if self._log._world.is_dead or self._is_left:
            raise Death
        self._look(len(self._log.entries))
        asked = AskedCall(self._lanes.current(), _SCOPE.get(), (kind, content))
        call = LiveCall(asked, (kind, content))
        await self._handover.ask(call)
        return call, await self._handover.wait(call)

    async def _begin(self, kind: str, content: Any, call: LiveCall) -> int:
        """Make the start durable, and return which call it is."""
        if self._serves:
            raise AssertionError("nothing runs where a finished recording is served")
        recorded = call.recorded
        try:
            if recorded is not None:
                await self._log.submit(Entry("retry", recorded.start))
                return recorded.start
            data = (kind, content, call.asked.lane.path, call.asked.scope, self._log.told)
            pending = self._log.submit(Entry("start", 0, data))
            return await asyncio.shield(pending)
        except asyncio.CancelledError:
            start = recorded.start if recorded is not None else await _in_any_case(pending)
            self._handover.abandon(start)
            await self._cancelled(start)
            raise

    async def _end(self, entry: Entry) -> None:
        """Record an end; two ends are acknowledged some turns of the loop apart."""
        try:
            await asyncio.shield(self._log.submit(entry))
        except asyncio.CancelledError:
            await self._cancelled(entry.call)
            raise

    async def _cancelled(self, start: int) -> None:
        self._look(len(self._log.entries))
        await _in_any_case(self._log.submit(Entry("cancelled", start)))

    async def call_tool(self, name: str, arguments: dict[str, Any], run: Callable[..., Any]) -> Any:
        content = (name, tuple(sorted(arguments.items())))
        call, handed = await self._ask("tool", content)
        if handed is Handed.ANSWER:
            assert call.recorded is not None
            what, value = self._history.calls[call.recorded.start].action
            if what == "failed":
                raise ToolError(value)
            return value
        start = await self._begin("tool", content, call)
        token = _SCOPE.set(start)
        try:
            value = await run(**arguments)
            await self._handover.leave(start) if call.recorded is not None else None
        except asyncio.CancelledError:
            self._handover.abandon(start)
            await self._cancelled(start)
            raise
        except Exception as error:
            if not isinstance(error, ReplayDivergenceError):
                await self._handover.leave(start) if call.recorded is not None else None
                await self._end(Entry("failed", start, str(error)))
            raise
        finally:
            _SCOPE.reset(token)
        await self._end(Entry("returned", start, value))
        return value

    @asynccontextmanager
    async def step(self, _name: str) -> AsyncIterator[None]:
        yield

    async def stream_model(self, text: str, generate: Callable[..., Any]) -> AsyncIterator[str]:
        call, handed = await self._ask("stream", text)
        past = None if call.recorded is None else self._history.calls[call.recorded.start]
        if handed is Handed.RUN and not (past is not None and past.chunks):
            live = self._stream_live(text, generate, call)
            async with aclosing(live):
                async for chunk in live:
                    yield chunk
            return
        assert past is not None
        chunks: list[str] = past.info["chunks"]
        passed = 0
        try:
            while True:
                until = handed if isinstance(handed, int) else len(chunks)
                for chunk in chunks[passed:until]:
                    yield chunk
                passed = max(passed, until)
                if isinstance(handed, Handed):
                    break
                handed = await self._handover.wait(call)
        except GeneratorExit:
            await self._handover.withdraw(call)
            raise
        if handed is Handed.RUN:
            await self._end(Entry("failed", past.start, "the stream broke off"))
            raise ToolError("the stream broke off")
        what, value = past.action
        if what == "failed":
            raise ToolError(value)

    async def _stream_live(
        self, text: str, generate: Callable[..., Any], call: LiveCall
    ) -> AsyncGenerator[str]:
        start = await self._begin("stream", text, call)
        passed: list[str] = []
        source = generate(None)

        async def pull() -> str | None:
            token = _SCOPE.set(start)
            try:
                return await anext(source, None)
            finally:
                _SCOPE.reset(token)

        try:
            while (chunk := await pull()) is not None:
                passed.append(chunk)
                self._log.note(start, passed)
                yield chunk
        except (GeneratorExit, asyncio.CancelledError):
            await self._cancelled(start)
            raise
        await self._end(Entry("returned", start, passed))


def read_history(entries: list[Entry]) -> History:
    """Fold the events."""
    history = History()
    for place, entry in enumerate(entries):
        sequence, data = place + 1, entry.data
        if entry.kind == "start":
            kind, content, lane, scope, seen = data
            info = {"kind": kind, "chunks": []}
            history.began(PastCall(sequence, lane, seen, scope, (kind, content), {}, info))
        elif entry.kind == "retry":
            history.began_again(entry.call, sequence)
        elif entry.kind == "suspended":
            history.suspended(data)
        elif entry.kind == "chunks":
            if entry.call in history.calls:
                call = history.calls[entry.call]
                call.chunks.append((sequence, data[0], len(data[1])))
                call.info["chunks"] = data[1]
        elif entry.kind == "resumed":
            history.resumed()
        elif entry.kind == "over":
            history.session_ended(sequence)
        else:
            answer = entry.kind, tuple(data) if isinstance(data, list) else data
            history.ended(
                entry.call, sequence, answer, answer, is_cancelled=entry.kind == "cancelled"
            )
    return history


@define
class Life:
    """How a process ended. ``how``: done, dead, suspended, diverged, or what else it raised."""

    how: str
    result: int | None = None
    problem: BaseException | None = None


def live(
    program: Program,
    log: Log,
    world: World,
    *,
    serves: bool = False,
    shutdown_after: int | None = None,
) -> Life:
    """Perform a program in a process of its own. ``shutdown_after``: turns of the loop after which
    the process is asked to end."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    world.is_dead = False

    async def main() -> int:
        session = Rehearsal(log, serves=serves)
        await session.enter()
        try:
            agent = Agent(session, world, lambda: str(_SCOPE.get()))
            result = await agent.perform(program, 1)
        except BaseException as error:
            await session.leave(error)
            raise
        await session.leave(None)
        return result

    task = loop.create_task(main())
    if shutdown_after is not None:

        def count_down(turns: int) -> None:
            if turns:
                loop.call_soon(count_down, turns - 1)
            else:
                task.cancel()

        loop.call_soon(count_down, shutdown_after)

    def stop(_: object) -> None:
        loop.stop()

    task.add_done_callback(stop)
    loop.run_forever()
    task.remove_done_callback(stop)
    if world.is_dead:
        _bury(loop, log)
        return Life("dead")
    try:
        return Life("done", task.result())
    except asyncio.CancelledError:
        return Life("suspended")
    except ReplayDivergenceError as error:
        return Life("diverged", problem=error)
    finally:
        world.is_dead = True
        _bury(loop, log)


def _bury(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """End what is left of a process, without any effect."""
    for _ in range(50):
        left = asyncio.all_tasks(loop)
        if not left:
            break
        log.fail()
        for task in left:
            task.cancel()
        loop.call_later(0.001, loop.stop)
        loop.run_forever()
    # A task that is left would end when it is collected, inside another test.
    assert not asyncio.all_tasks(loop), asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _later(function: Callable[[], None], turns: int) -> None:
    if turns == 0:
        function()
    else:
        asyncio.get_running_loop().call_soon(_later, function, turns - 1)


async def _in_any_case(future: asyncio.Future[Any]) -> Any:
    """Return what a future brings, however often the waiting is cancelled."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(future)
    return future.result()
