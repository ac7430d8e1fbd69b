"""What is needed of the collections to decide a command: their names, and what kinds of keys each
has had. The keys themselves are not needed; :mod:`.recent_keys` has those that changed last.
"""

from __future__ import annotations

from typing import NamedTuple

from ..events.decided import AnyEvent
from ..events.keyed import CollectionChanged, CollectionCreated, KeyPut, ListChanged
from .persistent_map import PersistentMap


class CollectionInfo(NamedTuple):
    """One collection. ``number``: the sequence of its :class:`CollectionCreated`.

    ``has_values``, ``has_lists``: whether a key has ever held one. Where it has not, nobody needs
    to look whether a key does.
    """

    number: int
    name: str
    has_values: bool = False
    has_lists: bool = False


class CollectionsState(NamedTuple):
    """The collections of a store, by number; and of each name the number."""

    by_number: PersistentMap[int, CollectionInfo] = PersistentMap()
    numbers: PersistentMap[str, int] = PersistentMap()

    def find(self, name: str) -> CollectionInfo | None:
        """Return the collection with this name; None when there is none."""
        number = self.numbers.get(name)
        return None if number is None else self.by_number[number]

    def set(self, info: CollectionInfo) -> CollectionsState:
        """Return the collections with this one."""
        return CollectionsState(
            self.by_number.set(info.number, info), self.numbers.set(info.name, info.number)
        )


NO_COLLECTIONS = CollectionsState()


def fold_collections(collections: CollectionsState, event: AnyEvent) -> CollectionsState:
    """Return the collections after an event that creates or changes one.

    A second collection of a name, and a change of a collection that is unknown, change nothing.
    """
    payload = event.payload
    if isinstance(payload, CollectionCreated):
        if payload.name in collections.numbers:
            return collections
        return collections.set(CollectionInfo(event.sequence, payload.name))
    assert isinstance(payload, CollectionChanged)
    info = collections.by_number.get(payload.collection)
    if info is None:
        return collections
    number, name, has_values, has_lists = info
    if has_values and has_lists:
        return collections
    for change in payload.changes:
        kind = type(change)
        if kind is KeyPut:
            has_values = True
        elif kind is ListChanged:
            has_lists = True
    if has_values is info.has_values and has_lists is info.has_lists:
        return collections
    return collections.set(CollectionInfo(number, name, has_values, has_lists))
