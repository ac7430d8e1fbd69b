"""Every command takes the address of a stream where it takes a file."""

import asyncio
import importlib.util
import json

import anyio
import pytest
from click.testing import CliRunner

from memvid_async import InvalidValueError, list_stores, open_store, recover
from memvid_async.cli import demo, exits, serving
from memvid_async.cli.addresses import note_unreachable
from memvid_async.cli.command_line import cli
from tests.support.nats_server import MISSING, find_server

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.skipif(find_server() is None, reason=MISSING),
]

# What each command is given here, in the order of the walk. URL is the store; the fixture `places`
# says what the other names stand for.
WALK = {
    "put": ["URL", "FILE"],
    "import-chat": ["URL", "CHAT"],
    "ask": ["URL", "otter?", "--record", "--command", "head -n 1"],
    "info": ["URL"],
    "sessions": ["URL"],
    "show": ["URL", "-1"],
    "verify": ["URL"],
    "tail": ["URL"],
    "find": ["URL", "otter"],
    "frames": ["URL"],
    "get": ["URL", "1"],
    "usage": ["URL"],
    "grep": ["URL", "otter"],
    "why": ["URL", "-1"],
    "replay": ["URL", "-1"],
    "diff": ["URL", "-1", "-2"],
    "audit": ["URL", "-1", "--model", "a=head -n 1"],
    "export": ["URL", "-1", "-o", "OUT"],
    "fork": ["URL", "-1", "--name", "forked"],
    "rename": ["URL", "forked", "other"],
    "annotate": ["URL", "other", "a=1"],
    "end": ["URL", "other"],
    "delete": ["URL", "other"],
    "prune": ["URL", "--keep-last", "1"],
    "compact": ["URL"],
    "copy": ["URL", "COPY"],
    "recover": ["URL", "SAVED"],
    "stores": ["SERVERS"],
    "view": ["URL", "--no-browser"],
    "mcp": ["URL", "--http", "--port", "0"],
    "demo": ["--file", "NEW"],
}
# These make a store where there is none.
CREATE = {"put", "import-chat", "mcp", "demo", "stores"}
# The package that a command needs beside the extra `cli`.
NEEDS = {"view": "starlette", "mcp": "mcp"}
# Their exit status is 1 where there is something to see.
TELLING = {"diff"}


@pytest.fixture
def places(nats_server, tmp_path, monkeypatch):
    """Return the function that puts names into a command's arguments, and the store's address."""

    async def ready(*_):
        """Serve nothing."""

    monkeypatch.setattr(serving, "_serve", ready)
    run_demo = demo.run_demo
    monkeypatch.setattr(demo, "run_demo", lambda path, say: run_demo(path, say, kill_after=2))
    (tmp_path / "note.txt").write_text("an otter swims")
    chat = [{"role": "user", "content": "otter?"}, {"role": "assistant", "content": "Yes."}]
    (tmp_path / "chat.json").write_text(json.dumps(chat))
    url = nats_server.address()
    names = {
        "URL": url,
        "NEW": nats_server.address(),
        "FILE": str(tmp_path / "note.txt"),
        "CHAT": str(tmp_path / "chat.json"),
        "OUT": str(tmp_path / "out.jsonl"),
        "COPY": str(tmp_path / "copy.mva"),
        "SAVED": str(tmp_path / "saved.mva"),
        "SERVERS": url.rpartition("/")[0],
    }
    return lambda given, **other: [{**names, **other}.get(one, one) for one in given]


def available(names):
    return [name for name in names if importlib.util.find_spec(NEEDS.get(name, "click"))]


def invoke(name, given):
    return CliRunner().invoke(cli, [name, *given], prog_name="memvid-async")


def test_every_command_is_walked_here():
    assert set(cli.commands) == WALK.keys()


def test_every_command_takes_an_address(places):
    for name in available(WALK):
        result = invoke(name, places(WALK[name]))
        wanted = exits.BAD if name in TELLING else exits.FINE
        assert result.exit_code == wanted, (name, result.output, result.exception)


def test_none_but_these_makes_a_store(places, nats_server):
    address = nats_server.address()
    for name in available(sorted(WALK.keys() - CREATE)):
        result = invoke(name, places(WALK[name], URL=address))
        assert result.exit_code == exits.BAD, (name, result.output)
        assert "no store on a stream" in result.stderr, name
    listed = asyncio.run(list_stores(address.rpartition("/")[0]))
    assert address.rpartition("/")[2] not in [one.name for one in listed]


def test_the_stores_of_a_server_are_listed(nats_server):
    host = nats_server.address().rpartition("/")[0]

    async def fill():
        async with open_store(f"{host}/listed-one") as store:
            for turn in range(3):
                await store.put(f"otter {turn}")
            await store.put(b"0123456789abcdef" * 90_000)
            last = store.last_sequence
        async with open_store(f"{host}/listed-empty"):
            pass
        return last

    last = anyio.run(fill)
    result = invoke("stores", [host, "--json"])
    listed = {one["name"]: one for one in json.loads(result.stdout)}
    assert listed["listed-one"]["event_count"] == last
    assert listed["listed-one"]["byte_count"] > 16 * 90_000
    assert listed["listed-empty"]["event_count"] == 0
    assert listed["listed-one"]["replicas"] == 1
    shown = invoke("stores", [host.replace("//", "//user:secret@")]).stdout
    assert "listed-one" in shown
    assert "secret" not in shown
    named = invoke("stores", [f"{host}/listed-one"])
    assert named.exit_code == exits.BAD
    assert "of servers alone" in named.stderr


def test_what_is_printed_of_an_address_has_no_password(places):
    (url,) = places(["URL"])
    (given,) = places(["FILE"])
    url = url.replace("//", "//user:secret@")
    assert invoke("put", [url, given]).exit_code == exits.FINE
    for name in ("verify", "info", "copy", "view", "recover"):
        result = invoke(name, places(WALK[name], URL=url))
        assert "secret" not in result.output + result.stderr, name


async def test_who_waits_for_a_server_is_told(places, capsys):
    (url,) = places(["URL"])
    await note_unreachable(url)
    assert not capsys.readouterr().err
    await note_unreachable("nats://user:secret@127.0.0.1:1,[::1]:1/a")
    said = capsys.readouterr().err
    assert "waiting for nats://127.0.0.1:1,[::1]:1/a: " in said
    await note_unreachable(url.replace("//", "//127.0.0.1:1,"))
    assert not capsys.readouterr().err


async def test_what_is_recovered_is_a_file(places):
    (url,) = places(["URL"])
    with pytest.raises(InvalidValueError, match="writes a new file"):
        await recover(url, url)
    result = CliRunner().invoke(cli, ["recover", url, url])
    assert result.exit_code == exits.WRONG_USAGE
    assert "copy" in result.stderr
