"""The actions of a session as a tuple that makes them when somebody looks.

Python's garbage collector visits every object again and again, and no other thread runs meanwhile:
a hundred thousand actions of eight objects each cost 0.2 seconds at a time. Bytes are not visited.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, SupportsIndex, cast, overload

from .event import Action, action_from, fields_of

# With fewer actions than this the objects themselves are kept.
MANY = 1024


class PackedActions(tuple[Action, ...]):
    """A tuple of actions. Each look makes a new action, equal to the one before."""

    # The tuple itself holds what ``_pack`` returns.
    __slots__ = ()

    def __iter__(self) -> Iterator[Action]:
        return map(_unpack, super().__iter__())

    def __reversed__(self) -> Iterator[Action]:
        return (self[at] for at in range(len(self) - 1, -1, -1))

    @overload
    def __getitem__(self, key: SupportsIndex) -> Action: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Action, ...]: ...
    def __getitem__(self, key: SupportsIndex | slice) -> Action | tuple[Action, ...]:
        if isinstance(key, slice):
            return tuple(map(_unpack, super().__getitem__(key)))
        return _unpack(super().__getitem__(key))

    def __contains__(self, item: object) -> bool:
        return any(item == action for action in self)

    def count(self, value: Any) -> int:
        """Return how many of the actions are equal to a value."""
        return sum(value == action for action in self)

    def index(self, value: Any, start: SupportsIndex = 0, stop: SupportsIndex = 2**62) -> int:
        """Return the place of the first action that is equal to a value."""
        return tuple(self).index(value, start, stop)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*self, *other)

    def __radd__(self, other: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*other, *self)

    def __mul__(self, times: SupportsIndex) -> tuple[Action, ...]:
        return tuple(self) * times

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


class ActionList:
    """Collects the actions of a session that has about this many."""

    __slots__ = ("_items", "_packs")

    def __init__(self, count: int) -> None:
        self._items: list[Any] = []
        self._packs = count >= MANY

    def append(self, action: Action) -> None:
        """Add the next action."""
        self._items.append(_pack(action) if self._packs else action)

    def whole(self) -> tuple[Action, ...]:
        """Return the actions."""
        return tuple.__new__(PackedActions if self._packs else tuple, self._items)


def _pack(action: Action) -> bytes:
    return pickle.dumps(fields_of(action), pickle.HIGHEST_PROTOCOL)


def _unpack(packed: Any) -> Action:
    # It was packed by this process: no byte of it is from a file.
    return action_from(pickle.loads(cast("bytes", packed)))  # noqa: S301
