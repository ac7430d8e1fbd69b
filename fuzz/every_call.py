"""Every public call and every command, on a file that anybody may have written.

An answer or one of the library's own errors comes out of each. The bounds are the caller's.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from click import ClickException

from memvid_async import (
    RUN,
    ActionKind,
    Check,
    Delete,
    DeletePrefix,
    Generated,
    KeySearch,
    MemvidAsyncError,
    Put,
    Session,
    Store,
    StoreConfig,
    StoreSession,
    UncertainCall,
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
        await _build_calls(store)
        await _build_keys(store)
        fork = await store.fork(ambient, name="fork")
        async with store.resume_session(fork):
            await store.put("only in the fork", key="once")
            await store.find("fork fox")
        async with store.resume_session(await store.fork(fork)):
            await store.put("deeper")
            await store.delete(1)
        async with store.session("gone") as gone:
            await gone.record_ask("secret", provider="p", model="m", response="x" * 2000)
        await store.delete_session(gone.session_id)
        await store.start_session("left open")
        await store.put("the last one")


async def _build_calls(store: Store) -> None:
    """Record calls that ended, one in another, and one that is in flight."""
    async with store.session("calls") as session:
        async with session.step("plan", input=[1]) as step:
            step.output = await session.call_tool("add", {"a": 1}, lambda a: a + 1)
            await session.call_model([{"role": "user", "content": "hi"}], _echo, model="m")
        async for _ in session.stream_model("tell", _echo):
            pass
        await session.once("dice", lambda: 4)
        with suppress(ZeroDivisionError):
            await session.call_tool("fail", {}, lambda: 1 // 0)
    await store.annotate_session(session.session_id, {"more": 2})
    async with store.session("stopped") as session:
        await session.record_start(ActionKind.TOOL_CALL, "never ends")


def _echo(prompt: Any) -> str:
    return f"{prompt}"[:100] * 20


async def _build_keys(store: Store) -> None:
    values, lists = store.collection("values"), store.collection("lists")
    for at in range(12):
        await values.put(f"a/{at % 4}", {"n": at}, metadata={"even": at % 2}, ttl=10.0**6)
        await lists.append("turns", [f"item {at}" * 20])
    await lists.write_list("turns", ["new"], keep=3)
    await values.delete("a/1")
    await values.apply([DeletePrefix("a/2"), Put("b", 1)])


async def _try(call: Callable[..., Awaitable[Any]], *given: Any, **named: Any) -> Any:
    with suppress(MemvidAsyncError):
        return await call(*given, **named)
    return None


async def _drain(items: AsyncIterator[Any]) -> None:
    """Look at what comes; of a few items only, as there may be any number."""
    with suppress(MemvidAsyncError):
        async for item in islice(items, 20 * MOST):
            repr(item)


async def islice(items: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    """Iterate over the first ``count`` items."""
    async for item in items:
        yield item
        if (count := count - 1) <= 0:
            return


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
        await _drain(store.actions(newest_first=True))
        await _drain(store.actions(kind="tool_call", text="a"))
        for by in ("session", "model", "tool", "day"):
            await _try(store.usage, by=by)
        store.statistics()
        await _try(store.refresh)
        await _try(store.verify)
        await _look(store)
        for sequence in (0, store.last_sequence // 2, store.last_sequence):
            view = await _try(store.at, sequence=sequence)
            if view is not None:
                await _look(view)
                for one in (await _try(view.list_sessions) or ())[:1]:
                    await _try(view.get_session, one.session_id)
        await _try(store.at, time_ns=1_700_000_000_000_000_000)


async def _read_session(store: Store, session: Session) -> None:
    repr(session)
    for action in session.actions[: 4 * MOST]:
        repr(action)
        for content in (action.input, action.output):
            if content is not None:
                await _try(store.read_content, content)
                await _drain(store.stream_content(content))
        await _try(store.read_messages, action)
        await _try(store.read_arguments, action)
        await _try(store.read_context, action)
        await _try(store.read_chunks, action)
        await _try(store.why, action)
    await _try(store.read_new_messages, session.actions[:MOST])
    await _try(store.replay(session.session_id).report)
    await _try(_served, store, session)


async def _served(store: Store, session: Session) -> None:
    async with store.serve(session.session_id, stall=0.05) as served:
        for action in session.actions[:MOST]:
            if action.kind == "tool_call":
                arguments = await _try(store.read_arguments, action)
                name = getattr(action.details, "name", "x")
                if isinstance(arguments, dict):
                    await _try(served.call_tool, name, arguments, lambda **_: 1)
            elif action.input is not None:
                given = await _try(store.read_content, action.input) or b""
                question = given.decode(errors="replace")
                await _try(served.ask, question, generate=str, provider="p", model="m")
                await _try(served.find, question)
                await _try(served.put, question)
        served.report()


async def _served_or_run(store: Store, session_id: Any) -> None:
    """Make every call of a session that answers; what it has no answer for runs."""
    how: dict[str, Any] = {"missing": "run", "unserved": "allow", "stall": 0.05}
    async with store.serve(session_id, match=_as_it_is, **how) as served:
        await _try(served.annotate, {"by": "us"})
        for call in _CALLS:
            await _try(call, served)
        repr(served.unserved)
        served.report()


def _as_it_is(_kind: str, _field: str, value: Any) -> Any:
    """Compare of a call what was recorded."""
    return value


def _run_again(call: UncertainCall) -> Any:
    """Settle a call that nobody knows the end of."""
    repr((call.arguments, call.chunks))
    return RUN


async def _follow(store: Store) -> None:
    async with store.subscribe() as events:
        async for event in events:
            repr(event)
            for change in getattr(event.payload, "changes", ()):
                with suppress(MemvidAsyncError):
                    repr(getattr(change, "value", None))
            if event.sequence >= store.last_sequence:
                return


async def _look(view: Any) -> None:
    """Make the calls that a store and a view of an earlier moment have in common."""
    await _try(view.find, "fox OR words")
    await _try(view.find, "near", mode="hybrid", embedding=[1.0, 0.5], embedding_model="m")
    with suppress(MemvidAsyncError):
        async for frame in view.frames():
            repr(frame)
            await _try(view.get, frame.frame_id)
    await _try(view.context, "fox")
    for name in ("values", "lists"):
        keys = view.collection(name)
        await _drain(keys.scan(reverse=True))
        await _drain(keys.scan("a", where={"even": 1}))
        await _try(keys.prefixes, 1)
        await _try(keys.get_many, ["a/0", "b", "turns"])
        for key in ("a/3", "turns"):
            for read_key in (keys.get, keys.items):
                await _try(read_key, key)
            await _try(keys.tail, key, 2)


# Calls of a session that records, and of one that answers.


async def _in_a_step(session: Any) -> None:
    async with session.step("plan", input=[1]) as step:
        step.output = await session.call_tool("add", {"a": 1}, lambda a: a + 1)


async def _in_time(session: Any) -> None:
    async with session.timeout(60):
        await session.once("in time", lambda: 1)


async def _in_a_tool(session: Any) -> None:
    await session.tool(lambda: 1, name="look")()


_CALLS: tuple[Callable[[Any], Awaitable[Any]], ...] = (
    _in_a_step,
    _in_a_tool,
    _in_time,
    lambda session: session.call_model("hi", _echo, model="m"),
    lambda session: _drain(session.stream_model("tell", _echo)),
    lambda session: session.once("dice", lambda: 4),
    lambda session: session.now(),
    lambda session: session.random(),
    lambda session: session.uuid(),
    lambda session: session.sleep(0),
    lambda session: session.put("a fox of the session"),
    lambda session: session.put_many(["two", "three"]),
    lambda session: session.update(1, title="changed"),
    lambda session: session.delete(4),
    lambda session: session.find("fox"),
    lambda session: session.ask("fox?", generate=str),
)
_RECORDS: tuple[Callable[[Any], Awaitable[Any]], ...] = (
    lambda to: to.record_ask("q", provider="p", model="m", response="r", messages=[{"a": "b"}]),
    lambda to: to.record_find("q", mode="m", result_count=1, result_frames=[1]),
    lambda to: to.record_put(1, "one"),
    lambda to: to.record_put_many([1, 2]),
    lambda to: to.record_update(1, "two"),
    lambda to: to.record_delete(1),
    lambda to: to.record_tool_call("look", arguments={"a": 1}, result="r", key="once"),
    lambda to: to.record_step("plan", input="i", output="o"),
    lambda to: to.create_checkpoint(),
)


async def write(path: Path) -> None:
    """Make every call that writes."""
    async with open_store(path) as store:
        summaries = await _try(store.list_sessions, include_open=True) or []
        await _try(store.start_session, "new")
        await _try(store.start_session_if_none)
        await _try(store.put, "a fox more", key="again")
        await _try(store.put_many, ["two", "three"])
        await _try(store.find, "fox")
        await _try(store.ask, "fox?", generate=str)
        for record in _RECORDS:
            await _try(record, store)
        for frame_id in (1, 4):
            await _try(store.update, frame_id, title="changed")
            await _try(store.delete, frame_id)
        await _try(_use, store.session("another"))
        # The oldest ones, which have ended, and the newest, which may be open.
        for one in {id(each): each for each in (*summaries[:MOST], *summaries[-2:])}.values():
            await _try(_write_session, store, one.session_id)
        await _try(store.end_session)
        await _write_keys(store)
        await _try(store.set_embedding_model, "n", lambda texts: [[1.0, 0.0] for _ in texts])
        await _try(store.sync)
        await _try(store.compact)
        await _try(store.find, "fox")
        await _try(store.verify)
    async with open_store(path) as store:
        await _try(store.find, "fox")
        await _look(store)
        await _try(store.verify)
        for kind in (None, "values"):
            await _try(store.prune, keep_last=1, collection=kind, compact_share=0.1)


async def _write_keys(store: Store) -> None:
    for name in ("values", "lists"):
        keys = store.collection(name)
        for key in ("a/3", "turns", "new"):
            await _try(keys.put, key, 1, if_version=0)
            await _try(keys.put, key, [2], metadata={"m": 1}, ttl=60)
            await _try(keys.append, key, ["x"])
            await _try(keys.write_list, key, ["y"], keep=1)
            await _try(keys.pop, key)
        await _try(keys.apply, [Check("b", 1), DeletePrefix("a"), Put("c", 1), Delete("b")])
        await _try(keys.delete, "new")
        await _try(keys.get, "c", ttl=60)
        by_meaning = KeySearch(lambda texts: [[1.0]] * len(texts), "model")
        for found in (keys, store.collection(name, search=by_meaning)):
            await _try(found.find, "fox", limit=2)
            await _try(found.put, "found", "fox")
        await _try(keys.sweep)


async def _write_session(store: Store, session_id: Any) -> None:
    await _try(_use, store.resume_session(session_id))
    await _try(_served_or_run, store, session_id)
    await _try(_resumed, store, session_id)
    with suppress(MemvidAsyncError):
        async with store.resume_session(await store.fork(session_id)):
            await store.put("in a fork")
            await store.find("fork")
    await _try(store.annotate_session, session_id, {"more": 1})
    await _try(store.rename_session, session_id, "other")
    await _try(store.audit, session_id, {"m": str})
    await _try(store.delete_session, session_id)


async def _use(entered: StoreSession) -> None:
    """Make every call of a session that records."""
    async with entered as session:
        for record in _RECORDS:
            await _try(record, session)
        for call in _CALLS:
            await _try(call, session)
        await _try(session.annotate, {"by": "us"})
        await _try(session.record_start, ActionKind.TOOL_CALL, "begun")


async def _resumed(store: Store, session_id: Any) -> None:
    hows: list[dict[str, Any]] = [
        {"uncertain": "run"},
        {"uncertain": _run_again, "match": _as_it_is},
    ]
    for how in hows:
        resumed = store.resume_session(session_id, replay=True, stall=0.05, **how)
        with suppress(MemvidAsyncError):
            async with resumed as session:
                for call in _CALLS[:5]:
                    await _try(call, session)


def commands(path: Path, out: Path, session: str) -> Iterator[list[str]]:
    """Iterate over every command that takes a file: ``recover`` first, those that write last."""
    file = str(path)
    for number, options in enumerate(([], ["--json"])):
        yield ["recover", file, str(out / f"recovered-{number}"), *options]
        yield ["copy", file, str(out / f"copied-{number}"), *options]
        for name in ("info", "sessions", "verify", "frames"):
            yield [name, file, *options]
        yield ["tail", file, "-n", "1000", *options]
        yield ["show", file, session, *options]
        yield ["show", file, session, "--full", *options]
        yield ["find", file, "fox", *options]
        yield ["get", file, "1", *options]
        yield ["replay", file, session, *options]
        yield ["diff", file, session, session, *options]
        yield ["grep", file, "a", *options]
        yield ["why", file, session, *options]
        yield ["usage", file, *options]
    yield ["sessions", file, "--tree"]
    yield ["export", file, session, "-o", str(out / "page.html")]
    yield ["export", file, session, session, "-o", str(out / "two.html")]
    yield ["export", file, session, "--format", "jsonl", "-o", str(out / "session.jsonl")]
    yield ["audit", file, session, "--model", "m=cat"]
    yield ["ask", file, "fox?", "--command", "cat"]
    yield ["fork", file, session]
    yield ["annotate", file, session, "a=1"]
    yield ["rename", file, session, "another name"]
    yield ["end", file, session]
    yield ["put", file, "--lines", str(out / "lines")]
    yield ["import-chat", file, str(out / "chat.json")]
    yield ["prune", file, "--keep-last", "1"]
    yield ["prune", file, "--keep-last", "1", "--collection", "values", "--json"]
    yield ["delete", file, session]
    yield ["compact", file]


def run_commands(path: Path, session: str) -> None:
    """Run every command; each ends with an exit status of its own, and never with an exception."""
    out = path.parent
    (out / "lines").write_text("one\ntwo\n")
    (out / "chat.json").write_text('[{"role": "user", "content": "hi"}]')
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
