"""The agent of examples/: recorded with few lines changed, served, killed and resumed."""

import asyncio
import difflib
import inspect
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.support.depth import DEEP
from tests.support.model_server import model_server

pytest.importorskip("httpx2")
trip_child = pytest.importorskip("tests.support.trip_child")

pytestmark = pytest.mark.one_loop

ROOT = Path(__file__).resolve().parents[2]
HOW = ["calls", "transport"]
# What the server sees of a run: 3 x (3 asks and 2 tools), the summary, and 2 that were too many.
REQUESTS = 18
KILLS = range(1, REQUESTS + 1) if DEEP else (2, 9, REQUESTS)


@pytest.fixture
async def server(anyio_backend):
    async with model_server() as running:
        yield running


@pytest.mark.parametrize("how", HOW)
async def test_it_is_recorded_and_served_unchanged(make_store, server, how):
    store = await make_store()
    async with store.session("trip") as session:
        live = await trip_child.run_agent(session, server.url, how)
    assert "ROME" in live
    assert len(server.requests) == REQUESTS
    recorded = await store.get_session(session.session_id)
    failed = [action for action in recorded.actions if action.error is not None]
    assert len(failed) == 2, "the model had too much to do twice"
    assert len(recorded.actions) == REQUESTS
    async with store.serve(session.session_id) as served:
        assert await trip_child.run_agent(served, server.url, how) == live
        assert served.unserved == ()
    assert len(server.requests) == REQUESTS, "nothing was sent again"


def test_at_the_transport_two_lines_change():
    """The lines of the session's block aside. The tutorial's test counts those for calls."""
    plain, recorded = (
        inspect.getsource(one).splitlines()[1:]
        for one in (trip_child.run_unrecorded, trip_child.run_at_the_transport)
    )
    changes = list(difflib.unified_diff(plain, recorded, n=0, lineterm=""))[2:]
    assert sum(line[0] == "+" for line in changes) <= 2


async def run_child(server, *arguments, kill_at=None):
    """Run the agent in a process that is killed at a request; return the lines it printed."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.trip_child",
        *map(str, arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    def kill_when_due():
        if len(server.requests) == kill_at:
            child.send_signal(signal.SIGKILL)

    server.on_request = kill_when_due
    out, err = await child.communicate()
    expected = 0 if kill_at is None else -signal.SIGKILL
    assert child.returncode == expected, err.decode()
    return out.decode().split("\n", 1)


UNDISTURBED = {}


async def undisturbed(how, directory):
    """What an agent of a kind comes to when nobody kills it; run once."""
    if how not in UNDISTURBED:
        path = directory / "whole.mva"
        async with model_server() as running:
            _, UNDISTURBED[how] = await run_child(running, path, running.url, how, "-")
    return UNDISTURBED[how]


@pytest.mark.parametrize("kill_at", KILLS)
@pytest.mark.parametrize("how", HOW)
async def test_killed_at_any_request_it_goes_on(make_store, server, tmp_path, how, kill_at):
    path = tmp_path / "store.mva"
    session_id, *_ = await run_child(server, path, server.url, how, "-", kill_at=kill_at)
    store = await make_store("store.mva", read_only=True)
    in_flight = (await store.get_session(session_id)).in_flight
    assert 1 <= len(in_flight) <= 3
    _, resumed = await run_child(server, path, server.url, how, session_id)
    assert resumed == await undisturbed(how, tmp_path)
    again = len(server.requests) - REQUESTS
    assert 0 <= again <= len(in_flight), "only what was uncertain was sent again"
