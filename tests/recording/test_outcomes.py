"""What is wrong is refused before an effect, and recorded in some way after one."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from memvid_async import (
    ActionKind,
    Conversion,
    InvalidValueError,
    LimitExceededError,
    Limits,
    RecordingConfig,
    SessionEndedError,
    StoreConfig,
)
from memvid_async.recording.prepare_values import prepare_duration
from memvid_async.recording.scrubbing import WITHHELD

pytestmark = pytest.mark.anyio


class Effects:
    """A tool and a model that count how often they were called."""

    def __init__(self):
        self.count = 0

    async def tool(self, **_):
        self.count += 1
        return "done"

    async def model(self, _):
        self.count += 1
        return "reply"


class Odd:
    def __float__(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "wrong", [-1, -0.5, math.nan, math.inf, 2**64, 10**400, True, None, "12", 1j, Odd(), [1]]
)
def test_a_duration_that_is_no_number_from_0_is_left_out(wrong):
    assert prepare_duration(wrong) == (0, Conversion.DURATION)
    assert prepare_duration(Decimal("1.5")) == (1.5, 0)
    assert prepare_duration(Fraction(1, 2))[1] == Conversion.DURATION


async def test_it_is_recorded_and_marked_in_every_kind_of_action(make_store):
    store = await make_store()
    async with store.session() as session:
        actions = [
            await session.record_ask("q", duration_ms=-3, input_tokens=7),
            await session.record_find(
                "q", mode="m", result_count=0, result_frames=[], duration_ms=-3
            ),
            await session.record_put(1, "x", duration_ms=-3),
            await session.record_put_many([1], duration_ms=-3),
            await session.record_update(1, "x", duration_ms=-3),
            await session.record_delete(1, duration_ms=-3),
            await session.record_tool_call("t", arguments={}, duration_ms=-3),
            await session.record_step("s", duration_ms=-3),
        ]
    for action in actions:
        assert (action.duration_ms, action.conversion) == (0, Conversion.DURATION)
    assert (await store.get_session(session.session_id)).actions == tuple(actions)
    assert actions[0].usage.input_tokens == 7


MUCH = {"x": "y" * 2_000_000}


@pytest.mark.parametrize("metadata", [{"a": object()}, 5, MUCH], ids=["odd", "no map", "long"])
async def test_no_call_begins_whose_metadata_cannot_be_recorded(make_store, metadata):
    store, effects = await make_store(), Effects()
    async with store.session() as session:
        for call in (
            session.call_tool("t", {}, effects.tool, metadata=metadata),
            session.call_tool("t", {}, effects.tool, metadata=metadata, effect=False),
            session.call_model("q", effects.model, metadata=metadata),
            anext(session.stream_model("q", effects.model, metadata=metadata)),
            session.ask("q", generate=effects.model, metadata=metadata),
        ):
            with pytest.raises(
                (InvalidValueError, LimitExceededError), match=r"metadata|value_bytes"
            ):
                await call
    whole = await store.get_session(session.session_id)
    assert (effects.count, whole.in_flight) == (0, ())


async def test_no_model_is_asked_messages_that_cannot_be_recorded(make_store):
    store, effects = await make_store(), Effects()
    async with store.session() as session:
        for asked in ([{"role": "user", "content": object()}], [{1: {2: "\ud800"}}]):
            with pytest.raises(InvalidValueError, match="messages"):
                await session.call_model(asked, effects.model)
    whole = await store.get_session(session.session_id)
    assert (effects.count, whole.actions, whole.in_flight) == (0, (), ())


async def test_what_is_large_is_prepared_off_the_loop(make_store):
    store = await make_store(config=StoreConfig(limits=Limits(value_bytes=2**24)))
    given = {"text": "x" * 3_000_000, "list": ["y" * 9] * 50_000}
    messages = [{"role": "user", "content": "z" * 300_000}] * 3
    effects, kept = Effects(), []
    async with store.session() as session:
        run = store._engine.reads.run

        async def noted(call, *args):
            kept.append(call)
            return await run(call, *args)

        store._engine.reads.run = noted
        for call in (
            session.call_tool("t", given, effects.tool),
            session.call_model(messages, effects.model),
        ):
            kept.clear()
            await call
            assert kept
        store._engine.reads.run = run
        tool, ask = (await store.get_session(session.session_id)).actions
        assert await store.read_arguments(tool) == given
        assert await store.read_messages(ask) == messages


@pytest.mark.parametrize("starts", [True, False])
async def test_a_session_that_is_full_runs_nothing(make_store, starts):
    store, effects = await make_store(), Effects()
    config = RecordingConfig(max_actions=1, record_starts=starts)
    async with store.session(config=config) as session:
        await session.call_tool("first", {}, effects.tool)
        for call in (
            session.call_tool("t", {}, effects.tool),
            session.call_tool("t", {}, effects.tool, effect=False),
            session.once("t", effects.tool),
            session.call_model("q", effects.model),
        ):
            with pytest.raises(SessionEndedError):
                await call
    assert effects.count == 1


# Scrubbing.


def refuses_outcomes(_kind, field, text):
    if field in ("result", "response", "output", "error", "raw"):
        raise ValueError(text)
    return text


async def test_an_outcome_that_cannot_be_scrubbed_is_left_out(tmp_path, make_store):
    store = await make_store(config=StoreConfig(scrub=refuses_outcomes))
    effects = Effects()

    async def fails():
        raise PermissionError("hidden")

    async def chunks(_):
        yield "hid"
        await session.call_tool("in", {}, effects.tool)
        yield "den"

    async with store.session() as session:
        assert await session.call_tool("t", {}, effects.tool) == "done"
        assert str(await session.call_model("q", effects.model)) == "reply"
        assert [chunk async for chunk in session.stream_model("q", chunks)] == ["hid", "den"]
        with pytest.raises(PermissionError):
            await session.call_tool("t", {}, fails)
        await session.record_tool_call("t", arguments={}, result=["hidden"], error="hidden")
    whole = await store.get_session(session.session_id)
    tool, ask, inner, stream, failed, told = whole.actions
    for action in (tool, ask, inner, stream, told):
        assert (action.output.data, action.conversion & ~Conversion.ERROR) == (
            WITHHELD,
            Conversion.OUTPUT,
        )
    assert told.conversion & Conversion.ERROR
    assert (told.error, failed.error) == (WITHHELD, WITHHELD)
    assert failed.error_detail.type_name == "builtins.PermissionError"
    assert failed.error_detail.arguments is None
    await store.sync()
    assert b"hid" not in store.path.read_bytes()
    assert whole.in_flight == ()


def by_kind(kind, _field, text):
    return text.replace("secret", "***") if kind in ("tool_call", "step", "once", "ask") else text


async def test_the_start_of_a_call_is_scrubbed_as_its_end_is(make_store):
    """A scrubber may look at the kind of what is recorded."""
    store = await make_store(config=StoreConfig(scrub=by_kind))
    effects = Effects()
    async with store.session() as session:
        await session.call_tool("secret a", {"secret b": "secret c"}, effects.tool)
        async with session.step("secret d", input="secret e"):
            await session.once("secret f", lambda: "secret g")
        await session.call_model([{"role": "user", "content": "secret h"}], effects.model)
        await session.record_start(ActionKind.TOOL_CALL, "secret i")
    await store.sync()
    assert b"secret" not in store.path.read_bytes()
