"""Serving: a recorded session answers instead of models, tools and searches, as a cassette."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Hashable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack
from itertools import count, islice
from types import TracebackType
from typing import Any, Self
from uuid import UUID
from weakref import WeakKeyDictionary

import anyio
from anyio import to_thread

from ..config import Limits
from ..engine.home import Home
from ..errors import InvalidValueError, NoActiveSessionError, RecordedCallError
from ..events.content import content_digest
from ..events.details import ActionKind, AskDetails, FindDetails, ToolCallDetails
from ..events.event import Action
from ..events.prompts import Prompt
from ..events.values import LARGE, decode_value, encode_value
from ..recording.callables import call, check_fits
from ..recording.converting import describe_error
from ..recording.prepare_values import prepare_frames, rough_size
from ..recording.replies import COUNTS, GrowingReply, Model, check_model
from ..recording.session_recorder import SessionRecorder
from .compare import Side, read_side
from .facts import task_name
from .nearest import LOOKED_AT, Asked, describe_missing
from .recorded import read_arguments, read_text
from .served_calls import (
    CALLS,
    MOST_ARGUMENTS,
    NOTE,
    ServedCall,
    check_recordable,
    chunk_lengths,
    chunks,
    make_lanes,
    messages_digest,
    plain_messages,
    read_messages,
)
from .served_lanes import LaneAsk, LaneCall, ServedLanes
from .tool_calls import Tool, call_tool, check_tool, pack_result, unpack_result
from .verdicts import ReplayReport, ReplayStep, Verdict, count_verdicts

Read = Callable[..., Awaitable[Any]]
Start = Callable[..., SessionRecorder]

_NOT_ASKED_FOR = "nobody asked for it"


class ServedSession:
    """A recording that answers calls: ``async with store.serve(session_id) as recorded``.

    Each task gets the answers to its own calls, in the order in which they were recorded. A call
    must equal the recorded one. A call that is not in the recording at this point raises
    :class:`ReplayDivergenceError`, or runs the callable that is passed with it, with
    ``missing="run"``. A call that failed when it was recorded raises :class:`RecordedCallError`.
    """

    def __init__(
        self,
        home: Home,
        read: Read,
        start: Start,
        limits: Limits,
        session_id: UUID | None,
        *,
        run_missing: bool,
    ) -> None:
        self._home = home
        self._read = read
        self._start = start
        self._limits = limits
        self._source_id = session_id
        self._run_missing = run_missing
        self._exits = AsyncExitStack()
        self._side: Side | None = None
        self._lanes = ServedLanes((), ahead=run_missing)
        self._recorder: SessionRecorder | None = None
        self._tasks = WeakKeyDictionary[Any, tuple[int, str]]()
        self._ids = count()
        self._names: dict[str, int] = {}
        self._diverged: dict[int, ReplayStep] = {}
        self._ran: list[ReplayStep] = []

    async def __aenter__(self) -> Self:
        if self._source_id is not None:
            side: Side = await self._read(read_side, self._source_id)
            self._lanes = await to_thread.run_sync(make_lanes, side, self._run_missing)
            self._side = side
        if self._run_missing:
            note = {} if self._source_id is None else {"served_from": str(self._source_id)}
            session = self._start(metadata={NOTE: note})
            self._recorder = await self._exits.enter_async_context(session)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._exits.__aexit__(exc_type, exc, traceback)

    def __repr__(self) -> str:
        into = "" if self.session_id is None else f", recording into {self.session_id}"
        source = "an empty recording" if self._source_id is None else self._source_id
        return f"<ServedSession of {source}: {len(self.unserved):,} calls left{into}>"

    @property
    def session_id(self) -> UUID | None:
        """The new session with all calls, served or run; None without ``missing="run"``."""
        return self._recorder.session_id if self._recorder is not None else None

    # The calls.

    async def ask(
        self,
        query: str | bytes,
        *,
        generate: Model | None = None,
        provider: str | None = None,
        model: str | None = None,
        messages: Sequence[Any] | None = None,
        retrieved_frames: Iterable[int] | None = None,
        task: str | None = None,
    ) -> str | bytes | None:
        """Return the recorded response to a question. Arguments that are None are not compared.

        ``generate``: called with a :class:`Prompt` of the question and the messages, where the
        recording has no answer, with ``missing="run"``. It returns a reply as the ``generate`` of
        :meth:`Store.ask` does.

        :raises TypeError: when ``generate`` does not take one argument.
        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        response, _ = await self._ask(
            query, generate, provider, model, messages, retrieved_frames, task
        )
        return response

    async def stream(
        self,
        query: str | bytes,
        *,
        generate: Model | None = None,
        provider: str | None = None,
        model: str | None = None,
        messages: Sequence[Any] | None = None,
        retrieved_frames: Iterable[int] | None = None,
        task: str | None = None,
    ) -> AsyncIterator[str | bytes]:
        """Yield the response that :meth:`ask` returns in its recorded chunks, up to a failure.

        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        try:
            response, lengths = await self._ask(
                query, generate, provider, model, messages, retrieved_frames, task
            )
        except RecordedCallError as error:
            output = await self._output(error.action)
            for chunk in chunks(output, chunk_lengths(error.action)):
                yield chunk
            raise
        for chunk in chunks(response, lengths):
            yield chunk

    async def _ask(
        self,
        query: str | bytes,
        generate: Model | None,
        provider: str | None,
        model: str | None,
        messages: Sequence[Any] | None,
        retrieved_frames: Iterable[int] | None,
        task: str | None,
    ) -> tuple[str | bytes | None, Sequence[int]]:
        """Return a response, and the lengths of its chunks."""
        if generate is not None:
            check_model(generate)
        said = plain_messages(messages)
        frames = None if retrieved_frames is None else tuple(retrieved_frames)
        facts = {"provider": provider, "model": model, "retrieved_frames": frames}
        live = self._live_call(ActionKind.ASK, None, query, {**facts, "messages": said}, task)
        recorded = await self._take(live, runs=generate is not None)
        if recorded is not None:
            return await self._answer(recorded), chunk_lengths(recorded.action)
        growing = GrowingReply(self._limits.content_bytes)

        async def run() -> None:
            assert generate is not None
            await growing.read(generate, Prompt(query, None, said or []))

        async def record(_: None, **options: Any) -> Action:
            lengths = growing.reply.chunks
            if len(lengths) > 1:
                options["metadata"] = {NOTE: {"chunks": list(lengths)}}
            return await self._new.record_ask(
                query,
                provider=provider,
                model=model,
                response=growing.output,
                retrieved_frames=frames or (),
                messages=said or (),
                **growing.counts,
                **options,
            )

        await self._run(live, run, record)
        return growing.text, growing.reply.chunks

    async def call_tool(
        self, name: str, arguments: Any, run: Tool | None = None, *, task: str | None = None
    ) -> Any:
        """Return the recorded result of a tool call. The tool is not run.

        ``run``: called as ``run(**arguments)`` where the recording has no answer, with
        ``missing="run"``. It may be async; if it is not, it runs in a thread. A result other than
        str, bytes and None is recorded as JSON.

        :raises TypeError: when ``run`` does not take these arguments, or they are not a dict.
        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        if run is not None:
            check_tool(run, name, arguments)
        tool, live = run, self._live_call(ActionKind.TOOL_CALL, name, arguments, {}, task)
        recorded = await self._take(live, runs=tool is not None)
        if recorded is not None:
            note = recorded.action.metadata.get(NOTE)
            as_json = isinstance(note, Mapping) and note.get("result") == "json"
            return unpack_result(await self._answer(recorded), as_json=as_json)

        async def make_call() -> Any:
            assert tool is not None
            return await call_tool(tool, arguments)

        async def record(answer: Any, **options: Any) -> Action:
            result, as_json = pack_result(answer)
            if as_json:
                options["metadata"] = {NOTE: {"result": "json"}}
            return await self._new.record_tool_call(
                name, arguments=live.arguments, result=result, **options
            )

        return await self._run(live, make_call, record)

    async def find(
        self,
        query: str | bytes,
        *,
        mode: str | None = None,
        run: Tool | None = None,
        task: str | None = None,
    ) -> FindDetails:
        """Return what a recorded search found. A ``mode`` of None is not compared.

        ``run``: called as ``run(query)`` where the recording has no answer, with ``missing="run"``;
        it returns the ids of the frames that it found.

        :raises TypeError: when ``run`` does not take one argument.
        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        if run is not None:
            check_fits(run, "run is called with the query, run(query)", (query,))
        search, live = run, self._live_call(ActionKind.FIND, None, query, {"mode": mode}, task)
        recorded = await self._take(live, runs=search is not None)
        if recorded is not None:
            await self._answer(recorded)
            details = recorded.action.details
            assert isinstance(details, FindDetails)
            return details

        async def make_call() -> FindDetails:
            assert search is not None
            frames = prepare_frames(await call(search, (query,)), self._limits)
            return FindDetails(mode or "", len(frames), frames)

        async def record(answer: FindDetails | None, **options: Any) -> Action:
            frames = answer.result_frames if answer is not None else ()
            return await self._new.record_find(
                query, mode=mode or "", result_count=len(frames), result_frames=frames, **options
            )

        found: FindDetails = await self._run(live, make_call, record)
        return found

    # What was served.

    @property
    def unserved(self) -> tuple[Action, ...]:
        """The recorded calls that no live call has asked for so far."""
        return tuple(step.action for step in self._steps() if step.reason == _NOT_ASKED_FOR)

    def report(self) -> ReplayReport:
        """Return the verdicts so far on all recorded actions, and on the calls that really ran."""
        steps = (*self._steps(), *self._ran)
        session_id = self._source_id or self.session_id
        assert session_id is not None
        return ReplayReport(session_id, count_verdicts(step.verdict for step in steps), steps)

    def _steps(self) -> list[ReplayStep]:
        served = set[int]()
        for lane in self._lanes:
            for position, recorded in enumerate(lane.calls[: lane.position]):
                if position not in lane.passed_over:
                    served.add(recorded.action.index)
        steps = []
        for action in self._side.recording.actions if self._side is not None else ():
            index = action.index
            if index in served:
                steps.append(ReplayStep(index, action, Verdict.SERVED))
            elif index in self._diverged:
                steps.append(self._diverged[index])
            else:
                why = _NOT_ASKED_FOR if action.kind in CALLS else f"a {action.kind} is not a call"
                steps.append(ReplayStep(index, action, Verdict.SKIPPED, why))
        return steps

    # From the recording.

    def _live_call(
        self,
        kind: ActionKind,
        name: str | None,
        value: Any,
        facts: dict[str, Any],
        task: str | None,
    ) -> ServedCall:
        # Before the callable that is passed could run.
        self._home.check()
        arguments = None
        if kind is ActionKind.TOOL_CALL:
            data = encode_value(value, "arguments", "value_bytes", MOST_ARGUMENTS)
            arguments = decode_value(data)
        elif isinstance(value, (str, bytes)):
            data = value.encode() if isinstance(value, str) else value
        else:
            raise InvalidValueError(f"query must be str or bytes, not {type(value).__name__}")
        known = {key: value for key, value in facts.items() if value is not None}
        if "messages" in known:
            known["messages"] = messages_digest(known["messages"])
        live, own, label = self._task(task)
        made = LaneAsk(live, own, (kind, name, content_digest(data)), known)
        return ServedCall(made, Asked(kind, name, value, facts, task_name(own)), label, arguments)

    def _task(self, task: str | None) -> tuple[Hashable, str, str]:
        """Return who calls: an identity, its name, and a name that no other task here has."""
        if task is not None:
            return task, task, task
        current = asyncio.current_task()
        name = current.get_name() if current is not None else ""
        known = self._tasks.get(current)
        if known is None:
            nth = self._names[name] = self._names.get(name, 0) + 1
            known = next(self._ids), name if nth == 1 else f"{name} ({nth})"
            self._tasks[current] = known
        return known[0], name, known[1]

    async def _take(self, live: ServedCall, *, runs: bool) -> LaneCall | None:
        """Return the recorded counterpart; None when the real callable must run.

        :raises ReplayDivergenceError: when there is neither.
        """
        recorded = self._lanes.take(live.call)
        if recorded is not None or (self._run_missing and runs):
            return recorded
        lane = self._lanes.followed(live.call)
        due = lane.next.action if lane is not None and lane.next is not None else None
        waiting = (e.action for lane in self._lanes for e in lane.calls[lane.position :])
        others = list(islice(waiting, LOOKED_AT))
        recording = self._side.recording if self._side is not None else None
        error = await self._read(describe_missing, recording, due, others, live.asked)
        if error.nearest is not None:
            step = ReplayStep(
                error.nearest.index,
                error.nearest,
                Verdict.DIVERGED,
                str(error),
                error.differences,
            )
            self._diverged.setdefault(step.index, step)
        raise error

    async def _answer(self, recorded: LaneCall) -> str | bytes | None:
        """Return the recorded output or raise the recorded error; record it in a new session."""
        action = recorded.action
        output = await self._output(action)
        if self._recorder is not None:
            await self._record_again(action, output)
        if action.error is not None:
            raise RecordedCallError(action)
        return output

    async def _output(self, action: Action) -> str | bytes | None:
        if action.output is None or action.output.data is not None:
            return None if action.output is None else action.output.data
        output: str | bytes | None = await self._read(read_text, action.output)
        return output

    # Running what is missing.

    @property
    def _new(self) -> SessionRecorder:
        if self._recorder is None:
            raise NoActiveSessionError("the served session is not open; use it in its block")
        return self._recorder

    async def _run(
        self, live: ServedCall, run: Callable[[], Awaitable[Any]], record: Callable[..., Any]
    ) -> Any:
        """Run the real callable, record its result or its error, and return or raise it."""
        if rough_size(live.asked.input) + rough_size(live.asked.facts) < LARGE:
            check_recordable(live, self._limits)
        else:
            await to_thread.run_sync(check_recordable, live, self._limits)
        start = time.perf_counter()
        try:
            answer = await run()
        except (Exception, asyncio.CancelledError) as error:
            # A cancelled call is recorded too, with what it returned so far.
            with anyio.CancelScope(shield=isinstance(error, asyncio.CancelledError)):
                failed = await record(
                    None,
                    task=live.label,
                    duration_ms=_milliseconds(start),
                    error=describe_error(error, self._limits.error_chars),
                )
            self._note_run(failed)
            raise
        action = await record(answer, task=live.label, duration_ms=_milliseconds(start))
        self._note_run(action)
        return answer

    def _note_run(self, action: Action) -> None:
        if self._source_id is not None:
            why = "it is not in the recording, so it ran"
            self._ran.append(ReplayStep(action.index, action, Verdict.DIVERGED, why))

    async def _record_again(self, action: Action, output: str | bytes | None) -> None:
        """Record a served action in the new session, with a note of where it came from."""
        assert self._side is not None
        note = action.metadata.get(NOTE)
        note = {**(note if isinstance(note, Mapping) else {}), "served": action.index}
        lengths = chunk_lengths(action)
        if len(lengths) > 1:
            note["chunks"] = list(lengths)
        options: dict[str, Any] = {
            "duration_ms": action.duration_ms,
            "task": action.task,
            "error": action.error,
            "metadata": {**action.metadata, NOTE: note},
        }
        details = action.details
        if isinstance(details, ToolCallDetails):
            arguments = await self._read(read_arguments, action)
            await self._new.record_tool_call(
                details.name, arguments=arguments, result=output, **options
            )
            return
        query = await self._read(read_text, action.input)
        if isinstance(details, FindDetails):
            await self._new.record_find(
                query,
                mode=details.mode,
                result_count=details.result_count,
                result_frames=details.result_frames,
                **options,
            )
        elif isinstance(details, AskDetails):
            recording = self._side.recording
            options |= {name: getattr(action.reply, name, None) for name in COUNTS}
            await self._new.record_ask(
                query,
                provider=details.provider,
                model=details.model,
                response=output,
                retrieved_frames=details.retrieved_frames,
                messages=await self._read(read_messages, recording, action),
                **options,
            )


def _milliseconds(start: float) -> float:
    return (time.perf_counter() - start) * 1000
