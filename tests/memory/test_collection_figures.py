"""What collections cost, by ratios within one run, in processor time."""

import gc
import time

import pytest

from memvid_async import Put, open_store
from tests.support.depth import DEEP

pytestmark = pytest.mark.one_loop

FEW, MANY = 200, 100_000 if DEEP else 20_000


async def seconds(call, times=60):
    """The least processor time of a call, of many: what else the machine does is left out."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        await call()
        taken.append(time.process_time() - start)
    return min(taken)


async def filled(path, count):
    async with open_store(path) as store:
        for begin in range(0, count, 1000):
            end = min(count, begin + 1000)
            puts = [Put(f"{n:06}", n, {"n": n}) for n in range(begin, end)]
            await store.collection("c").apply(puts)
    return await open_store(path)


async def test_reading_costs_the_same_with_a_hundred_times_the_keys(tmp_path):
    async with (
        await filled(tmp_path / "few.mva", FEW) as few,
        await filled(tmp_path / "many.mva", MANY) as many,
    ):
        gc.collect()

        async def last_ten(store):
            scanned = store.collection("c").scan(reverse=True, limit=10)
            assert len([value async for value in scanned]) == 10

        for read in (lambda store: store.collection("c").get("000100"), last_ten):
            await read(few), await read(many)
            cost = await seconds(lambda read=read: read(few))
            assert await seconds(lambda read=read: read(many)) < 4 * cost + 0.0005


async def test_deciding_a_condition_costs_the_same_with_a_hundred_times_the_keys(tmp_path):
    async with (
        await filled(tmp_path / "few.mva", FEW) as few,
        await filled(tmp_path / "many.mva", MANY) as many,
    ):

        async def put(store):
            c = store.collection("c")
            value = await c.get("000100")
            await c.put("000100", 1, if_version=value.version)

        await put(few), await put(many)
        assert await seconds(lambda: put(many)) < 4 * await seconds(lambda: put(few)) + 0.0005
