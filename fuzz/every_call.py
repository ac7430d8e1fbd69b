"""Every public call and every command, on a file that anybody may have written.

An answer or one of the library's own errors comes out of each. The bounds are the caller's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from click import ClickException

from memvid_async import (
    Generated,
    MemvidAsyncError,
    Session,
    Store,
    StoreConfig,
    open_store,
    recover,
)
from memvid_async.cli.command_line import cli

# How a command ends: with an exit status, or in one of these ways.
_ENDS = (SystemExit, ClickException, MemvidAsyncError)
# Of each kind of thing that a file has, this many are asked for.
MOST = 6


async def build(path: Path) -> None:
    """Make a file with something of everything, through public calls."""
    ticks = iter(range(10**9))
    config = StoreConfig(clock=lambda: 1_700_000_000_000_000_000 + 1000 * next(ticks))
    async with open_store(path, config=config) as store:
        await store.start_session("ambient")
        await store.put("the quick brown fox", title="t", tags=["a"], metadata={"k": 1})
        await store.put_many(["a lazy dog", "words " * 300, {"content": b"raw", "uri": "u:1"}])
        await store.put("near", embedding=[1.0, 0.5], embedding_model="m")
        await store.find("quick fox")
        await store.update(2, content="a busy dog", title="other")
        await store.delete(3)
        chat: list[Any] = [{"role": "system", "content": "be brief " * 20}]
        for turn in range(4):
            chat.append({"role": "user", "content": f"question {turn} " * 10})
            await store.record_ask(
                f"q{turn}", provider="p", model="m", response="a" * 1200 * turn, messages=chat
            )
            chat.append({"role": "assistant", "content": "a" * 1200 * turn})
        await store.create_checkpoint()
        await store.ask("fox?", generate=lambda _: Generated("brown", input_tokens=3))
        ambient = (await store.end_session()).session_id
        async with store.session("tools", metadata={"m": 1}) as session:
            await session.record_tool_call("look", arguments={"a": [1, {}]}, result=b"\0")
            await session.record_find("x", mode="lexical", result_count=1, result_frames=[1])
            await session.record_put(9, b"\xff" * 1100)
        fork = await store.fork(ambient, name="fork")
        async with store.resume_session(fork):
            await store.put("only in the fork")
            await store.find("fork fox")
        async with store.resume_session(await store.fork(fork)):
            await store.put("deeper")
            await store.delete(1)
        async with store.session("gone") as gone:
            await gone.record_ask("secret", provider="p", model="m", response="x" * 2000)
        await store.delete_session(gone.session_id)
        await store.start_session("left open")
        await store.put("the last one")


async def _try(call: Callable[..., Awaitable[Any]], *given: Any, **named: Any) -> Any:
    with suppress(MemvidAsyncError):
        return await call(*given, **named)
    return None


async def read(path: Path) -> None:
    """Make every call that reads."""
    async with open_store(path, read_only=True) as store:
        summaries = await _try(store.list_sessions, include_open=True) or []
        sessions = [await _try(store.get_session, one.session_id) for one in summaries[:MOST]]
        for session in sessions:
            if session is not None:
                await _read_session(store, session)
        for one in summaries[:MOST]:
            await _try(store.compare, one.session_id, summaries[0].session_id)
        await _try(_follow, store)
        store.statistics()
        await _try(store.verify)
        await _search(store)
        for sequence in (0, store.last_sequence // 2, store.last_sequence):
            view = await _try(store.at, sequence=sequence)
            if view is not None:
                await _search(view)
        await _try(store.at, time_ns=1_700_000_000_000_000_000)


async def _read_session(store: Store, session: Session) -> None:
    repr(session)
    for action in session.actions[: 4 * MOST]:
        repr(action)
        for content in (action.input, action.output):
            if content is not None:
                await _try(store.read_content, content)
        await _try(store.read_messages, action)
        await _try(store.read_arguments, action)
        await _try(store.read_context, action)
        await _try(store.read_chunks, action)
    await _try(store.replay(session.session_id).report)
    await _try(_served, store, session)


async def _served(store: Store, session: Session) -> None:
    async with store.serve(session.session_id) as served:
        for action in session.actions[:MOST]:
            if action.kind == "tool_call":
                arguments = await _try(store.read_arguments, action)
                await _try(served.call_tool, getattr(action.details, "name", "x"), arguments)
            elif action.input is not None:
                question = await _try(store.read_content, action.input) or b""
                await _try(served.ask, question, provider="p", model="m")
                await _try(served.find, question.decode(errors="replace"))
        served.report()


async def _follow(store: Store) -> None:
    async with store.subscribe() as events:
        async for event in events:
            repr(event)
            if event.sequence >= store.last_sequence:
                return


async def _search(view: Any) -> None:
    await _try(view.find, "fox OR words")
    await _try(view.find, "near", mode="hybrid", embedding=[1.0, 0.5], embedding_model="m")
    with suppress(MemvidAsyncError):
        async for frame in view.frames():
            repr(frame)
            await _try(view.get, frame.frame_id)
    await _try(view.context, "fox")


async def write(path: Path) -> None:
    """Make every call that writes."""
    async with open_store(path) as store:
        summaries = await _try(store.list_sessions, include_open=True) or []
        await _try(store.start_session, "new")
        await _try(store.put, "a fox more")
        await _try(store.put_many, ["two", "three"])
        await _try(store.find, "fox")
        await _try(store.ask, "fox?", generate=str)
        await _try(
            store.record_ask, "q", provider="p", model="m", response="r", messages=[{"a": "b"}]
        )
        for frame_id in (1, 4):
            await _try(store.update, frame_id, title="changed")
            await _try(store.delete, frame_id)
        await _try(store.create_checkpoint)
        for one in summaries[:MOST]:
            await _try(_write_session, store, one.session_id)
        await _try(store.end_session)
        await _try(store.set_embedding_model, "n", lambda texts: [[1.0, 0.0] for _ in texts])
        await _try(store.compact)
        await _try(store.find, "fox")
        await _try(store.verify)
    async with open_store(path) as store:
        await _try(store.find, "fox")
        await _try(store.verify)


async def _write_session(store: Store, session_id: Any) -> None:
    with suppress(MemvidAsyncError):
        async with store.resume_session(session_id) as session:
            await session.record_ask("q", provider="p", model="m", response="r", messages=["m"])
            await session.create_checkpoint()
    with suppress(MemvidAsyncError):
        async with store.resume_session(await store.fork(session_id)):
            await store.put("in a fork")
            await store.find("fork")
    await _try(store.audit, session_id, {"m": str})
    await _try(store.delete_session, session_id)


def commands(path: Path, out: Path, session: str) -> Iterator[list[str]]:
    """Iterate over every command that takes a file: ``recover`` first, those that write last."""
    file = str(path)
    for number, options in enumerate(([], ["--json"])):
        yield ["recover", file, str(out / f"recovered-{number}"), *options]
        for name in ("info", "sessions", "verify", "frames"):
            yield [name, file, *options]
        yield ["tail", file, "-n", "1000", *options]
        yield ["show", file, session, *options]
        yield ["show", file, session, "--full", *options]
        yield ["find", file, "fox", *options]
        yield ["get", file, "1", *options]
        yield ["replay", file, session, *options]
        yield ["diff", file, session, session, *options]
    yield ["sessions", file, "--tree"]
    yield ["export", file, session, "-o", str(out / "page.html")]
    yield ["export", file, session, session, "-o", str(out / "two.html")]
    yield ["export", file, session, "--format", "jsonl", "-o", str(out / "session.jsonl")]
    yield ["audit", file, session, "--model", "m=cat"]
    yield ["ask", file, "fox?", "--command", "cat"]
    yield ["fork", file, session]
    yield ["put", file, "--lines", str(out / "lines")]
    yield ["compact", file]


def run_commands(path: Path, session: str) -> None:
    """Run every command; each ends with an exit status of its own, and never with an exception."""
    out = path.parent
    (out / "lines").write_text("one\ntwo\n")
    # What is printed is not kept: a content of such a file may be of GiBs.
    with Path(os.devnull).open("w", encoding="utf-8") as printed:
        for arguments in commands(path, out, session):
            with redirect_stdout(printed), redirect_stderr(printed), suppress(*_ENDS):
                cli.main(arguments, prog_name="memvid-async")


async def _a_session(path: Path) -> str:
    with suppress(MemvidAsyncError):
        async with open_store(path, read_only=True) as store:
            for one in await store.list_sessions(include_open=True):
                return str(one.session_id)
    return "1"


def every_call(data: bytes, folder: Path) -> None:
    """Make every call and run every command, with a copy of the file for each part."""
    path = folder / "hostile.mva"

    def fresh() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        path.write_bytes(data)
        return path

    with suppress(MemvidAsyncError):
        asyncio.run(recover(fresh(), folder / "out"))
    for part in (read, write):
        with suppress(MemvidAsyncError):
            asyncio.run(part(fresh()))
    run_commands(fresh(), asyncio.run(_a_session(path)))
