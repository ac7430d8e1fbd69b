"""Auditing: a session's questions are put to other models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any
from uuid import UUID

from anyio import to_thread
from attrs import astuple, field, fields, frozen

from ..config import Limits
from ..engine.event_log import View
from ..errors import ContentNotFoundError
from ..events.details import ActionKind
from ..events.event import Action
from ..events.frames import Context
from ..events.printing import counted, html_table
from ..events.prompts import Generated, Prompt
from ..memory.past import context_of
from ..recording.replies import GrowingReply, Model, total
from .facts import without_call_ids
from .recorded import RecordedSession, load_recording, read_text
from .textdiff import content_text, response_diff
from .verdicts import Verdict

Read = Callable[..., Awaitable[Any]]


@frozen
class AuditAnswer:
    """What one model answered to one recorded ask."""

    index: int
    """The ask's place in its session, from 0."""
    action: Action = field(repr=False)
    """The recorded ask."""
    model: str
    """The model's name, as it was passed to ``audit``."""
    verdict: Verdict
    """Matched or diverged; skipped where the recorded ask has no response; unverifiable where the
    model failed, or something that it needs is gone."""
    answer: str | bytes | None = field(default=None, repr=False)
    """What the model replied; None where there is no reply."""
    diff: str = field(default="", repr=False)
    """The recorded response (``-``) and the answer (``+``), in lines."""
    reason: str | None = None
    """Why the ask was skipped or is unverifiable."""
    duration_ms: float = 0
    """How long the model took, in milliseconds."""
    input_tokens: int | None = None
    """Tokens that the model read; None where it did not count."""
    output_tokens: int | None = None
    """Tokens that it wrote."""
    cached_tokens: int | None = None
    """Tokens that it read from a cache: a part of ``input_tokens``."""
    cost_usd: float | None = None
    """What the reply cost, in US dollars."""


@frozen
class ModelAudit:
    """How one model compares.

    Tokens and costs are summed over the replies that count them; None where none does.
    """

    model: str
    """Its name, as it was passed to ``audit``."""
    same: int
    """Answers that are equal to the recorded ones."""
    changed: int
    """Answers that are not."""
    failed: int
    """Asks at which it failed, or of which something is gone."""
    skipped: int
    """Asks that have no recorded response."""
    duration_ms: float
    """The time of its calls, summed, in milliseconds."""
    input_tokens: int | None
    """Tokens that it read."""
    output_tokens: int | None
    """Tokens that it wrote."""
    cached_tokens: int | None
    """Tokens that it read from a cache: a part of ``input_tokens``."""
    cost_usd: float | None
    """What its replies cost, in US dollars."""


@frozen
class AuditReport:
    """The result of an audit."""

    session_id: UUID
    """The session."""
    models: tuple[ModelAudit, ...] = field(repr=counted("model"))
    """How each model compares."""
    answers: tuple[AuditAnswer, ...] = field(repr=counted("answer"))
    """Every answer, in the order of the asks, then of the models."""

    @property
    def is_equal(self) -> bool:
        """Whether every answer that could be compared equals the recorded one, and none failed."""
        return all(model.changed == model.failed == 0 for model in self.models)

    def _repr_html_(self) -> str:
        """A notebook's table: one row a model."""
        rows = map(astuple, self.models)
        head = [one.name.replace("_", " ") for one in fields(ModelAudit)]
        return html_table(f"Audit of session {self.session_id}", head, rows, len(self.models))


@frozen
class _Question:
    """The prompt of a recorded ask, and its response."""

    prompt: Prompt
    response: str | bytes | None


def _read_question(view: View, recording: RecordedSession, action: Action) -> _Question:
    query = read_text(view, action.input)
    prompt = Prompt(
        "" if query is None else query,
        _read_context(view, action),
        recording.read_messages(view, action),
    )
    return _Question(prompt, read_text(view, action.output))


def _read_context(view: View, action: Action) -> Context | None:
    """Return what an ask of the store retrieved, as it was then; None for other asks."""
    if action.retrieval is None:
        return None
    context = context_of(view, action)
    if not context.is_complete:
        raise ContentNotFoundError("a frame that was retrieved was erased")
    return context


async def run_audit(
    read: Read,
    limits: Limits,
    session_id: UUID,
    generate: Mapping[str, Model],
    concurrency: int,
) -> AuditReport:
    """Put all questions to all models, ``concurrency`` at a time."""
    recording: RecordedSession = await read(load_recording, session_id)
    asks = [action for action in recording.actions if action.kind is ActionKind.ASK]
    jobs = [(action, model) for action in asks for model in generate]
    answers: list[AuditAnswer | None] = [None] * len(jobs)
    waiting: Iterator[tuple[int, tuple[Action, str]]] = iter(enumerate(jobs))

    async def work() -> None:
        for place, (action, model) in waiting:
            growing = GrowingReply(limits.content_bytes)
            answers[place] = await _audit(
                read, recording, action, model, partial(growing.read, generate[model])
            )

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(min(concurrency, len(jobs))):
                group.create_task(work(), name=f"memvid_async audit {number}")
    except BaseExceptionGroup as failed:
        # Of a damaged file each task may say the same.
        raise failed.exceptions[0] from None
    found = tuple(answer for answer in answers if answer is not None)
    models = (_sum_up(name, [a for a in found if a.model == name]) for name in generate)
    return AuditReport(session_id, tuple(models), found)


async def _audit(
    read: Read,
    recording: RecordedSession,
    action: Action,
    model: str,
    ask: Callable[[Prompt], Awaitable[Generated]],
) -> AuditAnswer:
    def told(verdict: Verdict, **rest: Any) -> AuditAnswer:
        return AuditAnswer(action.index, action, model, verdict, **rest)

    try:
        question: _Question = await read(_read_question, recording, action)
    except ContentNotFoundError:
        return told(Verdict.UNVERIFIABLE, reason="a part of the question was erased")
    if question.response is None:
        why = action.error or "it has no response"
        return told(Verdict.SKIPPED, reason=f"the recorded ask failed: {why}")
    start = time.perf_counter()
    try:
        reply = await ask(question.prompt)
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
        cached_tokens=reply.cached_tokens,
        cost_usd=reply.cost_usd,
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
        input_tokens=total(answer.input_tokens for answer in answers),
        output_tokens=total(answer.output_tokens for answer in answers),
        cached_tokens=total(answer.cached_tokens for answer in answers),
        cost_usd=total(answer.cost_usd for answer in answers),
    )
