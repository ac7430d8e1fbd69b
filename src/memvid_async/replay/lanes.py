"""Which recorded call answers a call: in the recorded order of each task, by content.

What one task did is a *lane*. A task that runs now follows the lane of its name. A task without a
name of its own (``Task-7``) follows the first lane that nobody follows and that begins with its
call. Lanes that went alike so far are as good as each other: when another turns out to fit better,
the two tasks that follow them change places.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator

from attrs import Factory, define, frozen

from ..events.event import Action
from .facts import task_name

_NUMBER = re.compile(r" \(\d+\)\Z")


@frozen
class Call:
    """A call as it is made now, by the task ``live`` whose name is ``task``.

    ``key``: kind, name and input. ``facts``: what else of its content it gives.
    """

    live: Hashable
    task: str | None
    key: tuple[Hashable, ...]
    facts: dict[str, Hashable]


@frozen
class Entry:
    """A recorded call; ``answer`` is what it gave."""

    action: Action
    key: tuple[Hashable, ...]
    facts: dict[str, Hashable]
    answer: Hashable

    def fits(self, call: Call) -> bool:
        """Whether this is the recorded counterpart of a call."""
        if call.key != self.key:
            return False
        return all(self.facts.get(name) in (None, value) for name, value in call.facts.items())


@define(eq=False)
class Lane:
    """The calls of one recorded task, in order; those before ``position`` are behind us."""

    name: str | None
    entries: list[Entry] = Factory(list)
    position: int = 0
    passed_over: set[int] = Factory(set)
    owner: Hashable = None

    @property
    def next(self) -> Entry | None:
        """The call that is due."""
        return self.entries[self.position] if self.position < len(self.entries) else None

    @property
    def is_free(self) -> bool:
        """Whether nobody follows it yet."""
        return self.owner is None and self.position == 0

    def is_due(self, call: Call) -> bool:
        """Whether the call that is due is this one."""
        entry = self.next
        return entry is not None and entry.fits(call)

    def went_like(self, other: Lane, count: int) -> bool:
        """Whether the first calls of both, and their answers, are the same."""
        if self.passed_over or other.passed_over:
            return False
        pairs = zip(self.entries[:count], other.entries[:count], strict=True)
        return all(a.key == b.key and a.answer == b.answer for a, b in pairs)


def group(name: str | None) -> str:
    """What tasks that do the same have in common: their name without a number at its end."""
    return _NUMBER.sub("", task_name(name) or "")


class Lanes:
    """All lanes of a recording.

    ``ahead``: a call that is not due may be found further on in its lane; what is between is
    passed over.
    """

    def __init__(self, entries: Iterable[Entry], *, ahead: bool) -> None:
        self._ahead = ahead
        self._by_name: dict[str | None, Lane] = {}
        for entry in entries:
            name = entry.action.task
            self._by_name.setdefault(name, Lane(name)).entries.append(entry)
        self._by_start: dict[tuple[Hashable, ...], list[Lane]] = {}
        for lane in self:
            self._by_start.setdefault(lane.entries[0].key, []).append(lane)
        self._groups = {group(lane.name) for lane in self}
        self._followed: dict[Hashable, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_name.values())

    def followed(self, call: Call) -> Lane | None:
        """The lane that the call's task follows, or would: that of its name, or a free one."""
        lane = self._followed.get(call.live) or self._named(call)
        return lane or next(iter(self._free(call, self)), None)

    def take(self, call: Call) -> Entry | None:
        """The recorded call that answers this one; None when there is none at this point."""
        lane = self._followed.get(call.live)
        if lane is None or not lane.is_due(call):
            lane = self._find(call, lane)
        entry = lane.next if lane is not None else None
        if lane is not None:
            lane.position += 1
        return entry

    def _find(self, call: Call, lane: Lane | None) -> Lane | None:
        """A lane in which the call is due, other than the one that its task follows."""
        found = self._exchange(call, lane) if lane is not None else None
        if found is None and (lane is None or lane.next is None):
            found = self._follow(call)
        if found is None and (named := self._named(call)) is not None and named.is_due(call):
            # Several tasks of one name were recorded in it.
            found = named
        if found is None and self._ahead:
            found = self._skip(call, lane)
        return found

    def _named(self, call: Call) -> Lane | None:
        return self._by_name.get(call.task) if group(call.task) else None

    def _exchange(self, call: Call, lane: Lane) -> Lane | None:
        """Another lane that went alike and where the call is due; its follower changes to ours."""
        count = lane.position
        for other in self._by_start.get(lane.entries[0].key, ()):
            if (
                (other.is_free or (other.owner is not None and other.position <= count))
                and count < len(other.entries)
                and other.entries[count].fits(call)
                and group(other.name) == group(lane.name)
                and lane.went_like(other, count)
            ):
                lane.owner, lane.position = other.owner, other.position
                if lane.owner is not None:
                    self._followed[lane.owner] = lane
                other.position = count
                return self._own(call, other)
        return None

    def _follow(self, call: Call) -> Lane | None:
        """The best lane that nobody follows and that begins with the call."""
        starting = (lane for lane in self._by_start.get(call.key, ()) if lane.is_due(call))
        return next((self._own(call, lane) for lane in self._free(call, starting)), None)

    def _free(self, call: Call, lanes: Iterable[Lane]) -> list[Lane]:
        """Those that nobody follows, the best first: of the call's task, of its group, of no name,
        any. Where the recording knows the task's name, no other task's."""
        own = group(call.task)
        known = own in self._groups and own != ""

        def rank(lane: Lane) -> int:
            theirs = group(lane.name)
            ranks = (own != "" and lane.name == call.task, theirs == own, theirs == "", True)
            return ranks.index(True)

        free = [lane for lane in lanes if lane.is_free and (not known or group(lane.name) == own)]
        return sorted(free, key=rank)

    def _own(self, call: Call, lane: Lane) -> Lane:
        lane.owner = call.live
        self._followed[call.live] = lane
        return lane

    def _skip(self, call: Call, lane: Lane | None) -> Lane | None:
        """A lane in which the call comes later."""
        candidates = [lane] if lane is not None else self._free(call, self)
        for candidate in candidates:
            for position in range(candidate.position, len(candidate.entries)):
                if candidate.entries[position].fits(call):
                    candidate.passed_over.update(range(candidate.position, position))
                    candidate.position = position
                    return self._own(call, candidate)
        return None
