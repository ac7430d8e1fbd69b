"""A process that dies in a call leaves in the file that it was making it."""

import asyncio
import subprocess
import sys
from functools import partial

import pytest

from memvid_async import ActionKind, Durability, InvalidValueError, open_store

pytestmark = pytest.mark.anyio

CHILD = """
import asyncio, os, signal, sys
from memvid_async import Durability, StoreConfig, current_call, open_store

def charge(cents):
    print(current_call().key, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    config = StoreConfig(durability=Durability(sys.argv[2]), flush_interval=60)
    async with open_store(sys.argv[1], config=config) as store, store.session("s") as session:
        await session.call_tool("ended", {}, lambda: "fine")
        async with session.step("pay", input={"for": "tea"}):
            await session.call_tool("charge", {"cents": 250}, charge, task="till")

asyncio.run(main())
"""


@pytest.mark.parametrize("durability", Durability)
async def test_what_was_in_flight_is_known(durability, tmp_path):
    """Rules 15 and 45."""
    path = tmp_path / "a.mva"
    command = [sys.executable, "-c", CHILD, str(path), durability.value]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False)
    child = await asyncio.to_thread(run)
    assert child.returncode == -9, child.stderr
    async with open_store(path, read_only=True) as store:
        (listed,) = await store.list_sessions(include_open=True)
        session = await store.get_session(listed.session_id)
        step, call = session.in_flight
        assert [action.details.name for action in session.actions] == ["ended"]
        assert listed.in_flight_count == 2
        assert (step.kind, step.details.name) == (ActionKind.STEP, "pay")
        assert (call.details.name, call.task, call.parent) == ("charge", "till", step.sequence)
        assert call.key == child.stdout.strip()
        assert await store.read_content(call.input) == b"\xa1\x65cents\x18\xfa"
        assert (await store.verify()).ok


async def test_what_somebody_else_runs_is_recorded_in_two_pieces(make_store):
    """A start and its end may be in different tasks, and each part names the start of its whole."""
    store = await make_store()
    async with store.session("told") as session:
        agent = await session.record_start(ActionKind.STEP, "agent", task="a")
        search = await session.record_start(ActionKind.FIND, "lex", parent=agent)
        ask = await session.record_start(ActionKind.ASK, provider="p", model="m", parent=agent)
        tool = await session.record_start(ActionKind.TOOL_CALL, "tool", parent=ask)
        seen = await store.get_session(session.session_id)
        assert [one.sequence for one in seen.in_flight] == [agent, search, ask, tool]
        await session.record_tool_call("tool", arguments={"n": 1}, started=tool, parent=ask)
        await session.record_step("note", input={"n": 1}, parent=ask)
        await session.record_ask("q", model="m", started=ask, parent=agent, input_tokens=3)
        await session.record_find(
            "q", mode="lex", result_count=0, result_frames=(), started=search, parent=agent
        )
        with pytest.raises(InvalidValueError, match="ended before"):
            await session.record_step("agent", started=tool)
        await session.record_step("agent", output="done", duration_ms=5, started=agent)
        with pytest.raises(InvalidValueError, match="begins before it ends"):
            await session.record_start(ActionKind.PUT, "put")
    whole = await store.get_session(session.session_id)
    assert [(one.kind.value, one.started, one.parent) for one in whole.actions] == [
        ("tool_call", tool, ask),
        ("step", None, ask),
        ("ask", ask, agent),
        ("find", search, agent),
        ("step", agent, None),
    ]
    assert whole.in_flight == ()
    assert whole.actions[-1].duration_ms == 5
    assert whole.actions[2].usage.input_tokens == 3
    assert all(one.started_ns is not None for one in whole.actions if one.started)
    assert (await store.verify()).ok


async def test_an_action_of_the_ambient_session_may_name_what_it_was_part_of(make_store):
    """No block is entered: the session is in force for everybody."""
    async with await make_store() as store:
        await store.start_session()
        action = await store.record_ask("q", parent=1)
    assert action.call.parent == 1
