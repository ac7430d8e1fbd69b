"""Whatever a call raises is recorded, and a served call raises an equal error."""

import asyncio
import copy
import pickle
import sys
from types import SimpleNamespace

import pytest

from memvid_async import (
    Durability,
    InvalidValueError,
    RecordedCallError,
    StoreConfig,
    UncertainCallError,
    open_store,
)
from memvid_async.config import Limits
from memvid_async.errors import ReplayStopped
from memvid_async.events.calls import CallFacts
from memvid_async.events.content import content_digest
from memvid_async.format.call_rows import call_fields, read_call
from memvid_async.recording.error_details import describe_exception
from memvid_async.replay.recorded_errors import check_types, recorded_error

BUFFERED = StoreConfig(durability=Durability.BUFFERED)


class OutcomeError(BaseException):
    """No Exception, as those of pytest are none."""


class SlottedError(Exception):
    __slots__ = ("after",)


def slotted():
    error = SlottedError("slow down")
    error.after = 7
    return error


def not_text():
    return UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


MAKERS = {
    "memory": lambda: MemoryError("none left"),
    "file": lambda: FileNotFoundError(2, "No such file", "a.txt"),
    "unicode": not_text,
    "import": lambda: ModuleNotFoundError("No module named 'a.b'", name="a.b", path="x"),
    "key": lambda: KeyError("a"),
    "slots": slotted,
    "timeout": TimeoutError,
    "group": lambda: ExceptionGroup("two", [ValueError("a"), ExceptionGroup("b", [KeyError(1)])]),
    "exit": lambda: SystemExit(3),
    "interrupt": KeyboardInterrupt,
    "cancelled": lambda: asyncio.CancelledError("mine"),
    "own": lambda: OutcomeError("skipped"),
    "mixed group": lambda: BaseExceptionGroup("two", [ValueError("a"), SystemExit(1)]),
}
FIELDS = ("errno", "filename", "start", "name", "path", "after", "code", "message")


def shown(error):
    """What an agent may read of an error."""
    members = getattr(error, "exceptions", ())
    fields = {name: getattr(error, name, None) for name in FIELDS}
    return type(error).__qualname__, str(error), fields, [shown(one) for one in members]


async def caught(make, call):
    """What an agent sees of a call that raises: which of its handlers, and the error."""
    try:
        return "returned", await call(make)
    except Exception as error:  # noqa: BLE001 - what is looked at
        return "Exception", error
    except BaseException as error:  # noqa: BLE001
        return "BaseException", error


async def agent(session):  # noqa: C901 - a table of ways to fail
    """An agent whose tools and models raise everything, and which goes on."""

    async def tool(make):
        async def run():
            raise make()

        return await session.call_tool("raise", {}, run)

    async def read(make):
        async def run():
            raise make()

        return await session.call_tool("read", {}, run, effect=False)

    async def in_a_thread(make):
        def run():
            raise make()

        return await session.call_tool("thread", {}, run)

    async def model(make):
        async def generate(_):
            raise make()

        return await session.call_model("q", generate)

    async def stream(make):
        async def generate(_):
            yield "half"
            raise make()

        return [chunk async for chunk in session.stream_model("q", generate)]

    async def outer(make):
        return await session.call_tool("outer", {}, lambda: tool(make))

    async def remembers(make):
        def generate(_):
            raise make()

        return await session.ask("q", generate=generate)

    seen = []
    for make in MAKERS.values():
        for call in (tool, read, in_a_thread, model, stream, outer, remembers):
            handler, error = await caught(make, call)
            seen.append((handler, shown(error), isinstance(error, RecordedCallError)))
    return seen


async def test_an_agent_passes_its_cassette_whatever_its_calls_raise(make_store):
    store = await make_store(config=BUFFERED)
    async with store.session() as session:
        live = await agent(session)
    whole = await store.get_session(session.session_id)
    assert whole.in_flight == ()
    assert all(action.error is not None for action in whole.actions)
    async with store.serve(session.session_id) as served:
        again = await agent(served)
    assert [one[:2] for one in again] == [one[:2] for one in live]
    # Only an Exception is a RecordedCallError too.
    assert all(is_recorded == (handler == "Exception") for handler, _, is_recorded in again)


async def test_a_call_that_fails_by_a_cancellation_of_something_else_is_not_cancelled(make_store):
    """A tool awaits a task that somebody cancelled; the agent's own task is not cancelled."""
    store = await make_store(config=BUFFERED)

    async def awaiting(session):
        async def run():
            task = asyncio.create_task(asyncio.Event().wait())
            asyncio.get_running_loop().call_soon(task.cancel)
            return await task

        task = asyncio.create_task(session.call_tool("own", {}, run))
        await asyncio.wait([task])
        slow = asyncio.create_task(session.call_tool("slow", {}, asyncio.Event().wait))
        await session.call_tool("quick", {}, lambda: "done")
        slow.cancel()
        await asyncio.wait([slow])
        return task.cancelled(), slow.cancelled(), await session.once("name", lambda: "x")

    async with store.session() as session:
        assert await awaiting(session) == (True, True, "x")
    own, _, slow, _ = (await store.get_session(session.session_id)).actions
    assert own.error_detail.qualname == "CancelledError"
    assert (slow.details.name, slow.error, slow.error_detail) == ("slow", "CancelledError", None)
    async with store.serve(session.session_id) as served:
        assert await awaiting(served) == (True, True, "x")


@pytest.mark.parametrize("goes_on", [True, False])
async def test_ctrl_c_in_a_tool_is_its_end_only_where_the_agent_goes_on(tmp_path, goes_on):
    interrupted = [True]

    async def interrupt():
        if interrupted:
            interrupted.clear()
            raise KeyboardInterrupt
        return "done"

    async def agent(session):
        try:
            return await session.call_tool("work", {}, interrupt)
        except KeyboardInterrupt:
            if not goes_on:
                raise
            return await session.call_tool("work", {}, interrupt)

    async with open_store(tmp_path / "a.mva", config=BUFFERED) as store:
        session = store.session()
        try:
            async with session:
                await agent(session)
        except KeyboardInterrupt:
            assert not goes_on
        whole = await store.get_session(session.session_id)
        assert (whole.ended_ns is not None) == goes_on
        if goes_on:
            async with store.serve(session.session_id) as served:
                assert await agent(served) == "done"
            return
        with pytest.raises(UncertainCallError):
            await store.resume_session(session.session_id, replay=True).__aenter__()
        options = {"replay": True, "uncertain": "run"}
        async with store.resume_session(session.session_id, **options) as resumed:
            assert await agent(resumed) == "done"


def recorded_as(error):
    """An error as it is served, after it was in a file."""
    detail = describe_exception(error, Limits())
    head, tail = call_fields(CallFacts(1, error_detail=detail), 0)
    call = read_call((*head, *tail), 0, content_digest)
    assert call.error_detail == detail
    text = f"{type(error).__name__}: {error}"
    return recorded_error(SimpleNamespace(error_detail=detail, error=text), {})


def test_a_group_of_too_many_is_recorded_without_its_members():
    wide = recorded_as(ExceptionGroup("wide", [ValueError(n) for n in range(200)]))
    assert type(wide) is RecordedCallError
    deep = ValueError("in")
    for _ in range(20):
        deep = ExceptionGroup("deep", [deep])
    assert isinstance(recorded_as(deep), RecordedCallError)


def test_a_recorded_error_is_copied_and_pickled():
    for error in (MemoryError("x"), ExceptionGroup("g", [ValueError("a")]), SystemExit(2)):
        detail = describe_exception(error, Limits())
        action = SimpleNamespace(error_detail=detail, error="x")
        one = recorded_error(action, {})
        for again in (copy.copy(one), pickle.loads(pickle.dumps(one))):
            assert shown(again) == shown(one)


def test_no_file_makes_a_call_raise_what_only_python_or_this_library_may_raise():
    for error in (GeneratorExit(), ReplayStopped("x")):
        assert type(recorded_as(error)) is RecordedCallError


def test_pydantics_errors_come_back_with_their_lines():
    pydantic = pytest.importorskip("pydantic")
    custom = sys.modules["pydantic_core"].PydanticCustomError

    class Trip(pydantic.BaseModel):
        days: int
        city: str
        hotel: str
        stars: int = 0

        @pydantic.field_validator("city")
        @classmethod
        def known(cls, value):
            raise ValueError(f"no city {value}")

        @pydantic.field_validator("hotel")
        @classmethod
        def free(cls, value):
            raise custom("full", "{hotel} is full", {"hotel": value})

    with pytest.raises(pydantic.ValidationError) as first:
        Trip(days="x", city="Atlantis", hotel="Ritz", stars=[])
    again = recorded_as(first.value)
    assert type(again) is pydantic.ValidationError
    assert str(again) == str(first.value)
    plain = [{k: v for k, v in line.items() if k != "ctx"} for line in first.value.errors()]
    assert [{k: v for k, v in one.items() if k != "ctx"} for one in again.errors()] == plain


@pytest.mark.parametrize("library", ["httpx", "httpx2"])
def test_the_response_of_a_clients_error_is_there_without_its_secrets(library):
    http = pytest.importorskip(library)
    url = "https://me:sk-0@x.test/v1?key=sk-1"
    request = http.Request("POST", url, headers={"x-api-key": "sk-2"})
    headers = {"retry-after": "3", "set-cookie": "sk-3", "x-request-id": "r1"}
    response = http.Response(429, headers=headers, json={"error": "slow"}, request=request)
    with pytest.raises(http.HTTPStatusError) as first:
        response.raise_for_status()
    again = recorded_as(http.HTTPStatusError("slow", request=request, response=response))
    assert isinstance(again, http.HTTPStatusError)
    assert (again.response.status_code, again.response.json()) == (429, {"error": "slow"})
    assert again.response.headers["retry-after"] == first.value.response.headers["retry-after"]
    assert (again.request.method, str(again.request.url)) == ("POST", "https://x.test/v1")
    assert "sk-" not in str(describe_exception(again, Limits()).attributes)


def test_the_frames_are_those_of_the_agent():
    with pytest.raises(InvalidValueError) as raised:
        check_types({"a": int})
    (frame,) = describe_exception(raised.value, Limits()).frames
    assert frame.endswith("in test_the_frames_are_those_of_the_agent")
