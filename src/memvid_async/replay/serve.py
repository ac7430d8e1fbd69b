"""Serving: a recorded session answers instead of models, tools and searches, as a cassette."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID

from attrs import Factory, frozen

from ..errors import InvalidValueError, NoActiveSessionError, ReplayDivergenceError
from ..events.content import EMPTY
from ..events.event import Action
from ..memory.frame_store import FrameStore
from ..memory.memory_methods import MemoryMethods
from ..memory.store_session import memory_of
from ..recording.call_recorder import CallRecorder
from ..recording.command_intake import CommandIntake
from ..recording.in_force import Block
from ..recording.lanes import Lanes
from ..recording.prepare_values import prepare_metadata
from ..recording.session_calls import SessionCalls
from ..recording.session_recorder import calls_of
from .match import Match
from .matching import RecordedCall
from .past_calls import PastSession, read_past
from .recorded_answers import Read, RecordedAnswers
from .recorded_errors import ErrorTypes, recorded_error
from .resumed import ResumedSession
from .verdicts import ReplayReport, ReplayStep, Verdict, count_verdicts

R = TypeVar("R")

_NOT_OPEN = "the served session is not open; use it in its block"
_NOT_ASKED_FOR = "nobody asked for it"


@frozen
class ServeOptions:
    """How a session is served; checked."""

    errors: ErrorTypes = Factory(lambda: EMPTY)
    match: Match | None = None
    pace: float | None = None
    stall: float = 2.0
    unserved: str = "raise"


class ServedSession(MemoryMethods):
    """A recording that answers calls: ``async with store.serve(session_id) as recorded``.

    It has the calls of a session that records. A call is answered by the recorded one in its place:
    that of its task, its number in it, and the call that it is part of; its content must be equal.
    Answers come in the order in which they were recorded. A call that is not in its place raises
    :class:`ReplayDivergenceError`, which stops the session; so does leaving the block while there
    are calls that nobody has asked for. A call that failed when it was recorded raises its error
    again, which is a :class:`RecordedCallError` too.

    ``live``: where calls that are not recorded run, what makes the session that has them.
    """

    def __init__(
        self,
        intake: CommandIntake,
        read: Read,
        session_id: UUID | None,
        options: ServeOptions,
        live: Callable[[], Awaitable[ResumedSession]] | None = None,
    ) -> None:
        self._intake = intake
        self._read = read
        self._source_id = session_id
        self._options = options
        self._live = live
        self._session: ResumedSession | None = None
        self._past: PastSession | None = None
        self._answers: RecordedAnswers | None = None
        self._calls: SessionCalls | None = None
        self._block: Block | None = None
        self._is_left = False

    async def __aenter__(self) -> Self:
        self._intake.home.check()
        if self._live is not None:
            self._session = session = await self._live()
            self._source_id = self._source_id or session.session_id
            await session.__aenter__()
            self._calls = calls_of(session)
            self._answers, self._past = session.answers, session.past
            self._enter_calls()
            return self
        assert self._source_id is not None
        past: PastSession = await self._read(read_past, self._source_id, self._options.match)
        recorder, lanes = CallRecorder(self._intake, 0), Lanes()
        self._past = past
        self._answers = RecordedAnswers(
            past,
            lanes,
            self._read,
            cancelled=_nothing,
            is_ending=lambda: recorder.is_ending,
            stall=self._options.stall,
            runs_missing=False,
            match=self._options.match,
            pace=self._options.pace,
        )
        self._calls = SessionCalls(
            self._intake,
            0,
            self._source_id,
            lanes=lanes,
            recorder=recorder,
            answers=self._answers,
            raised=lambda action: recorded_error(action, self._options.errors),
        )
        self._block = self._intake.blocks.enter(0, lambda: True)
        self._enter_calls()
        return self

    @property
    def _takes_calls(self) -> bool:
        return self._calls is not None and not self._is_left

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_left = True
        if self._block is not None:
            self._block.leave()
        if self._session is not None:
            await self._session.__aexit__(exc_type, exc, traceback)
        elif self._answers is not None:
            await self._answers.check_end(exc, must_ask=self._options.unserved == "raise")

    def __repr__(self) -> str:
        into = "" if self.session_id is None else f", recording into {self.session_id}"
        left = len(self.unserved)
        calls = "1 call" if left == 1 else f"{left:,} calls"
        source = "nothing" if self._source_id is None else self._source_id
        return f"<ServedSession of {source}: {calls} left{into}>"

    @property
    def session_id(self) -> UUID | None:
        """The new session with all calls, served or run; None where nothing runs."""
        return self._session.session_id if self._session is not None else None

    @property
    def _made(self) -> SessionCalls:
        if self._calls is None:
            raise NoActiveSessionError(_NOT_OPEN)
        return self._calls

    @property
    def _memory(self) -> FrameStore:
        """The memory of the fork in which a call runs that is not recorded."""
        if self._session is None:
            raise InvalidValueError("nothing runs in a session that is only served")
        return memory_of(self._session)

    async def _read_log(self, function: Callable[..., R], *args: Any) -> R:
        found: R = await self._read(function, *args)
        return found

    @property
    def _searches(self) -> list[Action]:
        return [] if self._past is None else self._past.searches

    # A call whose tool only a recording needs to know.

    @overload
    async def call_tool(
        self,
        name: str,
        arguments: Any,
        run: Callable[..., Coroutine[Any, Any, R]],
        *,
        effect: bool = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> R: ...
    @overload
    async def call_tool(
        self,
        name: str,
        arguments: Any,
        run: Callable[..., R],
        *,
        effect: bool = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> R: ...
    @overload
    async def call_tool(
        self,
        name: str,
        arguments: Any,
        run: None = ...,
        *,
        effect: bool = ...,
        timeout: float | None = ...,  # noqa: ASYNC109
        task: str | None = ...,
        metadata: Mapping[str, Any] | None = ...,
    ) -> Any: ...
    async def call_tool(
        self,
        name: str,
        arguments: Any,
        run: Callable[..., Any] | None = None,
        *,
        effect: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109 - its firing is recorded
        task: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Any:
        """Return the recorded result of a tool call. The tool is not run.

        ``run``: called as ``run(**arguments)`` where the recording has no answer, with
        ``missing="run"``. See :meth:`SessionRecorder.call_tool` for the rest.

        :raises TypeError: when ``run`` does not take these arguments, or they are not a dict.
        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        calls = self._made
        if run is not None:
            return await calls.call_tool(
                name, arguments, run, effect=effect, timeout=timeout, task=task, metadata=metadata
            )
        made = await calls.made_tool_call(
            name, arguments, task=task, effect=effect, metadata=metadata
        )

        async def missing() -> Any:
            raise InvalidValueError("a call that is not recorded needs run")

        return await calls.make(made, missing)

    async def annotate(self, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata of the new session; where nothing runs, only check the metadata.

        :raises InvalidValueError, LimitExceededError: as :meth:`SessionRecorder.annotate` does.
        """
        if self._calls is None:
            raise NoActiveSessionError(_NOT_OPEN)
        if self._session is not None:
            await self._session.annotate(metadata)
        else:
            await self._intake.preparing.run(prepare_metadata, metadata, self._intake.limits)

    # What was served.

    @property
    def unserved(self) -> tuple[Action, ...]:
        """The recorded calls that no live call has asked for so far."""
        return () if self._answers is None else self._answers.unserved

    def report(self) -> ReplayReport:
        """Return the verdicts so far on all recorded actions.

        :raises InvalidValueError: when there is no recording, before the block is entered.
        """
        if self._source_id is None:
            raise InvalidValueError("a new session has nothing to report before it is entered")
        left = {action.sequence for action in self.unserved}
        called = set() if self._past is None else self._past.called
        steps = []
        for action in self._past.recording.actions if self._past is not None else ():
            if action.sequence not in called:
                why = f"this {action.kind} was not made as a call"
                steps.append(ReplayStep(action.index, action, Verdict.SKIPPED, why))
            elif action.sequence in left:
                steps.append(ReplayStep(action.index, action, *self._verdict(action)))
            else:
                steps.append(ReplayStep(action.index, action, Verdict.SERVED))
        counts = count_verdicts(step.verdict for step in steps)
        return ReplayReport(self._source_id, counts, tuple(steps))

    def _verdict(self, action: Action) -> tuple[Any, ...]:
        """Return what is said of an action that nobody asked for."""
        error = None if self._answers is None else self._answers.handover.error
        if isinstance(error, ReplayDivergenceError) and error.nearest is action:
            return Verdict.DIVERGED, str(error), error.differences
        return Verdict.SKIPPED, _NOT_ASKED_FOR


async def _nothing(_: RecordedCall) -> None:
    """A served recording does not change."""
