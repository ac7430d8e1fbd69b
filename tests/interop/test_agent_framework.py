"""An agent of a real framework (pydantic-ai) runs once recorded and once served."""

import asyncio
import json

import pytest

from memvid_async import Durability, ReplayDivergenceError, StoreConfig, Verdict

pytestmark = pytest.mark.one_loop

pydantic_ai = pytest.importorskip("pydantic_ai")
messages_of = pytest.importorskip("pydantic_ai.messages")
function_models = pytest.importorskip("pydantic_ai.models.function")
test_models = pytest.importorskip("pydantic_ai.models.test")

Messages = messages_of.ModelMessagesTypeAdapter
# What every run makes up: when it was, and by which id.
MADE_UP = {"timestamp", "run_id", "conversation_id", "tool_call_id", "usage"}


@pytest.fixture
async def store(make_store):
    return await make_store(config=StoreConfig(durability=Durability.BUFFERED))


def plain(value):
    """Messages as values without what a run makes up."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in MADE_UP}
    return [plain(item) for item in value] if isinstance(value, list) else value


class World:
    """The tools and the model of an agent, and how often each was really used."""

    def __init__(self):
        self.tools, self.models = [], 0
        self.units = "C"
        self.knows_oslo = asyncio.Event()

    async def weather(self, city, units):
        self.tools.append(("weather", city))
        # The second of two calls at once is done first, however soon the first was recorded.
        if city == "Rome":
            await self.knows_oslo.wait()
        self.knows_oslo.set()
        return f"{len(city)} degrees {units} in {city}"

    async def book(self, city):
        self.tools.append(("book", city))
        return {"booked": city}

    def think(self, messages):
        """First both weathers at once, then a booking, then an answer."""
        self.models += 1
        call = messages_of.ToolCallPart
        turns = sum(isinstance(message, messages_of.ModelResponse) for message in messages)
        parts = [
            [call("weather", {"city": "Rome"}), call("weather", {"city": "Oslo"})],
            [call("book", {"city": "Rome"})],
            [messages_of.TextPart("Booked Rome.")],
        ]
        return messages_of.ModelResponse(parts=parts[turns])


def agent_of(recorded, world, model=None):
    """The agent, whose model and tools are called through the recording."""

    async def respond(messages, info):
        async def generate(_prompt):
            response = world.think(messages)
            if model is not None:
                response = await model.request(messages, None, info.model_request_parameters)
            return Messages.dump_json([response]).decode()

        values = plain(json.loads(Messages.dump_json(messages)))
        reply = await recorded.call_model(values, generate, provider="test", model="scripted")
        return Messages.validate_json(str(reply))[0]

    agent = pydantic_ai.Agent(function_models.FunctionModel(respond))

    @agent.tool_plain
    async def weather(city: str) -> str:
        arguments = {"city": city, "units": world.units}
        return await recorded.call_tool("weather", arguments, world.weather)

    @agent.tool_plain
    async def book(city: str) -> str:
        return str(await recorded.call_tool("book", {"city": city}, world.book))

    return agent


async def record(store, world, model=None):
    async with store.session() as recorded:
        result = await agent_of(recorded, world, model).run("Somewhere warm, please.")
    return recorded.session_id, result.output


async def test_served_it_gives_the_same_with_no_model_and_no_tool(store):
    world = World()
    session_id, output = await record(store, world)
    assert output == "Booked Rome."
    assert (world.models, len(world.tools)) == (3, 3)
    again = World()
    async with store.serve(session_id) as recorded:
        result = await agent_of(recorded, again).run("Somewhere warm, please.")
        assert recorded.unserved == ()
        assert recorded.report().counts[Verdict.SERVED] == 6
    assert result.output == output
    assert (again.models, again.tools) == (0, [])


async def test_two_recorded_runs_are_equal(store):
    first, _ = await record(store, World())
    second, _ = await record(store, World())
    comparison = await store.compare(first, second)
    different = {d.field for changed in comparison.changed for d in changed.differences}
    # A response holds what the framework makes up; all else is the same.
    assert different <= {"response"}
    assert comparison.only_in_a == comparison.only_in_b == ()


async def test_the_frameworks_own_test_model_is_served_too(store):
    session_id, output = await record(store, World(), test_models.TestModel())
    world = World()
    async with store.serve(session_id) as recorded:
        result = await agent_of(recorded, world).run("Somewhere warm, please.")
    assert result.output == output
    assert (world.models, world.tools) == (0, [])


async def test_a_tool_that_is_called_otherwise_diverges_there(store):
    session_id, _ = await record(store, World())
    changed = World()
    changed.units = "F"
    with pytest.raises(ReplayDivergenceError) as caught:
        async with store.serve(session_id) as recorded:
            await agent_of(recorded, changed).run("Somewhere warm, please.")
    report = recorded.report()
    session = await store.get_session(session_id)
    weathers = {a.index for a in session.actions if getattr(a.details, "name", "") == "weather"}
    assert caught.value.nearest.index in weathers
    assert [d.field for d in caught.value.differences] == ["arguments"]
    assert '"units": "F"' in str(caught.value)
    assert report.first_divergence.index in weathers
    assert report.counts[Verdict.SERVED] == 1
    assert (changed.models, changed.tools) == (0, [])


async def test_a_tool_that_answers_otherwise_diverges_at_the_next_question(store):
    session_id, _ = await record(store, World())

    class OnlyModels:
        """Serves the model alone; the tools run for real."""

        def __init__(self, recorded):
            self.call_model = recorded.call_model

        async def call_tool(self, _name, arguments, run):
            return (await run(**arguments)).replace("degrees", "something")

    world = World()
    with pytest.raises(ReplayDivergenceError) as caught:
        async with store.serve(session_id) as recorded:
            await agent_of(OnlyModels(recorded), world).run("Somewhere warm, please.")
    session = await store.get_session(session_id)
    second = [action.index for action in session.actions if action.kind == "ask"][1]
    assert caught.value.nearest.index == second
    assert {d.field for d in caught.value.differences} == {"messages"}
    assert "something" in str(caught.value)
    assert world.models == 0
