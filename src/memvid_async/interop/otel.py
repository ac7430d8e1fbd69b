"""OpenTelemetry's spans as sessions of a file, and sessions as spans.

:class:`MemvidSpanExporter` records the traces of any framework; :func:`export_session` sends a
session to any exporter. Run with opentelemetry-sdk 1.45.2.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextvars import Context
from typing import Any
from uuid import UUID

import cbor2

try:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    from .otel_spans import (
        AGENT,
        CONVERSATION,
        Record,
        SpanFields,
        failure_of,
        fields_of,
        record_of,
        span_of,
    )
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("opentelemetry"):
        raise
    message = "spans need a package: install memvid-async[otel]"
    raise ModuleNotFoundError(message, name=error.name) from error

from .. import (
    Action,
    ActionKind,
    Delete,
    LimitExceededError,
    MemvidAsyncError,
    Put,
    Session,
    SessionRecorder,
    Store,
    SyncStore,
)
from .given_store import GivenStore
from .otel_recordings import own_records, restored

_LOG = logging.getLogger(__name__)
# A name in a recording has at most this many characters by default.
_NAME_CHARS = 256
# What is shorter is never left out.
_SHORT_BYTES = 256
# The metadata of an action that came from a span, and of its session.
KEY, TRACE = "otel", "otel.trace_id"


class SpanFailedError(Exception):
    """The root span of a trace failed; its session has this as its error."""


class MemvidSpanExporter(SpanExporter):
    """An exporter of spans into a store: each trace becomes a session when its root span has ended.

    ``store``: an open :class:`SyncStore`, or a :class:`Store`, on its event loop; it is not closed.
    ``collection``: where the spans of traces that go on are kept, so that what was exported is
    durable. Spans whose root never came are recorded by ``shutdown()``, or by
    :meth:`record_left_over` after a kill.

    ``export`` waits until the spans are durable. On the loop of an asyncio store itself nothing may
    wait: there the spans are recorded in the background, until ``await exporter.recorded()``.
    """

    def __init__(self, store: Store | SyncStore, *, collection: str = "otel") -> None:
        self._given = GivenStore(store)
        self._name = collection
        self._begun: set[str] = set()
        self._pending: set[Future[Any]] = set()
        # A root is looked at after the spans that were exported before it.
        self._in_order = asyncio.Lock()

    # What OpenTelemetry calls.

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Record ended spans; FAILURE, with a line in the log, where they cannot be."""
        records = [record_of(span) for span in spans]
        return self._run(lambda store: self._take(store, records))

    def shutdown(self) -> None:
        """Record the spans whose root has not come."""
        self._run(lambda store: self._record_rest(store, set(self._begun)))

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return whether everything is recorded; in another thread than the loop's it always is."""
        del timeout_millis
        return not self._pending

    def _run(self, call: Callable[[Store], Awaitable[Any]]) -> SpanExportResult:
        async def run(store: Store) -> None:
            async with self._in_order:
                await call(store)

        try:
            # In no session: a span may end inside of one that answers its agent from a recording.
            future = Context().run(self._given.sync.submit, run)
            if self._given.is_here:
                self._pending.add(future)
                future.add_done_callback(self._done)
            else:
                future.result()
        except MemvidAsyncError as error:
            _LOG.error("spans were not recorded: %s", error)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def _done(self, future: Future[Any]) -> None:
        self._pending.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            _LOG.error("spans were not recorded: %s", error)

    # What users call.

    async def recorded(self) -> None:
        """Wait until what was exported on the store's own loop is recorded."""
        waiting = map(asyncio.wrap_future, list(self._pending))
        await asyncio.gather(*waiting, return_exceptions=True)

    async def record_left_over(self) -> int:
        """Record what a killed process had exported of traces whose root never came; return the
        number of sessions. Call it while no other process exports into this collection."""

        async def run(store: Store) -> int:
            async with self._in_order:
                return await self._record_rest(store, None)

        return await asyncio.wrap_future(self._given.sync.submit(run))

    # Recording; on the store's loop.

    async def _take(self, store: Store, records: list[Record]) -> None:
        """Record the traces whose root is among the spans, and keep the other spans."""
        left = {(r["trace_id"], r["span_id"]): r for r in records}
        for root in [r for r in records if r["parent_id"] is None or r["parent_is_remote"]]:
            kept = await self._kept(store, f"{root['trace_id']}/")
            known = {r["span_id"]: r for r in kept}
            known |= {span: r for (trace, span), r in left.items() if trace == root["trace_id"]}
            tree = _below(root, known.values())
            await self._record(store, tree)
            for record in tree:
                left.pop((record["trace_id"], record["span_id"]), None)
            self._begun.discard(root["trace_id"])
        if left:
            self._begun |= {trace for trace, _ in left}
            changes = [Put(_place(record), record) for record in left.values()]
            await store.collection(self._name).apply(changes)

    async def _kept(self, store: Store, prefix: str) -> list[Record]:
        """Return the spans that wait for their root."""
        return [value.data async for value in store.collection(self._name).scan(prefix)]

    async def _record_rest(self, store: Store, traces: set[str] | None) -> int:
        """Record what waits of these traces, or of all, each as a session; return their number."""
        by_trace: defaultdict[str, list[Record]] = defaultdict(list)
        for prefix in [""] if traces is None else sorted(f"{trace}/" for trace in traces):
            for record in await self._kept(store, prefix):
                by_trace[record["trace_id"]].append(record)
        for trace, records in by_trace.items():
            # A process may have been killed after it recorded them, before it deleted them here.
            done = await _recorded_spans(store, trace)
            await self._record(store, records, [r for r in records if r["span_id"] not in done])
            self._begun.discard(trace)
        return len(by_trace)

    async def _record(
        self, store: Store, tree: list[Record], new: list[Record] | None = None
    ) -> None:
        """Record spans as a session, the root first; then nobody waits for them."""
        new = tree if new is None else new
        if new:
            await _record_session(store, new)
        await store.collection(self._name).apply([Delete(_place(record)) for record in tree])


def _place(record: Record) -> str:
    return f"{record['trace_id']}/{record['span_id']}"


def _below(root: Record, records: Iterable[Record]) -> list[Record]:
    """Return a span and those below it, each after the one that it is part of."""
    parts: defaultdict[str | None, list[Record]] = defaultdict(list)
    for record in records:
        if record is not root and not record["parent_is_remote"]:
            parts[record["parent_id"]].append(record)
    found = [root]
    for record in found:
        found += sorted(parts.pop(record["span_id"], ()), key=lambda part: part["start_ns"])
    return found


async def _recorded_spans(store: Store, trace: str) -> set[str]:
    found = set()
    for listed in await store.list_sessions(include_open=True, metadata={TRACE: trace}):
        session = await store.get_session(listed.session_id)
        for action in session.actions:
            found.add(action.metadata.get(KEY, {}).get("span_id"))
    return found


async def _record_session(store: Store, tree: list[Record]) -> None:
    first = tree[0]
    fields = {record["span_id"]: fields_of(record) for record in tree}
    metadata = {TRACE: first["trace_id"], "otel.resource": first["resource"]}
    named = [r["attributes"][CONVERSATION] for r in tree if CONVERSATION in r["attributes"]]
    if named:
        metadata[CONVERSATION] = named[0]
    try:
        name = fields[first["span_id"]].name[:_NAME_CHARS]
        async with store.session(name, metadata=metadata) as session:
            await _record_tree(session, tree, fields)
            _raise_failure(first)
    except SpanFailedError:
        # It is the session's error, and nobody else's.
        pass


def _raise_failure(record: Record) -> None:
    failure = failure_of(record)
    if failure is not None:
        raise SpanFailedError(failure)


async def _record_tree(
    session: SessionRecorder, tree: list[Record], fields: Mapping[str, SpanFields]
) -> None:
    """Record spans: first that those with parts begin, then how each ended, in that order."""
    wholes = {record["parent_id"] for record in tree}
    agents: dict[str, str] = {}
    started: dict[str, int] = {}
    for record in tree:
        span, made = record["span_id"], fields[record["span_id"]]
        agent = record["attributes"].get(AGENT) or agents.get(record["parent_id"])
        agents[span] = str(agent or tree[0]["name"])[:_NAME_CHARS]
        if span in wholes:
            started[span] = await session.record_start(
                made.kind,
                made.name[:_NAME_CHARS],
                provider=made.provider,
                model=made.model,
                task=agents[span],
                parent=started.get(record["parent_id"]),
            )
    depths: dict[str, int] = {}
    for record in tree:
        depths[record["span_id"]] = depths.get(record["parent_id"], 0) + 1
    for record in sorted(tree, key=lambda one: (one["end_ns"], -depths[one["span_id"]])):
        span = record["span_id"]
        await _record_span(
            session,
            record,
            fields[span],
            tree[0]["resource"],
            task=agents[span],
            parent=started.get(record["parent_id"]),
            started=started.get(span),
        )


async def _record_span(
    session: SessionRecorder, record: Record, made: SpanFields, resource: Any, **common: Any
) -> None:
    """Record how a span ended. Where its attributes are too long for metadata, the longest are left
    out, and named."""
    kept = {name: value for name, value in record.items() if name != "trace_id"}
    kept["attributes"] = {n: v for n, v in record["attributes"].items() if n not in made.moved}
    if made.moved:
        kept["moved"] = made.moved
    if kept["resource"] == resource:
        del kept["resource"]
    common |= {
        "duration_ms": max(0, record["end_ns"] - record["start_ns"]) / 1e6,
        "error": failure_of(record),
    }
    while True:
        try:
            return await _record_as(session, made, **common, metadata={KEY: kept})
        except LimitExceededError as error:
            if error.limit not in ("value_bytes", "messages_bytes") or not _shorten(made, kept):
                raise


def _shorten(made: SpanFields, kept: Record) -> bool:
    """Leave out the longest attribute, message or arguments; return whether there was any."""
    sizes: dict[tuple[str, Any], int] = {
        ("attributes", name): len(cbor2.dumps(value)) for name, value in kept["attributes"].items()
    }
    sizes |= {("messages", at): len(cbor2.dumps(one)) for at, one in enumerate(made.messages)}
    sizes["arguments", ""] = len(cbor2.dumps(made.arguments))
    where, which = longest = max(sizes, key=sizes.__getitem__)
    if sizes[longest] < _SHORT_BYTES:
        return False
    if where == "attributes":
        del kept["attributes"][which]
    elif where == "messages":
        made.messages[which] = {"left_out_bytes": sizes[longest]}
    else:
        made.arguments = None
    kept.setdefault("left_out", {})[f"{where} {which}".strip()] = sizes[longest]
    return True


async def _record_as(session: SessionRecorder, made: SpanFields, **common: Any) -> None:
    if made.kind is ActionKind.ASK:
        await session.record_ask(
            made.query,
            provider=made.provider,
            model=made.model,
            response=made.output,
            messages=made.messages,
            **made.usage,
            **common,
        )
    elif made.kind is ActionKind.TOOL_CALL:
        name = made.name[:_NAME_CHARS]
        await session.record_tool_call(name, arguments=made.arguments, result=made.output, **common)
    elif made.kind is ActionKind.FIND:
        await session.record_find(
            made.query,
            mode=made.name[:_NAME_CHARS],
            result_count=made.result_count,
            result_frames=(),
            **common,
        )
    else:
        name = made.name[:_NAME_CHARS]
        await session.record_step(name, input=made.arguments, output=made.output, **common)


# The other way.


async def export_session(
    store: Store, session_id: UUID | str, exporter: SpanExporter
) -> SpanExportResult:
    """Send a session to an exporter, as spans, and return what it answers.

    One that was recorded from spans is sent as they were. Any other is a trace with a span for the
    session and one for each action; asks, tool calls and finds have the attributes of the
    conventions for generative AI. The exporter runs in a thread.

    :raises SessionNotFoundError: when there is no such session.
    """
    session = await store.get_session(session_id)
    records = await _records(store, session)
    spans = [span_of(record) for record in records]
    return await asyncio.to_thread(exporter.export, spans)


async def _records(store: Store, session: Session) -> list[Record]:
    trace = session.metadata.get(TRACE)
    if trace is None:
        return await own_records(store, session)
    base = {"trace_id": trace, "resource": session.metadata["otel.resource"]}
    found: list[Action] = [action for action in session.actions if KEY in action.metadata]
    return [await restored(store, action, base, action.metadata[KEY]) for action in found]
