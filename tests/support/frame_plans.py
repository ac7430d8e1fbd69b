"""Random histories of a memory, carried out on a store and on a naive copy of it."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define, evolve, field, frozen
from hypothesis import strategies as st

from memvid_async import RecordingConfig, Store, StoreConfig, open_store
from memvid_async.memory import folded as memory
from memvid_async.memory import recall
from tests.support.naive import fixed_config

WORDS = ("otter", "river", "fox", "den", "snow", "moss", "cliff", "wolf")
VECTORS = ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-2.0, 1.0], [3.0, 0.5])
LONG = 40
QUERIES = ("otter", "river fox", '"otter river"', "den -snow", "title:moss", "clif*", "wolf of it")
MODEL = "toy"


@frozen
class Op:
    """One step; ``pick`` chooses among what is there."""

    name: str
    pick: int = 0
    fields: tuple[tuple[str, Any], ...] = ()


_TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
_BODIES = st.one_of(_TEXTS, _TEXTS.map(lambda t: f"{t} " * LONG), _TEXTS.map(str.encode))
_FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "title": st.none() | _TEXTS,
    "uri": st.none() | st.sampled_from(["mv2://a/1", "mv2://a/2", "mv2://b"]),
    "media_type": st.sampled_from([None, "text/plain", "image/png"]),
    "tags": st.sampled_from([(), ("red",), ("red", "blue")]),
    "metadata": st.sampled_from([{}, {"k": 1}, {"k": 2, "deep": [1]}]),
    "vector": st.none() | st.sampled_from(VECTORS),
}
_SOME_FIELDS = st.dictionaries(st.sampled_from(list(_FIELDS)), st.none()).flatmap(
    lambda names: st.fixed_dictionaries({name: _FIELDS[name] for name in names})
)
_PICKS = st.integers(0, 1000)


@st.composite
def _puts(draw: st.DrawFn) -> Op:
    return Op("put", 0, (("content", draw(_BODIES)), *draw(_SOME_FIELDS).items()))


@st.composite
def _updates(draw: st.DrawFn) -> Op:
    fields = dict(draw(_SOME_FIELDS))
    if not fields or draw(st.booleans()):
        fields["content"] = draw(_BODIES)
    return Op("update", draw(_PICKS), tuple(fields.items()))


HISTORIES = st.lists(
    st.one_of(
        _puts(),
        _puts(),
        _updates(),
        st.builds(Op, st.just("delete"), _PICKS),
        st.builds(Op, st.just("put_many"), _PICKS, st.tuples(st.tuples(_BODIES, _BODIES))),
        st.builds(Op, st.sampled_from(["start", "end", "checkpoint", "drop"]), _PICKS),
        st.builds(Op, st.sampled_from(["find", "ask"]), _PICKS),
        st.builds(Op, st.sampled_from(["mark", "mark", "reopen", "compact", "catch up"])),
    ),
    min_size=4,
    max_size=25,
)


@frozen
class NaiveFrame:
    """A frame as it was told."""

    frame_id: int
    content: str | bytes
    title: str | None = None
    uri: str | None = None
    media_type: str | None = None
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(factory=dict)
    vector: list[float] | None = None

    @property
    def raw(self) -> bytes:
        """The body as bytes."""
        return self.content.encode() if isinstance(self.content, str) else self.content

    @property
    def words(self) -> set[str]:
        """Every word that is searched."""
        text = self.content if isinstance(self.content, str) else ""
        if isinstance(self.content, bytes) and self.media_type == "text/plain":
            text = self.content.decode()
        return {*text.split(), *(self.title or "").split(), *self.tags}


def cosine(one: list[float], other: list[float]) -> float:
    """Of two vectors, to six digits."""
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return round(dot / math.hypot(*one) / math.hypot(*other), 6)


@define
class Moment:
    """A store as it was stopped: a copy of its file, and what the naive one held."""

    sequence: int
    time_ns: int
    path: Path
    frames: dict[int, NaiveFrame]
    sessions_dropped: set[Any]


@define
class Life:
    """A store that lives through a history, beside naive frames."""

    folder: Path
    config: StoreConfig = field(factory=fixed_config)
    frames: dict[int, NaiveFrame] = field(factory=dict)
    last_id: int = 0
    moments: list[Moment] = field(factory=list)
    erased: set[int] = field(factory=set)
    dropped: set[Any] = field(factory=set)
    gone_sessions: set[Any] = field(factory=set)
    counter: Any = field(factory=itertools.count)

    @property
    def path(self) -> Path:
        """The store's file."""
        return self.folder / "store.mva"

    async def run(self, history: list[Op]) -> Store:
        """Carry it all out; the store, open."""
        store = await open_store(self.path, config=self.config)
        for op in history:
            if op.name == "reopen":
                await store.aclose()
                store = await open_store(self.path, config=self.config)
            else:
                await self._step(store, op)
        await self._mark(store)
        return store

    async def _step(self, store: Store, op: Op) -> None:
        fields = _arguments(dict(op.fields))
        alive = sorted(self.frames)
        if op.name == "put":
            content = fields.pop("content")
            self._new(await store.put(content, **fields), content, op)
        elif op.name == "put_many":
            bodies = op.fields[0]
            for frame_id, content in zip(await store.put_many(bodies), bodies, strict=True):
                self._new(frame_id, content, Op("put"))
        elif op.name in ("update", "delete") and alive:
            await self._change(store, op, alive[op.pick % len(alive)], fields)
        elif op.name == "find":
            await store.find(QUERIES[op.pick % len(QUERIES)], top_k=3)
        elif op.name == "ask":
            query = QUERIES[op.pick % len(QUERIES)]
            await store.ask(query, generate=lambda _: "reply", provider="p", model="m")
        elif op.name == "mark":
            await self._mark(store)
        elif op.name == "catch up":
            await store.find("otter")
        elif op.name == "compact":
            await store.compact()
            self.erased = set(range(1, self.last_id + 1)) - set(self.frames)
            self.gone_sessions |= self.dropped
        else:
            await self._session(store, op)

    async def _session(self, store: Store, op: Op) -> None:
        if op.name == "start" and not store.is_recording:
            interval = op.pick % 3
            await store.start_session(
                f"session {next(self.counter)}", RecordingConfig(auto_checkpoint_interval=interval)
            )
        elif op.name == "end" and store.is_recording:
            await store.end_session()
        elif op.name == "checkpoint" and store.is_recording:
            await store.create_checkpoint()
        elif op.name == "drop" and (listed := await store.list_sessions(include_open=True)):
            found = listed[op.pick % len(listed)].session_id
            await store.delete_session(found)
            self.dropped.add(found)

    def _new(self, frame_id: int, content: str | bytes, op: Op) -> None:
        assert frame_id == self.last_id + 1
        self.last_id = frame_id
        given = {k: v for k, v in op.fields if k != "content"}
        self.frames[frame_id] = NaiveFrame(frame_id, content, **given)

    async def _change(self, store: Store, op: Op, frame_id: int, fields: dict[str, Any]) -> None:
        if op.name == "delete":
            await store.delete(frame_id)
            del self.frames[frame_id]
            return
        await store.update(frame_id, **fields)
        changes = dict(op.fields)
        if "content" in changes and "vector" not in changes:
            changes["vector"] = None
        self.frames[frame_id] = evolve(self.frames[frame_id], **changes)

    async def _mark(self, store: Store) -> None:
        await store.sync()
        path = self.folder / f"moment{len(self.moments)}.mva"
        shutil.copyfile(self.path, path)
        clock: Any = self.config.clock
        # The clock's next value is later than all that has happened.
        self.moments.append(
            Moment(store.last_sequence, clock(), path, dict(self.frames), set(self.dropped))
        )


def _arguments(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of an operation as a store takes them."""
    if "vector" in fields:
        vector = fields.pop("vector")
        fields["embedding"] = vector
        fields["embedding_model"] = MODEL if vector else None
    return fields


@contextmanager
def eager_saving() -> Iterator[None]:
    """Bounds so low that the search index is saved all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_SAVE_CHARS", 1)
        patch.setattr(memory, "_SAVE_PART", 1 << 40)
        patch.setattr(recall, "_LOOK_BYTES", 1)
        yield
