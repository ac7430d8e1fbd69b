"""Calls of models: whole, or chunk by chunk as the reply comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ..config import Limits
from ..errors import InvalidValueError, ReplayStopped
from ..events.details import ActionKind
from ..events.event import Action
from ..events.message_digests import messages_digest
from ..events.prompts import COUNTS, Generated, Prompt, Reply, split_text
from ..events.values import LARGE
from .action_draft import NO_MESSAGES
from .answers import Answers
from .converting import whole_text
from .made_calls import MadeCall, OpenCall, cancellations
from .prepare_values import (
    prepare_content,
    prepare_messages,
    prepare_metadata,
    prepare_name,
    rough_size,
)
from .replies import GrowingReply, Model, Reading, check_model
from .scrubbing import limits_for, scrubbed
from .session_calls import SessionCalls

_BROKEN = "the stream broke off, and its process died"


async def made_ask(
    calls: SessionCalls,
    asked: str | bytes | Sequence[Any],
    *,
    provider: str | None,
    model: str | None,
    task: str | None,
    metadata: Mapping[str, Any] | None,
    reading: Reading | None = None,
) -> tuple[MadeCall, Prompt]:
    """Return a call of a model, and what the model is asked.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    limits = limits_for("ask", calls.intake.limits)
    if isinstance(asked, (str, bytes)):
        query, messages = asked, []
    elif isinstance(asked, Sequence):
        messages = list(asked)
        query = _question(messages)
    else:
        raise InvalidValueError(f"ask a text or messages, not {type(asked).__name__}")
    names = tuple(
        None if name is None else prepare_name(name, what, limits)
        for name, what in ((provider, "provider"), (model, "model"))
    )

    def prepare() -> MadeCall:
        # What is compared and told of is what is recorded; the model is asked what the caller asks.
        kept = [scrubbed(limits, "messages", message) for message in messages]
        prepared = prepare_messages(kept, limits, scrubs=False)
        facts: dict[str, Any] = {"provider": names[0], "model": names[1], "messages": kept or None}
        return MadeCall(
            ActionKind.ASK,
            names,
            scrubbed(limits, "query", query),
            prepare_content(query, "query", limits),
            {name: value for name, value in facts.items() if value is not None},
            task,
            NO_MESSAGES if prepared is None else prepared,
            None if prepared is None else messages_digest(kept, prepared.items),
            metadata=None if metadata is None else prepare_metadata(metadata, limits),
            reading=reading,
        )

    is_large = rough_size(asked) + rough_size(metadata) >= LARGE
    made = await calls.intake.preparing.run(prepare) if is_large else prepare()
    return made, Prompt(query, None, messages)


def _question(messages: Sequence[Any]) -> str:
    """Return the text of the last message that the user wrote."""
    content: Any = messages[-1] if messages else ""
    for message in reversed(messages):
        if isinstance(message, Mapping) and message.get("role") == "user":
            content = message.get("content")
            break
    else:
        if isinstance(content, Mapping):
            content = content.get("content")
    if isinstance(content, str):
        return whole_text(content)
    return json.dumps(content, ensure_ascii=False, default=str)


async def call_model(
    calls: SessionCalls, made: MadeCall, prompt: Prompt, generate: Model
) -> Generated:
    """Ask a model, and return its whole reply."""
    check_model(generate)
    opened = await calls.ask(made)
    action = await whole_answer(calls, opened)
    if action is not None:
        return Generated(await calls.recorded_output(action) or "", **counts_of(action.reply))
    await calls.begin(opened)
    growing = GrowingReply(calls.intake.limits.content_bytes)
    try:
        with calls.running(opened):
            reply = await growing.read(generate, prompt)
    except ReplayStopped:
        raise
    except BaseException as error:
        await calls.end(opened, error, **_outcome(growing))
        raise
    await calls.end(opened, None, **_outcome(growing))
    return reply


async def stream_model(
    calls: SessionCalls, made: MadeCall, prompt: Prompt, generate: Model
) -> AsyncGenerator[str | bytes]:
    """Ask a model, and yield its reply chunk by chunk, as it comes."""
    check_model(generate)
    opened = await calls.ask(made)
    if opened.answer.action is not None or opened.answer.chunks:
        # Closed with this one: what it tells then comes at once.
        async with aclosing(_answered_stream(calls, opened)) as answered:
            async for chunk in answered:
                yield chunk
        return
    await calls.begin(opened)
    growing = GrowingReply(calls.intake.limits.content_bytes, made.reading)
    passed = 0
    source = growing.chunks(generate, prompt)
    try:
        while True:
            opened.cancellations = cancellations()
            with calls.running(opened):
                try:
                    chunk = await anext(source)
                except StopAsyncIteration:
                    break
            if opened.first is not None:
                await calls.recorder.hand(opened.first, passed, chunk)
            passed += 1
            yield chunk
    except ReplayStopped:
        raise
    except BaseException as error:
        if opened.is_cancelled_by(error):
            await source.aclose()
        await calls.end(opened, error, **_outcome(growing))
        raise
    await calls.end(opened, None, **_outcome(growing))


async def _answered_stream(calls: SessionCalls, opened: OpenCall) -> AsyncGenerator[str | bytes]:
    answers, action = calls.answers, opened.answer.action
    assert answers is not None
    chunks: list[Any] = list(opened.answer.chunks)
    if action is not None:
        text = await calls.recorded_output(action)
        lengths = () if action.reply is None else action.reply.chunks
        if action.raw is not None:
            # It is the chunks that came; the output is what they mean.
            text = await calls.recorded_raw(action)
        chunks = [] if text is None else split_text(text, lengths)
    waits: Sequence[int] = () if action is None or action.reply is None else action.reply.waits_ms
    if len(waits) != len(chunks):
        waits = (0,) * len(chunks)
    passed, is_whole = 0, False
    try:
        while not is_whole:
            until = await answers.chunks(opened.asked, passed)
            is_whole = until is None
            for chunk, wait in zip(chunks[passed:until], waits[passed:until], strict=True):
                await _rest(answers, opened, wait, is_whole=is_whole)
                passed += 1
                yield chunk
            passed = until or passed
    except GeneratorExit:
        if not is_whole:
            await answers.withdraw(opened.asked)
        raise
    if action is None:
        raise await _break_off(calls, opened)
    if action.error is not None:
        raise calls.raised(action)


async def _rest(answers: Answers, opened: OpenCall, wait: int, *, is_whole: bool) -> None:
    try:
        await answers.rest(wait)
    except asyncio.CancelledError:
        if not is_whole:
            await answers.withdraw(opened.asked)
        raise


async def whole_answer(calls: SessionCalls, opened: OpenCall) -> Action | None:
    """Return the recorded action that answers a call, once the whole of it is due; None where the
    call runs.

    Raises what the call raised when it was recorded, or that it broke off with its process.
    """
    answer = opened.answer
    if answer.action is None and not answer.chunks:
        return None
    assert calls.answers is not None
    passed = 0
    while (until := await calls.answers.chunks(opened.asked, passed)) is not None:
        passed = until
    if answer.action is None:
        raise await _break_off(calls, opened)
    if answer.action.error is not None:
        raise calls.raised(answer.action)
    return answer.action


async def _break_off(calls: SessionCalls, opened: OpenCall) -> Exception:
    """Record that a stream broke off with its process, and return the error that says so."""
    error = ConnectionResetError(_BROKEN)
    opened.first = opened.answer.first
    outcome = await outcome_of(opened.answer.chunks, calls.intake.limits, opened.made.reading)
    await calls.recorder.end(calls.draft(opened, error, **outcome))
    return error


async def outcome_of(
    chunks: Iterable[Any], limits: Limits, reading: Reading | None = None
) -> dict[str, Any]:
    """Return what is recorded of a reply of which these chunks came."""
    growing = GrowingReply(limits.content_bytes, reading)
    for chunk in chunks:
        await growing.add(chunk)
    return _outcome(growing)


def _outcome(growing: GrowingReply) -> dict[str, Any]:
    outcome: dict[str, Any] = growing.outcome
    reply: Reply = outcome["reply"]
    if len(reply.chunks) <= 1 and all(getattr(reply, name) is None for name in COUNTS):
        outcome["reply"] = None
    return {**outcome, "raw": growing.raw}


def counts_of(reply: Reply | None) -> dict[str, Any]:
    """Return the counts and the cost of a reply by name; None where it has none."""
    return {name: getattr(reply, name, None) for name in COUNTS}
