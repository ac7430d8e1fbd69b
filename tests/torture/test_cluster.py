"""Nodes and writers that are killed, in small numbers: `nox -s stream` has large ones."""

import pytest

from memvid_async import StoreConfig, StoreFailedError, open_store
from tests.support.depth import DEEP, NODE_FAULTS, NODE_KILLS
from tests.support.nats_server import MISSING, find_server
from tests.torture.cluster import LostError, torture

if find_server() is None:
    pytest.skip(MISSING, allow_module_level=True)
if not DEEP:
    pytest.skip("three nodes start where CI is set", allow_module_level=True)


def test_nothing_acked_is_lost_and_nothing_is_there_twice(nats_cluster):
    print(torture(NODE_FAULTS, NODE_KILLS, seed=1, cluster=nats_cluster))


def test_acks_before_those_of_the_servers_are_found(nats_cluster):
    with pytest.raises(LostError, match="acks lost"):
        torture(0, NODE_KILLS, seed=2, cluster=nats_cluster, early=True)


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
