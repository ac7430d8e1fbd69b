"""The event loop is never held for long, whatever is put or searched."""

import itertools

import pytest

from benchmarks.samples import documents
from memvid_async import open_store
from tests.engine.test_loop_latency import (
    CALLBACK_MS,
    LATE_MS,
    TRIES,
    above,
    best_of,
    late_ms,
    processor_ms,
)
from tests.support import depth
from tests.support.frame_calls import all_ids

pytestmark = [
    pytest.mark.one_loop,
    pytest.mark.usefixtures("own_garbage"),
]

DOCUMENTS = documents(depth.DOCUMENTS)
# What many frames at once may: no object is made of each that Python's collector would look at, and
# the threads that work on them pause. Three times what it takes.
LATE_PUT_MS = 15
NUMBERS = itertools.count()


@pytest.fixture
async def store(make_store):
    store = await make_store()
    for at in range(0, len(DOCUMENTS), 5000):
        await store.put_many(DOCUMENTS[at : at + 5000])
    await store.find("warm")
    return store


async def put_some(store, count):
    run = next(NUMBERS)
    await store.put_many([f"run{run} {text}" for text in DOCUMENTS[:count]])


async def one_by_one(store, count):
    for number in range(count):
        await store.put(DOCUMENTS[number])
        await store.find(f"document{number}")


async def view(store):
    moment = store.last_sequence - next(NUMBERS) - 10
    await (await store.at(sequence=moment)).find("import system")


ORDINARY = {
    "one by one": lambda store: one_by_one(store, 50),
    "a rare word": lambda store: store.find("document77"),
    "common words": lambda store: store.find("function object value"),
    "a thousand hits": lambda store: store.find("function object value", top_k=1000),
    "a question": lambda store: store.find("How does the import system find a module?"),
    "listing": all_ids,
    "large metadata": lambda store: store.put("x", metadata={str(n): n for n in range(6000)}),
    "many tags": lambda store: store.put("x", tags=[f"tag {n}" for n in range(256)]),
    "a large body": lambda store: store.put("some words " * 50_000),
    "a long embedding": lambda store: store.put("x", embedding=[1.0] * 384, embedding_model="m"),
    "a view": view,
    # This one last: the memory grows.
    "a thousand at once": lambda store: put_some(store, 1000),
}


async def test_no_callback_takes_long(store, monkeypatch):
    async def measure(operation):
        return await processor_ms(lambda: operation(store), monkeypatch)

    assert await above(CALLBACK_MS, 3, ORDINARY, measure) == {}


async def test_no_timer_is_late(store):
    async def measure(operation):
        return await late_ms(lambda: operation(store))

    assert await above(LATE_MS, TRIES, ORDINARY, measure) == {}


@pytest.mark.parametrize("count", [1000, depth.DOCUMENTS])
async def test_many_at_once_hold_nothing_up(store, count):
    async def measure(_):
        return await late_ms(lambda: put_some(store, count))

    assert await best_of(TRIES, LATE_PUT_MS, measure) <= LATE_PUT_MS


async def test_opening_and_the_first_find_hold_nothing_up(make_store, tmp_path):
    path = tmp_path / "opened.mva"
    async with open_store(path) as store:
        for at in range(0, len(DOCUMENTS), 5000):
            await store.put_many(DOCUMENTS[at : at + 5000])

    async def measure(_):
        async def operation():
            async with open_store(path) as store:
                await store.find("import system")

        return await late_ms(operation)

    assert await best_of(TRIES, LATE_MS, measure) <= LATE_MS
