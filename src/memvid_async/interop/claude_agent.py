"""The Claude Agent SDK's sessions, mirrored into a collection of a store.

Pass :class:`MemvidSessionStore` as the SDK's session store. Run with claude-agent-sdk 0.2.189.

An append is one command: its entries, each once by its ``uuid``, and the session's summary. Where
another process appended meanwhile it is made again, on top of that.
"""

from __future__ import annotations

from typing import Any

try:
    from claude_agent_sdk import fold_session_summary
except ModuleNotFoundError as error:
    message = "the session store needs a package: install memvid-async[claude-agent]"
    raise ModuleNotFoundError(message, name=error.name) from error

from .. import Check, Delete, DeletePrefix, Put, Store, SyncStore, Value, VersionConflictError
from .collection_bridge import Bridge, name_of, part

_MILLISECOND = 10**6
# A scan reads a transcript in the order of its keys, which are numbers of this many digits.
_DIGITS = 12

Entry = dict[str, Any]
Key = dict[str, str]


class MemvidSessionStore:
    """A session store of the Claude Agent SDK, with every optional method.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; it is not closed.
    ``collection``: the collection's name. The transcripts of subagents are kept beside the main
    one of their session.
    """

    def __init__(self, store: Store | SyncStore, *, collection: str = "claude") -> None:
        self._bridge = Bridge(store, collection)

    async def append(self, key: Key, entries: list[Entry]) -> None:
        """Append entries to a transcript; one whose ``uuid`` it has already is left out."""
        if entries:
            await self._bridge.run(lambda c: self._append(c, key, entries))

    async def _append(self, c: Any, key: Key, entries: list[Entry]) -> None:
        place = _place(key)
        named = {entry["uuid"]: entry for entry in entries if entry.get("uuid")}
        marks = {uuid: f"u/{place}/{part(uuid)}" for uuid in named}
        while True:
            head, *held = await c.get_many([f"h/{place}", *marks.values()])
            known = {uuid for uuid, value in zip(marks, held, strict=True) if value is not None}
            new: list[Entry] = []
            for entry in entries:
                uuid = entry.get("uuid")
                if uuid not in known:
                    new.append(entry)
                    known |= {uuid} if uuid else set()
            if not new:
                return
            count, summary = (0, None) if head is None else head.data
            if not key.get("subpath"):
                before = None if summary is None else _summary(key["session_id"], head)
                summary = fold_session_summary(before, key, new)["data"]
            steps: list[Any] = [Check(f"h/{place}", 0 if head is None else head.version)]
            steps += [Put(f"e/{place}/{count + n:0{_DIGITS}}", one) for n, one in enumerate(new)]
            steps += [Put(marks[one["uuid"]], None) for one in new if one.get("uuid")]
            try:
                await c.apply([*steps, Put(f"h/{place}", [count + len(new), summary])])
            except VersionConflictError:
                continue
            return

    async def load(self, key: Key) -> list[Entry] | None:
        """Return the entries of a transcript, in order; None when there is none."""
        return await self._bridge.run(lambda c: self._load(c, key), fresh=True)

    async def _load(self, c: Any, key: Key) -> list[Entry] | None:
        if await c.get(f"h/{_place(key)}") is None:
            return None
        return [value.data async for value in c.scan(f"e/{_place(key)}/")]

    async def list_sessions(self, project_key: str) -> list[dict[str, Any]]:
        """Return the sessions of a project, each with the time of its last change."""
        return [
            {"session_id": name, "mtime": head.updated_ns // _MILLISECOND}
            for name, head in await self._heads(project_key)
        ]

    async def list_session_summaries(self, project_key: str) -> list[dict[str, Any]]:
        """Return the summaries of a project's sessions, as the SDK folded them."""
        return [_summary(name, head) for name, head in await self._heads(project_key)]

    async def _heads(self, project_key: str) -> list[tuple[str, Value]]:
        """Return the sessions of a project that have a main transcript."""

        async def read(c: Any) -> list[tuple[str, Value]]:
            found = [value async for value in c.scan(f"h/{part(project_key)}/")]
            named = [(value.key.split("/")[2:], value) for value in found]
            return [(name_of(name), value) for (name, subpath), value in named if not subpath]

        return await self._bridge.run(read, fresh=True)

    async def delete(self, key: Key) -> None:
        """Delete a session with the transcripts of its subagents; with a ``subpath`` only that one.

        ``compact()`` erases the bytes.
        """
        place = _place(key)
        if key.get("subpath"):
            steps: list[Any] = [Delete(f"h/{place}"), *_all_of("eu", f"{place}/")]
        else:
            steps = _all_of("heu", place)
        await self._bridge.run(lambda c: c.apply(steps))

    async def list_subkeys(self, key: Key) -> list[str]:
        """Return the subpaths of a session's other transcripts."""
        begin = f"h/{_place({**key, 'subpath': ''})}"

        async def read(c: Any) -> list[str]:
            return [name_of(one[len(begin) :]) for one in await c.prefixes(4, prefix=begin)]

        return [name for name in await self._bridge.run(read, fresh=True) if name]


def _place(key: Key) -> str:
    subpath = part(key.get("subpath") or "")
    return f"{part(key['project_key'])}/{part(key['session_id'])}/{subpath}"


def _all_of(kinds: str, begin: str) -> list[Any]:
    return [DeletePrefix(f"{kind}/{begin}") for kind in kinds]


def _summary(session_id: str, head: Value) -> dict[str, Any]:
    return {
        "session_id": session_id,
        "mtime": head.updated_ns // _MILLISECOND,
        "data": head.data[1],
    }
