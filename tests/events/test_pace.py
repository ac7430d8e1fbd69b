"""Long loops in threads let others have the interpreter."""

import pytest

from memvid_async.events import pace
from memvid_async.events.pace import unhurried


@pytest.fixture
def clock(monkeypatch):
    """A processor that each item takes a tenth of a millisecond of; how often it was given away."""
    seen = {"used": 0.0, "pauses": 0}

    def pause(seconds):
        assert seconds > 0
        seen["pauses"] += 1

    monkeypatch.setattr(pace.time, "thread_time", lambda: seen["used"])
    monkeypatch.setattr(pace.time, "sleep", pause)
    return seen


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 1000])
def test_every_item_comes_once(count):
    assert list(unhurried(range(count))) == list(range(count))


def test_there_is_a_pause_after_every_few_items(clock):
    for _ in unhurried(range(320)):
        clock["used"] += 0.0001
    # At the first of ten looks the time begins to count.
    assert clock["pauses"] == 9


def test_what_takes_no_time_takes_no_pause(clock):
    for _ in unhurried(range(10_000)):
        pass
    assert clock["pauses"] == 0


def test_what_is_inside_fails_as_it_would_without():
    def failing():
        yield 1
        raise KeyError("gone")

    given = unhurried(failing())
    assert next(given) == 1
    with pytest.raises(KeyError, match="gone"):
        next(given)
