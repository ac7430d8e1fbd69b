"""Events that are made when they are asked for are those that would have been made at once."""

from functools import reduce

import pytest

from memvid_async.core.commands import ChangeMemory, NewFrame
from memvid_async.core.decide import decide
from memvid_async.core.evolve import evolve, evolve_all
from memvid_async.core.state import State
from memvid_async.events.event import ActionKind
from memvid_async.events.frames import FramePut
from memvid_async.events.puts import LazyEvents, joined, kept_events, parts_of
from memvid_async.format.codec import encode_events
from tests.support.naive import FIRST_TIME, start

TEXTS = tuple(f"document {number} é" for number in range(600))
CONFIGS = [None, {}, {"auto_checkpoint_interval": 1}, {"max_actions": 1}]


def put(frames):
    return ChangeMemory((), ActionKind.PUT_MANY, "english", frames, 0, {}, 1.5, None, {})


@pytest.fixture(params=CONFIGS, ids=["no session", "session", "checkpoint", "end"])
def state(request):
    """A store with a frame in its memory, and perhaps a session."""
    events, _ = decide(State(), put(("one",)), FIRST_TIME, {})
    made = reduce(evolve, events, State())
    if request.param is not None:
        events, _ = decide(made, start(1, ambient=True, **request.param), FIRST_TIME, {})
        made = reduce(evolve, events, made)
    return made


@pytest.fixture(params=[32, 256, 257, 600])
def both(request, state):
    """What is decided of so many texts: when asked for, and at once."""
    texts = TEXTS[: request.param]
    lazy, answer = decide(state, put(texts), FIRST_TIME, {})
    whole, same = decide(state, put(tuple(map(NewFrame, texts))), FIRST_TIME, {})
    assert answer == same
    assert isinstance(lazy, LazyEvents)
    assert type(whole) is list
    return lazy, whole


def test_the_events_are_the_same(both):
    lazy, whole = both
    assert list(lazy) == whole
    assert len(lazy) == len(whole)
    for place in (0, 1, 31, -1, -2, len(whole) - 1):
        assert lazy[place] == whole[place]
    assert lazy[20:30] == whole[20:30]
    assert lazy[-3:] == whole[-3:]
    with pytest.raises(IndexError):
        lazy[len(whole)]


def test_they_are_encoded_and_folded_to_the_same(both, state):
    lazy, whole = both
    assert encode_events(lazy) == encode_events(whole)
    folded = reduce(evolve, whole, state)
    assert reduce(evolve_all, parts_of(lazy), state) == folded
    assert evolve_all(state, whole) == folded


def test_others_among_them_are_told_apart(both):
    lazy, whole = both
    others = [event for event in whole if not isinstance(event.payload, FramePut)]
    assert kept_events(lazy) == others


def test_joined_lists_are_a_list(both):
    lazy, whole = both
    assert joined([whole[:3], [], whole[3:]]) == whole
    assert list(joined([[], lazy, [], whole])) == whole * 2


def test_few_or_other_ones_are_made_at_once(state):
    few, _ = decide(state, put(TEXTS[:31]), FIRST_TIME, {})
    mixed, _ = decide(state, put((*TEXTS[:40], NewFrame("x", title="t"))), FIRST_TIME, {})
    assert type(few) is type(mixed) is list


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
    puts = [event.payload for event in delivered if isinstance(event.payload, FramePut)]
    assert [one.content.data for one in puts] == list(TEXTS)
