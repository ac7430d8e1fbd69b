"""A store on a stream: what only a stream can do to it, on one node."""

import asyncio
import importlib
import json
import shutil
from pathlib import Path

import pytest

from memvid_async import (
    InvalidValueError,
    NotAStoreError,
    StoreConfig,
    StoreFailedError,
    StoreNotFoundError,
    StoreReadOnlyError,
    SyncStore,
    UnknownSyncWarning,
    open_store,
)
from memvid_async.stream import connection, server_sync
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, NatsServer, find_server, free_ports

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)
nats = importlib.import_module("nats")

QUICK = StoreConfig(server_timeout=0.1)
# One for the stores, which needs no password, and the system account.
ACCOUNTS = """
accounts {
  A: { jetstream: enabled, users: [{ user: a, password: a }] }
  SYS: { users: [{ user: sys, password: pw }] }
}
system_account: SYS
no_auth_user: a
"""


async def ask(recorder, text, response="r"):
    return await recorder.record_ask(
        text, provider="p", model="m", response=response, duration_ms=1
    )


async def questions(store):
    """What was asked, in order, over all sessions."""
    return [action.input.preview async for action in store.actions()]


async def test_what_one_records_all_others_see(nats_server):
    address = nats_server.address()
    async with open_store(address) as one, open_store(address) as two:
        async with one.session("a") as recorder, two.session("b") as other:
            for turn in range(5):
                await ask((recorder, other)[turn % 2], f"{turn}?")
            assert [action.index for action in (await one.get_session(other.session_id)).actions]
        await two.refresh()
        assert len(await two.list_sessions()) == 2
        frame = await one.put("an otter swims", title="otter")
        await two.refresh()
        assert [hit.frame_id for hit in (await two.find("otter")).hits] == [frame]
        collection = one.collection("c")
        assert await collection.put("k", 1)
        await two.refresh()
        assert (await two.collection("c").get("k")).data == 1
    async with open_store(address, read_only=True) as store:
        assert sorted(await questions(store)) == [f"{turn}?" for turn in range(5)]
        assert (await store.verify()).ok
        with pytest.raises(StoreReadOnlyError):
            await store.put("x")


async def test_there_is_one_ambient_session_in_all_processes(nats_server):
    address = nats_server.address()
    async with open_store(address) as one, open_store(address) as two:
        started = await asyncio.gather(
            *(store.start_session() for store in (one, two)), return_exceptions=True
        )
        assert sum(isinstance(each, Exception) for each in started) == 1
        await two.end_session()


async def test_writers_that_compete_lose_nothing_and_none_is_left_out(nats_server):
    address = nats_server.address()
    stores = [await open_store(address) for _ in range(3)]
    try:

        async def write(number, store):
            async with store.session(str(number)) as recorder:
                for turn in range(12):
                    await ask(recorder, f"{number} {turn}")

        await asyncio.gather(*(write(*each) for each in enumerate(stores)))
        await stores[0].refresh()
        assert sorted(await questions(stores[0])) == sorted(
            f"{number} {turn}" for number in range(3) for turn in range(12)
        )
        assert (await stores[1].verify()).ok
    finally:
        for store in stores:
            await store.aclose()


async def test_what_is_larger_than_a_message_comes_in_parts(nats_server):
    address = nats_server.address()
    large = "0123456789abcdef" * 190_000
    async with open_store(address) as store:
        async with store.session() as recorder:
            action = await ask(recorder, "how much?", large)
            await ask(recorder, "again?", large)
        assert await store.read_content(action.output) == large.encode()
    async with open_store(address, read_only=True) as store:
        (session,) = await store.list_sessions()
        held = await store.get_session(session.session_id)
        assert [await store.read_content(each.output) for each in held.actions] == [
            large.encode()
        ] * 2


async def test_parts_that_a_dead_writer_left_count_for_nothing(nats_server, monkeypatch):
    monkeypatch.setattr("memvid_async.stream.stream_journal._PART_PATIENCE", 0.05)
    address = nats_server.address()
    async with open_store(address) as store:
        await store.put("one")
        journal = store._engine.log._journal
        publish = journal.connection.publish
        sent = []

        def die_after_the_first(*given, **more):
            if sent:
                raise StoreFailedError("killed")
            sent.append(given)
            return publish(*given, **more)

        monkeypatch.setattr(journal.connection, "publish", die_after_the_first)
        with pytest.raises(StoreFailedError, match="killed"):
            await store.put("x" * 2_500_000)
        async with open_store(address) as other:
            assert await other.put("two") == 2
        monkeypatch.setattr(journal.connection, "publish", publish)
        assert await store.put("three") == 3
        assert (await store.verify()).ok
    async with open_store(address, read_only=True) as store:
        assert [frame.frame_id async for frame in store.frames()] == [1, 2, 3]


@pytest.mark.parametrize("arrives", [True, False])
async def test_an_append_whose_answer_is_lost_is_there_once(nats_server, monkeypatch, arrives):
    async with open_store(nats_server.address()) as store:
        await store.put("one")
        requests, lost = store._engine.log._journal.connection._requests, []
        ask = requests.ask

        def lose(subject, *given):
            if lost:
                return ask(subject, *given)
            if arrives:
                ask(subject, *given)
            lost.append(subject)
            raise TimeoutError

        monkeypatch.setattr(requests, "ask", lose)
        assert await store.put("two") == 2
        assert lost
        assert await store.put("three") == 3
        assert store.statistics().frame_count == 3
        assert (await store.verify()).ok


async def test_no_answer_for_too_long_fails_the_call_and_not_the_store(nats_server, monkeypatch):
    async with open_store(nats_server.address()) as store:
        connection = store._engine.log._journal.connection

        def lose(*_):
            raise TimeoutError

        with monkeypatch.context() as silent:
            silent.setattr(connection, "_patience", 0.1)
            silent.setattr(connection._requests, "ask", lose)
            with pytest.raises(StoreFailedError, match="does not answer"):
                await store.put("one")
        assert await store.put("two") == 1


async def test_a_follower_goes_on_after_the_server_was_killed():
    server = NatsServer()
    try:
        address = server.address()
        async with (
            open_store(address) as store,
            open_store(address, read_only=True) as follower,
            follower.subscribe() as events,
        ):
            await store.put("one")
            server.kill()
            writing = asyncio.create_task(store.put("two"))
            await asyncio.to_thread(server.start)
            assert await writing == 2
            await store.put("three")
            last = store.last_sequence
            found = [(await anext(events)).sequence for _ in range(last)]
            assert found == list(range(1, last + 1))
    finally:
        server.close()


async def test_a_store_that_lost_what_was_acked_says_so():
    server = NatsServer()
    try:
        address = server.address()
        async with open_store(address, config=StoreConfig(server_timeout=0.3)) as store:
            await store.put("one")
            before = server.folder / "before"
            server.kill()
            shutil.copytree(server.folder / "data", before)
            await asyncio.to_thread(server.start)
            await store.put("two")
            server.kill()
            shutil.rmtree(server.folder / "data")
            shutil.copytree(before, server.folder / "data")
            await asyncio.to_thread(server.start)
            with pytest.raises(StoreFailedError, match="lost"):
                await store.put("three")
            with pytest.raises(StoreFailedError):
                await store.put("four")
    finally:
        server.close()


async def test_opening_costs_the_newest_toc_and_what_follows(nats_server):
    address = nats_server.address()
    async with open_store(address) as store:
        for turn in range(3):
            async with store.session(str(turn)) as recorder:
                await asyncio.gather(*(ask(recorder, f"{n}", "r" * 900) for n in range(200)))
        size = store.statistics().file_bytes
    async with open_store(address, read_only=True) as store:
        storage = store._engine.log._journal._storage
        assert storage._held < size / 2
        summaries = await store.list_sessions()
        held = await store.get_session(summaries[0].session_id)
        assert len(held.actions) == 200
        assert (await store.verify()).ok


async def admin(server, what, body=None):
    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    reply = await client.request(f"$JS.API.{what}", json.dumps(body or {}).encode())
    await client.close()
    return json.loads(reply.data)


async def test_what_is_no_store_is_named(nats_server):
    name = nats_server.address().rpartition("/")[2]
    address = nats_server.address(name)
    with pytest.raises(StoreNotFoundError):
        await open_store(address, read_only=True)
    await admin(nats_server, f"STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
    with pytest.raises(NotAStoreError):
        await open_store(address)
    with pytest.raises(StoreFailedError, match="replicas"):
        await open_store(nats_server.address(), config=StoreConfig(replicas=3))
    address = nats_server.address()
    async with open_store(address, config=StoreConfig(replicas=1)) as store:
        await store.put("one")
        await admin(nats_server, f"STREAM.DELETE.{address.rpartition('/')[2]}")
        with pytest.raises(StoreFailedError, match="deleted"):
            await store.refresh()


@pytest.mark.parametrize(
    "address",
    [
        "nats://",
        "nats://h",
        "nats://h/",
        "nats://h/a b",
        "nats://h:x/a",
        "nats://h/a?b",
        "tls:///a",
    ],
)
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InvalidValueError, match="nats://host:4222/NAME"):
        open_store(address)


async def test_servers_that_are_not_there_or_refuse_are_named():
    with pytest.raises(StoreFailedError, match="no server"):
        await open_store("nats://127.0.0.1:1/a", config=QUICK)


def test_a_program_without_a_loop_has_it_too(nats_server):
    address = nats_server.address()
    with SyncStore.open(address) as store:
        assert store.put("one") == 1
    with SyncStore.open(address, read_only=True) as store:
        assert store.statistics().frame_count == 1
    assert not Path("nats:").exists()


async def test_what_somebody_else_says_on_the_subjects_of_a_store_changes_nothing(nats_server):
    address = nats_server.address()
    client = await nats.connect(f"nats://127.0.0.1:{nats_server.port}")
    async with open_store(address) as store, open_store(address) as other:
        await store.put("one")
        assert await other.put("two") == 2
        connection = other._engine.log._journal.connection
        for subject in (connection.news.subject, connection.address.lost_subject):
            await client.publish(subject, b"no headers")
            await client.publish(subject, b"no number", headers={"Nats-Sequence": "many"})
        await client.flush()
        assert await store.put("three") == 3
        assert await other.put("four") == 4
        assert (await other.verify()).ok
    await client.close()


async def test_a_reader_that_falls_behind_asks_for_what_was_announced(nats_server, monkeypatch):
    monkeypatch.setattr("memvid_async.stream.announced._HELD_BYTES", 2000)
    address = nats_server.address()
    async with (
        open_store(address) as store,
        open_store(address, read_only=True) as follower,
        follower.subscribe() as events,
    ):
        async with store.session() as recorder:
            await asyncio.gather(*(ask(recorder, f"{turn}", "r" * 500) for turn in range(60)))
            await ask(recorder, "last", "r" * 5000)
        found = [(await anext(events)).sequence for _ in range(store.last_sequence)]
        assert found == list(range(1, store.last_sequence + 1))


@pytest.mark.skipif(not DEEP, reason="servers of their own start where CI is set")
async def test_a_full_server_refuses_and_the_store_goes_on():
    server = NatsServer(config="jetstream: { max_file_store: 2MB }\n")
    try:
        async with open_store(server.address()) as store:
            puts = [store.put(f"{number} " + "x" * 100_000) for number in range(30)]
            done = [await asyncio.gather(put, return_exceptions=True) for put in puts]
            kept = sum(isinstance(answer, int) for (answer,) in done)
            assert 5 < kept < 30
            (refused,) = done[kept]
            with pytest.raises(StoreFailedError, match=r"refuses: .*(resource|storage)"):
                raise refused
            with pytest.raises(StoreFailedError):
                await store.put("y" * 300_000)
            assert store.statistics().frame_count == kept
            assert (await store.get(1)).frame_id == 1
            assert (await store.verify()).ok
    finally:
        server.close()


@pytest.mark.skipif(not DEEP, reason="servers of their own start where CI is set")
async def test_how_often_a_server_syncs_is_looked_at(monkeypatch):
    monkeypatch.setattr(server_sync, "_OTHERS", 0.05)
    (port,) = free_ports(1)
    for setting, fine in (("always", True), ("10s", False)):
        server = NatsServer(
            config=f"http: 127.0.0.1:{port}\njetstream: {{ sync_interval: {setting} }}\n{ACCOUNTS}"
        )
        system = f"nats://sys:pw@127.0.0.1:{server.port}"
        try:
            for monitor in (f"http://127.0.0.1:{port}", system):
                config = StoreConfig(sync_interval=0, nats_monitors=(monitor,))
                assert "pw" not in repr(config)
                if not fine:
                    with pytest.raises(StoreFailedError, match="syncs every 10 s"):
                        await open_store(server.address(), config=config)
                    config = StoreConfig(sync_interval=10, nats_monitors=(monitor,))
                async with open_store(server.address(), config=config) as store:
                    await store.put("one")
            nobody = (system.replace("sys:pw", "a:a"), system.replace("pw", "wrong"))
            unknown = StoreConfig(sync_interval=0, nats_monitors=nobody)
            with pytest.warns(UnknownSyncWarning, match="of 0 it is known"):
                store = await open_store(server.address(), config=unknown)
            await store.aclose()
        finally:
            server.close()


DENYING = """
max_payload: 60000
accounts { A: { jetstream: enabled, users: [
  { user: a, password: a }
  { user: b, password: b, permissions: { publish: { deny: ["$JS.API.>"] } } }
] } }
"""


@pytest.mark.skipif(not DEEP, reason="servers of their own start where CI is set")
async def test_what_a_server_does_not_let_a_store_do_is_named(monkeypatch):
    server = NatsServer(config=DENYING)
    try:
        address = server.address()
        with pytest.raises(StoreFailedError, match="max_payload is 60000 bytes"):
            await open_store(address.replace("//", "//a:a@"))
        monkeypatch.setattr(connection, "_LEAST_PAYLOAD", 50_000)
        with pytest.raises(StoreFailedError, match=r"refuses: .*publish to .*js\.api"):
            await open_store(address.replace("//", "//b:b@"))
        async with open_store(address.replace("//", "//a:a@")) as store:
            assert await store.put("x" * 200_000) == 1
            assert (await store.verify()).ok
    finally:
        server.close()


async def test_a_toc_somewhere_is_read_without_what_is_around_it(nats_server):
    address = nats_server.address()
    async with open_store(address) as store:
        for turn in range(12):
            async with store.session(str(turn)) as recorder:
                await asyncio.gather(*(ask(recorder, f"{n}", "r" * 900) for n in range(200)))
    async with open_store(address, read_only=True) as store:
        size = store.statistics().file_bytes
        storage = store._engine.log._journal._storage
        assert storage._held < size / 3
        # What is read from end to end is asked for in few requests all the same.
        fetch, asked = storage._fetch, []
        storage._fetch = lambda *given: asked.append(given) or fetch(*given)
        assert (await store.verify()).ok
        assert len(asked) < 20
