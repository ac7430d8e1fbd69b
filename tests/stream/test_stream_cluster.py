"""What three nodes promise at rest; `nox -s stream` kills them, and the writers."""

import asyncio
import time

import pytest

from memvid_async import StoreConfig, StoreFailedError, open_store
from tests.support.depth import DEEP
from tests.support.nats_server import MISSING, find_server

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)
if not DEEP:
    pytest.skip("three nodes start where CI is set", allow_module_level=True)


async def test_fewer_replicas_than_asked_are_refused(nats_cluster):
    address = nats_cluster.address()
    async with open_store(address) as store:
        await store.put("one")
    with pytest.raises(StoreFailedError, match="has 1 replicas"):
        await open_store(address, config=StoreConfig(replicas=3))
    address = nats_cluster.address()
    async with open_store(address, config=StoreConfig(replicas=3)) as store:
        await store.put("one")
    async with open_store(address, config=StoreConfig(replicas=3)) as store:
        assert await store.put("two") == 2


async def test_what_was_deleted_is_in_no_file_of_any_node(nats_cluster):
    address, config = nats_cluster.address(), StoreConfig(replicas=3)
    secret = "xylograph-on-three"
    async with (
        open_store(address, config=config) as store,
        open_store(address, config=config) as other,
    ):
        compacted, count = asyncio.Event(), 0

        async def write():
            nonlocal count
            while not compacted.is_set():
                count += 1
                await other.put(f"meanwhile {count}")

        async with store.session(secret) as recorder:
            await recorder.record_put(1, secret)
        assert all(node.files_with(secret) for node in nats_cluster.nodes)
        await store.delete_session(recorder.session_id)
        writing = asyncio.create_task(write())
        await store.compact()
        compacted.set()
        await writing
        until = time.monotonic() + 10
        while any(node.files_with(secret) for node in nats_cluster.nodes):
            assert time.monotonic() < until
        await store.refresh()
        assert store.statistics().frame_count == count
        assert (await store.verify()).ok
