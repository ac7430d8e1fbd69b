"""What a fold reads of the log is what the events say."""

from itertools import pairwise

import pytest

from memvid_async import CorruptFileError
from memvid_async.events.frames import FRAME_EVENTS, FramePut, FramesPut
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


async def test_they_are_the_events_of_the_log(view):
    last = view.state.last_sequence
    told = [e for e in view.events_after(0, 2**40) if type(e.payload) in FRAME_EVENTS]
    assert len(told) == 7
    for after, until in [(0, last), (1, last), (2, 4), (last - 2, last), (last, last)]:
        found = [event for event, _ in view.memory_events(after, until)]
        assert found == [event for event in told if after < event.sequence <= until]


async def test_a_hint_leaves_out_what_was_read(view):
    found = list(view.memory_events(0, 2**40))
    for (event, hint), (_, later) in pairwise(found):
        if hint != later:
            rest = list(view.memory_events(event.sequence, 2**40, hint))
            assert rest == [(e, h) for e, h in found if e.sequence > event.sequence]
    assert not list(view.memory_events(found[-1][0].sequence, 2**40, found[-1][1]))


async def test_content_beside_a_frame_is_in_hand(view):
    puts = [e.payload for e, _ in view.memory_events(0, 2**40)]
    mixed = next(put for put in puts if isinstance(put, FramesPut) and len(put) == len(MIXED))
    (large,) = [frame.content for frame in mixed if frame.content.size > 1024]
    assert large.data == "é" * 2000
    assert large.stored is not None
    assert view.value(large) == large.data


async def test_a_text_and_nothing_else_costs_no_object(view):
    puts = [e.payload for e, _ in view.memory_events(0, 2**40)]
    kept = [kept for put in puts if isinstance(put, FramesPut) for kept in put.kept]
    assert [type(one) for one in kept].count(str) == 4 * 40 + 3
    assert [type(one) for one in kept].count(FramePut) == 2


async def test_a_damaged_payload_is_said(view, monkeypatch):
    segments = view.projection_segments

    def damaged(*given):
        for segment in segments(*given):
            yield segment._replace(payload=segment.payload[:-1])

    monkeypatch.setattr(type(view), "projection_segments", lambda _, *given: damaged(*given))
    with pytest.raises(CorruptFileError):
        list(view.memory_events(0, 2**40))
