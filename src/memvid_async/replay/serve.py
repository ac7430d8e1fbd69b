"""Serving: a recorded session answers instead of models, tools and searches, as a cassette."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from attrs import Factory, frozen

from ..errors import InvalidValueError, NoActiveSessionError, ReplayDivergenceError
from ..events.content import EMPTY, Content
from ..events.details import ActionKind, FindDetails
from ..events.event import Action
from ..events.prompts import Prompt
from ..recording.call_methods import CallMethods
from ..recording.call_recorder import CallRecorder
from ..recording.callables import call
from ..recording.command_intake import CommandIntake
from ..recording.lanes import Lanes
from ..recording.model_calls import call_model, stream_model
from ..recording.prepare_values import prepare_content, prepare_frames
from ..recording.replies import Model, check_model
from ..recording.session_calls import MadeCall, SessionCalls
from ..recording.session_recorder import SessionRecorder, calls_of
from .match import Match
from .matching import RecordedCall
from .past_calls import PastSession, read_past
from .recorded import read_text
from .recorded_answers import Read, RecordedAnswers
from .recorded_errors import ErrorTypes, recorded_error
from .resumed import ResumedSession
from .verdicts import ReplayReport, ReplayStep, Verdict, count_verdicts

# Kinds of actions of which the report says whether they were asked for.
_ASKED = (ActionKind.ASK, ActionKind.FIND, ActionKind.TOOL_CALL, ActionKind.ONCE)
_NOT_ASKED_FOR = "nobody asked for it"


@frozen
class ServeOptions:
    """How a session is served; checked."""

    errors: ErrorTypes = Factory(lambda: EMPTY)
    match: Match | None = None
    stall: float = 2.0
    unserved: str = "raise"


class ServedSession(CallMethods):
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
        live: Callable[[], Any] | None = None,
    ) -> None:
        self._intake = intake
        self._read = read
        self._source_id = session_id
        self._options = options
        self._live = live
        self._session: SessionRecorder | None = None
        self._past: PastSession | None = None
        self._answers: RecordedAnswers | None = None
        self._calls: SessionCalls | None = None
        self._is_left = False

    async def __aenter__(self) -> Self:
        self._intake.home.check()
        if self._live is not None:
            self._session = await self._live()
            assert self._session is not None
            await self._session.__aenter__()
            self._calls = calls_of(self._session)
            if isinstance(self._session, ResumedSession):
                self._answers, self._past = self._session.answers, self._session.past
            self._enter_calls()
            return self
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
        )
        assert self._source_id is not None
        self._calls = SessionCalls(
            self._intake,
            0,
            self._source_id,
            lanes=lanes,
            recorder=recorder,
            answers=self._answers,
            raised=lambda action: recorded_error(action, self._options.errors),
            value=self._value,
        )
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
        if self._session is not None:
            await self._session.__aexit__(exc_type, exc, traceback)
        elif self._answers is not None:
            await self._answers.check_end(exc, must_ask=self._options.unserved == "raise")

    def __repr__(self) -> str:
        into = "" if self.session_id is None else f", recording into {self.session_id}"
        source = "an empty recording" if self._source_id is None else self._source_id
        return f"<ServedSession of {source}: {len(self.unserved):,} calls left{into}>"

    @property
    def session_id(self) -> UUID | None:
        """The new session with all calls, served or run; None where nothing runs."""
        return self._session.session_id if self._session is not None else None

    @property
    def _made(self) -> SessionCalls:
        if self._calls is None:
            raise NoActiveSessionError("the served session is not open; use it in its block")
        return self._calls

    async def _value(self, content: Content | None) -> str | bytes | None:
        found: str | bytes | None = await self._read(read_text, content)
        return found

    # The calls that only the recording knows how to answer.

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
        made = calls.made_tool_call(name, arguments, task=task, effect=effect, metadata=metadata)

        async def missing() -> Any:
            raise InvalidValueError("a call that is not recorded needs run")

        return await calls.make(made, missing)

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
        recording has no answer, with ``missing="run"``.

        :raises TypeError: when ``generate`` does not take one argument.
        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        made, prompt = self._asked(query, provider, model, messages, retrieved_frames, task)
        found = await call_model(self._made, made, prompt, _needed(generate))
        return found.text

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
        """Yield the response that :meth:`ask` returns in its recorded chunks.

        A response that failed half-way is yielded up to there.

        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        made, prompt = self._asked(query, provider, model, messages, retrieved_frames, task)
        chunks = stream_model(self._made, made, prompt, _needed(generate))
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _asked(
        self,
        query: str | bytes,
        provider: str | None,
        model: str | None,
        messages: Sequence[Any] | None,
        retrieved_frames: Iterable[int] | None,
        task: str | None,
    ) -> tuple[MadeCall, Prompt]:
        frames = None if retrieved_frames is None else tuple(retrieved_frames)
        said = [] if messages is None else list(messages)
        if not isinstance(query, (str, bytes)):
            raise InvalidValueError(f"query must be str or bytes, not {type(query).__name__}")
        facts: dict[str, Any] = {"provider": provider, "model": model, "messages": messages}
        facts["retrieved_frames"] = frames
        made = MadeCall(
            ActionKind.ASK,
            (provider, model),
            query,
            prepare_content(query, "query", self._intake.limits),
            {name: value for name, value in facts.items() if value is not None},
            task,
            said,
            frames=frames or (),
        )
        return made, Prompt(query, None, said)

    async def find(
        self,
        query: str | bytes,
        *,
        mode: str | None = None,
        run: Callable[..., Any] | None = None,
        task: str | None = None,
    ) -> FindDetails:
        """Return what a recorded search found. A ``mode`` of None is not compared.

        ``run``: called as ``run(query)`` where the recording has no answer, with ``missing="run"``;
        it returns the ids of the frames that it found.

        :raises ReplayDivergenceError, RecordedCallError: see the class.
        """
        calls = self._made
        made = MadeCall(
            ActionKind.FIND,
            (),
            query,
            prepare_content(query, "query", self._intake.limits),
            {} if mode is None else {"mode": mode},
            task,
            effect=False,
        )
        opened = await calls.ask(made)
        if opened.answer.action is not None:
            action = opened.answer.action
            await calls.answered(action)
            assert isinstance(action.details, FindDetails)
            return action.details
        if run is None:
            raise RuntimeError("a search that is not recorded needs run")
        frames = prepare_frames(await call(run, (query,)), self._intake.limits)
        made.frames, made.detail = frames, (mode or "", len(frames))
        await calls.recorder.end(calls.draft(opened, None))
        return FindDetails(mode or "", len(frames), frames)

    # What was served.

    @property
    def unserved(self) -> tuple[Action, ...]:
        """The recorded calls that no live call has asked for so far."""
        return () if self._answers is None else self._answers.unserved

    def report(self) -> ReplayReport:
        """Return the verdicts so far on all recorded actions."""
        session_id = self._source_id or self.session_id
        assert session_id is not None
        left = {action.sequence for action in self.unserved}
        steps = []
        for action in self._past.recording.actions if self._past is not None else ():
            if action.kind not in _ASKED:
                why = f"a {action.kind} is not a call"
                steps.append(ReplayStep(action.index, action, Verdict.SKIPPED, why))
            elif action.sequence in left:
                steps.append(ReplayStep(action.index, action, *self._verdict(action)))
            else:
                steps.append(ReplayStep(action.index, action, Verdict.SERVED))
        counts = count_verdicts(step.verdict for step in steps)
        return ReplayReport(session_id, counts, tuple(steps))

    def _verdict(self, action: Action) -> tuple[Any, ...]:
        """Return what is said of an action that nobody asked for."""
        error = None if self._answers is None else self._answers.handover.error
        if isinstance(error, ReplayDivergenceError) and error.nearest is action:
            return Verdict.DIVERGED, str(error), error.differences
        return Verdict.SKIPPED, _NOT_ASKED_FOR


async def _nothing(_: RecordedCall) -> None:
    """A served recording does not change."""


def _needed(generate: Model | None) -> Model:
    """Return a model; without one, one that says that it is missing."""
    if generate is not None:
        check_model(generate)
        return generate

    def missing(_: Prompt) -> str:
        raise InvalidValueError("a call that is not recorded needs generate")

    return missing
