"""The store's threads: one call at a time, in order, whatever becomes of who waits."""

import asyncio
import threading

import pytest

from memvid_async import StoreClosedError, WrongLoopError
from memvid_async.engine.worker import Worker
from tests.support.loops import run_dry, turns


@pytest.fixture
async def worker(anyio_backend):
    worker = Worker("worker under test")
    yield worker
    worker.stop()


async def test_calls_are_made_in_order_in_one_other_thread(worker):
    seen = []

    def call(number):
        seen.append((number, threading.get_ident()))
        return number * 2

    results = await asyncio.gather(*(worker.run(call, number) for number in range(100)))
    assert results == [number * 2 for number in range(100)]
    assert [number for number, _ in seen] == list(range(100))
    threads = {thread for _, thread in seen}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), StopIteration(1)])
async def test_an_error_of_the_call_reaches_who_waits_and_the_thread_goes_on(worker, error):
    def fail():
        raise error

    # StopIteration cannot be raised into a coroutine: Python turns it into a RuntimeError.
    with pytest.raises((type(error), RuntimeError)):
        await worker.run(fail)
    assert await worker.run(str, 5) == "5"


async def test_the_loop_goes_on_while_a_call_blocks(worker):
    gate = threading.Event()
    waiting = asyncio.create_task(worker.run(gate.wait, 30))
    await run_dry()
    assert not waiting.done()
    gate.set()
    assert await waiting


async def test_a_cancelled_wait_stops_neither_the_call_nor_those_after_it(worker):
    started, gate, made = threading.Event(), threading.Event(), []

    def call():
        started.set()
        gate.wait(30)
        made.append("first")

    waiting = asyncio.create_task(worker.run(call))
    behind = asyncio.create_task(worker.run(made.append, "second"))
    await asyncio.to_thread(started.wait, 30)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await behind
    assert made == ["first", "second"]


async def test_what_was_asked_for_before_stopping_is_done(worker):
    results = [asyncio.create_task(worker.run(str, number)) for number in range(20)]
    await turns(1)
    worker.stop()
    assert await asyncio.gather(*results) == [str(number) for number in range(20)]


@pytest.mark.parametrize("used", [False, True])
async def test_a_stopped_worker_refuses_and_never_leaves_its_caller_waiting(used):
    worker = Worker("stopped")
    if used:
        await worker.run(str, 1)
    worker.stop()
    with pytest.raises(StoreClosedError):
        await worker.run(str, 2)


async def test_the_thread_ends_when_stopped_and_none_is_started_unused():
    before = set(threading.enumerate())
    Worker("never used").stop()
    assert set(threading.enumerate()) == before
    worker = Worker("used")
    await worker.run(str, 1)
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    worker.stop()
    await asyncio.to_thread(thread.join, 30)
    assert not thread.is_alive()


def test_a_call_that_outlives_its_loop_harms_nothing(monkeypatch):
    errors = []
    monkeypatch.setattr(threading, "excepthook", errors.append)
    started, gate = threading.Event(), threading.Event()

    def call():
        started.set()
        gate.wait(30)

    async def begin():
        worker = Worker("outliving")
        waiting = asyncio.create_task(worker.run(call))
        await asyncio.to_thread(started.wait, 30)
        return worker, waiting

    worker, waiting = asyncio.run(begin())
    assert waiting.cancelled()
    gate.set()

    async def later():
        with pytest.raises(WrongLoopError):
            await worker.run(str, 3)
        # As closing does, to release what the worker's thread has.
        return await worker.start(str, 3).wait()

    assert asyncio.run(later()) == "3"
    worker.stop()
    assert errors == []


async def test_who_receives_the_result_has_it_a_turn_before_who_waits(worker):
    order = []
    job = worker.start(str, 5).then(lambda result: order.append(("received", result)))
    order.append(("waited", await job.wait()))
    assert order == [("received", "5"), ("waited", "5")]
    assert await job.wait() == "5"


async def test_what_the_receiver_raises_reaches_who_waits(worker):
    def refuse(_result):
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        await worker.start(str, 5).then(refuse).wait()


async def test_an_error_of_the_call_is_not_received(worker):
    received = []
    with pytest.raises(ZeroDivisionError):
        await worker.start(divmod, 1, 0).then(received.append).wait()
    assert received == []
