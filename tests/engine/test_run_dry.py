"""run_dry() itself, on which other tests rely: it returns when nobody can go on, and not before."""

import asyncio
import itertools
import threading

from tests.support.loops import run_dry, turns


async def test_it_lets_every_task_go_as_far_as_it_can():
    queues = [asyncio.Queue() for _ in range(50)]

    async def hand_on(source, target):
        while True:
            await target.put(await source.get())

    tasks = [asyncio.create_task(hand_on(*pair)) for pair in itertools.pairwise(queues)]
    tasks += [asyncio.create_task(turns(count)) for count in (0, 1, 400)]
    queues[0].put_nowait("x")
    await run_dry()
    assert queues[-1].get_nowait() == "x"
    assert [task.done() for task in tasks] == [False] * 49 + [True] * 3
    for task in tasks:
        task.cancel()


async def test_it_waits_for_callbacks_of_futures():
    done, called = asyncio.get_running_loop().create_future(), []
    done.add_done_callback(lambda _: asyncio.get_running_loop().call_soon(called.append, 1))
    done.set_result(None)
    await run_dry()
    assert called == [1]


async def test_it_waits_for_no_thread_and_no_timer():
    gate = threading.Event()
    waiting = asyncio.create_task(asyncio.to_thread(gate.wait, 20))
    timer = asyncio.get_running_loop().call_later(1000, gate.set)
    await run_dry()
    assert not waiting.done()
    timer.cancel()
    gate.set()
    assert await waiting


async def test_it_leaves_the_loop_as_it_was():
    loop = asyncio.get_running_loop()
    before = dict(vars(loop))
    await run_dry()
    assert vars(loop) == before
