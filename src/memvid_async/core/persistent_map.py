"""A map that is never changed: setting a key makes the next one, at the cost of a plain dict.

All maps that were made of one another share one dict, which the newest of them owns. Setting a key
changes that dict and hands it on to the new map; the old one keeps what undoes the change, and who
came next::

    old  ──({key: value before}, next)──▶  newer  ──(…)──▶  newest  ──▶  the dict

An old map reads through what it has to undo. Nothing refers back to it, so it is freed as soon as
nobody holds it, and what it kept with it.

Any thread may read any map while another one sets keys, without a lock. Two rules make that right:
the old map gets its link before the dict changes, and whoever read the dict looks again whether it
was still its owner's when it was read.
"""

# ruff: noqa: SLF001 - maps of one family look into each other

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from threading import Lock
from typing import Any, TypeVar, cast, overload
from weakref import ref

Key = TypeVar("Key")
Value = TypeVar("Value")
Other = TypeVar("Other")

# Where a key is in no map, and so in no dict.
_ABSENT: Any = object()
# Changes before it is looked whether somebody holds an old map; at least one per key besides.
_LEAST_CHANGES = 1024
_new = object.__new__


class _Family:
    """What the maps that share a dict have in common."""

    __slots__ = ("left", "lock", "mark")

    def __init__(self, first: PersistentMap[Any, Any], size: int) -> None:
        # Held while the dict is changed and handed on.
        self.lock = Lock()
        # Changes until ``mark``, an old map, is looked at.
        self.left = max(_LEAST_CHANGES, size)
        self.mark = ref(first)


class PersistentMap(Mapping[Key, Value]):
    """A map that stays as it is. Its items come in no particular order.

    A key is read or set in the time that a dict takes; an old map, when it is read again, first
    takes in what was changed since. Iterating copies, and so does changing a map that was changed
    before.
    """

    # ``_place``: the dict, or what must be undone in it and the next map. It is replaced as one.
    __slots__ = ("__weakref__", "_family", "_place")

    _place: dict[Key, Value] | tuple[dict[Key, Value], PersistentMap[Key, Value]]

    def __init__(self, items: Mapping[Key, Value] | Iterable[tuple[Key, Value]] = ()) -> None:
        data = dict(items)
        self._place = data
        self._family = _Family(self, len(data))

    # Changing.

    def set(self, key: Key, value: Value) -> PersistentMap[Key, Value]:
        """The map with this value. The hot path of every fold: :meth:`changed`, of one key."""
        family = self._family
        with family.lock:
            data = self._place
            if family.left and type(data) is dict and data:
                family.left -= 1
                newer: PersistentMap[Key, Value] = _new(PersistentMap)
                newer._family = family
                newer._place = data
                self._place = ({key: data.get(key, _ABSENT)}, newer)
                data[key] = value
                return newer
        return self.changed({key: value})

    def delete(self, key: Key) -> PersistentMap[Key, Value]:
        """The map without this key.

        :raises KeyError: when it has none.
        """
        if key not in self:
            raise KeyError(key)
        return self.changed({}, (key,))

    def changed(
        self, values: Mapping[Key, Value], gone: Iterable[Key] = ()
    ) -> PersistentMap[Key, Value]:
        """The map with these values, and without the keys in ``gone``; one link for all of them."""
        gone = tuple(gone)
        if not values and not gone:
            return self
        family = self._family
        with family.lock:
            data = self._place
            if type(data) is dict and data and self._may_share(len(values) + len(gone)):
                newer: PersistentMap[Key, Value] = _new(PersistentMap)
                newer._family = family
                newer._place = data
                undo = {key: data.get(key, _ABSENT) for key in (*values, *gone)}
                self._place = (undo, newer)
                data.update(values)
                for key in gone:
                    data.pop(key, None)
                return newer
        # An empty map keeps its dict: one that is a default value would keep all that follow.
        own = self._copy()
        own.update(values)
        for key in gone:
            own.pop(key, None)
        return PersistentMap(own)

    def _may_share(self, changes: int) -> bool:
        """Whether the next map may have the dict. Somebody who holds an old map for very long would
        hold all that follow: they get a dict of their own."""
        family = self._family
        if family.left:
            family.left = max(0, family.left - changes)
            return True
        if family.mark() is not None:
            return False
        data = self._place
        family.left, family.mark = max(_LEAST_CHANGES, len(data)), ref(self)
        return True

    # Reading.

    def _find(self, key: Key) -> Value:
        """The value, or ``_ABSENT``."""
        place = self._place
        if type(place) is dict:
            value = place.get(key, _ABSENT)
            if self._place is place:
                return cast("Value", value)
        while True:
            undo, newest = self._caught_up()
            if key in undo:
                return undo[key]
            data = newest._place
            if type(data) is dict:
                value = data.get(key, _ABSENT)
                if newest._place is data:
                    return cast("Value", value)

    def _caught_up(self) -> tuple[dict[Key, Value], PersistentMap[Key, Value]]:
        """What has to be undone of all changes so far, and the map that was the newest then. Only
        for a map that was changed.

        The first change of a key says what it was, so later ones add nothing: two threads may do
        this at once, and another map's may be taken in while it grows.
        """
        place = self._place
        assert type(place) is tuple
        undo, newer = place
        while type(later := newer._place) is tuple:
            for key, value in later[0].copy().items():
                undo.setdefault(key, value)
            newer = later[1]
        if newer is not place[1]:
            self._place = (undo, newer)
        return undo, newer

    def _copy(self) -> dict[Key, Value]:
        """All of it as a dict of the caller's own."""
        place = self._place
        if type(place) is dict:
            copy = place.copy()
            if self._place is place:
                return copy
        while True:
            undo, newest = self._caught_up()
            data = newest._place
            if type(data) is not dict:
                continue
            copy = data.copy()
            if newest._place is not data:
                continue
            # What another thread took in meanwhile is undone for nothing: it is not in the copy.
            for key, value in undo.copy().items():
                if value is _ABSENT:
                    copy.pop(key, None)
                else:
                    copy[key] = value
            return copy

    @overload
    def get(self, key: Key, /) -> Value | None: ...
    @overload
    def get(self, key: Key, /, default: Value | Other) -> Value | Other: ...
    def get(self, key: Key, /, default: Any = None) -> Any:
        """The value of a key, or ``default``."""
        value = self._find(key)
        return default if value is _ABSENT else value

    def __getitem__(self, key: Key) -> Value:
        value = self._find(key)
        if value is _ABSENT:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._find(cast("Key", key)) is not _ABSENT

    def __len__(self) -> int:
        place = self._place
        if type(place) is dict:
            size = len(place)
            if self._place is place:
                return size
        return len(self._copy())

    def __iter__(self) -> Iterator[Key]:
        return iter(self._copy())

    def keys(self) -> KeysView[Key]:
        """The keys, of a copy."""
        return self._copy().keys()

    def values(self) -> ValuesView[Value]:
        """The values, of a copy."""
        return self._copy().values()

    def items(self) -> ItemsView[Key, Value]:
        """The items, of a copy."""
        return self._copy().items()

    def __repr__(self) -> str:
        return f"PersistentMap({self._copy()!r})"
