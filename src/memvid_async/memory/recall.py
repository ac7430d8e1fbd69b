"""The memories that a store has open: the live one, those of forks and those of past moments.

They are folded and searched in two threads of their own, so that neither the loop nor the writer
waits. The thread that makes a call takes the view for it, so the views of a thread never step back:
the view, the search index, the texts and the ``as_of`` of a search are those of one moment, in
whatever order the calls reach the thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from attrs import frozen

from ..config import Limits
from ..engine.engine import Engine
from ..engine.worker import Worker
from ..engine.writer import Writer
from ..errors import FrameNotFoundError
from ..events.frames import Context, ContextItem, FindResult, Frame, Hit, Retrieval, SearchMode
from ..recording.command_intake import CommandIntake
from ..search import Filters, FramePlace, InterruptedFindError, SearchIndex
from ..search.results import Found
from .folded import SHARED, FoldedMemory, Lineage
from .prepare_frames import make_filters
from .projection_saver import ProjectionSaver

T = TypeVar("T")
# After this many bytes were put, a check tells whether the search index is due to be saved.
_LOOK_BYTES = 256 * 1024


@frozen
class Search:
    """A search. ``parameters``: its filters, as an action records them."""

    query: str
    mode: SearchMode
    top_k: int
    parameters: Mapping[str, Any]
    embedding: bytes | None = None
    embedding_model: str | None = None
    syntax: bool = True

    def filters(self) -> Filters:
        """Return the filters, as the search index takes them."""
        return make_filters(self.parameters)


@frozen
class Searched:
    """What a search found: the result, what an action records of it, and the frames' texts."""

    result: FindResult
    retrieval: Retrieval
    texts: tuple[str, ...] = ()

    @property
    def context(self) -> Context:
        """The frames found, as they are passed to a model; only when their texts were read."""
        return Context(
            tuple(
                ContextItem(hit.frame_id, hit.score, text)
                for hit, text in zip(self.result.hits, self.texts, strict=True)
            )
        )


def _searched(
    search: Search, index: SearchIndex
) -> tuple[list[Found], dict[int, FramePlace], dict[int, str]]:
    """Return what a search finds, where the frames are, and their snippets."""
    found = index.find(
        search.query,
        search.embedding,
        mode=search.mode,
        top_k=search.top_k,
        filters=search.filters(),
        embedding_model=search.embedding_model,
        syntax=search.syntax,
    )
    places = index.places([one.frame_id for one in found])
    return found, places, index.snippets(search.query or None, places, syntax=search.syntax)


class Recall:
    """Finds and reads frames for a store and its views."""

    def __init__(self, engine: Engine, intake: CommandIntake, limits: Limits) -> None:
        self._engine = engine
        self._most_open = limits.open_memories
        self._live = FoldedMemory()
        self._others: dict[Lineage, FoldedMemory] = {}
        self._worker = Worker("memvid_async memory")
        self._past_worker = Worker("memvid_async past memories")
        self._saver = ProjectionSaver(engine, intake, self._worker, self._live, _LOOK_BYTES)

    # In the threads.

    def _memory(self, lineage: Lineage) -> FoldedMemory:
        if lineage == SHARED:
            return self._live
        found = self._others.pop(lineage, None) or FoldedMemory(lineage)
        # The most recently used one is last.
        self._others[lineage] = found
        while len(self._others) > self._most_open:
            self._others.pop(next(iter(self._others))).close()
        return found

    def _find(self, lineage: Lineage, search: Search, *, texts: bool) -> Searched:
        started = time.perf_counter()
        memory = self._memory(lineage)
        (found, places, snippets), _ = memory.answer(
            self._engine.written_view, partial(_searched, search)
        )
        shown = [(one, places[one.frame_id]) for one in found if one.frame_id in places]
        hits = tuple(
            Hit(one.frame_id, one.score, snippets[one.frame_id], place.title, place.uri)
            for one, place in shown
        )
        duration = round((time.perf_counter() - started) * 1000, 3)
        result = FindResult(hits, search.mode, memory.through, duration, len(memory.missing))
        retrieval = Retrieval(
            search.mode,
            search.top_k,
            memory.through,
            tuple(hit.score for hit in hits),
            tuple((place.sequence, place.place) for _, place in shown),
            search.parameters,
            search.embedding,
            search.embedding_model,
            search.syntax,
        )
        bodies = tuple(memory.text(place) for _, place in shown) if texts else ()
        return Searched(result, retrieval, bodies)

    def _get(self, lineage: Lineage, frame_id: int) -> Frame:
        memory = self._memory(lineage)
        row, _ = memory.answer(self._engine.written_view, lambda index: index.get(frame_id))
        if row is None:
            raise FrameNotFoundError(frame_id)
        return memory.frame(row)

    def _scan(
        self, lineage: Lineage, after: int | None, filters: Filters, *, newest: bool, limit: int
    ) -> list[Frame]:
        memory = self._memory(lineage)
        scan = partial(
            SearchIndex.scan, after_id=after, newest_first=newest, filters=filters, limit=limit
        )
        rows, _ = memory.answer(self._engine.written_view, scan)
        return [memory.frame(row) for row in rows]

    def _with_uri(self, lineage: Lineage, uri: str) -> tuple[tuple[int, ...], bytes]:
        view = self._engine.written_view
        found, _ = self._memory(lineage).answer(view, lambda index: index.with_uri(uri))
        return found, view.state.memory.summary(lineage[0][0])[1]

    # On the loop.

    async def _run(self, lineage: Lineage, call: Callable[..., T], *args: Any, **more: Any) -> T:
        worker = self._worker if lineage == SHARED else self._past_worker
        try:
            return await worker.run(lambda: call(*args, **more))
        except asyncio.CancelledError:
            memory = self._live if lineage == SHARED else self._others.get(lineage)
            if memory is not None:
                memory.interrupt()
            raise

    async def find(self, lineage: Lineage, search: Search, *, texts: bool = False) -> Searched:
        """Search a memory; ``texts``: also return the texts of the frames found."""
        while True:
            try:
                return await self._run(lineage, self._find, lineage, search, texts=texts)
            except InterruptedFindError:
                # The cancellation of another caller stopped this one's search.
                continue

    async def get(self, lineage: Lineage, frame_id: int) -> Frame:
        """Return one frame.

        :raises FrameNotFoundError: when there is none with this id.
        """
        return await self._run(lineage, self._get, lineage, frame_id)

    async def scan(
        self, lineage: Lineage, after: int | None, filters: Filters, *, newest: bool, limit: int
    ) -> list[Frame]:
        """Return the next ``limit`` frames after (``newest``: before) the one with id ``after``."""
        call = self._scan
        return await self._run(lineage, call, lineage, after, filters, newest=newest, limit=limit)

    async def with_uri(self, lineage: Lineage, uri: str) -> tuple[tuple[int, ...], bytes]:
        """Return the ids of the frames that have this URI, and the memory's hash at that moment."""
        return await self._run(lineage, self._with_uri, lineage, uri)

    def leave(self) -> None:
        """Release a file that a compaction replaced.

        The next find starts from the search index that the new file has as saved.
        """
        if not self._saver.closing:
            self._worker.start(lambda: self._live.leave(self._engine.written_view))
            self._past_worker.start(self._leave_others)

    def _leave_others(self) -> None:
        for memory in self._others.values():
            memory.leave(self._engine.written_view)

    # Saving the search index.

    def note_put(self, size: int) -> None:
        """Count ``size`` bytes that were put: see :meth:`ProjectionSaver.note_put`."""
        self._saver.note_put(size)

    async def wait_for_room(self, size: int) -> None:
        """Wait for room for ``size`` bytes: see :meth:`ProjectionSaver.wait_for_room`."""
        await self._saver.wait_for_room(size)

    async def finish(self, writer: Writer | None) -> None:
        """Save the search index a last time where that is due, and close the memories."""
        try:
            await self._saver.finish(writer)
        finally:
            self._stop()

    def _stop(self) -> None:
        for worker, memories in (
            (self._worker, [self._live]),
            (self._past_worker, list(self._others.values())),
        ):
            for memory in memories:
                worker.start(memory.close)
            worker.stop()
