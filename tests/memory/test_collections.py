"""Collections: keys, lists and conditions, against a dict; in one store, in views, over files."""

import asyncio
import tempfile
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    Check,
    Collection,
    CollectionChanged,
    Delete,
    DeletePrefix,
    InvalidValueError,
    KeySearch,
    LimitExceededError,
    Limits,
    Put,
    StoreConfig,
    StoreReadOnlyError,
    VersionConflictError,
    open_store,
    recover,
)
from memvid_async.core import recent_keys
from memvid_async.memory import folded_keys, key_recall, key_vectors, seen_keys
from memvid_async.search import key_index
from tests.support.plans import examples, small_tables

SECOND = 10**9


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 1_700_000_000 * SECOND

    def __call__(self):
        return self.now


async def all_of(collection, *args, **options):
    return [value async for value in collection.scan(*args, **options)]


async def keys_of(collection, *args, **options):
    return [value.key for value in await all_of(collection, *args, **options)]


# Against a dict.

KEYS = st.sampled_from(["", "a", "a/1", "a/2", "a!", "b", "b/é/x", "b/\U0001f600", "c\0d"])
ITEMS = st.lists(st.sampled_from([1, "two", None, {"n": 3}, "x" * 1500]), max_size=4)
DATA = st.one_of(ITEMS, st.integers(), st.text(max_size=5), st.binary(max_size=5), st.none())
METADATA = st.none() | st.fixed_dictionaries({"n": st.integers(0, 3) | st.text(max_size=1)})
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, DATA, METADATA, st.sampled_from([None, None, 1, 5])),
    st.tuples(st.just("put_if"), KEYS, DATA, st.sampled_from([0, 0, 5])),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("delete_prefix"), KEYS),
    st.tuples(st.just("apply"), st.lists(st.tuples(KEYS, DATA), max_size=3), KEYS),
    st.tuples(st.just("append"), KEYS, ITEMS),
    st.tuples(st.just("pop"), KEYS),
    st.tuples(st.just("write"), KEYS, ITEMS, st.none() | st.integers(0, 4)),
    st.tuples(st.just("renew"), KEYS, st.sampled_from([1, 5, 80])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("wait"), st.integers(1, 4)),
    st.tuples(st.just("compact")),
    st.tuples(st.just("reopen")),
)


class Twin:
    """A collection as a dict: a key has its data, whether it is a list, version, expiry.

    Each method makes a call, and changes the dict as that should have done.
    """

    def __init__(self, clock):
        self.clock = clock
        self.keys = {}

    def alive(self):
        """The keys that have not expired, in order."""
        return {
            key: held
            for key, held in sorted(self.keys.items(), key=lambda item: item[0].encode())
            if held["expires"] is None or held["expires"] > self.clock.now
        }

    def data(self, key):
        held = self.alive().get(key)
        return held["data"] if held else []

    def version(self, key):
        held = self.alive().get(key)
        return held["version"] if held else 0

    def holds(self, key, *, is_list):
        held = self.alive().get(key)
        return held is not None and held["list"] == is_list

    def set(self, key, data, version, *, is_list=False, metadata=None, expires=None):
        self.keys[key] = {
            "data": data, "list": is_list, "version": version, "metadata": metadata or {},
            "expires": expires,
        }  # fmt: skip

    async def refused(self, call):
        with pytest.raises(InvalidValueError):
            await call

    async def put(self, c, key, data, metadata, ttl):
        call = c.put(key, data, metadata=metadata, ttl=ttl)
        if self.holds(key, is_list=True):
            await self.refused(call)
            return
        expires = None if ttl is None else self.clock.now + ttl * SECOND
        self.set(key, data, await call, metadata=metadata, expires=expires)

    async def put_if(self, c, key, data, off):
        version = self.version(key)
        call = c.put(key, data, if_version=version + off)
        if off:
            with pytest.raises(VersionConflictError) as caught:
                await call
            assert caught.value.version == version
            assert (caught.value.value is None) == (not version)
        elif self.holds(key, is_list=True):
            await self.refused(call)
        else:
            self.set(key, data, await call)

    async def renew(self, c, key, ttl):
        value, held = await c.get(key, ttl=ttl), self.alive().get(key)
        assert (value is None) == (held is None)
        if held is not None and held["expires"] is not None:
            later = self.clock.now + ttl * SECOND
            # A sixteenth of the time at least is worth an event.
            if later - held["expires"] >= ttl * SECOND // 16:
                held["expires"] = later
            assert (value.version, value.expires_ns) == (held["version"], held["expires"])

    async def sweep(self, c):
        assert await c.sweep() == len(self.keys) - len(self.alive())
        self.keys = self.alive()

    async def delete(self, c, key):
        await c.delete(key)
        self.keys.pop(key, None)

    async def delete_prefix(self, c, prefix):
        await c.apply([DeletePrefix(prefix)])
        self.keys = {k: v for k, v in self.keys.items() if not k.startswith(prefix)}

    async def apply(self, c, puts, gone):
        checks = [Check(key, self.version(key)) for key, _ in puts]
        call = c.apply([Delete(gone), *(Put(key, data) for key, data in puts), *checks])
        if any(self.holds(key, is_list=True) for key, _ in puts):
            await self.refused(call)
            return
        version = await call
        self.keys.pop(gone, None)
        for key, data in puts:
            self.set(key, data, version)

    async def append(self, c, key, items):
        call = c.append(key, items)
        if self.holds(key, is_list=False):
            await self.refused(call)
            return
        self.set(key, self.data(key) + items, await call, is_list=True)

    async def pop(self, c, key):
        if self.holds(key, is_list=False):
            await self.refused(c.pop(key))
            return
        before = self.data(key)
        assert await c.pop(key) == (before[-1] if before else None)
        if before:
            version = (await c.get(key)).version
            self.set(key, before[:-1], version, is_list=True)

    async def write(self, c, key, items, keep):
        before, call = self.data(key), c.write_list(key, items, keep=keep)
        if self.holds(key, is_list=False) or (keep or 0) > len(before):
            await self.refused(call)
            return
        data = items if keep is None else before[:keep] + items
        self.set(key, data, await call, is_list=True)


def told(values):
    return [(v.key, v.data, v.version, dict(v.metadata), v.expires_ns) for v in values]


def expected(twin):
    return [
        (key, held["data"], held["version"], held["metadata"], held["expires"])
        for key, held in twin.alive().items()
    ]


async def live(steps, path, clock):
    config, twin, moments = StoreConfig(clock=clock), Twin(clock), {}
    for run in [list(run) for _, run in groupby(steps, lambda step: step == ("reopen",))]:
        async with open_store(path, config=config) as store:
            for what, *given in run:
                c, before = store.collection("c"), store.last_sequence
                if what == "wait":
                    clock.now += given[0] * SECOND
                elif what == "compact":
                    await store.compact()
                    moments.clear()
                    twin.keys = twin.alive()
                elif what != "reopen":
                    await getattr(twin, what)(c, *given)
                if store.last_sequence > before:
                    moments[store.last_sequence] = expected(twin)
                assert told(await all_of(c)) == expected(twin)
            for sequence, then in moments.items():
                view = await store.at(sequence=sequence)
                assert told(await all_of(view.collection("c"))) == then
            async with open_store(path, read_only=True, config=config) as follower:
                assert told(await all_of(follower.collection("c"))) == expected(twin)
            assert (await store.verify()).ok


@pytest.mark.parametrize("saved", [False, True])
@given(steps=st.lists(STEPS, max_size=25))
@examples(1)
def test_a_collection_is_a_dict_of_values_and_lists(saved, steps):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        if saved:
            patch.setattr(folded_keys, "_SAVE_CHANGES", 1)
            patch.setattr(folded_keys, "_SAVE_PART", 2**40)
            patch.setattr(key_recall, "_LOOK_BYTES", 1)
            # So few that most keys have to be looked at.
            patch.setattr(recent_keys, "MOST_KEYS", 2)
            patch.setattr(recent_keys, "MOST_PREFIXES", 1)
        with small_tables():
            asyncio.run(live(steps, Path(folder) / "keys.mva", Clock()))


async def test_reading_prolongs_a_life_where_asked(make_store):
    clock = Clock()
    store = await make_store(config=StoreConfig(clock=clock))
    c = store.collection("c")
    await c.put("session", "data", ttl=60)
    await c.put("other", "data", ttl=60)
    for _ in range(10):
        clock.now += 50 * SECOND
        last = store.last_sequence
        # Asked for twice, it is prolonged once.
        assert {v.expires_ns for v in await c.get_many(["session"] * 2, ttl=60)} == {
            clock.now + 60 * SECOND
        }
        # Soon after it is not worth an event.
        clock.now += SECOND
        await c.get("session", ttl=60)
        assert store.last_sequence == last + 1
    assert await keys_of(c) == ["session"]
    await store.compact()
    assert (await c.get("session")).data == "data"
    assert await c.put("session", "new", if_version=(await c.get("session")).version)
    assert await c.sweep() == 0


async def test_a_value_that_changed_meanwhile_is_not_given_more_time(make_store):
    clock = Clock()
    one, two = [await make_store(config=StoreConfig(clock=clock)) for _ in range(2)]
    await one.collection("c").put("k", 1, ttl=60)
    await two.refresh()
    await one.collection("c").put("k", 2, ttl=3600)
    stale = await two.collection("c").get("k", ttl=90)
    assert (stale.data, stale.expires_ns) == (1, clock.now + 60 * SECOND)
    assert (await one.collection("c").get("k")).expires_ns == clock.now + 3600 * SECOND


# By meaning.


def embed_letters(texts):
    return [[float(text.count(letter)) + 0.01 for letter in "abcdef"] for text in texts]


@pytest.fixture
def by_meaning():
    pytest.importorskip("numpy")
    return KeySearch(embed_letters, "letters")


async def test_values_are_found_by_meaning(make_store, by_meaning):
    store = await make_store("found.mva")
    c = store.collection("c", search=by_meaning)
    await c.put("1/a", "aaaa", metadata={"n": 1})
    await c.apply([Put("1/b", {"x": "bbb"}), Put("2/a", "aab", {"n": 2}), Delete("1/c")])
    await c.append("list", ["aaaaaa"])
    assert [found.value.key for found in await c.find("aa")] == ["1/a", "2/a", "1/b"]
    assert (await c.find("aa"))[0].score == pytest.approx(1, abs=1e-3)
    assert [found.value.data for found in await c.find("a", prefix="2/")] == ["aab"]
    assert await c.find("a", limit=0) == await c.find("a", prefix="3/") == []
    assert [found.value.key for found in await c.find("b", where={"n": {"$gte": 1}}, limit=1)] == [
        "2/a"
    ]
    await c.put("1/a", "bbbb")
    await c.delete("1/b")
    assert [found.value.key for found in await c.find("b")] == ["1/a", "2/a"]
    await store.compact()
    await c.put("1/z", "b")
    assert [found.value.key for found in await c.find("b")] == ["1/z", "1/a", "2/a"]
    await store.aclose()
    again = await make_store("found.mva")
    found = await again.collection("c", search=by_meaning).find("b")
    assert [one.value.key for one in found] == ["1/z", "1/a", "2/a"]
    assert "value of 3" not in repr(found)


async def test_each_field_is_embedded_on_its_own(make_store, by_meaning):
    search = KeySearch(embed_letters, "letters", ["title", "body.text"])
    c = (await make_store()).collection("c", search=search)
    await c.put("1", {"title": "aaa", "body": {"text": "fff"}, "other": "bbb"})
    await c.put("2", {"title": "bbb", "body": "no map"})
    await c.put("3", "no map")
    assert [found.value.key for found in await c.find("f")] == ["1", "2"]
    assert [found.value.key for found in await c.find("b", limit=1)] == ["2"]
    assert (await c.find("a"))[0].score == pytest.approx(1, abs=1e-2)


async def test_only_embeddings_of_the_same_model_are_compared(make_store, by_meaning, monkeypatch):
    store = await make_store()
    await store.collection("c").put("without", "aaa")
    await store.collection("c", search=by_meaning).put("with", "aaa")
    other = KeySearch(lambda texts: [[1.0, 2.0] for _ in texts], "other")
    await store.collection("c", search=other).put("other", "aaa")
    same = KeySearch(lambda texts: [[1.0, 2.0] for _ in texts], "letters")
    # One that is full is replaced by a new one.
    monkeypatch.setattr(key_vectors, "_MOST_BYTES", 1)
    for _ in range(2):
        for search, wanted in ((by_meaning, ["with"]), (other, ["other"]), (same, [])):
            found = await store.collection("c", search=search).find("a")
            assert [one.value.key for one in found] == wanted


async def test_what_an_embedder_returns_is_checked_before_anything_is_put(make_store, by_meaning):
    store = await make_store()
    for returned in ([], [[float("nan")]], [None], "text", 5):
        search = KeySearch(lambda _, made=returned: made, "m")
        with pytest.raises(InvalidValueError):
            await store.collection("c", search=search).put("k", "text")
    with pytest.raises(InvalidValueError, match="KeySearch"):
        await store.collection("c").find("a")
    with pytest.raises(InvalidValueError, match="fields"):
        KeySearch(embed_letters, "m", "title")
    assert store.last_sequence == 0


# Order, prefixes, conditions.


async def test_keys_are_ordered_and_cut_at_slashes(make_store):
    c = (await make_store()).collection("c")
    keys = ["", "a", "a!", "a/b", "a/b/c", "a/d", "b", "é/1", "\U0001f600/1/2", "\ue000"]
    await c.apply([Put(key, key) for key in keys])
    assert await keys_of(c) == sorted(keys)
    assert await keys_of(c, reverse=True) == sorted(keys)[::-1]
    assert await keys_of(c, "a/", after="a/b") == ["a/b/c", "a/d"]
    assert await keys_of(c, "a", reverse=True, after="a/b/c", limit=2) == ["a/b", "a!"]
    assert await keys_of(c, limit=0) == []
    assert await c.prefixes(1) == sorted({key.split("/")[0] for key in keys})
    assert await c.prefixes(2, prefix="a") == ["a", "a!", "a/b", "a/d"]
    with pytest.raises(InvalidValueError, match="depth"):
        await c.prefixes(0)


async def test_a_long_scan_goes_page_by_page(make_store):
    c = (await make_store()).collection("c")
    await c.apply([Put(f"{n:04}", n) for n in range(1500)])
    assert [value.data for value in await all_of(c)] == list(range(1500))
    assert [value.data for value in await all_of(c, reverse=True, limit=700)] == list(
        range(1499, 799, -1)
    )


FIELDS = {"n": 3, "f": 2.5, "t": "é", "b": True, "z": None, "in": {"n": [1, {"x": 2}]}, "l": []}


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"n": 3}, True),
        ({"n": 3.0}, True),
        ({"n": {"$gte": 3, "$lt": 4}}, True),
        ({"n": {"$gt": 3}}, False),
        ({"n": {"$gt": "a"}}, False),
        ({"n": "3"}, False),
        ({"f": {"$lte": 2.5}}, True),
        ({"t": {"$gt": "z"}}, True),
        ({"b": True}, True),
        ({"b": 1}, False),
        ({"z": None}, True),
        ({"missing": None}, True),
        ({"missing": {"$ne": 1}}, True),
        ({"n": {"$ne": 3}}, False),
        ({"n": {"$in": [1, "x", 3]}}, True),
        ({"n": {"$in": []}}, False),
        ({"in.n": [1, {"x": 2}]}, True),
        ({"in": {"n": [1, {"x": 2}]}}, True),
        ({"in": {"n": [1]}}, False),
        ({"l": {"$eq": []}}, True),
        ({"n": 3, "t": "x"}, False),
        ({"n": {"$gt": 2**70}}, False),
    ],
)
async def test_conditions_on_the_metadata(make_store, where, found):
    c = (await make_store()).collection("c")
    await c.put("k", 1, metadata=FIELDS)
    assert await keys_of(c, where=where) == (["k"] if found else [])


@pytest.mark.parametrize(
    "where",
    [
        "n", {1: 2}, {"n": {"$near": 1}}, {"n": {"$gt": None}}, {"n": {"$gt": 1, "x": 2}},
        {"n": {"$in": "abc"}}, {'"': 1}, {"n": {"$lt": [1]}}, {"n": b"x"},
    ],
)  # fmt: skip
async def test_conditions_that_cannot_be_are_refused(make_store, where):
    c = (await make_store()).collection("c")
    await c.put("k", 1, metadata=FIELDS)
    with pytest.raises(InvalidValueError):
        await all_of(c, where=where)


# What is refused, and what stays apart.


BAD = {
    "a key that is not text": lambda c: c.put(1, 1),
    "a lone surrogate": lambda c: c.get("\ud800"),
    "a value with a type of its own": lambda c: c.put("k", {"a": {1, 2}}),
    "metadata that is not a map": lambda c: c.put("k", 1, metadata=[1]),
    "a ttl of nothing": lambda c: c.put("k", 1, ttl=0),
    "a ttl that is not a number": lambda c: c.put("k", 1, ttl="1"),
    "a version that is not a number": lambda c: c.put("k", 1, if_version="1"),
    "a step that is none": lambda c: c.apply(["k"]),
    "steps that are not a list": lambda c: c.apply(Put("k", 1)),
    "items that are text": lambda c: c.append("k", "text"),
    "a bad item": lambda c: c.append("k", [1, object()]),
    "keys that are text": lambda c: c.get_many("k"),
    "keys that are no list": lambda c: c.get_many(1),
    "a negative tail": lambda c: c.tail("k", -1),
    "a negative keep": lambda c: c.write_list("k", [], keep=-1),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_cannot_be_is_refused_and_nothing_is_written(make_store, what):
    store = await make_store()
    with pytest.raises(InvalidValueError):
        await BAD[what](store.collection("c"))
    assert store.last_sequence == 0


async def test_limits(make_store):
    limits = Limits(key_chars=4, changes=3, content_bytes=64, collections=2, name_chars=5)
    store = await make_store(config=StoreConfig(limits=limits))
    c = store.collection("c")
    for call in (
        c.put("12345", 1),
        c.put("k", "x" * 70),
        c.append("k", [1, 2, 3, 4]),
        c.apply([Delete("k")] * 4),
    ):
        with pytest.raises(LimitExceededError):
            await call
    with pytest.raises(LimitExceededError):
        store.collection("123456")
    await c.put("k", 1)
    await store.collection("d").put("k", 2)
    with pytest.raises(LimitExceededError, match="collections"):
        await store.collection("e").put("k", 3)
    assert (await c.get("k")).data == 1


async def test_a_collection_is_no_part_of_the_memory_or_of_sessions(make_store):
    store = await make_store()
    frame = await store.put("an otter")
    async with store.session() as session:
        await store.collection("c").put("otter", "an otter", metadata={"otter": "otter"})
    assert [hit.frame_id for hit in (await store.find("otter")).hits] == [frame]
    assert not (await store.get_session(session.session_id)).actions
    names = ["c", "C", "c ", "ç", "ç"]
    for name in names:
        await store.collection(name).put("k", name)
    assert [(await store.collection(name).get("k")).data for name in names] == names


async def test_the_order_of_a_map_is_kept(make_store):
    c = (await make_store()).collection("c")
    await c.put("k", {"z": 1, "a": 2, "m": {"y": 1, "b": 2}})
    data = (await c.get("k")).data
    assert list(data) == ["z", "a", "m"]
    assert list(data["m"]) == ["y", "b"]


async def test_a_check_that_fails_changes_nothing(make_store):
    store = await make_store()
    c = store.collection("c")
    version = await c.put("k", 1)
    with pytest.raises(VersionConflictError) as caught:
        await c.apply([Put("other", 2), Delete("k"), Check("k", version), Check("x", 9)])
    assert (caught.value.key, caught.value.expected, caught.value.version) == ("x", 9, 0)
    assert await keys_of(c) == ["k"]
    with pytest.raises(VersionConflictError) as caught:
        await c.delete("k", if_version=0)
    assert (await c.get("k")) == caught.value.value
    assert await c.apply([Check("k", version)]) == store.last_sequence == version


async def test_what_was_seen_of_a_key_is_looked_at_once_and_never_trusted_too_long(
    make_store, monkeypatch
):
    monkeypatch.setattr(recent_keys, "MOST_KEYS", 8)
    monkeypatch.setattr(seen_keys, "_MOST", 2)
    one = (await make_store("a.mva")).collection("c")
    two = (await make_store("a.mva")).collection("c")
    looked = []
    look = Collection._look

    async def counted(self, keys):
        looked.append(sorted(keys))
        return await look(self, keys)

    monkeypatch.setattr(Collection, "_look", counted)
    for n in range(5):
        await one.apply([Check("mark", 0), Put(f"{n}", n)])
    assert looked == [["mark"]], "a key that nobody changes is looked at once"
    for n in range(20):
        await two.apply([Put(f"other {n}", n)])
    await one.apply([Check("mark", 0), Put("5", 5)])
    assert looked[1:] == [["5", "mark"]], "and again where its changes are not known any more"
    version = await two.put("mark", "x")
    for n in range(20):
        await two.put(f"another {n}", n)
    with pytest.raises(VersionConflictError) as raised:
        await one.apply([Check("mark", 0), Put("6", 6)])
    assert raised.value.version == version
    await one.apply([Check("mark", version), Check("k", 0), Check("l", 0), Put("6", 6)])
    assert (await one.get("6")).data == 6


async def test_a_reader_only_reads(make_store, tmp_path):
    store = await make_store()
    await store.collection("c").append("k", [1, 2])
    async with open_store(store.path, read_only=True) as follower:
        c = follower.collection("c")
        assert await c.items("k") == [1, 2]
        with pytest.raises(StoreReadOnlyError):
            await c.put("x", 1)
        await store.collection("c").append("k", [3])
        assert await c.tail("k", 2) == [2, 3]


# Several tasks and stores.


async def test_tasks_and_stores_that_check_lose_no_update(make_store, tmp_path):
    stores = [await make_store("one.mva"), await make_store("one.mva")]

    async def count(store, times):
        c = store.collection("c")
        for _ in range(times):
            value = await c.get("n")
            while True:
                number, version = (value.data, value.version) if value else (0, 0)
                try:
                    await c.put("n", number + 1, if_version=version)
                    break
                except VersionConflictError as error:
                    value = error.value

    await asyncio.gather(*(count(store, 10) for store in stores for _ in range(5)))
    await stores[0].refresh()
    assert (await stores[0].collection("c").get("n")).data == 100


async def test_items_that_many_add_and_take_are_each_there_once(make_store):
    stores = [await make_store("one.mva"), await make_store("one.mva")]
    taken = []

    async def work(store, name):
        c = store.collection("c")
        for n in range(10):
            await c.append("list", [f"{name} {n}"])
            if n % 2:
                taken.append(await c.pop("list"))

    await asyncio.gather(*(work(s, f"{i} {k}") for i, s in enumerate(stores) for k in range(3)))
    await stores[0].refresh()
    left = await stores[0].collection("c").items("list")
    added = [f"{i} {k} {n}" for i in range(2) for k in range(3) for n in range(10)]
    assert sorted([*left, *taken]) == sorted(added)


# The file.


async def test_a_chat_that_is_written_whole_is_stored_once(make_store):
    store = await make_store()
    c, chat = store.collection("c"), []
    for turn in range(50):
        chat.append({"role": "user", "content": f"turn {turn} " + "word " * 20})
        await c.write_list("chat", chat)
    sizes = []
    async with store.subscribe() as events:
        for _ in range(store.last_sequence):
            payload = (await anext(events)).payload
            if isinstance(payload, CollectionChanged):
                sizes += [len(one.items) for one in payload.changes]
    assert sizes == [1] * 50
    assert await c.items("chat") == chat
    await c.write_list("chat", [*chat[:10], "another end"])
    assert await c.items("chat") == [*chat[:10], "another end"]


async def test_a_compaction_erases_what_nobody_can_get(make_store):
    clock = Clock()
    store = await make_store(config=StoreConfig(clock=clock))
    c = store.collection("c")
    await c.put("replaced", "secret one")
    await c.put("replaced", "kept one")
    await c.apply([Put("deleted", "secret two"), Put("beside", "kept two")])
    await c.delete("deleted")
    await c.put("expired", "secret three", ttl=1)
    await c.append("list", ["kept three", "secret four"])
    await c.pop("list")
    await c.append("gone", ["secret five"])
    await c.apply([DeletePrefix("go")])
    clock.now += 2 * SECOND
    before = told(await all_of(c))
    await store.compact()
    assert told(await all_of(c)) == before
    data = store.path.read_bytes()
    assert b"secret" not in data
    assert all(f"kept {word}".encode() in data for word in ("one", "two", "three"))
    await c.append("list", ["more"])
    assert await c.items("list") == ["kept three", "more"]


async def test_what_is_left_of_a_damaged_file_has_its_keys(tmp_path):
    path, out = tmp_path / "keys.mva", tmp_path / "out.mva"
    async with open_store(path) as store:
        await store.collection("named").put("a", "one " * 100)
        await store.collection("named").put("b", "two")
    data = bytearray(path.read_bytes())
    at = data.index(b"named")
    data[at] ^= 1
    path.write_bytes(data)
    report = await recover(path, out)
    assert not report.complete
    async with open_store(out) as store:
        # The first command is lost, and with it the collection's name.
        c = store.collection("recovered 1: the name of this collection was lost")
        assert told(await all_of(c)) == [("b", "two", 3, {}, None)]
        assert (await store.verify()).ok


async def test_a_saved_index_is_loaded_and_one_that_is_wrong_is_not(make_store, monkeypatch):
    monkeypatch.setattr(folded_keys, "_SAVE_CHANGES", 1)
    store = await make_store("saved.mva")
    await store.collection("c").apply([Put(f"{n}", n) for n in range(50)])
    await store.aclose()
    again = await make_store("saved.mva")
    assert len(await all_of(again.collection("c"))) == 50
    assert again._keys._live._saved_at
    await again.aclose()
    monkeypatch.setattr(key_index, "_VERSION", 2)
    later = await make_store("saved.mva")
    assert len(await all_of(later.collection("c"))) == 50
    assert not later._keys._live._saved_at
