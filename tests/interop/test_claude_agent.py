"""The Claude Agent SDK's session store; skipped where the SDK is not installed."""

import asyncio

import pytest

pytest.importorskip("claude_agent_sdk")

from claude_agent_sdk.testing import run_session_store_conformance

from memvid_async import SyncStore
from memvid_async.interop.claude_agent import MemvidSessionStore

KEY = {"project_key": "p/1", "session_id": "s%"}


def entry(number, **fields):
    return {"type": "user", "uuid": f"u{number}", "n": number, **fields}


async def test_the_sdks_own_contracts_hold(make_store):
    """Every one of the 14: the names of the collections keep them apart."""
    store, numbers = await make_store(), iter(range(1000))
    await run_session_store_conformance(
        lambda: MemvidSessionStore(store, collection=f"claude {next(numbers)}")
    )
    for method in ("list_sessions", "list_session_summaries", "delete", "list_subkeys"):
        assert callable(getattr(MemvidSessionStore, method))


async def test_an_entry_is_there_once(make_store):
    store = MemvidSessionStore(await make_store())
    await store.append(KEY, [entry(1), entry(2), entry(1)])
    await store.append(KEY, [entry(2), {"type": "title"}, entry(3)])
    await store.append(KEY, [{"type": "title"}, entry(3)])
    loaded = await store.load(KEY)
    assert [one.get("n") for one in loaded] == [1, 2, None, 3, None]


async def test_processes_append_at_once_and_lose_nothing(make_store):
    stores = [MemvidSessionStore(await make_store("one.mva")) for _ in range(3)]

    async def work(store, number):
        for n in range(10):
            stamp = f"2026-01-01T00:00:{n:02}Z"
            one = entry(100 * number + n, timestamp=stamp, customTitle=f"{number} {n}")
            await store.append(KEY, [one, entry(5000 + n)])

    await asyncio.gather(*(work(store, number) for number, store in enumerate(stores)))
    loaded = await stores[0].load(KEY)
    numbers = sorted(one["n"] for one in loaded)
    assert numbers == sorted([*range(10), *range(100, 110), *range(200, 210), *range(5000, 5010)])
    for store in stores:
        assert await store.load(KEY) == loaded
        (summary,) = await store.list_session_summaries("p/1")
        last = [one for one in loaded if "customTitle" in one][-1]
        assert last["customTitle"] in str(summary["data"])


async def test_names_do_not_meet(make_store):
    store = MemvidSessionStore(await make_store())
    keys = [
        {"project_key": project, "session_id": session, "subpath": subpath}
        for project, session in (("a", "b"), ("a/b", "c"), ("a", "b/c"), ("a%2fb", "c"))
        for subpath in ("", "sub/agent", "sub")
    ]
    for number, key in enumerate(keys):
        await store.append(key, [entry(number)])
    for number, key in enumerate(keys):
        assert await store.load(key) == [entry(number)]
    assert sorted(await store.list_subkeys(keys[0])) == ["sub", "sub/agent"]
    await store.delete(keys[2])
    assert await store.list_subkeys(keys[0]) == ["sub/agent"]
    await store.delete(keys[0])
    assert [await store.load(key) is None for key in keys] == [True] * 3 + [False] * 9


def test_it_works_on_any_loop(tmp_path):
    with SyncStore.open(tmp_path / "a.mva") as opened:
        store = MemvidSessionStore(opened)
        asyncio.run(store.append(KEY, [entry(1)]))
        assert asyncio.run(store.load(KEY)) == [entry(1)]
