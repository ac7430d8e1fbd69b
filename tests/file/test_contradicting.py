"""Right checksums, contents that contradict each other: from every public call and every command
comes an answer or an error of ours, within 2 GB and 20 s of processor time for each MB."""

import asyncio
import functools
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz.every_call import build, commands, every_call
from fuzz.mutate import join, split
from fuzz.structure import contradicting, file_of, index_changes, indexes, made_by_hand
from fuzz.target import small_tables
from memvid_async import (
    Collection,
    MemvidAsyncError,
    ServedSession,
    SessionRecorder,
    Store,
    StoreSession,
    StoreView,
    open_store,
)
from memvid_async.cli.command_line import cli
from memvid_async.format.segment import SegmentKind
from tests.support.contradicting_child import SEEDS
from tests.support.depth import CONTRADICTING_EVERY
from tests.support.frame_plans import eager_saving

ROOT = Path(__file__).resolve().parents[2]
CASES = {"hand": len(made_by_hand()), "chance": SEEDS}
# What every call of a hostile file leaves out: commands that serve until they are stopped, whose
# pages and tools make the other calls, one that makes a file of its own, and one that asks a
# server.
COMMANDS_LEFT_OUT = {"demo", "mcp", "stores", "view"}
KINDS = (Collection, ServedSession, SessionRecorder, Store, StoreSession, StoreView)


class Noted:
    """A method or a property that notes that somebody looked it up in an object."""

    def __init__(self, inner, note):
        self._inner, self._note = inner, note

    def __get__(self, instance, owner):
        if instance is not None:
            self._note()
        return self._inner.__get__(instance, owner)


def test_every_public_call_and_every_command_is_made(tmp_path, monkeypatch):
    path, made = tmp_path / "store.mva", set()
    asyncio.run(build(path))
    wanted = {(kind, name) for kind in KINDS for name in dir(kind) if not name.startswith("_")}
    for kind, name in list(wanted):
        inner = inspect.getattr_static(kind, name)
        if isinstance(inner, property):
            wanted.remove((kind, name))
        note = functools.partial(made.add, (kind, name))
        monkeypatch.setattr(kind, name, Noted(inner, note))
    every_call(path.read_bytes(), tmp_path / "calls")
    # A session's handle is one of both kinds.
    made |= {(SessionRecorder, name) for kind, name in made if kind is StoreSession}
    assert wanted - made == set()
    run = {arguments[0] for arguments in commands(path, tmp_path, "1")}
    assert run | COMMANDS_LEFT_OUT == set(cli.commands)


@pytest.mark.skipif(sys.platform != "linux", reason="bounds are set as Linux counts them")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", CASES)
def test_every_call_and_every_command_answers_or_refuses_within_bounds(group):
    every = CONTRADICTING_EVERY[group]
    result = subprocess.run(
        [sys.executable, "-m", "tests.support.contradicting_child", group, f"{every}"],
        cwd=ROOT,
        # One arena: each thread's own would take address space, which is what is bounded.
        env={
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "MALLOC_ARENA_MAX": "1",
            "PATH": os.environ["PATH"],
        },
        timeout=850,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert int(result.stdout) == -(-CASES[group] // every)


# Made by hand to be refused where they are read; what any of the others says is read.
REFUSED = {"a content whose parts are itself"}


async def delivered(path):
    """Take every event of a file."""
    async with open_store(path, read_only=True) as store, store.subscribe() as events:
        for _ in range(store.last_sequence):
            await anext(events)


def test_what_is_made_by_hand_is_read_as_what_it_says(tmp_path):
    path = tmp_path / "store.mva"
    asyncio.run(build(path))
    begin, _ = split(path.read_bytes())
    refused = {}
    for name, payloads in made_by_hand().items():
        path.write_bytes(file_of(payloads, begin))
        try:
            asyncio.run(delivered(path))
        except MemvidAsyncError as error:
            refused[name] = str(error)
    assert refused.keys() == REFUSED, refused


def test_a_log_with_nothing_derived_is_written_on(tmp_path):
    """A session that was changed after its end is in it, before any of its positions is saved."""
    path = tmp_path / "store.mva"

    async def write():
        async with open_store(path) as store:
            for number in range(4):
                await store.put(f"{number} " * 500)
            assert (await store.verify()).ok
        async with open_store(path) as store:
            return await store.list_sessions(include_open=True)

    with small_tables():
        asyncio.run(build(path))
        begin, parts = split(path.read_bytes())
        path.write_bytes(join(begin, [part for part in parts if part[0] == SegmentKind.EVENTS]))
        listed = asyncio.run(write())
    changed = [one for one in listed if one.metadata.get("more") == 2]
    assert [one.name for one in changed] == ["calls"]


async def make_indexed(path):
    async with open_store(path) as store:
        await store.put_many([f"fox words {number}" for number in range(30)])
        await store.put("near", embedding=[1.0, 0.5], embedding_model="m", tags=["a"], uri="u")
        await store.delete(3)
    with eager_saving():
        async with open_store(path) as store:
            await store.find("fox")


async def answers(path):
    """What searches say, each an answer or None for an error of ours."""

    async def find(store, query, **how):
        try:
            found = await store.find(query, top_k=50, **how)
        except MemvidAsyncError:
            return None
        return [(hit.frame_id, hit.score, hit.snippet, hit.uri) for hit in found.hits]

    async with open_store(path) as store:
        near = {"mode": "hybrid", "embedding": [1.0, 0.5], "embedding_model": "m"}
        return [
            await find(store, "fox"),
            await find(store, "words 7"),
            await find(store, "near", **near),
            await find(store, "near", tags=["a"]),
            [frame.frame_id async for frame in store.frames()],
        ]


async def verified(path):
    async with open_store(path, read_only=True) as store:
        return (await store.verify()).ok


def rows_of(data):
    """All rows of the saved index of a file; FTS5 does not need its index of so few pages."""
    found = []

    def look(database):
        named = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
        for (name,) in database.execute(named).fetchall():
            if name != "words_idx":
                found.append((name, database.execute(f'SELECT * FROM "{name}"').fetchall()))

    indexes(data, look)
    return found


def test_a_saved_index_with_rows_missing_added_or_renumbered_is_not_believed(tmp_path):
    path = tmp_path / "store.mva"
    asyncio.run(make_indexed(path))
    data = path.read_bytes()
    assert [kind for kind, _, _ in split(data)[1]].count(SegmentKind.PROJECTION) == 1
    assert asyncio.run(verified(path))
    rows = rows_of(data)
    right = asyncio.run(answers(path))
    assert len(right[0]) == 29
    changed = {sql: found for sql, found in index_changes(data) if found != data}
    assert len(changed) > 15
    named = 0
    for sql, found in changed.items():
        path.write_bytes(found)
        if asyncio.run(verified(path)):
            assert rows_of(found) == rows, sql
        else:
            named += 1
        for said, wanted in zip(asyncio.run(answers(path)), right, strict=True):
            assert said in (None, wanted), sql
    assert named >= 9


def test_a_contradicting_file_differs_and_has_right_checksums(tmp_path):
    path = tmp_path / "store.mva"
    asyncio.run(make_indexed(path))
    data = path.read_bytes()
    assert len({contradicting(data, seed) for seed in range(20)}) > 15
