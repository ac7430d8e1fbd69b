"""A session's questions, put to other models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

from anyio import to_thread
from attrs import field, frozen

from ..engine.event_log import View
from ..errors import ContentNotFoundError
from ..events.event import Action, ActionKind
from ..events.frames import Context
from ..memory.past import context_of
from .calling import Model, call_model
from .facts import without_call_ids
from .recorded import RecordedSession, load_recording, read_text
from .textdiff import content_text, response_diff
from .verdicts import Verdict

Read = Callable[..., Awaitable[Any]]


@frozen
class AuditAnswer:
    """What one model answered to one recorded ask.

    ``verdict``: matched or diverged; skipped where the recorded ask had no response;
    unverifiable where the model failed or what it needs is gone. ``reason`` says why. ``diff``:
    the recorded response (``-``) and the answer (``+``) in lines. ``duration_ms``: milliseconds.
    """

    index: int
    action: Action = field(repr=False)
    model: str
    verdict: Verdict
    answer: str | bytes | None = field(default=None, repr=False)
    diff: str = field(default="", repr=False)
    reason: str | None = None
    duration_ms: float = 0
    input_tokens: int | None = None
    output_tokens: int | None = None


@frozen
class ModelAudit:
    """How one model compares. Tokens are summed over the replies that tell them, None if none
    does; ``duration_ms`` is the sum over its calls."""

    model: str
    same: int
    changed: int
    failed: int
    skipped: int
    duration_ms: float
    input_tokens: int | None
    output_tokens: int | None


@frozen
class AuditReport:
    """What an audit came to. ``answers`` are in the order of the asks, then of the models."""

    session_id: UUID
    models: tuple[ModelAudit, ...]
    answers: tuple[AuditAnswer, ...] = field(repr=False)

    @property
    def is_equal(self) -> bool:
        """Whether every answer that could be compared was the recorded one, and none failed."""
        return all(model.changed == model.failed == 0 for model in self.models)


@frozen
class _Question:
    """What a recorded ask gave its model, and what it got."""

    query: str | bytes
    context: Context | list[Any]
    response: str | bytes | None


def _read_question(view: View, recording: RecordedSession, action: Action) -> _Question:
    query = read_text(view, action.input)
    return _Question(
        "" if query is None else query,
        _read_context(view, recording, action),
        read_text(view, action.output),
    )


def _read_context(view: View, recording: RecordedSession, action: Action) -> Context | list[Any]:
    """What an ask of the store's own retrieved, as it was then; the messages of any other."""
    if action.retrieval is None:
        return recording.read_messages(view, action)
    context = context_of(view, action)
    if not context.is_complete:
        raise ContentNotFoundError("a frame that was retrieved was erased")
    return context


async def run_audit(
    read: Read,
    session_id: UUID,
    generate: Mapping[str, Model],
    concurrency: int,
) -> AuditReport:
    """Ask everything again, ``concurrency`` questions at a time."""
    recording: RecordedSession = await read(load_recording, session_id)
    asks = [action for action in recording.actions if action.kind is ActionKind.ASK]
    jobs = [(action, model) for action in asks for model in generate]
    answers: list[AuditAnswer | None] = [None] * len(jobs)
    waiting: Iterator[tuple[int, tuple[Action, str]]] = iter(enumerate(jobs))

    async def work() -> None:
        for place, (action, model) in waiting:
            answers[place] = await _audit(read, recording, action, model, generate[model])

    async with asyncio.TaskGroup() as group:
        for number in range(min(concurrency, len(jobs))):
            group.create_task(work(), name=f"memvid_async audit {number}")
    found = tuple(answer for answer in answers if answer is not None)
    models = (_sum_up(name, [a for a in found if a.model == name]) for name in generate)
    return AuditReport(session_id, tuple(models), found)


async def _audit(
    read: Read, recording: RecordedSession, action: Action, model: str, generate: Model
) -> AuditAnswer:
    def told(verdict: Verdict, **rest: Any) -> AuditAnswer:
        return AuditAnswer(action.index, action, model, verdict, **rest)

    try:
        question: _Question = await read(_read_question, recording, action)
    except ContentNotFoundError:
        return told(Verdict.UNVERIFIABLE, reason="a part of what was asked was erased")
    if question.response is None:
        why = action.error or "it has no response"
        return told(Verdict.SKIPPED, reason=f"the recorded ask failed: {why}")
    start = time.perf_counter()
    try:
        reply, _ = await call_model(generate, question.query, question.context)
    except Exception as error:  # noqa: BLE001 - what a caller's model raises is part of the answer
        reason = f"the model failed: {type(error).__name__}: {error}"
        spent = (time.perf_counter() - start) * 1000
        return told(Verdict.UNVERIFIABLE, reason=reason, duration_ms=spent)
    spent = (time.perf_counter() - start) * 1000
    same, diff = await to_thread.run_sync(_compare, question.response, reply.text)
    return told(
        Verdict.MATCHED if same else Verdict.DIVERGED,
        answer=reply.text,
        diff=diff,
        duration_ms=spent,
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens,
    )


def _compare(recorded: str | bytes, answer: str | bytes) -> tuple[bool, str]:
    a, b = without_call_ids(recorded), without_call_ids(answer)
    same = content_text(a) == content_text(b)
    return same, "" if same else response_diff(a, b)


def _sum_up(model: str, answers: list[AuditAnswer]) -> ModelAudit:
    verdicts = [answer.verdict for answer in answers]
    return ModelAudit(
        model,
        same=verdicts.count(Verdict.MATCHED),
        changed=verdicts.count(Verdict.DIVERGED),
        failed=verdicts.count(Verdict.UNVERIFIABLE),
        skipped=verdicts.count(Verdict.SKIPPED),
        duration_ms=sum(answer.duration_ms for answer in answers),
        input_tokens=_total(answer.input_tokens for answer in answers),
        output_tokens=_total(answer.output_tokens for answer in answers),
    )


def _total(counts: Iterator[int | None]) -> int | None:
    told = [count for count in counts if count is not None]
    return sum(told) if told else None
