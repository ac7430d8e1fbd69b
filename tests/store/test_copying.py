"""Stores are copied between files and streams byte for byte, and a copy that died is continued."""

import asyncio
import time

import pytest
from attrs import evolve

from memvid_async import (
    CorruptFileError,
    InvalidValueError,
    StoreFailedError,
    StoreNotFoundError,
    copy_store,
    list_stores,
    open_store,
    recover,
)
from memvid_async.store import copying
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, NatsServer, find_server

FILE, STREAM = "file", "stream"


@pytest.fixture
def place(tmp_path, request):
    """Return a function that names a place where no store is yet."""
    made = []

    def new(kind):
        made.append(kind)
        if kind == FILE:
            return str(tmp_path / f"{len(made)}.mva")
        if find_server() is None:
            pytest.skip(MISSING)
        return request.getfixturevalue("nats_server").address()

    return new


async def ask(session, text):
    return await session.record_ask(
        text, provider="p", model="m", response=text + "r" * 700, duration_ms=1
    )


async def fill(address, turns=100, *, compact=False):
    """A store with sessions, frames, keys, a saved index, a TOC and what is larger than a part."""
    async with open_store(address) as store:
        for name in ("one", "two"):
            async with store.session(name) as session:
                await asyncio.gather(*(ask(session, f"{name} {n}") for n in range(turns)))
                await session.create_checkpoint()
        await store.put_many([f"the otter number {n} swims" for n in range(50)])
        await store.put(b"0123456789abcdef" * 90_000)
        await store.collection("c").put("k", {"a": 1})
        if compact:
            (one, *_) = await store.list_sessions()
            await store.delete_session(one.session_id)
            await store.compact()
    return address


async def content(address):
    """All that a store's readers see, and what its log's bytes are after the slots."""
    async with open_store(address, read_only=True) as store:
        view = store._engine.view
        assert (await store.verify()).ok
        async with store.subscribe() as events:
            seen = [await anext(events) for _ in range(store.last_sequence)]
        hits = [hit.frame_id for hit in (await store.find("otter", top_k=99)).hits]
        keys = [value async for value in store.collection("c").scan()]
        since_toc = store._engine.log._journal._file.since_toc
        return view.reader.storage.read(1536, view.end), since_toc, seen, hits, keys


async def test_the_copy_is_the_same_event_for_event(place):
    source = await fill(place(FILE), compact=True)
    there = await content(source)
    before = source
    for kind in (FILE, STREAM, STREAM, FILE):
        target, told = place(kind), []
        report = await copy_store(before, target, progress=lambda *now, told=told: told.append(now))
        assert report.byte_count == report.copied_bytes + 1536
        assert told[-1] == (report.byte_count, report.byte_count)
        assert await copy_store(before, target) == evolve(report, copied_bytes=0)
        before = target
    assert await content(target) == there
    # It goes on by itself, and what was recorded there comes back.
    async with open_store(target) as store:
        await store.put("one more otter")
    with pytest.raises(InvalidValueError, match="name one that is not there"):
        await copy_store(source, target)
    assert (await copy_store(target, source)).copied_bytes > 0
    assert await content(source) == await content(target)


@pytest.mark.parametrize("other", [FILE, STREAM])
async def test_a_copy_killed_anywhere_is_continued(place, monkeypatch, other):
    monkeypatch.setattr("memvid_async.file.byte_copy._STEP_BYTES", 20_000)
    monkeypatch.setattr("memvid_async.file.byte_copy._SYNC_BYTES", 40_000)
    source, target = await fill(place(FILE)), place(other)
    kind = copying.FileTarget if other == FILE else copying.StreamTarget
    extend, steps, counts = kind.extend, [], []

    def dying(self, data, toc):
        steps.append(len(data))
        if len(steps) % 3 == 2:
            # Half of it is there: a torn tail, or a row of parts that is not finished.
            if other == FILE:
                self._storage.write(self.view.end, data[: len(data) // 2])
            raise StoreFailedError("killed")
        extend(self, data, toc)
        if len(steps) % 3 == 1:
            raise StoreFailedError("killed")

    monkeypatch.setattr(kind, "extend", dying)
    for _ in range(100):
        try:
            report = await copy_store(source, target)
        except StoreFailedError:
            async with open_store(target, read_only=True) as store:
                counts.append(store.last_sequence)
                assert (await store.verify()).ok
        else:
            break
    assert counts == sorted(counts)
    assert len(counts) > 5
    assert report.copied_bytes < report.byte_count / 2
    assert await content(target) == await content(source)


async def test_a_source_that_grows_is_copied_further(place):
    source, target = place(FILE), place(STREAM)
    async with open_store(source) as store:
        for turn in range(3):
            await store.put(f"otter {turn}")
            assert (await copy_store(source, target)).event_count == store.last_sequence
    # The source was closed after the last copy, with a TOC or an index of its own.
    assert (await content(target))[2:] == (await content(source))[2:]


async def test_what_cannot_be_copied_is_refused_and_nothing_is_made(place, tmp_path):
    source, target = tmp_path / "source.mva", tmp_path / "target.mva"
    with pytest.raises(StoreNotFoundError):
        await copy_store(source, target)
    assert not target.exists()
    await fill(source, 2)
    await fill(target, 2)
    before = target.read_bytes()
    with pytest.raises(InvalidValueError, match="something else"):
        await copy_store(source, target)
    assert target.read_bytes() == before
    with pytest.raises(InvalidValueError):
        await copy_store(source, target, config=1)
    # Damage: the target ends before it, and says so.
    damaged = bytearray(source.read_bytes())
    damaged[3000] ^= 1
    (tmp_path / "damaged.mva").write_bytes(damaged)
    with pytest.raises(CorruptFileError):
        await copy_store(tmp_path / "damaged.mva", tmp_path / "other.mva")


async def test_somebody_who_writes_to_the_target_is_named(place, monkeypatch):
    source, target = await fill(place(FILE), 2), place(STREAM)
    extend = copying.StreamTarget.extend

    def late(self, data, toc):
        asyncio.run(write())
        extend(self, data, toc)

    async def write():
        async with open_store(target) as store:
            await store.put("mine")

    monkeypatch.setattr(copying.StreamTarget, "extend", late)
    with pytest.raises(StoreFailedError, match="somebody else"):
        await copy_store(source, target)


async def test_a_copy_that_is_cancelled_can_be_continued(place):
    source, target = await fill(place(FILE)), place(FILE)

    def cancel(*_):
        task.cancel()

    task = asyncio.ensure_future(copy_store(source, target, progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    await copy_store(source, target)
    assert await content(target) == await content(source)


@pytest.mark.skipif(find_server() is None, reason=MISSING)
@pytest.mark.skipif(not DEEP, reason="servers of their own start where CI is set")
async def test_who_waits_for_a_server_that_hangs_can_be_cancelled(tmp_path):
    server, out = NatsServer(), tmp_path / "out.mva"
    try:
        address = await fill(server.address(), 2)
        server.pause()
        for call in (
            lambda: copy_store(address, out),
            lambda: recover(address, out),
            lambda: list_stores(address.rpartition("/")[0]),
        ):
            begun, waiting = time.monotonic(), asyncio.ensure_future(call())
            asyncio.get_running_loop().call_later(0.2, waiting.cancel)
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert time.monotonic() - begun < 10
        assert not out.exists()
    finally:
        server.resume()
        server.close()


async def test_what_is_copied_is_compared(place, monkeypatch):
    source, target = await fill(place(FILE), 2), place(FILE)
    look = copying._look

    def look_and_forget(where, *more):
        view = look(where, *more)
        if where[0].name.startswith("2"):
            read = view.reader.storage.read
            monkeypatch.setattr(
                view.reader.storage, "read", lambda at, n: read(at, n).replace(b"otter", b"Otter")
            )
        return view

    monkeypatch.setattr(copying, "_look", look_and_forget)
    with pytest.raises(StoreFailedError, match="what was copied is not there"):
        await copy_store(source, target)
