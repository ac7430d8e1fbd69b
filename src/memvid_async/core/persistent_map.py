"""A map that never changes: setting a key makes a new map, at the cost of a plain dict.

Maps that were made from one another share one dict, which the newest of them owns. Setting a key
changes that dict and passes it on to the new map. The old map keeps a link to the new one, and what
undoes the change::

    old  ──({key: value before}, next)──▶  newer  ──(…)──▶  newest  ──▶  the dict

Reading an old map looks at what it must undo first, then at the dict. No newer map refers to an
older one, so an old map is freed with its undo as soon as nobody holds it.

Any thread may read any map while another thread sets keys, without a lock. Two rules make that
correct: the old map gets its link before the dict changes, and after reading the dict a reader
checks that the map still owned it.
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

# The value of a key that is in no map.
ABSENT: Any = object()
# After this many changes, or as many as there are keys if those are more, a check looks whether
# somebody still holds an old map.
_LEAST_CHANGES = 1024
_new = object.__new__


class _Family:
    """What the maps that share one dict have in common."""

    __slots__ = ("left", "lock", "mark")

    def __init__(self, first: PersistentMap[Any, Any], size: int) -> None:
        # Held while the dict is changed and passed on.
        self.lock = Lock()
        # Changes until the check whether ``mark``, an old map, is still held.
        self.left = max(_LEAST_CHANGES, size)
        self.mark = ref(first)


class PersistentMap(Mapping[Key, Value]):
    """A map that never changes. Its items come in no particular order.

    Reading or setting a key takes the time that a dict takes. Reading an old map first collects
    what was changed since. Iterating copies the dict, and so does changing a map that is not the
    newest.
    """

    # ``_place``: the dict; or what to undo in it, and the next map. Both are replaced together.
    __slots__ = ("__weakref__", "_family", "_place")

    _place: dict[Key, Value] | tuple[dict[Key, Value], PersistentMap[Key, Value]]

    def __init__(self, items: Mapping[Key, Value] | Iterable[tuple[Key, Value]] = ()) -> None:
        data = dict(items)
        self._place = data
        self._family = _Family(self, len(data))

    # Changing.

    def set(self, key: Key, value: Value) -> PersistentMap[Key, Value]:
        """Return the map with this value: :meth:`changed` for one key, on every fold's hot path."""
        family = self._family
        with family.lock:
            data = self._place
            if family.left and type(data) is dict and data:
                family.left -= 1
                newer: PersistentMap[Key, Value] = _new(PersistentMap)
                newer._family = family
                newer._place = data
                self._place = ({key: data.get(key, ABSENT)}, newer)
                data[key] = value
                return newer
        return self.changed({key: value})

    def without(self, key: Key) -> PersistentMap[Key, Value]:
        """Return the map without this key, which is this one where it has none: as :meth:`set`
        does."""
        family = self._family
        with family.lock:
            data = self._place
            if family.left and type(data) is dict:
                value = data.get(key, ABSENT)
                if value is ABSENT:
                    return self
                family.left -= 1
                newer: PersistentMap[Key, Value] = _new(PersistentMap)
                newer._family = family
                newer._place = data
                self._place = ({key: value}, newer)
                del data[key]
                return newer
        return self.changed({}, (key,)) if key in self else self

    def delete(self, key: Key) -> PersistentMap[Key, Value]:
        """Return the map without this key.

        :raises KeyError: when the key is not there.
        """
        if key not in self:
            raise KeyError(key)
        return self.changed({}, (key,))

    def changed(
        self, values: Mapping[Key, Value], gone: Iterable[Key] = ()
    ) -> PersistentMap[Key, Value]:
        """Return the map with these values and without the keys in ``gone``, by a single link."""
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
                undo = {key: data.get(key, ABSENT) for key in (*values, *gone)}
                self._place = (undo, newer)
                data.update(values)
                for key in gone:
                    data.pop(key, None)
                return newer
        # An empty map keeps its dict: as a default value it would keep all later maps alive.
        own = self._copy()
        own.update(values)
        for key in gone:
            own.pop(key, None)
        return PersistentMap(own)

    def _may_share(self, changes: int) -> bool:
        """Whether the next map may take over the dict.

        A holder of a very old map would keep all later maps alive. Then the next map gets a dict of
        its own.
        """
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
        """Return the value of a key, or ``ABSENT``."""
        place = self._place
        if type(place) is dict:
            value = place.get(key, ABSENT)
            if self._place is place:
                return value  # type: ignore[no-any-return]
        while True:
            undo, newest = self._caught_up()
            if key in undo:
                return undo[key]
            data = newest._place
            if type(data) is dict:
                value = data.get(key, ABSENT)
                if newest._place is data:
                    return cast("Value", value)

    def _caught_up(self) -> tuple[dict[Key, Value], PersistentMap[Key, Value]]:
        """Return what undoes all later changes, and the newest map. Only for a map that is older.

        The first change of a key says what its value was, so later ones add nothing. So two threads
        may do this at the same time, and may use the undo of another map while that one grows.
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
        """Return all items as a new dict."""
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
            # Changes that another thread collected meanwhile are not in the copy; undoing them does
            # no harm.
            for key, value in undo.copy().items():
                if value is ABSENT:
                    copy.pop(key, None)
                else:
                    copy[key] = value
            return copy

    @overload
    def get(self, key: Key, /) -> Value | None: ...
    @overload
    def get(self, key: Key, /, default: Value | Other) -> Value | Other: ...
    def get(self, key: Key, /, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        place = self._place
        if type(place) is dict:
            # As :meth:`_find` does, whose call would take as long.
            value = place.get(key, default)
            if self._place is place:
                return value
        value = self._find(key)
        return default if value is ABSENT else value

    def __getitem__(self, key: Key) -> Value:
        value = self._find(key)
        if value is ABSENT:
            raise KeyError(key)
        return value

    def __contains__(self, key: object) -> bool:
        return self._find(cast("Key", key)) is not ABSENT

    def __len__(self) -> int:
        place = self._place
        if type(place) is dict:
            size = len(place)
            if self._place is place:
                return size
        return len(self._copy())

    def __iter__(self) -> Iterator[Key]:
        return iter(self._copy())

    def key_list(self) -> list[Key]:
        """Return the keys, without a copy of the values."""
        place = self._place
        if type(place) is dict:
            keys = list(place)
            if self._place is place:
                return keys
        return list(self._copy())

    def keys(self) -> KeysView[Key]:
        """Return the keys of a copy."""
        return self._copy().keys()

    def values(self) -> ValuesView[Value]:
        """Return the values of a copy."""
        return self._copy().values()

    def items(self) -> ItemsView[Key, Value]:
        """Return the items of a copy."""
        return self._copy().items()

    def __repr__(self) -> str:
        return f"PersistentMap({self._copy()!r})"
