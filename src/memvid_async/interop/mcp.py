"""A Model Context Protocol server over a store: a memory that several agents share.

The tools put, find and delete frames and show recorded sessions; the resources are the sessions as
JSON. Each tool first sees what every other process had acked, so servers of one file, one process a
client, agree. Run with mcp 2.3 (protocol 2026-07-28, and the older handshake).

Source of the protocol: https://modelcontextprotocol.io/specification.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal, ParamSpec, TypeVar

try:
    from mcp.server import MCPServer
    from mcp.server.mcpserver.exceptions import ResourceError, ToolError
    from mcp_types import ToolAnnotations
except ModuleNotFoundError as error:
    message = "the MCP server needs a package: install memvid-async[mcp]"
    raise ModuleNotFoundError(message, name=error.name) from error

from .. import (
    Action,
    Frame,
    FrameNotFoundError,
    MemvidAsyncError,
    SessionSummary,
    Store,
    __version__,
)

P = ParamSpec("P")
T = TypeVar("T")

INSTRUCTIONS = (
    "A memory that outlives this conversation and is shared with other agents. Call recall or "
    "context before you answer from what may be in it, and remember what is worth keeping."
)
_SESSIONS_URI = "memvid://sessions"
_MOST_ACTIONS = 50


def make_server(store: Store) -> MCPServer[Any]:
    """Return a server over an open store; of one that is read-only, without the tools that write.

    ``await server.run_stdio_async()`` and ``server.streamable_http_app()`` serve it.
    """
    server: MCPServer[Any] = MCPServer(
        "memvid-async", instructions=INSTRUCTIONS, version=__version__, log_level="WARNING"
    )
    memory, sessions = _Memory(store), _Recordings(store)
    reading = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    for tool in (memory.recall, memory.context, sessions.list_sessions, sessions.show_session):
        server.add_tool(_named(tool, ToolError), annotations=reading)
    if not store.read_only:
        adding = ToolAnnotations(destructive_hint=False, open_world_hint=False)
        removing = ToolAnnotations(destructive_hint=True, open_world_hint=False)
        server.add_tool(_named(memory.remember, ToolError), annotations=adding)
        server.add_tool(_named(memory.forget, ToolError), annotations=removing)
    json_type = "application/json"
    all_sessions = server.resource(_SESSIONS_URI, name="sessions", mime_type=json_type)
    all_sessions(_named(sessions.read_all, ResourceError))
    one_uri = _SESSIONS_URI + "/{session_id}"
    one_session = server.resource(one_uri, name="session", mime_type=json_type)
    one_session(_named(sessions.read_one, ResourceError))
    return server


def _named(call: Callable[P, Awaitable[T]], failure: type[Exception]) -> Callable[P, Awaitable[T]]:
    """Return the call with the library's errors as those whose text reaches the client."""

    @functools.wraps(call)
    async def tool(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await call(*args, **kwargs)
        except MemvidAsyncError as error:
            raise failure(str(error)) from error

    return tool


class _Memory:
    """The tools of the memory; their docstrings are what a model reads."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def remember(
        self,
        text: str,
        title: str | None = None,
        tags: list[str] | None = None,
        uri: str | None = None,
        metadata: dict[str, Any] | None = None,
        replace: bool = False,  # noqa: FBT001, FBT002 - tools are called by name
    ) -> dict[str, Any]:
        """Keep a text in the memory and return its frame id. It is durable when this returns.

        Give a title, tags, and a uri that says where it comes from. With replace, it replaces what
        has that uri.
        """
        frame_id = await self._store.put(
            text, title=title, tags=tags or (), uri=uri, metadata=metadata, replace=replace
        )
        return {"frame_id": frame_id}

    async def recall(
        self,
        query: str,
        limit: int = 10,
        tags: list[str] | None = None,
        uri: str | None = None,
        mode: Literal["lexical", "semantic", "hybrid"] = "lexical",
    ) -> dict[str, Any]:
        """Search the memory by words (or by meaning, where it has embeddings), best first.

        tags: only texts with all of them. uri: only texts whose uri begins with it. Each hit has a
        snippet and its frame id; the tool context returns whole texts.
        """
        await self._store.refresh()
        found = await self._store.find(
            query, top_k=limit, mode=mode, syntax=False, **_filters(tags, uri)
        )
        hits = []
        for hit in found.hits:
            with suppress(FrameNotFoundError):  # deleted since by another process
                frame = await self._store.get(hit.frame_id)
                hits.append({**_frame(frame), "score": hit.score, "snippet": hit.snippet})
        return {"hits": hits}

    async def context(
        self,
        question: str,
        limit: int = 5,
        tags: list[str] | None = None,
        uri: str | None = None,
        mode: Literal["lexical", "semantic", "hybrid"] = "lexical",
    ) -> str:
        """Return the texts of the memory that answer a question best, ready for a prompt."""
        await self._store.refresh()
        context = await self._store.context(
            question, top_k=limit, mode=mode, syntax=False, **_filters(tags, uri)
        )
        return str(context)

    async def forget(self, frame_id: int) -> dict[str, Any]:
        """Delete a text from the memory, by the frame id that remember or recall returned."""
        await self._store.delete(frame_id)
        return {"forgotten": frame_id}


class _Recordings:
    """The tools and resources of the recorded sessions."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def list_sessions(self, limit: int = 20, after: str | None = None) -> dict[str, Any]:
        """List the sessions that agents recorded, newest first; after: the id of the last seen."""
        await self._store.refresh()
        listed = await self._store.list_sessions(
            include_open=True, newest_first=True, limit=limit, after=after
        )
        return {"sessions": [_summary(summary) for summary in listed]}

    async def show_session(
        self, session_id: str, first: int = 0, limit: int = _MOST_ACTIONS
    ) -> dict[str, Any]:
        """Show what an agent did in a session: its actions from index first on, at most limit."""
        await self._store.refresh()
        session = await self._store.get_session(session_id)
        shown = session.actions[max(first, 0) : max(first, 0) + max(limit, 0)]
        return {
            "session_id": str(session.session_id),
            "name": session.name,
            "started": _time(session.created_ns),
            "ended": _time(session.ended_ns),
            "error": session.error,
            "action_count": len(session.actions),
            "actions": [_action(action) for action in shown],
        }

    async def read_all(self) -> str:
        """The newest hundred sessions."""
        return _json(await self.list_sessions(limit=100))

    async def read_one(self, session_id: str) -> str:
        """A session with all of its actions."""
        await self._store.refresh()
        session = await self._store.get_session(session_id)
        return _json(await self.show_session(session_id, limit=len(session.actions)))


def _filters(tags: list[str] | None, uri: str | None) -> dict[str, Any]:
    filters = {"tags": tags or None, "uri": uri}
    return {name: value for name, value in filters.items() if value is not None}


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "frame_id": frame.frame_id,
        "title": frame.title,
        "uri": frame.uri,
        "tags": list(frame.tags),
    }


def _summary(summary: SessionSummary) -> dict[str, Any]:
    return {
        "session_id": str(summary.session_id),
        "name": summary.name,
        "started": _time(summary.created_ns),
        "ended": _time(summary.ended_ns),
        "action_count": summary.action_count,
    }


def _action(action: Action) -> dict[str, Any]:
    """Return an action as a model reads it: the beginnings of its input and output."""
    return {
        "index": action.index,
        "kind": action.kind.value,
        "name": getattr(action.details, "name", None),
        "time": _time(action.time_ns),
        "duration_ms": action.duration_ms,
        "task": action.task,
        "input": action.input.preview if action.input else None,
        "output": action.output.preview if action.output else None,
        "error": action.error,
    }


def _time(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, indent=2)
