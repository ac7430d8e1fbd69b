"""Reading a store's memory: what a store and a view of it have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, Unpack

from attrs import evolve

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..events.frames import Context, Frame, SearchMode
from ..recording.prepare_values import prepare_count, prepare_field, prepare_flag
from .embedder import embed
from .folded import Lineage
from .keywords import FrameFilters
from .prepare_frames import prepare_embedding, prepare_filters, prepare_search
from .recall import Recall, Search, Searched

_PAGE_FRAMES = 100
# More than there can be: an id is below.
_MOST_FRAMES = 2**63

# Returns the memories to read from, once all that was acked before is readable.
FindLineage = Callable[[], Awaitable[Lineage]]


class FrameReader:
    """What a store and a view of it have in common: get, frames and find."""

    def __init__(self, recall: Recall, config: StoreConfig, lineage: FindLineage) -> None:
        self._recall = recall
        self._config = config
        self._lineage = lineage

    @property
    def config(self) -> StoreConfig:
        """The store's configuration, with the embedder that is in use now."""
        return self._config

    async def get(self, frame_id: int) -> Frame:
        """Return a frame.

        :raises FrameNotFoundError: when there is none with this id.
        """
        prepare_count(frame_id, "a frame id")
        return await self._recall.get(await self._lineage(), frame_id)

    async def frames(
        self,
        *,
        newest_first: bool = False,
        after: int | None = None,
        limit: int | None = None,
        **filters: Unpack[FrameFilters],
    ) -> AsyncIterator[Frame]:
        """Yield frames in the order of their ids, oldest or newest first.

        ``after``: only those after this id in that order. ``limit``: at most this many, and no
        more are read. Filters as for :meth:`find`.
        """
        wanted, _ = prepare_filters(filters, self._config.limits)
        if after is not None:
            prepare_count(after, "after")
        left = _MOST_FRAMES if limit is None else prepare_count(limit, "limit")
        lineage = await self._lineage()
        newest = prepare_flag(newest_first, "newest_first")
        while left > 0:
            count = min(left, _PAGE_FRAMES)
            page = await self._recall.scan(lineage, after, wanted, newest=newest, limit=count)
            if not page:
                break
            for frame in page:
                yield frame
            left -= len(page)
            after = page[-1].frame_id

    async def context(
        self,
        question: str,
        *,
        top_k: int = 5,
        mode: SearchMode = "lexical",
        embedding: Iterable[float] | None = None,
        embedding_model: str | None = None,
        syntax: bool = True,
        **filters: Unpack[FrameFilters],
    ) -> Context:
        """Return what :meth:`Store.ask` would pass to its model: the texts of the frames found.

        ``str(context)`` is ready for a prompt. The arguments are those of :meth:`Store.find`.
        Nothing is recorded.

        :raises InvalidValueError, LimitExceededError: as :meth:`Store.find` does.
        """
        searched = await self.searched(
            question, top_k, mode, embedding, embedding_model, filters, syntax=syntax, texts=True
        )
        return searched.context

    async def searched(
        self,
        query: Any,
        top_k: int,
        mode: SearchMode,
        embedding: Any,
        embedding_model: str | None,
        filters: FrameFilters,
        *,
        syntax: bool = True,
        texts: bool = False,
    ) -> Searched:
        """Search the memory, and return the result with what an action records of it.

        ``texts``: also return the texts of the frames found.
        """
        limits = self._config.limits
        text = prepare_search(query, mode, top_k, limits, syntax=syntax)
        _, parameters = prepare_filters(filters, limits)
        if embedding_model is not None:
            embedding_model = prepare_field(
                embedding_model, "embedding_model", "title_chars", limits
            )
        vector = prepare_embedding(embedding, limits)
        search = Search(text, mode, top_k, parameters, vector, embedding_model, syntax)
        if vector is not None or mode == "lexical":
            return await self._recall.find(await self._lineage(), search, texts=texts)
        while True:
            config = self._config
            if config.embedder is None:
                raise InvalidValueError(
                    f"a {mode} search needs an embedding, or StoreConfig(embedder=...)"
                )
            made = prepare_embedding((await embed(config.embedder, [text]))[0], limits)
            model = embedding_model or config.embedding_model
            search = evolve(search, embedding=made, embedding_model=model)
            try:
                return await self._recall.find(await self._lineage(), search, texts=texts)
            except InvalidValueError:
                if config is self._config:
                    raise
                # The memory was moved to another model in the meantime.
