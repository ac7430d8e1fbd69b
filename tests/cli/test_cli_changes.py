"""The commands that change a session: what they do, print, and refuse."""

import asyncio
import json
import runpy
import shlex
import signal
import subprocess
import sys
import types
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import anyio
import pytest
from click.testing import CliRunner
from rich.progress import Progress

from memvid_async import Limits, open_store
from memvid_async.cli.command_line import cli
from memvid_async.cli.putting import _Putter
from scripts import check_docs
from tests.support.loops import run_dry

pytestmark = pytest.mark.one_loop
PAGE = Path(__file__).resolve().parents[2] / "docs" / "newcomer.md"


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="memvid-async")
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def sessions(path):
    return json.loads(run("sessions", path, "--json").stdout)


async def fill(path):
    async def answer(_):
        return "a coat"

    async with open_store(path) as store:
        async with store.session("writer"):
            await store.put("rain in Oslo")
        async with store.session("reader", metadata={"n": 1}):
            await store.ask("rain?", generate=answer)
            await store.ask("rain in Oslo?", generate=answer)
        async with store.session("quiet") as session:
            await session.record_tool_call("look", arguments={})
        await store.start_session("ambient")
    async with open_store(path) as store:
        recorder = store.session("left open")
        await recorder.__aenter__()
    return path


@pytest.fixture
def filled(tmp_path):
    return anyio.run(fill, tmp_path / "filled.mva")


def test_rename(filled):
    assert run("rename", filled, "-5", "author").output.endswith("  author: renamed\n")
    renamed = json.loads(run("rename", filled, "author", "", "--json").output)
    assert renamed["name"] is None
    assert [one["name"] for one in sessions(filled)][:2] == [None, "reader"]


def test_annotate(filled):
    run("annotate", filled, "reader", "n=2", "who=ann", 'tags=["a"]')
    assert sessions(filled)[1]["metadata"] == {"n": 2, "who": "ann", "tags": ["a"]}
    run("annotate", filled, "reader", status=2)
    run("annotate", filled, "reader", "nonsense", status=2)


def test_end(filled):
    for name in ("left open", "ambient"):
        assert run("end", filled, name).output.endswith(f"  {name}: ended\n")
    assert all(one["ended_ns"] for one in sessions(filled))
    assert "has ended already" in run("end", filled, "reader", status=1).stderr


def test_delete(filled):
    # One that is not there keeps all.
    assert "no session" in run("delete", filled, "reader", "nobody", status=1).stderr
    assert len(sessions(filled)) == 5
    assert run("delete", filled, "reader", "-1", "reader").output.count(": deleted") == 2
    assert [one["name"] for one in sessions(filled)] == ["writer", "quiet", "ambient"]
    deleted = json.loads(run("delete", filled, "writer", "--json").output)["deleted"]
    assert len(deleted) == 1
    run("delete", filled, status=2)


@pytest.mark.parametrize("command", [["rename", "x"], ["annotate", "a=1"], ["end"], ["delete"]])
def test_a_missing_file_is_not_created(tmp_path, command):
    path = tmp_path / "missing.mva"
    run(command[0], path, "-1", *command[1:], status=1)
    assert list(tmp_path.iterdir()) == []


def test_why(filled):
    output = run("why", filled, "reader", "0").output
    assert "rain in Oslo" in output
    assert "put by put 0 of " in output
    assert "used by ask 1 of " in output
    document = json.loads(run("why", filled, "reader", "--json").output)
    (frame,) = document["frames"]
    assert document["index"] == 1
    assert (frame["put_by"]["kind"], frame["put_by"]["index"], frame["later"]) == ("put", 0, [])
    assert frame["put"].endswith("Z")
    assert "has no answer" in run("why", filled, "quiet", status=1).stderr
    assert "has no action 9" in run("why", filled, "reader", "9", status=1).stderr
    assert "was given no frames" in run("why", filled, "quiet", "0", status=1).stderr


# --- the nine commands of a newcomer -------------------------------------------------------------


def test_the_commands_of_the_newcomers_page_do_what_it_says(tmp_path, monkeypatch, capsys):
    """From a first recording to a test that fails, and passes once the agent is mended."""
    blocks = check_docs.code_blocks(PAGE.read_text(encoding="utf-8"))
    program, given, kept = (code for language, code in blocks if language == "python")
    (change,) = (code for language, code in blocks if language == "diff")
    shell = "".join(code for language, code in blocks if language == "sh").splitlines()
    (tmp_path / "packing.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    told = {}
    for command in shell[1:-1]:
        _, name, *arguments = shlex.split(command)
        if name == "sessions":
            assert shell[0] == "python packing.py"
            runpy.run_path("packing.py", run_name="__main__")
        if name != "view":  # a browser's tests are in tests/view
            told[name] = run(name, *arguments).output
    assert capsys.readouterr().out == "Take an umbrella.\nno weather for Atlantis\n"
    assert told["sessions"].count("ended") == 2
    assert "tool_call  weather" in told["show"]
    assert "LookupError: no weather for Atlantis" in told["tail"]
    assert "0.0004" in told["usage"]
    assert "Oslo, again" in {session["name"] for session in sessions("packing.mva")}
    assert len(shell) == 9

    assert shell[-1] == "pytest test_packing.py"
    lines = change.splitlines()
    before, after = ("".join(line[1:] + "\n" for line in lines if line[0] == s) for s in "-+")
    assert before in program
    for code, atlantis in ((program, False), (program.replace(before, after), True)):
        packing = types.ModuleType("packing")
        exec(code, vars(packing))
        monkeypatch.setitem(sys.modules, "packing", packing)
        tests = {}
        exec(given, tests)
        tests["test_oslo"]()
        if atlantis:
            tests["test_atlantis"]()
        else:
            with pytest.raises(LookupError, match="no weather for Atlantis"):
                tests["test_atlantis"]()
        # The fixture has tests of its own, in tests/interop/test_pytest_plugin.py.
        exec(kept, tests)
        tests["test_oslo"](new_recording)


@asynccontextmanager
async def new_recording():
    async with open_store("cassette.mva") as store, store.session() as session:
        yield session


# --- what is kept, and what is not put twice -----------------------------------------------------


def chats(path, count):
    runs = [
        [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "yes"}]
        for n in range(count)
    ]
    path.write_text(json.dumps([{"messages": run} for run in runs]))
    return path


def test_an_import_again_adds_nothing(tmp_path):
    path, transcript = tmp_path / "a.mva", chats(tmp_path / "chats.json", 3)
    assert "imported 3 sessions" in run("import-chat", path, transcript).output
    before = sessions(path)
    again = run("import-chat", path, transcript).output
    assert "imported 0 sessions" in again
    assert "3 runs there already" in again
    assert sessions(path) == before
    # Another provider is another recording, and what was half imported is imported whole.
    assert "imported 3 " in run("import-chat", path, transcript, "--provider", "p").output
    anyio.run(break_off, path, before[1])
    assert "imported 1 session" in run("import-chat", path, transcript).output
    assert len(sessions(path)) == 6


async def break_off(path, summary):
    """Leave a session as an import that was killed leaves it: with its start, and open."""
    async with open_store(path) as store:
        await store.delete_session(summary["session_id"])
        metadata = summary["metadata"]
    async with open_store(path) as store:
        await store.session(summary["name"], metadata=metadata).__aenter__()


def test_ctrl_c_says_what_is_kept(tmp_path):
    path = tmp_path / "a.mva"
    command = [sys.executable, "-m", "memvid_async", "put", str(path), "-", "--lines"]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) as child:
        child.stdin.write(b"a line\n" * 1000)
        child.stdin.flush()
        assert child.stdout.readline() == b"1\n"  # a batch is in the file
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate()
    assert child.returncode == 130
    assert b"interrupted: 1000 frames put, and kept" in errors


async def test_what_is_put_while_ctrl_c_comes_is_counted(tmp_path):
    putter = _Putter(str(tmp_path / "a.mva"), Limits(), {}, Progress(disable=True), as_json=True)
    begun, written = asyncio.Event(), asyncio.Event()

    async def put():
        begun.set()
        await written.wait()
        return [1, 2]

    task = asyncio.ensure_future(putter._put(put()))
    await begun.wait()
    task.cancel()
    await run_dry()
    written.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (putter.kept(), putter.ids) == ("2 frames put, and kept", [1, 2])


def test_empty_input_puts_nothing(tmp_path):
    path = tmp_path / "a.mva"
    result = CliRunner().invoke(cli, ["put", str(path), "-"], input="", prog_name="memvid-async")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is put" in result.stderr
    (tmp_path / "empty.txt").touch()
    assert "empty.txt is empty" in run("put", path, tmp_path / "empty.txt").stderr
    assert not path.exists()
