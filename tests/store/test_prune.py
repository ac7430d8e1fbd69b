"""prune(): old sessions, or old keys, by age, number and metadata."""

from datetime import timedelta

import pytest

from memvid_async import InvalidValueError, Put, StoreConfig

SECOND = 10**9


class Clock:
    def __init__(self):
        self.now = 1_700_000_000 * SECOND

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


async def filled(make_store, clock, count=6):
    """A store with a session that ends every second, and one that stays open."""
    store = await make_store(config=StoreConfig(clock=clock))
    ids = []
    for n in range(count):
        async with store.session(metadata={"kind": "even" if n % 2 == 0 else "odd"}) as session:
            await session.record_tool_call("secret tool", arguments={"n": n})
        ids.append(session.session_id)
        clock.now += SECOND
    await store.start_session("open")
    return store, ids


async def left(store):
    return [summary.session_id for summary in await store.list_sessions()]


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        ({"older_than": 4}, [0, 1, 2]),
        ({"older_than": timedelta(seconds=4)}, [0, 1, 2]),
        ({"older_than": 0}, [0, 1, 2, 3, 4, 5]),
        ({"older_than": timedelta(days=300)}, []),
        ({"keep_last": 2}, [0, 1, 2, 3]),
        ({"keep_last": 0}, [0, 1, 2, 3, 4, 5]),
        ({"keep_last": 9}, []),
        ({"keep_last": 5, "older_than": 4}, [0]),
        ({"where": {"kind": "odd"}}, [1, 3, 5]),
        ({"where": {"kind": "odd"}, "keep_last": 1}, [1, 3]),
        ({"where": {"kind": "other"}}, []),
    ],
)
async def test_what_is_asked_for_goes_and_nothing_else(make_store, clock, given, gone):
    store, ids = await filled(make_store, clock)
    dry = await store.prune(**given, dry_run=True)
    assert await left(store) == ids
    report = await store.prune(**given)
    assert list(report.sessions) == list(dry.sessions) == [ids[n] for n in gone]
    assert (report.kept, report.event_count) == (dry.kept, dry.event_count)
    assert report.event_count == 3 * len(gone)
    assert (dry.dry_run, report.dry_run, report.compacted) == (True, False, None)
    assert await left(store) == [one for n, one in enumerate(ids) if n not in gone]
    assert store.is_recording


async def test_keys_go_that_were_changed_long_ago(make_store, clock):
    store = await make_store(config=StoreConfig(clock=clock))
    c = store.collection("c")
    for n in range(6):
        await c.put(f"{n}", n, metadata={"n": n})
        clock.now += SECOND
    await c.put("0", "newer")
    await store.collection("other").put("0", 1)
    report = await store.prune(collection="c", older_than=4, where={"n": {"$gte": 1}})
    assert (report.keys, report.kept, report.sessions) == (("1", "2"), 3, ())
    assert [value.key async for value in c.scan()] == ["0", "3", "4", "5"]
    report = await store.prune(collection="c", keep_last=2)
    assert [value.key async for value in c.scan()] == ["0", "5"]
    await c.apply([Put(f"more {n}", n) for n in range(3000)])
    assert len((await store.prune(collection="c", keep_last=100)).keys) == 2902
    assert (await store.prune(collection="none", keep_last=0)).keys == ()
    assert await store.collection("other").get("0") is not None


@pytest.mark.parametrize(("share", "due"), [(0, True), (0.5, True), (0.99, False)])
async def test_it_compacts_where_enough_would_be_erased(make_store, clock, share, due):
    store, _ = await filled(make_store, clock)
    report = await store.prune(keep_last=0, compact_share=share)
    assert (report.compacted is not None) == due
    assert (b"secret tool" in store.path.read_bytes()) != due
    assert (await store.prune(keep_last=0, compact_share=0)).compacted is None


@pytest.mark.parametrize(
    "given",
    [
        {}, {"older_than": -1}, {"older_than": "30d"}, {"older_than": float("nan")},
        {"keep_last": -1}, {"keep_last": 1.5}, {"where": 5}, {"keep_last": 1, "dry_run": 1},
        {"keep_last": 1, "compact_share": 2}, {"keep_last": 1, "collection": 5},
        {"where": {"n": {"$near": 1}}, "collection": "c"},
    ],
)  # fmt: skip
async def test_what_cannot_be_is_refused(make_store, clock, given):
    store, ids = await filled(make_store, clock, 1)
    with pytest.raises(InvalidValueError):
        await store.prune(**given)
    assert await left(store) == ids
