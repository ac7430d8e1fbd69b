"""The live view: what its server answers, to whom, and what it says of what is new."""

import asyncio
import re
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from memvid_async import StoreConfig, open_store
from tests.support.html_page import ELEMENTS, HOSTILE, Page

pytest.importorskip("starlette", reason="needs the extra view")

from memvid_async.view import server
from memvid_async.view.list_page import ROWS


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
        shown.append(re.findall(r"<article id=a(\d+)", page.text))
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
        assert re.findall(r"<article id=a(\d+)", (await get(app, path)).text) == ["0"]
        newer = (await get(app, path.replace("from=0", "from=1"))).text
        assert re.findall(r"<article id=a(\d+)", newer) == []
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


async def record_hostile(store: Any, variant: int) -> Any:
    """Two sessions and a memory with texts that try to be markup in every field."""

    async def generate(_: Any) -> Any:
        return HOSTILE[variant] * 3

    async with store.session(
        HOSTILE[variant], metadata={text: text for text in HOSTILE}
    ) as session:
        for text in HOSTILE:
            await store.put(
                f"{text} word", title=text, uri=text, tags=[text], metadata={text: text}
            )
        await store.update(1, f"{HOSTILE[0]} word {variant}", title=HOSTILE[1])
        await store.ask("word", generate=generate, provider="p", model=HOSTILE[0], top_k=99)
        for text in HOSTILE:
            await session.record_tool_call(
                text, arguments={text: [text]}, result=text + str(variant), error=text, task=text
            )
    return session.session_id


PAGES = {
    "/": ["/sessions/"],
    "/?q=script": ["/sessions/"],
    "/?used=nothing&task=x&metadata=a%3Db&since=2020-01-01&until=2090-01-01": ["No session fits"],
    "/forks": ["after 3 actions"],
    "/search": ["Everything that was recorded"],
    "/search?q=owned": ["<mark>owned</mark>"],
    "/search?kind=tool_call&failed=1&session={a}": ["tool call"],
    "/search?q=" + "%3Cscript%3E" * 3: ["Nothing fits"],
    "/usage": ["By day", "By model", "By tool"],
    "/memory": ["frame 1</a>"],
    "/memory?q=word&at=9": ["As it is after event 9"],
    "/memory?at=999999999": ["As it is now"],
    "/memory/1": ["changed: ", "event "],
    "/memory/999": ["It was not in the memory then"],
    "/compare?a={a}": ["Compare"],
    "/compare?a={a}&b={b}": ["diverge"],
    "/sessions/{a}": ["why this answer?"],
    "/sessions/{a}?from=3": ["earlier actions"],
    "/sessions/{b}/replay": ["matched"],
    "/sessions/{a}/why/8": ["frame 1</a>", "put by", "used later"],
}


async def test_every_page_shows_what_it_is_for_and_nothing_recorded_is_markup(store):
    a, b = [await record_hostile(store, variant) for variant in (0, 1)]
    await store.fork(a, action_index=2, name=HOSTILE[2])
    app = app_of(store)
    for target, told in PAGES.items():
        answer = await get(app, target.format(a=a, b=b))
        assert answer.status == 200, target
        assert all(one in answer.text for one in told), target
        page = Page(answer.text)
        assert set(page.elements) <= ELEMENTS, target
        assert page.elements.count("script") == 2
        assert page.elements.count("h1") == 1, target
        assert not [a for a in page.attributes if a[1].startswith("on") or a[1] == "style"]
        for tag, name, value in page.attributes:
            if name in ("href", "action", "src") and tag != "link":
                assert re.match(r"[/?#]", value), (target, tag, value)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", answer.text), target
        assert "default-src 'none'" in answer.text
        assert "connect-src 'self'" in answer.text
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_sessions_are_found_by_what_they_used_and_when_they_began(make_store):
    now = 10**18
    store = await make_store(config=StoreConfig(clock=lambda: now))
    for day in range(3):
        now = (day + 1) * 86_400 * 10**9 + 5
        async with store.session(f"day {day + 2}", metadata={"n": day, "who": "ann"}) as session:
            await session.record_tool_call(f"tool{day}", arguments={}, task=f"task{day % 2}")
    app = app_of(store)

    async def names(query: str) -> list[str]:
        return re.findall(r">(day \d)</a>", (await get(app, f"/?{query}")).text)

    assert await names("used=tool1") == ["day 3"]
    assert await names("task=task0") == ["day 4", "day 2"]
    assert await names("task=task0&used=tool2") == ["day 4"]
    assert await names("metadata=n%3D1") == ["day 3"]
    assert await names("metadata=who%3Dann") == await names("metadata=who") == await names("")
    assert await names("metadata=nobody") == []
    assert await names("since=1970-01-03&until=1970-01-04") == ["day 3"]
    assert await names("since=no-day") == ["day 4", "day 3", "day 2"]
    # What was found before is gone on with.
    async with store.session("day 9") as session:
        await session.record_tool_call("tool1", arguments={})
    assert await names("used=tool1") == ["day 9", "day 3"]


async def test_a_replay_in_which_nothing_was_compared_does_not_match(store):
    async with store.session("quiet") as session:
        await session.record_tool_call("look", arguments={})
    page = await get(app_of(store), f"/sessions/{session.session_id}/replay")
    assert "nothing could be compared" in page.text


@pytest.mark.parametrize(
    "target",
    [
        *("/sessions/x", "/sessions/" + "0" * 32, "/?after=x", "/nothing", "/compare", "/memory/x"),
        *("/compare?a=x&b=y", "/sessions/x/replay", "/sessions/x/why/1", "/sessions/x/why/y"),
    ],
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
