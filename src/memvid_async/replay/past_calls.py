"""The calls of a recorded session, read for serving them: who made each, and what became of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any
from uuid import UUID

from attrs import Factory, define

from ..engine.event_log import View
from ..engine.reading import decode_arguments, session_history
from ..errors import SessionNotFoundError
from ..events.calls import (
    ActionStarted,
    AnswerDropped,
    ChunksCame,
    LanePath,
    SessionResumed,
    SessionSuspended,
)
from ..events.content import Content
from ..events.details import ActionKind, AskDetails, Details, FindDetails, PutManyDetails
from ..events.event import Action, ActionRecorded, CheckpointCreated, Event, SessionEnded
from ..events.message_digests import value_digest
from ..recording.lanes import chosen_name
from .facts import details_fields
from .history import History, PastCall
from .match import DATA_IS_A_FACT, Match, compared_content, compared_facts
from .matching import UNKNOWN
from .recorded import RecordedSession, read_text
from .recorded_errors import import_types

CALLS = (
    ActionKind.ASK,
    ActionKind.FIND,
    ActionKind.TOOL_CALL,
    ActionKind.ONCE,
    ActionKind.PUT,
    ActionKind.PUT_MANY,
    ActionKind.UPDATE,
    ActionKind.DELETE,
)
"""The kinds of actions that are calls; a step encloses some, and a checkpoint is due by itself."""

# Those of a session in which nothing was made as a call.
_RECORDED_CALLS = (ActionKind.ASK, ActionKind.FIND, ActionKind.TOOL_CALL)
_CANCELLED = ("CancelledError", "GeneratorExit")
_INTERRUPTED = "builtins.KeyboardInterrupt"
_SEARCH_FACTS = ("mode", "top_k", "filters", "syntax")


@define(eq=False)
class PastStep:
    """A recorded step: where it began, what it is part of, and how it ended, if it did."""

    start: int
    time_ns: int
    parent: int | None
    lane: LanePath
    name: str
    end: int | None = None
    is_cancelled: bool = False


@define
class PastSession:
    """A recorded session, and its calls.

    ``last``: the sequence of its last event. ``settled``: calls in flight of which somebody decided
    how they ended. ``is_flat``: it has only what ``record_…`` recorded, which knows
    no more of a task than its name. ``loose``: what ``record_…`` recorded.
    """

    recording: RecordedSession
    history: History = Factory(History)
    is_flat: bool = True
    has_ended: bool = False
    last: int = 0
    settled: set[int] = Factory(set)
    _sequences: dict[int, int] = Factory(dict)
    steps: dict[int, PastStep] = Factory(dict)
    loose: set[int] = Factory(set)
    _unnamed: dict[str | None, int] = Factory(dict)
    _with_calls: set[int] | None = None
    _last_ns: int = 0

    def scope(self, parent: int | None) -> int:
        """Return the start of the call that encloses what has this parent; 0 for none."""
        while parent and parent not in self.history.calls:
            step = self.steps.get(parent)
            parent = None if step is None else step.parent
        return parent or 0

    def open_steps(self) -> list[PastStep]:
        """Return the steps of which nobody said how they ended, in order. One that was cancelled,
        and after which the agent did not go on, is open again, as a call is."""
        since = self.history.went_on
        return [
            step
            for step in self.steps.values()
            if step.end is None or (step.is_cancelled and step.end > since)
        ]

    def steps_without_calls(self) -> list[PastStep]:
        """Return the steps that nothing but their place tells apart, in order: no call is part of
        them, or they are open."""
        if self._with_calls is None:
            self._with_calls = set()
            for call in self.history.calls.values():
                above = self.steps.get(call.info.parent or 0)
                while above is not None and above.start not in self._with_calls:
                    self._with_calls.add(above.start)
                    above = self.steps.get(above.parent or 0)
        with_calls = self._with_calls - {step.start for step in self.open_steps()}
        return [step for step in self.steps.values() if step.start not in with_calls]

    def add(self, event: Event) -> None:
        """Take in the next event."""
        payload = event.payload
        if isinstance(payload, ActionStarted):
            self._begin(payload, event)
        elif isinstance(payload, ChunksCame):
            self._pass_on(payload, event)
        elif isinstance(payload, ActionRecorded):
            self._record(payload.action, event)
            if payload.messages is not None:
                self.recording.messages[payload.action.index] = payload.messages
        elif isinstance(payload, CheckpointCreated):
            self.recording.add(payload.action)
            self.recording.checkpoints[payload.action.index] = payload.checkpoint
        elif isinstance(payload, AnswerDropped):
            start = self._sequences.get(payload.action_sequence)
            if start is not None:
                action = self.history.calls[start].action
                self.history.ended(start, event.sequence, action, "cancelled", is_cancelled=True)
        elif isinstance(payload, SessionSuspended):
            self.history.suspended(payload.since)
        elif isinstance(payload, SessionResumed):
            self._resume(payload)
        elif isinstance(payload, SessionEnded):
            self.history.session_ended(event.sequence)
            self.has_ended = True
        self._last_ns, self.last = event.time_ns, event.sequence

    def _pass_on(self, came: ChunksCame, event: Event) -> None:
        call = self.history.calls.get(came.started)
        if call is not None:
            call.chunks.append((event.sequence, came.seen, came.first + len(came.chunks)))
            call.texts[came.first :] = came.chunks

    def _resume(self, resumed: SessionResumed) -> None:
        self.history.resumed()
        for start, _ in resumed.reopened:
            if start in self.steps:
                self.steps[start].end = None

    def finish(self) -> None:
        """Leave out what was recorded by ``record_…`` beside calls: another run does that again."""
        if not self.is_flat:
            for start in self.loose:
                del self.history.calls[start]

    @property
    def called(self) -> set[int]:
        """The sequences of the actions that calls are answered with."""
        actions = (call.action for call in self.history.calls.values())
        return {action.sequence for action in actions if action is not None}

    @property
    def searches(self) -> list[Action]:
        """The actions that searched the store's memory."""
        return [one for one in self.recording.actions if one.retrieval is not None]

    def uncertain(self) -> list[PastCall]:
        """Return the calls in flight that may have had an effect, in order of their starts."""
        self.history.recorded()
        return [call for call in self.history.calls.values() if self._is_uncertain(call)]

    def _is_uncertain(self, call: PastCall) -> bool:
        if call.end is not None or call.texts:
            return False
        return not call.scope or self._runs_again(self.history.calls[call.scope])

    def _runs_again(self, call: PastCall) -> bool:
        while call.end is None and call.scope:
            call = self.history.calls[call.scope]
        return call.end is None

    def is_inside(self, call: PastCall, settled: set[int]) -> bool:
        """Whether a call is part of one of these."""
        while call.scope:
            if call.scope in settled:
                return True
            call = self.history.calls[call.scope]
        return False

    def _begin(self, start: ActionStarted, event: Event) -> None:
        self.is_flat = False
        if start.first is not None:
            self.history.began_again(start.first, event.sequence)
        elif start.kind is ActionKind.STEP:
            details: Any = start.details
            self.steps[event.sequence] = PastStep(
                event.sequence, event.time_ns, start.parent, start.lane, details.name
            )
        else:
            self.history.began(
                PastCall(
                    event.sequence,
                    start.lane,
                    start.seen,
                    self.scope(start.parent),
                    content_of(start.kind, start.details, start.input),
                    _compared_start(start),
                    start,
                    max(0, event.time_ns - self._last_ns) / 1e9,
                )
            )

    def _record(self, action: Action, event: Event) -> None:
        self.recording.add(action)
        detail = action.error_detail
        # What a call raised itself has a detail, also where it is a cancellation of something else.
        is_cancelled = detail is None and action.error in _CANCELLED
        is_interrupted = detail is not None and detail.type_name == _INTERRUPTED
        step = self.steps.get(action.started or 0)
        if step is not None:
            step.end, step.is_cancelled = event.sequence, is_cancelled or is_interrupted
        if action.kind not in CALLS:
            return
        facts, start = action.call, action.started
        if start is None:
            start, lane = event.sequence, facts.lane
            if lane is not None:
                self.is_flat = False
            elif action.kind in _RECORDED_CALLS:
                lane = self._flat_lane(action.task)
                self.loose.add(start)
            else:
                return
            self.history.began(
                PastCall(
                    start,
                    lane,
                    facts.seen,
                    self.scope(facts.parent),
                    content_of(action.kind, action.details, action.input),
                    {},
                    action,
                ),
                is_cancelled=is_cancelled or is_interrupted,
            )
        call = self.history.calls.get(start)
        if call is not None:
            call.facts = _compared(action)
        answer = (action.error, None if action.output is None else action.output.digest)
        self.history.ended(
            start,
            event.sequence,
            action,
            answer,
            is_cancelled=is_cancelled,
            is_interrupted=is_interrupted,
        )
        self._sequences[event.sequence] = start

    def _flat_lane(self, task: str | None) -> LanePath:
        name = chosen_name(task)
        if name is not None:
            return (name,)
        return (self._unnamed.setdefault(task, len(self._unnamed)),)


def _compare(match: Match, view: View, recording: RecordedSession, call: PastCall) -> None:
    """Let a caller say what is compared of a call."""
    info = call.action or call.info
    if info.kind is ActionKind.TOOL_CALL:
        given = decode_arguments(view, info)
    else:
        given = None if info.kind in DATA_IS_A_FACT else read_text(view, info.input)
    kind, name, _ = call.content
    call.content = compared_content(match, kind, name, given)
    facts: dict[str, Any] = {name: value for name, value in call.facts.items() if name != "name"}
    kept = {n: value for n, value in facts.items() if value is UNKNOWN or n == "messages_digest"}
    facts = {name: value for name, value in facts.items() if name not in kept}
    action = call.action
    if action is not None and facts.get("messages") is not None:
        facts["messages"] = recording.read_messages(view, action)
    if action is not None and facts.get("data") is not None:
        facts["data"] = read_text(view, action.input)
    if action is not None and facts.get("filters") is not None:
        facts["filters"] = dict(action.retrieval.parameters)
    call.facts = {**compared_facts(match, kind, facts), **kept}


def content_of(kind: ActionKind, details: Details, given: Content | None) -> Hashable:
    """Return what is always compared of a call: its kind, the name of its tool, and its input."""
    digest = None if given is None or kind in DATA_IS_A_FACT else given.digest
    return kind, getattr(details, "name", None), digest


def _compared(action: Action) -> Mapping[str, Hashable]:
    """Return what is compared where the live call says it."""
    details, kind = action.details, action.kind
    facts: dict[str, Any] = dict(details_fields(details))
    if isinstance(details, PutManyDetails):
        facts["count"] = len(details.frame_ids) if action.error is None else UNKNOWN
    elif kind in DATA_IS_A_FACT:
        facts["data"] = None if action.input is None else action.input.digest
        if action.error is not None and action.input is None:
            facts["data"] = UNKNOWN
    elif isinstance(details, (AskDetails, FindDetails)):
        facts |= _searched(action)
    return facts


def _compared_start(start: ActionStarted) -> Mapping[str, Hashable]:
    """Return what is compared of a call in flight. Its messages are recorded with its end, so they
    are known by their digest alone."""
    details = start.details
    if not isinstance(details, AskDetails):
        return {}
    return {
        "provider": details.provider,
        "model": details.model,
        "messages_digest": start.messages_digest,
    }


def _searched(action: Action) -> dict[str, Any]:
    """Return what is compared of how an action searched the memory."""
    retrieval = action.retrieval
    if retrieval is not None:
        return {
            "mode": retrieval.mode,
            "top_k": retrieval.top_k,
            "filters": value_digest(dict(retrieval.parameters)),
            "syntax": retrieval.syntax,
        }
    is_call = action.started is not None or action.call.lane is not None
    if is_call and action.error is None:
        # A model that was asked by itself.
        return {}
    return dict.fromkeys(_SEARCH_FACTS, UNKNOWN)


def read_past(view: View, session_id: UUID, match: Match | None = None) -> PastSession:
    """Read a session and its calls. ``match``: what is compared of them.

    :raises SessionNotFoundError: when there is none with this id.
    :raises CorruptFileError: when it cannot be read.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    past = PastSession(RecordedSession(session_id))
    for event in session_history(view, found.info.number):
        past.add(event)
    past.finish()
    recording = past.recording
    import_types(a.error_detail for a in recording.actions if a.error_detail is not None)
    digests = {a.sequence: recording.messages_digest(view, a) for a in recording.actions}
    for call in past.history.calls.values():
        action = call.action
        if action is not None and action.sequence in digests:
            said: Any = digests[action.sequence]
            if said is None and (call.is_cancelled or action.call.settled_by is not None):
                # Its end was recorded by a resume, which did not know what was asked.
                said = UNKNOWN
            # What ``match`` leaves of them, and what a recorded ask was asked, is compared itself.
            is_whole = match is None and action.sequence not in past.loose
            digest = said if is_whole else UNKNOWN
            call.facts = {**call.facts, "messages": said, "messages_digest": digest}
        if match is not None:
            _compare(match, view, recording, call)
    return past
