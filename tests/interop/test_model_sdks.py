"""The unmodified SDKs of OpenAI and Anthropic, and frameworks on top: recorded, then served.

They are installed by the extra `frameworks`, which nox's sessions have.
"""

import ast
import asyncio
import inspect
from pathlib import Path

import pytest

import memvid_async
from memvid_async import ActionKind, SyncStore
from memvid_async.interop.http import RecordingTransport
from scripts import check_docs
from tests.support.model_server import model_server

httpx2 = pytest.importorskip("httpx2")

pytestmark = pytest.mark.one_loop

ROOT = Path(__file__).resolve().parents[2]
ASKED = [{"role": "user", "content": "hello world"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}


@pytest.fixture
async def server(anyio_backend):
    async with model_server() as running:
        yield running


@pytest.fixture
def openai():
    return pytest.importorskip("openai")


@pytest.fixture
def anthropic():
    return pytest.importorskip("anthropic")


def http(session):
    return httpx2.AsyncClient(transport=RecordingTransport(session))


async def twice(store, server, agent):
    """Run an agent recorded and then served; return both results and the recorded actions."""
    async with store.session() as session:
        live = await agent(session)
    before = len(server.requests)
    async with store.serve(session.session_id) as recorded:
        served = await agent(recorded)
        assert recorded.unserved == ()
    assert len(server.requests) == before
    assert before > 0
    return live, served, (await store.get_session(session.session_id)).actions


async def test_openai(make_store, server, openai):
    store = await make_store()

    async def agent(session):
        async with openai.AsyncOpenAI(
            api_key="sk-of-mine", base_url=f"{server.url}/v1", http_client=http(session)
        ) as client:
            chat = await client.chat.completions.create(model="m", messages=ASKED)
            streamed = await client.chat.completions.create(model="m", messages=ASKED, stream=True)
            pieces = [c.choices[0].delta.content async for c in streamed if c.choices]
            response = await client.responses.create(model="m", input="hello again")
            events = await client.responses.create(model="m", input="hello again", stream=True)
            kinds = [event.type async for event in events]
            tools = [{"type": "function", "function": {"name": "w", "parameters": PARAMETERS}}]
            called = await client.chat.completions.create(model="m", messages=ASKED, tools=tools)
            # The SDK tries again by itself.
            busy = await client.chat.completions.create(model="busy 1", messages=ASKED)
            with pytest.raises(openai.NotFoundError, match="no such model"):
                await client.chat.completions.create(model="refused", messages=ASKED)
            once = client.with_options(max_retries=0)
            with pytest.raises(openai.APIConnectionError):
                await once.chat.completions.create(model="silent", messages=ASKED)
            return [
                chat.to_dict(),
                pieces,
                response.to_dict(),
                kinds,
                called.choices[0].message.tool_calls[0].function.arguments,
                busy.choices[0].message.content,
            ]

    live, served, actions = await twice(store, server, agent)
    assert live == served
    assert live[0]["choices"][0]["message"]["content"] == "HELLO WORLD"
    assert "".join(filter(None, live[1])) == "HELLO WORLD"
    assert live[4] == '{"city": "Oslo"}'
    assert {action.kind for action in actions} == {ActionKind.ASK}
    errors = [action.error for action in actions]
    assert errors[:5] == [None] * 5
    assert "429" in errors[5]
    assert errors[6] is None
    assert "404" in errors[7]
    assert "RemoteProtocolError" in errors[8]
    (summary,) = await store.list_sessions()
    assert (summary.ask_count, summary.failed_count) == (9, 3)
    assert (summary.input_tokens, summary.output_tokens) == (6 * 9, 6 * 4)


async def test_anthropic(make_store, server, anthropic):
    store = await make_store()

    async def agent(session):
        async with anthropic.AsyncAnthropic(
            api_key="sk-ant-of-mine", base_url=server.url, http_client=http(session)
        ) as client:
            asked = {"model": "m", "max_tokens": 9, "messages": ASKED}
            whole = await client.messages.create(**asked, system="be brief")
            async with client.messages.stream(**asked) as stream:
                pieces = [text async for text in stream.text_stream]
                last = await stream.get_final_message()
            tool = {"name": "w", "input_schema": PARAMETERS}
            async with client.messages.stream(**asked, tools=[tool]) as stream:
                called = (await stream.get_final_message()).content[0].input
            with pytest.raises(anthropic.NotFoundError):
                await client.messages.create(**{**asked, "model": "refused"})
            return whole.to_dict(), pieces, last.usage.to_dict(), called

    live, served, actions = await twice(store, server, agent)
    assert live == served
    assert "".join(live[1]) == "HELLO WORLD"
    assert live[3] == {"city": "Oslo"}
    assert {action.details.provider for action in actions} == {"anthropic"}
    assert (await store.read_messages(actions[0]))[0] == {"role": "system", "content": "be brief"}


async def test_their_synchronous_clients(tmp_path, server, openai, anthropic):
    def agent(session):
        def http_client():
            return httpx2.Client(transport=RecordingTransport(session))

        with (
            openai.OpenAI(
                api_key="k", base_url=f"{server.url}/v1", http_client=http_client()
            ) as one,
            anthropic.Anthropic(
                api_key="k", base_url=server.url, http_client=http_client()
            ) as other,
        ):
            streamed = one.chat.completions.create(model="m", messages=ASKED, stream=True)
            said = "".join(c.choices[0].delta.content or "" for c in streamed if c.choices)
            whole = other.messages.create(model="m", max_tokens=9, messages=ASKED)
            return said, whole.content[0].text

    def record_and_serve():
        with SyncStore.open(tmp_path / "a.mva") as store:
            with store.session() as session:
                live = agent(session)
            before = len(server.requests)
            with store.serve(session.session_id) as recorded:
                served = agent(recorded)
            assert len(server.requests) == before
            return live, served

    live, served = await asyncio.to_thread(record_and_serve)
    assert live == served == ("HELLO WORLD", "HELLO WORLD")


@pytest.mark.parametrize("provider", ["openai chat", "openai responses", "anthropic"])
async def test_pydantic_ai(make_store, server, openai, anthropic, provider):
    pydantic_ai = pytest.importorskip("pydantic_ai")
    models = pytest.importorskip("pydantic_ai.models.openai")
    anthropic_models = pytest.importorskip("pydantic_ai.models.anthropic")
    providers = pytest.importorskip("pydantic_ai.providers.openai")
    anthropic_providers = pytest.importorskip("pydantic_ai.providers.anthropic")
    store = await make_store()
    asked = []

    async def agent(session):
        async with http(session) as client:
            if provider == "anthropic":
                sdk = anthropic.AsyncAnthropic(api_key="k", base_url=server.url, http_client=client)
                service = anthropic_providers.AnthropicProvider(anthropic_client=sdk)
                model = anthropic_models.AnthropicModel("m", provider=service)
            else:
                sdk = openai.AsyncOpenAI(
                    api_key="k", base_url=f"{server.url}/v1", http_client=client
                )
                service = providers.OpenAIProvider(openai_client=sdk)
                kind = models.OpenAIChatModel if "chat" in provider else models.OpenAIResponsesModel
                model = kind("m", provider=service)
            planner = pydantic_ai.Agent(model)

            @planner.tool_plain
            async def weather(city: str) -> str:
                asked.append(city)
                return f"dry in {city}"

            whole = await planner.run("a day in Oslo")
            async with planner.run_stream("a night in Oslo") as streamed:
                text = await streamed.get_output()
            return whole.output, text

    live, served, actions = await twice(store, server, agent)
    assert live == served == ("A DAY IN OSLO", "A NIGHT IN OSLO")
    assert asked == ["Oslo"] * 4, "tools are the framework's own, and run in both"
    assert len(actions) == 4


@pytest.mark.parametrize("kind", ["chat", "responses"])
async def test_the_openai_agents_sdk(make_store, server, openai, kind):
    agents = pytest.importorskip("agents")
    store = await make_store()
    agents.set_tracing_disabled(True)

    @agents.function_tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        return f"dry in {city}"

    async def agent(session):
        async with openai.AsyncOpenAI(
            api_key="k", base_url=f"{server.url}/v1", http_client=http(session)
        ) as client:
            models = agents.OpenAIChatCompletionsModel, agents.OpenAIResponsesModel
            model = models[kind == "responses"](model="m", openai_client=client)
            planner = agents.Agent(name="planner", model=model, tools=[weather])
            whole = await agents.Runner.run(planner, "a day in Oslo")
            streaming = agents.Runner.run_streamed(planner, "a night in Oslo")
            async for _ in streaming.stream_events():
                pass
            return whole.final_output, streaming.final_output

    live, served, actions = await twice(store, server, agent)
    assert live == served == ("A DAY IN OSLO", "A NIGHT IN OSLO")
    assert len(actions) == 4


PRINTED = """\
A DAY IN OSLO?
A NIGHT IN OSLO?ask gpt-5-mini A DAY IN OSLO? 9
ask gpt-5-mini A NIGHT IN OSLO? 9
A DAY IN OSLO?
A DAY IN OSLO?
A DAY IN OSLO?
"""


async def test_the_recipes_run(tmp_path, server, openai, anthropic, monkeypatch, capsys):
    pytest.importorskip("agents")
    pytest.importorskip("pydantic_ai")
    pytest.importorskip("fastapi")
    for name in ("OPENAI", "ANTHROPIC"):
        monkeypatch.setenv(f"{name}_API_KEY", "sk-of-mine")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "recording.md").read_text(encoding="utf-8")
    section = page.split("\n## At the HTTP transport\n")[1].split("\n## ")[0]
    names = {name: getattr(memvid_async, name) for name in memvid_async.__all__}
    for language, code in check_docs.code_blocks(section):
        if language == "python":
            compiled = compile(code, "recipe", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            waiting = eval(compiled, names)
            if inspect.isawaitable(waiting):
                await waiting
    assert capsys.readouterr().out == PRINTED

    app = names["app"]
    async with names["lifespan"](app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://service") as client:
            asking = [client.get(f"/plan/{city}") for city in ("Oslo", "Rome")]
            plans = [one.json() for one in await asyncio.gather(*asking)]
        recorded = await app.state.store.list_sessions()
    assert [plan["plan"] for plan in plans] == ["A DAY IN OSLO?", "A DAY IN ROME?"]
    assert {str(one.session_id) for one in recorded} == {plan["session"] for plan in plans}
    assert [one.ask_count for one in recorded] == [1, 1]
