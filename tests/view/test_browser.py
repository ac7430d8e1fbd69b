"""The pages in a browser, driven: live from another process, by the keyboard, for everybody."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from memvid_async import Durability, StoreConfig, open_store
from memvid_async.view.session_page import load_session, session_page
from tests.support.depth import PAGES_EVERY
from tests.support.html_page import HOSTILE

pytest.importorskip("starlette", reason="needs the extra view")
playwright = pytest.importorskip("playwright.async_api", reason="needs the extra browser")
axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="needs the same")

pytestmark = pytest.mark.one_loop
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)
WIDTHS = (400, 800, 1280, 2000)


@asynccontextmanager
async def viewed(path: Any) -> AsyncIterator[str]:
    """The address at which another process shows a file."""
    command = ("-m", "memvid_async", "view", str(path), "--no-browser")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, stderr=asyncio.subprocess.PIPE
    )
    try:
        told = (await process.stderr.readline()).decode()
        yield re.search(r"http://\S+(?=/)", told)[0]
    finally:
        process.terminate()
        await process.communicate()


@asynccontextmanager
async def browsing(**options: Any) -> AsyncIterator[Any]:
    """A page of a browser; what its console says is an error."""
    problems: list[str] = []
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(**options)
        page = await context.new_page()
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.set_default_timeout(10_000)
        try:
            yield page
        finally:
            await browser.close()
    assert problems == []


async def record_trip(store: Any) -> Any:
    """A session with a bit of everything."""

    async def model(_: Any) -> Any:
        for chunk in ("It ", "rains ", "in Oslo: take a coat. " * 90):
            yield chunk

    async def weather(city: str) -> Any:
        return {"city": city, "hours": [{"degrees": n, "rain": None} for n in range(9)]}

    await store.put("Rain in Oslo", title="weather")
    async with store.session("trip", metadata={"env": "test"}) as session:
        async with session.step("plan", input={"days": 1}):
            await session.call_tool("weather", {"city": "Oslo"}, weather)
            asked = [{"role": "user", "content": "A coat? " * 40}]
            async for _ in session.stream_model(asked, model, model="m"):
                pass
        await store.ask("rain?", generate=model, model="m")
        await session.record_tool_call("look", arguments={"at": HOSTILE}, error=HOSTILE[0])
    return session.session_id


@pytest.fixture
async def recorded(tmp_path: Any) -> Any:
    path = tmp_path / "seen.mva"
    async with open_store(path) as store:
        yield path, store, await record_trip(store)


async def test_it_is_live_from_another_process(recorded):
    path, store, _ = recorded
    hanging = asyncio.Event()

    async def slow() -> str:
        await hanging.wait()
        return "done"

    async with viewed(path) as address, browsing() as page:
        await page.goto(address)
        await page.get_by_text("live", exact=True).wait_for()
        async with store.session("newest") as session:
            link = page.get_by_role("link", name="newest")
            await link.wait_for()
            await link.click()
            await page.get_by_text("live", exact=True).wait_for()
            call = asyncio.create_task(session.call_tool("slow", {}, slow))
            await page.locator("article.flight").wait_for()
            hanging.set()
            await call
            await page.locator("#a0").wait_for()
            assert await page.locator("article.flight").count() == 0
            await page.locator("#rows li").wait_for()


async def test_the_keys_the_filters_and_the_search(recorded):
    path, _, session_id = recorded
    async with viewed(path) as address, browsing() as page:
        await page.goto(f"{address}/sessions/{session_id}")
        here = "document.activeElement.id"
        pressed = []
        for key in "jjk":
            await page.keyboard.press(key)
            pressed.append(await page.evaluate(here))
        assert pressed == ["a0", "a1", "a0"]
        await page.keyboard.press("?")
        assert await page.locator("dialog#keys").is_visible()
        await page.keyboard.press("Escape")
        # One click shows one kind alone, another one all.
        shown = "document.querySelectorAll('article:not([hidden])').length"
        chip = page.get_by_role("button", name="tool call")
        await chip.click()
        assert await page.evaluate(shown) == 2
        await chip.click()
        assert await page.evaluate(shown) == 5
        await page.get_by_role("button", name="failed").click()
        assert await page.evaluate(shown) == 1
        await page.get_by_role("button", name="failed").click()
        await page.keyboard.press("/")
        await page.keyboard.type("take a coat")
        assert await page.evaluate(shown) == 1
        # What was found is opened and marked, once it is near.
        await page.wait_for_function("CSS.highlights.get('found').size > 20")
        await page.keyboard.press("Escape")
        assert await page.evaluate(shown) == 5
        raw = page.locator("#a0").get_by_role("button", name="Raw")
        # The browser renders what is seen: what it has not is read as it is in the page.
        box = page.locator("#a0 dd:nth-of-type(2) pre").first
        await raw.wait_for()
        indented = await box.text_content()
        assert '\n    {\n      "degrees": 0,\n      "rain": null\n    },' in indented
        await raw.click()
        assert (await box.text_content()).startswith('{"city": "Oslo", "hours": [{"degrees": 0, ')
        await page.locator("#a1").get_by_role("button", name="Show them").click()
        pieces = await page.locator("#a1 .pieces span").all_text_contents()
        assert [len(piece) for piece in pieces] == [3, 6, 90 * 22]
        await page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert await page.locator("main details:not([open])").count() == 0


async def test_everybody_can_use_every_page(recorded):
    path, store, session_id = recorded
    other = await store.fork(session_id, action_index=1, name="fork")
    places = [
        *("/", "/search?q=coat", "/usage", "/memory", "/memory?q=rain&at=3", "/memory/1", "/forks"),
        *(f"/sessions/{session_id}{end}" for end in ("", "/replay", "/why/3")),
        *(f"/compare?a={session_id}{end}" for end in ("", f"&b={other}")),
    ]
    serious, wide = [], []
    async with viewed(path) as address, browsing(bypass_csp=True) as page:
        for place in places[::PAGES_EVERY]:
            await page.goto(address + place)
            for width in WIDTHS:
                await page.set_viewport_size({"width": width, "height": 900})
                if await page.evaluate("document.documentElement.scrollWidth") > width:
                    wide.append((place, width))
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                found = (await axe.Axe().run(page)).response["violations"]
                serious += [
                    (place, scheme, one["id"], [node["html"] for node in one["nodes"]])
                    for one in found
                    if one["impact"] in ("serious", "critical")
                ]
    assert wide == []
    assert serious == []


async def test_a_long_session_is_quick(tmp_path):
    path = tmp_path / "long.mva"
    config = StoreConfig(durability=Durability.BUFFERED)
    async with open_store(path, config=config) as store:
        async with store.session("long") as session:
            for number in range(1_500):
                await session.record_tool_call(f"t{number % 5}", arguments={"n": number})
        await store.sync()
        async with viewed(path) as address, browsing() as page:
            await page.goto(f"{address}/sessions/{session.session_id}")
            times = "JSON.stringify(performance.getEntriesByType('navigation')[0])"
            first = re.search(r'"responseStart":([\d.]+)', await page.evaluate(times))
            assert float(first[1]) < 1_000  # 100 ms where nothing else runs
            assert await page.locator("article").count() == 500
            assert 1 < await page.locator("#lanes a").count() <= 50
            await page.get_by_role("link", name="later actions").first.click()
            await page.locator("#a500").wait_for()
        # The page that stands alone has all, and the browser renders what is seen.
        alone = tmp_path / "alone.html"
        pieces = session_page(store, partial(load_session, store, session.session_id))
        alone.write_text("".join([piece async for piece in pieces]))
        rendered = "a => a.checkVisibility({contentVisibilityAuto: true})"
        async with browsing() as page:
            await page.goto(alone.as_uri())
            assert await page.locator("article").count() == 1_500
            for place in ("0", "document.documentElement.scrollHeight / 2", "1e9"):
                await page.evaluate(f"scrollTo(0, {place})")
                seen = f"[...document.querySelectorAll('article')].filter({rendered}).length"
                await page.wait_for_function(f"0 < {seen} && {seen} <= 120")
                assert 0 < await page.locator("#rows li").count() <= 300
            await page.keyboard.press("/")
            await page.keyboard.type('"n": 1499')
            await page.get_by_text("1 of 1500").wait_for()
            assert await page.locator("#rows li").count() == 1
            await page.keyboard.press("Escape")
            await page.goto(f"{alone.as_uri()}#a1200")
            await page.wait_for_function("document.getElementById('a1200').checkVisibility()")
