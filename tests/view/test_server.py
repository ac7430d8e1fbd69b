"""The live view: what its server answers, to whom, and what it says of what is new."""

import asyncio
import re
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from memvid_async import open_store

pytest.importorskip("starlette", reason="needs the extra view")

from memvid_async.view import server
from memvid_async.view.list_page import ROWS

HOSTILE = "<script>alert(1)</script>\u202e\x1b[2J"


class Answer:
    """What an application answered to a request: its status, its headers and its body."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.grew = asyncio.Event()

    @property
    def text(self) -> str:
        return self.body.decode()

    async def take(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message.get("body", b"")
            self.grew.set()


def scope_of(target: str, headers: dict[str, str]) -> dict[str, Any]:
    parts = urlsplit(target)
    sent = {"host": "127.0.0.1:1234", **headers}
    return {
        "type": "http",
        "method": "GET",
        "http_version": "1.1",
        "scheme": "http",
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "headers": [(k.encode(), v.encode()) for k, v in sent.items()],
    }


async def get(app: Any, target: str, **headers: str) -> Answer:
    """Ask an application for a page."""
    async with asking(app, target, **headers) as (answer, task):
        await task
    return answer


@asynccontextmanager
async def asking(app: Any, target: str, **headers: str) -> Any:
    """Ask for something that may not end, and go away in the end."""
    answer, gone, sent = Answer(), asyncio.Event(), [{"type": "http.request", "body": b""}]

    async def receive() -> Any:
        if sent:
            return sent.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    task = asyncio.create_task(app(scope_of(target, headers), receive, answer.take))
    try:
        yield answer, task
    finally:
        gone.set()
        await task


def app_of(store: Any, **options: Any) -> Any:
    return server.make_app(store, hosts=("127.0.0.1",), **options)


@pytest.fixture
async def store(make_store):
    return await make_store()


async def test_all_sessions_are_listed_newest_first_a_page_at_a_time(store):
    for number in range(ROWS + 5):
        async with store.session(f"run {number}") as session:
            if number == 3:
                await session.record_tool_call("look", arguments={}, error="boom")
    app = app_of(store)
    page = await get(app, "/")
    names = re.findall(r">(run \d+)</a>", page.text)
    assert names == [f"run {number}" for number in range(ROWS + 4, 4, -1)]
    (older,) = re.findall(r'rel="next" href="(\?[^"]+)"', page.text)
    rest = await get(app, "/" + older.replace("&amp;", "&"))
    assert re.findall(r">(run \d+)</a>", rest.text) == [f"run {n}" for n in (4, 3, 2, 1, 0)]
    assert 'rel="next" href' not in rest.text
    failed = await get(app, "/?failed=1")
    assert re.findall(r">(run \d+)</a>", failed.text) == ["run 3"]
    found = await get(app, "/?q=RUN+10")
    assert len(re.findall(r">(run \d+)</a>", found.text)) == 6
    by_id = await get(app, f"/?q={str(session.session_id)[:23]}")
    assert re.findall(r">(run \d+)</a>", by_id.text) == [f"run {ROWS + 4}"]
    assert "No session fits" in (await get(app, "/?q=nothing")).text


async def test_a_session_is_shown_a_window_at_a_time(store, monkeypatch):
    monkeypatch.setattr(server, "ACTIONS", 3)
    async with store.session("trip") as session:
        for number in range(8):
            await session.record_tool_call("look", arguments={"n": number}, result="r")
    app, path = app_of(store), f"/sessions/{session.session_id}"
    shown = []
    target = path
    while target:
        page = await get(app, target)
        shown.append(re.findall(r'<article id="a(\d+)"', page.text))
        later = re.findall(r'rel="next" href="(\?[^"]+)"', page.text)
        target = path + later[0] if later else ""
    assert shown == [["0", "1", "2"], ["3", "4", "5"], ["6", "7"]]
    assert (await get(app, path + "?from=99")).status == 200
    assert (await get(app, path + "?from=x")).status == 200


async def test_what_is_new_is_told_and_asked_for(store, make_store):
    app = app_of(store)
    async with store.session("live") as session:
        path = f"/sessions/{session.session_id}?part=new&from=0"
        async with asking(app, "/live") as (events, task):
            await events.grew.wait()
            assert events.text == ": connected\n\n"
            events.grew.clear()
            await session.record_tool_call("look", arguments={}, result="seen")
            await events.grew.wait()
            assert events.text.endswith(f"data: {store.last_sequence}\n\n")
            assert not task.done()
        assert re.findall(r'<article id="a(\d+)"', (await get(app, path)).text) == ["0"]
        newer = (await get(app, path.replace("from=0", "from=1"))).text
        assert re.findall(r'<article id="a(\d+)"', newer) == []
        assert "<dt>actions</dt><dd>1</dd>" in newer
    rows = await get(app, "/?part=rows")
    assert rows.text.startswith('<div data-replace="sessions"><table><tbody id="sessions"><tr>')
    assert "live</a>" in rows.text


async def test_a_page_of_another_site_and_a_stranger_get_nothing(store):
    async with store.session("secret"):
        pass
    app = app_of(store, token="t0k")
    assert (await get(app, "/", host="evil.example")).status == 400
    for target in ("/", "/live", "/sessions/x", "/?token=wrong"):
        answer = await get(app, target)
        assert (answer.status, "secret" in answer.text) == (403, False)
    known = await get(app, "/?token=t0k")
    assert known.status == 200
    cookie = known.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (await get(app, "/", cookie=cookie.partition(";")[0])).status == 200


async def test_what_was_recorded_is_never_markup(store):
    async with store.session(HOSTILE) as session:
        await session.record_ask(
            HOSTILE, provider=HOSTILE, model=HOSTILE, response=HOSTILE, duration_ms=0, task=HOSTILE
        )
    app = app_of(store)
    for target in ("/", "/?q=%3Cscript%3E", f"/sessions/{session.session_id}"):
        answer = await get(app, target)
        assert "<script>alert" not in answer.text
        assert "\u202e" not in answer.text
        assert "\x1b" not in answer.text
        assert "default-src 'none'" in answer.text
        assert "connect-src 'self'" in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "target", ["/sessions/x", "/sessions/" + "0" * 32, "/?after=x", "/nothing"]
)
async def test_a_wrong_address_is_an_answer(store, target):
    answer = await get(app_of(store), target)
    assert answer.status == (200 if target.startswith("/?") else 404)


async def test_a_follower_is_enough(tmp_path):
    path = tmp_path / "f.mva"
    async with open_store(path) as writer, open_store(path, read_only=True) as reader:
        app = app_of(reader)
        async with writer.session("elsewhere"):
            assert "elsewhere</a>" in (await get(app, "/")).text
