"""Reading a collection: what a collection of a store and one of a view have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from ..config import StoreConfig
from ..engine.engine import Engine
from ..engine.event_log import View
from ..errors import InvalidValueError
from ..events.keyed import Value
from ..events.values import as_list, checked_time
from ..recording.prepare_values import (
    prepare_count,
    prepare_field,
    prepare_flag,
    prepare_name,
)
from ..recording.scrubbing import limits_for
from ..search import KeptKey, KeyIndex
from .folded_keys import FoldedKeys
from .key_recall import LIVE, KeyRecall

# A page of a scan has at most this many keys, and the first one few: most scans are short.
_FIRST_PAGE, _MOST_PAGE = 32, 512


class CollectionReader:
    """What a collection and a view of it have in common.

    ``until``: the last event that counts. A view shows what had not expired at that event's time.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        recall: KeyRecall,
        config: StoreConfig,
        until: int = LIVE,
    ) -> None:
        self._name = prepare_name(name, "name", limits_for("collection", config.limits))
        self._engine = engine
        self._recall = recall
        self._config = config
        self._limits = limits_for("collection", config.limits)
        self._until = until
        # In a view, the time of its moment, once it was read.
        self._moment: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def _number(self) -> int:
        """The collection's number; 0 when there is none yet."""
        return self._engine.written_view.state.collections.numbers.get(self._name, 0)

    async def _time(self) -> int:
        """Return the time that decides what has expired: now, or that of a view's moment."""
        self._engine.watch()
        if self._until < LIVE:
            if self._moment is None:
                self._moment = await self._engine.read(_time_of, self._until)
            return self._moment
        return checked_time(self._config.clock())

    def _key(self, key: object) -> str:
        return prepare_field(key, "a key", "key_chars", self._limits)

    async def get(self, key: str) -> Value | None:
        """Return what a key holds; None when it is not there. The data of a list are its items."""
        return (await self.get_many([key]))[0]

    async def get_many(self, keys: Iterable[str]) -> list[Value | None]:
        """Return what each of these keys holds, in their order; None for one that is not there."""
        wanted = [self._key(key) for key in as_list(keys, "keys must be a list")]
        now = await self._time()

        def read(folded: FoldedKeys, index: KeyIndex) -> list[Value | None]:
            number = self._number
            found = [index.get(number, key, now) for key in wanted]
            return [None if kept is None else folded.value(kept) for kept in found]

        return (await self._recall.read(read, self._until))[0]

    async def scan(
        self,
        prefix: str = "",
        *,
        after: str | None = None,
        reverse: bool = False,
        limit: int | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> AsyncIterator[Value]:
        """Yield the values of the keys that begin with ``prefix``, in the order of the keys.

        Keys are ordered by their UTF-8 bytes, as Python orders text. ``after``: only those after
        this key in that order. ``reverse``: in the opposite order. ``limit``: at most this many.
        ``where``: conditions on the metadata: a value that the field equals, or a map of ``$eq``,
        ``$ne``, ``$gt``, ``$gte``, ``$lt``, ``$lte``, ``$in``; ``a.b`` is the field ``b`` inside
        ``a``. Texts and numbers are compared with their own kind; a field that is missing is None.

        It reads a page at a time, so it sees what is changed meanwhile.

        :raises InvalidValueError: when an argument is not as it should be.
        """
        begin, reverse = self._key(prefix), prepare_flag(reverse, "reverse")
        after = None if after is None else self._key(after)
        left = None if limit is None else prepare_count(limit, "limit")
        page = _FIRST_PAGE
        while left is None or left:
            count = page if left is None else min(page, left)
            found = await self._page(begin, after, count, where, reverse=reverse)
            for value in found:
                yield value
            if len(found) < count:
                return
            after, page = found[-1].key, min(2 * page, _MOST_PAGE)
            left = None if left is None else left - count

    async def _page(
        self,
        prefix: str,
        after: str | None,
        limit: int,
        where: Mapping[str, Any] | None,
        *,
        reverse: bool,
    ) -> list[Value]:
        now = await self._time()

        def read(folded: FoldedKeys, index: KeyIndex) -> list[Value]:
            found = index.scan(
                self._number,
                prefix,
                now,
                after=after,
                reverse=reverse,
                limit=limit,
                where=where,
            )
            return [folded.value(kept) for kept in found]

        return (await self._recall.read(read, self._until))[0]

    async def prefixes(self, depth: int, *, prefix: str = "") -> list[str]:
        """Return how the keys begin: the distinct first ``depth`` parts of keys split at "/", in
        order; of a key with fewer parts the whole key. ``prefix``: only of keys that begin so."""
        if prepare_count(depth, "depth") < 1:
            raise InvalidValueError("depth must be at least 1")
        begin, now = self._key(prefix), await self._time()
        found, _ = await self._recall.read(
            lambda _, index: sorted(index.prefixes(self._number, depth, begin, now)), self._until
        )
        return found

    async def items(self, key: str) -> list[Any]:
        """Return all items of a list; none when the key is not there.

        :raises InvalidValueError: when the key holds a value.
        """
        return await self._items(self._key(key), None)

    async def tail(self, key: str, limit: int) -> list[Any]:
        """Return the last ``limit`` items of a list, oldest first.

        :raises InvalidValueError: when the key holds a value.
        """
        return await self._items(self._key(key), prepare_count(limit, "limit"))

    async def _items(self, key: str, limit: int | None) -> list[Any]:
        now = await self._time()

        def read(folded: FoldedKeys, index: KeyIndex) -> list[Any]:
            kept = list_of(index.get(self._number, key, now), key)
            if kept is None or kept.list is None:
                return []
            return folded.items(index.items(kept.list, count=limit, last=limit is not None))

        return (await self._recall.read(read, self._until))[0]


def _time_of(view: View, sequence: int) -> int:
    return next((time_ns for _, time_ns in view.times(sequence - 1, sequence)), 0)


def list_of(kept: KeptKey | None, key: str) -> KeptKey | None:
    """Return what is kept of a key that holds a list, or is not there.

    :raises InvalidValueError: when it holds a value.
    """
    if kept is not None and kept.list is None:
        raise InvalidValueError(f"key {key!r:.80} holds a value; get() reads it")
    return kept
