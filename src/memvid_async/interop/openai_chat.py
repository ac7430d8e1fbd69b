"""Chat transcripts in the OpenAI message format, as sessions, and back again without a loss.

A run becomes one session. Every assistant turn becomes an ask. Each of its tool calls, with its
result, becomes a tool_call after that ask. All other fields and messages are kept in metadata, with
their position among the messages: in that of the action they belong to, or else of the session.
This module keeps everything under the metadata key ``openai_chat``; `docs/cli.md` lists the fields.

:func:`plan_run` and :func:`rebuild_run` are pure, and each is the other's inverse.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import aiofiles
from anyio import to_thread
from attrs import Factory, define, frozen

from .. import (
    AskDetails,
    Content,
    InvalidValueError,
    LimitExceededError,
    Limits,
    MemvidAsyncError,
    Store,
    ToolCallDetails,
    check_recordable,
)
from .transcripts import (
    MAX_TRANSCRIPT_BYTES,
    ChatRun,
    Transcript,
    TranscriptError,
    open_transcripts,
    parse_runs,
    short_label,
)

KEY = "openai_chat"
SEPARATOR = "\n\n"
"""Stands between the texts of a query that joins several messages, and of a result in parts."""

_ANSWERED_ROLES = ("user", "tool", "function")
_RESULT_ROLES = ("tool", "function")
_NAMELESS = "unnamed"
_OPEN_CALLS = 4096  # a result is matched with one of the newest unanswered calls, at most this many
_MODEL_PATHS = (
    ("model",),
    ("extra", "response", "model"),
    ("info", "config", "model", "model_name"),
)


@frozen
class PlannedAsk:
    """An assistant turn: ``query`` is what it answers, ``response`` its content and tool calls.

    The fields are the arguments of ``record_ask``.
    """

    query: str
    response: str
    model: str
    task: str
    metadata: Mapping[str, Any]


@frozen
class PlannedToolCall:
    """A tool call; ``result`` is None where the run has none.

    The fields are the arguments of ``record_tool_call``.
    """

    name: str
    arguments: Any
    result: str | None
    task: str
    metadata: Mapping[str, Any]


PlannedAction = PlannedAsk | PlannedToolCall


@frozen
class SessionPlan:
    """The session that a run will be recorded as: its name, its metadata and its actions."""

    name: str
    metadata: dict[str, Any]
    actions: list[PlannedAction]


@define
class _Call:
    """A tool call of an assistant turn, and the position of its result, once that is found."""

    position: int
    number: int
    id: Any
    name: str
    arguments: Any
    result_position: int | None = None


# --- the texts of a message, and the rest of it ------------------------------------------------


def _split_texts(message: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Split a message into the texts of its content, and what is needed to rebuild it from them."""
    content = message.get("content")
    rest = {name: value for name, value in message.items() if name != "content"}
    if isinstance(content, str):
        return [content], {"lengths": [len(content)], "fields": rest}
    if not isinstance(content, list):
        return [], {"lengths": [], "fields": dict(message)}
    texts, parts, places = [], [], []
    for place, part in enumerate(content):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            texts.append(part["text"])
            places.append(place)
            parts.append({name: value for name, value in part.items() if name != "text"})
        else:
            parts.append(part)
    lengths = [len(text) for text in texts]
    return texts, {"lengths": lengths, "parts": places, "fields": {**rest, "content": parts}}


def _join_texts(texts: list[str], kept: Mapping[str, Any]) -> dict[str, Any]:
    message = dict(kept["fields"])
    if "parts" in kept:
        content = list(message["content"])
        for place, text in zip(kept["parts"], texts, strict=True):
            content[place] = {**content[place], "text": text}
        message["content"] = content
    elif texts:
        (message["content"],) = texts
    return message


def _cut_texts(joined: str, lengths: list[int]) -> list[str]:
    texts, start = [], 0
    for length in lengths:
        texts.append(joined[start : start + length])
        start += length + len(SEPARATOR)
    if lengths and start - len(SEPARATOR) != len(joined):
        raise ValueError("the text has another length than its parts")
    return texts


# --- from a run to actions -----------------------------------------------------------------------


def plan_run(run: ChatRun, limits: Limits | None = None) -> SessionPlan:
    """Plan what to record for a run, checked so that a store with these limits accepts it all.

    :raises TranscriptError: when the run holds a value that cannot be recorded (a lone surrogate,
        a value nested too deep, an integer of thousands of digits) or that exceeds a limit.
    """
    limits = limits or Limits()
    place = run.place
    try:
        check_recordable(run.value)
        plan = _Planner(run, limits).plan()
        place = f"{run.place}, what belongs to no turn"
        check_recordable(plan.metadata, limits)
        for planned in plan.actions:
            place = f"{run.place}, message {planned.metadata[KEY]['position']}"
            _check_planned(planned, limits)
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
    unanswered: list[_Call] = Factory(list)
    results: dict[int, _Call] = Factory(dict)

    def plan(self) -> SessionPlan:
        calls = self._match_calls()
        actions: list[PlannedAction] = []
        waiting: list[int] = []
        leftover: list[int] = []
        for position, message in enumerate(self.run.messages):
            role = message.get("role") if isinstance(message, dict) else None
            if role == "assistant":
                actions.append(self._ask(position, message, waiting))
                actions += [self._tool_call(call) for call in calls[position]]
                waiting = []
            elif role in _ANSWERED_ROLES:
                waiting.append(position)
            else:
                leftover.append(position)
        leftover += [position for position in waiting if position not in self.results]
        return SessionPlan(self._session_name(), self._session_metadata(leftover), actions)

    def _match_calls(self) -> dict[int, list[_Call]]:
        calls: dict[int, list[_Call]] = {}
        for position, message in enumerate(self.run.messages):
            if not isinstance(message, dict):
                continue
            if message.get("role") == "assistant":
                calls[position] = list(_read_calls(position, message))
                self.unanswered = (calls[position] + self.unanswered)[:_OPEN_CALLS]
            elif message.get("role") in _RESULT_ROLES:
                self._match_result(position, message)
        return calls

    def _match_result(self, position: int, message: dict[str, Any]) -> None:
        """Assign a result to the newest call that waits for it; ids may repeat within a run."""
        call_id, name = message.get("tool_call_id"), message.get("name")
        for place, call in enumerate(self.unanswered):
            if call.id == call_id if call_id is not None else name in (None, call.name):
                call.result_position = position
                self.results[position] = self.unanswered.pop(place)
                return

    def _ask(self, position: int, message: dict[str, Any], waiting: list[int]) -> PlannedAsk:
        texts, answers = [], []
        for answered in waiting:
            parts, kept = _split_texts(self.run.messages[answered])
            texts += parts
            if answered in self.results:
                kept = {"lengths": kept["lengths"]}
            answers.append({"position": answered, **kept})
        response, form, fields = _split_response(message)
        metadata = {"position": position, "form": form, "fields": fields, "answers": answers}
        return PlannedAsk(
            SEPARATOR.join(texts),
            response,
            self._name(_find_model(message) or _find_model(self.run.fields)),
            self._name(message.get("name")) or "assistant",
            {KEY: metadata},
        )

    def _tool_call(self, call: _Call) -> PlannedToolCall:
        arguments, form = _read_arguments(call.arguments, self.limits)
        metadata = {"position": call.position, "call": call.number, "id": call.id, "form": form}
        result = None
        if call.result_position is not None:
            texts, kept = _split_texts(self.run.messages[call.result_position])
            result = SEPARATOR.join(texts)
            metadata["result"] = {"position": call.result_position, **kept}
        task = self._name(self.run.messages[call.position].get("name")) or "assistant"
        name = self._name(call.name) or _NAMELESS
        return PlannedToolCall(name, arguments, result, task, {KEY: metadata})

    def _name(self, value: Any) -> str:
        return value[: self.limits.name_chars] if isinstance(value, str) else ""

    def _session_name(self) -> str:
        number = "" if self.run.alone else f"#{self.run.number}"
        return short_label(self.run.source)[: self.limits.name_chars - len(number)] + number

    def _session_metadata(self, leftover: list[int]) -> dict[str, Any]:
        run = self.run
        messages = [{"position": p, "message": run.messages[p]} for p in sorted(leftover)]
        return {
            KEY: {
                "source": run.source,
                "run": run.number,
                "messages_key": run.messages_key,
                "message_count": len(run.messages),
                "fields": run.fields,
                "messages": messages,
            }
        }


def _read_calls(position: int, message: dict[str, Any]) -> Iterator[_Call]:
    """Iterate over an assistant turn's tool calls, in order; a legacy ``function_call`` is last."""
    tool_calls = message.get("tool_calls")
    calls = list(tool_calls) if isinstance(tool_calls, list) else []
    if isinstance(message.get("function_call"), dict):
        calls.append({"function": message["function_call"]})
    for number, item in enumerate(calls):
        call: dict[str, Any] = item if isinstance(item, dict) else {}
        bodies = (call.get(kind) for kind in ("function", "custom"))
        body = next((body for body in bodies if isinstance(body, dict)), call)
        name = body.get("name")
        arguments = body.get("arguments", body.get("input"))
        yield _Call(
            position, number, call.get("id"), name if isinstance(name, str) else "", arguments
        )


def _read_arguments(arguments: Any, limits: Limits) -> tuple[Any, str]:
    """Return the value of a call's JSON string, or the string where that value cannot be recorded.

    The exact string need not be kept here: it is in the response of the call's turn.
    """
    if isinstance(arguments, str):
        try:
            value = json.loads(arguments)
            check_recordable(value, limits)
        except (ValueError, RecursionError):
            return arguments, "text"
        return value, "json"
    return arguments, "given"


def _split_response(message: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Split an assistant turn: the response, its form ("text" or "json"), and the other fields."""
    fields = {name: value for name, value in message.items() if name not in ("role", "content")}
    content = message.get("content")
    calls_nothing = not (fields.get("tool_calls") or fields.get("function_call"))
    if isinstance(content, str) and calls_nothing:
        return content, "text", fields
    spoken = {
        name: message[name]
        for name in ("content", "tool_calls", "function_call")
        if name in message and (name == "content" or message[name])
    }
    fields = {name: value for name, value in fields.items() if name not in spoken}
    return json.dumps(spoken, ensure_ascii=False, separators=(",", ":")), "json", fields


def _find_model(value: dict[str, Any]) -> str | None:
    for path in _MODEL_PATHS:
        found: Any = value
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, str):
            return found
    return None


# --- and back ----------------------------------------------------------------------------------


def rebuild_run(metadata: Mapping[str, Any], actions: Iterable[PlannedAction]) -> Any:
    """Return the JSON value of the run that was planned with this metadata and these actions.

    :raises InvalidValueError: when they are not, or no longer, the whole of an imported run.
    """
    try:
        about = metadata[KEY]
        messages = {entry["position"]: entry["message"] for entry in about["messages"]}
        for planned in actions:
            messages.update(
                _rebuild_ask(planned) if isinstance(planned, PlannedAsk) else _rebuild_call(planned)
            )
        ordered = [messages.pop(position) for position in range(about["message_count"])]
        key = about["messages_key"]
        return ordered if key is None else {**about["fields"], key: ordered}
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InvalidValueError(f"not a whole imported run: {error!r}") from None


def _rebuild_ask(planned: PlannedAsk) -> Iterator[tuple[int, dict[str, Any]]]:
    about = planned.metadata[KEY]
    spoken = (
        {"content": planned.response} if about["form"] == "text" else json.loads(planned.response)
    )
    yield about["position"], {"role": "assistant", **spoken, **about["fields"]}
    answers = about["answers"]
    texts = _cut_texts(
        planned.query, [length for answer in answers for length in answer["lengths"]]
    )
    for answer in answers:
        own, texts = texts[: len(answer["lengths"])], texts[len(answer["lengths"]) :]
        if "fields" in answer:
            yield answer["position"], _join_texts(own, answer)


def _rebuild_call(planned: PlannedToolCall) -> Iterator[tuple[int, dict[str, Any]]]:
    kept = planned.metadata[KEY].get("result")
    if kept is not None and planned.result is not None:
        yield kept["position"], _join_texts(_cut_texts(planned.result, kept["lengths"]), kept)


# --- through a store ---------------------------------------------------------------------------


async def read_plans(
    path: str | Path, *, limits: Limits | None = None, max_bytes: int = MAX_TRANSCRIPT_BYTES
) -> AsyncGenerator[list[SessionPlan | TranscriptError], None]:
    """Read a transcript file: yield a list for each transcript, with a plan or an error per run.

    ``max_bytes``: how many bytes the file may hold, decompressed.

    :raises TranscriptError: when the file cannot be read, or the file or an archive's member is no
        transcript.
    """
    name = Path(path).name
    try:
        # Opening a pipe does not wait for who writes to it, because of O_NONBLOCK.
        async with aiofiles.open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise TranscriptError(f"{name}: is not a regular file")
            data = await file.read(max_bytes + 1)
    except OSError as error:
        raise TranscriptError(f"{name}: cannot be read: {error.strerror or error}") from None
    transcripts = open_transcripts(name, data, max_bytes)
    del data
    while transcript := await to_thread.run_sync(next, transcripts, None):
        yield await to_thread.run_sync(_plan_all, transcript, limits)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _plan_all(transcript: Transcript, limits: Limits | None) -> list[SessionPlan | TranscriptError]:
    plans: list[SessionPlan | TranscriptError] = []
    for run in parse_runs(transcript):
        try:
            plans.append(run if isinstance(run, TranscriptError) else plan_run(run, limits))
        except TranscriptError as error:
            plans.append(error)
    return plans


async def record_run(store: Store, plan: SessionPlan, *, provider: str = "") -> UUID:
    """Record a planned run as a session of its own, and return the session's id.

    A transcript holds no times. So every duration is 0, and the times are those of the import.
    """
    async with store.session(plan.name, metadata=plan.metadata) as recorder:
        for planned in plan.actions:
            if isinstance(planned, PlannedAsk):
                await recorder.record_ask(
                    planned.query,
                    provider=provider,
                    model=planned.model,
                    response=planned.response,
                    duration_ms=0,
                    task=planned.task,
                    metadata=planned.metadata,
                )
            else:
                await recorder.record_tool_call(
                    planned.name,
                    arguments=planned.arguments,
                    result=planned.result,
                    task=planned.task,
                    metadata=planned.metadata,
                )
        return recorder.session_id


async def restore_run(store: Store, session_id: UUID | str) -> Any:
    """Return the run of a session as the JSON value that it was imported from.

    :raises InvalidValueError: when the session is not, or no longer, the whole of an imported run.
    :raises SessionNotFoundError: when there is no such session.
    """
    session = await store.get_session(session_id)
    actions: list[PlannedAction] = []
    for action in session.actions:
        if KEY not in action.metadata:
            continue
        output = await _read_text(store, action.output)
        if isinstance(action.details, AskDetails):
            query = await _read_text(store, action.input) or ""
            model = action.details.model or ""
            actions.append(PlannedAsk(query, output or "", model, "", action.metadata))
        elif isinstance(action.details, ToolCallDetails):
            actions.append(PlannedToolCall(action.details.name, None, output, "", action.metadata))
    return await to_thread.run_sync(rebuild_run, session.metadata, actions)


async def _read_text(store: Store, content: Content | None) -> str | None:
    if content is None:
        return None
    try:
        return (await store.read_content(content)).decode()
    except UnicodeDecodeError:
        raise InvalidValueError("not a whole imported run: an action is not text") from None
