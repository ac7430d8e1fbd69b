"""A persistent map while a run of commands changes it: one link for all changes of the run."""

# ruff: noqa: SLF001 - a draft is settled beside its class

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .persistent_map import ABSENT, Key, PersistentMap, Value


class _Changes(dict[Key, Value | None]):
    """What a run has looked up or changed; the value of a key that is not in the map is None."""

    __slots__ = ("_base",)

    def __init__(self, base: PersistentMap[Key, Value]) -> None:
        self._base = base

    def __missing__(self, key: Key) -> Value | None:
        value = self[key] = self._base.get(key)
        return value


class MapDraft(PersistentMap[Key, Value]):
    """The map after the changes so far: changing it returns the draft itself. No value is None.

    Only the thread that makes the run may see it; :func:`settled_map` is for everybody.
    """

    # ``get`` and ``put``: a dict's own look-up and assignment, called without a function of ours.
    # The look-up takes no default.
    __slots__ = ("_base", "_found", "get", "put")

    get: Callable[[Key], Value | None]  # type: ignore[assignment]
    put: Callable[[Key, Value], None]

    def __init__(self, base: PersistentMap[Key, Value]) -> None:
        self._base = base
        self._found: _Changes[Key, Value] = _Changes(base)
        self.get, self.put = self._found.__getitem__, self._found.__setitem__

    def set(self, key: Key, value: Value) -> MapDraft[Key, Value]:
        """Set the value of a key."""
        self.put(key, value)
        return self

    def changed(
        self, values: Mapping[Key, Value], gone: Iterable[Key] = ()
    ) -> MapDraft[Key, Value]:
        """Set these values, and take out the keys in ``gone``."""
        self._found.update(values)
        self._found.update(dict.fromkeys(gone))
        return self

    def without(self, key: Key) -> MapDraft[Key, Value]:
        """Take out a key."""
        return self.changed({}, (key,))

    def __contains__(self, key: object) -> bool:
        return self._found[key] is not None  # type: ignore[index]

    def _find(self, key: Key) -> Value:
        value = self._found[key]
        return ABSENT if value is None else value

    def _copy(self) -> dict[Key, Value]:
        values: dict[Key, Any] = {**dict(self._base.items()), **self._found}
        return {key: value for key, value in values.items() if value is not None}

    def key_list(self) -> list[Key]:
        """Return the keys."""
        return list(self._copy())

    def __len__(self) -> int:
        return len(self._copy())


def settled_map(draft: PersistentMap[Key, Value]) -> PersistentMap[Key, Value]:
    """Return the map with the changes of a draft; of any other map the map itself."""
    if not isinstance(draft, MapDraft):
        return draft
    found, base = draft._found, draft._base
    values = {key: value for key, value in found.items() if value is not None}
    if len(values) == len(found):
        return base.changed(values)
    return base.changed(values, [key for key, value in found.items() if value is None])
