"""LangGraph's store, in a collection. See :mod:`.langgraph`."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from langgraph.store.base import (
    BaseStore,
    GetOp,
    IndexConfig,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    Result,
    SearchItem,
    SearchOp,
    TTLConfig,
    ensure_embeddings,
    get_text_at_path,
    validate_op_namespace,
)

from .. import Collection, Delete, KeySearch, Put, Store, StoreConfig, SyncStore, Value
from .collection_bridge import Bridge, OpenFrom, name_of, part
from .langgraph_sweeper import Sweeper

# Namespaces have fewer parts than this.
_MOST_PARTS = 1024
_MINUTE = 60
# Between two sweeps, where LangGraph's settings do not say; as of LangGraph's own stores.
_SWEEP_MINUTES = 5


class MemvidStore(BaseStore):
    """A LangGraph store in a collection of a file.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; it is not closed.
    ``collection``: the collection's name. ``ttl``: LangGraph's settings of expiry; what has expired
    is left out at once, and deleted by sweeping. Settings without ``refresh_on_read`` renew nothing
    that is read. ``index``: LangGraph's settings of searches by meaning (they need numpy, the extra
    ``vector``); without it a search's ``query`` is ignored.
    """

    supports_ttl = True

    def __init__(
        self,
        store: Store | SyncStore,
        *,
        collection: str = "langgraph store",
        ttl: TTLConfig | None = None,
        index: IndexConfig | None = None,
    ) -> None:
        # What LangGraph's tests of its SQLite store demand; its page on settings says otherwise.
        self.ttl_config = None if ttl is None else TTLConfig({"refresh_on_read": False, **ttl})
        self.index_config = index
        self.embeddings = None if index is None else ensure_embeddings(index["embed"])
        search = None if index is None else _search_by(index, self.embeddings)
        self._bridge = Bridge(store, collection, search)
        self._sweeper = Sweeper()

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        config: StoreConfig | None = None,
        collection: str = "langgraph store",
        ttl: TTLConfig | None = None,
        index: IndexConfig | None = None,
    ) -> Any:
        """Open a file, for ``with MemvidStore.from_path(path) as store`` or ``async with``."""
        return OpenFrom(
            lambda s: cls(s, collection=collection, ttl=ttl, index=index),
            path,
            config,
            lambda made: made.stop_ttl_sweeper(),
        )

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations: reads first, then all changes in one command."""
        return await self._bridge.run(lambda c: self._batch(c, list(ops)), fresh=True)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do several operations, as :meth:`abatch` does."""
        return self._bridge.wait(lambda c: self._batch(c, list(ops)), fresh=True)

    # LangGraph's asynchronous stores have these methods as coroutines, and the others as functions
    # of the same names. So on the store's event loop they are awaited, and elsewhere they wait.

    def sweep_ttl(self) -> Any:
        """Delete the items that have expired, and return how many. They are hidden already."""
        return self._bridge.either(lambda c: c.sweep())

    def start_ttl_sweeper(self, sweep_interval_minutes: float | None = None) -> Any:
        """Sweep regularly until :meth:`stop_ttl_sweeper`, or until the store is closed.

        ``sweep_interval_minutes``: otherwise as the settings of expiry say; 5 where they do not.
        Returns what is done when that has ended and can be cancelled: a task, or a future.
        """
        own = (self.ttl_config or {}).get("sweep_interval_minutes")
        minutes = next((m for m in (sweep_interval_minutes, own) if m is not None), _SWEEP_MINUTES)
        if not minutes > 0:
            raise ValueError(f"sweep_interval_minutes must be above 0, not {minutes!r:.80}")
        going = self._bridge.either(lambda c: self._sweeper.start(c, minutes * _MINUTE))
        if not isinstance(going, asyncio.Task):
            return going
        return self._bridge.submit(lambda _: going)

    def stop_ttl_sweeper(self, timeout: float | None = None) -> Any:
        """Stop sweeping, and return whether that has ended within this many seconds."""
        return self._bridge.either(lambda _: self._sweeper.stop(timeout))

    async def _batch(self, c: Collection, ops: list[Op]) -> list[Result]:
        results: list[Result] = []
        puts: dict[str, PutOp] = {}
        for op in ops:
            validate_op_namespace(op)
        for op in ops:
            if isinstance(op, GetOp):
                results.append(await self._get(c, op))
            elif isinstance(op, SearchOp):
                results.append(await self._search(c, op))
            elif isinstance(op, ListNamespacesOp):
                results.append(await _namespaces(c, op))
            elif isinstance(op, PutOp):
                # Of several for one key the last one counts.
                puts[_key(op.namespace, op.key)] = op
                results.append(None)
            else:
                raise TypeError(f"a store does not know the operation {type(op).__name__}")
        if puts:
            await self._put(c, puts)
        return results

    async def _put(self, c: Collection, puts: Mapping[str, PutOp]) -> None:
        held = dict(zip(puts, await c.get_many(list(puts)), strict=True))
        steps: list[Put | Delete] = []
        for key, op in puts.items():
            if op.value is None:
                steps.append(Delete(key))
                continue
            before = held[key]
            # 0: now, as it is the first.
            created = before.data[0] or before.updated_ns if before is not None else 0
            steps.append(_kept(key, created, op))
        await c.apply(steps)

    async def _get(self, c: Collection, op: GetOp) -> Item | None:
        value = await c.get(_key(op.namespace, op.key))
        if value is None:
            return None
        if op.refresh_ttl:
            await _refresh(c, [value])
        return Item(**_fields(value))

    async def _search(self, c: Collection, op: SearchOp) -> list[SearchItem]:
        begin = "".join(f"{part(name)}/" for name in op.namespace_prefix)
        count, where, scores = op.offset + op.limit, op.filter or None, dict[str, float]()
        values: list[Value] = []
        if self.index_config is not None and op.query:
            found = await c.find(op.query, prefix=begin, limit=count, where=where)
            scores = {one.value.key: one.score for one in found}
            values = [one.value for one in found][op.offset :]
        if len(scores) < count:
            # What has no embedding comes after what has one, as with LangGraph's own store.
            scanned = c.scan(begin, limit=count + len(scores), where=where)
            others = [value async for value in scanned if value.key not in scores]
            skipped = 0 if scores else op.offset
            values += others[skipped : skipped + op.limit - len(values)]
        if op.refresh_ttl:
            await _refresh(c, values)
        return [SearchItem(**_fields(one), score=scores.get(one.key)) for one in values]


def _key(namespace: tuple[str, ...], key: str) -> str:
    return "/".join(map(part, (*namespace, key)))


def _place(key: str) -> tuple[tuple[str, ...], str]:
    *namespace, name = map(name_of, key.split("/"))
    return tuple(namespace), name


def _kept(key: str, created_ns: int, op: PutOp) -> Put:
    """Return what keeps an item: its value is the metadata, by which it can be found. The data:
    when it was created, for how many seconds it lives, and which fields of its own are embedded."""
    seconds = None if op.ttl is None else op.ttl * _MINUTE
    own = [] if op.index is None else [list(op.index or ())]
    return Put(key, [created_ns, seconds, *own], dict(op.value or {}), seconds)


async def _refresh(c: Collection, values: list[Value]) -> None:
    """Let values that expire live as long again from now on."""
    by_time = defaultdict[float, list[str]](list)
    for value in values:
        if value.data[1] is not None:
            by_time[value.data[1]].append(value.key)
    for seconds, keys in by_time.items():
        await c.get_many(keys, ttl=seconds)


def _search_by(index: Mapping[str, Any], embeddings: Any) -> KeySearch:
    """Return how a collection is searched by LangGraph's settings."""
    # The store of langgraph-checkpoint-sqlite calls them text_fields.
    fields = index.get("fields") or index.get("text_fields") or ["$"]
    asked = index["embed"]

    async def embed(texts: list[str]) -> list[list[float]]:
        made: list[list[float]] = await embeddings.aembed_documents(texts)
        return made

    def texts(data: Any, metadata: Mapping[str, Any]) -> list[str]:
        paths = data[2] if len(data) > 2 else fields
        return [text for path in paths for text in get_text_at_path(dict(metadata), path)]

    model = asked if isinstance(asked, str) else f"{index['dims']} dimensions"
    return KeySearch(embed, model, texts)


def _fields(value: Value) -> dict[str, Any]:
    namespace, key = _place(value.key)
    return {
        "value": dict(value.metadata),
        "key": key,
        "namespace": namespace,
        "created_at": _time(value.data[0] or value.updated_ns),
        "updated_at": _time(value.updated_ns),
    }


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 10**9, UTC)


async def _namespaces(c: Collection, op: ListNamespacesOp) -> list[tuple[str, ...]]:
    begin = ""
    for condition in op.match_conditions or ():
        if condition.match_type == "prefix" and "*" not in condition.path:
            begin = max(begin, "".join(f"{part(name)}/" for name in condition.path), key=len)
    found = {_place(key)[0] for key in await c.prefixes(_MOST_PARTS, prefix=begin)}
    matching = [
        namespace
        for namespace in found
        if all(_matches(condition, namespace) for condition in op.match_conditions or ())
    ]
    cut = {namespace[: op.max_depth] for namespace in matching}
    return sorted(cut)[op.offset : op.offset + op.limit]


def _matches(condition: MatchCondition, namespace: tuple[str, ...]) -> bool:
    wanted = condition.path
    if len(namespace) < len(wanted):
        return False
    if condition.match_type == "prefix":
        own = namespace[: len(wanted)]
    elif condition.match_type == "suffix":
        own = namespace[len(namespace) - len(wanted) :]
    else:
        raise ValueError(f"a store does not know the match type {condition.match_type!r:.80}")
    return all(name in ("*", one) for name, one in zip(wanted, own, strict=True))
