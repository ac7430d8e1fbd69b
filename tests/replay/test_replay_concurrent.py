"""Replaying searches that ran at once: they are recorded as they came back, not as they began."""

import asyncio
import random
from itertools import pairwise

import pytest

from memvid_async import Durability, StoreConfig, Verdict
from memvid_async.memory.folded import FoldedMemory
from memvid_async.replay import replay_run as replaying
from memvid_async.replay import scratch as memory

pytestmark = pytest.mark.anyio

WORDS = ("fox", "dog", "cat", "lazy", "quick", "brown", "jumps")
BY = {"provider": "p", "model": "m"}


class Waiting:
    """A model that is asked at once, and replies when it is told to."""

    def __init__(self):
        self.asked, self.told = asyncio.Event(), asyncio.Event()

    async def __call__(self, prompt):
        self.asked.set()
        await self.told.wait()
        return prompt.question


async def record_backwards(store, count):
    """Asks that come back in the opposite order, with puts and finds between them."""
    async with store.session() as recorder:
        pending = []
        for number in range(count):
            model = Waiting()
            asking = store.ask(f"fox {number}", generate=model, top_k=3, **BY)
            pending.append((asyncio.create_task(asking), model))
            await model.asked.wait()
            await store.put(f"a fox {WORDS[number % len(WORDS)]} {number}")
            await store.find("fox", top_k=1 + number % 4)
        for task, model in reversed(pending):
            model.told.set()
            await task
            await store.find("fox dog")
    return recorder.session_id


async def searched(store, session_id):
    session = await store.get_session(session_id)
    return [action.retrieval.as_of for action in session.actions if action.retrieval]


def check(report):
    assert report.counts[Verdict.DIVERGED] == report.counts[Verdict.UNVERIFIABLE] == 0
    assert report.match_rate == 1
    assert [step.index for step in report.steps] == list(range(len(report.steps)))
    assert {str(s.action.kind) for s in report.steps if s.verdict is Verdict.SKIPPED} <= {"ask"}


@pytest.fixture
def folded(monkeypatch):
    """The scratch memories that were begun."""
    begun = []

    def begin(*args, **options):
        begun.append(FoldedMemory(*args, **options))
        return begun[-1]

    monkeypatch.setattr(memory, "FoldedMemory", begin)
    return begun


async def test_searches_recorded_out_of_order_match_and_fold_the_log_once(make_store, folded):
    store = await make_store()
    session = await record_backwards(store, 12)
    behind = sum(b < a for a, b in pairwise(await searched(store, session)))
    assert behind > 10
    check(await store.replay(session).report())
    assert len(folded) == 1


@pytest.mark.parametrize("most", [0, 3])
async def test_however_few_are_held_they_match(make_store, monkeypatch, folded, most):
    monkeypatch.setattr(replaying, "MOST_HELD", most)
    monkeypatch.setattr(replaying, "PIECE_BYTES", 1)
    store = await make_store()
    session = await record_backwards(store, 12)
    check(await store.replay(session).report())
    assert len(folded) > 1


@pytest.mark.parametrize("durability", Durability)
async def test_many_tasks_that_put_and_find_at_once_match(make_store, durability):
    store = await make_store(config=StoreConfig(durability=durability))
    chosen = random.Random(7)

    async def work(plan):
        for what, text in plan:
            if what == "put":
                await store.put(text)
            elif what == "many":
                await store.put_many(text.split())
            elif what == "find":
                await store.find(text, top_k=4)
            else:
                await store.ask(text, generate=lambda prompt: prompt.question, **BY)

    async with store.session() as recorder, asyncio.TaskGroup() as group:
        for _ in range(32):
            kinds = chosen.choices(("put", "many", "find", "ask"), k=10)
            plan = [(kind, " ".join(chosen.choices(WORDS, k=3))) for kind in kinds]
            group.create_task(work(plan))
    report = await store.replay(recorder.session_id).report()
    assert len(report.steps) == 320
    check(report)


async def test_a_replay_that_is_stopped_gives_its_memory_back(make_store, folded):
    store = await make_store()
    session = await record_backwards(store, 3)
    steps = aiter(store.replay(session))
    while (await anext(steps)).action.retrieval is None:
        pass
    await steps.aclose()
    assert [one.is_open for one in folded] == [False]
