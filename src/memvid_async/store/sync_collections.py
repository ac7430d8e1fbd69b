"""Collections of a store for synchronous code."""

from __future__ import annotations

from ..memory.collection import Collection
from ..memory.collection_reader import CollectionReader
from .sync_methods import SyncHandle, awaited, iterated


class SyncCollectionReader(SyncHandle[CollectionReader]):
    """A collection as it was at one moment. Like :class:`CollectionReader`."""

    @property
    def name(self) -> str:
        """Its name."""
        return self._handle.name

    get = awaited(CollectionReader.get)
    get_many = awaited(CollectionReader.get_many)
    scan = iterated(CollectionReader.scan)
    prefixes = awaited(CollectionReader.prefixes)
    items = awaited(CollectionReader.items)
    tail = awaited(CollectionReader.tail)


class SyncCollection(SyncHandle[Collection]):
    """A collection of a :class:`SyncStore`. Like :class:`Collection`."""

    @property
    def name(self) -> str:
        """Its name."""
        return self._handle.name

    get = awaited(Collection.get)
    get_many = awaited(Collection.get_many)
    scan = iterated(Collection.scan)
    prefixes = awaited(Collection.prefixes)
    items = awaited(Collection.items)
    tail = awaited(Collection.tail)
    put = awaited(Collection.put)
    delete = awaited(Collection.delete)
    apply = awaited(Collection.apply)
    append = awaited(Collection.append)
    pop = awaited(Collection.pop)
    write_list = awaited(Collection.write_list)
    find = awaited(Collection.find)
    sweep = awaited(Collection.sweep)
