"""Steps of Pydantic AI's runs, in a collection. See :mod:`.pydantic_ai`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter
from pydantic_ai.messages import ModelMessagesTypeAdapter
from pydantic_ai_harness.step_persistence import (
    ContinuableSnapshot,
    RunRecord,
    StepEvent,
    ToolEffectRecord,
)

from .. import (
    Check,
    Collection,
    Delete,
    DeletePrefix,
    InvalidValueError,
    Put,
    Store,
    SyncStore,
    Value,
    VersionConflictError,
)
from .collection_bridge import Bridge, part

# Keys are read in the order of these numbers.
_DIGITS = 12

_RUN = TypeAdapter(RunRecord)
_EVENT = TypeAdapter(StepEvent)
_SNAPSHOT = TypeAdapter(ContinuableSnapshot)
_EFFECT = TypeAdapter(ToolEffectRecord)


class MemvidStepStore:
    """A step store of Pydantic AI's harness, for its ``StepPersistence``.

    ``store``: an open :class:`Store` (on its event loop) or :class:`SyncStore`; it is not closed.
    ``max_snapshots_per_run``: how many of a run's newest are kept, besides the newest complete one;
    None for all. ``collection``: the collection's name.

    A snapshot keeps its messages once for the run: what an earlier one had costs nothing again.
    """

    def __init__(
        self,
        store: Store | SyncStore,
        *,
        max_snapshots_per_run: int | None = None,
        collection: str = "pydantic-ai",
    ) -> None:
        most = max_snapshots_per_run
        if most is not None and (type(most) is not int or most < 1):
            wanted = ">= 1" if type(most) is int else "an int"
            raise InvalidValueError(
                f"max_snapshots_per_run must be {wanted}, or None for all, not {most!r:.80}"
            )
        self._most = most
        self._bridge = Bridge(store, collection)

    # Runs.

    async def register_run(self, record: RunRecord) -> None:
        """Keep who runs.

        :raises ValueError: when another registration has the run's id.
        """
        put = Put(
            f"r/{part(record.run_id)}",
            _RUN.dump_python(record, mode="json"),
            {"parent": record.parent_run_id, "conversation": record.conversation_id},
        )

        async def register(c: Collection) -> None:
            try:
                await c.apply([Check(put.key, 0), put])
            except VersionConflictError as conflict:
                if conflict.value is None or conflict.value.data != put.data:
                    message = f"another run is registered as {record.run_id!r:.80}"
                    raise ValueError(message) from None

        await self._bridge.run(register)

    async def get_run(self, *, run_id: str) -> RunRecord | None:
        """Return a run; None when it was not registered."""
        value = await self._bridge.run(lambda c: c.get(f"r/{part(run_id)}"), fresh=True)
        return None if value is None else _RUN.validate_python(value.data)

    async def list_runs(
        self, *, parent_run_id: str | None = None, conversation_id: str | None = None
    ) -> list[RunRecord]:
        """Return the runs with this parent and of this conversation, by when they started."""
        asked = {"parent": parent_run_id, "conversation": conversation_id}
        where = {name: value for name, value in asked.items() if value is not None}
        found = await self._scan("r/", where)
        return sorted(map(_RUN.validate_python, found), key=lambda run: run.started_at)

    # Events.

    async def append_event(self, event: StepEvent) -> None:
        """Keep an event; one whose idempotency key its run has already is left out."""
        run, data = part(event.run_id), _EVENT.dump_python(event, mode="json")
        key = event.idempotency_key
        mark = None if key is None else f"ek/{run}/{part(key)}"

        async def append(c: Collection) -> None:
            while True:
                head, *known = await c.get_many([f"eh/{run}", *([mark] if mark else [])])
                if any(known):
                    return
                count = 0 if head is None else head.data
                steps: list[Any] = [
                    _unchanged(f"eh/{run}", head),
                    Put(f"eh/{run}", count + 1),
                    Put(f"e/{run}/{count:0{_DIGITS}}", data),
                    *([Put(mark, None)] if mark else []),
                ]
                try:
                    await c.apply(steps)
                except VersionConflictError:
                    continue
                return

        await self._bridge.run(append, fresh=True)

    async def list_events(self, *, run_id: str) -> list[StepEvent]:
        """Return the events of a run, in order."""
        return [_EVENT.validate_python(data) for data in await self._scan(f"e/{part(run_id)}/")]

    # Snapshots.

    async def save_snapshot(self, snapshot: ContinuableSnapshot) -> None:
        """Keep a snapshot; one whose idempotency key its run has had already is left out."""
        run = part(snapshot.run_id)
        data = _SNAPSHOT.dump_python(replace(snapshot, messages=[]), mode="json")
        refs, bodies = kept_messages(f"m/{run}/", snapshot.messages)
        state = {"state": snapshot.state}

        async def save(c: Collection) -> None:
            while True:
                head = await c.get(f"sh/{run}")
                count, *sent = [0, None, []] if head is None else head.data
                if (sent := _sent(sent, snapshot.idempotency_key)) is None:
                    return
                held = await self._snapshots(c, run, newest=self._most is None)
                put = Put(f"s/{run}/{count:0{_DIGITS}}", {**data, "messages": refs}, state)
                gone, unused = _pruned(held, put, self._most)
                known = {ref for value in held for ref in value.data["messages"]}
                new = [Put(key, body) for key, body in bodies.items() if key not in known]
                steps: list[Any] = [
                    _unchanged(f"sh/{run}", head),
                    Put(f"sh/{run}", [count + 1, *sent]),
                ]
                steps += [*new, put, *map(Delete, gone), *map(Delete, unused)]
                try:
                    await c.apply(steps)
                except VersionConflictError:
                    continue
                return

        await self._bridge.run(save, fresh=True)

    async def latest_snapshot(
        self, *, run_id: str, include_interrupted: bool = False
    ) -> ContinuableSnapshot | None:
        """Return the newest snapshot of a run, by default of the complete ones."""
        found = await self._read(run_id, interrupted=include_interrupted, limit=1)
        return found[0] if found else None

    async def list_snapshots(
        self, *, run_id: str, include_interrupted: bool = False
    ) -> list[ContinuableSnapshot]:
        """Return the snapshots of a run in order, by default the complete ones."""
        return (await self._read(run_id, interrupted=include_interrupted, limit=None))[::-1]

    async def _read(
        self, run_id: str, *, interrupted: bool, limit: int | None
    ) -> list[ContinuableSnapshot]:
        run, where = part(run_id), None if interrupted else {"state": "complete"}

        async def read(c: Collection) -> list[dict[str, Any]]:
            found = []
            async for value in c.scan(f"s/{run}/", reverse=True, limit=limit, where=where):
                messages = await read_messages(c, value.data["messages"])
                found.append({**value.data, "messages": messages})
            return found

        return [
            replace(
                _SNAPSHOT.validate_python({**data, "messages": []}),
                messages=ModelMessagesTypeAdapter.validate_python(data["messages"]),
            )
            for data in await self._bridge.run(read, fresh=True)
        ]

    async def _snapshots(self, c: Collection, run: str, *, newest: bool) -> list[Value]:
        """Return the snapshots that are kept of a run, or the newest one alone."""
        kept = c.scan(f"s/{run}/", reverse=newest, limit=1 if newest else None)
        return [value async for value in kept]

    # Effects of tools.

    async def record_tool_effect(self, record: ToolEffectRecord) -> None:
        """Keep how far a tool's call is; a later record replaces an earlier one."""
        key = f"t/{part(record.run_id)}/{part(record.tool_call_id)}"
        data = _EFFECT.dump_python(record, mode="json")
        await self._bridge.run(lambda c: c.put(key, data, metadata={"status": record.status}))

    async def get_tool_effect(self, *, run_id: str, tool_call_id: str) -> ToolEffectRecord | None:
        """Return how far a tool's call is; None when it did not begin."""
        key = f"t/{part(run_id)}/{part(tool_call_id)}"
        value = await self._bridge.run(lambda c: c.get(key), fresh=True)
        return None if value is None else _EFFECT.validate_python(value.data)

    async def list_unresolved_tool_effects(self, *, run_id: str) -> list[ToolEffectRecord]:
        """Return the calls of tools that began and did not end, by when they began."""
        found = await self._scan(f"t/{part(run_id)}/", {"status": "started"})
        return sorted(map(_EFFECT.validate_python, found), key=lambda effect: effect.started_at)

    async def _scan(self, begin: str, where: Mapping[str, Any] | None = None) -> list[Any]:
        async def read(c: Collection) -> list[Any]:
            return [value.data async for value in c.scan(begin, where=where or None)]

        return await self._bridge.run(read, fresh=True)


def without_run(run: str) -> list[Any]:
    """Return the steps that delete all of a run. ``run``: its part of a key."""
    keys = [Delete(f"{kind}/{run}") for kind in ("r", "eh", "sh")]
    return [*keys, *(DeletePrefix(f"{kind}/{run}/") for kind in ("e", "ek", "s", "m", "t"))]


def kept_messages(begin: str, messages: Iterable[Any]) -> tuple[list[str], dict[str, Any]]:
    """Return the keys of messages, in order, and what is kept at each: equal ones have one."""
    keys, bodies = [], {}
    for message in ModelMessagesTypeAdapter.dump_python(list(messages), mode="json"):
        text = json.dumps(message, separators=(",", ":")).encode()
        key = begin + hashlib.blake2b(text, digest_size=16).hexdigest()
        keys.append(key)
        bodies[key] = message
    return keys, bodies


async def read_messages(c: Collection, keys: Sequence[str]) -> list[Any]:
    """Return what is kept of messages.

    :raises LookupError: when they were deleted meanwhile.
    """
    held = dict(zip(keys, await c.get_many(keys), strict=True))
    if any(value is None for value in held.values()):
        raise LookupError("it was deleted while it was read")
    return [value.data for key in keys if (value := held[key]) is not None]


def _unchanged(key: str, held: Value | None) -> Check:
    return Check(key, 0 if held is None else held.version)


def _sent(sent: Sequence[Any], key: str | None) -> list[Any] | None:
    """Return what is known of the idempotency keys that were used, with one more; None when it was
    used. The harness numbers them, ``7:…``, so those of the highest number are enough; of others
    all are kept."""
    number, keys = sent
    if key is None:
        return [number, keys]
    own, colon, _ = key.partition(":")
    counted = int(own) if colon and own.isdecimal() else None
    if key in keys or (counted is not None and number is not None and counted < number):
        return None
    if counted is None or counted == number:
        return [number, [*keys, key]]
    others = [one for one in keys if not one.partition(":")[0].isdecimal()]
    return [counted, [*others, key]]


def _pruned(held: Sequence[Value], new: Put, most: int | None) -> tuple[list[str], set[str]]:
    """Return the keys of the snapshots, and those of the messages, that a new one makes go."""
    if most is None:
        return [], set()
    states = [(value.key, (value.metadata or {}).get("state")) for value in held]
    states.append((new.key, (new.metadata or {}).get("state")))
    kept = {key for key, _ in states[-most:]}
    kept.update([key for key, state in states if state == "complete"][-1:])
    gone = [value for value in held if value.key not in kept]
    used = {ref for value in held if value.key in kept for ref in value.data["messages"]}
    used.update(new.data["messages"])
    unused = {ref for value in gone for ref in value.data["messages"]} - used
    return [value.key for value in gone], unused
