"""The HTML page: complete, self-contained, and unmoved by what was recorded."""

import asyncio
import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from functools import partial

import pytest

from memvid_async import Durability, Generated, RecordingConfig, StoreConfig
from memvid_async.view.compare_page import comparison_page
from memvid_async.view.markup import block
from memvid_async.view.session_page import load_session, session_page
from tests.support.html_page import ELEMENTS, HOSTILE, Page

pytestmark = pytest.mark.one_loop

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


async def record(store, variant, texts):
    async with store.session(texts[0], metadata={texts[1]: texts[2]}) as recorder:
        for text in texts:
            await recorder.record_ask(
                text,
                provider=text[:200],
                model=text[:200],
                response=text * (variant + 1),
                duration_ms=1,
                messages=[{"role": text, "content": text}, {text: [text]}],
                task=text,
                error=text if variant else None,
                metadata={text: text},
            )
            await recorder.record_tool_call(text, arguments={text: text}, result=text + "\n" * 40)
            await recorder.record_put(3, (text + "\n") * 60)
            await recorder.record_find(text, mode=text, result_count=0, result_frames=())
        await recorder.record_tool_call("raw", arguments=[b"\x00"], result=b"\xff\xfe")
        await recorder.record_put_many(range(variant, 90))
        await recorder.record_update(3, "x" * 70_000)
        await recorder.record_delete(3 + variant)
        await remember(store, variant, texts)
    return recorder.session_id


async def remember(store, variant, texts):
    """The same texts in the store's own memory, found and asked for."""
    for text in texts:
        await store.put(text, title=text, uri=text, tags=[text], metadata={text: text})
    await store.find("owned", tags=texts[:1], uri=texts[0])

    async def chunks(*_):
        for text in texts:
            yield text * (variant + 1)

    await store.ask("owned", generate=chunks, provider=texts[0][:200], model=texts[1], top_k=9)


async def page_of(store, session_id):
    load = partial(load_session, store, session_id)
    return "".join([part async for part in session_page(store, load)])


@pytest.fixture
async def pages(make_store):
    """A session's page and a comparison's, of hostile recordings."""
    config = StoreConfig(
        durability=Durability.BUFFERED, recording=RecordingConfig(auto_checkpoint_interval=5)
    )
    store = await make_store(config=config)
    ids = [await record(store, variant, HOSTILE) for variant in (0, 1)]
    fork = await store.fork(ids[0], action_index=12, name=HOSTILE[0])
    async with store.resume_session(fork):
        await remember(store, 0, HOSTILE)
    assert not (await store.compare(*ids)).is_equal
    return [
        await page_of(store, ids[0]),
        "".join([part async for part in comparison_page(store, partial(store.compare, *ids))]),
        await page_of(store, fork),
    ]


async def test_nothing_recorded_becomes_markup(pages):
    for text in pages:
        page = Page(text)
        assert set(page.elements) <= ELEMENTS
        assert page.elements.count("script") == page.elements.count("style") == 1
        assert not [a for a in page.attributes if a[1].startswith("on") or a[1] == "style"]
        links = [
            value
            for tag, name, value in page.attributes
            if name in ("href", "src") and value != "data:,"
        ]
        assert links
        assert all(re.fullmatch(r"#[a-z]+\d*", link) for link in links)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]", text)


async def test_the_policy_allows_the_pages_own_script_and_style_alone(pages):
    for text in pages:
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
        for tag in ("script", "style"):
            (own,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        # The policy comes before anything that it is to hold back.
        assert text.index("Content-Security-Policy") < text.index("<title>")


async def test_every_action_is_on_the_page_with_its_content(pages):
    session, comparison, fork = pages
    page = Page(session)
    shown = "".join(page.texts["pre"])
    for text in HOSTILE[:-1]:
        assert text in shown
    assert r"\x1b[2J\x00\u202e\u2028\x85{{7*7}}${7*7}&lt;b&gt;" in shown
    ids = {value for tag, name, value in page.attributes if (tag, name) == ("article", "id")}
    assert len(ids) == session.count("<article") == 5 * len(HOSTILE) + 6 + 8
    assert "The first 65536 characters of 68.4 KiB" in session
    assert '<span class="del">' in comparison
    assert 'id="diverged"' in comparison
    assert fork.count("<article") == 13 + len(HOSTILE) + 2 + 1
    assert fork.index("id=a12>") < fork.index('id="forked"') < fork.index("id=a13>")


async def test_ids_and_links_meet(pages):
    for text in pages:
        page = Page(text)
        ids = [value for _, name, value in page.attributes if name == "id"]
        assert len(set(ids)) == len(ids)
        links = {v[1:] for _, name, v in page.attributes if name == "href" and v != "data:,"}
        assert links <= set(ids)


async def test_an_empty_session_has_a_page(make_store):
    store = await make_store()
    async with store.session() as recorder:
        pass
    text = await page_of(store, recorder.session_id)
    Page(text)
    assert "Nothing is recorded." in text


async def test_two_equal_sessions_have_a_page(make_store):
    store = await make_store()
    async with store.session() as recorder:
        await recorder.record_put(1, "a note")
    compare = partial(store.compare, recorder.session_id, recorder.session_id)
    text = "".join([part async for part in comparison_page(store, compare)])
    Page(text)
    assert "Both did the same." in text


async def test_a_search_shows_what_it_found_then_and_how_the_reply_came(make_store):
    store = await make_store()

    async def reply(*_):
        yield "It "
        yield Generated(
            "snows.", input_tokens=7, output_tokens=2, cached_tokens=5, cost_usd=0.00125
        )

    async with store.session() as recorder:
        kept = await store.put("Snow in Oslo & around")
        await store.find("snow", top_k=3, since_ns=1)
        await store.ask("snow?", generate=reply, provider="p", model="m")
    await store.update(kept, "Rain")
    text = await page_of(store, recorder.session_id)
    Page(text)
    assert "lexical search of the memory after event 4, at most 3 frames" in text
    assert 'where {"since_ns": 1}' in text
    (score,) = {hit.score for hit in (await store.find("rain")).hits}
    assert text.count(f"<h4>frame {kept} <b>{score:.3g}</b></h4>") == 2
    assert text.count("<pre>Snow in Oslo &amp; around</pre>") == 3
    assert 'data-lengths="3 6">it came in 2 chunks<' in text
    assert "7 input tokens, 2 output tokens, 5 cached tokens, 0.00125 US dollars" in text


async def test_a_growing_chat_is_on_the_page_once(make_store):
    store = await make_store(config=StoreConfig(durability=Durability.BUFFERED))
    chat = [{"role": "system", "content": "Be brief. " * 30}]
    async with store.session("chat") as session:
        for turn in range(60):
            chat.append({"role": "user", "content": f"question {turn} " * 30})
            reply = f"answer {turn} " * 40
            await session.record_ask(
                chat[-1]["content"], response=reply, messages=[*chat], duration_ms=1
            )
            chat.append({"role": "assistant", "content": reply})
        edited = [{"role": "system", "content": "Be kind."}, *chat[1:]]
        await session.record_ask("the end?", response="yes", messages=edited)
    text = await page_of(store, session.session_id)
    around = len(await page_of_nothing(store))
    assert len(text) - around < 2 * len(json.dumps(chat))
    assert all(text.count(message["content"]) == 1 for message in chat)
    last = text[text.index("id=a60>") :]
    assert "121 messages, 2 new in the prompt" in last
    assert '2-120 as in <a href="#a0">action 0</a> to <a href="#a59">action 59</a>' in last


async def page_of_nothing(store):
    async with store.session("nothing") as session:
        pass
    return await page_of(store, session.session_id)


async def test_a_call_in_flight_and_a_step_show_what_they_were_given(make_store):
    store = await make_store()
    running, long = asyncio.Event(), f'{{"a": [1, 2.50{"0" * 80}]}}'
    async with store.session("busy") as session:

        async def slow(city):
            running.set()
            await asyncio.Event().wait()

        async with session.step("plan", input={"days": 3}):
            await session.call_tool("look", {"n": 1}, lambda n: long)
        task = asyncio.create_task(session.call_tool("weather", {"city": "Oslo"}, slow))
        await running.wait()
        text = await page_of(store, session.session_id)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    page = Page(text)
    flight = text[text.index('<div id="flight">') :]
    assert "in flight</span>" in flight
    assert '{"city": "Oslo"}' in flight
    assert '<dt>input<dd><pre>{"days": 3}</pre>' in text
    # As it was: the script indents it.
    assert f"<pre class=json>{long}</pre>" in text
    (bars,) = [value for _, name, value in page.attributes if name == "data-bars"]
    rows = [bar.split(" ") for bar in bars.split(",")]
    assert [depth for _, _, _, *depth in rows] == [[], ["1"], []]
    assert [lasted == "" for _, _, lasted, *_ in rows] == [False, False, True]
    links = [value.split() for _, name, value in page.attributes if name == "data-to"]
    assert sorted(len(each) for each in links) == [1, 1, 1]


async def test_images_of_known_kinds_are_shown_and_nothing_else_is_taken_for_one(make_store):
    store = await make_store()
    png = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{png}"}},
        {"type": "image", "source": {"type": "base64", "data": "PHN2Zz4=", "media_type": "x"}},
        {"type": "image", "source": {"type": "base64", "data": png + '" onload="x', "x": 1}},
    ]
    async with store.session() as session:
        await session.record_tool_call("shot", arguments={}, result=b"GIF89a\xff" + bytes(9))
        await session.record_tool_call("noise", arguments={}, result=b"\xff\xfe" + bytes(9))
        await session.record_ask("?", response="!", messages=[{"role": "user", "content": parts}])
    page = Page(await page_of(store, session.session_id))
    shown = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert [one[:22] for one in shown] == ["data:image/gif;base64,", "data:image/png;base64,"]
    assert shown[1].endswith(png)


def test_a_long_text_is_folded_and_whole():
    for text in ("line\n" * 40, "word " * 900, "x" * 3000, "a\n" * 13 + "y" * 5000, "\n" * 99):
        page = Page(block(text))
        at = page.elements.index("details")
        assert page.elements[at - 1] == "pre"
        start, rest = pres(block(text))
        joined = "" if "data-joined" in block(text) else "\n"
        assert start + joined + rest == text
        assert len(start) <= 1400
        assert start.count("\n") <= 14


def pres(text):
    return [html.unescape(one) for one in re.findall(r"<pre[^>]*>(.*?)</pre>", text, re.DOTALL)]


async def test_what_was_erased_is_said_to_be(make_store):
    store = await make_store()
    async with store.session() as recorder:
        kept = await store.put("a secret")
        await store.find("secret")
    await store.delete(kept)
    await store.compact()
    text = await page_of(store, recorder.session_id)
    Page(text)
    assert text.count("<p class=note>(erased)</p>") == 2


async def test_a_fork_names_the_parent_and_where_it_leaves_it(make_store):
    store = await make_store()
    async with store.session() as parent:
        await parent.record_put(1, "a note")
        await parent.record_put(2, "another")
    fork = await store.fork(parent.session_id, action_index=0)
    text = await page_of(store, fork)
    Page(text)
    assert f'<a href="#forked">forked</a> from session {parent.session_id} after 1 action' in text
    assert text.index("id=a0>") < text.index('id="forked"')
    await store.delete_session(parent.session_id)
    text = await page_of(store, fork)
    Page(text)
    assert "of which 1 is gone with a deleted session" in text


# --- in a browser ---------------------------------------------------------------------------------


def browse(*arguments):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no headless Chromium is installed")
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    done = subprocess.run([*command, *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"the browser does not run here: {done.stderr[-200:]!r}")
    return done


async def test_a_browser_runs_the_pages_script_and_nothing_recorded(pages, tmp_path):
    for number, text in enumerate(pages):
        path = tmp_path / f"page{number}.html"
        path.write_text(text, encoding="utf-8")
        page = browse("--enable-logging=stderr", "--dump-dom", path.as_uri())
        dom = page.stdout.decode()
        assert "<title>owned" not in dom
        # What the script shows once it runs.
        assert '<div class="tools" role="search">' in dom
        assert re.search(r'id="count"[^>]*>\d+ shown<', dom)
        assert b"Content Security Policy" not in page.stderr
        assert b"Uncaught" not in page.stderr


PRESSED = """<script>
  const told = [];
  const press = (key, target = document.body) =>
    target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  const here = () => document.activeElement.id;
  for (const key of "jjjk") { press(key); told.push(here()); }
  const folded = () => document.querySelectorAll("main details[open]").length;
  press("f"); told.push(folded() > 0); press("f"); told.push(folded());
  press("t"); const theme = document.documentElement.dataset.theme;
  press("t"); told.push(theme !== document.documentElement.dataset.theme);
  press("/"); told.push(here());
  const box = document.getElementById("search");
  box.value = "a line that nobody wrote"; box.dispatchEvent(new Event("input"));
  told.push(document.querySelectorAll("article:not([hidden])").length);
  press("j", box); told.push(here());
  press("Escape", box); told.push(box.value);
  document.title = JSON.stringify(told);
</script></body>"""


async def test_a_browser_can_be_used_with_the_keyboard(pages, tmp_path):
    path = tmp_path / "page.html"
    # The policy would stop the test's own script, as any other.
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", pages[0])
    path.write_text(page.replace("</body>", PRESSED), encoding="utf-8")
    dom = browse("--dump-dom", path.as_uri()).stdout.decode()
    told = re.findall(r"<title>(.*?)</title>", dom)[0]
    assert json.loads(html.unescape(told)) == [
        *("a0", "a1", "a2", "a1"),
        *(True, 0),
        True,
        "search",
        0,
        "search",
        "",
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_browser_paints_it(pages, tmp_path, scheme):
    path, shot = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(pages[0].replace("<html", f'<html data-theme="{scheme}"'), encoding="utf-8")
    browse(f"--screenshot={shot}", "--window-size=1280,900", path.as_uri())
    picture = shot.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(picture) > 20_000  # a blank page of this size has about 4,000 bytes
