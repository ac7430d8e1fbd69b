"""Replaying a recorded session: what is compared, what cannot be, and where a difference is."""

import tracemalloc
import uuid

import attrs
import pytest

from memvid_async import (
    CheckpointNotFoundError,
    ContentNotFoundError,
    Durability,
    InvalidValueError,
    SessionNotFoundError,
    StoreConfig,
    Verdict,
)
from memvid_async.events.event import CheckpointCreated
from memvid_async.file.file_view import FileView
from memvid_async.file.reader import Reader
from memvid_async.replay import replay_run as replaying

BUFFERED = StoreConfig(durability=Durability.BUFFERED)
ASK = {"provider": "local", "model": "small", "response": "Because. " * 200, "duration_ms": 3}


@pytest.fixture
async def store(make_store):
    return await make_store(config=BUFFERED)


@pytest.fixture
async def session(store):
    async with store.session("other") as other, store.session("replayed") as recorder:
        await recorder.record_ask("Why?", **ASK)
        await other.record_put(1, "of the other session")
        assert await recorder.create_checkpoint() == 0
        await recorder.record_tool_call("look", arguments={}, result="a cat")
        await recorder.record_put(1, "a note")
        await recorder.record_find("note", mode="lex", result_count=1, result_frames=(1,))
        assert await recorder.create_checkpoint() == 1
        await recorder.record_delete(1)
    return recorder.session_id


def outline(steps):
    return [(step.index, step.action.kind.value, step.verdict.value) for step in steps]


WHOLE = [
    (0, "ask", "skipped"),
    (1, "checkpoint", "matched"),
    (2, "tool_call", "skipped"),
    (3, "put", "unverifiable"),
    (4, "find", "unverifiable"),
    (5, "checkpoint", "matched"),
    (6, "delete", "unverifiable"),
]


async def test_a_session_that_nobody_touched_matches_wherever_it_is_compared(store, session):
    report = await store.replay(session).report()
    assert outline(report.steps) == WHOLE
    assert report.counts == {
        Verdict.MATCHED: 2,
        Verdict.DIVERGED: 0,
        Verdict.SERVED: 0,
        Verdict.SKIPPED: 2,
        Verdict.UNVERIFIABLE: 3,
    }
    assert report.match_rate == 1
    assert (report.session_id, report.checkpoint_id) == (session, None)
    assert report.first_divergence is None
    assert all(step.reason for step in report.steps if step.verdict is not Verdict.MATCHED)


async def test_steps_come_one_by_one_and_again(store, session):
    replay = store.replay(session)
    async for step in replay:
        assert step.index == 0
        break
    assert outline([step async for step in replay]) == WHOLE


async def test_from_a_checkpoint_and_until_an_action(store, session):
    report = await store.replay(session, checkpoint_id=1).report()
    assert (outline(report.steps), report.checkpoint_id) == (WHOLE[5:], 1)
    report = await store.replay(session, checkpoint_id=0, before_index=4).report()
    assert outline(report.steps) == WHOLE[1:4]
    assert (await store.replay(session, before_index=0).report()).steps == ()


async def test_an_open_session_is_replayed_as_far_as_it_is_recorded(store):
    async with store.session() as recorder:
        await recorder.record_put(1, "a note")
        assert outline((await store.replay(recorder.session_id).report()).steps) == [
            (0, "put", "unverifiable")
        ]


async def test_a_long_log_is_folded_page_by_page(store, session, monkeypatch):
    monkeypatch.setattr(replaying, "PIECE_BYTES", 1)
    assert outline((await store.replay(session).report()).steps) == WHOLE


async def test_memory_does_not_grow_with_the_session(store, monkeypatch):
    monkeypatch.setattr(replaying, "PIECE_BYTES", 64 * 1024)
    peaks = []
    for count in (2_000, 8_000):
        async with store.session() as recorder:
            for number in range(count):
                await recorder.record_put(number, f"note {number} " * 20)
        # What is written while it is measured would count.
        await store.sync()
        steps = 0
        tracemalloc.start()
        async for _ in store.replay(recorder.session_id):
            steps += 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert steps == count
    assert peaks[1] < 1.5 * peaks[0], peaks


@pytest.mark.parametrize(
    ("field", "value"), [("frame_count", 1), ("memory_hash", bytes(32)), ("index", 6)]
)
async def test_a_changed_checkpoint_is_found_there_and_nowhere_else(
    store, session, monkeypatch, field, value
):
    read = Reader.decode

    def tampered(self, segment, state, end):
        events = read(self, segment, state, end)
        for place, event in enumerate(events):
            payload = event.payload
            if isinstance(payload, CheckpointCreated) and payload.action.index == 5:
                if field == "index":
                    payload = attrs.evolve(payload, action=attrs.evolve(payload.action, index=6))
                else:
                    snapshot = attrs.evolve(payload.checkpoint.snapshot, **{field: value})
                    checkpoint = attrs.evolve(payload.checkpoint, snapshot=snapshot)
                    payload = attrs.evolve(payload, checkpoint=checkpoint)
                events[place] = attrs.evolve(event, payload=payload)
        return events

    monkeypatch.setattr(Reader, "decode", tampered)
    report = await store.replay(session).report()
    assert report.first_divergence == report.steps[5]
    assert report.steps[5].verdict is Verdict.DIVERGED
    (difference,) = report.steps[5].differences
    assert (difference.field, value in (difference.a, difference.b)) == (field, True)
    assert report.match_rate < 1
    assert outline(report.steps[:5]) == WHOLE[:5]


async def test_what_was_erased_cannot_be_verified(store, session, monkeypatch):
    def gone(*_):
        raise ContentNotFoundError("gone")

    monkeypatch.setattr(FileView, "data", gone)
    steps = (await store.replay(session).report()).steps
    assert (steps[0].verdict, steps[0].reason) == (Verdict.UNVERIFIABLE, "its output was erased")


async def test_after_compaction_it_is_the_same(store, session):
    async with store.session("deleted") as deleted:
        await deleted.record_put(5, "x" * 5_000)
    await store.delete_session(deleted.session_id)
    await store.compact()
    assert outline((await store.replay(session).report()).steps) == WHOLE


async def test_what_is_not_there_is_named(store, session):
    with pytest.raises(CheckpointNotFoundError):
        await store.replay(session, checkpoint_id=2).report()
    with pytest.raises(SessionNotFoundError):
        await store.replay(uuid.uuid4()).report()
    with pytest.raises(InvalidValueError):
        store.replay(session, before_index=-1)
    with pytest.raises(InvalidValueError):
        store.replay("session")
