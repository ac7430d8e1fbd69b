"""`memvid-async prune`: old sessions and keys are named, and deleted."""

import json
import re

import anyio
import pytest
from click.testing import CliRunner

from memvid_async import open_store
from memvid_async.cli.command_line import cli

pytestmark = pytest.mark.one_loop


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="memvid-async")
    assert result.exit_code == status, (result.output, result.exception)
    return result


async def fill(path):
    async with open_store(path) as store:
        for n in range(4):
            async with store.session(metadata={"n": n % 2}) as session:
                await session.record_tool_call("t", arguments={})
        await store.collection("c").put("evil\x1b[2J", 1)
        await store.collection("c").put("b", 2, metadata={"kind": "x"})
    return path


@pytest.fixture
def filled(tmp_path):
    return anyio.run(fill, tmp_path / "filled.mva")


def test_a_dry_run_names_what_would_go_and_changes_nothing(filled):
    before = filled.read_bytes()
    told = run("prune", filled, "--keep-last", 3, "--dry-run").stdout
    assert re.search(r": 1 session would be deleted, 3 left\n  [0-9a-f-]{36}\n$", told)
    told = run("prune", filled, "--older-than", "0s", "--collection", "c", "--dry-run").stdout
    assert "2 keys would be deleted, 0 left" in told
    assert "\x1b" not in told
    assert filled.read_bytes() == before


def test_it_deletes_and_compacts(filled):
    found = json.loads(run("prune", filled, "--where", "n=1", "--json").stdout)
    assert (len(found["sessions"]), found["kept"], found["compacted"]) == (2, 0, None)
    told = run("prune", filled, "--older-than", "0s", "--compact-share", "0.1").stdout
    assert "2 sessions deleted, 0 left" in told
    assert "compacted: " in told
    told = run("prune", filled, "--collection", "c", "--where", "kind=x").stdout
    assert "1 key deleted, 0 left" in told
    told = run("prune", filled, "--collection", "C", "--keep-last", 1, status=1).stderr
    assert told == "memvid-async: error: there are no keys in a collection 'C'\n"


@pytest.mark.parametrize(
    "given",
    [[], ["--dry-run"], ["--older-than", "30"], ["--keep-last", "-1"], ["--where", "x"]],
)
def test_wrong_usage_is_told(filled, given):
    run("prune", filled, *given, status=2)
