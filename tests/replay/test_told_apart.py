"""A recording warns of tasks that only chance told apart, and of no others."""

import asyncio

import pytest

from memvid_async import UnrecordedWarning
from pytest_memvid_async.told_apart import find_chances
from tests.support.loops import turns

pytestmark = pytest.mark.anyio


async def agent(session, order, *, answers, named=False, steps=()):
    """Tasks that begin alike, each once something that is not recorded lets it."""
    gates = [asyncio.Event() for _ in order]

    async def call(n):
        return await session.call_tool("sample", {}, lambda: answers[n])

    async def one(n):
        await gates[n].wait()
        if n not in steps:
            return [await call(n), await call(n)]
        async with session.step("part"):
            return [await call(n)]

    await session.call_tool("first", {}, dict)
    names = [f"worker {n}" if named else None for n in range(len(order))]
    tasks = [asyncio.create_task(one(n), name=name) for n, name in enumerate(names)]
    for n in order:
        gates[n].set()
        await turns(3)
    return await asyncio.gather(*tasks)


@pytest.mark.parametrize(
    ("order", "options", "count"),
    [
        ((1, 0), {"answers": "ab"}, 1),
        ((2, 0, 1), {"answers": "abc"}, 2),
        ((1, 0), {"answers": "ab", "steps": (0, 1)}, 1),
        ((0, 1), {"answers": "ab", "steps": (1,)}, 1),
        ((0, 1), {"answers": "ab", "steps": (0, 1)}, 0),
        ((0, 1), {"answers": "ab"}, 0),
        ((1, 0), {"answers": "aa"}, 0),
        ((1, 0), {"answers": "ab", "named": True}, 0),
    ],
)
async def test_only_chance_is_warned_of(make_store, order, options, count):
    """Rule 6: tasks with names, or told the same, or that began as they were created, are none.

    A step takes a moment where it is recorded, so one of two in a step is.
    """
    store = await make_store()
    async with store.session() as session:
        await agent(session, order, **options)
    found = await find_chances(store, session.session_id)
    assert [type(one) for one in found] == [UnrecordedWarning] * count
    assert all("tool_call sample" in str(one) for one in found)
