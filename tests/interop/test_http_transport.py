"""Clients of model APIs are recorded at their transport, and answered from the recording."""

import asyncio
import json
import shutil
from functools import partial

import pytest

from memvid_async import (
    ActionKind,
    Conversion,
    InvalidValueError,
    Limits,
    RecordedCallError,
    StoreConfig,
    SyncStore,
    open_store,
)
from memvid_async.interop import http
from memvid_async.interop.http import RecordingTransport
from memvid_async.interop.http_library import streams_of
from memvid_async.interop.wire_messages import MessageReader
from tests.support.model_server import model_server

httpx2 = pytest.importorskip("httpx2")

pytestmark = pytest.mark.one_loop

KEY = "sk-proj-0123456789abcdef"
HEADERS = {
    "Authorization": f"Bearer {KEY}",
    "X-Api-Key": "another-secret-of-mine",
    "Cookie": "sid=a-cookie-of-mine; theme=dark-colours",
}
ASKED = [{"role": "user", "content": "hello world"}]
FORMS = {
    "/v1/chat/completions": {"messages": ASKED},
    "/v1/responses": {"input": ASKED},
    "/v1/messages": {"messages": ASKED, "max_tokens": 9},
}
TOOL = {"name": "weather", "function": {"name": "weather"}}
QUERY_SECRETS = "?api-key=query-secret-1&user=ada&sig=query%2Fsecret%3D2"


@pytest.fixture
async def server(anyio_backend):
    async with model_server() as running:
        yield running


def client(session, server, library=httpx2, **options):
    transport = RecordingTransport(session, **options)
    return library.AsyncClient(transport=transport, base_url=server.url, headers=HEADERS)


async def chunks_of(response):
    return [chunk async for chunk in response.aiter_raw()]


async def ask(session, server, path, body, library=httpx2):
    """Ask once, and return the status, the chunks, and the error that ended them."""
    async with client(session, server, library) as one:
        chunks = []
        try:
            async with one.stream("POST", path, json={"model": "m", **body}) as response:
                async for chunk in response.aiter_raw():
                    chunks.append(chunk)  # noqa: PERF401 - what came before a failure counts
                return response.status_code, dict(response.headers), b"".join(chunks), chunks, None
        except library.HTTPError as error:
            return None, {}, b"".join(chunks), chunks, error


async def recorded(store, server, *asked, library=httpx2):
    """Record one call; return its action, what came, and the same served."""
    async with store.session() as session:
        live = await ask(session, server, *asked, library=library)
    session_id = session.session_id
    (action,) = (await store.get_session(session_id)).actions
    before = len(server.requests)
    async with store.serve(session_id) as session:
        served = await ask(session, server, *asked, library=library)
    assert len(server.requests) == before, "a served call sends nothing"
    return action, live, served


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", FORMS)
async def test_a_question_becomes_an_ask_and_is_served(make_store, server, path, stream):
    store = await make_store()
    asked = {**FORMS[path], "stream": stream}
    action, live, served = await recorded(store, server, path, asked)
    assert action.kind is ActionKind.ASK
    assert action.details.provider == ("anthropic" if path == "/v1/messages" else "openai")
    assert action.details.model == "m"
    assert action.error is None
    assert await store.read_messages(action) == ASKED
    assert await store.read_content(action.input) == b"hello world"
    assert await store.read_content(action.output) == b"HELLO WORLD"
    usage = action.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (9, 4, 3)
    assert action.duration_ms > 0

    status, headers, body, chunks, error = live
    assert (status, error) == (200, None)
    raw = await store.read_content(action.raw)
    assert b"".join(MessageReader().feed(raw)) == body
    kept = {name: headers[name] for name in ("content-type", "x-request-id", "retry-after-ms")}
    assert served == (200, kept, body, chunks, None), "the same, chunk for chunk"
    assert len(chunks) > 3 or not stream


async def test_a_response_that_is_not_looked_at_whole_comes_whole(make_store, server, monkeypatch):
    monkeypatch.setattr(http, "_MOST_LOOKED_AT", 64)
    asked = {"messages": ASKED, "stream": True}
    store = await make_store()
    action, live, served = await recorded(store, server, "/v1/chat/completions", asked)
    assert await store.read_content(action.output) == b"HELLO WORLD"
    assert served[2] == live[2]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", FORMS)
async def test_tool_calls_are_part_of_the_reply(make_store, server, path, stream):
    store = await make_store()
    asked = {**FORMS[path], "stream": stream, "tools": [TOOL]}
    action, live, served = await recorded(store, server, path, asked)
    spoken = json.loads(await store.read_content(action.output))
    (call,) = spoken["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        "weather",
        {"city": "Oslo"},
    )
    assert served[2] == live[2]


@pytest.mark.parametrize(("model", "status"), [("busy 9", 429), ("refused", 404)])
async def test_an_answer_that_is_an_error_is_recorded_as_one(make_store, server, model, status):
    store = await make_store()
    asked = ("/v1/chat/completions", {"messages": ASKED, "model": model})
    action, live, served = await recorded(store, server, *asked)
    assert f"HTTP {status}: rate_limit: " in action.error
    assert live[0] == served[0] == status
    assert live[2] == served[2]
    assert json.loads(served[2])["error"]["message"] in action.error
    (summary,) = await store.list_sessions()
    assert summary.failed_count == 1


async def test_a_connection_that_fails_is_recorded_as_it_did(make_store, server):
    store = await make_store()
    asked = ("/v1/chat/completions", {"messages": ASKED, "model": "silent"})
    action, live, served = await recorded(store, server, *asked)
    assert "RemoteProtocolError" in action.error
    assert isinstance(live[-1], httpx2.RemoteProtocolError)
    assert isinstance(served[-1], httpx2.RemoteProtocolError)
    assert isinstance(served[-1], RecordedCallError)
    assert action.output is None or action.output.size == 0


async def test_a_stream_that_breaks_off_is_recorded_as_far_as_it_came(make_store, server):
    store = await make_store()
    asked = ("/v1/chat/completions", {"messages": ASKED, "model": "broken", "stream": True})
    action, live, served = await recorded(store, server, *asked)
    assert "RemoteProtocolError" in action.error
    assert (await store.read_content(action.output)).startswith(b"HELLO")
    assert live[2] == served[2] != b""
    assert live[3] == served[3]
    assert isinstance(served[-1], httpx2.RemoteProtocolError)


async def test_a_stream_that_its_reader_leaves_is_recorded_as_far_as_it_read(make_store, server):
    store = await make_store()
    body = {"model": "m", "messages": ASKED, "stream": True}

    async def read_a_bit(session):
        async with (
            client(session, server) as one,
            one.stream("POST", "/v1/chat/completions", json=body) as response,
        ):
            return await anext(response.aiter_raw())

    async def go_on(session):
        async with client(session, server) as one:
            await one.post("/v1/chat/completions", json={"model": "m", "messages": ASKED})

    async with store.session() as session:
        first = await read_a_bit(session)
        await go_on(session)
    action, _ = (await store.get_session(session.session_id)).actions
    assert first in await store.read_content(action.raw)
    assert b"[DONE]" not in await store.read_content(action.raw)
    async with store.serve(session.session_id) as session:
        assert await read_a_bit(session) == first
        await go_on(session)


async def test_no_secret_reaches_the_file(make_store, server):
    store = await make_store()
    url = server.url.replace("//", "//ada:pass-word-of-mine@")
    async with store.session() as session:
        transport = RecordingTransport(session, other="record")
        async with httpx2.AsyncClient(transport=transport, headers=HEADERS) as one:
            for path, body in FORMS.items():
                await one.post(url + path + QUERY_SECRETS, json={"model": "m", **body})
            # The server echoes a header.
            echoed = await one.get(url + "/weather" + QUERY_SECRETS)
            assert '"key": "****' in echoed.text
            failed = {"model": "refused", "messages": [{"role": "user", "content": KEY}]}
            await one.post(server.url + "/v1/chat/completions" + QUERY_SECRETS, json=failed)
    await store.sync()
    data = store.path.read_bytes()
    for secret in (
        KEY,
        "another-secret-of-mine",
        "a-cookie-of-mine",
        "dark-colours",
        "cookie-of-the-server",
        "pass-word-of-mine",
        "query-secret-1",
        "query%2Fsecret%3D2",
        "query/secret=2",
    ):
        assert secret.encode() not in data, secret
    assert b"user=ada" in data


async def test_other_requests_are_passed_on_or_recorded_as_tool_calls(make_store, server):
    store = await make_store()

    async def work(session, **options):
        async with client(session, server, **options) as one:
            found = await one.get("/weather", params={"city": "Oslo"})
            put = await one.post("/put", content=b"\xff\x00" * 9)
            missing = await one.post("/missing", json={"a": [1, 2]})
            return [(one.status_code, one.content) for one in (found, put, missing)]

    async with store.session() as session:
        passed = await work(session)
    assert (await store.get_session(session.session_id)).actions == ()
    async with store.session() as session:
        live = await work(session, other="record")
    assert [status for status, _ in live] == [200, 200, 404]
    assert [status for status, _ in passed] == [200, 200, 404]
    actions = (await store.get_session(session.session_id)).actions
    assert [action.details.name for action in actions] == [
        "GET 127.0.0.1",
        "POST 127.0.0.1",
        "POST 127.0.0.1",
    ]
    assert (await store.read_arguments(actions[2]))["body"] == {"a": [1, 2]}
    assert (await store.read_arguments(actions[1]))["body_bytes"] == 18
    assert actions[0].error is None
    assert "HTTP 404" in actions[2].error
    before = len(server.requests)
    async with store.serve(session.session_id) as recorded_session:
        assert await work(recorded_session, other="record") == live
    assert len(server.requests) == before


class LongAnswer(httpx2.AsyncBaseTransport, httpx2.BaseTransport):
    """A service whose answers are longer than what is recorded of one."""

    parts = (b"0123456789" * 50,) * 40

    async def handle_async_request(self, request):
        async def parts():
            for part in self.parts:
                yield part

        return httpx2.Response(200, stream=streams_of(httpx2)[0](parts()))

    def handle_request(self, request):
        return httpx2.Response(200, stream=streams_of(httpx2)[1](part for part in self.parts))


async def test_of_a_long_answer_the_beginning_is_recorded_and_all_of_it_comes(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("memvid_async.interop.http._MOST_FETCHED", 2000)
    monkeypatch.setattr("memvid_async.interop.http._MOST_HELD", 600)
    whole, config = b"".join(LongAnswer.parts), StoreConfig(limits=Limits(content_bytes=2000))

    def work(session):
        transport = RecordingTransport(session, LongAnswer(), other="record")
        with httpx2.Client(transport=transport) as one:
            return one.get("http://files.test/a").content

    def in_a_thread(store):
        with store.session() as session:
            live = work(session)
        with (
            store.serve(session.session_id) as served,
            pytest.raises(httpx2.RemoteProtocolError, match="ends here"),
        ):
            work(served)
        return live

    async with open_store(tmp_path / "a.mva", config=config) as store:
        async with store.session() as session:
            transport = RecordingTransport(session, LongAnswer(), other="record")
            async with httpx2.AsyncClient(transport=transport) as one:
                answer = await one.get("http://files.test/a")
                assert answer.content == whole
        (action,) = (await store.get_session(session.session_id)).actions
        assert action.conversion & Conversion.OUTPUT_CUT
        assert len(await store.read_content(action.output)) == 2000
        assert await asyncio.to_thread(in_a_thread, SyncStore.of(store)) == whole


async def test_the_older_client_library_is_recorded_too(make_store, server):
    httpx = pytest.importorskip("httpx")
    store = await make_store()
    asked = ("/v1/chat/completions", {"messages": ASKED, "stream": True})
    action, live, served = await recorded(store, server, *asked, library=httpx)
    assert await store.read_content(action.output) == b"HELLO WORLD"
    assert live[3] == served[3]


async def test_a_synchronous_client_is_recorded_through_the_synchronous_store(tmp_path, server):
    def work(session):
        transport = RecordingTransport(session, other="record")
        with httpx2.Client(transport=transport, base_url=server.url) as one:
            body = {"model": "m", "messages": ASKED}
            whole = one.post("/v1/chat/completions", json=body).json()
            with one.stream("POST", "/v1/messages", json={**body, "stream": True}) as response:
                chunks = list(response.iter_raw())
            busy = one.post("/v1/responses", json={"model": "refused", "input": "hi"})
            return whole, chunks, busy.status_code, one.get("/weather").json()

    def record_and_serve():
        with SyncStore.open(tmp_path / "a.mva") as store:
            with store.session() as session:
                live = work(session)
            before = len(server.requests)
            with store.serve(session.session_id) as recording:
                served = work(recording)
            assert len(server.requests) == before
            kinds = [action.kind for action in store.get_session(session.session_id).actions]
            return live, served, kinds

    live, served, kinds = await asyncio.to_thread(record_and_serve)
    assert live == served
    assert live[2] == 404
    assert len(live[1]) > 3
    assert kinds == ["ask", "ask", "ask", "tool_call"]


async def test_a_large_picture_is_left_out_of_the_recording(make_store, server):
    store = await make_store()
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 2**21}}
    text = {"type": "text", "text": "hello world"}
    asked = {"messages": [{"role": "user", "content": [picture, text]}]}
    action, live, served = await recorded(store, server, "/v1/chat/completions", asked)
    (message,) = await store.read_messages(action)
    assert message["content"][1] == text
    assert message["content"][0]["image_url"]["url"].startswith("(2097174 characters left out, ")
    assert live[2] == served[2]


async def test_questions_at_the_same_time_keep_their_order(make_store, server):
    store = await make_store()

    async def work(session):
        async with client(session, server) as one:

            async def plan(city):
                said = []
                for question in ("weather in", "dinner in"):
                    message = {"role": "user", "content": f"{question} {city}"}
                    body = {"model": "m", "messages": [message]}
                    response = await one.post("/v1/chat/completions", json=body)
                    said.append(response.json()["choices"][0]["message"]["content"])
                return said

            async with asyncio.TaskGroup() as group:
                made = [group.create_task(plan(city)) for city in ("Rome", "Oslo", "Lima")]
            return [one.result() for one in made]

    async with store.session() as session:
        live = await work(session)
    async with store.serve(session.session_id) as recorded_session:
        assert await work(recorded_session) == live
    assert live[1] == ["WEATHER IN OSLO", "DINNER IN OSLO"]


async def test_what_is_no_session_is_refused(make_store):
    store = await make_store()
    with pytest.raises(InvalidValueError, match="session"):
        RecordingTransport(store.path)
    async with store.session() as session:
        with pytest.raises(InvalidValueError, match="other"):
            RecordingTransport(session, other="drop")
        with (
            httpx2.Client(transport=RecordingTransport(session)) as one,
            pytest.raises(InvalidValueError, match="SyncStore"),
        ):
            one.get("http://localhost/")


class Halting:
    """A transport whose first response halts in the middle of its body, until it may go on."""

    def __init__(self, content_type, body):
        self.content_type, self.body = content_type, body
        self.sent = 0
        self.halted, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def handle_async_request(self, request):
        self.sent += 1
        return httpx2.Response(200, headers={"content-type": self.content_type}, stream=self)

    async def __aiter__(self):
        half = len(self.body) // 2
        yield self.body[:half]
        self.halted.set()
        await self.may_go_on.wait()
        yield self.body[half:]

    async def aclose(self):
        pass


HALTING = {
    "application/json": b'{"choices": [{"message": {"content": "HELLO"}}]}',
    "text/event-stream": b'data: {"choices": []}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("content_type", HALTING)
async def test_a_process_that_dies_in_a_response(make_store, tmp_path, content_type):
    store = await make_store("alive.mva")
    halting = Halting(content_type, HALTING[content_type])
    is_stream = content_type == "text/event-stream"

    async def ask(session):
        transport = RecordingTransport(session, halting)
        async with httpx2.AsyncClient(transport=transport, base_url="http://model") as client:
            asked = {"model": "m", "messages": ASKED, "stream": is_stream}
            return (await client.post("/v1/chat/completions", json=asked)).content

    async def work_beside(session):
        await session.call_tool("beside", {}, halting.halted.wait)
        if not halting.may_go_on.is_set():
            shutil.copyfile(tmp_path / "alive.mva", tmp_path / "died.mva")
            halting.may_go_on.set()

    async def run(session):
        asking = asyncio.create_task(ask(session), name="ask")
        working = asyncio.create_task(work_beside(session), name="work")
        answer, _ = await asyncio.gather(asking, working, return_exceptions=True)
        return answer

    async with store.session() as session:
        assert await run(session) == halting.body
    died = await make_store("died.mva")
    resume = partial(died.resume_session, replay=True, uncertain="run")
    for again in (resume, died.serve):
        async with again(session.session_id) as session_again:
            answer = await run(session_again)
        if is_stream:
            # Somebody may have read the half of it.
            assert isinstance(answer, httpx2.ReadError)
            assert "broke off" in str(answer)
        else:
            assert answer == halting.body
    assert halting.sent == (1 if is_stream else 2), "a response that is no stream is asked for anew"
