"""LangGraph's checkpoints and store in collections; skipped where LangGraph is not installed."""

import asyncio
import threading

import pytest

pytest.importorskip("langgraph")

from langgraph.checkpoint.base import empty_checkpoint
from langgraph.store.base import PutOp

from memvid_async import KeyDeleted, StoreConfig, SyncStore, open_store
from memvid_async.interop.langgraph import MemvidSaver, MemvidStore
from memvid_async.interop.langgraph_values import _RUN_ITEMS
from tests.suites.langgraph_savers import BROKEN, conformance


def config(thread="t", ns="", checkpoint=None):
    names = {"thread_id": thread, "checkpoint_ns": ns}
    return {"configurable": names | ({"checkpoint_id": checkpoint} if checkpoint else {})}


def checkpoint(number, **values):
    versions = dict.fromkeys(values, number)
    return {
        **empty_checkpoint(),
        "id": f"{number:04}",
        "channel_values": values,
        "channel_versions": versions,
    }


async def put(saver, number, thread="t", parent=None, **values):
    metadata = {"step": number, "run_id": f"run {number}"}
    return await saver.aput(config(thread, "", parent), checkpoint(number, **values), metadata, {})


async def values(saver, thread="t", number=None):
    found = await saver.aget_tuple(config(thread, "", number and f"{number:04}"))
    return found and found.checkpoint["channel_values"]


async def test_the_conformance_suite_passes(tmp_path):
    pytest.importorskip("langgraph.checkpoint.conformance")
    report = await conformance(MemvidSaver, tmp_path / "saver.mva")
    assert report == {"passed": 81, "failed": [], "capabilities": 8}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.__name__)
async def test_the_conformance_suite_finds_a_broken_saver(broken, tmp_path):
    pytest.importorskip("langgraph.checkpoint.conformance")
    assert (await conformance(broken, tmp_path / "saver.mva"))["failed"]


async def test_names_do_not_meet(make_store):
    saver = MemvidSaver(await make_store())
    names = ["a", "a/b", "a%2fb", "a%", "/", "é"]
    for number, name in enumerate(names):
        await put(saver, number, name, where=name)
    for name in names:
        assert await values(saver, name) == {"where": name}
        await saver.adelete_thread(name)
        assert await values(saver, name) is None


async def test_a_chat_is_stored_once_and_forks_are_right(make_store):
    store = await make_store()
    saver = MemvidSaver(store)
    chat = [{"n": n, "text": "word " * 60} for n in range(100)]
    for n in range(1, 100):
        await put(saver, n, parent=f"{n - 1:04}", messages=chat[:n])
    await put(saver, 200, parent="0050", messages=[*chat[:50], {"n": "fork"}])
    assert store.statistics().file_bytes < 10 * len(str(chat))
    for n in (1, _RUN_ITEMS - 1, _RUN_ITEMS, _RUN_ITEMS + 1, 50, 99):
        assert await values(saver, number=n) == {"messages": chat[:n]}
    assert await values(saver) == {"messages": [*chat[:50], {"n": "fork"}]}
    assert (await saver.aget_tuple(config())).parent_config == config(checkpoint="0050")


async def test_what_another_process_deletes_is_stored_again(make_store):
    one, two = [MemvidSaver(await make_store("one.mva")) for _ in range(2)]
    chat = ["word " * 100] * 40
    await put(one, 1, messages=chat)
    await two.adelete_thread("t")
    await put(one, 2, messages=chat)
    assert await values(one) == {"messages": chat}
    await put(one, 3, messages=["other " * 100] * 40)
    await two.aprune(["t"])
    await put(one, 4, messages=chat)
    assert await values(two, number=4) == await values(one) == {"messages": chat}


async def test_pruning_leaves_nothing_that_nobody_needs(make_store):
    store = await make_store()
    saver = MemvidSaver(store)
    for n in range(1, 20):
        await put(saver, n, parent=f"{n - 1:04}", text=f"secret {n} " * 100)
        await saver.aput_writes(config(checkpoint=f"{n:04}"), [("c", f"write {n}")], "task")
    await saver.aprune(["t"])
    await store.compact()
    data = store.path.read_bytes()
    assert b"secret 19" in data
    assert b"write 19" in data
    assert b"secret 18" not in data
    assert b"write 18" not in data
    await saver.adelete_for_runs(["run 19"])
    assert await values(saver) is None


async def test_pruning_keeps_what_delta_channels_are_rebuilt_from(make_store):
    saver = MemvidSaver(await make_store())
    await put(saver, 1, chat=["snapshot"])
    for n in (2, 3, 4):
        delta = {"step": n, "counters_since_delta_snapshot": {"chat": (n, n)}}
        await saver.aput(config(checkpoint=f"{n - 1:04}"), checkpoint(n, other=n), delta, {})
        await saver.aput_writes(config(checkpoint=f"{n:04}"), [("chat", n)], "task")
    await put(saver, 0, other=0)
    await saver.aprune(["t"])
    history = await saver.aget_delta_channel_history(config=config(), channels=["chat"])
    assert history["chat"]["seed"] == ["snapshot"]
    assert [write[2] for write in history["chat"]["writes"]] == [2, 3]
    assert [found.checkpoint["id"] async for found in saver.alist(config())][-1] == "0001"


async def test_a_checkpoint_that_is_its_own_ancestor_ends_the_walk(make_store):
    saver = MemvidSaver(await make_store())
    delta = {"counters_since_delta_snapshot": {"chat": (1, 1)}, "of": {"a-b": 1}}
    for n, parent in ((1, None), (2, "0001"), (1, "0002")):
        await saver.aput(config(checkpoint=parent), checkpoint(n), delta, {})
    for n in (1, 2):
        await saver.aput_writes(config(checkpoint=f"{n:04}"), [("chat", n)], "task")
    asked = {"config": config(checkpoint="0002"), "channels": ["chat"]}
    history = await saver.aget_delta_channel_history(**asked)
    assert [write[2] for write in history["chat"]["writes"]] == [1]
    await saver.aprune(["t"])
    assert len([one async for one in saver.alist(config(), filter={"of.a-b": 1})]) == 2
    assert [one async for one in saver.alist(config(), filter={"of.a-b": 2})] == []


async def test_writes_of_a_task_are_kept_once_and_in_order(make_store):
    saver = MemvidSaver(await make_store())
    await put(saver, 1)
    at = config(checkpoint="0001")
    await saver.aput_writes(at, [("b", 2), ("c", 3)], "task", "path 2")
    await saver.aput_writes(at, [("b", "again"), ("c", "again"), ("d", 4)], "task", "path 2")
    await saver.aput_writes(at, [("a", 1)], "other task", "path 1")
    await saver.aput_writes(at, [("__error__", "no")], "task", "path 2")
    await saver.aput_writes(at, [("__error__", "yes")], "task", "path 2")
    writes = (await saver.aget_tuple(at)).pending_writes
    assert [write[1:] for write in writes] == [
        ("a", 1), ("__error__", "yes"), ("b", 2), ("c", 3), ("d", 4),
    ]  # fmt: skip


def test_it_works_without_asyncio_and_from_any_loop(tmp_path):
    path = tmp_path / "a.mva"
    with MemvidSaver.from_path(path) as saver:
        saver.put(config(), checkpoint(1, text="x"), {}, {})
        saver.put_writes(config(checkpoint="0001"), [("a", 1)], "task")
        assert saver.get_tuple(config()).pending_writes == [("task", "a", 1)]
        assert [found.checkpoint["id"] for found in saver.list(config())] == ["0001"]
        assert asyncio.run(values(saver)) == {"text": "x"}
        saver.copy_thread("t", "u")
        saver.prune(["u"])
        saver.delete_thread("t")
        saver.delete_for_runs(["none"])
        assert saver.get_tuple(config()) is None
        assert saver.get_tuple(config("u")).checkpoint["channel_values"] == {"text": "x"}
    with SyncStore.open(path) as store:
        assert MemvidSaver(store).get_tuple(config("u")) is not None


async def test_a_synchronous_call_on_its_own_loop_is_refused(make_store):
    saver = MemvidSaver(await make_store())
    with pytest.raises(asyncio.InvalidStateError, match="await"):
        saver.get_tuple(config())
    found = []
    thread = threading.Thread(target=lambda: found.append(saver.get_tuple(config())))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert found == [None]


# The store.


async def test_items_are_found_by_their_fields(make_store):
    store = MemvidStore(await make_store())
    for n in range(30):
        await store.aput(
            ("users", f"u{n % 3}"), f"k{n:02}", {"n": n, "tag": ["even", "odd"][n % 2]}
        )
    found = await store.asearch(("users",), filter={"n": {"$gte": 27}, "tag": "odd"}, limit=5)
    assert [item.key for item in found] == ["k27", "k29"]
    assert found[0].namespace == ("users", "u0")
    page = await store.asearch(("users", "u1"), limit=2, offset=1)
    assert [item.key for item in page] == ["k04", "k07"]
    assert await store.alist_namespaces(prefix=("users",), max_depth=1) == [("users",)]
    assert await store.alist_namespaces(suffix=("u2",)) == [("users", "u2")]
    assert await store.asearch(("user",)) == []


async def test_an_item_changes_and_goes(make_store):
    store = MemvidStore(await make_store())
    await store.aput(("a",), "k", {"v": 1})
    first = await store.aget(("a",), "k")
    await store.aput(("a",), "k", {"v": 2})
    second = await store.aget(("a",), "k")
    assert (first.value, second.value) == ({"v": 1}, {"v": 2})
    assert first.created_at == second.created_at <= second.updated_at
    last = [PutOp(("a",), "k", {"v": 3}), PutOp(("a",), "k", {"v": 4})]
    await store.abatch(last)
    assert (await store.aget(("a",), "k")).value == {"v": 4}
    await store.adelete(("a",), "k")
    assert await store.aget(("a",), "k") is None


async def test_an_item_expires_unless_it_is_read(make_store):
    now = [1_700_000_000 * 10**9]
    opened = await make_store(config=StoreConfig(clock=lambda: now[0]))
    store = MemvidStore(opened)
    await store.aput(("a",), "read", {}, ttl=1)
    await store.aput(("a",), "left", {}, ttl=1)
    for _ in range(3):
        now[0] += 40 * 10**9
        assert await store.aget(("a",), "read") is not None
    assert await store.aget(("a",), "left") is None
    assert await store.aget(("a",), "read", refresh_ttl=False) is not None


async def test_what_has_expired_is_swept_by_hand_and_regularly(make_store):
    now = [1_700_000_000 * 10**9]
    opened = await make_store(config=StoreConfig(clock=lambda: now[0]))
    store = MemvidStore(opened, ttl={"default_ttl": 1, "sweep_interval_minutes": 1e-6})
    await store.aput(("a",), "k", {})
    now[0] += 40 * 10**9
    assert await store.aget(("a",), "k") is not None
    assert await store.sweep_ttl() == 0
    now[0] += 40 * 10**9
    assert await store.sweep_ttl() == 1
    await store.aput(("a",), "k", {})
    now[0] += 61 * 10**9
    async with opened.subscribe(opened.last_sequence) as events:
        sweeping = await store.start_ttl_sweeper()
        assert await store.start_ttl_sweeper() is sweeping
        assert (await anext(events)).payload.changes == (KeyDeleted("a/k"),)
    assert await store.stop_ttl_sweeper(timeout=10)
    assert await sweeping is None
    await store.start_ttl_sweeper()
    await opened.aclose()
    assert await store._sweeper.stop(10), "it ends with the store"


def test_the_sweeper_works_without_asyncio(tmp_path):
    with MemvidStore.from_path(tmp_path / "a.mva") as store:
        store.put(("a",), "k", {}, ttl=1e-9)
        assert store.stop_ttl_sweeper()
        sweeping = store.start_ttl_sweeper(1e-6)
        with store._bridge.sync.subscribe() as events:
            next(e for e in events if KeyDeleted("a/k") in getattr(e.payload, "changes", ()))
        assert store.stop_ttl_sweeper(timeout=10)
        assert sweeping.result(10) is None
        with pytest.raises(ValueError, match="above 0"):
            store.start_ttl_sweeper(0)
        assert store.sweep_ttl() == 0
        store.start_ttl_sweeper()


async def test_both_share_a_file_with_a_recording(tmp_path):
    path = tmp_path / "all.mva"
    async with open_store(path) as store, store.session() as session:
        await put(MemvidSaver(store), 1, text="x")
        await MemvidStore(store).aput(("a",), "k", {"v": 1})
        await session.record_tool_call("t", arguments={})
    async with MemvidStore.from_path(path) as again:
        assert (await again.aget(("a",), "k")).value == {"v": 1}
        sweeping = await again.start_ttl_sweeper()
    assert sweeping.done()


async def test_items_are_found_by_meaning(make_store):
    pytest.importorskip("numpy")
    asked = []

    async def embed(texts):
        asked.extend(texts)
        return [[text.count("a") + 0.01, text.count("b") + 0.01] for text in texts]

    index = {"dims": 2, "embed": embed, "fields": ["text", "tags[*]"]}
    found = MemvidStore(await make_store(), index=index)
    await found.aput(("n",), "1", {"text": "aaa", "tags": ["b"], "n": 1})
    await found.aput(("n",), "2", {"text": "aab", "tags": [], "n": 2}, ttl=1)
    await found.aput(("n",), "own", {"text": "b", "other": "aa"}, index=["other"])
    await found.aput(("n",), "none", {"text": "aaa"}, index=False)
    assert asked == ["aaa", "b", "aab", "aa"]

    def told(items):
        return [(item.key, item.score and round(item.score, 1)) for item in items]

    best = told(await found.asearch(("n",), query="a", limit=2))
    assert sorted(best) == [("1", 1.0), ("own", 1.0)]
    everything = [("1", 1.0), ("own", 0.0), ("2", 0.5), ("none", None)]
    assert set(told(await found.asearch(("n",), query="bb"))) == set(everything)
    assert told(await found.asearch(("n",), query="a", offset=2, limit=1)) == [("2", 0.9)]
    assert told(await found.asearch(("n",), query="a", filter={"n": {"$gte": 2}})) == [("2", 0.9)]
    before = len(asked)
    assert told(await found.asearch(("n",), limit=2)) == [("1", None), ("2", None)]
    assert len(asked) == before, "reading and giving more time embeds nothing"
