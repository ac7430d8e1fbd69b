"""Spans of OpenTelemetry in a store and back; skipped where the SDK is not installed."""

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

from memvid_async import Limits, StoreConfig, SyncStore
from memvid_async.interop.otel import MemvidSpanExporter, export_session

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).resolve().parents[2] / "docs" / "integrations" / "otel.md"
# No nanosecond of a whole microsecond.
BEGIN = 1_795_000_000_123_456_789


def texts(*messages):
    return [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages]


def chat(*messages, reply, **more):
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5",
        "gen_ai.response.model": "gpt-5-2026",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 8,
        "gen_ai.input.messages": json.dumps(texts(*messages), ensure_ascii=False),
        "gen_ai.output.messages": json.dumps(texts(("assistant", reply))),
        **more,
    }


def trace(tracer):
    """Make a trace of every kind of span; the children end after what comes after them, too."""
    at = iter(range(BEGIN, BEGIN + 10**12, 1_000_001))

    def begin(name, parent=None, kind=SpanKind.INTERNAL, links=(), **attributes):
        return tracer.start_span(
            name,
            set_span_in_context(parent) if parent else None,
            kind,
            attributes,
            links,
            start_time=next(at),
        )

    agent = begin("invoke_agent Trip", **{"gen_ai.operation.name": "invoke_agent"})
    agent.set_attributes({"gen_ai.agent.name": "Trip", "gen_ai.conversation.id": "c 1"})
    question = ("user", "Wie ist das Wetter in Österreich?")
    first = begin("chat gpt-5", agent, SpanKind.CLIENT, **chat(question, reply="Let me look."))
    post = begin("POST", first, SpanKind.CLIENT, **{"http.request.method": "POST"})
    post.add_event("sent", {"bytes": 120, "ports": (1, 2)}, timestamp=next(at))
    post.end(next(at))
    first.set_status(Status(StatusCode.OK))
    first.end(next(at))
    tool = begin(
        "execute_tool weather",
        agent,
        **{
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "weather",
            "gen_ai.tool.call.id": "call_1",
            "gen_ai.tool.call.arguments": '{"where": "Wien", "days": 2}',
            "gen_ai.tool.call.result": "dry",
        },
    )
    find = begin(
        "retrieval notes",
        tool,
        links=[Link(first.get_span_context(), {"why": "asked"})],
        **{
            "gen_ai.operation.name": "retrieval",
            "gen_ai.data_source.id": "notes",
            "gen_ai.retrieval.query.text": "weather Wien",
            "gen_ai.retrieval.documents": '[{"id": 1, "score": 0.5}, {"id": 2, "score": 0.25}]',
        },
    )
    embed = begin(
        "embeddings small",
        find,
        SpanKind.CLIENT,
        **{
            "gen_ai.operation.name": "embeddings",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "small",
            "gen_ai.usage.input_tokens": 3,
        },
    )
    embed.end(next(at))
    find.end(next(at))
    tool.record_exception(ValueError("no such town"), timestamp=next(at))
    tool.set_status(Status(StatusCode.ERROR, "ValueError: no such town"))
    tool.end(next(at))
    more = (question, ("assistant", "Let me look."), ("user", "Und?"))
    last = begin("chat gpt-5", agent, SpanKind.CLIENT, **chat(*more, reply="Dry.", n=True))
    last.end(next(at))
    agent.end(next(at))
    return agent


def provider(*exporters, processor=SimpleSpanProcessor):
    made = TracerProvider(
        resource=Resource({"service.name": "trips", "pids": (1, 2)}, "https://schema"),
        shutdown_on_exit=False,
    )
    for exporter in exporters:
        made.add_span_processor(processor(exporter))
    return made


def seen(span):
    """All that a span says."""
    scope = span.instrumentation_scope
    return {
        "name": span.name,
        "context": span.context,
        "parent": span.parent,
        "kind": span.kind,
        "times": (span.start_time, span.end_time),
        "status": (span.status.status_code, span.status.description),
        "attributes": dict(span.attributes),
        "events": [(e.name, e.timestamp, dict(e.attributes)) for e in span.events],
        "links": [(n.context, dict(n.attributes)) for n in span.links],
        "resource": (dict(span.resource.attributes), span.resource.schema_url),
        "scope": (scope.name, scope.version, scope.schema_url, dict(scope.attributes or {})),
    }


def by_id(spans):
    return {span.context.span_id: seen(span) for span in spans}


async def sessions(store):
    listed = await store.list_sessions(include_open=True)
    return [await store.get_session(one.session_id) for one in listed]


@pytest.mark.parametrize("processor", [SimpleSpanProcessor, BatchSpanProcessor])
async def test_a_trace_comes_back_as_it_was(processor, make_store):
    store, theirs, again = await make_store(), InMemorySpanExporter(), InMemorySpanExporter()
    ours = MemvidSpanExporter(store)
    spans = provider(ours, theirs, processor=processor)
    root = trace(spans.get_tracer("agents", "1.2", "https://scope", {"a": (1,)}))
    # The loop must run while a thread exports.
    await asyncio.to_thread(spans.shutdown)
    await ours.recorded()
    (session,) = await sessions(store)
    assert session.metadata["otel.trace_id"] == f"{root.context.trace_id:032x}"
    assert await export_session(store, session.session_id, again) is SpanExportResult.SUCCESS
    assert by_id(again.get_finished_spans()) == by_id(theirs.get_finished_spans())
    assert len(again.get_finished_spans()) == 7
    # Nothing waits in the collection.
    assert [value async for value in store.collection("otel").scan()] == []


async def test_what_is_common_has_fields_of_its_own(make_store):
    store = await make_store()
    exporter = MemvidSpanExporter(store)
    trace(provider(exporter).get_tracer("agents"))
    await exporter.recorded()
    (session,) = await sessions(store)
    assert (session.name, session.error) == ("Trip", None)
    assert session.metadata["gen_ai.conversation.id"] == "c 1"
    post, first, embed, find, tool, last, agent = session.actions
    kinds = [action.kind.value for action in session.actions]
    assert kinds == ["step", "ask", "ask", "find", "tool_call", "ask", "step"]
    assert agent.details.name == "Trip"
    assert (first.parent, tool.parent, last.parent) == (agent.started,) * 3
    assert (post.parent, find.parent, embed.parent) == (first.started, tool.started, find.started)
    assert {action.task for action in session.actions} == {"Trip"}
    assert (first.details.provider, first.details.model) == ("openai", "gpt-5")
    usage = first.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (12, 5, 8)
    assert await store.read_content(first.input) == "Wie ist das Wetter in Österreich?".encode()
    assert await store.read_content(first.output) == b"Let me look."
    assert await store.read_messages(last) == texts(
        ("user", "Wie ist das Wetter in Österreich?"),
        ("assistant", "Let me look."),
        ("user", "Und?"),
    )
    assert await store.read_arguments(tool) == {"where": "Wien", "days": 2}
    assert (tool.details.name, tool.error) == ("weather", "ValueError: no such town")
    assert await store.read_content(tool.output) == b"dry"
    assert (find.details.mode, find.details.result_count) == ("notes", 2)
    assert await store.read_content(find.input) == b"weather Wien"
    assert (embed.details.model, embed.usage.input_tokens) == ("small", 3)
    assert find.duration_ms == pytest.approx(3.000003)
    rows = {row.name: row.input_tokens for row in await store.usage(by="model")}
    assert rows == {"gpt-5": 24, "small": 3}


async def test_a_chat_is_not_stored_again_with_every_span(make_store):
    store = await make_store()
    exporter = MemvidSpanExporter(store)
    tracer = provider(exporter).get_tracer("agents")
    said, size = [], 0
    with tracer.start_as_current_span("root"):
        for turn in range(40):
            said.append(("user", f"{turn} " + "question " * 100))
            with tracer.start_as_current_span("chat", attributes=chat(*said, reply="yes")):
                pass
            size += len(json.dumps(texts(said[-1])))
    await exporter.recorded()
    await store.compact()
    assert (store.statistics()).file_bytes < 3 * size


async def test_a_trace_that_fails_is_a_session_that_failed(make_store):
    store = await make_store()
    exporter = MemvidSpanExporter(store)
    tracer = provider(exporter).get_tracer("agents")
    with pytest.raises(KeyError), tracer.start_as_current_span("root"):
        raise KeyError("lost")
    await exporter.recorded()
    (session,) = await sessions(store)
    assert session.error == "SpanFailedError: KeyError: 'lost'"
    assert session.actions[0].error == "KeyError: 'lost'"


async def test_what_is_too_long_for_metadata_is_left_out_and_named(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(value_bytes=4096)))
    exporter = MemvidSpanExporter(store)
    tracer = provider(exporter).get_tracer("agents")
    with tracer.start_as_current_span("root", attributes={"long": "x" * 5000, "short": "y"}):
        message = ("user", "z" * 5000)
        with tracer.start_as_current_span("chat", attributes=chat(message, reply="yes")):
            pass
    await exporter.recorded()
    ask, root = (await sessions(store))[0].actions
    kept = root.metadata["otel"]
    assert dict(kept["left_out"]) == {"attributes long": 5003}
    assert dict(kept["attributes"]) == {"short": "y"}
    assert list(ask.metadata["otel"]["left_out"]) == ["messages 0"]


KILLED = """
import os, signal, sys
from memvid_async import SyncStore
from memvid_async.interop.otel import MemvidSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

with SyncStore.open(sys.argv[1]) as store:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(MemvidSpanExporter(store)))
    tracer = provider.get_tracer("agents")
    with tracer.start_as_current_span("root"):
        with tracer.start_as_current_span("whole"):
            with tracer.start_as_current_span("part"):
                pass
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_exported_is_not_lost(tmp_path):
    path = tmp_path / "spans.mva"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -9
    with SyncStore.open(path) as store:
        exporter = MemvidSpanExporter(store)
        assert asyncio.run(exporter.record_left_over()) == 1
        assert asyncio.run(exporter.record_left_over()) == 0
        (listed,) = store.list_sessions()
        part, whole = store.get_session(listed.session_id).actions
        assert (part.details.name, whole.details.name) == ("part", "whole")
        assert part.parent == whole.started
        exporter.shutdown()


async def test_a_span_is_recorded_once_where_a_process_was_killed_before_it_let_it_go(
    make_store, monkeypatch
):
    store = await make_store()
    exporter = MemvidSpanExporter(store)
    collection, kept = store.collection("otel"), []
    tracer = provider(exporter).get_tracer("agents")
    with tracer.start_as_current_span("root"):
        with tracer.start_as_current_span("part"):
            pass
        await exporter.recorded()
        kept = [value async for value in collection.scan()]
    await exporter.recorded()
    for value in kept:
        await collection.put(value.key, value.data)
    assert await exporter.record_left_over() == 1
    assert [len(session.actions) for session in await sessions(store)] == [2]
    assert [value async for value in collection.scan()] == []


async def test_shutting_down_records_what_has_no_root(make_store):
    store = await make_store()
    exporter = MemvidSpanExporter(store)
    tracer = provider(exporter).get_tracer("agents")
    root = tracer.start_span("root")
    tracer.start_span("part", set_span_in_context(root)).end()
    await exporter.recorded()
    assert await sessions(store) == []
    await asyncio.to_thread(exporter.shutdown)
    assert [action.details.name for action in (await sessions(store))[0].actions] == ["part"]


async def test_a_closed_store_fails_the_export(make_store, caplog):
    store = await make_store()
    exporter = MemvidSpanExporter(store)
    await store.aclose()
    spans = InMemorySpanExporter()
    with provider(spans).get_tracer("agents").start_as_current_span("root"):
        pass
    result = await asyncio.to_thread(exporter.export, spans.get_finished_spans())
    assert result is SpanExportResult.FAILURE
    assert "spans were not recorded" in caplog.text


async def test_a_recording_of_our_own_becomes_a_trace(make_store):
    store = await make_store()
    async with store.session("trip", metadata={"user": "ada"}) as session:
        async with session.step("plan"):
            await session.call_tool("weather", {"town": "Oslo"}, lambda town: f"dry in {town}")
        await session.record_find("oslo", mode="lex", result_count=0, result_frames=())
        asked = [{"role": "user", "content": "Dry?"}]
        await session.record_ask(
            "Dry?", model="tiny", response="Yes.", messages=asked, input_tokens=2, duration_ms=5
        )
        await session.record_ask("And now?", error="TimeoutError: too slow")
    spans = InMemorySpanExporter()
    await export_session(store, session.session_id, spans)
    root, tool, plan, find, ask, failed = spans.get_finished_spans()
    names = [span.name for span in (root, tool, plan, find, ask, failed)]
    assert names == ["trip", "execute_tool weather", "plan", "retrieval", "chat tiny", "chat"]
    assert {span.context.trace_id for span in (root, tool, plan)} == {session.session_id.int}
    assert tool.parent.span_id == plan.context.span_id
    assert plan.parent.span_id == ask.parent.span_id == root.context.span_id
    assert tool.attributes["gen_ai.tool.call.arguments"] == '{"town": "Oslo"}'
    assert tool.attributes["gen_ai.tool.call.result"] == "dry in Oslo"
    assert find.attributes["gen_ai.retrieval.query.text"] == "oslo"
    assert json.loads(ask.attributes["gen_ai.input.messages"]) == texts(("user", "Dry?"))
    assert json.loads(ask.attributes["gen_ai.output.messages"]) == texts(("assistant", "Yes."))
    assert ask.attributes["gen_ai.usage.input_tokens"] == 2
    assert ask.end_time - ask.start_time == 5_000_000
    assert (failed.status.status_code, failed.status.description) == (
        StatusCode.ERROR,
        "TimeoutError: too slow",
    )
    assert all(span.start_time <= span.end_time for span in spans.get_finished_spans())


async def test_what_is_nested_too_deep_is_kept_as_text(make_store):
    store, deep = await make_store(), "[" * 100 + "]" * 100
    exporter, spans = MemvidSpanExporter(store), InMemorySpanExporter()
    given = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": deep, "half": "\ud83d"}
    with provider(exporter).get_tracer("agents").start_as_current_span("chat", attributes=given):
        pass
    await exporter.recorded()
    (session,) = await sessions(store)
    await export_session(store, session.session_id, spans)
    (span,) = spans.get_finished_spans()
    assert dict(span.attributes) == {**given, "half": "?"}


def test_the_program_of_the_page_runs(tmp_path):
    (program,) = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"gen_ai.tool.call.result": "dry"' in done.stdout
