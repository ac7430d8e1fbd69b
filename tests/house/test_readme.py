"""What the pages show runs as it stands there, and prints what they say."""

import ast
import difflib
import inspect
import runpy
from pathlib import Path

import pytest

import memvid_async
from scripts import check_docs
from tests.support.model_server import model_server

ROOT = Path(__file__).resolve().parents[2]


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return [code for language, code in check_docs.code_blocks(text) if language == "python"]


def sections(page):
    """The sections of a page by their titles; "" for what is above the first."""
    text = (ROOT / page).read_text(encoding="utf-8")
    parts = text.split("\n## ")
    return {"": parts[0]} | dict(part.split("\n", 1) for part in parts[1:])


def test_the_lines_that_change_are_those_of_the_example():
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    (shown,) = [code for language, code in check_docs.code_blocks(text) if language == "diff"]
    plain, recorded = (
        (ROOT / "examples" / name).read_text(encoding="utf-8").partition('"""\n\n')[2].splitlines()
        for name in ("trip_agent.py", "trip_agent_recorded.py")
    )
    assert 80 <= len(plain) <= 100
    # Without the two lines that name the files.
    lines = list(difflib.unified_diff(plain, recorded, n=0, lineterm=""))[2:]
    changes = [line for line in lines if line[0] in "+-"]
    assert changes == shown.splitlines()
    assert sum(line[0] == "+" for line in changes) <= 6


def examples():
    """Each program of examples/ that runs by itself, with what its page says that it prints."""
    shown = sections("docs/examples.md")
    return [(title, *outputs(text)) for title, text in shown.items() if outputs(text)]


def outputs(text):
    return [code for language, code in check_docs.code_blocks(text) if language == "text"]


def test_the_first_pages_show_the_first_example():
    (name, printed), *_ = examples()
    program = (ROOT / "examples" / name).read_text(encoding="utf-8").partition('"""\n\n')[2]
    for page in ("README.md", "docs/index.md"):
        assert blocks(page) == [program]
        assert outputs((ROOT / page).read_text(encoding="utf-8")) == [printed]
    assert len([line for line in program.splitlines() if line.strip()]) <= 24


@pytest.mark.parametrize(("name", "printed"), examples(), ids=[name for name, _ in examples()])
def test_an_example_prints_what_its_page_says(tmp_path, monkeypatch, capfd, name, printed):
    if name == "sdk.py":
        pytest.importorskip("httpx2")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert capfd.readouterr().out == printed


def test_there_are_six_examples():
    programs = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert len(examples()) == 6
    assert programs == {name for name, _ in examples()} | {
        "trip_agent.py",
        "trip_agent_recorded.py",
    }


TRANSPORT = "At the HTTP transport"


async def run_page(page, without=(), **more):
    names = {name: getattr(memvid_async, name) for name in memvid_async.__all__} | more
    names["asyncio"] = __import__("asyncio")
    text = "\n".join(part for title, part in sections(page).items() if title not in without)
    for language, code in check_docs.code_blocks(text):
        if language != "python":
            continue
        compiled = compile(code, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        waiting = eval(compiled, names)
        if inspect.isawaitable(waiting):
            await waiting


async def test_the_tutorial_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    pytest.importorskip("httpx2")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    async with model_server() as server:
        await run_page("docs/tutorial.md", URL=server.url)
    printed = capsys.readouterr().out
    assert "PLAN A DAY IN ROME" in printed
    assert "Rome tool_call" in printed
    assert "then snow. 1" in printed
    assert "content_bytes 2000" in printed


async def test_the_page_of_recording_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # The recipes for SDKs run in tests/interop/test_model_sdks.py.
    await run_page("docs/recording.md", without=[TRANSPORT])
    printed = capsys.readouterr().out
    assert "1 tool_call MainThread" in printed


@pytest.mark.parametrize("page", ["collections", "processes", "deploying", "erasing"])
async def test_a_page_runs_from_top_to_bottom(tmp_path, monkeypatch, page):
    monkeypatch.chdir(tmp_path)
    await run_page(f"docs/{page}.md")


async def test_the_page_of_the_memory_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    pytest.importorskip("numpy")
    monkeypatch.chdir(tmp_path)
    await run_page("docs/memory.md")
    printed = capsys.readouterr().out
    assert "1 It [rains] in Oslo until Friday." in printed
    assert "Weather north It rains in Oslo until Friday." in printed
    assert "Take an umbrella. [1" in printed
    assert "['Take', ' an', ' umbrella.']" in printed
