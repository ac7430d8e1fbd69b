"""Which recorded call answers which live one, and when. Pure: no loop, no clock, no I/O.

A call is matched by its enclosing call, its lane, and its place in that lane. Its content is
checked, never searched for. A lane is an asyncio task beneath its creator's lane, known by its
name; one without a name claims a recorded one at its first call. `docs/testing.md` has the rules.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Iterable, Mapping
from enum import Enum

from attrs import Factory, define, frozen

from ..events.calls import LanePath
from ..recording.lanes import Lane


class Outcome(Enum):
    """What the recording says of a call's end."""

    FINISHED = "finished"
    """It returned or raised."""
    CANCELLED = "cancelled"
    """The agent cancelled it, and went on."""
    IN_FLIGHT = "in flight"
    """Nobody said."""


@frozen
class RecordedCall:
    """A call of the recording."""

    start: int
    """The sequence of the event with which it began."""
    end: int | None
    """That of the event which says how it ended: the same one, where it is recorded in one piece;
    None where there is none."""
    lane: LanePath
    """Which lane made it."""
    seen: int | None
    """The end with the highest sequence among those that the agent had been told when it made this
    call; 0 for none; None where that is not known."""
    scope: int
    """The start of the call that it is part of; 0 for none. A step is not one."""
    content: Hashable
    """What is always compared."""
    outcome: Outcome
    chunks: tuple[tuple[int, int, int], ...] = ()
    """Of a stream that did not come at once: the sequence of each event that says how far it came,
    what the agent had been told then (as ``seen``), and how many chunks it had."""
    facts: Mapping[str, Hashable] = Factory(dict)
    """What is compared with the facts that the live call has."""
    answer: Hashable = None
    """Equal for equal answers."""
    gap: float = 0
    """Seconds from the event before to its start, which the agent may take again."""


UNKNOWN = object()
"""The fact that a recording does not say: equal to whatever the live call says."""


class Mismatch(Exception):  # noqa: N818 - the caller makes an error of it, with the difference
    """A live call is not the recorded one in its place; the session has diverged."""

    def __init__(self, due: RecordedCall) -> None:
        super().__init__(due)
        self.due = due


@define(eq=False)
class Ask:
    """A live call.

    ``call``: the recorded one in its place; None where there is none. ``withdrawn``: whether the
    agent has cancelled it.
    """

    scope: int
    call: RecordedCall | None = None
    withdrawn: bool = False


@define(eq=False)
class _Matched:
    """A recorded call, and how far it is. ``done``: nothing more is to be handed over for it."""

    recorded: RecordedCall
    ask: Ask | None = None
    done: bool = False

    def fits(self, content: Hashable, facts: Mapping[str, Hashable]) -> bool:
        mine = self.recorded
        # A call in flight has no messages in the recording: they are kept with its end.
        known = facts.keys() & mine.facts.keys() if mine.outcome is Outcome.IN_FLIGHT else facts
        return mine.content == content and all(
            mine.facts.get(n) in (facts[n], UNKNOWN) for n in known
        )

    def like(self, other: _Matched) -> bool:
        a, b = self.recorded, other.recorded
        return (a.content, a.outcome, a.answer) == (b.content, b.outcome, b.answer)

    def exchange(self, other: _Matched) -> None:
        self.ask, other.ask = other.ask, self.ask
        self.done, other.done = other.done, self.done
        for one in (self, other):
            if one.ask is not None:
                one.ask.call = one.recorded


@define(eq=False)
class _Track:
    """A recorded lane. ``owner``: the one of now that follows it. The calls, and how many of them
    were asked for, are kept by scope."""

    path: LanePath
    owner: Lane | None = None
    calls: dict[int, list[_Matched]] = Factory(dict)
    places: dict[int, int] = Factory(dict)
    followed_children: int = 0

    @property
    def is_unnamed(self) -> bool:
        return bool(self.path) and isinstance(self.path[-1], int)


_START, _CHUNKS, _END = range(3)
# A moment of the recording: the sequence of the last end that the agent had been told by then; the
# sequence of its event; which of these three it is; whose (by the start); how many chunks it had.
# The agent makes its calls and gets its chunks between one end and the next.
_Moment = tuple[int, int, int, int, int]


class Matching:
    """The recorded calls of a session, and how far they have been asked for and handed over.

    A recorded answer is due in the recorded order of the ends, once every start that was recorded
    before it has been asked for. What has no recorded answer waits until everything was handed
    over. ``root``: the lane of the task that enters the block. ``is_flat``: the recording does not
    say who created a task, and a lane is beneath none.
    """

    def __init__(self, calls: Iterable[RecordedCall], root: Lane, *, is_flat: bool = False) -> None:
        self._is_flat = is_flat
        self._lanes: dict[LanePath, _Track] = {(): _Track((), root)}
        self._calls: dict[int, _Matched] = {}
        self._inside: dict[int, list[_Matched]] = {}
        # Those without a name: by their parent, and by the scope and the content of a first call.
        self._unnamed: dict[tuple[LanePath, int, Hashable], list[_Track]] = {}
        self._highest: dict[LanePath, int] = {}
        self._followed: dict[Lane, _Track] = {}
        for recorded in sorted(calls, key=lambda call: call.start):
            self._add(_Matched(recorded))
        if not is_flat:
            self._follow(root, self._lanes[()])
        self._moments: list[_Moment] = []
        self._at = 0
        self._beyond: list[Ask] = []
        self._in_flight: list[Ask] = []
        self._open(0)

    def _add(self, call: _Matched) -> None:
        recorded = call.recorded
        self._calls[recorded.start] = call
        self._inside.setdefault(recorded.scope, []).append(call)
        path = recorded.lane
        for depth in range(1, len(path) + 1):
            self._lanes.setdefault(path[:depth], _Track(path[:depth]))
        lane = self._lanes[path]
        track = lane.calls.setdefault(recorded.scope, [])
        track.append(call)
        if len(track) == 1 and lane.is_unnamed:
            key = path[:-1], recorded.scope, recorded.content
            self._unnamed.setdefault(key, []).append(lane)
        for place, part in enumerate(path):
            if isinstance(part, int):
                known = self._highest.get(path[:place], -1)
                self._highest[path[:place]] = max(known, part)

    def _open(self, scope: int) -> None:
        """Make the calls inside a scope due; what is done already is passed over."""
        for call in self._inside.get(scope, ()):
            recorded = call.recorded
            start = recorded.start
            if recorded.seen is not None:
                self._insert((recorded.seen, start, _START, start, 0))
            passed = 0
            for sequence, seen, count in recorded.chunks:
                for number in range(passed + 1, count + 1):
                    self._insert((seen, sequence, _CHUNKS, start, number))
                passed = count
            if recorded.end is not None:
                self._insert((recorded.end, recorded.end, _END, start, 0))

    def _insert(self, moment: _Moment) -> None:
        place = bisect_left(self._moments, moment)
        self._moments.insert(place, moment)
        self._at = min(self._at, place)

    # Asking.

    def ask(
        self,
        lane: Lane,
        scope: int,
        content: Hashable,
        facts: Mapping[str, Hashable] | None = None,
    ) -> Ask:
        """Match a live call. ``scope``: the start of the call that it is part of, or 0.

        :raises Mismatch: when another call is recorded in its place.
        """
        ask, facts = Ask(scope), facts or {}
        mine = self._followed.get(lane) or self._claim(lane, scope, content, facts)
        track = mine.calls.get(scope, []) if mine is not None else []
        place = mine.places.get(scope, 0) if mine is not None else 0
        if mine is None or place == len(track):
            self._beyond.append(ask)
            return ask
        if not track[place].fits(content, facts):
            other = self._exchangeable(mine, scope, place, content, facts)
            if other is None:
                raise Mismatch(track[place].recorded)
            self._exchange(mine, other, scope, place)
            mine, track = other, other.calls[scope]
        mine.places[scope] = place + 1
        track[place].ask, ask.call = ask, track[place].recorded
        if ask.call.outcome is Outcome.IN_FLIGHT:
            self._in_flight.append(ask)
        return ask

    def _claim(
        self, lane: Lane, scope: int, content: Hashable, facts: Mapping[str, Hashable]
    ) -> _Track | None:
        """Return the recorded lane that a task follows from its first call on, if there is one."""
        parent = self._lanes[()] if self._is_flat else None
        if parent is None and lane.parent is not None:
            parent = self._followed.get(lane.parent)
        if parent is None:
            return None
        found = None
        if lane.name is not None:
            found = self._lanes.get((*parent.path, lane.name))
        if found is None and (lane.name is None or lane.parent is None):
            siblings = self._unnamed.get((parent.path, scope, content), [])
            if lane.parent is None:
                # The task that enters the block may be another one than then: a thread's, a test's.
                siblings = [*siblings, *self._lanes.values()]
            free = (one for one in siblings if one.owner is None and one.calls.get(scope))
            found = next((one for one in free if one.calls[scope][0].fits(content, facts)), None)
        if found is not None:
            self._follow(lane, found)
            parent.followed_children += 1
        return found

    def _follow(self, lane: Lane, recorded: _Track) -> None:
        recorded.owner, self._followed[lane] = lane, recorded
        if not self._is_flat:
            lane.follow(recorded.path)
            lane.reserve(self._highest.get(recorded.path, -1))

    # Equal lanes may change places.

    def _exchangeable(
        self,
        mine: _Track,
        scope: int,
        place: int,
        content: Hashable,
        facts: Mapping[str, Hashable],
    ) -> _Track | None:
        """Return a lane that went like this one so far, and in which the call comes next."""
        if not mine.is_unnamed or not place:
            return None
        track = mine.calls[scope]
        key = mine.path[:-1], scope, track[0].recorded.content
        for other in self._unnamed.get(key, ()):
            theirs = other.calls[scope]
            if (
                other is not mine
                and other.places.get(scope, 0) <= place < len(theirs)
                and not (mine.followed_children or other.followed_children)
                and theirs[place].fits(content, facts)
                and all(a.like(b) for a, b in zip(track[:place], theirs, strict=False))
            ):
                return other
        return None

    def _exchange(self, mine: _Track, other: _Track, scope: int, place: int) -> None:
        """Let the owners of two lanes follow each other's, with what they were handed."""
        for a, b in zip(mine.calls[scope][:place], other.calls[scope], strict=False):
            a.exchange(b)
            # What is not done any more is due again.
            first = min(one.seen or 0 for one in (a.recorded, b.recorded))
            self._at = min(self._at, bisect_left(self._moments, (first,)))
        mine.places, other.places = other.places, mine.places
        owner, theirs = mine.owner, other.owner
        assert owner is not None
        self._follow(owner, other)
        mine.owner = None
        if theirs is not None:
            self._follow(theirs, mine)

    # Handing over.

    def next(self) -> tuple[Ask, int | None] | None:
        """Return the call to which something is to be handed over now; None when there is none.

        The second value is the number of chunks that a stream has by now; None for the answer. The
        answer to a call that the agent cancelled is that it is cancelled.
        """
        while self._at < len(self._moments):
            _, _, what, start, count = self._moments[self._at]
            call = self._calls[start]
            if not call.done:
                if call.ask is None:
                    return None
                is_cancelled = call.recorded.outcome is Outcome.CANCELLED
                if what == _END and is_cancelled and not call.ask.withdrawn:
                    return None
                if what == _END or (what == _CHUNKS and not call.ask.withdrawn):
                    self._at += 1
                    call.done = what == _END
                    return call.ask, None if what == _END else count
            self._at += 1
        return None

    def withdraw(self, ask: Ask) -> bool:
        """Note that the agent cancelled a call, answered or not.

        Returns whether the recording does not know that: the call is in flight there, or finished
        and its lane made no call after that, where the process died before the cancellation was
        recorded.

        :raises Mismatch: when the agent went on then.
        """
        ask.withdrawn = True
        recorded = ask.call
        if recorded is None:
            self._beyond = [one for one in self._beyond if one is not ask]
            return False
        if recorded.outcome is Outcome.CANCELLED:
            return False
        self._calls[recorded.start].done = True
        self.abandon(recorded.start)
        last = self._lanes[recorded.lane].calls[recorded.scope][-1].recorded
        if recorded.end is not None and last.start > recorded.end:
            raise Mismatch(recorded)
        return True

    @property
    def due(self) -> RecordedCall | None:
        """The call that is waited for: to be asked for, or to be cancelled; None when none is."""
        if self._at < len(self._moments):
            return self._calls[self._moments[self._at][3]].recorded
        return None

    @property
    def drained(self) -> bool:
        """Whether everything that is due so far was handed over."""
        return self._at == len(self._moments)

    def release(self) -> list[Ask]:
        """Return the calls that may run now. Where they run again with calls of theirs recorded,
        those become due, and others have to wait for them.
        """
        assert self.drained
        released, self._in_flight = [one for one in self._in_flight if not one.withdrawn], []
        for ask in released:
            assert ask.call is not None
            self._calls[ask.call.start].done = True
            self._open(ask.call.start)
        if self.drained:
            released += self._beyond
            self._beyond = []
        return released

    # What is left.

    def unserved(self, scope: int = 0) -> list[RecordedCall]:
        """Return the calls inside a scope that nobody has asked for, and those inside of them that
        run again."""
        left, scopes = [], [scope]
        while scopes:
            for call in self._inside.get(scopes.pop(), ()):
                if call.ask is not None:
                    if call.recorded.outcome is Outcome.IN_FLIGHT and call.done:
                        scopes.append(call.recorded.start)
                elif not call.done:
                    left.append(call.recorded)
        return sorted(left, key=lambda call: call.start)

    def abandon(self, scope: int) -> None:
        """Take what is left inside a call for done, because the agent has cancelled that call."""
        for recorded in self.unserved(scope):
            self._calls[recorded.start].done = True
