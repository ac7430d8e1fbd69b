"""LangGraph's checkpoints, in a collection of a store. See :mod:`.langgraph`.

What a checkpoint shares with others is stored once: a channel's value by its digest, and a long
list, such as a chat, in runs of a few items. So a chat of n turns takes O(n) bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
    writes_sort_key,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from .. import (
    Check,
    Collection,
    Delete,
    DeletePrefix,
    Put,
    Store,
    StoreConfig,
    SyncStore,
    Value,
    VersionConflictError,
)
from .collection_bridge import Bridge, OpenFrom, name_of, part
from .langgraph_values import Bodies, Body, digests_in, kept_value, read_values

# Digests of at most this many threads are remembered: they need not be stored again.
_MOST_THREADS = 256
# One command holds at most this many changes, and about this many bytes.
_MOST_CHANGES, _MOST_BYTES = 4096, 8 * 1024 * 1024
# How long the mark of a deletion is kept, in seconds: it tells other processes to forget digests.
_MARK_SECONDS = 30 * 24 * 3600


# The saver has a method by the name of the class.
_List: TypeAlias = list[Any]
_Tuples: TypeAlias = list[CheckpointTuple]
_Found: TypeAlias = list[tuple[str, Value]]
_Puts: TypeAlias = list[Put]


class _Thread:
    """What a saver knows of a thread: the version of its mark, and the digests that are stored."""

    def __init__(self, mark: int) -> None:
        self.mark = mark
        self.digests: set[bytes] = set()


class MemvidSaver(BaseCheckpointSaver[str]):
    """A LangGraph checkpointer in a collection of a store.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; the saver does not
    close it. ``collection``: the collection's name. ``serde``: LangGraph's serializer.
    """

    def __init__(
        self,
        store: Store | SyncStore,
        *,
        collection: str = "langgraph",
        serde: SerializerProtocol | None = None,
    ) -> None:
        super().__init__(serde=serde)
        self._bridge = Bridge(store, collection)
        self._threads: dict[str, _Thread] = {}
        self._bodies = Bodies()

    @classmethod
    def from_path(
        cls,
        path: str | os.PathLike[str],
        *,
        config: StoreConfig | None = None,
        collection: str = "langgraph",
        serde: SerializerProtocol | None = None,
    ) -> Any:
        """Open a file, for ``with MemvidSaver.from_path(path) as saver`` or ``async with``."""
        return OpenFrom(lambda s: cls(s, collection=collection, serde=serde), path, config)

    def get_next_version(self, current: str | int | None, channel: None) -> str:  # noqa: ARG002 - theirs
        """Return a channel's next version: a number that is unique where branches meet."""
        last = 0 if current is None else int(str(current).split(".")[0])
        return f"{last + 1:032}.{int.from_bytes(os.urandom(6), 'big'):016}"

    # Putting.

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002 - values are found by their digests
    ) -> RunnableConfig:
        """Keep a checkpoint, in one command with what is new of its values."""
        return await self._bridge.run(lambda c: self._put(c, config, checkpoint, metadata))

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,  # noqa: ARG002 - values are found by their digests
    ) -> RunnableConfig:
        """Keep a checkpoint, as :meth:`aput` does."""
        return self._bridge.wait(lambda c: self._put(c, config, checkpoint, metadata))

    async def _put(
        self,
        c: Collection,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
    ) -> RunnableConfig:
        thread, ns = _place(config)
        bodies: dict[bytes, Body] = {}
        values = [
            [channel, *kept_value(self.serde, value, bodies)]
            for channel, value in checkpoint["channel_values"].items()
        ]
        whole = get_checkpoint_metadata(config, metadata)
        data = [
            list(self.serde.dumps_typed({**checkpoint, "channel_values": {}})),
            list(self.serde.dumps_typed(whole)),
            config["configurable"].get("checkpoint_id"),
            values,
        ]
        run = whole.get("run_id")
        put = Put(
            f"c/{part(thread)}/{part(ns)}/{part(checkpoint['id'])}",
            data,
            {"run": run} if isinstance(run, str) else None,
        )
        mark = f"m/{part(thread)}"
        while True:
            known = await self._known(c, thread, mark)
            new = [
                Put(f"b/{part(thread)}/{digest.hex()}", list(body))
                for digest, body in bodies.items()
                if digest not in known.digests
            ]
            try:
                await c.apply([Check(mark, known.mark), *new, put])
            except VersionConflictError:
                # Something of the thread was deleted meanwhile, maybe what this would refer to.
                self._threads.pop(thread, None)
                continue
            known.digests.update(bodies)
            for digest, body in bodies.items():
                self._bodies.add(digest, body)
            return _config(thread, ns, checkpoint["id"])

    async def _known(self, c: Collection, thread: str, mark: str) -> _Thread:
        known = self._threads.pop(thread, None)
        if known is None:
            held = await c.get(mark)
            known = _Thread(0 if held is None else held.version)
        # The thread that was used last is last.
        self._threads[thread] = known
        while len(self._threads) > _MOST_THREADS:
            self._threads.pop(next(iter(self._threads)))
        return known

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep writes of a task that are in no checkpoint yet."""
        await self._bridge.run(lambda c: self._put_writes(c, config, writes, task_id, task_path))

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep writes of a task, as :meth:`aput_writes` does."""
        self._bridge.wait(lambda c: self._put_writes(c, config, writes, task_id, task_path))

    async def _put_writes(
        self,
        c: Collection,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str,
    ) -> None:
        thread, ns = _place(config)
        begin = f"w/{part(thread)}/{part(ns)}/{part(get_checkpoint_id(config))}/{part(task_id)}"
        puts = []
        for at, (channel, value) in enumerate(writes):
            index = WRITES_IDX_MAP.get(channel, at)
            data = [task_id, task_path, index, channel, *self.serde.dumps_typed(value)]
            puts.append(Put(f"{begin}/{index}", data))
        if all(channel in WRITES_IDX_MAP for channel, _ in writes):
            await c.apply(puts)
            return
        # What a task has written already stays.
        while puts:
            try:
                await c.apply([*puts, *(Check(put.key, 0) for put in puts)])
            except VersionConflictError:
                held = await c.get_many([put.key for put in puts])
                puts = [put for put, value in zip(puts, held, strict=True) if value is None]
            else:
                return

    # Getting.

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint with its pending writes: the one asked for, or the newest."""
        return await self._bridge.run(lambda c: self._get_tuple(c, config), fresh=True)

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return a checkpoint, as :meth:`aget_tuple` does."""
        return self._bridge.wait(lambda c: self._get_tuple(c, config), fresh=True)

    async def _get_tuple(self, c: Collection, config: RunnableConfig) -> CheckpointTuple | None:
        thread, ns = _place(config)
        begin, wanted = f"c/{part(thread)}/{part(ns)}/", get_checkpoint_id(config)
        if wanted:
            held = await c.get(begin + part(wanted))
        else:
            held = None
            async for newest in c.scan(begin, reverse=True, limit=1):
                held = newest
        if held is None:
            return None
        try:
            return await self._tuple(c, held)
        except KeyError:
            if await c.get(held.key) is not None:
                raise
            # It was deleted meanwhile.
            return None

    async def _tuple(self, c: Collection, held: Value) -> CheckpointTuple:
        _, thread, ns, checkpoint_id = map(name_of, held.key.split("/"))
        kept, metadata, parent, values = held.data
        writes = [value.data async for value in c.scan("w" + held.key[1:] + "/")]
        writes.sort(key=lambda write: writes_sort_key(write[1], write[0], write[2]))
        whole: Any = self.serde.loads_typed(tuple(kept))
        whole["channel_values"] = await read_values(self.serde, c, thread, values, self._bodies)
        return CheckpointTuple(
            _config(thread, ns, checkpoint_id),
            whole,
            self.serde.loads_typed(tuple(metadata)),
            _config(thread, ns, parent) if parent else None,
            [(w[0], w[3], self.serde.loads_typed((w[4], w[5]))) for w in writes],
        )

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - theirs
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield checkpoints, newest first; ``filter``: with these metadata."""
        for found in await self._bridge.run(
            lambda c: self._list(c, config, filter, before, limit), fresh=True
        ):
            yield found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,  # noqa: A002 - theirs
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield checkpoints, as :meth:`alist` does."""
        yield from self._bridge.wait(
            lambda c: self._list(c, config, filter, before, limit), fresh=True
        )

    async def _list(
        self,
        c: Collection,
        config: RunnableConfig | None,
        wanted: Mapping[str, Any] | None,
        before: RunnableConfig | None,
        limit: int | None,
    ) -> _Tuples:
        begin, last = "c/", get_checkpoint_id(before) if before else None
        ns = None
        if config is not None:
            begin += f"{part(config['configurable']['thread_id'])}/"
            ns = config["configurable"].get("checkpoint_ns")
            begin += "" if ns is None else f"{part(ns)}/"
        only = get_checkpoint_id(config) if config else None
        found: _Found = []
        async for value in c.scan(begin, reverse=True):
            checkpoint_id = name_of(value.key.rpartition("/")[2])
            if (only and checkpoint_id != only) or (last and checkpoint_id >= last):
                continue
            metadata = self.serde.loads_typed(tuple(value.data[1]))
            if wanted and any(_field(metadata, name) != one for name, one in wanted.items()):
                continue
            found.append((checkpoint_id, value))
            if ns is not None and limit is not None and len(found) >= limit:
                break
        found.sort(key=lambda one: one[0], reverse=True)
        return [await self._tuple(c, value) for _, value in found[:limit]]

    # Deleting and copying.

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete all checkpoints and writes of a thread. ``compact()`` erases their bytes."""
        await self._bridge.run(lambda c: self._delete_thread(c, thread_id))

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, as :meth:`adelete_thread` does."""
        self._bridge.wait(lambda c: self._delete_thread(c, thread_id))

    async def _delete_thread(self, c: Collection, thread: str) -> None:
        self._threads.pop(str(thread), None)
        gone = [DeletePrefix(f"{kind}/{part(thread)}/") for kind in "cwb"]
        await c.apply([*gone, _marked(thread)])

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of these runs, with their writes."""
        await self._bridge.run(lambda c: self._delete_for_runs(c, run_ids))

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints of runs, as :meth:`adelete_for_runs` does."""
        self._bridge.wait(lambda c: self._delete_for_runs(c, run_ids))

    async def _delete_for_runs(self, c: Collection, run_ids: Sequence[str]) -> None:
        where = {"run": {"$in": list(run_ids)}}
        gone = [value.key async for value in c.scan("c/", where=where)] if run_ids else []
        for thread in {name_of(key.split("/")[1]) for key in gone}:
            begin = f"c/{part(thread)}/"
            await self._leave_out(c, thread, {key for key in gone if key.startswith(begin)})

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the newest checkpoint of each namespace of these threads, or none (``delete``).

        Of a checkpoint with delta channels, the ancestors that they are rebuilt from stay too.
        """
        await self._bridge.run(lambda c: self._prune(c, thread_ids, strategy))

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Prune threads, as :meth:`aprune` does."""
        self._bridge.wait(lambda c: self._prune(c, thread_ids, strategy))

    async def _prune(self, c: Collection, thread_ids: Sequence[str], strategy: str) -> None:
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"strategy must be 'keep_latest' or 'delete', not {strategy!r:.80}")
        for thread in thread_ids:
            if strategy == "delete":
                await self._delete_thread(c, thread)
                continue
            held = {value.key: value async for value in c.scan(f"c/{part(thread)}/")}
            newest = {key.rpartition("/")[0]: key for key in held}
            kept: set[str] = set()
            for begin, key in newest.items():
                kept.update(self._needed(held, begin, key))
            if len(kept) < len(held):
                await self._leave_out(c, thread, held.keys() - kept)

    def _needed(self, held: Mapping[str, Value], begin: str, key: str) -> Iterator[str]:
        """Yield a checkpoint, and the ancestors up to where its delta channels have values."""
        metadata = self.serde.loads_typed(tuple(held[key].data[1]))
        missing = set(metadata.get("counters_since_delta_snapshot") or ())
        passed: set[str] = set()
        while key in held and key not in passed:
            passed.add(key)
            yield key
            _, _, parent, values = held[key].data
            missing -= {channel for channel, *_ in values}
            if not missing or not parent:
                return
            key = f"{begin}/{part(parent)}"

    async def _leave_out(self, c: Collection, thread: str, gone: set[str]) -> None:
        """Delete checkpoints of a thread, their writes, and what only they refer to."""
        self._threads.pop(thread, None)
        while True:
            mark = await c.get(f"m/{part(thread)}")
            used: set[str] = set()
            async for value in c.scan(f"c/{part(thread)}/"):
                if value.key not in gone:
                    digests = (d for _, *kept in value.data[3] for d in digests_in(kept))
                    used.update(f"b/{part(thread)}/{digest.hex()}" for digest in digests)
            steps: _List = [Check(f"m/{part(thread)}", 0 if mark is None else mark.version)]
            for key in sorted(gone):
                steps += [Delete(key), DeletePrefix("w" + key[1:] + "/")]
            stored = [value.key async for value in c.scan(f"b/{part(thread)}/")]
            steps += [Delete(key) for key in stored if key not in used]
            try:
                await c.apply([*steps, _marked(thread)])
            except VersionConflictError:
                continue
            return

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread to another one."""
        await self._bridge.run(lambda c: self._copy(c, source_thread_id, target_thread_id))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy a thread, as :meth:`acopy_thread` does."""
        self._bridge.wait(lambda c: self._copy(c, source_thread_id, target_thread_id))

    async def _copy(self, c: Collection, source: str, target: str) -> None:
        # Values first: a checkpoint that is there has all of its values.
        for kind in "bwc":
            begin, puts, size = f"{kind}/{part(source)}/", _Puts(), 0
            async for value in c.scan(begin):
                key = f"{kind}/{part(target)}/{value.key[len(begin) :]}"
                puts.append(Put(key, value.data, dict(value.metadata)))
                size += len(json.dumps(value.data, default=len))
                if len(puts) >= _MOST_CHANGES or size >= _MOST_BYTES:
                    await c.apply(puts)
                    puts, size = [], 0
            if puts:
                await c.apply(puts)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what delta channels are rebuilt from: their last values, and the writes since."""
        return await self._bridge.run(lambda c: self._history(c, config, channels), fresh=True)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return what delta channels are rebuilt from, as :meth:`aget_delta_channel_history`."""
        return self._bridge.wait(lambda c: self._history(c, config, channels), fresh=True)

    async def _history(
        self, c: Collection, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        history: dict[str, Any] = {channel: {"writes": []} for channel in channels}
        missing, passed = set(channels), set[str]()
        found = await self._get_tuple(c, config)
        # A checkpoint that is put again under its descendant is its own ancestor.
        while found is not None and missing and found.checkpoint["id"] not in passed:
            if passed:
                for write in reversed(found.pending_writes or ()):
                    if write[1] in missing:
                        history[write[1]]["writes"].insert(0, write)
                for channel in missing & found.checkpoint["channel_values"].keys():
                    history[channel]["seed"] = found.checkpoint["channel_values"][channel]
                    missing.discard(channel)
            passed.add(found.checkpoint["id"])
            parent = found.parent_config
            found = None if parent is None else await self._get_tuple(c, parent)
        return history


def _place(config: RunnableConfig) -> tuple[str, str]:
    configurable = config["configurable"]
    return str(configurable["thread_id"]), configurable.get("checkpoint_ns", "")


def _field(metadata: Any, name: str) -> Any:
    """Return a field of metadata; ``a.b`` is the field ``b`` inside ``a``."""
    if name in metadata:
        return metadata[name]
    for one in name.split("."):
        metadata = metadata.get(one) if isinstance(metadata, dict) else None
    return metadata


def _config(thread: str, ns: str, checkpoint_id: str) -> RunnableConfig:
    names = {"thread_id": thread, "checkpoint_ns": ns, "checkpoint_id": checkpoint_id}
    return {"configurable": names}


def _marked(thread: str) -> Put:
    return Put(f"m/{part(thread)}", None, ttl=_MARK_SECONDS)
