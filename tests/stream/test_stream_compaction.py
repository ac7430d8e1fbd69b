"""Compacting a store on a stream: what is erased, for whom, and what a kill leaves."""

import asyncio
import importlib
import json
import signal
import subprocess
import sys
import time

import pytest

from memvid_async import (
    Erased,
    NotCompactedError,
    StoreFailedError,
    SyncStore,
    list_stores,
    open_store,
)
from memvid_async.stream import stream_found, stream_successor
from memvid_async.stream.address import StreamName
from memvid_async.stream.connection import Connection
from memvid_async.stream.server_answers import NobodyAnswersError
from memvid_async.stream.stream_successor import StreamSuccessor
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, NatsServer, find_server

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)
nats = importlib.import_module("nats")

SECRET = "xylograph-of-a-name"
FIND = {"mode": "m", "result_count": 0, "result_frames": []}


@pytest.fixture(scope="module")
def server():
    """One whose files are looked at."""
    server = NatsServer()
    yield server
    server.close()


async def record(store, text, count=3):
    async with store.session(text) as recorder:
        for turn in range(count):
            await recorder.record_find(f"{text} {turn}", **FIND)
    return recorder.session_id


def wait_gone(server, text):
    """Return once no file has this text: the server removes the files of a stream after it said
    that the stream is deleted.

    :raises TimeoutError: when some still has it after a minute.
    """
    until = time.monotonic() + 60
    while found := server.files_with(text):
        if time.monotonic() >= until:
            raise TimeoutError(f"the text is still in {found}")


async def streams(server):
    client = await nats.connect(f"nats://127.0.0.1:{server.port}")
    reply = await client.request("$JS.API.STREAM.NAMES", b"{}")
    await client.close()
    return json.loads(reply.data).get("streams") or []


async def test_what_was_deleted_is_in_no_file_of_the_server(server):
    address = server.address()
    async with open_store(address) as store, open_store(address) as other:
        kept = await record(store, "kept")
        gone = await record(store, SECRET)
        frame = await store.put(f"{SECRET} swims")
        await store.put("an otter swims")
        assert len((await store.find("swims")).hits) == 2
        assert server.files_with(SECRET)
        await store.delete_session(gone)
        await store.delete(frame)
        await other.refresh()
        report = await store.compact()
        assert report.erased_events
        assert report.bytes_after < report.bytes_before
        wait_gone(server, SECRET)
        assert server.files_with("otter")
        # Everybody goes on, in the new stream.
        for one in (store, other):
            assert [each.session_id for each in await one.list_sessions()] == [kept]
            assert await one.put("a seal dives")
            assert len((await one.find("swims")).hits) == 1
            assert (await one.verify()).ok
            assert one.statistics().generation == 1
        assert (await other.compact()).generation == 2
        await store.refresh()
        assert store.statistics().generation == 2
        last = store.last_sequence
    name = address.rpartition("/")[2]
    assert [one.partition("=")[0] for one in await streams(server) if name in one] == [name]
    async with open_store(address, read_only=True) as store, store.subscribe() as events:
        found = [await anext(events) for _ in range(last)]
        assert [event.sequence for event in found] == list(range(1, last + 1))
        assert sum(isinstance(event.payload, Erased) for event in found) >= 5
        assert store.statistics().frame_count == 3


async def test_others_record_and_follow_meanwhile(server):
    address = server.address()
    seen, compacted = [], asyncio.Event()
    async with (
        open_store(address) as store,
        open_store(address) as other,
        open_store(address, read_only=True) as follower,
        follower.subscribe() as events,
    ):

        async def write():
            texts = []
            async with other.session("meanwhile") as recorder:
                while not compacted.is_set() or len(texts) < 40:
                    texts.append(f"text {len(texts)}")
                    await recorder.record_find(texts[-1], **FIND)
            return texts

        async def follow():
            async for event in events:
                seen.append(event.sequence)  # noqa: PERF401 - looked at while it goes on

        following = asyncio.create_task(follow())
        gone = await record(store, "gone", 20)
        await store.delete_session(gone)
        writing = asyncio.create_task(write())
        for _ in range(2):
            await store.compact()
        compacted.set()
        texts = await writing
        await store.refresh()
        assert [action.input.preview async for action in store.actions()] == texts
        await follower.refresh()
        await events.wait_caught_up()
        assert seen == list(range(1, store.last_sequence + 1))
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert (await follower.verify()).ok


# Where a process that compacts is killed: before the call of a connection with this number. It
# publishes a claim, a header, what is left, a mark and the move; it deletes what others left, then
# the old stream.
PLACES = [("create", 0), ("delete", 0), ("delete", 1), *(("publish", at) for at in range(5))]
CHILD = """
import asyncio, os, signal, sys
from memvid_async import open_store
from memvid_async.stream.connection import Connection

address, place, number = sys.argv[1:]
call, left = getattr(Connection, place), [None] * int(number)

def die(*given, **more):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    return call(*given, **more)

async def compact():
    async with open_store(address) as store:
        setattr(Connection, place, die)
        await store.compact()

asyncio.run(compact())
"""


@pytest.mark.skipif(not DEEP, reason="children are killed where CI is set")
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place[0]} {place[1]}")
def test_a_compaction_that_is_killed_anywhere_leaves_a_whole_store(server, place):
    address, secret = server.address(), f"{SECRET} {place}"

    async def prepare():
        async with open_store(address) as store:
            await record(store, "kept")
            await store.delete_session(await record(store, secret))

    asyncio.run(prepare())
    child = [sys.executable, "-c", CHILD, address, place[0], str(place[1])]
    assert subprocess.run(child, check=False).returncode == -signal.SIGKILL
    with SyncStore.open(address) as store:
        assert [one.name for one in store.list_sessions()] == ["kept"]
        assert store.verify().ok
        store.put("goes on")
        store.compact()
        wait_gone(server, secret)
        assert store.statistics().frame_count == 1
    name = address.rpartition("/")[2]
    left = asyncio.run(streams(server))
    assert len([one for one in left if one.startswith(name)]) == 1


async def test_of_two_at_once_one_ends_or_both_and_nothing_is_lost(server):
    address = server.address()
    async with open_store(address) as one, open_store(address) as two:
        await record(one, "kept")
        secret = f"{SECRET} of two"
        await one.delete_session(await record(one, secret))
        await two.refresh()
        done = await asyncio.gather(one.compact(), two.compact(), return_exceptions=True)
        assert any(not isinstance(each, BaseException) for each in done), done
        assert all(
            isinstance(each, NotCompactedError) or not isinstance(each, BaseException)
            for each in done
        )
        for store in (one, two):
            await store.refresh()
            assert [each.name for each in await store.list_sessions()] == ["kept"]
            assert (await store.verify()).ok
    wait_gone(server, secret)


async def test_what_comes_while_a_compaction_waits_for_its_turn_is_copied(server, monkeypatch):
    address = server.address()
    async with open_store(address) as store:
        await store.put("before")
        journal, late = store._engine.log._journal, []
        catch_up, wait = StreamSuccessor.catch_up, journal._wait_for_turn

        def copied(successor, source):
            late.append(catch_up(successor, source))
            return late[-1]

        def wait_for_turn(*, has_lost):
            wait(has_lost=has_lost)
            if journal._storage.claim and "acked" not in late:
                late.append("acked")
                with SyncStore.open(address) as other:
                    other.put("meanwhile")
                journal._take_in(journal._look())

        monkeypatch.setattr(StreamSuccessor, "catch_up", copied)
        monkeypatch.setattr(journal, "_wait_for_turn", wait_for_turn)
        await store.compact()
        assert late[0] == "acked"
        assert True in late
        assert [frame.content.preview async for frame in store.frames()] == ["before", "meanwhile"]
        assert (await store.verify()).ok


async def test_an_append_that_comes_late_is_there_once_though_a_server_denies_its_stream(
    server, monkeypatch
):
    async with open_store(server.address()) as store:
        await store.put("before")
        connection = store._engine.log._journal.connection
        facts, ask, calls = connection.facts, connection._requests.ask, []

        def late(*given):
            calls.append(given)
            if len(calls) == 1:
                raise TimeoutError
            if len(calls) == 2:
                raise NobodyAnswersError
            if len(calls) == 3:
                # What was sent first arrives before what is sent now.
                ask(*calls[0])
            return ask(*given)

        def deny(stream=None):
            if len(calls) == 2:
                denials.append(stream)
                if len(denials) <= 2:
                    return None
            return facts(stream)

        denials = []
        monkeypatch.setattr(connection._requests, "ask", late)
        monkeypatch.setattr(connection, "facts", deny)
        assert await store.put("once") == 2
        assert len(denials) > 2
        assert await store.put("after") == 3
        assert [f.content.preview async for f in store.frames()] == ["before", "once", "after"]


@pytest.mark.parametrize("arrives", [True, False])
async def test_an_append_that_a_replaced_stream_may_have_taken_is_there_once(
    server, monkeypatch, arrives
):
    address = server.address()
    async with open_store(address) as store:
        await store.put("before")
        requests, lost = store._engine.log._journal.connection._requests, []
        ask = requests.ask

        def lose(subject, *given):
            if lost:
                return ask(subject, *given)
            lost.append(subject)
            if arrives:
                ask(subject, *given)
            with SyncStore.open(address) as other:
                other.compact()
            raise TimeoutError

        monkeypatch.setattr(requests, "ask", lose)
        assert await store.put("once") == 2
        assert lost
        assert await store.put("after") == 3
        assert [frame.frame_id async for frame in store.frames()] == [1, 2, 3]
        assert (await store.verify()).ok


async def test_a_server_that_lags_does_not_end_who_knows_that_the_stream_was_replaced(
    server, monkeypatch
):
    address = server.address()
    async with open_store(address) as store, open_store(address, read_only=True) as follower:
        await store.put("before")
        await follower.refresh()
        connection, lies = follower._engine.log._journal.connection, []
        facts = connection.facts

        def behind(stream=None):
            found = facts(stream)
            if found is not None and stream is not None and not stream.number and len(lies) < 3:
                found.last -= 1
                lies.append(stream)
            return found

        monkeypatch.setattr(connection, "facts", behind)
        # As when the process that compacts is killed before it deletes the old stream.
        monkeypatch.setattr(store._engine.log._journal.connection, "delete", lambda stream: None)
        await store.compact()
        await follower.refresh()
        assert follower.statistics().generation == 1
        assert len(lies) == 3


@pytest.fixture
def left_behind(monkeypatch):
    """Of each compaction, the first try is left as a kill leaves it. The successors of all."""
    tries, copied = [], StreamSuccessor.catch_up

    def catch_up(successor, source):
        tries.append(successor)
        return len(tries) % 2 == 0 and copied(successor, source)

    monkeypatch.setattr(StreamSuccessor, "catch_up", catch_up)
    monkeypatch.setattr(StreamSuccessor, "discard", lambda _: None)
    return tries


async def test_a_request_to_delete_that_comes_late_deletes_nothing_that_is_used(
    server, monkeypatch, left_behind
):
    address, delete, deleted = server.address(), Connection.delete, []

    def note(connection, stream):
        deleted.append(stream)
        delete(connection, stream)

    monkeypatch.setattr(Connection, "delete", note)
    async with open_store(address) as store:
        await store.put("before")
        await store.compact()
        connection = store._engine.log._journal.connection
        assert {0, left_behind[0].number} <= {one.number for one in deleted}
        assert connection.stream.number == left_behind[1].number
        # As where servers that were cut off get all of them once more.
        for stream in deleted.copy():
            await asyncio.to_thread(delete, connection, stream)
        await store.put("after")
    async with open_store(address, read_only=True) as store:
        assert [f.content.preview async for f in store.frames()] == ["before", "after"]


async def test_what_a_killed_compaction_left_is_not_taken_for_the_log(
    server, monkeypatch, left_behind
):
    address = server.address()
    with monkeypatch.context() as patch:
        # As when the process that compacts is killed before it deletes the old stream.
        patch.setattr(Connection, "delete", lambda *_: None)
        async with open_store(address) as store:
            await store.put("before")
            await store.compact()
            await store.put("after")
            last = store.last_sequence
    name = address.rpartition("/")[2]
    assert left_behind[0].number < left_behind[1].number
    assert len([one for one in await streams(server) if name in one]) == 3
    listed = await list_stores(address.rpartition("/")[0])
    assert [one.event_count for one in listed if one.name == name] == [last]
    async with open_store(address) as store:
        assert [f.content.preview async for f in store.frames()] == ["before", "after"]
    assert len([one for one in await streams(server) if name in one]) == 1


async def test_a_list_that_lacks_streams_leads_nobody_astray(server, monkeypatch):
    address, told = server.address(), Connection.own_streams
    name = address.rpartition("/")[2]
    lies, left, copied = [], 0, StreamSuccessor.catch_up

    def lie(connection):
        nonlocal left
        found = told(connection)
        if not left:
            return found
        # Of two the newest alone, which is half a copy; of one, nothing.
        left -= 1
        lies.append(found[1:])
        return found[1:]

    def catch_up(successor, source):
        nonlocal left
        if lies:
            return copied(successor, source)
        left = 1
        with SyncStore.open(address) as other:
            other.put("meanwhile")
        return False

    monkeypatch.setattr(Connection, "own_streams", lie)
    monkeypatch.setattr(StreamSuccessor, "catch_up", catch_up)
    async with open_store(address) as store:
        await store.put("before")
        await store.compact()
        assert [len(one) for one in lies] == [1]
        left = 1
        async with open_store(address) as other:
            assert [len(one) for one in lies] == [1, 0]
            found = [frame.content.preview async for frame in other.frames()]
            assert found == ["before", "meanwhile"]
            assert await other.put("after") == 3
        # What was created is gone again.
        assert len([one for one in await streams(server) if one.startswith(name)]) == 1
        await store.refresh()
        assert store.statistics().frame_count == 3
        assert (await store.verify()).ok


@pytest.mark.parametrize("drawn", [[10, 20, 30], [20, 10, 30]])
async def test_a_compaction_that_another_one_overtakes_deletes_nothing_that_is_used(
    server, monkeypatch, drawn
):
    address, create, begun = server.address(), StreamSuccessor.__init__, []
    numbers = iter(drawn)
    named = lambda store, _: StreamName(store, next(numbers))  # noqa: E731
    monkeypatch.setattr(stream_successor, "StreamName", named)

    def late(successor, *given):
        begun.append(successor)
        if len(begun) == 1:
            # After the claim of this one, another one claims, copies and moves.
            with SyncStore.open(address) as other:
                other.compact()
                other.put("meanwhile")
        create(successor, *given)

    monkeypatch.setattr(StreamSuccessor, "__init__", late)
    async with open_store(address) as store:
        await store.put("before")
        await store.compact()
        assert len(begun) == 3
        assert [f.content.preview async for f in store.frames()] == ["before", "meanwhile"]
        assert (await store.verify()).ok
    name = address.rpartition("/")[2]
    assert len([one for one in await streams(server) if name in one]) == 1


@pytest.mark.parametrize("is_astray", [False, True])
async def test_who_opens_in_the_middle_of_a_compaction_does_not_append_to_half_a_copy(
    server, monkeypatch, is_astray
):
    """Its log would fork, and what it was acked would go with the next compaction. Who has done so
    (``is_astray``) is told, and does not go on without what it had."""
    address, told, delete = server.address(), Connection.own_streams, Connection.delete
    copied, tries, late, lies = StreamSuccessor.catch_up, [], [], []

    def lack_the_live_one(connection):
        found = told(connection)
        if not lies:
            lies.append(found)
            return [found[0], found[2]]
        return found

    def take_half(connection, *_):
        half = told(connection)[2]
        facts = connection.facts(half)
        return half, facts, connection.fetch(half, facts.last, 1, facts.last)[0]

    def catch_up(successor, source):
        tries.append(successor)
        if len(tries) != 2:
            return copied(successor, source)
        with monkeypatch.context() as patch:
            patch.setattr(Connection, "own_streams", lack_the_live_one)
            if is_astray:
                patch.setattr(stream_found, "_find", take_half)
            late.append(SyncStore.open(address))
        late.append(late[0].session("late").__enter__())
        late[1].record_find("late", **FIND)
        return False

    # The servers do not hear that the first one is to be deleted.
    heard = lambda connection, one: delete(connection, one) if one.number else None  # noqa: E731
    monkeypatch.setattr(Connection, "delete", heard)
    monkeypatch.setattr(StreamSuccessor, "catch_up", catch_up)
    monkeypatch.setattr(StreamSuccessor, "discard", lambda _: None)
    async with open_store(address) as store:
        await store.put("before")
        await store.compact()
        await store.compact()
        assert len(lies[0]) == 3
        await store.put("meanwhile")
        await store.put("then")
        record = asyncio.to_thread(lambda: late[1].record_find("later", **FIND))
        if is_astray:
            with pytest.raises(StoreFailedError, match="lacks what it had"):
                await record
        else:
            await record
            await store.refresh()
            assert [one.input.preview async for one in store.actions()] == ["late", "later"]
            assert store.statistics().frame_count == 3
        await asyncio.to_thread(late[0].close)
        assert (await store.verify()).ok
