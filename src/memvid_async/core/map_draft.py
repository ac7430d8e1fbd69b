"""A persistent map while a run of commands changes it: one link for all changes of the run."""

# ruff: noqa: SLF001 - a draft is settled beside its class

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .persistent_map import ABSENT, Key, PersistentMap, Value

# The value of a key that the run has not changed.
_UNCHANGED: Any = object()


class MapDraft(PersistentMap[Key, Value]):
    """The map after the changes so far: changing it returns the draft itself.

    Only the thread that makes the run may see it; :func:`settled_map` is for everybody.
    """

    __slots__ = ("_base", "_changes")

    def __init__(self, base: PersistentMap[Key, Value]) -> None:
        self._base = base
        self._changes: dict[Key, Value] = {}

    def set(self, key: Key, value: Value) -> MapDraft[Key, Value]:
        """Set the value of a key."""
        self._changes[key] = value
        return self

    def changed(
        self, values: Mapping[Key, Value], gone: Iterable[Key] = ()
    ) -> MapDraft[Key, Value]:
        """Set these values, and take out the keys in ``gone``."""
        self._changes.update(values)
        self._changes.update(dict.fromkeys(gone, ABSENT))
        return self

    def get(self, key: Key, /, default: Any = None) -> Any:
        """Return the value of a key, or ``default``."""
        value = self._changes.get(key, _UNCHANGED)
        if value is _UNCHANGED:
            return self._base.get(key, default)
        return default if value is ABSENT else value

    def __contains__(self, key: object) -> bool:
        value = self._changes.get(key, _UNCHANGED)  # type: ignore[arg-type]
        return key in self._base if value is _UNCHANGED else value is not ABSENT

    def _find(self, key: Key) -> Value:
        return self.get(key, ABSENT)  # type: ignore[no-any-return]

    def _copy(self) -> dict[Key, Value]:
        copy = {**dict(self._base.items()), **self._changes}
        return {key: value for key, value in copy.items() if value is not ABSENT}

    def key_list(self) -> list[Key]:
        """Return the keys."""
        return list(self._copy())

    def __len__(self) -> int:
        return len(self._copy())


def settled_map(draft: PersistentMap[Key, Value]) -> PersistentMap[Key, Value]:
    """Return the map with the changes of a draft; of any other map the map itself."""
    if not isinstance(draft, MapDraft):
        return draft
    changes = draft._changes
    values = {key: value for key, value in changes.items() if value is not ABSENT}
    return draft._base.changed(values, changes.keys() - values.keys())
