"""What sessions used, and where they failed: in the commands and on the page."""

import json
import re
from functools import partial

import anyio
import pytest
from click.testing import CliRunner

from memvid_async import open_store
from memvid_async.cli.command_line import cli
from memvid_async.view.session_page import load_session, session_page

pytestmark = pytest.mark.one_loop


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="memvid-async")
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result.stdout


def read(*arguments, status=0):
    return json.loads(run(*arguments, "--json", status=status))


async def fill(path):
    async with open_store(path) as store:
        async with store.session("paid") as paid:
            for model, tokens, cost in (("large", 1200, 0.25), ("large", 300, 0.125)):
                await paid.record_ask(
                    "What is it?", model=model, response=f"It is\n{model}.",
                    input_tokens=tokens, output_tokens=20, cost_usd=cost,
                    messages=[{"role": "system", "content": "Be brief."}],
                )  # fmt: skip
            await paid.record_tool_call("look", arguments={"Where": "inside"}, result="a box")
        async with store.session("broken") as broken:
            await broken.record_tool_call("look", arguments={}, error="it is dark")
            await broken.record_ask("Why?", model="small", response="So.", input_tokens=5)
        async with store.session("fine") as fine:
            await fine.record_put(1, "nothing")
    return path


@pytest.fixture
def filled(tmp_path):
    return anyio.run(fill, tmp_path / "filled.mva")


def test_sessions_tell_what_they_used_and_which_failed(filled):
    output = run("sessions", filled)
    assert re.search(r"paid .* 3 +1,540 +\$0\.375 +ended", output)
    assert re.search(r"broken .* 2 +5 +1 +ended", output)
    assert re.search(r"fine .* 1 +ended", output)
    assert [s["name"] for s in read("sessions", filled, "--failed")] == ["broken"]
    paid = read("sessions", filled)[0]
    assert (paid["input_tokens"], paid["cost_usd"], paid["failed_count"]) == (1500, 0.375, 0)


def test_a_session_that_ended_with_an_error_counts_as_failed(filled):
    async def crash():
        async with open_store(filled) as store, store.session("crashed"):
            raise RuntimeError("no way")

    with pytest.raises(RuntimeError):
        anyio.run(crash)
    assert [s["name"] for s in read("sessions", filled, "--failed")] == ["broken", "crashed"]


def test_info_and_show_tell_the_sums(filled):
    output = run("info", filled)
    assert "3 asks, 2 tool calls, 1 failed" in output
    assert "1,505 in, 40 out" in output
    assert "$0.375" in output
    document = read("info", filled)
    assert document["input_tokens"] == 1505
    assert all(type(document[f"{name}_count"]) is int for name in ("ask", "tool_call", "failed"))
    output = run("show", filled, "paid")
    assert "actions, 1,500 tokens in, 40 out, $0.375, " in output
    assert "1 failed" in run("show", filled, "broken")
    assert "failed" not in run("show", filled, "fine")


def test_usage_is_summed_by_what_is_asked_for(filled):
    document = read("usage", filled)
    assert [row["name"] for row in document["rows"]] == ["large", "small"]
    assert document["by"] == "model"
    total = document["total"]
    assert (total["input_tokens"], total["cost_usd"], total["ask_count"]) == (1505, 0.375, 3)
    output = run("usage", filled, "--by", "session")
    assert re.search(r"paid  2  1  0  1,500  40  0  \$0\.375", output)
    assert re.search(r"total  3  2  1  1,505  40  0  \$0\.375", output)
    assert read("usage", filled, "--by", "tool")["total"]["failed_count"] == 1
    assert len(read("usage", filled, "--by", "day")["rows"]) == 1
    run("usage", filled, "--by", "week", status=2)


def test_usage_of_nothing(tmp_path):
    async def make():
        async with open_store(tmp_path / "a.mva"):
            pass

    anyio.run(make)
    assert run("usage", tmp_path / "a.mva") == "no asks and no tool calls\n"
    assert read("usage", tmp_path / "a.mva")["total"]["input_tokens"] == 0


FOUND = {
    "an input": (["What is"], 2),
    "an output": (["^ *< It is$"], 2),
    "its second line": (["large\\."], 2),
    "an argument's name": (['"Where"'], 1),
    "an error": (["dark"], 1),
    "a message, where it is new": (["Be brief"], 1),
    "any case": (["-i", "WHY"], 1),
    "as it stands": (["-F", "large."], 2),
    "one session": (["look", "--session", "broken"], 1),
}


@pytest.mark.parametrize("name", FOUND)
def test_grep_finds_what_show_prints(filled, name):
    options, count = FOUND[name]
    found = read("grep", filled, *options)
    assert len(found) == count
    output = run("grep", filled, *options)
    assert len(output.splitlines()) == sum(len(one["lines"]) for one in found)
    for one in found:
        assert one["session_id"][:8] in output
        for line in one["lines"]:
            assert line in run("show", filled, one["session_id"], "--full")


def test_grep_without_a_match_or_with_a_bad_pattern(filled):
    assert run("grep", filled, "nowhere", status=1) == ""
    assert read("grep", filled, "nowhere", status=1) == []
    run("grep", filled, "(", status=2)
    run("grep", filled, "-F", "(", "--session", "nobody", status=1)


async def test_the_page_tells_tokens_cost_and_failures(tmp_path):
    path = await fill(tmp_path / "filled.mva")
    async with open_store(path, read_only=True) as store:
        pages = []
        for summary in await store.list_sessions():
            load = partial(load_session, store, summary.session_id)
            pages.append("".join([piece async for piece in session_page(store, load)]))
    paid, broken, fine = pages
    assert "<dt>tokens</dt><dd>1,500 in, 40 out</dd>" in paid
    assert "<dt>cost</dt><dd>$0.375</dd>" in paid
    assert "<dt>failed</dt><dd>1</dd>" in broken
    assert "<dt>tokens</dt>" not in fine
