"""Which recorded call answers which live one: the pure part of `docs/rules.md`, rule by rule."""

from typing import Any

import pytest

from memvid_async.recording.lanes import Lane
from memvid_async.replay.matching import Ask, Matching, Mismatch, Outcome, RecordedCall


def call(
    start: int,
    end: int | None,
    content: str = "x",
    lane: tuple[str | int, ...] = (),
    seen: int = 0,
    **more: Any,
) -> RecordedCall:
    outcome = Outcome.IN_FLIGHT if end is None else Outcome.FINISHED
    return RecordedCall(start, end, lane, seen, 0, content, outcome, **more)


def start_of(ask: Ask) -> int | None:
    return None if ask.call is None else ask.call.start


def due(matching: Matching) -> int | None:
    """Hand over what is due, and return whose it is."""
    handed = matching.next()
    return None if handed is None else start_of(handed[0])


def test_a_call_is_known_by_its_place() -> None:
    """Rule 1: a retry is the next place, however equal the calls are."""
    root = Lane()
    matching = Matching([call(1, 2), call(3, 4)], root)
    assert [start_of(matching.ask(root, 0, "x")) for _ in range(3)] == [1, 3, None]


def test_its_content_is_checked_and_not_looked_for() -> None:
    """Rule 2."""
    root = Lane()
    matching = Matching([call(1, 2, "x"), call(3, 4, "y")], root)
    with pytest.raises(Mismatch) as caught:
        matching.ask(root, 0, "y")
    assert caught.value.due.start == 1


def test_a_lane_is_known_by_its_name_or_by_what_it_begins_with() -> None:
    """Rules 3 and 4."""
    lanes = [(0,), ("a",), (1,), (2,)]
    contents = ["x", "x", "y", "x"]
    recorded = [call(at, at, contents[at], lanes[at]) for at in range(4)]
    root = Lane()
    matching = Matching(recorded, root)
    unnamed = [Lane(root) for _ in range(4)]
    assert start_of(matching.ask(unnamed[0], 0, "y")) == 2
    assert start_of(matching.ask(unnamed[1], 0, "x")) == 0
    assert start_of(matching.ask(Lane(root, "a"), 0, "x")) == 1
    assert start_of(matching.ask(unnamed[2], 0, "x")) == 3
    assert start_of(matching.ask(unnamed[3], 0, "x")) is None


@pytest.mark.parametrize("answers", [("same", "same"), ("one", "another")])
def test_lanes_that_went_alike_may_change_places(answers: tuple[str, str]) -> None:
    """Rule 5: as nobody can tell them apart; who was told something else is another one."""
    recorded = [
        call(1, 3, "x", (0,), answer=answers[0]),
        call(2, 4, "x", (1,), answer=answers[1]),
        call(5, 7, "p", (0,), seen=4),
        call(6, 8, "q", (1,), seen=4),
    ]
    root = Lane()
    matching = Matching(recorded, root)
    one, other = Lane(root), Lane(root)
    assert [start_of(matching.ask(lane, 0, "x")) for lane in (one, other)] == [1, 2]
    assert [due(matching), due(matching)] == [1, 2]
    if answers[0] == answers[1]:
        assert start_of(matching.ask(one, 0, "q")) == 6
        assert start_of(matching.ask(other, 0, "p")) == 5
    else:
        with pytest.raises(Mismatch):
            matching.ask(one, 0, "q")


def test_an_end_is_told_after_the_starts_before_it_and_in_its_order() -> None:
    """Rules 7 and 8."""
    recorded = [call(1, 5, "x", ("a",)), call(2, 4, "x", ("b",)), call(3, 6, "x", ("c",))]
    root = Lane()
    matching = Matching(recorded, root)
    lanes = {name: Lane(root, name) for name in "abc"}
    for name in "ab":
        matching.ask(lanes[name], 0, "x")
        assert due(matching) is None
    matching.ask(lanes["c"], 0, "x")
    assert [due(matching) for _ in range(3)] == [2, 1, 3]
    assert matching.drained


def test_what_is_not_recorded_waits_for_all_that_is() -> None:
    """Rule 10: a lane that is through, and a call in flight."""
    recorded = [call(1, 4, "x", ("a",)), call(2, None, "x", ("b",)), call(3, 5, "x", ("c",))]
    root = Lane()
    matching = Matching(recorded, root)
    lanes = {name: Lane(root, name) for name in "abc"}
    first, in_flight = (matching.ask(lanes[name], 0, "x") for name in "ab")
    beyond = matching.ask(Lane(root, "new"), 0, "x")
    assert not matching.drained
    matching.ask(lanes["c"], 0, "x")
    assert [due(matching), due(matching), due(matching)] == [first.call.start, 3, None]  # type: ignore[union-attr]
    assert matching.release() == [in_flight, beyond]
