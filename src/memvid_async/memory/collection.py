"""A collection: keyed values and lists, beside the memory and the sessions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import cbor2
from attrs import evolve

from ..config import StoreConfig
from ..core.commands import ChangeCollection
from ..core.decide_keys import LOOK_FIRST
from ..core.recent_keys import NO_KEY, KeyFacts
from ..engine.engine import Engine
from ..errors import InvalidValueError, LimitExceededError, VersionConflictError
from ..events.keyed import (
    KeyChange,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    ListChanged,
    PrefixDeleted,
    Value,
)
from ..events.values import LARGE, as_list, as_plain, check_items, check_value, is_time
from ..recording.command_intake import CommandIntake
from ..recording.prepare_values import (
    prepare_count,
    prepare_field,
    prepare_metadata,
    prepare_name,
    rough_size,
)
from ..recording.scrubbing import scrubbed
from ..search import KeptItem, KeptKey, KeyIndex
from .collection_reader import CollectionReader, list_of
from .collection_steps import Check, Delete, DeletePrefix, Put, Step
from .folded_keys import FoldedKeys, item_hash
from .key_recall import KeyRecall
from .key_vectors import FoundValue, KeySearch, embedded, embeddings_of

# About what a command takes besides its values, in bytes.
_COMMAND_BYTES = 256
# Reading prolongs a life where that adds at least this part of it (1/16).
_RENEWING_PART = 16
_SWEPT_AT_ONCE = 512


class Collection(CollectionReader):
    """Keyed values and lists of a store. Made by ``store.collection(name)``.

    It is part of the log and the file, and no part of the memory, of sessions or of forks. Each
    change returns when it is durable (see :class:`Durability`). A key holds a value or a list. A
    key's version is the sequence of the event that changed it last. Nothing is made before the
    first change, so there is nothing to create.

    Inside of a session that answers from its recording, what an agent does here is refused with
    :class:`InvalidValueError`: let it read in ``session.once``, and change in a tool.

    All changes raise :class:`InvalidValueError` and :class:`LimitExceededError` where they cannot
    be recorded, :class:`VersionConflictError` where a key has another version than was asked for,
    and what every ``record_…`` call raises where they were not acked.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        intake: CommandIntake,
        recall: KeyRecall,
        config: StoreConfig,
        search: KeySearch | None = None,
    ) -> None:
        super().__init__(name, engine, recall, config)
        self._intake = intake
        self._search = search

    # Reading.

    async def get(self, key: str, *, ttl: float | None = None) -> Value | None:
        """Return what a key holds; None when it is not there. The data of a list are its items.

        ``ttl``: a value that expires lives this many seconds from now on, if that is longer.
        """
        return (await self.get_many([key], ttl=ttl))[0]

    async def get_many(
        self, keys: Iterable[str], *, ttl: float | None = None
    ) -> list[Value | None]:
        """Return what each of these keys holds, in their order; None for one that is not there.

        ``ttl``: as of :meth:`get`. That costs an event where it prolongs a life by more than a
        sixteenth of it.
        """
        found = await super().get_many(keys)
        if ttl is None:
            return found
        expires = self._expiry(ttl)
        least = int(min(ttl, 2**62) * 10**9) // _RENEWING_PART
        if expires is None:
            return found
        # A key may be asked for twice.
        due = {
            value.key: value
            for value in found
            if value is not None
            and value.expires_ns is not None
            and expires - value.expires_ns >= least
        }
        prolonged = (self._renewed(value, expires) for value in due.values())
        renewed = dict(zip(due, await asyncio.gather(*prolonged), strict=True))
        return [value and renewed.get(value.key, value) for value in found]

    async def _renewed(self, value: Value, expires: int) -> Value:
        change = KeyRenewed(value.key, value.version, expires)
        # One that was changed or expired meanwhile is left as it is.
        with suppress(VersionConflictError):
            await self._change((change,), ((value.key, value.version),), _COMMAND_BYTES)
            return evolve(value, expires_ns=expires)
        return value

    async def find(
        self,
        query: str,
        *,
        limit: int = 10,
        prefix: str = "",
        where: Mapping[str, Any] | None = None,
    ) -> list[FoundValue]:
        """Return the values nearest in meaning to a query, the nearest first.

        ``prefix`` and ``where``: only of those keys, as :meth:`CollectionReader.scan` takes them.

        :raises InvalidValueError: when the collection has no ``search=``, or an argument is not as
            it should be.
        :raises ModuleNotFoundError: when numpy is missing (the extra ``vector``).
        """
        search = self._search
        if search is None:
            raise InvalidValueError("pass store.collection(name, search=KeySearch(…)) to search it")
        asked = prepare_field(query, "query", "query_chars", self._limits)
        begin, count = self._key(prefix), prepare_count(limit, "limit")
        (vector,) = await embeddings_of(search, [asked], self._limits)
        now = await self._time()

        def read(folded: FoldedKeys, index: KeyIndex) -> list[FoundValue]:
            number = self._number
            kept = index.scan(number, begin, now, after=None, reverse=False, limit=-1, where=where)
            return folded.nearest(number, search.model, vector, count, kept)

        return (await self._recall.read(read))[0]

    # Changing.

    async def put(
        self,
        key: str,
        data: Any,
        *,
        metadata: Mapping[str, Any] | None = None,
        ttl: float | None = None,
        if_version: int | None = None,
    ) -> int:
        """Let a key hold a value, and return its version.

        ``data``: anything that CBOR holds. ``metadata``: what it can be found by. ``ttl``: after
        this many seconds it is hidden. ``if_version``: only if the key has this version; 0: only
        if it is not there.
        """
        size = _COMMAND_BYTES + rough_size(data)
        if size < LARGE:
            change: KeyChange = self._prepare_put(key, data, metadata, ttl)
        else:
            change = await self._engine.reads.run(self._prepare_put, key, data, metadata, ttl)
        if self._search is not None:
            (change,) = await self._searchable((change,), ((data, metadata),))
        return await self._change((change,), self._checks(key, if_version), size)

    async def delete(self, key: str, *, if_version: int | None = None) -> None:
        """Delete a key, if it is there. ``compact()`` erases the bytes."""
        change = KeyDeleted(self._key(key))
        await self._change((change,), self._checks(change.key, if_version), _COMMAND_BYTES)

    async def apply(self, steps: Iterable[Step]) -> int:
        """Make several changes, all of them or none; return the version of the changed keys.

        Every :class:`Check` is of the state before. It is one command, decided against the newest
        state of all processes.
        """
        given = self._bounded(steps, "steps")
        size = _COMMAND_BYTES + sum(_rough_size(one) for one in given)
        if size < LARGE:
            changes, checks = self._prepare(given)
        else:
            changes, checks = await self._engine.reads.run(self._prepare, given)
        if self._search is not None:
            puts = [(step.data, step.metadata) for step in given if isinstance(step, Put)]
            changes = await self._searchable(changes, puts)
        return await self._change(changes, checks, size)

    async def append(self, key: str, items: Iterable[Any]) -> int:
        """Append items to a list, which need not be there yet; return its version.

        :raises InvalidValueError: when the key holds a value.
        """
        wanted, kept = self._key(key), await self._encoded(items)
        return await self._change((ListChanged(wanted, items=kept),), (), _size_of(kept))

    async def pop(self, key: str) -> Any:
        """Take the last item off a list, and return it; None when there is none.

        :raises InvalidValueError: when the key holds a value.
        """
        wanted, now = self._key(key), await self._time()

        def look(folded: FoldedKeys, index: KeyIndex) -> tuple[KeyFacts, int, list[Any]]:
            facts, kept = _list_at(index, self._number, wanted, now)
            if kept is None or kept.list is None:
                return facts, 0, []
            last = folded.items(index.items(kept.list, count=1, last=True))
            return facts, kept.length or 0, last

        while True:
            (facts, length, last), as_of = await self._recall.read(look)
            if not last:
                return None
            change, checks = ListChanged(wanted, 0, length - 1), ((wanted, facts.version),)
            # Where somebody else changed the list meanwhile, its last item is another one.
            with suppress(VersionConflictError):
                await self._change((change,), checks, _COMMAND_BYTES, {wanted: facts}, as_of)
                return last[0]

    async def write_list(
        self,
        key: str,
        items: Iterable[Any],
        *,
        keep: int | None = None,
        if_version: int | None = None,
    ) -> int:
        """Let a list keep its first ``keep`` items, with these after them; return its version.

        Without ``keep`` these are all its items. What the list has at its beginning already is
        found, and not stored again: writing a whole chat again costs what is new. It is one
        command.

        :raises InvalidValueError: when the key holds a value, or the list has fewer items than
            ``keep``.
        """
        wanted, encoded = self._key(key), await self._encoded(items)
        if keep is not None:
            prepare_count(keep, "keep")
        if if_version is not None:
            prepare_count(if_version, "if_version")
        hashes, now = list(map(item_hash, encoded)), await self._time()

        def look(_: FoldedKeys, index: KeyIndex) -> tuple[KeyFacts, int, int]:
            facts, kept = _list_at(index, self._number, wanted, now)
            if kept is None or kept.list is None:
                return facts, 0, 0
            shared = _shared(index.items(kept.list), hashes) if keep is None else 0
            return facts, kept.length or 0, shared

        while True:
            (facts, length, shared), as_of = await self._recall.read(look)
            count, new = (shared, encoded[shared:]) if keep is None else (keep, encoded)
            if count > length:
                raise InvalidValueError(
                    f"key {wanted!r:.80} has a list of {length}, of which {count} cannot be kept"
                )
            change = ListChanged(wanted, 0, count, new)
            checks = ((wanted, facts.version if if_version is None else if_version),)
            try:
                return await self._change((change,), checks, _size_of(new), {wanted: facts}, as_of)
            except VersionConflictError:
                if if_version is not None:
                    raise

    async def sweep(self) -> int:
        """Delete the keys that have expired, and return how many. They are hidden already; this
        frees the memory that they take, and ``compact()`` the bytes."""
        count = 0
        while True:
            look = partial(_expired, self._number, await self._time())
            some, _ = await self._recall.read(look)
            if not some:
                return count
            # One that was put again meanwhile is there, and none of them goes.
            with suppress(VersionConflictError):
                await self.apply([*(Check(key, 0) for key in some), *map(Delete, some)])
                count += len(some)

    # How a change is made.

    async def _time(self) -> int:
        self._check_not_replaying()
        return await super()._time()

    def _check_not_replaying(self) -> None:
        """Return if the caller is not an agent that is being answered."""
        self._intake.blocks.check_not_replaying(
            "read a collection in session.once(…), and change it in a tool"
        )

    async def _searchable(
        self,
        changes: Sequence[KeyChange],
        puts: Sequence[tuple[Any, Mapping[str, Any] | None]],
    ) -> tuple[KeyChange, ...]:
        """Return changes with the embeddings of the values that are put; ``puts``: the data and
        the metadata of each."""
        assert self._search is not None
        model = prepare_name(self._search.model, "model", self._limits)
        made = iter(await embedded(self._search, puts, self._limits))
        return tuple(
            evolve(change, embedding_model=model, embeddings=next(made))
            if isinstance(change, KeyPut)
            else change
            for change in changes
        )

    def _bounded(self, items: Iterable[Any], what: str) -> list[Any]:
        most = self._limits.changes
        found = as_list(items, f"{what} must be a list", most)
        if len(found) > most:
            raise LimitExceededError("changes", len(found), most)
        return found

    def _prepare(
        self, steps: Sequence[Step]
    ) -> tuple[tuple[KeyChange, ...], tuple[tuple[str, int], ...]]:
        changes: list[KeyChange] = []
        checks: list[tuple[str, int]] = []
        for step in steps:
            if isinstance(step, Check):
                checks.append((self._key(step.key), prepare_count(step.version, "a version")))
            elif isinstance(step, Put):
                changes.append(self._prepare_put(step.key, step.data, step.metadata, step.ttl))
            elif isinstance(step, Delete):
                changes.append(KeyDeleted(self._key(step.key)))
            elif isinstance(step, DeletePrefix):
                changes.append(PrefixDeleted(self._key(step.prefix)))
            else:
                raise InvalidValueError(
                    f"a step is Put, Delete, DeletePrefix or Check, not {type(step).__name__}"
                )
        return tuple(changes), tuple(checks)

    def _prepare_put(
        self, key: object, data: Any, metadata: Mapping[str, Any] | None, ttl: float | None
    ) -> KeyPut:
        encoded: bytes | None = None
        if metadata is not None:
            kept = prepare_metadata(metadata, self._limits)
            encoded = cbor2.dumps(dict(kept)) if kept else None
        expires = None if ttl is None else self._expiry(ttl)
        return KeyPut(self._key(key), self._encode(data, "data"), encoded, expires)

    def _expiry(self, ttl: object) -> int | None:
        """Return when a value expires; None where that is later than a time can be."""
        seconds = as_plain(ttl)
        if type(seconds) not in (int, float) or not seconds > 0:
            raise InvalidValueError(f"ttl must be seconds above 0, not {ttl!r:.80}")
        expires = self._config.clock() + int(min(seconds, 2**62) * 10**9)
        return expires if is_time(expires) else None

    def _checks(self, key: str, version: int | None) -> tuple[tuple[str, int], ...]:
        return () if version is None else ((key, prepare_count(version, "if_version")),)

    def _encode(self, value: Any, what: str) -> bytes:
        value, allowed = scrubbed(self._limits, what, as_plain(value)), self._limits.content_bytes
        check_value(value, what)
        data: bytes = cbor2.dumps(value)
        if len(data) > allowed:
            raise LimitExceededError("content_bytes", len(data), allowed)
        check_items(data, what)
        return data

    async def _encoded(self, items: Iterable[Any]) -> tuple[bytes, ...]:
        given = self._bounded(items, "items")

        def encode() -> tuple[bytes, ...]:
            return tuple(self._encode(item, f"items[{at}]") for at, item in enumerate(given))

        return encode() if rough_size(given) < LARGE else await self._engine.reads.run(encode)

    async def _change(
        self,
        changes: tuple[KeyChange, ...],
        checks: tuple[tuple[str, int], ...],
        size: int,
        seen: Mapping[str, KeyFacts] | None = None,
        as_of: int = -1,
    ) -> int:
        self._check_not_replaying()
        turns, known = self._recall.turns, seen
        if checks:
            await turns.wait(checks)
            if known is None:
                known, as_of = self._recall.seen.of(self._name, (key for key, _ in checks))
                # That a key is not there is seldom known: it was never changed.
                if any(version == 0 and key not in known for key, version in checks):
                    known, as_of = await self._look({key for key, _ in checks})
        version = LOOK_FIRST
        while version is LOOK_FIRST:
            command = ChangeCollection(
                self._name, changes, checks, known or {}, as_of, self._limits.collections
            )
            try:
                version = await self._intake.submit(command, size)
            except VersionConflictError as error:
                turns.lost(error.version)
                (found,) = await super().get_many([error.key])
                there = error.version if found is None else found.version
                raise VersionConflictError(error.key, error.expected, there, found) from None
            if version is LOOK_FIRST:
                keys = {key for key, _ in checks}
                keys.update(c.key for c in changes if isinstance(c, (KeyPut, ListChanged)))
                known, as_of = await self._look(keys)
        if checks:
            turns.won(version)  # type: ignore[arg-type]
        self._recall.note_put(size)
        return version  # type: ignore[return-value]

    async def _look(self, keys: Iterable[str]) -> tuple[dict[str, KeyFacts], int]:
        """Return what is known of keys, with those that have expired, and as of which event; later
        commands need not look at them again."""

        def read(_: FoldedKeys, index: KeyIndex) -> dict[str, KeyFacts]:
            number = self._number
            return {key: _facts(index.get(number, key, -(2**63))) for key in keys}

        facts, as_of = await self._recall.read(read)
        self._recall.seen.note(self._name, facts, as_of)
        return facts, as_of


def _expired(number: int, now: int, _: FoldedKeys, index: KeyIndex) -> list[str]:
    return index.expired(number, now, _SWEPT_AT_ONCE)


def _facts(kept: KeptKey | None) -> KeyFacts:
    return (
        NO_KEY if kept is None else KeyFacts(kept.version, kept.list is not None, kept.expires_ns)
    )


def _list_at(index: KeyIndex, number: int, key: str, now: int) -> tuple[KeyFacts, KeptKey | None]:
    """Return what is known of a key that holds a list, or is not there.

    :raises InvalidValueError: when it holds a value.
    """
    kept = index.get(number, key, now)
    return _facts(kept), list_of(kept, key)


def _shared(held: Sequence[KeptItem], wanted: Sequence[bytes]) -> int:
    """Return how many of the first items of a list are the same in another, by their hashes."""
    count = 0
    for one, other in zip(held, wanted, strict=False):
        if one.hash != other:
            break
        count += 1
    return count


def _rough_size(step: object) -> int:
    return 64 + rough_size(step.data) if isinstance(step, Put) else 64


def _size_of(items: Sequence[bytes]) -> int:
    return _COMMAND_BYTES + sum(map(len, items)) + 64 * len(items)
