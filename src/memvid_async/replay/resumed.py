"""Resuming a session: what had finished is answered from the recording, then it goes on live."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from attrs import Factory, frozen

from ..core.commands import NoteEvent, ResumeSession
from ..engine.engine import Engine
from ..engine.event_log import View
from ..engine.reading import decode_arguments
from ..errors import SessionActiveError, UncertainCallError
from ..events.calls import ActionStarted, CallFacts, SessionResumed, call_key
from ..events.details import ActionKind
from ..events.event import Action
from ..memory.frame_store import FrameStore
from ..memory.store_session import StoreSession
from ..recording.action_draft import ActionDraft
from ..recording.call_recorder import CallRecorder, runs_already
from ..recording.command_intake import CommandIntake
from ..recording.error_details import describe_exception
from ..recording.lanes import Lanes
from ..recording.model_calls import outcome_of
from ..recording.session_calls import SessionCalls
from .history import PastCall
from .match import Match
from .matching import RecordedCall
from .past_calls import PastSession, read_past
from .recorded_answers import Read, RecordedAnswers
from .recorded_errors import ErrorTypes, recorded_error
from .uncertain import Failed, Policy, Result, UncertainCall, decide


@frozen
class ResumeOptions:
    """How a session is resumed; checked."""

    uncertain: Policy = "raise"
    stall: float = 10.0
    errors: ErrorTypes = Factory(dict)
    match: Match | None = None
    pace: float | None = None


class ResumedSession(StoreSession):
    """A session whose agent runs again from its start."""

    def __init__(
        self,
        engine: Engine,
        memory: FrameStore,
        intake: CommandIntake,
        command: ResumeSession,
        options: ResumeOptions,
    ) -> None:
        super().__init__(engine, memory, intake, command)
        self._read: Read = engine.read
        self._options = options
        self.answers: RecordedAnswers | None = None
        self.past: PastSession | None = None

    async def _make_calls(self, number: int) -> SessionCalls:
        recorder = CallRecorder(self._intake, number, self.session_id)
        if not recorder.lock():
            raise SessionActiveError(runs_already(self.session_id))
        try:
            return await self._resume(number, recorder)
        except BaseException:
            recorder.unlock()
            raise

    async def _resume(self, number: int, recorder: CallRecorder) -> SessionCalls:
        match = self._options.match
        past: PastSession = await self._read(read_past, self.session_id, match)
        in_flight = past.uncertain()
        policy = self._options.uncertain
        calls = [await self._read(_uncertain_call, self.session_id, call) for call in in_flight]
        if calls and policy == "raise":
            raise UncertainCallError(calls)
        steps = [one for one in past.open_steps() if one.is_cancelled]
        again = [(one.start, one.info.time_ns) for one in past.history.reopened]
        again += [(one.start, one.time_ns) for one in steps]
        note = SessionResumed(past.last, tuple(sorted(again)))
        await self._intake.submit(NoteEvent(number, note))
        settled_by = "run" if policy == "run" else getattr(policy, "__qualname__", "a policy")
        is_settled = False
        if callable(policy):
            for call, known in zip(calls, in_flight, strict=True):
                if past.is_inside(known, past.settled):
                    continue
                decision = await decide(policy, call)
                if isinstance(decision, Result):
                    await self._settle(known, settled_by, recorder, output=decision.value)
                elif isinstance(decision, Failed):
                    await self._settle(known, settled_by, recorder, error=decision.error)
                else:
                    continue
                past.settled.add(known.start)
                is_settled = True
        if is_settled:
            past = await self._read(read_past, self.session_id, match)
        recorder.go_on(past.last)
        lanes = Lanes()
        self.past = past
        self.answers = RecordedAnswers(
            past,
            lanes,
            self._read,
            cancelled=self._cancelled(past, recorder),
            is_ending=lambda: recorder.is_ending,
            stall=self._options.stall,
            runs_missing=True,
            settled_by=settled_by,
            match=match,
            pace=self._options.pace,
        )
        return SessionCalls(
            self._intake,
            number,
            self.session_id,
            lanes=lanes,
            recorder=recorder,
            answers=self.answers,
            raised=self._raised,
        )

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        answers = self.answers
        if answers is not None:
            self._entered_block().is_replaying = lambda: not answers.is_live
        return self

    def _raised(self, action: Action) -> BaseException:
        return recorded_error(action, self._options.errors)

    @property
    def _searches(self) -> list[Action]:
        return [] if self.past is None else self.past.searches

    # What is recorded of calls that were in flight.

    async def _settle(
        self,
        call: PastCall,
        settled_by: str,
        recorder: CallRecorder,
        *,
        output: Any = None,
        error: Exception | None = None,
    ) -> None:
        """Record how a call ended, as somebody decided."""
        detail = None if error is None else describe_exception(error, self._intake.limits)
        facts = CallFacts(call.start, error_detail=detail, settled_by=settled_by)
        draft = await self._draft(call, facts, output=output, error=error)
        await recorder.end(draft)

    async def _draft(self, call: PastCall, facts: CallFacts, **outcome: Any) -> ActionDraft:
        start: ActionStarted = call.info
        given = await self._read(_input, start)
        details = start.details
        if start.kind is ActionKind.ASK:
            detail: tuple[Any, ...] = (details.provider, details.model)  # type: ignore[union-attr]
        else:
            detail = (details.name,)  # type: ignore[union-attr]
        return ActionDraft(start.kind, detail, given, task=start.task, call=facts, **outcome)

    def _cancelled(
        self, past: PastSession, recorder: CallRecorder
    ) -> Callable[[RecordedCall], Awaitable[None]]:
        async def record(recorded: RecordedCall) -> None:
            call = past.history.calls[recorded.start]
            if call.action is not None and call.end is not None:
                await recorder.dropped(call.action.sequence)
                return
            came = await outcome_of(call.texts, self._intake.limits) if call.texts else {}
            facts = CallFacts(call.start)
            draft = await self._draft(call, facts, error="CancelledError", **came)
            await recorder.cancelled(draft)

        return record

    # Leaving.

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.answers is not None:
                await self.answers.check_end(exc)
                if self.answers.has_diverged:
                    # It stays open for the agent that it is of.
                    self._entered_block().leave()
                    return
            await super().__aexit__(exc_type, exc, traceback)
        except BaseException:
            if self._block is not None:
                self._block.leave()
            raise
        finally:
            if self._calls is not None:
                self._calls.recorder.unlock()


def _input(view: View, start: ActionStarted) -> Any:
    if start.input is None:
        return None
    if start.kind is ActionKind.ASK:
        return view.value(start.input)
    return decode_arguments(view, start)


def _uncertain_call(view: View, session_id: Any, call: PastCall) -> UncertainCall:
    start: ActionStarted = call.info
    details: Any = start.details
    name = details.model if start.kind is ActionKind.ASK else details.name
    return UncertainCall(
        call_key(start.session_id or session_id, call.start),
        start.kind,
        name,
        _input(view, start),
        start.task,
        start.time_ns,
        call.tries,
        tuple(call.texts),
    )
