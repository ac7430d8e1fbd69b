"""Who follows a store on a stream sees what was acked at once, and after a cut all of it, once."""

import asyncio
import time

import pytest

from memvid_async import StoreConfig, open_store
from memvid_async.stream import connection
from memvid_async.stream.connecting import _KNOWN
from tests.support.cutting_proxy import CuttingProxy
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, find_server

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)

READER_CUTS, WRITER_CUTS = (3, 3) if DEEP else (2, 0)


async def test_an_acked_event_is_seen_elsewhere(nats_server, capsys):
    address = nats_server.address()
    async with (
        open_store(address) as store,
        open_store(address, read_only=True) as follower,
        follower.subscribe() as events,
    ):
        await events.wait_caught_up()
        delays = []
        for turn in range(40):
            await store.put(f"{turn}")
            acked = time.perf_counter()
            while (await anext(events)).sequence < store.last_sequence:
                pass
            delays.append(time.perf_counter() - acked)
    # How late depends on what else the machine does.
    with capsys.disabled():
        print(f"\nacked to seen: median {1000 * sorted(delays)[len(delays) // 2]:.1f} ms")


@pytest.mark.skipif(not DEEP, reason="it takes more than a second")
async def test_a_server_that_hangs_is_left_for_another_one(nats_server, monkeypatch):
    assert _KNOWN["ping_interval"] * 3 < StoreConfig().server_timeout / 2
    monkeypatch.setitem(_KNOWN, "ping_interval", 0.05)
    monkeypatch.setattr(connection, "ANSWER", 0.1)
    options = {"dont_randomize": True, "connect_timeout": 0.1}
    async with CuttingProxy(nats_server.port) as proxy:
        address = nats_server.address().replace("//", f"//127.0.0.1:{proxy.port},")
        async with (
            open_store(address, config=StoreConfig(nats_options=options)) as store,
            open_store(address, read_only=True, config=StoreConfig(nats_options=options)) as far,
            far.subscribe() as events,
        ):
            await store.put("one")
            proxy.stall()
            await store.put("two")
            assert [(await anext(events)).sequence for _ in range(2)] == [1, 2]


async def test_a_server_that_is_slow_to_take_a_subscription_leaves_nobody_deaf(nats_server):
    async with CuttingProxy(nats_server.port) as proxy:
        address = nats_server.address().replace(f":{nats_server.port}/", f":{proxy.port}/")
        async with open_store(address, config=StoreConfig(server_timeout=3)) as store:
            await store.put("one")
            proxy.stall()
            await asyncio.to_thread(store._engine.log._journal.connection.watch)
            proxy.go_on()
            assert await store.put("two") == 2


# A request that was cut is sent again after 2 s.
@pytest.mark.parametrize("who", ["reader", "writer"] if DEEP else ["reader"])
async def test_a_cut_leaves_no_gap_and_repeats_nothing(nats_server, who):
    address = nats_server.address()
    cuts = READER_CUTS if who == "reader" else WRITER_CUTS
    async with CuttingProxy(nats_server.port) as proxy:
        through = address.replace(f":{nats_server.port}/", f":{proxy.port}/")
        near, far = (address, through) if who == "reader" else (through, address)
        async with (
            open_store(near) as store,
            open_store(far, read_only=True) as follower,
            follower.subscribe() as events,
        ):
            seen = []
            for turn in range(cuts):
                writing = [asyncio.create_task(store.put(f"{turn} {n}")) for n in range(4)]
                await writing[0]
                await proxy.cut()
                await asyncio.gather(*writing)
                last = store.last_sequence
                # With every other cut, the follower has more to catch up with.
                while turn % 2 and len(seen) < last:
                    seen.append((await anext(events)).sequence)
            while len(seen) < last:
                seen.append((await anext(events)).sequence)
            assert seen == list(range(1, last + 1))
            assert store.statistics().frame_count == 4 * cuts
            await store.put("one more")
            assert (await anext(events)).sequence == last + 1
