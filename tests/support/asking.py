"""The questions that a naive store answers, asked of a journal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import UUID

import attrs
from attrs import evolve

from memvid_async import (
    Action,
    ActionRecorded,
    ActionStarted,
    AnswerDropped,
    CheckpointCreated,
    ChunksCame,
    CollectionChanged,
    CollectionCreated,
    Content,
    ContentStored,
    Event,
    Session,
    SessionChanged,
    SessionDeleted,
    SessionEnded,
    SessionResumed,
    SessionStarted,
    SessionSummary,
    SessionSuspended,
    Unknown,
    VerifyReport,
)
from memvid_async.engine.event_log import View
from memvid_async.engine.reading import read_messages, read_session
from memvid_async.events.calls import NO_CALL
from memvid_async.file.journal import Journal
from memvid_async.file.verify import Verifier
from memvid_async.format.call_rows import DETAIL_TYPES
from memvid_async.memory.folded_keys import FoldedKeys
from tests.support.naive import call_values, canonical


def fields_of(value: Any) -> tuple[Any, ...]:
    """The fields of an attrs value, as they are."""
    return tuple(getattr(value, field.name) for field in attrs.fields(type(value)))


def content_answer(given: Content | None, data: Callable[[Content], bytes]) -> Any:
    """A content as the naive store tells it."""
    return None if given is None else (data(given), given.digest, given.size, given.preview)


def action_answer(
    action: Action, data: Callable[[Content], bytes], messages: Callable[[Action], list[Any]]
) -> dict[str, Any]:
    """An action as the naive store tells it; ``data`` and ``messages`` read what it refers to."""

    return {
        "index": action.index,
        "sequence": action.sequence,
        "time": action.time_ns,
        "kind": str(action.kind),
        "details": fields_of(action.details),
        "input": content_answer(action.input, data),
        "output": content_answer(action.output, data),
        "frames": action.affected_frames,
        "duration": repr(action.duration_ms),
        "task": action.task,
        "error": action.error,
        "metadata": canonical(dict(action.metadata)),
        "messages": canonical(messages(action)),
        "session": action.session_id,
        "started": None if action.started is None else (action.started, action.started_ns),
        "call": None if action.call == NO_CALL else call_values(action.call),
        "reply": None if action.reply is None else fields_of(action.reply),
    }


def start_answer(start: ActionStarted, data: Callable[[Content], bytes]) -> dict[str, Any]:
    """A call in flight as the naive store tells it."""
    return {
        "sequence": start.sequence,
        "time": start.time_ns,
        "kind": str(start.kind),
        "input": content_answer(start.input, data),
        "task": start.task,
        "parent": start.parent,
        "lane": start.lane,
        "seen": start.seen,
        "detail": fields_of(start.details)[: len(DETAIL_TYPES[start.kind])],
        "digest": start.messages_digest,
        "tries": start.try_number,
    }


def summary_answer(summary: SessionSummary) -> tuple[Any, ...]:
    """A session as listed, as the naive store tells it."""
    metadata: Any = canonical(dict(summary.metadata))
    return fields_of(evolve(summary, metadata=metadata))


def session_answer(
    session: Session,
    data: Callable[[Content], bytes],
    messages: Callable[[Action], list[Any]],
) -> dict[str, Any]:
    """A session as the naive store tells it."""
    return {
        "name": session.name,
        "created": session.created_ns,
        "ended": session.ended_ns,
        "error": session.error,
        "metadata": canonical(dict(session.metadata)),
        "actions": [action_answer(action, data, messages) for action in session.actions],
        "checkpoints": [
            (*fields_of(checkpoint)[:3], fields_of(checkpoint.snapshot))
            for checkpoint in session.checkpoints
        ],
        "in flight": [start_answer(start, data) for start in session.in_flight],
    }


def _of_collection(payload: CollectionCreated | CollectionChanged) -> tuple[Any, ...]:
    if isinstance(payload, CollectionCreated):
        return "collection", payload.name
    return "keys", payload.collection


def event_answer(event: Event) -> tuple[Any, ...]:
    """An event as the naive store tells it."""
    payload = event.payload
    what: tuple[Any, ...] = ("erased",)
    if isinstance(payload, SessionStarted):
        config, metadata = payload.config, canonical(dict(payload.metadata))
        interval, most = config.auto_checkpoint_interval, config.max_actions
        what = ("started", payload.name, payload.ambient, interval, most, metadata)
    elif isinstance(payload, SessionEnded):
        what = ("ended", payload.error)
    elif isinstance(payload, SessionDeleted):
        what = ("deleted",)
    elif isinstance(payload, ContentStored):
        what = ("content", payload.digest, payload.size)
    elif isinstance(payload, ActionRecorded):
        what = ("action", payload.action.index)
    elif isinstance(payload, CheckpointCreated):
        what = ("checkpoint", payload.checkpoint.checkpoint_id)
    elif isinstance(payload, ActionStarted):
        what = ("begun", payload.first, payload.try_number)
    elif isinstance(payload, SessionChanged):
        what = ("changed", canonical(dict(payload.changes)))
    elif isinstance(payload, (AnswerDropped, ChunksCame, SessionResumed, SessionSuspended)):
        what = ("noted", type(payload).__name__, repr(payload))
    elif isinstance(payload, (CollectionCreated, CollectionChanged)):
        what = _of_collection(payload)
    elif isinstance(payload, Unknown):
        what = ("unknown", payload.kind, payload.fields)
    return event.sequence, event.time_ns, event.session_id, event.session, what


def keys_answer(view: View, number: int) -> dict[str, Any]:
    """What a collection holds as the naive store tells it, by key: the value and its version."""
    folded = FoldedKeys()
    kept = folded.catch_up(view).scan(number, "", 0, after=None, reverse=False, limit=-1)
    values = [folded.value(one) for one in kept]
    folded.close()
    return {value.key: (value.data, value.version) for value in values}


def questions(journal: Journal, limit: int = 400) -> dict[tuple[Any, ...], Callable[[], Any]]:
    """Everything that can be asked of a journal, each to be answered on its own.

    ``limit``: how many bytes of events are read at a time.
    """
    view = journal.view
    state = view.state

    def messages(action: Action) -> list[Any]:
        count = getattr(action.details, "message_count", 0)
        return read_messages(view, action) if count else []

    def session(session_id: UUID) -> Any:
        found = read_session(view, session_id)
        return session_answer(found, view.data, messages)

    def events() -> list[Any]:
        found: list[Any] = []
        while more := view.events_after(len(found), limit):
            found += map(event_answer, more)
        return found

    def events_of(number: int) -> list[Any]:
        found: list[Any] = []
        after = 0
        while after < state.last_sequence:
            more, after = view.session_events(number, after, limit)
            found += map(event_answer, more)
        back = [one for events in view.session_events_back(number) for one in reversed(events)]
        assert list(map(event_answer, back)) == found[::-1]
        return found

    ambient = state.sessions[state.ambient].info.session_id if state.ambient is not None else None
    listed = [summary_answer(s.summary()) for _, s in sorted(state.sessions.items())]
    asked: dict[tuple[Any, ...], Callable[[], Any]] = {
        ("last",): lambda: (state.last_sequence, state.last_time_ns),
        ("ambient",): lambda: ambient,
        ("listed",): lambda: listed,
    }
    for number, found in sorted(state.sessions.items()):
        session_id = found.info.session_id
        asked["session", session_id] = partial(session, session_id)
        asked["events of", session_id] = partial(events_of, number)
    for name, number in state.collections.numbers.items():
        asked["keys", name] = partial(keys_answer, view, number)
    asked["events",] = events
    return asked


def answers(journal: Journal) -> dict[tuple[Any, ...], Any]:
    """The journal's answer to every question."""
    return {question: answer() for question, answer in questions(journal).items()}


def outcome_answer(journal: Journal, outcome: Any) -> Any:
    """A command's outcome as the naive store returns it, except for an action's messages: its
    session may have been deleted since."""
    if isinstance(outcome, Exception):
        return type(outcome)
    if isinstance(outcome, Action):
        view = journal.view
        answer = action_answer(outcome, view.data, lambda _: [])
        return without_messages(answer)
    return outcome.info.number if hasattr(outcome, "info") else outcome


def without_messages(outcome: Any) -> Any:
    """The naive store's outcome as :func:`outcome_answer` returns it."""
    if isinstance(outcome, dict):
        return {key: value for key, value in outcome.items() if key != "messages"}
    return outcome


def verified(journal: Journal) -> VerifyReport:
    """The report of a whole verification."""
    verifier = Verifier(journal.view.reader.storage, journal.view)
    while not verifier.finished:
        verifier.step()
    return verifier.report()
