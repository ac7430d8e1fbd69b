"""Finding actions in any log: of one session or of all, in the order of the log or back.

All functions block, as a :class:`View` does, and are called in the threads that read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any
from uuid import UUID

from attrs import frozen

from ..errors import ContentNotFoundError, SessionNotFoundError
from ..events.content import Content
from ..events.details import ActionKind, AskDetails
from ..events.event import Action, ActionRecorded, CheckpointCreated, Event
from ..events.prompts import as_text
from .event_log import View
from .reading import decode_arguments, history_parts, session_history

# Events are read about this many bytes at a time, those of one session this many at a time.
_READ_BYTES, _READ_EVENTS = 256 * 1024, 512
# Going back, often only the last few are wanted: the first time only this many are read.
_LAST_EVENTS, _LAST_BYTES = 24, 8 * 1024


@frozen
class ActionQuery:
    """Which actions are wanted; what is None is not asked for."""

    session_id: UUID | None = None
    kind: ActionKind | None = None
    name: str | None = None
    """Of the tool or the step; of an ask the model."""
    task: str | None = None
    failed: bool | None = None
    text: str | None = None
    """Part of the input, the output, the arguments or the error, in any case."""
    since_ns: int | None = None
    until_ns: int | None = None
    newest_first: bool = False
    after: int | None = None
    """The sequence of an action: those that come after it in the order that is asked for."""


def find_actions(view: View, query: ActionQuery) -> Iterator[list[Action]]:
    """Yield the actions that a query is for, in order, in lists; a list may be empty.

    :raises SessionNotFoundError: when there is no such session.
    """
    match = _Match(view, query)
    for events in _events(view, query):
        yield [
            event.payload.action
            for event in events
            if isinstance(event.payload, (ActionRecorded, CheckpointCreated))
            and match.is_met_by(event.payload.action)
        ]


def _events(view: View, query: ActionQuery) -> Iterator[list[Event]]:
    if query.session_id is not None:
        return _session_events(view, query.session_id, newest_first=query.newest_first)
    if query.newest_first:
        return _all_events_back(view, query.after)
    return _all_events(view, query.after or 0)


def _session_events(view: View, session_id: UUID, *, newest_first: bool) -> Iterator[list[Event]]:
    found = view.state.find(session_id)
    if found is None or not view.has_session(found.info.number):
        raise SessionNotFoundError(session_id)
    number = found.info.number
    if not newest_first:
        history = session_history(view, number)
        while events := list(islice(history, _READ_EVENTS)):
            yield events
    elif found.info.fork is None:
        commands = view.session_events_back(number)
        back = chain.from_iterable(events[::-1] for events in commands)
        count = _LAST_EVENTS
        while events := list(islice(back, count)):
            yield events
            count = _READ_EVENTS
    else:
        for _, shared in history_parts(view, number):
            yield list(shared)[::-1]


def _all_events(view: View, after: int) -> Iterator[list[Event]]:
    sessions, last = view.state.sessions, view.state.last_sequence
    while after < last:
        events = view.events_after(after, _READ_BYTES)
        after = events[-1].sequence
        yield [event for event in events if event.session in sessions and event.sequence <= last]


def _all_events_back(view: View, before: int | None) -> Iterator[list[Event]]:
    sessions, last = view.state.sessions, view.state.last_sequence
    end = last if before is None else min(last, before - 1)
    count, size = _LAST_EVENTS, _LAST_BYTES
    while end > 0:
        begin = after = max(0, end - count)
        found: list[Event] = []
        most = 0
        while after < end:
            events = view.events_after(after, size)
            after, most = events[-1].sequence, max(most, len(events))
            found += (e for e in events if e.sequence <= end and e.session in sessions)
        yield found[::-1]
        end = begin
        # As many as fit one read, by what the last one held, and room for larger ones: what is
        # read beyond them is read twice.
        larger = min(2 * size, _READ_BYTES)
        count, size = max(_LAST_EVENTS, most * larger // size * 3 // 4), larger


class _Match:
    """Tells which actions meet a query."""

    def __init__(self, view: View, query: ActionQuery) -> None:
        self._view = view
        self._query = query
        self._text = None if query.text is None else query.text.casefold()

    def is_met_by(self, action: Action) -> bool:
        query = self._query
        return (
            self._is_in_range(action)
            and (query.kind is None or action.kind is query.kind)
            and (query.name is None or query.name == _name_of(action))
            and (query.task is None or query.task == action.task)
            and (query.failed is None or query.failed == (action.error is not None))
            and (self._text is None or any(self._text in t.casefold() for t in self._texts(action)))
        )

    def _is_in_range(self, action: Action) -> bool:
        query, sequence = self._query, action.sequence
        if query.after is not None and query.session_id is not None:
            is_after = sequence < query.after if query.newest_first else sequence > query.after
            if not is_after:
                return False
        since, until = query.since_ns, query.until_ns
        return (since is None or action.time_ns >= since) and (
            until is None or action.time_ns < until
        )

    def _texts(self, action: Action) -> Iterator[str]:
        if action.error is not None:
            yield action.error
        if action.kind in (ActionKind.TOOL_CALL, ActionKind.STEP):
            yield from self._arguments(action)
        else:
            yield from self._content(action.input)
        yield from self._content(action.output)

    def _content(self, content: Content | None) -> Iterator[str]:
        if content is not None:
            try:
                yield as_text(self._view.value(content))
            except ContentNotFoundError:
                return

    def _arguments(self, action: Action) -> Iterator[str]:
        if action.input is not None:
            try:
                value = decode_arguments(self._view, action)
            except ContentNotFoundError:
                return
            try:
                yield json.dumps(value, ensure_ascii=False, default=_as_text)
            except TypeError:
                # A key of bytes, which JSON does not have.
                yield repr(value)


def _as_text(value: Any) -> str:
    return as_text(value) if isinstance(value, bytes) else repr(value)


def _name_of(action: Action) -> str | None:
    details = action.details
    return details.model if isinstance(details, AskDetails) else getattr(details, "name", None)
