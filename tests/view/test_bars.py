"""What a session did when: bars in their order, and lanes where none is drawn over another."""

import re
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    Action,
    ActionKind,
    ActionStarted,
    CallFacts,
    Session,
    StepDetails,
    ToolCallDetails,
)
from memvid_async.view.bars import LEVELS, layout_of, overview_of, time_range
from memvid_async.view.waterfall import lanes_picture, rows_in_time

SESSION = UUID(int=7)
# A start, an end, a parent and a task; ends before starts and parents that are not there included.
CALLS = st.lists(
    st.tuples(
        st.integers(0, 50),
        st.one_of(st.none(), st.integers(0, 60)),
        st.one_of(st.none(), st.integers(0, 40)),
        st.sampled_from(["", "a", "b", *map(str, range(14))]),
    ),
    max_size=30,
)


def session_of(calls: Any) -> Any:
    """A session in which each call has a start, and an end where it has one."""
    actions, in_flight = [], []
    for number, (begin, end, parent, task) in enumerate(calls):
        started = 2 * number + 1
        if end is None:
            start = ActionStarted(
                started, begin, SESSION, ActionKind.STEP, StepDetails("s"), None, task, parent
            )
            in_flight.append(start)
        else:
            facts = CallFacts(started, begin, parent)
            actions.append(
                Action(
                    index=len(actions),
                    sequence=started + 1,
                    time_ns=end,
                    kind=ActionKind.TOOL_CALL,
                    details=ToolCallDetails("t"),
                    input=None,
                    output=None,
                    affected_frames=(),
                    duration_ms=0,
                    task=task,
                    call=facts,
                )
            )
    return Session(SESSION, None, 0, None, None, tuple(actions), (), {}, 1, None, tuple(in_flight))


@given(CALLS)
def test_every_call_is_a_span_once_and_comes_after_what_is_around_it(calls):
    session = session_of(calls)
    bars = overview_of(session).bars
    assert sorted(bar.start for bar in bars) == [2 * n + 1 for n in range(len(calls))]
    parents = {2 * n + 1: call[2] for n, call in enumerate(calls)}
    depths: dict[int, int] = {}
    for bar in bars:
        parent = parents[bar.start]
        is_inside = parent in parents and parent < bar.start
        assert bar.depth == (depths[parent] + 1 if is_inside else 0)
        depths[bar.start] = bar.depth
    counts = overview_of(session).counts
    assert counts["in flight"] + counts.get("tool_call", 0) == len(calls)


@given(CALLS)
def test_no_span_is_drawn_over_another_of_its_lane(calls):
    bars = overview_of(session_of(calls)).bars
    lanes = layout_of(bars)
    assert len(lanes.placed) == len(bars)
    taken: dict[tuple[int, int], int] = {}
    for one in lanes.placed:
        assert one.level < lanes.levels[one.lane] <= LEVELS
        place = one.lane, one.level
        is_last = one.level == LEVELS - 1
        assert is_last or one.bar.begin_ns >= taken.get(place, 0)
        taken[place] = 2**63 if one.bar.end_ns is None else one.bar.end_ns


@given(CALLS)
def test_bars_are_within_the_picture(calls):
    bars = overview_of(session_of(calls)).bars
    begin, end = time_range(bars)
    picture = lanes_picture(bars, begin, end, lambda bar: f"#{bar.anchor}")
    links = [link for to in re.findall(r'data-to="([^"]*)"', picture) for link in to.split(" ")]
    assert sorted(links) == sorted(f"#{bar.anchor}" for bar in bars)
    assert picture.count("M") == len(bars) + picture.count('class="line"') + picture.count("tick")
    told, at = [], begin // 1000
    for row in rows_in_time(bars).split(",") if bars else []:
        place, since, lasted, *depth = row.split(" ")
        at += int(since)
        end_at = at + int(lasted) if lasted else None
        told.append((place, at, end_at, int(*depth)))
    assert told == [
        (
            bar.anchor.removeprefix("a"),
            bar.begin_ns // 1000,
            None if bar.end_ns is None else bar.end_ns // 1000,
            bar.depth,
        )
        for bar in bars
    ]
    assert "nan" not in picture
    assert "-0" not in picture


def test_thousands_of_spans_are_few_shapes():
    calls = [(n, n + 3, None, "a") for n in range(5000)]
    bars = overview_of(session_of(calls)).bars
    picture = lanes_picture(bars, 0, 5003, lambda bar: f"#{bar.anchor}")
    assert picture.count("<a ") == 50
    assert len(picture) < 60_000


def test_a_file_without_actions_has_no_picture():
    empty = SimpleNamespace(actions=(), in_flight=())
    assert overview_of(empty).bars == []  # type: ignore[arg-type]
    assert lanes_picture([], 0, 0, lambda _: "") == ""
