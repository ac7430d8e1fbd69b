"""The commands of the memory: put, find, ask, frames, get."""

import json
import os
import re
import shlex
import subprocess
import sys
import time

import anyio
import pytest
from click.testing import CliRunner

from memvid_async import open_store
from memvid_async.cli.command_line import cli

pytestmark = pytest.mark.one_loop

EVIL = "evil\x1b[2J\x1b]0;owned\x07[bold red]x[/] \u202etxt\u2028\x9b31m\x7f"
READING = [["find", "x"], ["ask", "x"], ["frames"], ["get", "1"]]
SHOUT = f"{sys.executable} -c 'import sys; print(sys.stdin.read().upper())'"


def run(*arguments, status=0, stdin=None):
    result = CliRunner().invoke(
        cli, [str(a) for a in arguments], prog_name="memvid-async", input=stdin
    )
    assert result.exit_code == status, (result.output, result.exception)
    assert "Traceback" not in result.output
    return result


def read(*arguments, **options):
    return json.loads(run(*arguments, "--json", **options).stdout)


def rows(*arguments):
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


def one_error_line(result):
    assert re.fullmatch(r"memvid-async: error: [^\n]+\n", result.stderr), result.stderr
    return result.stderr


async def fill(path):
    async with open_store(path) as store, store.session("filling"):
        await store.put("It rains in Oslo.", title="North", tags=["city", "wet"], metadata={"n": 1})
        await store.put("It is dry in Rome.", title="South", tags=["city"], uri="map://rome")
        await store.put(b"\x00\xff", media_type="application/x-raw")
        await store.update(1, "It snows in Oslo.")
    return path


@pytest.fixture
def filled(tmp_path):
    return anyio.run(fill, tmp_path / "filled.mva")


# --- put ---------------------------------------------------------------------------------------


def test_put_files(tmp_path):
    path, text, raw = tmp_path / "m.mva", tmp_path / "note.md", tmp_path / "raw.bin"
    text.write_text("Rain, sleet ü and\nwind", encoding="utf-8")
    raw.write_bytes(b"\xff\x00")
    assert run("put", path, text, raw, "--tag", "a", "--tag", "b").stdout == "1\n2\n"
    options = ["--title", "T", "--uri", "u:1", "--metadata", "n=1", "--metadata", "s=x=y"]
    assert read("put", path, text, *options, "--media-type", "text/markdown") == [3]
    first, second, third = rows("frames", path)
    assert (first["title"], first["tags"]) == ("note.md", ["a", "b"])
    assert second["content"]["size"] == 2
    assert (third["title"], third["uri"], third["media_type"]) == ("T", "u:1", "text/markdown")
    assert third["metadata"] == {"n": 1, "s": "x=y"}
    assert read("get", path, 1)["content"]["text"] == "Rain, sleet ü and\nwind"
    assert read("get", path, 2)["content"]["base64"] == "/wA="


@pytest.mark.parametrize("paths", [[], ["-"]])
def test_put_the_standard_input(tmp_path, paths):
    path = tmp_path / "m.mva"
    assert run("put", path, *paths, stdin="from a pipe").stdout == "1\n"
    (frame,) = rows("frames", path)
    assert (frame["title"], frame["content"]["preview"]) == (None, "from a pipe")


def test_put_a_large_file_as_a_stream(tmp_path):
    path, large = tmp_path / "m.mva", tmp_path / "large"
    data = b"needle " + b"hay " * (5 * 1024 * 1024)
    large.write_bytes(data)
    run("put", path, large, "--media-type", "text/plain")
    assert rows("frames", path)[0]["content"]["size"] == len(data)
    out = tmp_path / "out"
    run("get", path, 1, "-o", out)
    assert out.read_bytes() == data
    assert [hit["frame_id"] for hit in read("find", path, "needle")["hits"]] == [1]


def test_put_lines(tmp_path):
    path, lines = tmp_path / "m.mva", tmp_path / "lines"
    lines.write_bytes(b"\xef\xbb\xbfone\r\n\n  \ntwo\n\xff\nthree")
    result = run("put", path, lines, "--lines", "--tag", "t", status=1)
    assert result.stdout == "1\n2\n3\n"
    error, summary = result.stderr.splitlines()
    assert "lines, line 5: 'utf-8' codec can't decode" in error
    assert summary.startswith("put 3 frames in ")
    found = rows("frames", path)
    assert [frame["content"]["preview"] for frame in found] == ["one", "two", "three"]
    assert all(frame["tags"] == ["t"] for frame in found)


def test_put_json_lines(tmp_path):
    path = tmp_path / "m.mva"
    items = [
        {"content": "one", "title": "1", "tags": ["x"], "metadata": {"a": 1}, "embedding": [1, 0]},
        "two",
        {"content": {"$base64": "/w=="}, "metadata": {"b": {"$base64": "AA=="}}},
    ]
    given = "\n".join(map(json.dumps, items))
    options = ["--jsonl", "--tag", "t", "--metadata", "a=0", "--metadata", "c=true"]
    assert read("put", path, *options, stdin=given) == [1, 2, 3]
    one, two, three = rows("frames", path)
    assert (one["title"], one["tags"]) == ("1", ["t", "x"])
    assert (one["metadata"], two["metadata"]) == ({"a": 1, "c": True}, {"a": 0, "c": True})
    assert three["metadata"]["b"] == {"$base64": "AA=="}
    assert three["content"]["size"] == 1


def test_bad_json_lines_are_named_and_the_others_put(tmp_path):
    path = tmp_path / "m.mva"
    bad = ["{", "3", '{"content": 3}', '{"content": "x", "no": 1}', '{"content": NaN}', "[" * 9999]
    bad += ['{"content": "x", "embedding": [1, 2, 3]}', '{"content": "x", "tags": "t"}']
    good = ['{"content": "a", "embedding": [1, 0]}', '"b"']
    result = run("put", path, "--jsonl", stdin="\n".join([good[0], *bad, good[1]]), status=1)
    errors = result.stderr.splitlines()
    named = sorted(line.split(": ")[2] for line in errors[:-1])
    assert named == [f"-, line {n}" for n in range(2, 10)]
    assert errors[-1].endswith(f"{len(bad)} left out")
    assert [frame["content"]["preview"] for frame in rows("frames", path)] == ["a", "b"]


def test_put_many_lines_in_batches(tmp_path):
    path = tmp_path / "m.mva"
    result = run("put", path, "--lines", stdin="".join(f"line {n}\n" for n in range(2_500)))
    assert result.stdout.split() == [str(n) for n in range(1, 2_501)]
    assert read("find", path, "2345")["hits"][0]["frame_id"] == 2346


def test_nothing_to_put_creates_no_file(tmp_path):
    path = tmp_path / "m.mva"
    run("put", path, "--lines", stdin="\n\n")
    run("put", path, "--jsonl", stdin="{", status=1)
    run("put", path, tmp_path / "missing", status=2)
    assert not path.exists()


def test_a_store_is_not_put_into_itself(filled):
    """A large one would be read and grow for as long as it may."""
    before = filled.read_bytes()
    assert "put into" in one_error_line(run("put", filled, filled, status=1))
    assert filled.read_bytes() == before


def test_put_into_a_file_of_another_kind(tmp_path):
    path = tmp_path / "text"
    path.write_text("not a store\n" * 100)
    one_error_line(run("put", path, stdin="x", status=1))
    assert path.read_text() == "not a store\n" * 100


# --- find --------------------------------------------------------------------------------------


def test_find(filled):
    document = read("find", filled, "Is it dry in Rome?")
    assert document["hits"][0]["frame_id"] == 2
    assert document["hits"][0]["snippet"] == "It is [dry] in [Rome]."
    output = run("find", filled, "dry").stdout
    assert re.search(r"score +frame +title +snippet", output)
    assert re.search(r"0\.\d{3} +2 +South +It is \[dry\] in Rome\.", output)
    assert len(read("find", filled, "rome oslo", "-k", "1")["hits"]) == 1


def test_find_nothing_is_status_1(filled):
    result = run("find", filled, "nowhere", status=1)
    assert (result.stdout, "nothing was found" in one_error_line(result)) == ("", True)
    assert read("find", filled, "nowhere", status=1)["hits"] == []


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--tag", "city"], [1, 2]),
        (["--tag", "city", "--tag", "wet"], [1]),
        (["--uri", "map:"], [2]),
        (["--title", "North"], [1]),
        (["--media-type", "application/x-raw"], [3]),
        (["--metadata", "n=1"], [1]),
        (["--metadata", 'n="1"'], []),
        (["--since", "2020-01-01"], [1, 2, 3]),
        (["--until", "2020-01-01T00:00+02:00"], []),
    ],
)
def test_filters(filled, options, ids):
    assert [frame["frame_id"] for frame in rows("frames", filled, *options)] == ids
    words = [one for one in ids if one != 3]
    found = read("find", filled, "oslo rome", *options, status=0 if words else 1)["hits"]
    assert sorted(hit["frame_id"] for hit in found) == words


def test_a_memory_as_it_was(filled):
    assert read("find", filled, "rains", status=1)["hits"] == []
    put_at = next(e for e in rows("tail", filled, "-n", 99) if e["type"] == "frames_put")
    then = ["--at-sequence", put_at["sequence"]]
    assert [hit["frame_id"] for hit in read("find", filled, "rains", *then)["hits"]] == [1]
    assert [frame["frame_id"] for frame in rows("frames", filled, *then)] == [1]
    assert run("get", filled, 1, *then).stdout == "It rains in Oslo."
    assert run("get", filled, 1).stdout == "It snows in Oslo."
    one_error_line(run("get", filled, 2, *then, status=1))
    assert rows("frames", filled, "--at-time", "2020-01-01") == []
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 60))
    assert len(rows("frames", filled, "--at-time", now)) == 3
    one_error_line(run("find", filled, "x", "--at-sequence", 10**6, status=1))


def test_find_with_an_embedding(tmp_path):
    path, vector = tmp_path / "m.mva", tmp_path / "vector.json"
    items = [{"content": "up", "embedding": [0, 1]}, {"content": "right", "embedding": [1, 0]}]
    run("put", path, "--jsonl", stdin="\n".join(map(json.dumps, items)))
    vector.write_text("[1, 0.1]")
    for given in ("[1, 0.1]", f"@{vector}"):
        found = read("find", path, "up", "--mode", "semantic", "--embedding", given)["hits"]
        assert [hit["frame_id"] for hit in found] == [2, 1]
    hybrid = read("find", path, "up", "--mode", "hybrid", "--embedding", "[0, 1]")
    assert hybrid["hits"][0]["frame_id"] == 1
    one_error_line(
        run("find", path, "x", "--mode", "semantic", "--embedding", "[1, 2, 3]", status=1)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["find", "f"],
        ["find", "f", "x", "--mode", "semantic"],
        ["find", "f", "x", "--embedding", "{}"],
        ["find", "f", "x", "--embedding", "@no such file"],
        ["find", "f", "x", "--embedding", "@/dev/zero"],
        ["find", "f", "x", "--metadata", "k"],
        ["find", "f", "x", "--since", "yesterday"],
        ["find", "f", "x", "-k", "0"],
        ["frames", "f", "-n", "-1"],
        ["get", "f", "x"],
        ["get", "f", "1", "-o", "out", "--json"],
        ["ask", "f", "x", "--record"],
        ["ask", "f", "x", "--command", ""],
        ["ask", "f", "x", "--command", "'"],
        ["put", "f", "--lines", "--title", "T"],
        ["ask", "f", "x", "--command", "cat", "--timeout", "nan"],
        ["ask", "f", "x", "--command", "cat", "--timeout", "inf"],
        ["put", "f", "-", "-", "--uri", "u"],
        ["put", "f", "--lines", "--jsonl"],
    ],
)
def test_wrong_usage_is_status_2(arguments):
    assert "Usage:" in run(*arguments, status=2).stderr


def test_two_moments_are_wrong_usage(filled):
    moments = ["--at-sequence", "1", "--at-time", "2026-01-01"]
    assert "two moments" in run("find", filled, "x", *moments, status=2).stderr


@pytest.mark.parametrize("command", READING, ids=lambda command: command[0])
@pytest.mark.parametrize("as_json", [False, True])
def test_a_missing_file_is_one_line_and_is_not_created(tmp_path, command, as_json):
    name, *rest = command
    path = tmp_path / "missing.mva"
    result = run(name, path, *rest, *["--json"] * as_json, status=1)
    one_error_line(result)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


# --- ask ---------------------------------------------------------------------------------------


def test_ask_prints_the_context(filled):
    assert run("ask", filled, "Is it dry?", "-k", "1").stdout == "[1] It is dry in Rome.\n"
    document = read("ask", filled, "Is it dry?")
    assert document["context"][0]["text"] == "It is dry in Rome."
    assert "reply" not in document
    assert "nothing was found" in one_error_line(run("ask", filled, "nowhere", status=1))


def test_ask_a_program(filled):
    output = run("ask", filled, "Is it dry?", "-k", 1, "--command", SHOUT).stdout
    assert output == "[1] IT IS DRY IN ROME.\n\nIS IT DRY?\n\n"
    document = read("ask", filled, "nowhere", "--command", SHOUT)
    assert (document["hits"], document["reply"]) == ([], "NOWHERE\n")
    assert len(read("sessions", filled)) == 1


def test_ask_a_program_that_reads_nothing(filled, tmp_path):
    # More than a pipe holds.
    (tmp_path / "long.txt").write_text("dry sky " * 20_000, encoding="utf-8")
    run("put", filled, tmp_path / "long.txt")
    python = shlex.join([sys.executable, "-c", "print('done')"])
    assert run("ask", filled, "sky", "--command", python).stdout == "done\n"


def test_ask_filters_by_the_metadata_of_frames(filled, tmp_path):
    (tmp_path / "note.txt").write_text("It is dry in Bergen.", encoding="utf-8")
    run("put", filled, tmp_path / "note.txt", "--metadata", "year=2025")
    for command in ((), ("--command", SHOUT)):
        asked = ("ask", filled, "Is it dry?", "--metadata", "year=2025", *command)
        hits = read(*asked)["hits"]
        assert [hit["title"] for hit in hits] == ["note.txt"]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/no/such/program", "cannot run /no/such/program: No such file"),
        (f"{sys.executable} -c 'raise SystemExit(3)'", "exit status 3"),
        (f"{sys.executable} -c 'raise SystemExit(\"no luck\")'", "exit status 1: no luck"),
        (f"{sys.executable} -c 'import signal; signal.pause()'", "no answer within 0.5 s"),
    ],
)
def test_a_program_that_fails_is_one_line_and_recorded(filled, command, said):
    arguments = ["ask", filled, "dry?", "--record", "--command", command]
    if "pause" in command:
        arguments += ["--timeout", "0.5"]
    assert said in one_error_line(run(*arguments, status=1))
    (action,) = read("show", filled, "ask")["actions"]
    assert said in action["error"]


def test_ask_and_record(filled):
    arguments = ["ask", filled, "Is it dry?", "--record", "--command", SHOUT]
    run(*arguments, "--provider", "me", "--model", "loud")
    session = read("show", filled)
    (action,) = session["actions"]
    assert (session["name"], session["ended_ns"] is None) == ("ask", False)
    assert action["details"]["model"] == "loud"
    assert action["retrieval"]["top_k"] == 5
    assert action["reply"]["chunks"] == [len(read(*arguments)["reply"])]
    assert read("show", filled)["actions"][0]["details"]["provider"] == "command"
    shown = run("show", filled, "--full").stdout
    assert re.search(r"\? lexical search as of event \d+: frames 2 \(0\.\d{3}\)", shown)


def test_what_is_recorded_goes_into_the_ambient_session(filled):
    async def start():
        async with open_store(filled) as store:
            await store.start_session("ambient")

    anyio.run(start)
    run("ask", filled, "dry?", "--record", "--command", SHOUT)
    run("put", filled, stdin="more")
    session = read("show", filled, "ambient")
    assert [action["kind"] for action in session["actions"]] == ["ask", "put"]
    assert session["ended_ns"] is None


def test_recording_creates_no_file(tmp_path):
    path = tmp_path / "missing.mva"
    one_error_line(run("ask", path, "x", "--record", "--command", SHOUT, status=1))
    assert not path.exists()


# --- frames, get, and what others print --------------------------------------------------------


def test_frames(filled):
    lines = run("frames", filled).stdout.splitlines()
    assert re.fullmatch(r"1  [\d: -]{19}  17 B  North  #city #wet  It snows in Oslo\.", lines[0])
    assert [frame["frame_id"] for frame in rows("frames", filled, "--newest", "-n", 2)] == [3, 2]
    assert run("frames", filled, "-n", 0).stdout == ""


def test_get(filled, tmp_path):
    assert run("get", filled, 3).stdout_bytes == b"\x00\xff"
    out = tmp_path / "out"
    run("get", filled, 3, "-o", out)
    assert out.read_bytes() == b"\x00\xff"
    assert "exists already" in run("get", filled, 1, "-o", out, status=2).stderr
    assert out.read_bytes() == b"\x00\xff"
    assert "no frame 9" in one_error_line(run("get", filled, 9, status=1))
    assert read("get", filled, 2)["uri"] == "map://rome"


def test_tail_shows_what_happened_to_the_memory(filled):
    async def more():
        async with open_store(filled) as store:
            await store.put("later", embedding=[1, 2], embedding_model="m")
            await store.delete(2)
            await store.compact()

    anyio.run(more)
    output = run("tail", filled, "-n", 99).stdout
    for line in (
        "memory_configured  analyser english",
        'frames_put  frame_id 1, title North, tags ["city", "wet"], metadata {"n": 1}, content It',
        'frame_updated  frame_id 1, changes {"content": ',
        "frames_put  frame_id 4, dimension 2, embedding_model m, content later",
        "frame_deleted  frame_id 2",
    ):
        assert line in output
    events = [
        json.loads(line) for line in run("tail", filled, "-n", 99, "--json").stdout.split("\n")[:-1]
    ]
    puts = [event["payload"]["frames"] for event in events if event["type"] == "frames_put"]
    (erased,) = [frame for frames in puts for frame in frames if "digest" in frame]
    assert (erased["frame_id"], len(erased["digest"])) == (2, 64)
    assert read("info", filled)["frame_count"] == 3


def test_show_tells_of_a_fork(filled):
    async def fork():
        async with open_store(filled) as store:
            parent = (await store.list_sessions())[0].session_id
            child = await store.fork(parent, action_index=1, name="other")
            return str(parent), str(child)

    parent, child = anyio.run(fork)
    assert f"forked   from session {parent} after" in run("show", filled, child).stdout
    assert read("show", filled, child)["fork"]["parent_id"] == parent
    assert read("sessions", filled)[-1]["fork"]["parent_id"] == parent
    started = next(e for e in rows("tail", filled, "-n", 9) if e["session_id"] == child)
    assert started["payload"]["fork"]["parent_id"] == parent


async def record_evil(path):
    async with open_store(path) as store, store.session("evil"):
        await store.put(EVIL, title=EVIL, tags=[EVIL], metadata={EVIL: EVIL}, media_type=EVIL)
        await store.update(1, title=EVIL)
        await store.ask("evil", generate=lambda _: EVIL, provider=EVIL, model=EVIL, title=EVIL)


def test_recorded_text_is_printed_as_text(tmp_path, monkeypatch):
    path = tmp_path / "evil.mva"
    anyio.run(record_evil, path)
    evil = shlex.join([sys.executable, "-c", f"print({EVIL!r})"])
    commands = [
        ["find", path, "evil"],
        ["ask", path, "evil"],
        ["ask", path, "evil", "--command", evil],
        ["frames", path],
        ["show", path, "--full"],
        ["tail", path, "-n", "99"],
    ]
    for forced in ("", "1"):
        monkeypatch.setenv("FORCE_COLOR", forced)
        monkeypatch.setenv("PYTHONIOENCODING", "utf-8")
        for command in [*commands, *([*command, "--json"] for command in commands)]:
            output = re.sub(r"\x1b\[[0-9;]*m", "", run(*command).stdout)
            assert not set(output) & set("\x1b\x07\x7f\x9b\u202e\u2028"), command
    monkeypatch.delenv("FORCE_COLOR")
    assert r"evil\x1b[2J" in run("frames", path).stdout
    assert EVIL in run("get", path, 1).stdout


# --- as a process ------------------------------------------------------------------------------


def program(*arguments):
    return [sys.executable, "-W", "error", "-m", "memvid_async", *map(str, arguments)]


def test_a_terminal_gets_no_escapes_from_get(tmp_path):
    path = tmp_path / "evil.mva"
    anyio.run(record_evil, path)
    master, terminal = os.openpty()
    with subprocess.Popen(program("get", path, 1), stdout=terminal) as child:
        os.close(terminal)
        assert child.wait() == 0
    output = os.read(master, 4096).decode()
    os.close(master)
    assert r"evil\x1b[2J" in output
    assert not set(output) & set("\x1b\x07\x7f\x9b\u202e")


def test_put_from_a_pipe_as_it_comes(tmp_path):
    path = tmp_path / "m.mva"
    with subprocess.Popen(
        program("put", path, "--lines"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        out, errors = child.communicate(b"one\ntwo\n")
    assert (child.returncode, out) == (0, b"1\n2\n")
    assert errors.startswith(b"put 2 frames")


def test_without_numpy_one_line_says_what_to_install(tmp_path):
    path = tmp_path / "m.mva"
    run("put", path, "--jsonl", stdin='{"content": "x", "embedding": [1, 0]}')
    code = "import sys; sys.modules['numpy'] = None; import memvid_async.cli as c; c.main()"
    options = ["--mode", "semantic", "--embedding", "[1, 0]"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, "find", str(path), "x", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"memvid-async: error: [^\n]*memvid-async\[vector\][^\n]*\n", done.stderr)
