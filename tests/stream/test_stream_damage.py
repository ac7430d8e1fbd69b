"""What is lost, foreign or changed in a store's stream: what says so, and what is saved."""

import asyncio
import importlib
import json
from contextlib import suppress

import pytest

from memvid_async import (
    CorruptFileError,
    Erased,
    NotAStoreError,
    StoreConfig,
    StoreFailedError,
    copy_store,
    list_stores,
    open_store,
    recover,
)
from memvid_async.format.segment import SegmentKind
from memvid_async.stream import connection
from memvid_async.stream.messages import decode_message
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, find_server
from tests.support.plans import small_tables
from tests.support.segments import segments_of

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)
nats = importlib.import_module("nats")


class Admin:
    """What somebody can do with the server's own tools."""

    def __init__(self, client):
        self.client = client

    async def ask(self, what, **body):
        reply = await self.client.request(f"$JS.API.{what}", json.dumps(body).encode(), timeout=30)
        return json.loads(reply.data)

    async def messages(self, name):
        info = await self.ask(f"STREAM.INFO.{name}")
        found = []
        for sequence in range(1, info["state"]["last_seq"] + 1):
            body = json.dumps({"seq": sequence}).encode()
            what = f"$JS.API.DIRECT.GET.{name}"
            found.append((await self.client.request(what, body, timeout=30)).data)
        return info["config"], found

    async def write(self, name, config, messages):
        """Make a stream with these messages, of which some can be deleted."""
        subject, news = f"memvid.log.{name}.0", f"memvid.news.{name}.0"
        own = {"name": name, "subjects": [subject], "deny_delete": False, "deny_purge": False}
        own["republish"] = {"src": subject, "dest": news}
        await self.ask(f"STREAM.CREATE.{name}", **{**config, **own})
        for payload in messages:
            await self.client.request(subject, payload, timeout=30)


@pytest.fixture
async def admin(nats_server):
    client = await nats.connect(f"nats://127.0.0.1:{nats_server.port}")
    yield Admin(client)
    await client.close()


@pytest.fixture
def quick(monkeypatch):
    """Whether a message is lost is known sooner."""
    monkeypatch.setattr(connection, "ANSWER", 0.2)
    monkeypatch.setattr(connection, "_PAUSE", 0.001)


async def fill(store):
    for name in ("one", "two", "three"):
        async with store.session(name) as session:
            await asyncio.gather(
                *(
                    session.record_ask(
                        f"{n}?", provider="p", model="m", response="r" * 900, duration_ms=1
                    )
                    for n in range(30)
                )
            )
    await store.put("an otter swims")
    await store.put(b"0123456789abcdef" * 90_000)
    await store.put("a seal dives")


async def events_of(store):
    async with store.subscribe() as events:
        return [await anext(events) for _ in range(store.last_sequence)]


def kinds(log, message):
    """The kinds of the segments in a message of this log."""
    end = message.at + len(message.data)
    return {one.kind for one in segments_of(log) if message.at <= one.offset < end}


def places(log, messages):
    """Which messages are lost, by a name."""
    read = [decode_message(payload) for payload in messages]
    tables = {SegmentKind.TOC, SegmentKind.PAGE}
    derived = [n for n, one in enumerate(read, 1) if kinds(log, one) & tables]
    events = [n for n, one in enumerate(read, 1) if kinds(log, one) == {SegmentKind.EVENTS}]
    parts = [n for n, one in enumerate(read, 1) if one.parts > 1]
    return {
        "the header": [1],
        "a table": derived[:1],
        "each table": derived,
        "events": events[1:2],
        "a part": parts[-1:],
        "the beginning": [1, 2, 3],
        "the last": [len(messages)],
    }


# What costs no event, as it is derived from these.
COMPLETE = {"the header", "a table", "each table"}
PLACES = ["the header", "a table", "each table", "events", "a part", "the beginning", "the last"]


@pytest.fixture
async def whole(nats_server, admin):
    """A store's address, its events, log, settings and messages."""
    address = nats_server.address()
    with small_tables():
        async with open_store(address) as store:
            await fill(store)
            # So that the last message holds an event.
            store._engine.log._journal._file.catalog._toc_end = store._engine.view.end
    async with open_store(address, read_only=True) as store:
        events, view = await events_of(store), store._engine.view
        log = view.reader.storage.read(0, view.end)
    return events, log, *(await admin.messages(address.rpartition("/")[2]))


async def look(address):
    """Open a damaged store; raise what that raises, or the first problem that is there."""
    async with open_store(address, read_only=True) as store:
        report = await store.verify()
    assert not report.ok
    raise CorruptFileError(report.problems[0].offset, report.problems[0].message)


@pytest.mark.parametrize("place", PLACES if DEEP else ["events"])
async def test_what_is_lost_is_named_and_the_rest_is_saved(
    nats_server, admin, quick, whole, place, tmp_path
):
    events, log, config, messages = whole
    address = nats_server.address()
    name, lost = address.rpartition("/")[2], places(log, messages)[place]
    assert lost
    await admin.write(name, config, messages)
    for sequence in lost:
        await admin.ask(f"STREAM.MSG.DELETE.{name}", seq=sequence)
    # Nothing wrong is returned: it does not open, or says what is missing.
    with pytest.raises(CorruptFileError, match=r"recover\(\) saves what is left"):
        await look(address)
    with pytest.raises(CorruptFileError, match=r"recover\(\)"):
        await copy_store(address, tmp_path / "copy.mva")
    report = await recover(address, tmp_path / "saved.mva")
    assert report.complete == (place in COMPLETE)
    assert report.lost_messages == len(lost)
    async with open_store(tmp_path / "saved.mva", read_only=True) as store:
        assert (await store.verify()).ok
        saved = await events_of(store)
    gone = {at for one in report.lost for at in range(one.first, one.last + 1)}
    assert bool(gone) == (place not in COMPLETE | {"the last"})
    assert len(saved) == len(events) - (place == "the last")
    for found, event in zip(saved, events, strict=False):
        # The start of a session that lost its own is made again.
        made = getattr(found.payload, "metadata", None) or isinstance(found.payload, Erased)
        assert (event.sequence in gone) == bool(made)
        assert made or found == event
    # What was saved goes to a stream again.
    if place == "events":
        again = nats_server.address()
        await copy_store(tmp_path / "saved.mva", again)
        async with open_store(again) as store:
            assert await store.put("goes on") == 4


async def test_what_somebody_else_publishes_is_passed_over(nats_server, admin, tmp_path):
    address = nats_server.address()
    name = address.rpartition("/")[2]

    async def disturb():
        for text in (b"hello", b"", bytes(2000)):
            await admin.client.request(f"memvid.log.{name}.0", text)

    async with open_store(address) as store, open_store(address, read_only=True) as follower:
        async with follower.subscribe() as events:
            await disturb()
            await fill(store)
            await disturb()
            assert await store.put("another otter swims") == 4
            seen = [(await anext(events)).sequence for _ in range(store.last_sequence)]
            assert seen == list(range(1, store.last_sequence + 1))
        await disturb()
        last = store.last_sequence
    async with open_store(address) as store:
        assert store.last_sequence == last
        assert (await store.verify()).ok
        assert len((await store.find("otter")).hits) == 2
    (listed,) = [one for one in await list_stores(address.rpartition("/")[0]) if one.name == name]
    assert listed.event_count == last
    report = await recover(address, tmp_path / "saved.mva")
    assert report.complete
    assert report.lost_messages == 9
    assert report.last_sequence == last


# What `nats stream edit` may change, and whether the store can still be read.
CHANGES = [
    ("max_age", 3_600_000_000_000, True),
    ("max_msgs", 1000, True),
    ("discard", "old", True),
    ("subjects", ["another"], True),
    ("republish", None, True),
    ("max_msg_size", 5000, True),
    ("allow_direct", False, False),
]


async def test_settings_with_which_a_stream_loses_something_are_named(nats_server, admin):
    address = nats_server.address()
    name = address.rpartition("/")[2]
    async with open_store(address) as store:
        await store.put("one")
    config = (await admin.ask(f"STREAM.INFO.{name}"))["config"]
    for key, value, is_readable in CHANGES:
        changed = {**config, key: value}
        if key == "subjects":
            changed[key] = [*config[key], f"{name}.more"]
        assert "error" not in await admin.ask(f"STREAM.UPDATE.{name}", **changed)
        with pytest.raises(StoreFailedError, match=f"{key}=.*nats stream edit"):
            await open_store(address)
        with suppress(StoreFailedError):
            async with open_store(address, read_only=True) as store:
                assert is_readable
                assert store.statistics().frame_count == 1
        assert "error" not in await admin.ask(f"STREAM.UPDATE.{name}", **config)
    async with open_store(address) as store:
        assert await store.put("two") == 2


async def test_a_stream_of_others_is_no_store(nats_server, admin, tmp_path):
    name = nats_server.address().rpartition("/")[2]
    subject = f"memvid.log.{name}.0"
    await admin.ask(f"STREAM.CREATE.{name}", name=name, subjects=[subject], allow_direct=True)
    await admin.client.request(subject, b"hello")
    address = nats_server.address(name)
    config = StoreConfig(server_timeout=1)
    for call in (
        lambda: open_store(address, config=config),
        lambda: recover(address, tmp_path / "out.mva", config=config),
    ):
        with pytest.raises(NotAStoreError):
            await call()
    assert not list(tmp_path.iterdir())
