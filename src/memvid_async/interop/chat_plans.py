"""Chat transcripts of agents, as sessions, and back again without a loss.

A run becomes one session. Every turn of the model becomes an ask, whose query is what it answers.
Each of the turn's tool calls, with its result, becomes a tool_call after that ask. All else of the
messages is in the ask's metadata under the key ``imported_chat``; what comes after the last turn,
and the run's other fields, are in the session's. `docs/cli.md` lists the fields.

:func:`plan_run` and :func:`rebuild_run` are pure, and each is the other's inverse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from attrs import Factory, define, field, frozen

from .. import (
    InvalidValueError,
    LimitExceededError,
    Limits,
    MemvidAsyncError,
    check_recordable,
)
from .chat_messages import (
    SEPARATOR,
    Reading,
    ToolCall,
    ToolResult,
    Voice,
    dump,
    find_model,
    read_message,
)
from .transcripts import (
    ChatRun,
    TranscriptError,
)

KEY = "imported_chat"

_NAMELESS = "unnamed"


@frozen
class PlannedAsk:
    """A turn of the model: ``query`` is what it answers, ``response`` what it says.

    The fields are the arguments of ``record_ask``.
    """

    query: str
    response: str
    model: str
    task: str
    metadata: Mapping[str, Any]
    usage: Mapping[str, Any] = {}


@frozen
class PlannedToolCall:
    """A tool call; ``result`` is None where the run has none, ``error`` where it did not fail.

    The fields are the arguments of ``record_tool_call``.
    """

    name: str
    arguments: Any
    result: str | None
    error: str | None
    task: str
    metadata: Mapping[str, Any]


PlannedAction = PlannedAsk | PlannedToolCall


@frozen
class SessionPlan:
    """The session that a run will be recorded as: its name, its metadata and its actions."""

    name: str
    metadata: dict[str, Any]
    actions: list[PlannedAction]
    notes: tuple[str, ...] = ()
    """What was odd about the run, though all of it is recorded."""


@define
class _PlannedCall:
    """A tool call of a turn, and its result with the result's position, once that is found."""

    position: int
    number: int
    asked: ToolCall
    result: ToolResult | None = None
    result_position: int | None = None


@define
class _Turn:
    """A turn of the model: the messages from ``start`` on, and what they say together."""

    start: int
    readings: list[Reading]
    calls: list[_PlannedCall] = field(init=False)

    def __attrs_post_init__(self) -> None:
        calls = [
            (self.start + place, call)
            for place, reading in enumerate(self.readings)
            for call in reading.calls
        ]
        self.calls = [_PlannedCall(p, number, call) for number, (p, call) in enumerate(calls)]

    def response(self) -> str:
        """Return what the model says: text, or with tool calls a JSON object of both."""
        texts = [text for reading in self.readings for text in reading.texts]
        if self.calls:
            said = SEPARATOR.join(texts) if texts else None
            return dump({"content": said, "tool_calls": [call.asked.source for call in self.calls]})
        thoughts = [text for reading in self.readings for text in reading.thoughts]
        return SEPARATOR.join(texts or thoughts)


# --- from a run to actions -----------------------------------------------------------------------


def plan_run(run: ChatRun, limits: Limits | None = None) -> SessionPlan:
    """Plan what to record for a run, checked so that a store with these limits accepts it all.

    :raises TranscriptError: when the run has no turn of a model, holds a value that cannot be
        recorded (a value nested too deep, an integer of thousands of digits) or exceeds a limit.
    """
    limits = limits or Limits()
    place = run.place
    try:
        plan = _Planner(run, limits).plan()
        place = f"{run.place}, after its last turn"
        check_recordable(plan.metadata, limits)
        for planned in plan.actions:
            place = f"{run.place}, message {planned.metadata[KEY]['position']}"
            _check_planned(planned, limits)
    except TranscriptError:
        raise
    except LimitExceededError as error:
        advice = f"{error.value} is above the limit; allow more with --limit {error.limit}=N"
        raise TranscriptError(f"{place}: {advice}") from None
    except MemvidAsyncError as error:
        raise TranscriptError(f"{place}: {error}") from None
    return plan


def _check_planned(planned: PlannedAction, limits: Limits) -> None:
    check_recordable(planned.metadata, limits)
    if isinstance(planned, PlannedAsk):
        texts = [planned.query, planned.response]
    else:
        check_recordable(planned.arguments, limits)
        texts = [planned.result or ""]
    for text in texts:
        size = len(text.encode()) if 4 * len(text) > limits.content_bytes else 0
        if size > limits.content_bytes:
            raise LimitExceededError("content_bytes", size, limits.content_bytes)


@define
class _Planner:
    """Walks over the messages of one run and assigns each to an action or to the session."""

    run: ChatRun
    limits: Limits
    notes: list[str] = Factory(list)
    unanswered: dict[str, list[_PlannedCall]] = Factory(dict)
    """By id as JSON: the calls that wait for a result, the newest last."""
    results: dict[int, list[_PlannedCall]] = Factory(dict)
    """By the position of a message: the calls that it answers."""
    model: str | None = None

    def plan(self) -> SessionPlan:
        messages = [self._recordable(place, value) for place, value in enumerate(self.run.messages)]
        readings = [read_message(message) for message in messages]
        turns = _group(readings)
        if not turns:
            roles = "assistant, ai, gpt or model"
            raise TranscriptError(
                f"{self.run.place}: no message of it is a turn of a model (role {roles}), so there "
                "is nothing to record"
            )
        self._match_results(readings, turns)
        self.model = find_model(self.run.fields)
        actions: list[PlannedAction] = []
        start = 0
        for turn in turns:
            before = readings[start : turn.start]
            self.model = next((r.model for r in reversed(before) if r.model), self.model)
            end = turn.start + len(turn.readings)
            about = {
                "position": turn.start,
                "answers": [
                    _keep_asked(message, reading)
                    for message, reading in zip(messages[start : turn.start], before, strict=True)
                ],
                "turn": _keep_turn(messages[turn.start : end], turn),
                "from": start,
            }
            actions.append(self._ask(turn, before, about))
            actions += [self._tool_call(turn, call) for call in turn.calls]
            start = end
        metadata = self._session_metadata(messages[start:], len(messages))
        notes = (*self.run.notes, *self.notes)
        return SessionPlan(self._session_name(), metadata, actions, notes)

    def _recordable(self, place: int, message: Any) -> Any:
        """Return a message without halves of surrogate pairs, which no encoding has."""
        place_name = f"{self.run.place}, message {place}"
        text = ""
        try:
            text = dump(message)
            text.encode()
        except (TypeError, RecursionError):
            pass  # the check below says what is wrong
        except UnicodeEncodeError:
            self.notes.append(
                f"{place_name}: half of a character (a lone surrogate) was replaced by U+FFFD"
            )
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            message = json.loads(whole)
        try:
            check_recordable(message)
        except InvalidValueError as error:
            raise TranscriptError(f"{place_name}: {error}") from None
        return message

    def _match_results(self, readings: list[Reading], turns: list[_Turn]) -> None:
        """Give each result to its call: the newest with its id; ids may repeat within a run.

        A result without an id belongs to the turn before it, if that has one call without an id
        that waits. Nothing else is guessed.
        """
        starts = {turn.start: turn for turn in turns}
        last: list[_PlannedCall] = []
        for position, reading in enumerate(readings):
            if position in starts:
                last = starts[position].calls
                for call in last:
                    if call.asked.id is not None:
                        self.unanswered.setdefault(dump(call.asked.id), []).append(call)
            # A turn may hold results of its own calls.
            for result in reading.results:
                self._match(result, position, last)

    def _match(self, result: ToolResult, position: int, last: list[_PlannedCall]) -> None:
        if result.id is not None:
            waiting = self.unanswered.get(dump(result.id), [])
            # Of calls that a message makes under one id, the first one is answered first.
            call = next((c for c in waiting if c.position == waiting[-1].position), None)
            if call is not None:
                waiting.remove(call)
        else:
            open_calls = [c for c in last if c.asked.id is None and c.result is None]
            named = [c for c in open_calls if result.name in (None, c.asked.name)]
            call = named[0] if len(named) == 1 else None
        if call is not None:
            call.result, call.result_position = result, position

    def _ask(self, turn: _Turn, before: list[Reading], about: dict[str, Any]) -> PlannedAsk:
        query = SEPARATOR.join(text for reading in before for text in _asked(reading))
        model = next((reading.model for reading in turn.readings if reading.model), self.model)
        usage: dict[str, int] = {}
        for reading in turn.readings:
            usage.update(reading.usage)
        return PlannedAsk(
            query,
            turn.response(),
            self._name(model),
            self._speaker(turn),
            {KEY: about},
            usage,
        )

    def _tool_call(self, turn: _Turn, call: _PlannedCall) -> PlannedToolCall:
        metadata = {"position": call.position, "call": call.number, "id": call.asked.id}
        text = error = None
        if call.result is not None:
            text = call.result.text
            if call.result.failed:
                error = (call.result.reason or text)[: self.limits.error_chars] or "failed"
            metadata["result"] = call.result_position
        return PlannedToolCall(
            self._name(call.asked.name) or _NAMELESS,
            _read_arguments(call.asked.arguments, self.limits),
            text,
            error,
            self._speaker(turn),
            {KEY: metadata},
        )

    def _speaker(self, turn: _Turn) -> str:
        names = (reading.speaker for reading in turn.readings)
        return self._name(next((name for name in names if name), None)) or "assistant"

    def _name(self, value: str | None) -> str:
        return (value or "")[: self.limits.name_chars]

    def _session_name(self) -> str:
        number = "" if self.run.alone else f"#{self.run.number}"
        return self.run.label[: self.limits.name_chars - len(number)] + number

    def _session_metadata(self, messages: list[Any], count: int) -> dict[str, Any]:
        run = self.run
        return {
            KEY: {
                "source": run.source,
                "run": run.number,
                "messages_key": run.messages_key,
                "message_count": count,
                "fields": run.fields,
                "messages": messages,
            }
        }


def _group(readings: list[Reading]) -> list[_Turn]:
    """Return the turns of the model, in order; neighbouring pieces of one turn are together."""
    turns: list[_Turn] = []
    last: Any = None
    for position, reading in enumerate(readings):
        if reading.voice is Voice.MODEL:
            if turns and reading.turn is not None and reading.turn == last:
                turns[-1].readings.append(reading)
            else:
                turns.append(_Turn(position, [reading]))
        last = reading.turn if reading.voice is Voice.MODEL else None
    return [_Turn(turn.start, turn.readings) for turn in turns]


def _asked(reading: Reading) -> tuple[str, ...]:
    """Return the texts of a message that belong to the query."""
    return reading.texts if reading.voice is Voice.ASKED else ()


def _keep_asked(message: Any, reading: Reading) -> dict[str, Any]:
    """Return what is needed to rebuild a message: the query holds its texts, of these lengths."""
    texts = _asked(reading)
    kept = {"fields": message, "lengths": [len(text) for text in texts], "said": []}
    if len(texts) == 1:
        said = [name for name in ("content", "value") if message.get(name) == texts[0]]
        kept["said"] = said
        kept["fields"] = {name: value for name, value in message.items() if name not in said}
    return kept


def _keep_turn(messages: list[Any], turn: _Turn) -> list[dict[str, Any]]:
    """Return what is needed to rebuild the messages of a turn: its response holds the rest.

    It holds the fields of one message in OpenAI's format; others are kept as they are.
    """
    if len(messages) == 1:
        message, response = messages[0], turn.response()
        said = json.loads(response) if turn.calls else {"content": response}
        if all(name in message and _same(message[name], value) for name, value in said.items()):
            rest = {name: value for name, value in message.items() if name not in said}
            return [{"fields": rest, "said": sorted(said)}]
    return [{"fields": message, "said": []} for message in messages]


def _same(left: Any, right: Any) -> bool:
    """Whether two values are the same JSON: 1, 1.0 and True are three values."""
    return dump(left) == dump(right)


def _read_arguments(arguments: Any, limits: Limits) -> Any:
    """Return the value of a call's JSON string, or the string where that cannot be recorded.

    The exact string is kept in the response of the call's turn.
    """
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
            check_recordable(value, limits)
        except (ValueError, RecursionError):
            return arguments
        return value
    return arguments


# --- and back ----------------------------------------------------------------------------------


def rebuild_run(metadata: Mapping[str, Any], actions: Iterable[PlannedAction]) -> Any:
    """Return the JSON value of the run that was planned with this metadata and these actions.

    :raises InvalidValueError: when they are not, or no longer, the whole of an imported run.
    """
    try:
        about = metadata[KEY]
        messages: list[Any] = []
        whole = True
        for planned in actions:
            if isinstance(planned, PlannedAsk):
                asked = planned.metadata[KEY]
                whole = whole and asked["from"] == len(messages)
                messages += _rebuild_asked(asked["answers"], planned.query)
                messages += [_rebuild_turn(kept, planned.response) for kept in asked["turn"]]
        messages += about["messages"]
        whole = whole and len(messages) == about["message_count"]
        key = about["messages_key"]
        value = messages if key is None else {**about["fields"], key: messages}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidValueError(f"not a whole imported run: {error!r}") from None
    if not whole:
        raise InvalidValueError("not a whole imported run: asks of it are missing")
    return value


def _rebuild_asked(answers: Iterable[Mapping[str, Any]], query: str) -> Iterator[Any]:
    start = 0
    for kept in answers:
        if kept["said"]:
            text = query[start : start + kept["lengths"][0]]
            yield {**kept["fields"], **dict.fromkeys(kept["said"], text)}
        else:
            yield kept["fields"]
        start += sum(length + len(SEPARATOR) for length in kept["lengths"])


def _rebuild_turn(kept: Mapping[str, Any], response: str) -> Any:
    if not kept["said"]:
        return kept["fields"]
    said = json.loads(response) if "tool_calls" in kept["said"] else {"content": response}
    return {**kept["fields"], **{name: said[name] for name in kept["said"]}}
