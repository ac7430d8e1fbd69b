"""The error for a call that is not recorded: which action is most like it, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen

from ..engine.event_log import View
from ..errors import ContentNotFoundError, ReplayDivergenceError
from ..events.details import ActionKind, ToolCallDetails
from ..events.event import Action
from ..events.message_digests import drop_call_ids
from .facts import INPUT_NAMES
from .recorded import RecordedSession, read_arguments, read_text
from .textdiff import content_text, plain_text, text_diff
from .verdicts import Difference

LOOKED_AT = 1_000
"""At most this many recorded calls are compared with one that is not recorded."""

_SHOWN_CHARS = 120


@frozen
class Asked:
    """A live call, as an error describes it."""

    kind: ActionKind
    name: str | None
    """The name of the tool that was called."""
    input: Any
    """The arguments of a tool call; the query of an ask or a find."""
    facts: dict[str, Any]
    """The call's other arguments, by name; None for one that was left out."""
    task: str | None

    @property
    def text(self) -> str:
        """Its input as text."""
        if self.kind is ActionKind.TOOL_CALL:
            return plain_text(self.input)
        return content_text(self.input)


def describe_missing(
    view: View,
    recording: RecordedSession | None,
    due: Action | None,
    others: Sequence[Action],
    asked: Asked,
) -> ReplayDivergenceError:
    """Return the error for a live call that the recording does not hold at this point.

    ``due``: the recorded call that is expected here. ``others``: all that are not served yet.
    """
    what = f"{_title(asked.kind, asked.name)} with {_shorten(asked.text)}"
    place = f" at this point of task {asked.task!r}" if asked.task else ""
    nearest = _choose(due, others, asked)
    if nearest is None or recording is None:
        return ReplayDivergenceError(f"{what} is not recorded{place}; no such call is left")
    differences = _differences(view, recording, nearest, asked)
    name = nearest.details.name if isinstance(nearest.details, ToolCallDetails) else None
    title = f"action {nearest.index}, {_title(nearest.kind, name)}"
    if differences:
        told = "\n".join(f"{d.field}:\n{d.diff}" for d in differences)
        message = f"{what} is not recorded{place}; the nearest is {title}:\n{told}"
    elif due is not None and due is not nearest:
        due_name = due.details.name if isinstance(due.details, ToolCallDetails) else None
        message = (
            f"{what} is not recorded{place}: it is {title}, "
            f"and action {due.index}, {_title(due.kind, due_name)}, comes before it"
        )
    else:
        message = f"{what} is not recorded{place}; {title}, of task {nearest.task!r}, is like it"
    return ReplayDivergenceError(message, nearest, differences)


def describe_in_flight(due: str, changed: Sequence[str], asked: Asked) -> ReplayDivergenceError:
    """Return the error for a live call where another one was in flight.

    ``due``: that call. ``changed``: which of its fields are others now.
    """
    what = f"{_title(asked.kind, asked.name)} with {_shorten(asked.text)}"
    message = f"{what} is not the call that was in flight in its place: {due}"
    if changed:
        message += f"; changed: {', '.join(changed)}"
    return ReplayDivergenceError(message)


def _title(kind: ActionKind, name: str | None) -> str:
    return str(kind) if name is None else f"{kind} {name!r}"


def _shorten(text: str) -> str:
    line = " ".join(text[: 4 * _SHOWN_CHARS].split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


def _choose(due: Action | None, others: Sequence[Action], asked: Asked) -> Action | None:
    """Return the due call if it is of the same sort, else the one that shares most words."""
    if due is not None and _sort(due) == (asked.kind, asked.name):
        return due
    words = set(asked.text[:2048].split())

    def likeness(action: Action) -> tuple[bool, bool, float]:
        theirs = set(action.input.preview.split()) if action.input is not None else set[str]()
        shared = len(words & theirs) / max(1, len(words | theirs))
        kind, name = _sort(action)
        return kind is asked.kind, name == asked.name, shared

    candidates = [action for action in others if action.kind is asked.kind]
    return max(candidates, key=likeness, default=due)


def _sort(action: Action) -> tuple[ActionKind, str | None]:
    details = action.details
    return action.kind, details.name if isinstance(details, ToolCallDetails) else None


def _differences(
    view: View, recording: RecordedSession, action: Action, asked: Asked
) -> tuple[Difference, ...]:
    kind, name = _sort(action)
    if kind is not asked.kind:
        return (Difference("kind", kind, asked.kind, text_diff(kind, asked.kind)),)
    found = []
    if name is not None and asked.name is not None and name != asked.name:
        found.append(Difference("name", name, asked.name, text_diff(name, asked.name)))
    recorded = "" if asked.input is None else _input_text(view, action)
    if asked.input is not None and recorded != asked.text:
        field = INPUT_NAMES.get(kind, "input")
        found.append(Difference(field, action.input, asked.input, text_diff(recorded, asked.text)))
    for field, live in asked.facts.items():
        value = _recorded_fact(action, field)
        if live is not None and value is not _NOT_SHOWN and live != value:
            diff = text_diff(plain_text(value), plain_text(live))
            found.append(Difference(field, value, live, diff))
    if asked.facts.get("messages") is not None and action.index in recording.messages:
        found += _messages_difference(view, recording, action, asked.facts["messages"])
    return tuple(found)


_NOT_SHOWN = object()


def _recorded_fact(action: Action, field: str) -> Any:
    """Return what a recorded call has of a field; not of those that are shown otherwise."""
    if field in ("messages", "data"):
        return _NOT_SHOWN
    retrieval, details = action.retrieval, action.details
    if field == "count":
        return len(action.affected_frames)
    if field == "filters":
        return _NOT_SHOWN if retrieval is None else dict(retrieval.parameters)
    return getattr(details, field, getattr(retrieval, field, None))


def _input_text(view: View, action: Action) -> str:
    try:
        if action.kind is ActionKind.TOOL_CALL:
            return plain_text(read_arguments(view, action))
        return content_text(read_text(view, action.input))
    except ContentNotFoundError:
        return "(erased)"


def _messages_difference(
    view: View, recording: RecordedSession, action: Action, messages: Sequence[Any]
) -> list[Difference]:
    try:
        recorded = [drop_call_ids(m) for m in recording.read_messages(view, action)]
    except ContentNotFoundError:
        recorded = []
    live = [drop_call_ids(message) for message in messages]
    if recorded == live:
        return []
    diff = text_diff(plain_text(recorded), plain_text(live))
    return [Difference("messages", len(recorded), len(live), diff)]
