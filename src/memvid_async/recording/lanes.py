"""Lanes: which asyncio task makes a call, told in a way that the next run of the agent repeats.

A lane is a task beneath the lane of the task that created it. It is known by the task's name, or
by a number where nobody chose a name. Its path leads to it from the task that entered the session's
block, whose own path is empty.
"""

from __future__ import annotations

import asyncio
import re
import sys
from contextvars import ContextVar
from weakref import WeakKeyDictionary, ref

from ..events.calls import LanePath

_AUTOMATIC = re.compile(r"Task-\d+|Thread-\d+( \(.*\))?|ThreadPoolExecutor-\d+_\d+")


def chosen_name(name: str | None) -> str | None:
    """Return a task's or a thread's name; None for one that Python or a framework made up.

    anyio names a task by its function, ``package.module.function``.
    """
    if not name or _AUTOMATIC.fullmatch(name):
        return None
    module = name.rpartition(".")[0]
    while module and module not in sys.modules:
        module = module.rpartition(".")[0]
    return None if module else name


class Lane:
    """The calls of one asyncio task within a session.

    ``parent``: None for the lane of the block itself. ``name``: None where nobody chose one.
    ``has_called``: whether its task has made a call, and did not only enter a step.
    """

    __slots__ = ("__weakref__", "_named", "_path", "_unnamed", "has_called", "name", "parent")

    def __init__(self, parent: Lane | None = None, name: str | None = None) -> None:
        self.parent = parent
        self.name = name
        self.has_called = parent is None
        self._path: LanePath | None = None if parent is not None else ()
        self._named: dict[str, Lane] = {}
        self._unnamed = 0

    def __repr__(self) -> str:
        return f"<Lane {self._path if self._path is not None else 'without calls'}>"

    @property
    def path(self) -> LanePath:
        """Its path; one without a name gets its number when it is first asked for."""
        if self._path is None:
            parent = self.parent
            assert parent is not None
            own = parent.next_number() if self.name is None else self.name
            self._path = (*parent.path, own)
        return self._path

    def follow(self, path: LanePath) -> None:
        """Take over the path of a recorded lane."""
        self._path = path

    def next_number(self) -> int:
        """Return a number for a lane without a name beneath this one."""
        self._unnamed += 1
        return self._unnamed - 1

    def reserve(self, number: int) -> None:
        """Keep the numbers up to this one from lanes without a name beneath this one."""
        self._unnamed = max(self._unnamed, number + 1)

    def child(self, name: str | None) -> Lane:
        """Return the lane of a new task beneath this one.

        Where an earlier task had the name, the new one counts as one without a name.
        """
        if name is None or name in self._named:
            return Lane(self)
        return self.named(name)

    def named(self, name: str) -> Lane:
        """Return the lane of this name beneath this one."""
        if name not in self._named:
            self._named[name] = Lane(self, name)
        return self._named[name]


# The lanes that a context is in, one for each session's Lanes. One variable serves all, because a
# variable made for each session would never be freed.
_INHERITED: ContextVar[tuple[tuple[ref[Lanes], Lane], ...]] = ContextVar(
    "memvid_async_lanes", default=()
)


class Lanes:
    """The lanes of one session's block. Made in the task that enters it."""

    def __init__(self) -> None:
        self._of_task = WeakKeyDictionary[asyncio.Task[object], Lane]()
        task = asyncio.current_task()
        # Its name says nothing where others are beneath it; see :class:`Matching`, ``is_flat``.
        self.root = Lane(name=None if task is None else chosen_name(task.get_name()))
        if task is not None:
            self._enter(task, self.root)

    def current(self, task: asyncio.Task[object] | None = None) -> Lane:
        """Return the lane of the task that runs, which makes a call."""
        lane = self._entered(task)
        lane.has_called = True
        return lane

    def nearest(self) -> Lane:
        """Return the lane of the task that runs, which enters a step, if it has made a call,
        otherwise that of the next task outwards that has. A step is in no lane of its own, because
        nothing finds that again."""
        return _calling(self._entered())

    def _entered(self, task: asyncio.Task[object] | None = None) -> Lane:
        """Return the lane of the task that runs. It is a child of its creator's lane, if that has
        made a call, otherwise of the next one outwards that has.

        It is known from the task's first call or step on. Of two tasks of one name the first has
        it, and a step takes long only where it is recorded.
        """
        task = task or asyncio.current_task()
        if task is None:
            return self.root
        lane = self._of_task.get(task)
        if lane is None:
            inherited = (mine for theirs, mine in _INHERITED.get() if theirs() is self)
            lane = _calling(next(inherited, self.root)).child(chosen_name(task.get_name()))
            self._enter(task, lane)
        return lane

    def named(self, name: str) -> Lane:
        """Return the lane that a caller named instead of its task."""
        return self.root.named(name)

    def _enter(self, task: asyncio.Task[object], lane: Lane) -> None:
        self._of_task[task] = lane
        others = [one for one in _INHERITED.get() if one[0]() not in (self, None)]
        _INHERITED.set((*others, (ref(self), lane)))


def _calling(lane: Lane) -> Lane:
    """Return the lane, or the next one outwards, whose task has made a call."""
    while not lane.has_called and lane.parent is not None:
        lane = lane.parent
    return lane
