"""The command line: what each command prints, how it ends, and that nothing recorded escapes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from uuid import UUID

import anyio
import click
import pytest
from anyio.streams.text import TextReceiveStream
from click.testing import CliRunner

import memvid_async
from memvid_async import Durability, RecordingConfig, StoreConfig, open_store
from memvid_async.cli import exits
from memvid_async.cli.command_line import cli
from memvid_async.interop.chats import restore_run

pytestmark = pytest.mark.one_loop

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
EVIL = "evil\x1b[2J\x1b]0;owned\x07[bold red]x[/] \u202etxt\u2028\x9b31m\x7f"
READING = ["info", "sessions", "show", "verify", "tail", "replay"]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Hi."},
]


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="memvid-async")
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def read(*arguments):
    return json.loads(run(*arguments, "--json").stdout)


def program(*arguments, **options):
    return [sys.executable, "-W", "error", "-m", "memvid_async", *map(str, arguments)]


def finished(*arguments):
    return subprocess.run(program(*arguments), capture_output=True, text=True, check=False)


def one_error_line(stderr):
    assert re.fullmatch(r"memvid-async: error: [^\n]+\n", stderr), stderr
    return stderr


async def fill(path):
    config = StoreConfig(recording=RecordingConfig(auto_checkpoint_interval=3))
    async with open_store(path, config=config) as store:
        async with store.session("first", metadata={"raw": b"\xff", "n": {1: 2.5}}) as first:
            await first.record_ask(
                "Why?",
                provider="local",
                model="small",
                response="Because. " * 200,
                duration_ms=12.5,
                messages=[{"role": "user", "content": "Why?"}],
                metadata={"k": b"\x00"},
            )
            await first.record_tool_call("look", arguments={"at": [b"\x01", 1]}, result=b"\xff\xfe")
            await first.record_put(7, "note\nwith two lines")
        await store.start_session("ambient")
        await store.record_find("where", mode="lex", result_count=0, result_frames=())
    return path


@pytest.fixture
def filled(tmp_path):
    return anyio.run(fill, tmp_path / "filled.mva")


# --- the page and the help ---------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_on_the_page_and_has_help(name):
    command = cli.commands[name]
    page = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert f"    memvid-async {name}" in section
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            for option in parameter.opts:
                assert f"`{option}" in section, option
    assert command.help.split(".")[0] in " ".join(run(name, "--help").output.split())


def test_the_page_has_no_other_commands():
    headings = re.findall(r"^## (\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [*cli.commands]


def test_help_lists_every_command():
    output = run("--help").output
    assert all(name in output for name in cli.commands)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["info"],
        ["info", "a", "b"],
        ["tail", "a", "-n", "-1"],
        ["tail", "a", "-n", "x"],
        ["show", "a", "-n", "-1"],
        ["import-chat", "a"],
        ["import-chat", "a", "no such transcript"],
        ["--nonsense"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    told = run(*arguments, status=2).stderr
    assert "Usage:" in told
    assert "x00" not in told


# --- bad files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", READING)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_missing_file_is_one_line_and_is_not_created(tmp_path, command, as_json):
    path = tmp_path / "missing.mva"
    result = run(command, path, *["--json"] * as_json, status=1)
    one_error_line(result.stderr)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["info", "NOWHERE"], 1),
        (["export", "FILE", "-o", "NOWHERE"], 1),
        (["copy", "FILE", "NOWHERE"], 1),
        (["recover", "FILE", "NOWHERE"], 1),
        (["put", "NOWHERE", "FILE"], 1),
        (["demo", "--file", "NOWHERE"], 2),
    ],
)
def test_a_missing_folder_is_one_line_that_names_it(filled, tmp_path, command, status):
    places = {"FILE": filled, "NOWHERE": tmp_path / "nowhere" / "a.mva"}
    told = run(*[places.get(one, one) for one in command], status=status).output
    assert told.count("\n") == 1
    assert "there is no " in told.lower()
    assert str(tmp_path / "nowhere") in told
    assert "Errno" not in told


async def leave_runs(path):
    """A run that ended, one that died, and one that died in a call."""
    async with open_store(path) as store, anyio.create_task_group() as group:
        async with store.session("ended"):
            pass
        await store.start_session("died")
        began = anyio.Event()

        async def hang():
            began.set()
            await anyio.sleep_forever()

        session = await store.session("died in a call").__aenter__()
        group.start_soon(session.call_tool, "t", {}, hang)
        await began.wait()
        shutil.copy(path, path.with_suffix(".copy"))
        group.cancel_scope.cancel()
    return path.with_suffix(".copy")


def test_runs_that_died_are_found(tmp_path):
    path = anyio.run(leave_runs, tmp_path / "runs.mva")

    def names(*options):
        found = json.loads(run("sessions", path, *options, "--json").stdout)
        return [session["name"] for session in found]

    assert names() == ["ended", "died", "died in a call"]
    assert names("--open") == ["died", "died in a call"]
    assert names("--open", "--limit", 1) == ["died in a call"]
    assert names("--in-flight") == ["died in a call"]
    assert names("--failed", "--open") == []


@pytest.mark.parametrize("command", [*READING, "import-chat"])
def test_a_file_of_another_kind_is_one_line_and_stays_as_it_is(tmp_path, command):
    transcript = tmp_path / "chat.json"
    transcript.write_text(json.dumps(CHAT))
    path = tmp_path / "text"
    path.write_text("not a store\n" * 100)
    result = run(command, path, *[transcript] * (command == "import-chat"), status=1)
    one_error_line(result.stderr)
    assert path.read_text() == "not a store\n" * 100


@pytest.mark.parametrize("command", READING)
def test_a_directory_is_one_line(tmp_path, command):
    one_error_line(run(command, tmp_path, status=1).stderr)


async def record_much(path):
    config = StoreConfig(durability=Durability.BUFFERED)
    async with open_store(path, config=config) as store, store.session() as recorder:
        for number in range(3_000):
            await recorder.record_put(number, f"{number} " * 100)


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.mva"
    anyio.run(record_much, path)
    return path


def test_damage_is_status_1_and_names_the_place(large):
    data = bytearray(large.read_bytes())
    place = len(data) // 2
    data[place] ^= 0x40
    large.write_bytes(data)
    result = run("verify", large, status=1)
    (offset,) = re.findall(r"at byte (\d+)", result.output)
    assert place - 5_000 < int(offset) <= place
    problems = json.loads(run("verify", large, "--json", status=1).stdout)["problems"]
    assert problems[0]["offset"] == int(offset)


def test_a_torn_tail_is_told_and_left_as_it_is(filled):
    data = filled.read_bytes()[:-3]
    filled.write_bytes(data)
    for command in ("info", "verify"):
        assert re.search(r"torn tail.* \d+ bytes", run(command, filled).output)
        assert read(command, filled)["bytes_dropped"] > 0
    assert filled.read_bytes() == data


# --- reading -----------------------------------------------------------------------------------


def test_info(filled):
    document = read("info", filled)
    assert document["path"] == str(filled)
    assert (document["session_count"], document["open_session_count"]) == (2, 1)
    assert document["is_recording"] is True
    assert document["file_bytes"] == filled.stat().st_size
    output = run("info", filled).output
    assert "2 (1 open)" in output
    assert document["active_session_id"] in output


def test_sessions(filled):
    first, second = read("sessions", filled)
    assert (first["name"], second["name"]) == ("first", "ambient")
    assert first["ended_ns"] is not None
    assert second["ended_ns"] is None
    assert (first["action_count"], first["checkpoint_count"]) == (4, 1)
    output = run("sessions", filled).output
    assert all(session["session_id"][:8] in output for session in (first, second))
    assert re.search(r"first .* ended", output)


def test_show(filled):
    document = read("show", filled, "first")
    assert document["metadata"] == {
        "raw": {"$base64": "/w=="},
        "n": {"$pairs": [[1, 2.5]]},
    }
    ask, call, put, checkpoint = document["actions"]
    assert ask["input"]["preview"] == "Why?"
    assert ask["details"]["provider"] == "local"
    assert ask["output"]["size"] == 1800
    assert "text" not in ask["output"]
    assert call["arguments"] == {"at": [{"$base64": "AQ=="}, 1]}
    assert put["affected_frames"] == [7]
    assert checkpoint["kind"] == "checkpoint"
    assert len(document["checkpoints"][0]["state_hash"]) == 64


def test_show_full(filled):
    ask, call, *_ = read("show", filled, "first", "--full")["actions"]
    assert ask["output"]["text"] == "Because. " * 200
    assert ask["messages"] == [{"role": "user", "content": "Why?"}]
    assert call["output"]["base64"] == "//4="
    output = run("show", filled, "first", "--full").output
    assert "Because. " * 200 in output
    assert "> note\n      with two lines\n" in output


async def test_show_full_has_where_a_call_failed(tmp_path):
    path = tmp_path / "failed.mva"

    async def weather(city):
        raise LookupError(city)

    async with open_store(path) as store, store.session("failed") as session:
        with pytest.raises(LookupError):
            await session.call_tool("weather", {"city": "Atlantis"}, weather)
    show = ["show", str(path), "failed", "--full"]
    (call,) = json.loads((await anyio.to_thread.run_sync(run, *show, "--json")).stdout)["actions"]
    assert call["traceback"][-1].endswith(" in weather")
    assert call["traceback"][-1] in (await anyio.to_thread.run_sync(run, *show)).output


def test_show_for_people(filled):
    output = run("show", filled, "first").output
    rows = [re.split(" {2,}", line) for line in output.split("\n\n")[1].splitlines()]
    assert [row[:3] for row in rows[1:]] == [
        ["0", "ask", "small"],
        ["1", "tool_call", "look"],
        ["2", "put", "frame 7"],
        ["3", "checkpoint", "0"],
    ]
    assert rows[1][4] == "12 ms"
    assert rows[1][-1].startswith("Why? → Because. Because. ")
    assert '{"at": [{"$base64": "AQ=="}, 1]} → ' in rows[2][-1]
    assert output.splitlines()[-1].startswith("4 actions, ")
    assert "1.8 KiB in all" not in output


def test_show_selects(filled):
    def indexes(*options):
        return [action["index"] for action in read("show", filled, "first", *options)["actions"]]

    assert indexes("--kind", "put") == [2]
    assert indexes("--tool", "look") == [1]
    assert indexes("--tool", "small") == [0]
    assert indexes("--failed") == []
    assert indexes("--task", "nobody") == []
    assert indexes("-n", "2") == [2, 3]
    assert indexes("-n", "0") == []
    assert "1 of 4 actions" in run("show", filled, "first", "--kind", "put").output
    run("show", filled, "first", "--kind", "nonsense", status=2)


def test_json_has_times_as_text_and_in_iso_and_arguments_as_json(filled):
    document = read("show", filled, "first")
    for one in (document, *document["checkpoints"]):
        name = "created" if "created_ns" in one else "time"
        nanoseconds, iso = one[f"{name}_ns"], one[name]
        assert type(nanoseconds) is str
        assert (
            datetime.fromisoformat(iso[:26] + iso[29:]).timestamp()
            == int(nanoseconds) // 1000 / 1e6
        )
    _, call, *_ = document["actions"]
    assert call["input"]["preview"] == '{"at": [{"$base64": "AQ=="}, 1]}'
    assert read("sessions", filled)[1]["ended"] is None
    assert all(
        "time" in json.loads(line) for line in run("tail", filled, "--json").output.splitlines()
    )


def test_tail_selects(filled):
    def kinds(*options):
        lines = run("tail", filled, "--json", *options).output.splitlines()
        return [json.loads(line)["payload"]["action"]["kind"] for line in lines]

    assert kinds("--session", "first") == ["ask", "tool_call", "put", "checkpoint"]
    assert kinds("--session", "first", "-n", "1") == ["checkpoint"]
    assert kinds("--session", "-1") == ["find"]
    assert kinds("--kind", "ask") == ["ask"]
    assert kinds("--tool", "look") == ["tool_call"]
    assert kinds("--failed") == []


def test_sessions_select(filled):
    def names(*options):
        return [session["name"] for session in read("sessions", filled, *options)]

    assert names("--limit", "1") == ["ambient"]
    assert names("--limit", "0") == []
    assert names("--name", "first") == ["first"]
    assert names("--where", 'raw={"$base64": "/w=="}') == ["first"]
    assert names("--where", "raw=x") == []
    assert run("sessions", filled, "--name", "nobody").output == "no sessions\n"


def test_sessions_are_counted_from_the_newest(filled):
    assert read("show", filled, "-1")["name"] == "ambient"
    assert read("show", filled, "-2")["name"] == "first"
    assert "holds 2 sessions" in one_error_line(run("show", filled, "-3", status=1).stderr)
    # A whole name goes before everything else.
    run("rename", filled, "first", "-1")
    assert read("show", filled, "-1")["name"] == "-1"


def test_the_version():
    assert run("--version").output == f"memvid-async {memvid_async.__version__}\n"


def test_help_is_not_cut():
    assert "..." not in run("--help").output.replace("COMMAND [ARGS]...", "")


def test_show_finds_a_session(filled):
    sessions = {session["name"]: session["session_id"] for session in read("sessions", filled)}
    whole = sessions["first"]
    for wanted in (whole, whole.upper(), whole.replace("-", ""), whole[:13], "first"):
        assert read("show", filled, wanted)["session_id"] == whole
    assert read("show", filled)["session_id"] == sessions["ambient"]


async def add_sessions(path, *names):
    async with open_store(path) as store:
        for name in names:
            async with store.session(name):
                pass


def test_show_wants_one_session(tmp_path):
    path = tmp_path / "twins.mva"
    anyio.run(add_sessions, path)
    assert "holds no session" in one_error_line(run("show", path, status=1).stderr)
    anyio.run(add_sessions, path, *["twin"] * 7)
    error = one_error_line(run("show", path, "twin", status=1).stderr)
    assert "fits 7 sessions" in error
    assert error.count("twin") == 6
    for wanted in ("nobody", "", "-", "zz", EVIL):
        error = one_error_line(run("show", path, "--", wanted, status=1).stderr)
        assert "no session" in error


def test_verify(filled):
    document = read("verify", filled)
    assert document["ok"] is True
    assert document["problems"] == []
    assert document["session_count"] == 2
    assert "fine" in run("verify", filled).output


def test_tail(filled):
    lines = run("tail", filled, "--json", "-n", "1000").output.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["sequence"] for event in events] == [*range(1, len(events) + 1)]
    types = {event["type"] for event in events}
    assert types >= {"session_started", "session_ended", "action_recorded", "checkpoint_created"}
    assert len(run("tail", filled, "-n", "3").output.splitlines()) == 3
    assert run("tail", filled, "-n", "0").output == ""
    assert "look" in run("tail", filled, "-n", "100").output


def test_a_file_without_events(tmp_path):
    path = tmp_path / "empty.mva"
    anyio.run(add_sessions, path)
    assert read("sessions", path) == []
    assert run("sessions", path).output == "no sessions\n"
    assert run("tail", path).output == ""
    assert read("info", path)["last_sequence"] == 0


# --- nothing recorded escapes ------------------------------------------------------------------


async def record_evil(path):
    async with open_store(path) as store:
        async with store.session(EVIL, metadata={EVIL: EVIL}) as recorder:
            await recorder.record_ask(
                EVIL,
                provider=EVIL,
                model=EVIL,
                response=EVIL,
                duration_ms=1,
                task=EVIL,
                error=EVIL,
                metadata={"x": EVIL},
            )
            await recorder.record_tool_call(EVIL, arguments={EVIL: EVIL}, result=EVIL)
        with pytest.raises(RuntimeError):
            async with store.session("failing"):
                raise RuntimeError(EVIL)
    return str(recorder.session_id)


def test_recorded_text_is_printed_as_text(tmp_path, monkeypatch):
    path = tmp_path / "evil.mva"
    session_id = anyio.run(record_evil, path)
    commands = [
        ["info", path],
        ["sessions", path],
        ["show", path],
        ["show", path, EVIL],
        ["show", path, session_id, "--full"],
        ["tail", path, "-n", "100"],
        ["verify", path],
    ]
    for forced in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", forced)
        for command in [*commands, *([*command, "--json"] for command in commands)]:
            output = re.sub(r"\x1b\[[0-9;]*m", "", run(*command).stdout)
            assert not set(output) & set("\x1b\x07\x7f\x9b\u202e\u2028"), command
    monkeypatch.delenv("FORCE_COLOR")
    assert "[bold red]x[/]" in run("sessions", path).output
    assert r"evil\x1b[2J\x1b]0;owned" in run("sessions", path).output


# --- importing ---------------------------------------------------------------------------------


async def check_imported(path):
    async with open_store(path, read_only=True) as store:
        first = (await store.list_sessions())[0].session_id
        assert await restore_run(store, first) == {"messages": CHAT, "n": 1}
        assert (await store.verify()).ok


def test_import_chat(tmp_path):
    path, transcript = tmp_path / "chats.mva", tmp_path / "two.json"
    transcript.write_text(json.dumps([{"messages": CHAT, "n": 1}, {"traj": CHAT}]))
    output = run("import-chat", path, transcript, "--provider", "acme").output
    assert "imported 2 sessions with 2 asks and 0 tool calls" in output
    sessions = read("sessions", path)
    assert [session["name"] for session in sessions] == ["two#0", "two#1"]
    (ask,) = read("show", path, "two#0")["actions"]
    assert ask["details"]["provider"] == "acme"
    run("import-chat", path, transcript)
    assert len(read("sessions", path)) == 4
    anyio.run(check_imported, path)


def test_bad_runs_are_named_and_the_others_recorded(tmp_path):
    path, lines, broken = tmp_path / "c.mva", tmp_path / "runs.jsonl", tmp_path / "broken.json"
    good = json.dumps({"messages": CHAT})
    lines.write_text(
        f'{good}\n{{"messages": [{{"role": "user", "content": {"9" * 5000}}}]}}\n{good}\n'
    )
    broken.write_text("[")
    result = run("import-chat", path, broken, lines, status=1)
    errors = result.stderr.splitlines()
    assert errors[0].startswith("memvid-async: error: broken.json: not JSON")
    assert errors[1].startswith("memvid-async: error: runs.jsonl, run 1, message 0: ")
    assert "VeryLongInteger" in errors[1]
    assert len(errors) == 2
    assert "imported 2 sessions" in result.stdout
    assert [s["name"] for s in read("sessions", path)] == ["runs#0", "runs#2"]


def test_nothing_to_record_creates_no_file(tmp_path):
    path, broken, none = tmp_path / "c.mva", tmp_path / "broken.json", tmp_path / "none.json"
    broken.write_text("{}")
    none.write_text("[]")
    run("import-chat", path, broken, status=1)
    run("import-chat", path, none)
    assert not path.exists()


def test_a_transcript_larger_than_allowed_is_named(tmp_path):
    transcript = tmp_path / "chat.json"
    transcript.write_text(json.dumps(CHAT))
    result = run("import-chat", tmp_path / "c.mva", transcript, "--max-bytes", "10", status=1)
    assert "more than 10 bytes" in one_error_line(result.stderr)


def test_the_demo_wants_a_file_of_its_own(tmp_path):
    path = tmp_path / "mine"
    path.write_text("mine")
    assert "exists already" in run("demo", "--file", path, status=2).output


# --- as a process ------------------------------------------------------------------------------


def test_the_program_in_a_process(filled):
    done = finished("sessions", filled, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 2
    done = finished("info", filled.with_name("missing"))
    assert (done.returncode, done.stdout) == (1, "")
    one_error_line(done.stderr)
    assert finished("nonsense").returncode == 2


def test_a_closed_pipe_is_quiet(large):
    for command in (["show", large], ["tail", large, "-n", "9000"]):
        with subprocess.Popen(
            program(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as child:
            child.stdout.readline()
            child.stdout.close()
            assert child.stderr.read() == b""
        assert child.returncode == exits.READER_GONE


async def test_tail_follows_another_process_until_interrupted(filled):
    async with await anyio.open_process(
        program("tail", filled, "-f", "-n", "1", "--json")
    ) as child:
        lines = TextReceiveStream(child.stdout)
        received = await lines.receive()
        async with open_store(filled) as store:
            await store.record_find("and now?", mode="lex", result_count=0, result_frames=())
        while "and now?" not in received:
            received += await lines.receive()
        child.send_signal(signal.SIGINT)
        await child.wait()
        errors = b"".join([chunk async for chunk in child.stderr])
    assert child.returncode == exits.INTERRUPTED
    assert errors.strip() == b""


def test_output_that_cannot_show_a_character_escapes_it(tmp_path):
    path = tmp_path / "names.mva"
    anyio.run(add_sessions, path, "日本")
    done = subprocess.run(
        program("sessions", path),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert rb"\u65e5\u672c" in done.stdout


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra_one_line_says_what_to_install(missing):
    code = f"import sys; sys.modules['{missing}'] = None; import memvid_async.cli as c; c.main()"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "info", "x"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "memvid-async[cli]" in one_error_line(done.stderr)


def test_ids_are_cut_to_what_tells_them_apart(tmp_path):
    ids = iter(
        UUID(hex=digits)
        for digits in ("1" * 32, "1" * 11 + "2" * 21, "1" * 15 + "3" * 17, "1" * 31 + "4", "5" * 32)
    )

    async def record(path, count):
        config = StoreConfig(id_factory=lambda: next(ids))
        async with open_store(path, config=config) as store:
            for _ in range(count):
                async with store.session():
                    pass

    anyio.run(record, tmp_path / "alike", 3)  # the first id is the file's
    shown = [line.split()[0] for line in run("sessions", tmp_path / "alike").stdout.splitlines()]
    assert len({*shown[1:]}) == 3
