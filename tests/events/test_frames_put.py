"""Frames that entered the memory together: kept without an object each, told one by one."""

from functools import reduce

import pytest

from memvid_async.core.commands import ChangeMemory, NewFrame
from memvid_async.core.decide import decide
from memvid_async.core.evolve import evolve
from memvid_async.core.state import State
from memvid_async.events.content import Content
from memvid_async.events.details import ActionKind
from memvid_async.events.frames import FrameErased, FramePut, FramesPut
from tests.support.naive import FIRST_TIME, start

TEXTS = tuple(f"document {number} é" for number in range(600))
MIXED = FramesPut(
    5,
    ("one", b"two", FramePut(7, Content("three"), "t", branch=3), FrameErased(8, bytes(32), 3)),
    3,
)


def test_it_is_the_sequence_of_its_frames():
    frames = [
        FramePut(5, Content("one"), branch=3),
        FramePut(6, Content(b"two"), branch=3),
        *MIXED.kept[2:],
    ]
    assert list(MIXED) == frames
    assert [frame.branch for frame in MIXED] == [3] * 4
    assert len(MIXED) == 4
    assert [MIXED[at] for at in (0, 3, -1, -4)] == [frames[at] for at in (0, 3, -1, -4)]
    assert MIXED[1:3] == frames[1:3]
    assert list(MIXED.frame_ids) == [5, 6, 7, 8]
    assert frames[1] in MIXED
    for at in (4, -5):
        with pytest.raises(IndexError):
            MIXED[at]


def test_its_representation_is_short():
    assert repr(FramesPut(9, TEXTS)) == "FramesPut(frame_id=9, frames=600, branch=0)"


def put(frames):
    return ChangeMemory((), ActionKind.PUT_MANY, "english", frames, 0, {}, 1.5, None, {})


@pytest.fixture(params=[None, {}, {"auto_checkpoint_interval": 1}, {"max_actions": 1}])
def state(request):
    """A store with a frame in its memory, and perhaps a session."""
    events, _ = decide(State(), put(("one",)), FIRST_TIME, {})
    made = reduce(evolve, events, State())
    if request.param is not None:
        events, _ = decide(made, start(1, ambient=True, **request.param), FIRST_TIME, {})
        made = reduce(evolve, events, made)
    return made


def test_a_put_of_texts_is_one_event_that_keeps_them_as_they_are(state):
    command = put(TEXTS)
    events, (ids, _) = decide(state, command, FIRST_TIME, {})
    (made,) = [e.payload for e in events if isinstance(e.payload, FramesPut)]
    assert ids == list(made.frame_ids) == list(range(2, 602))
    assert all(one is text for one, text in zip(made.kept, TEXTS, strict=True))
    whole, same = decide(state, put(tuple(map(NewFrame, TEXTS))), FIRST_TIME, {})
    assert (whole, same[0]) == (events, ids)
    folded = reduce(evolve, events, state)
    assert folded.memory.frame_count == 601
    assert folded.memory.last_frame == 601


async def test_a_subscriber_gets_them(make_store):
    store = await make_store()

    async def seen(events):
        found = []
        async for event in events:
            found.append(event)
            if event.sequence == store.last_sequence:
                return found
        return found

    await store.start_session()
    async with store.subscribe(after=0) as live:
        ids = await store.put_many(TEXTS)
        delivered = await seen(live)
    assert ids == [*range(1, 601)]
    async with store.subscribe(after=0) as events:
        assert await seen(events) == delivered
    (made,) = [e.payload for e in delivered if isinstance(e.payload, FramesPut)]
    assert [one.content.data for one in made] == list(TEXTS)
