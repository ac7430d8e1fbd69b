"""The MCP server, through the protocol's own client: every tool and resource, and transport."""

import json
import sys
from contextlib import asynccontextmanager
from subprocess import DEVNULL, PIPE
from typing import Any

import anyio
import pytest

from memvid_async import open_store

mcp = pytest.importorskip("mcp", reason="needs the extra mcp")

from mcp import Client, StdioServerParameters, stdio_client  # noqa: E402 - after the skip

from memvid_async.interop.mcp import make_server  # noqa: E402 - the same
from tests.conftest import ROOT  # noqa: E402 - the same

pytestmark = [
    pytest.mark.one_loop,
    # The client's own transports leave sockets and pipes to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

CLIENTS = 4
TEXTS = 5


async def call(client: Any, tool: str, **arguments: Any) -> Any:
    """Call a tool and return what it returned; AssertionError with its text where it failed."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content[0].text
    return result.structured_content


def program(path: Any, *options: str) -> list[str]:
    return [sys.executable, "-m", "memvid_async", "mcp", str(path), *options]


def stdio(path: Any, *options: str) -> Any:
    command, *args = program(path, *options)
    environment = {"PYTHONPATH": str(ROOT / "src")}
    return stdio_client(StdioServerParameters(command=command, args=args, env=environment))


@asynccontextmanager
async def http(path: Any, *options: str) -> Any:
    """Run a server on a free port; yield its address once it listens."""
    command = program(path, "--http", "--port", "0", *options)
    async with await anyio.open_process(command, stdout=DEVNULL, stderr=PIPE) as process:
        try:
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stderr.receive()
            yield said.decode().split()[-1]
        finally:
            process.terminate()


async def test_a_text_is_remembered_recalled_and_forgotten(make_store):
    store = await make_store()
    async with Client(make_server(store)) as client:
        kept = await call(
            client, "remember", text="It rains in Oslo.", title="Rain", tags=["a"], uri="x:1"
        )
        await call(client, "remember", text="The sun shines in Rome.", metadata={"n": 1})
        (hit,) = (await call(client, "recall", query="Oslo rain", tags=["a"], uri="x:"))["hits"]
        assert (hit["frame_id"], hit["title"], hit["uri"]) == (kept["frame_id"], "Rain", "x:1")
        assert "[Oslo]" in hit["snippet"]
        context = await call(client, "context", question="Where is sun?", limit=1)
        assert "The sun shines in Rome." in context["result"]
        again = await call(client, "remember", text="It snows in Oslo.", uri="x:1", replace=True)
        hits = (await call(client, "recall", query="Oslo"))["hits"]
        assert [hit["frame_id"] for hit in hits] == [again["frame_id"]]
        await call(client, "forget", frame_id=again["frame_id"])
        assert (await call(client, "recall", query="Oslo"))["hits"] == []


async def test_a_failure_says_what_was_wrong(make_store):
    store = await make_store()
    async with Client(make_server(store)) as client:
        for tool, arguments, text in (
            ("forget", {"frame_id": 7}, "there is no frame 7"),
            ("show_session", {"session_id": "x"}, "session id"),
            ("recall", {"query": "x", "limit": -1}, "top_k"),
            ("recall", {"query": "x", "mode": "semantic"}, "needs an embedding"),
        ):
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert text in result.content[0].text, result.content[0].text


async def test_sessions_are_listed_and_shown(make_store):
    store = await make_store()
    async with store.session("trip") as session:
        for number in range(3):
            await session.record_tool_call("look", arguments={"n": number}, result=f"r{number}")
    async with Client(make_server(store)) as client:
        (listed,) = (await call(client, "list_sessions"))["sessions"]
        session_id = str(session.session_id)
        assert (listed["session_id"], listed["name"], listed["action_count"]) == (
            session_id,
            "trip",
            3,
        )
        shown = await call(client, "show_session", session_id=session_id, first=1, limit=1)
        assert [a["output"] for a in shown["actions"]] == ["r1"]
        templates = await client.list_resource_templates()
        assert [t.uri_template for t in templates.resource_templates] == [
            "memvid://sessions/{session_id}"
        ]
        whole = await client.read_resource(f"memvid://sessions/{session_id}")
        assert len(json.loads(whole.contents[0].text)["actions"]) == 3
        every = await client.read_resource("memvid://sessions")
        assert [s["name"] for s in json.loads(every.contents[0].text)["sessions"]] == ["trip"]


async def test_a_server_that_is_read_only_has_no_tool_that_writes(tmp_path):
    path = tmp_path / "m.mva"
    async with open_store(path) as store:
        await store.put("It rains in Oslo.")
    async with Client(stdio(path, "--read-only")) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert tools == {"recall", "context", "list_sessions", "show_session"}
        assert len((await call(client, "recall", query="Oslo"))["hits"]) == 1


async def test_four_servers_and_four_clients_share_one_file_and_lose_nothing(tmp_path):
    path = tmp_path / "shared.mva"
    kept: list[int] = []

    async def remember(number: int) -> None:
        async with Client(stdio(path)) as client:
            for i in range(TEXTS):
                text = f"note {number}.{i} about otters"
                kept.append((await call(client, "remember", text=text))["frame_id"])
            before = set(kept)
            hits = (await call(client, "recall", query="otters", limit=100))["hits"]
            assert {hit["frame_id"] for hit in hits} >= before

    async with anyio.create_task_group() as group:
        for number in range(CLIENTS):
            group.start_soon(remember, number)
    assert sorted(kept) == list(range(1, CLIENTS * TEXTS + 1))
    async with http(path) as address, Client(address) as client:
        hits = (await call(client, "recall", query="otters", limit=100))["hits"]
        assert sorted(hit["frame_id"] for hit in hits) == sorted(kept)
        assert (await call(client, "remember", text="over HTTP"))["frame_id"] == len(kept) + 1
    async with open_store(path) as store:
        assert (await store.verify()).ok
