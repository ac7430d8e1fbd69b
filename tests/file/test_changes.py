"""What a fold reads of the log is what the events say."""

import pytest
from attrs import evolve

from memvid_async import CorruptFileError
from memvid_async.events.content import Content
from memvid_async.events.event import Event
from memvid_async.events.frames import FramePut
from memvid_async.file.changes import TextPut
from memvid_async.file.journal import Journal
from memvid_async.storage import FileStorage
from tests.support.naive import fixed_config

BODIES = [f"text {number}" for number in range(40)]
MIXED = [*BODIES, {"content": "titled", "title": "t"}, b"bytes", "é" * 2000, *BODIES]


@pytest.fixture
async def view(make_store, tmp_path):
    store = await make_store()
    await store.put_many(BODIES)
    await store.put_many(MIXED)
    async with store.session():
        await store.put_many(BODIES)
        await store.update(3, "newer")
        await store.record_put(1, "no frame of the memory's")
    await store.delete(4)
    await store.put_many(BODIES[:3])
    await store.aclose()
    storage = FileStorage.open(tmp_path / "store.mva", read_only=True)
    journal = Journal.open(storage, fixed_config(), read_only=True)
    yield journal.view
    journal.release()


def as_event(change):
    if isinstance(change, Event):
        return change
    assert isinstance(change, TextPut)
    payload = FramePut(change.frame_id, Content(change.text), branch=change.branch)
    return Event(change.sequence, change.time_ns, None, payload)


@pytest.mark.parametrize("limit", [1, 2000, 2**40])
async def test_changes_are_the_events(view, limit):
    last = view.state.last_sequence
    for after, until in [(0, last), (17, last), (50, 160), (last - 2, last), (last, last)]:
        changes = list(view.memory_changes(after, limit, until))
        events = list(view.memory_events(after, limit, until))
        assert [(as_event(change), offset) for change, offset in changes] == events


async def test_most_changes_are_plain(view):
    changes = [change for change, _ in view.memory_changes(0, 2**40, 2**40)]
    plain = sum(isinstance(change, TextPut) for change in changes)
    assert plain >= 2 * len(BODIES)
    assert plain < len(changes)


async def test_a_damaged_payload_is_said(view, monkeypatch):
    segments = view.memory_segments

    def damaged(*given):
        for segment in segments(*given):
            yield evolve(segment, payload=segment.payload[:-1])

    monkeypatch.setattr(type(view), "memory_segments", lambda _, *given: damaged(*given))
    with pytest.raises(CorruptFileError):
        list(view.memory_changes(0, 2**40, 2**40))
