"""The calls of a session: tools, models and steps that record themselves, or are answered.

One implementation serves a session that records and one that answers: see :mod:`.answers`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

from attrs import Factory, define, field

from ..config import Limits
from ..core.commands import Prepared, StartAction
from ..errors import (
    InvalidValueError,
    RecordedCallError,
    ReplayStopped,
    SessionEndedError,
    StoreClosedError,
)
from ..events.calls import CallFacts, call_key
from ..events.content import Content
from ..events.conversion import Conversion
from ..events.details import ActionKind
from ..events.event import Action
from ..events.prompts import Reply
from ..events.values import LARGE
from .action_draft import ActionDraft
from .answers import Answers, AskedCall, CallAnswer
from .call_recorder import CallRecorder, CancelledBeginning
from .callables import call, check_fits, takes_by_name
from .command_intake import CommandIntake
from .converting import read_result
from .error_details import describe_exception
from .in_force import ENCLOSING, Enclosing
from .lanes import Lanes
from .made_calls import Call, MadeCall, OpenCall, Step
from .prepare_values import (
    prepare_arguments,
    prepare_flag,
    prepare_metadata,
    prepare_name,
    prepare_seconds,
    rough_size,
)
from .scrubbing import limits_for


@define(eq=False)
class _EnclosingCall(Enclosing):
    """``scope``: the first start of the call; of a step, that of the call around it. ``call``: the
    call; None of a step."""

    calls: SessionCalls
    scope: int
    call: OpenCall | None = None


@define(eq=False)
class _EnclosingStep(_EnclosingCall):
    """``opened``: the step. ``first`` is None until it is known which recorded one it is, or until
    it is recorded."""

    opened: OpenCall = field(kw_only=True)
    lock: asyncio.Lock = Factory(asyncio.Lock)


def current_call() -> Call | None:
    """Return the call that the caller is part of; None outside of one."""
    for one in reversed(ENCLOSING.get()):
        if isinstance(one, _EnclosingCall) and one.call is not None and not one.is_left:
            return one.calls.current(one.call)
    return None


_RUNS = CallAnswer()
_new = tuple.__new__


class SessionCalls:
    """The calls of one session's block. Made in the task that enters it.

    ``answers``: None where every call runs. ``raised`` makes the error of a recorded failure.
    """

    def __init__(
        self,
        intake: CommandIntake,
        session: int,
        session_id: UUID,
        *,
        starts: bool = True,
        lanes: Lanes,
        recorder: CallRecorder,
        answers: Answers | None = None,
        raised: Callable[[Action], BaseException] = RecordedCallError,
    ) -> None:
        self.intake = intake
        self.recorder = recorder
        self.answers = answers
        self.session = session
        self._session_id = session_id
        self._starts = starts
        self._lanes = lanes
        self.raised = raised

    # What every call does.

    async def ask(self, made: MadeCall) -> OpenCall:
        """Return a call as it goes on: answered, or about to begin."""
        intake, lanes = self.intake, self._lanes
        intake.home.check()
        running = intake.running_task()
        if made.task is None:
            task, lane = intake.task_name(running), lanes.current(running)
        else:
            task = intake.check_task(made.task)
            lane = lanes.named(task)
        seen = self.recorder.seen
        if self.answers is None:
            asked, answer = AskedCall(lane, self._scope(), (made.kind, None, None)), _RUNS
        else:
            asked = AskedCall(
                lane, self._scope(), made.content, made.facts, made.given, made.messages_digest
            )
            try:
                answer = await self.answers.ask(asked)
            except asyncio.CancelledError as error:
                if asked.is_new:
                    parent = intake.blocks.parent(self.session)
                    unbegun = OpenCall(made, asked, _RUNS, parent, task, None, seen)
                    await self._cancel_unbegun(unbegun, error)
                raise
            await self._find_steps(self.answers, answer)
            seen = self.recorder.seen
        parent = intake.blocks.parent(self.session)
        began, cancellations = time.perf_counter(), running.cancelling()
        return OpenCall(made, asked, answer, parent, task, answer.first, seen, began, cancellations)

    async def _cancel_unbegun(self, call: OpenCall, error: asyncio.CancelledError) -> None:
        """Record that a call was cancelled while it waited for its turn to begin: the next run of
        the agent asks for it, too."""
        with suppress(SessionEndedError):
            await self.cancel(call, error)

    def _scope(self) -> int:
        """Return the first start of the call that the caller is in; 0 outside of one."""
        if not ENCLOSING.get():
            return 0
        return next((one.scope for one in self._enclosing()), 0)

    def _enclosing(self) -> Iterator[_EnclosingCall]:
        """Return the calls and steps that the caller is in, the innermost first."""
        enclosing = reversed(ENCLOSING.get())
        mine = (one for one in enclosing if isinstance(one, _EnclosingCall) and one.calls is self)
        return (one for one in mine if not one.is_left)

    async def begin(self, call: OpenCall) -> None:
        """Record that a call begins. Cancelled meanwhile, it records that too.

        :raises SessionEndedError: when the session takes no more actions; and whatever else refuses
            a command.
        """
        made, answer = call.made, call.answer
        if answer.first is None and not (made.effect and self._starts):
            self.intake.check_takes(self.session)
            return
        if answer.chunks:
            return
        # Made as a tuple is: in a third of the time. So is the draft of its end.
        # fmt: off
        fields = (
            self.session, made.kind, made.detail, made.prepared, call.task, call.parent,
            call.asked.lane.path, call.seen, answer.first, answer.try_number, answer.settled_by,
            made.messages_digest,
        )
        # fmt: on
        command: StartAction = _new(StartAction, fields)
        try:
            call.first = await self.recorder.begin(command, _START_BYTES + made.size)
            return
        except CancelledBeginning as cancelled:
            call.first = cancelled.first
        # asyncio's timeouts, and a recording of the call around, know this type and no other.
        error = asyncio.CancelledError()
        await self.cancel(call, error)
        raise error

    def running(self, call: OpenCall) -> Enclosing:
        """The time in which a call runs; calls that are made in it are inside of it."""
        first, blocks = call.first, self.intake.blocks
        scope = first or call.asked.scope
        return _EnclosingCall(blocks, self.session, first, self, scope, call, is_call=True)

    def current(self, call: OpenCall) -> Call:
        """Return a call that runs, as its tool sees it."""
        key = call_key(call.answer.session_id or self._session_id, call.first or 0)
        return Call(key, self._session_id, call.first, call.made.name)

    def end(
        self, call: OpenCall, error: BaseException | None, **outcome: Any
    ) -> Coroutine[Any, Any, Action | None]:
        """Record how a call ended: that it returned, failed or was cancelled."""
        return self.end_with(call, error, self.draft(call, error, **outcome))

    def end_with(
        self, call: OpenCall, error: BaseException | None, draft: ActionDraft
    ) -> Coroutine[Any, Any, Action | None]:
        """Record how a call ended with this draft, and return its action; None where the call was
        cancelled."""
        if error is None and self.answers is None:
            return self.recorder.end(draft)
        return self._end_with(call, error, draft)

    async def _end_with(
        self, call: OpenCall, error: BaseException | None, draft: ActionDraft
    ) -> Action | None:
        if error is not None and call.is_cancelled_by(error):
            await self._cancel_with(call, draft, error)
            return None
        if self.answers is not None and call.answer.first is not None:
            try:
                await self.answers.leave(call.answer.first)
            except asyncio.CancelledError as cancelled:
                # Before its end was recorded, which so is none.
                await self._cancel_with(call, draft, cancelled)
                raise
        return await self.recorder.end(draft)

    async def cancel(self, call: OpenCall, error: BaseException) -> None:
        """Record that a call was cancelled."""
        await self._cancel_with(call, self.draft(call, error), error)

    async def _cancel_with(
        self, call: OpenCall, draft: ActionDraft, error: BaseException | None
    ) -> None:
        if self.answers is not None and call.answer.first is not None:
            self.answers.abandon(call.answer.first)
        # An error that a call did not raise has no detail: so a cancellation is told from a call
        # that fails by one of something else.
        facts = self.facts(call, None)
        # A task that is cancelled late ends as cancelled.
        with suppress(StoreClosedError):
            await self.recorder.cancelled(draft._replace(error=_name_of(error), call=facts))

    def draft(
        self,
        call: OpenCall,
        error: BaseException | None,
        *,
        output: object = None,
        reply: Reply | None = None,
        raw: bytes | None = None,
        conversion: int = 0,
    ) -> ActionDraft:
        """Return a call's action."""
        made = call.made
        duration_ms = (time.perf_counter() - call.began) * 1000
        # fmt: off
        fields = (
            made.kind, made.detail, made.input, output, made.frames, duration_ms, call.task, error,
            made.metadata, made.messages, None, reply, conversion, self.facts(call, error), None,
            raw, made.prepared,
        )
        # fmt: on
        draft: ActionDraft = _new(ActionDraft, fields)
        return draft

    def facts(self, call: OpenCall, error: BaseException | None) -> CallFacts:
        """Return what only a call's action has."""
        detail = None if error is None else describe_exception(error, self.intake.limits)
        return call.facts(detail)

    async def make(self, made: MadeCall, run: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call that has one result, and return it or raise its error."""
        call = await self.ask(made)
        if call.answer.action is not None:
            return await self.answered(call.answer.action)
        await self.begin(call)
        try:
            with self.running(call):
                value = await run()
        except ReplayStopped:
            raise
        except BaseException as error:
            await self.end(call, error)
            raise
        await self.end(call, None, output=value)
        return value

    async def answered(self, action: Action) -> Any:
        """Return what a recorded call returned, or raise what it raised."""
        if action.error is not None:
            raise self.raised(action)
        data = await self.recorded_output(action)
        if data is not None and action.conversion & Conversion.OUTPUT_JSON:
            return read_result(data)
        return data

    async def recorded_output(self, action: Action) -> str | bytes | None:
        """Return an action's output."""
        return await self._read(action.output)

    async def recorded_raw(self, action: Action) -> str | bytes | None:
        """Return an action's output as it came from the network."""
        return await self._read(action.raw)

    async def _read(self, content: Content | None) -> str | bytes | None:
        assert self.answers is not None
        return None if content is None else await self.answers.value(content)

    # Tools, and what the agent reads.

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        run: Callable[..., Any],
        *,
        effect: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - its firing is recorded
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """See :meth:`SessionRecorder.call_tool`."""
        if not callable(run):
            raise InvalidValueError(f"run must be callable, not {type(run).__name__}")
        if type(arguments) is not dict and not isinstance(arguments, Mapping):
            raise TypeError(
                f"tool {name!r:.80} is called with a dict of arguments, run(**arguments), "
                f"not {type(arguments).__name__}"
            )
        if not takes_by_name(run, arguments):
            check_fits(run, f"tool {name!r:.80} does not take these arguments", named=arguments)
        prepare_flag(effect, "effect")
        if timeout is not None:
            timeout = prepare_seconds(timeout, "timeout")
        made = await self.made_tool_call(
            name, dict(arguments), task=task, effect=effect, metadata=metadata
        )

        if timeout is None:
            return await self.make(made, lambda: call(run, named=arguments))

        async def make() -> Any:
            async with asyncio.timeout(timeout):
                return await call(run, named=arguments)

        return await self.make(made, make)

    async def made_tool_call(
        self,
        name: str,
        arguments: Any,
        *,
        task: str | None,
        effect: bool,
        metadata: Mapping[str, Any] | None,
    ) -> MadeCall:
        """Return a tool call; its arguments are kept as they are now.

        :raises InvalidValueError, LimitExceededError: when they cannot be recorded.
        """
        limits = limits_for(ActionKind.TOOL_CALL, self.intake.limits)
        detail = (prepare_name(name, "name", limits),)
        prepared = await self._prepared(arguments, limits, rough_size(metadata))
        made = MadeCall(ActionKind.TOOL_CALL, detail, None, prepared, task=task, effect=effect)
        if metadata is not None:
            made.metadata = prepare_metadata(metadata, self.intake.limits)
        return made

    async def _prepared(self, given: Any, limits: Limits, more_bytes: int = 0) -> Prepared | None:
        """Return arguments, or a step's input, as they are recorded; a thread prepares large ones,
        or small ones with much beside them."""
        if rough_size(given) + more_bytes >= LARGE:
            return await self.intake.preparing.run(prepare_arguments, given, limits)
        return prepare_arguments(given, limits)

    async def once(self, name: str, make: Callable[[], Any], *, task: str | None = None) -> Any:
        """See :meth:`SessionRecorder.once`."""
        limits = limits_for(ActionKind.ONCE, self.intake.limits)
        detail = (prepare_name(name, "name", limits),)
        made = MadeCall(ActionKind.ONCE, detail, None, None, task=task, effect=False)
        return await self.make(made, lambda: call(make))

    # Steps.

    @asynccontextmanager
    async def step(self, name: str, given: Any = None) -> AsyncIterator[Step]:
        """See :meth:`SessionRecorder.step`."""
        limits = limits_for(ActionKind.STEP, self.intake.limits)
        detail = (prepare_name(name, "name", limits),)
        prepared = None if given is None else await self._prepared(given, limits)
        made = MadeCall(ActionKind.STEP, detail, None, prepared)
        scope = self._scope()
        asked = AskedCall(self._lanes.nearest(), scope, made.content)
        parent = self.intake.blocks.parent(self.session)
        opened = OpenCall(made, asked, CallAnswer(), parent, self.intake.task_name())
        entered = _EnclosingStep(self.intake.blocks, self.session, None, self, scope, opened=opened)
        step = Step(name)
        if self.answers is None or self.answers.is_live:
            await self._record_step(entered, parent)
        error: BaseException | None = None
        try:
            with entered:
                yield step
        except BaseException as raised:
            error = raised
            raise
        finally:
            await self._end_step(entered, error, step.output)

    async def _find_steps(self, answers: Answers, answer: CallAnswer) -> None:
        """Find which recorded steps the caller is in: those of the recorded call in this place.
        Where there is none, they are recorded now, if they are not yet."""
        enclosing = list(self._enclosing())
        steps = [*_steps_first(enclosing)]
        if answer.is_recorded:
            start = answer.parent
            for one in steps:
                if one.first is None and answers.claim_step(start, one.opened.made.name):
                    one.first, one.opened.parent = start, answers.parent_of(start)
                start = answers.parent_of(one.first)
            return
        outside = enclosing[len(steps) :]
        parent = next((one.first for one in outside if one.first is not None), None)
        for one in reversed(steps):
            await self._record_step(one, parent)
            parent = one.first or parent

    async def _record_step(self, step: _EnclosingStep, parent: int | None) -> None:
        """Record that a step begins, unless it is known; or that of a process that died."""
        async with step.lock:
            if step.first is not None:
                return
            opened = step.opened
            opened.parent = parent
            if self.answers is not None:
                lane = opened.asked.lane.path
                opened.first = self.answers.claim_step_without_calls(parent, lane, opened.made.name)
            if opened.first is None:
                await self.begin(opened)
            step.first = opened.first

    async def _end_step(
        self, step: _EnclosingStep, error: BaseException | None, output: Any
    ) -> None:
        answers, opened = self.answers, step.opened
        if answers is not None:
            # What is there from an earlier run stays as it is. A shutdown decides nothing.
            is_cancelled = error is not None and not isinstance(error, Exception)
            if step.first is None and not is_cancelled:
                # No call was made in it that tells which one it is.
                around = next(self._enclosing(), None)
                is_known = not (isinstance(around, _EnclosingStep) and around.first is None)
                step.first = answers.claim_step_without_calls(
                    around.first if around is not None else None,
                    opened.asked.lane.path,
                    opened.made.name,
                    knows_parent=is_known,
                )
            opened.first = step.first
            if opened.first is None or not answers.is_open_step(opened.first):
                return
            if is_cancelled and not answers.is_live:
                return
        opened.first = step.first
        draft = self.draft(opened, error, output=output)
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            draft = draft._replace(error=_name_of(error), call=self.facts(opened, None))
        await self.recorder.end_step(draft)


def _steps_first(enclosing: Sequence[_EnclosingCall]) -> Iterator[_EnclosingStep]:
    """Yield the steps before the first call."""
    for one in enclosing:
        if not isinstance(one, _EnclosingStep):
            return
        yield one


def _name_of(error: BaseException | None) -> str:
    return "GeneratorExit" if isinstance(error, GeneratorExit) else "CancelledError"


_START_BYTES = 256
