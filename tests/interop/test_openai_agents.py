"""The OpenAI Agents SDK's sessions and traces; skipped where the SDK is not installed."""

import asyncio
import logging
from pathlib import Path

import pytest

pytest.importorskip("agents")

import agents
import openai
from agents.testing import ScriptedModel, assistant_message
from agents.tracing.provider import DefaultTraceProvider

from memvid_async import ActionKind, StoreClosedError, SyncStore, open_store
from memvid_async.interop.openai_agents import MemvidSession, MemvidTracing
from scripts import check_docs
from tests.support.loops import turns
from tests.support.model_server import model_server

pytestmark = pytest.mark.one_loop

ROOT = Path(__file__).resolve().parents[2]


def said(number, **fields):
    return {"role": "user", "content": f"message {number}", **fields}


@pytest.fixture
def traced():
    """Let only this processor be told, if any; afterwards nobody is."""

    def trace(processor):
        provider = DefaultTraceProvider()
        provider.set_processors([] if processor is None else [processor])
        agents.set_trace_provider(provider)
        agents.set_tracing_disabled(False)

    yield trace
    agents.set_trace_provider(DefaultTraceProvider())
    agents.set_tracing_disabled(True)


# Sessions.


async def test_a_conversation_is_kept(make_store):
    store = await make_store()
    session = MemvidSession("anna", store, session_settings={"limit": 3})
    assert isinstance(session, agents.Session)
    assert await session.pop_item() is None
    await session.add_items([said(n, deep={"n": [n, None, 1.5]}) for n in range(4)])
    await session.add_items([])
    assert await session.get_items() == [said(n, deep={"n": [n, None, 1.5]}) for n in (1, 2, 3)]
    assert [item["content"][-1] for item in await session.get_items(limit=-1)] == list("0123")
    assert await session.get_items(limit=0) == []
    assert (await session.pop_item())["content"] == "message 3"
    assert len(await MemvidSession("anna", store).get_items()) == 3
    assert await MemvidSession("bert", store).get_items() == []
    await session.clear_session()
    assert await session.get_items() == []


async def test_a_runner_goes_on_with_it(make_store):
    store = await make_store()
    for turn in ("first", "second"):
        model = ScriptedModel([[assistant_message(f"answer to the {turn}")]])
        agent = agents.Agent(name="a", model=model)
        session = MemvidSession("anna", store)
        await agents.Runner.run(agent, turn, session=session)
    items = await session.get_items()
    assert [item["role"] for item in items] == ["user", "assistant"] * 2
    assert [item["content"] for item in items if item["role"] == "user"] == ["first", "second"]
    assert len(model.calls[0].input) == 3


async def test_processes_add_and_pop_without_loss(make_store):
    """Each process has a store of its own."""
    sessions = [MemvidSession("anna", await make_store("one.mva")) for _ in range(3)]

    async def work(session, first):
        popped = []
        for n in range(first, first + 20):
            await session.add_items([{"n": n}, {"n": n + 1000}])
            popped.append((await session.pop_item())["n"])
        return popped

    works = (work(session, 100 * number) for number, session in enumerate(sessions))
    popped = [n for found in await asyncio.gather(*works) for n in found]
    left = [item["n"] for item in await sessions[0].get_items()]
    added = [100 * number + n for number in range(3) for n in range(20)]
    assert sorted(popped + left) == sorted([*added, *(n + 1000 for n in added)])


async def test_a_change_that_is_cancelled_is_made_when_that_is_raised(make_store):
    session = MemvidSession("anna", await make_store())
    await session.add_items([said(0)])
    for change, left in (
        (session.add_items([said(1), said(2)]), 3),
        (session.pop_item(), 2),
        (session.clear_session(), 0),
    ):
        changing = asyncio.create_task(change)
        await turns(1)
        changing.cancel()
        await turns(1)
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        assert len(await session.get_items()) == left


async def test_a_compaction_replaces_the_end_in_one_command(make_store):
    store = await make_store()
    session = MemvidSession("anna", store)
    await session.add_items([said(n) for n in range(6)])
    snapshot = await session._get_compaction_snapshot(4)
    assert (snapshot.items, snapshot.complete) == ([said(n) for n in (2, 3, 4, 5)], False)
    before = store.last_sequence
    assert await snapshot.replace_suffix(1, [said("sum")])
    assert store.last_sequence == before + 1
    assert await session.get_items() == [said(0), said(1), said(2), said("sum")]
    assert not await snapshot.replace_suffix(1, [said("late")])
    pruning = await session._get_compaction_snapshot(2, prune_prefix=lambda item: item == said(0))
    await MemvidSession("anna", store).add_items([said("new")])
    assert not await pruning.replace_suffix(0, [])
    pruning = await session._get_compaction_snapshot(9, prune_prefix=lambda item: item == said(0))
    assert pruning.complete
    assert await pruning.replace_suffix(4, [said("sum 2")])
    assert await session.get_items() == [said(1), said(2), said("sum"), said("sum 2")]
    assert not await pruning.replace_suffix(5, [])


def test_it_works_on_any_loop(tmp_path):
    with SyncStore.open(tmp_path / "a.mva") as store:
        session = MemvidSession("anna", store)
        asyncio.run(session.add_items([said(1)]))
        agent = agents.Agent(name="a", model=ScriptedModel([[assistant_message("hi")]]))
        asyncio.run(agents.Runner.run(agent, "hello", session=session))
        assert len(asyncio.run(session.get_items())) == 3


async def test_the_pages_program_runs(tmp_path, traced, monkeypatch):
    page = (ROOT / "docs" / "integrations" / "openai-agents.md").read_text(encoding="utf-8")
    names = {}
    ((_, code),) = [block for block in check_docs.code_blocks(page) if block[0] == "python"]
    exec(code, names)
    path = tmp_path / "a.mva"
    async with model_server() as server:
        url = f"{server.url}/v1"
        async with openai.AsyncOpenAI(api_key="sk-of-mine", base_url=url) as client:
            monkeypatch.setattr("agents.models._openai_shared._default_openai_client", client)
            traced(None)
            for question in ("a day in Oslo", "a night in Oslo"):
                assert await names["chat"](path, question) == question.upper()
    async with open_store(path, read_only=True) as store:
        assert len(await store.list_sessions()) == 2
        assert len(await MemvidSession("anna", store).get_items()) == 4


# Tracing.


async def recorded(store):
    (listed,) = await store.list_sessions(include_open=True)
    return await store.get_session(listed.session_id)


async def text(store, content):
    return (await store.read_content(content)).decode()


def tree(session):
    """The actions as (kind, name, [those inside]), in the order in which they began."""
    inside = {}
    for action in sorted(session.actions, key=lambda one: one.started or one.sequence):
        inside.setdefault(action.parent, []).append(action)

    def below(actions):
        return [
            (
                str(one.kind),
                getattr(one.details, "name", None),
                below(inside.get(one.started, ()) if one.started else ()),
            )
            for one in actions
        ]

    return below(inside[None])


async def test_a_run_is_a_session(make_store, traced):
    store = await make_store()

    @agents.function_tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        return f"dry in {city}"

    @agents.function_tool
    async def unused() -> None:
        """Do nothing."""

    @agents.input_guardrail
    async def polite(context, agent, asked):
        return agents.GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    async with (
        MemvidTracing(store) as tracing,
        model_server() as server,
        openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1") as client,
    ):
        traced(tracing)
        chat = agents.OpenAIChatCompletionsModel(model="c", openai_client=client)
        responses = agents.OpenAIResponsesModel(model="r", openai_client=client)
        guide = agents.Agent(name="guide", model=responses, tools=[unused, weather])
        planner = agents.Agent(
            name="planner", model=chat, handoffs=[guide], input_guardrails=[polite]
        )
        config = agents.RunConfig(workflow_name="trip", group_id="g", trace_metadata={"of": "me"})
        result = await agents.Runner.run(planner, "a day in Oslo", run_config=config)
        assert result.last_agent is guide
        await tracing.flush()
        session = await recorded(store)
    assert session.name == "trip"
    assert session.ended_ns is not None
    assert session.metadata["group_id"] == "g"
    assert session.metadata["metadata"] == {"of": "me"}
    ask = ("ask", None, [])
    assert tree(session) == [
        ("step", "trip", [
            ("step", "planner", [
                ("step", "turn 1", [
                    ("step", "polite", []), ask, ("step", "handoff", []),
                ]),
            ]),
            ("step", "guide", [
                ("step", "turn 2", [ask, ("tool_call", "weather", [])]),
                ("step", "turn 3", [ask]),
            ]),
        ]),
    ]  # fmt: skip
    asks = [action for action in session.actions if action.kind == ActionKind.ASK]
    assert [(one.details.provider, one.details.model) for one in asks] == [
        (None, "c"), ("openai", "r"), ("openai", "r"),
    ]  # fmt: skip
    assert all(one.usage.input_tokens and one.usage.output_tokens for one in asks)
    assert {await text(store, one.input) for one in asks} == {"a day in Oslo"}
    assert await text(store, asks[2].output) == result.final_output
    assert "transfer_to_guide" in await text(store, asks[0].output)
    assert (await store.read_messages(asks[0]))[-1]["content"] == "a day in Oslo"
    (call,) = [one for one in session.actions if one.kind == ActionKind.TOOL_CALL]
    assert await store.read_arguments(call) == {"city": "Oslo"}
    assert await text(store, call.output) == "dry in Oslo"
    steps = {one.details.name: one for one in session.actions if one.kind == ActionKind.STEP}
    assert await text(store, steps["handoff"].output) == '{"to_agent": "guide"}'
    assert await text(store, steps["polite"].output) == '{"triggered": false}'
    assert {one.task for one in session.actions} >= {"planner", "guide"}


async def test_failures_are_told(make_store, traced):
    store = await make_store()

    @agents.function_tool(failure_error_function=None)
    def broken() -> str:
        """Fail."""
        raise RuntimeError("no water")

    async with (
        MemvidTracing(store) as tracing,
        model_server() as server,
        openai.AsyncOpenAI(api_key="k", base_url=f"{server.url}/v1", max_retries=0) as client,
    ):
        traced(tracing)
        model = agents.OpenAIResponsesModel(model="m", openai_client=client)
        with pytest.raises(agents.UserError, match="no water"):
            await agents.Runner.run(agents.Agent(name="a", model=model, tools=[broken]), "x")
        await tracing.flush()
        session = await recorded(store)
        (call,) = [one for one in session.actions if one.kind == ActionKind.TOOL_CALL]
        assert "no water" in call.error
        await store.delete_session(session.session_id)
        model = agents.OpenAIResponsesModel(model="refused", openai_client=client)
        with pytest.raises(openai.NotFoundError):
            await agents.Runner.run(agents.Agent(name="a", model=model), "x")
        await tracing.flush()
        session = await recorded(store)
    (ask,) = [one for one in session.actions if one.kind == ActionKind.ASK]
    assert "no such model" in ask.error
    assert session.error is None


async def test_spans_of_every_shape_are_recorded(make_store, traced):
    """Those that end in no order, or never; of a trace that nobody told of; with any data."""
    store = await make_store()
    async with MemvidTracing(store) as tracing:
        traced(tracing)
        with agents.trace("n" * 300):
            with agents.function_span("t", input="no JSON \ud800") as call:
                call.span_data.output = {"any": object}
                with agents.custom_span("inside", {"set": {1}, "text": "\ud800"}):
                    pass
            late, never = agents.custom_span("late"), agents.custom_span("never")
            with agents.generation_span(model="m", output=[]) as outer:
                late.start()
                never.start()
            with agents.generation_span(input=[{"role": "assistant", "content": "only"}]):
                agents.custom_span("below", parent=outer).start()
            late.finish()
            with agents.guardrail_span("", triggered=True), agents.speech_span("v", "x"):
                pass
        never.finish()
        with agents.custom_span("alone", parent=never) as alone:
            agents.custom_span("in it", parent=alone).start()
        await tracing.flush()
        first, second = [
            await store.get_session(one.session_id) for one in await store.list_sessions()
        ]
    found = {getattr(one.details, "name", None): one for one in first.actions}
    assert first.name == "n" * 256
    assert (found["inside"].parent, found["late"].parent) == (found["t"].started, None)
    assert [found[n].error is None for n in ("late", "never", "below")] == [True, False, False]
    assert await store.read_arguments(found["t"]) == {"input": "no JSON ?"}
    assert found["speech"].parent == found["guardrail"].started
    assert tree(second) == [("step", "alone", [("step", "in it", [])])]
    assert second.metadata["trace_id"] == first.metadata["trace_id"]


async def test_a_run_is_not_disturbed(make_store, traced, caplog):
    """Where nothing can be recorded, and after the block was left."""
    store = await make_store()
    async with MemvidTracing(store) as tracing:
        traced(tracing)
        opened = agents.trace("open")
        opened.start()
        agents.custom_span("open too", parent=opened).start()
        with agents.trace("ends"), agents.custom_span("step", {"n": 1}):
            pass
    session, ended = [
        await store.get_session(one.session_id)
        for one in await store.list_sessions(include_open=True)
    ]
    assert (session.ended_ns, session.actions[0].error) == (None, "CancelledError")
    assert (ended.ended_ns is not None, ended.actions[0].error) == (True, None)
    opened.finish()
    agent = agents.Agent(name="a", model=ScriptedModel([[assistant_message("hi")]] * 2))
    assert (await agents.Runner.run(agent, "x")).final_output == "hi"
    assert len(await store.list_sessions(include_open=True)) == 2
    tracing = MemvidTracing(store)
    traced(tracing)
    await store.aclose()
    assert (await agents.Runner.run(agent, "x")).final_output == "hi"
    with pytest.raises(StoreClosedError):
        await tracing.flush()
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_it_records_runs_of_other_loops(tmp_path, traced):
    path = tmp_path / "a.mva"
    with SyncStore.open(path) as store:
        tracing = MemvidTracing(store)
        traced(tracing)
        model = ScriptedModel([[assistant_message("hi")]], emit_traces=True)
        asyncio.run(agents.Runner.run(agents.Agent(name="a", model=model), "hello"))
        tracing.force_flush()
        (listed,) = store.list_sessions()
        assert (listed.name, listed.ask_count) == ("Agent workflow", 1)
    tracing.shutdown()
