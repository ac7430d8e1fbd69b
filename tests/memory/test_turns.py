"""Processes that compete for one key: nothing is lost, and each has its turn."""

import asyncio

import pytest

from benchmarks.competing import compete
from memvid_async.memory.turns import Turns
from tests.support.depth import ADDITIONS
from tests.support.loops import run_dry

pytestmark = [pytest.mark.anyio, pytest.mark.one_loop]


def test_no_addition_of_a_process_is_lost(tmp_path):
    assert len(compete(tmp_path / "keys.mva", 3, ADDITIONS)) == 3 * ADDITIONS


async def waits(turns, version):
    """Whether a condition on a version waits."""
    waiting = asyncio.ensure_future(turns.wait([("key", version)]))
    await run_dry()
    done = waiting.done()
    waiting.cancel()
    return not done


async def test_a_winner_waits_only_where_others_compete():
    turns = Turns()
    turns.won(7)
    assert not await waits(turns, 7)
    turns.lost(9)
    turns.won(10)
    assert not await waits(turns, 8)
    assert await waits(turns, 10)


async def test_tasks_of_one_store_do_not_wait_for_each_other():
    turns = Turns()
    turns.won(7)
    turns.lost(7)
    turns.won(8)
    assert not await waits(turns, 8)
