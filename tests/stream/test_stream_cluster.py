"""What three nodes promise at rest; `nox -s stream` kills them, and the writers."""

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
