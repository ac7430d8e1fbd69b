"""When an agent has reacted to what it was told."""

import asyncio

import pytest

from memvid_async.recording.settling import MOST_TURNS, Settling
from tests.support.loops import turns

pytestmark = pytest.mark.anyio


async def _react(told: asyncio.Future[None], depth: int) -> None:
    """React through tasks in tasks, and cancel one on each level."""
    other = asyncio.create_task(asyncio.Event().wait())
    if depth:
        await asyncio.gather(_react(told, depth - 1))
    else:
        await told
    other.cancel()
    await asyncio.wait([other])


async def test_a_reaction_through_nested_tasks_comes_first() -> None:
    """Rule 9."""
    loop, order, settled = asyncio.get_running_loop(), [], asyncio.Event()
    told: asyncio.Future[None] = loop.create_future()
    agent = asyncio.create_task(_react(told, 3))
    agent.add_done_callback(lambda _: order.append("reacted"))
    await turns(5)

    def then() -> None:
        order.append("settled")
        settled.set()

    told.set_result(None)
    Settling(loop).start(then)
    await settled.wait()
    assert order == ["reacted", "settled"]


async def test_a_busy_loop_does_not_put_it_off_for_ever() -> None:
    settled = asyncio.Event()
    settling = Settling(asyncio.get_running_loop())
    settling.start(settled.set)
    assert settling.is_under_way
    await turns(MOST_TURNS + 1)
    assert settled.is_set()
    assert not settling.is_under_way


@pytest.mark.one_loop
async def test_those_of_many_sessions_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else each would wait as long as on a busy loop."""
    loop, settled, turn = asyncio.get_running_loop(), [], Settling._turn
    turned, all_settled = [], asyncio.Event()

    def counted(settling: Settling) -> None:
        turned.append(settling)
        turn(settling)

    def then() -> None:
        settled.append(1)
        if len(settled) == 3:
            all_settled.set()

    monkeypatch.setattr(Settling, "_turn", counted)
    for _ in range(3):
        Settling(loop).start(then)
    await all_settled.wait()
    assert len(turned) < MOST_TURNS / 2
