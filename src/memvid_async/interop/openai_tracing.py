"""Traces of the OpenAI Agents SDK, as recordings. See :mod:`.openai_agents`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Self

from agents import Span, Trace, TracingProcessor
from attrs import Factory, define

from .. import (
    InvalidValueError,
    MemvidAsyncError,
    SessionRecorder,
    Store,
    StoreClosedError,
    SyncStore,
)
from .chat_messages import as_text, dump
from .given_store import GivenStore
from .wire_formats import Form, read_reply

_NAME_CHARS = 256


class SpanError(MemvidAsyncError):
    """A span of the Agents SDK failed; the message is what the SDK said."""


@define(eq=False)
class _Open:
    """A trace or a span that has not ended.

    ``agent``: the name of the agent that it is part of. ``said``: what a span said when it began.
    ``root``: the trace that it is in; None of what is a session itself, which ``task`` records.
    ``told``: the spans that begin in it, then None. ``is_cut``: the session ended before it did.
    """

    what: Any
    agent: str
    said: Mapping[str, Any] = Factory(dict)
    root: _Open | None = None
    task: asyncio.Task[None] | None = None
    told: asyncio.Queue[_Open | None] = Factory(asyncio.Queue)
    is_cut: bool = False


class MemvidTracing(TracingProcessor):
    """Records what the Agents SDK traces, while it goes on: give it to ``add_trace_processor``, or
    to ``set_trace_processors`` for it alone.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; it is not closed.
    Leave its ``async with`` block, or await :meth:`flush`, before the store is closed.

    A trace is a session. Model calls are asks, functions are tool calls, and all other spans
    (agents, turns, handoffs, guardrails, …) are steps; each has the one around it as its parent.
    What the SDK leaves out of its traces is not recorded either. A recording that fails does not
    disturb the run: :meth:`flush` raises its error.
    """

    def __init__(self, store: Store | SyncStore) -> None:
        self._given = GivenStore(store)
        self._store = self._given.sync
        self._open: dict[str, _Open] = {}
        self._sessions: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._failure: Exception | None = None
        self._is_closed = False

    # What the SDK tells, in any thread.

    def on_trace_start(self, trace: Trace) -> None:
        """Begin a session."""
        self._tell(self._begin_trace, trace)

    def on_trace_end(self, trace: Trace) -> None:
        """End the session."""
        self._tell(self._end, trace.trace_id)

    def on_span_start(self, span: Span[Any]) -> None:
        """Begin an action. The SDK says what its input is right after this."""
        self._tell(self._begin_span, span, _said_by(span))

    def on_span_end(self, span: Span[Any]) -> None:
        """End an action."""
        self._tell(self._end, span.span_id)

    def force_flush(self) -> None:
        """Do what :meth:`flush` does; nothing in the thread of the store's event loop, which must
        not wait."""
        if not self._given.is_here:
            with suppress(StoreClosedError):
                self._store.submit(self._flushed).result()

    def shutdown(self) -> None:
        """Do what :meth:`force_flush` does."""
        self.force_flush()

    async def flush(self) -> None:
        """Wait until every trace that has ended is recorded.

        :raises Exception: what went wrong first, since the last time.
        """
        await asyncio.wrap_future(self._store.submit(self._flushed))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait as :meth:`flush` does, and record no more. What has not ended is recorded as
        cancelled, and its session stays open."""
        try:
            await self.flush()
        finally:
            self._is_closed = True
            await asyncio.wrap_future(self._store.submit(self._stopped))

    def _tell(self, take: Callable[..., None], *told: Any) -> None:
        async def on_loop(store: Store) -> None:
            take(store, *told)

        if not self._is_closed:
            self._store.submit(on_loop)

    # On the store's event loop.

    def _begin_trace(self, store: Store, trace: Any) -> None:
        opened = _Open(trace, trace.name)
        told = {"trace_id": trace.trace_id, "group_id": trace.group_id, "metadata": trace.metadata}
        self._begin_root(store, opened, trace.name, told, self._inside)
        self._open[trace.trace_id] = opened

    def _begin_span(self, store: Store, span: Any, said: Mapping[str, Any]) -> None:
        around = self._open.get(span.parent_id or "") or self._open.get(span.trace_id)
        data = span.span_data
        own = data.name if data.type == "agent" else None
        opened = _Open(span, own or (around.agent if around is not None else data.type), said)
        if around is None:
            # Nobody told of its trace, as where the SDK goes on with an earlier one.
            told = {"trace_id": span.trace_id}
            self._begin_root(store, opened, _name_of(data), told, self._record)
        else:
            opened.root = around.root or around
            around.told.put_nowait(opened)
        self._open[span.span_id] = opened

    def _begin_root(
        self,
        store: Store,
        opened: _Open,
        name: str,
        told: Mapping[str, Any],
        record: Callable[[SessionRecorder, _Open], Awaitable[None]],
    ) -> None:
        async def session() -> None:
            said = {key: value for key, value in told.items() if value is not None}
            metadata = _plain_fields(said)
            async with store.session(name[:_NAME_CHARS] or None, metadata=metadata) as one:
                await record(one, opened)

        opened.task = asyncio.create_task(self._noted(session()), name=opened.agent)
        self._sessions.add(opened.task)
        opened.task.add_done_callback(self._sessions.discard)

    def _end(self, _: Store, name: str) -> None:
        opened = self._open.pop(name, None)
        if opened is None:
            return
        opened.told.put_nowait(None)
        if opened.task is None:
            return
        for key, one in list(self._open.items()):
            if one.root is opened:
                del self._open[key]
                one.is_cut = True
                one.told.put_nowait(None)
        self._ending.add(opened.task)
        opened.task.add_done_callback(self._ending.discard)

    async def _flushed(self, _: Store) -> None:
        while self._ending:
            await asyncio.wait(self._ending)
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _stopped(self, _: Store) -> None:
        for task in self._sessions:
            task.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)
        self._open.clear()

    async def _noted(self, recording: Awaitable[None]) -> None:
        """Await a recording, and keep its error for :meth:`flush`."""
        try:
            await recording
        except Exception as error:  # noqa: BLE001 - a run is not to fail with its recording
            self._failure = self._failure or error

    # A session's actions.

    async def _inside(self, session: SessionRecorder, opened: _Open) -> None:
        """Record the spans that begin in one, until it has ended and they have."""
        async with asyncio.TaskGroup() as spans:
            while (span := await opened.told.get()) is not None:
                spans.create_task(self._noted(self._record(session, span)), name=span.agent)

    async def _record(self, session: SessionRecorder, opened: _Open) -> None:
        span = opened.what
        match span.span_data.type:
            case "generation" | "response":
                await self._inside(session, opened)
                await _record_ask(session, opened)
            case "function":
                await self._record_call(session, opened)
            case _:
                await self._record_step(session, opened)

    async def _record_call(self, session: SessionRecorder, opened: _Open) -> None:
        span, data = opened.what, opened.what.span_data
        arguments = _loads(data.input)
        if not isinstance(arguments, dict):
            arguments = {} if data.input is None else {"input": data.input}
        arguments = _plain_fields(arguments)

        async def run(**_: Any) -> Any:
            await self._inside(session, opened)
            _raise_error(opened)
            return data.output

        with suppress(SpanError):
            await session.call_tool(data.name[:_NAME_CHARS], arguments, run, metadata=_ids_of(span))

    async def _record_step(self, session: SessionRecorder, opened: _Open) -> None:
        span = opened.what
        before = _plain_fields({name: value for name, value in opened.said.items() if value})
        with suppress(SpanError):
            async with session.step(_name_of(span.span_data), input=before) as step:
                await self._inside(session, opened)
                said = _plain_fields(_said_by(span))
                step.output = {key: v for key, v in said.items() if before.get(key) != v} or None
                _raise_error(opened)


def _ids_of(span: Any) -> dict[str, Any]:
    return {"span_id": span.span_id, "started_at": span.started_at}


def _name_of(data: Any) -> str:
    """Return what a step is called."""
    if data.type == "turn":
        return f"turn {data.turn}"
    name: str = getattr(data, "name", None) or data.type
    return name[:_NAME_CHARS]


def _said_by(span: Any) -> dict[str, Any]:
    """Return what a span says at this moment."""
    data = span.span_data
    names = getattr(type(data), "__slots__", None) or vars(data)
    found = {name: getattr(data, name) for name in names if not name.startswith("_")}
    said = {name: value for name, value in found.items() if value is not None}
    return {"type": data.type, **_ids_of(span), **said}


async def _record_ask(session: SessionRecorder, opened: _Open) -> None:
    asked = _ask_of(opened.what)
    try:
        await session.record_ask(**asked, error=_error_of(opened))
    except InvalidValueError:
        asked["messages"] = await asyncio.to_thread(_plain, asked["messages"])
        await session.record_ask(**asked, error=_error_of(opened))


def _ask_of(span: Any) -> dict[str, Any]:
    """Return what ``record_ask`` is given of a model call that has ended."""
    data, usage = span.span_data, span.span_data.usage or {}
    messages = data.input or []
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if data.type == "generation":
        form, model, answer = Form.CHAT, data.model, (data.output or [None])[0]
        reply = {"choices": [{"message": answer}]}
        if isinstance(answer, dict) and "output" in answer:
            form, reply = Form.RESPONSES, answer
    else:
        response = data.response
        form, reply = Form.RESPONSES, response.model_dump(mode="json") if response else {}
        model, instructions = reply.get("model"), reply.get("instructions")
        if instructions:
            messages = [{"role": "system", "content": instructions}, *messages]
    answered = read_reply(form, 200, "", json.dumps(reply, default=str).encode())
    return {
        "query": _question(messages),
        "provider": "openai" if data.type == "response" else None,
        "model": model or None,
        "response": answered.text or None,
        "duration_ms": _duration_ms(span),
        "messages": messages,
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cached_tokens": (usage.get("input_tokens_details") or {}).get("cached_tokens"),
        "metadata": _ids_of(span),
    }


def _question(messages: Sequence[Any]) -> str:
    """Return the text of the last message that the user wrote; else of the last one."""
    asked = [one for one in messages if isinstance(one, dict) and one.get("role") == "user"]
    last = (asked or messages or [{}])[-1]
    return as_text(last.get("content") if isinstance(last, dict) else last)


def _duration_ms(span: Any) -> float:
    began, ended = span.started_at, span.ended_at
    if began is None or ended is None:
        return 0
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds() * 1000


def _raise_error(opened: _Open) -> None:
    """Raise what a span failed with, if it did."""
    if (error := _error_of(opened)) is not None:
        raise SpanError(error)


def _error_of(opened: _Open) -> str | None:
    error = opened.what.error
    if error is None:
        return "it had not ended when its session did" if opened.is_cut else None
    data = error.get("data")
    return f"{error['message']}: {dump(_plain(data))}" if data else str(error["message"])


def _plain(value: Any) -> Any:
    """Return a value as JSON and UTF-8 can hold it."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = json.dumps(str(value), ensure_ascii=False)
    return json.loads(text.encode("utf-8", "replace"))


def _plain_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in fields.items()}


def _loads(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
