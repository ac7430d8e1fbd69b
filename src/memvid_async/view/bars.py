"""What a session did when: a bar of time for each action, nested as its calls were."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attrs import define, evolve, frozen

from .. import Action, ActionStarted, Session
from .findings import Used, used_of
from .text import count_of

LEVELS = 6
"""How many bars a lane has above each other at most."""
OTHERS = "other tasks"
"""The name of the lane that holds the tasks beyond the first ones."""

_MOST_LANES = 12


@frozen
class Bar:
    """One action, or one call in flight, in time."""

    index: int | None
    """The action's index; None for a call in flight."""
    start: int
    """The sequence of the event that began it: of an action in one piece its own."""
    kind: str
    """What it did."""
    title: str
    """Which tool, model or frame it is about."""
    task: str
    """Which task did it; "" for none."""
    begin_ns: int
    """When it began, in nanoseconds since the Unix epoch."""
    end_ns: int | None
    """When it ended; None where nobody said that it did."""
    depth: int
    """How many calls and steps it is inside of."""
    failed: bool
    """Whether it failed."""

    @property
    def anchor(self) -> str:
        """The id that its article has on a page."""
        return f"s{self.start}" if self.index is None else f"a{self.index}"


@define
class _Node:
    bar: Bar
    start: int
    parent: int | None


@frozen
class Overview:
    """What a page says of a session as a whole, from one look at each action."""

    bars: list[Bar]
    """Its bars: each after the one that it is inside of, otherwise in order of their begin."""
    counts: dict[str, int]
    """How many actions there are of each kind, how many failed, and how many are in flight."""
    used: Used
    """What its actions used together."""


def overview_of(session: Session) -> Overview:
    """Return what a page says of a session as a whole."""
    nodes: list[_Node] = []
    counts: Counter[str] = Counter()
    failed, usages = 0, []
    # A long session makes each action at each look.
    for action in session.actions:
        nodes.append(_of_action(action))
        counts[action.kind.value] += 1
        failed += action.error is not None
        if action.usage is not None:
            usages.append(action.usage)
    nodes += map(_of_start, session.in_flight)
    told = {**counts, "failed": failed, "in flight": len(session.in_flight)}
    return Overview(_in_order(nodes), told, used_of(usages))


def _in_order(nodes: Sequence[_Node]) -> list[Bar]:
    known = {node.start for node in nodes}
    inside: defaultdict[int | None, list[_Node]] = defaultdict(list)
    for node in nodes:
        # A call is inside of one that began before it, whatever the file says: so there is no
        # circle. Of a shared past that is gone, what was around a call may be missing.
        parent = node.parent
        is_inside = parent is not None and parent in known and parent < node.start
        inside[parent if is_inside else None].append(node)
    for siblings in inside.values():
        siblings.sort(key=lambda node: (node.bar.begin_ns, node.start), reverse=True)
    ordered: list[Bar] = []
    waiting = [(node, 0) for node in inside[None]]
    while waiting:
        node, depth = waiting.pop()
        ordered.append(evolve(node.bar, depth=depth) if depth else node.bar)
        waiting += [(child, depth + 1) for child in inside.get(node.start, ())]
    return ordered


def title_of(details: Any) -> str:
    """Say in a few words which tool, model or frames an action is about.

    ``details``: an action's, as they are or as JSON has them.
    """
    is_map = isinstance(details, Mapping)

    def get(name: str) -> Any:
        return details.get(name) if is_map else getattr(details, name, None)

    for name in ("name", "model", "mode"):
        if get(name):
            return str(get(name))
    for name, noun in (("frame_id", "frame "), ("checkpoint_id", "")):
        if get(name) is not None:
            return f"{noun}{get(name)}"
    frames = get("frame_ids") or ()
    return count_of(len(frames), "frame") if frames else ""


def _of_action(action: Action) -> _Node:
    end = action.time_ns
    begin = action.started_ns
    if begin is None:
        begin = end - int(action.duration_ms * 1e6)
    start = action.started or action.sequence
    bar = Bar(
        action.index,
        start,
        action.kind.value,
        title_of(action.details),
        action.task or "",
        min(begin, end),
        end,
        0,
        action.error is not None,
    )
    return _Node(bar, start, action.parent)


def _of_start(started: ActionStarted) -> _Node:
    bar = Bar(
        None,
        started.call,
        started.kind.value,
        title_of(started.details),
        started.task or "",
        started.time_ns,
        None,
        0,
        failed=False,
    )
    return _Node(bar, started.call, started.parent)


@frozen
class Placed:
    """A bar with its place in the picture."""

    bar: Bar
    """The bar."""
    lane: int
    """The place of its task's lane, from 0."""
    level: int
    """Its height in that lane, from 0."""


@frozen
class Layout:
    """The picture of bars: a lane for each task, with bars at the same time above each other."""

    names: tuple[str, ...]
    """The tasks, in the order in which they began; "" for none."""
    levels: tuple[int, ...]
    """How many levels each lane has."""
    placed: tuple[Placed, ...]
    """The bars, in order of their begin."""


def layout_of(bars: Sequence[Bar]) -> Layout:
    """Return where each bar is drawn: no two at the same time at one place, as far as a lane has
    levels for them."""
    ordered = sorted(bars, key=lambda bar: (bar.begin_ns, -_end(bar), bar.depth, bar.start))
    names = list(dict.fromkeys(bar.task for bar in ordered))
    if len(names) > _MOST_LANES:
        names[_MOST_LANES - 1 :] = [OTHERS]
    places = {name: place for place, name in enumerate(names)}
    ends: list[list[int]] = [[] for _ in names]
    placed = []
    for bar in ordered:
        lane = places.get(bar.task, len(names) - 1)
        placed.append(Placed(bar, lane, _take_level(ends[lane], bar)))
    return Layout(tuple(names), tuple(map(len, ends)), tuple(placed))


def _take_level(ends: list[int], bar: Bar) -> int:
    """Return the lowest level that is free at the bar's begin, and note until when it is taken."""
    for level, end in enumerate(ends):
        if end <= bar.begin_ns:
            ends[level] = _end(bar)
            return level
    if len(ends) < LEVELS:
        ends.append(_end(bar))
        return len(ends) - 1
    ends[-1] = max(ends[-1], _end(bar))
    return LEVELS - 1


def _end(bar: Bar) -> int:
    return 2**63 if bar.end_ns is None else bar.end_ns


def time_range(bars: Iterable[Bar], *others: int | None) -> tuple[int, int]:
    """Return the first and the last moment of bars and of other moments; 0 and 0 for none."""
    moments = [moment for moment in others if moment is not None]
    for bar in bars:
        moments.append(bar.begin_ns)
        if bar.end_ns is not None:
            moments.append(bar.end_ns)
    return (min(moments), max(moments)) if moments else (0, 0)
