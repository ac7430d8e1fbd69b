"""Replaying what a session did with the memory: puts and searches are done again."""

import asyncio
import tracemalloc

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memvid_async import (
    ActionRecorded,
    Content,
    Durability,
    InvalidValueError,
    RecordingConfig,
    StoreConfig,
    Verdict,
    WhatIf,
    open_store,
)
from memvid_async.file.reader import Reader
from tests.conftest import COMMON

pytestmark = pytest.mark.anyio

WORDS = ("fox", "dog", "cat", "lazy", "quick", "brown", "jumps")


async def record(store):
    """One action of every kind that works on the memory, between two checkpoints."""
    outside = await store.put("a fox before the session")
    async with store.session() as recorder:
        await recorder.create_checkpoint()  # 0
        one = await store.put("the quick brown fox", title="fox")  # 1
        await store.put("a long story of a lazy dog. " * 100)  # 2
        await store.put_many(["the cat sleeps", {"content": "a fox jumps", "tags": ["t"]}])  # 3
        await store.find("quick fox", top_k=2)  # 4
        await store.update(one, "the slow brown fox")  # 5
        await store.find("fox", tags=["t"])  # 6
        await store.delete(outside)  # 7
        await store.ask("who jumps", generate=lambda _: "a fox", provider="p", model="m")  # 8
        await store.update(one, title="another title")  # 9
        await recorder.create_checkpoint()  # 10
    return recorder.session_id


async def test_what_nobody_touched_matches(make_store):
    store = await make_store()
    session = await record(store)
    report = await store.replay(session).report()
    assert [step.verdict for step in report.steps if step.index != 8] == [Verdict.MATCHED] * 10
    assert report.steps[8].verdict is Verdict.SKIPPED
    assert "finds the same" in report.steps[8].reason
    assert report.match_rate == 1
    later = await store.replay(session, checkpoint_id=1).report()
    assert [step.index for step in later.steps] == [10]


async def test_it_matches_after_all_that_came_later(make_store):
    store = await make_store()
    session = await record(store)
    for frame_id in [frame.frame_id async for frame in store.frames()]:
        await store.update(frame_id, "all is another thing now")
    await store.put("fox " * 10)
    await store.compact()
    store = await make_store("store.mva", read_only=True)
    assert (await store.replay(session).report()).match_rate == 1


async def test_what_a_compaction_erased_cannot_be_verified(make_store):
    store = await make_store()
    session = await record(store)
    await store.delete(2)
    await store.compact()
    report = await store.replay(session).report()
    verdicts = {step.index: step.verdict for step in report.steps}
    assert verdicts[1] is verdicts[4] is verdicts[5] is verdicts[8] is Verdict.UNVERIFIABLE
    assert verdicts[0] is verdicts[2] is verdicts[3] is verdicts[10] is Verdict.MATCHED
    assert report.counts[Verdict.DIVERGED] == 0
    assert report.match_rate == 1


def change(action, name, value):
    if hasattr(action.retrieval, name) and name != "input":
        return attrs.evolve(action, retrieval=attrs.evolve(action.retrieval, **{name: value}))
    if hasattr(action.details, name):
        return attrs.evolve(action, details=attrs.evolve(action.details, **{name: value}))
    return attrs.evolve(action, **{name: value})


def tamper(monkeypatch, index, name, value):
    """Let the reader see another action than the file holds, as if the checksums fitted it."""
    decode = Reader.decode

    def tampered(self, segment, state, end):
        events = decode(self, segment, state, end)
        for place, event in enumerate(events):
            payload = event.payload
            if isinstance(payload, ActionRecorded) and payload.action.index == index:
                payload = attrs.evolve(payload, action=change(payload.action, name, value))
                events[place] = attrs.evolve(event, payload=payload)
        return events

    monkeypatch.setattr(Reader, "decode", tampered)


@pytest.mark.parametrize(
    ("index", "name", "value"),
    [
        (1, "affected_frames", (7,)),
        (1, "input", Content("the quick brown fix")),
        (2, "input", Content("short")),
        (3, "affected_frames", (4,)),
        (3, "affected_frames", (5, 4)),
        (4, "input", Content("lazy dog")),
        (4, "result_count", 3),
        (4, "affected_frames", (1, 2)),
        (4, "affected_frames", (2,)),
        (4, "scores", (9.0, 8.0)),
        (4, "versions", (1, 2)),
        (4, "top_k", 1),
        (4, "as_of", 2),
        (4, "mode", "semantic"),
        (4, "as_of", 2**40),
        (5, "affected_frames", (3,)),
        (5, "input", Content("another")),
        (5, "input", None),
        (6, "parameters", {}),
        (7, "affected_frames", (2,)),
        (8, "affected_frames", (1,)),
        (8, "input", Content("the cat")),
        (9, "affected_frames", (3,)),
        (1, "index", 2),
    ],
)
async def test_a_change_is_reported_at_its_action_and_nowhere_earlier(
    make_store, monkeypatch, index, name, value
):
    store = await make_store(check=False)
    session = await record(store)
    tamper(monkeypatch, index, name, value)
    report = await store.replay(session).report()
    assert report.first_divergence.index == (index if name != "index" else value)
    assert report.first_divergence == report.steps[index]
    assert report.steps[index].differences
    assert report.match_rate < 1


async def test_searches_of_what_if(make_store):
    store = await make_store()
    session = await record(store)

    async def reruns(what_if):
        steps = [step async for step in store.replay(session, what_if=what_if)]
        assert {s.verdict for s in steps if s.rerun is None} == {Verdict.SKIPPED}
        return {step.index: step for step in steps if step.rerun is not None}

    same = await reruns(WhatIf())
    assert [same[index].verdict for index in (4, 6)] == [Verdict.MATCHED] * 2
    more = await reruns(WhatIf(top_k=4))
    assert [hit[0] for hit in more[4].rerun.new] == [1]
    assert (more[4].verdict, more[4].rerun.lost) == (Verdict.DIVERGED, ())
    now = await reruns(WhatIf(as_of="now"))
    assert 5 in [hit[0] for hit in now[4].rerun.hits]
    assert [hit[0] for hit in now[4].rerun.moved] == [5, 2]
    fewer = await reruns(WhatIf(top_k=1))
    assert [hit[0] for hit in fewer[4].rerun.lost] == [5]
    unfiltered = await reruns(WhatIf(filters={}))
    assert len(unfiltered[6].rerun.hits) > 1
    earlier = await reruns(WhatIf(as_of=0))
    assert earlier[4].rerun.hits == ()
    with pytest.raises(InvalidValueError, match="the log ends at"):
        await reruns(WhatIf(as_of=10**6))


async def test_what_if_with_another_embedder(make_store):
    store = await make_store()
    async with store.session() as recorder:
        for text, vector in (("east", [1, 0]), ("north", [0, 1]), ("north-east", [1, 1])):
            await store.put(text, embedding=vector)
        await store.find("east", mode="semantic", embedding=[1, 0], top_k=2)
        await store.find("east")
    asked = []

    def embed(query):
        asked.append(query)
        return [0, 1]

    async def found(what_if):
        steps = (await store.replay(recorder.session_id, what_if=what_if).report()).steps
        return [[hit[0] for hit in step.rerun.hits] for step in steps if step.rerun]

    assert await found(WhatIf(embedding=embed)) == [[2, 3], [1, 3]]
    assert asked == ["east", "east"]
    hybrid = await found(WhatIf(mode="hybrid", embedding=embed, top_k=3))
    assert [set(hits) for hits in hybrid] == [{1, 2, 3}] * 2
    with pytest.raises(InvalidValueError, match="needs an embedding"):
        await found(WhatIf(mode="semantic"))
    with pytest.raises(InvalidValueError, match="finite"):
        await found(WhatIf(embedding=lambda _: [float("nan"), 0]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": 0},
        {"top_k": True},
        {"mode": "fuzzy"},
        {"as_of": -1},
        {"as_of": "then"},
        {"filters": {"colour": "red"}},
        {"filters": ["t"]},
        {"filters": {"tags": "t"}},
        {"embedding": [1, 0]},
        {"embedding": asyncio.sleep},
    ],
)
async def test_what_cannot_be_searched_so_is_refused(make_store, wrong):
    store = await make_store()
    async with store.session() as recorder:
        pass
    with pytest.raises(InvalidValueError):
        store.replay(recorder.session_id, what_if=WhatIf(**wrong))
    with pytest.raises(TypeError, match="the query"):
        store.replay(recorder.session_id, what_if=WhatIf(embedding=lambda: [1, 0]))


async def test_what_was_put_as_a_stream_is_checked_piece_by_piece(make_store):
    store = await make_store()
    size = 24 * 1024 * 1024

    async def stream():
        for _ in range(size // 2**20):
            yield bytes(2**20)

    async with store.session() as recorder:
        await store.put(stream(), media_type="application/x-raw")
    await store.sync()
    tracemalloc.start()
    report = await store.replay(recorder.session_id).report()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert report.counts[Verdict.MATCHED] == len(report.steps) == 1
    assert peak < size / 2


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "many", "update", "delete", "find", "ask", "mark"]),
        st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join),
        st.integers(0, 9),
    ),
    max_size=20,
)


@given(STEPS, st.integers(0, 3), st.booleans())
@settings(parent=settings(max_examples=25, **COMMON))
async def test_whatever_was_done_matches(tmp_path_factory, steps, interval, compacted):
    path = tmp_path_factory.mktemp("replay") / "store.mva"
    config = RecordingConfig(auto_checkpoint_interval=interval)
    async with open_store(path) as store:
        async with store.session(config=config) as recorder:
            for what, text, choice in steps:
                await act(store, recorder, what, text, choice)
        if compacted:
            await store.put("later")
            await store.compact()
        report = await store.replay(recorder.session_id).report()
        assert report.counts[Verdict.DIVERGED] == 0
        assert report.match_rate == 1
        if not (compacted and "delete" in {what for what, _, _ in steps}):
            assert report.counts[Verdict.UNVERIFIABLE] == 0


async def act(store, recorder, what, text, choice):
    if what == "put":
        await store.put(text * (1 + 300 * (choice == 9)))
    elif what == "many":
        await store.put_many(text.split())
    elif what == "find":
        await store.find(text, top_k=1 + choice)
    elif what == "ask":
        await store.ask(text, generate=lambda _: text, provider="p", model="m")
    elif what == "mark":
        await recorder.create_checkpoint()
    else:
        frames = [frame.frame_id async for frame in store.frames()]
        if frames and what == "update":
            await store.update(frames[choice % len(frames)], text)
        elif frames:
            await store.delete(frames[choice % len(frames)])


async def test_what_was_put_while_the_index_is_saved_is_found(make_store):
    """A BUFFERED store folds ahead of what it has written; the index must not pass that over."""
    store = await make_store(config=StoreConfig(durability=Durability.BUFFERED))
    async with store.session() as recorder:
        for number in range(700):
            await store.put(f"word{number} " + "filler " * 100)
            assert len((await store.find(f"word{number}")).hits) == 1
    assert (await store.replay(recorder.session_id).report()).match_rate == 1
    await store.aclose()
    store = await make_store("store.mva", read_only=True)
    for number in range(0, 700, 7):
        assert len((await store.find(f"word{number}")).hits) == 1
