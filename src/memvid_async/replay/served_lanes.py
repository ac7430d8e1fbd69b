"""Which recorded call answers a live call: by what it is, in the recorded order of each task.

The recorded calls of one task are a *lane*. A live task follows the lane of its name. A task
without a name of its own (``Task-7``) follows the first lane that no task follows and that begins
with its call. Lanes with the same calls and answers so far are interchangeable: when a call fits
another one of them, the tasks that follow both are exchanged.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator

from attrs import Factory, define, frozen

from ..events.event import Action
from .facts import task_name

_NUMBER = re.compile(r" \(\d+\)\Z")


@frozen
class LaneAsk:
    """A live call, by the task ``live`` whose name is ``task``.

    ``key``: kind, name and input. ``facts``: what else of it can be compared, by name.
    """

    live: Hashable
    task: str | None
    key: tuple[Hashable, ...]
    facts: dict[str, Hashable]


@frozen
class LaneCall:
    """A recorded call. ``key`` and ``facts``: as of a live call. ``answer``: what it returned."""

    action: Action
    key: tuple[Hashable, ...]
    facts: dict[str, Hashable]
    answer: Hashable

    def fits(self, call: LaneAsk) -> bool:
        """Whether this is the recorded counterpart of a call."""
        if call.key != self.key:
            return False
        return all(self.facts.get(name) in (None, value) for name, value in call.facts.items())


@define(eq=False)
class ServedLane:
    """The calls of one recorded task, in order.

    ``position``: the number of calls that were answered or passed over; the next one is due.
    ``owner``: the live task that follows the lane.
    """

    name: str | None
    calls: list[LaneCall] = Factory(list)
    position: int = 0
    passed_over: set[int] = Factory(set)
    owner: Hashable = None

    @property
    def next(self) -> LaneCall | None:
        """The call that is due; None at the lane's end."""
        return self.calls[self.position] if self.position < len(self.calls) else None

    @property
    def is_free(self) -> bool:
        """Whether no task follows it yet."""
        return self.owner is None and self.position == 0

    def is_due(self, call: LaneAsk) -> bool:
        """Whether the due call answers this live call."""
        recorded = self.next
        return recorded is not None and recorded.fits(call)

    def went_like(self, other: ServedLane, count: int) -> bool:
        """Whether the first ``count`` calls of both, and their answers, are the same."""
        if self.passed_over or other.passed_over:
            return False
        pairs = zip(self.calls[:count], other.calls[:count], strict=True)
        return all(a.key == b.key and a.answer == b.answer for a, b in pairs)


def group(name: str | None) -> str:
    """Return a task's name without a number at its end, which tasks of one kind have in common."""
    return _NUMBER.sub("", task_name(name) or "")


class ServedLanes:
    """All lanes of a recording.

    ``ahead``: whether a call that is not due may be answered by a later call of its lane; those
    between are passed over.
    """

    def __init__(self, calls: Iterable[LaneCall], *, ahead: bool) -> None:
        self._ahead = ahead
        self._by_name: dict[str | None, ServedLane] = {}
        for recorded in calls:
            name = recorded.action.task
            self._by_name.setdefault(name, ServedLane(name)).calls.append(recorded)
        self._by_start: dict[tuple[Hashable, ...], list[ServedLane]] = {}
        for lane in self:
            self._by_start.setdefault(lane.calls[0].key, []).append(lane)
        self._groups = {group(lane.name) for lane in self}
        self._followed: dict[Hashable, ServedLane] = {}

    def __iter__(self) -> Iterator[ServedLane]:
        return iter(self._by_name.values())

    def followed(self, call: LaneAsk) -> ServedLane | None:
        """Return the lane that the call's task follows, or would: its name's, or a free one."""
        lane = self._followed.get(call.live) or self._named(call)
        return lane or next(iter(self._free(call, self)), None)

    def take(self, call: LaneAsk) -> LaneCall | None:
        """Return the recorded call that answers this one; None when none does at this point."""
        lane = self._followed.get(call.live)
        if lane is None or not lane.is_due(call):
            lane = self._find(call, lane)
        recorded = lane.next if lane is not None else None
        if lane is not None:
            lane.position += 1
        return recorded

    def _find(self, call: LaneAsk, lane: ServedLane | None) -> ServedLane | None:
        """Return a lane in which the call is due, other than the one that its task follows."""
        found = self._exchange(call, lane) if lane is not None else None
        if found is None and (lane is None or lane.next is None):
            found = self._follow(call)
        if found is None and (named := self._named(call)) is not None and named.is_due(call):
            # The lane holds several recorded tasks of one name.
            found = named
        if found is None and self._ahead:
            found = self._skip(call, lane)
        return found

    def _named(self, call: LaneAsk) -> ServedLane | None:
        return self._by_name.get(call.task) if group(call.task) else None

    def _exchange(self, call: LaneAsk, lane: ServedLane) -> ServedLane | None:
        """Return an equal lane where the call is due; the task that follows it gets ours."""
        count = lane.position
        for other in self._by_start.get(lane.calls[0].key, ()):
            if (
                (other.is_free or (other.owner is not None and other.position <= count))
                and count < len(other.calls)
                and other.calls[count].fits(call)
                and group(other.name) == group(lane.name)
                and lane.went_like(other, count)
            ):
                lane.owner, lane.position = other.owner, other.position
                if lane.owner is not None:
                    self._followed[lane.owner] = lane
                other.position = count
                return self._own(call, other)
        return None

    def _follow(self, call: LaneAsk) -> ServedLane | None:
        """Return the best lane that no task follows and that begins with the call."""
        starting = (lane for lane in self._by_start.get(call.key, ()) if lane.is_due(call))
        return next((self._own(call, lane) for lane in self._free(call, starting)), None)

    def _free(self, call: LaneAsk, lanes: Iterable[ServedLane]) -> list[ServedLane]:
        """Return the lanes that no task follows, best first.

        First the lane of the call's task, then those of its group, those without a name, and all
        others. If the recording has the task's group, only the lanes of that group.
        """
        own = group(call.task)
        known = own in self._groups and own != ""

        def rank(lane: ServedLane) -> int:
            theirs = group(lane.name)
            ranks = (own != "" and lane.name == call.task, theirs == own, theirs == "", True)
            return ranks.index(True)

        free = [lane for lane in lanes if lane.is_free and (not known or group(lane.name) == own)]
        return sorted(free, key=rank)

    def _own(self, call: LaneAsk, lane: ServedLane) -> ServedLane:
        lane.owner = call.live
        self._followed[call.live] = lane
        return lane

    def _skip(self, call: LaneAsk, lane: ServedLane | None) -> ServedLane | None:
        """Return a lane in which the call comes later."""
        candidates = [lane] if lane is not None else self._free(call, self)
        for candidate in candidates:
            for position in range(candidate.position, len(candidate.calls)):
                if candidate.calls[position].fits(call):
                    candidate.passed_over.update(range(candidate.position, position))
                    candidate.position = position
                    return self._own(call, candidate)
        return None
