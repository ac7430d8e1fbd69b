"""Reading a store's memory: what a store and a view of it have in common."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Unpack

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..events.frames import Frame, SearchMode
from ..recording.prepare_values import prepare_count, prepare_flag, prepare_text
from .embedder import embed
from .folded import Lineage
from .keywords import FrameFilters
from .prepare_frames import prepare_embedding, prepare_filters, prepare_search
from .recall import Recall, Search, Searched

# Returns the memories to read from, once all that was acked before is readable.
FindLineage = Callable[[], Awaitable[Lineage]]


class FrameReader:
    """What a store and a view of it have in common: get, frames and find."""

    def __init__(self, recall: Recall, config: StoreConfig, lineage: FindLineage) -> None:
        self._recall = recall
        self._config = config
        self._lineage = lineage

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
        **filters: Unpack[FrameFilters],
    ) -> AsyncIterator[Frame]:
        """Yield all frames in the order of their ids, oldest or newest first.

        ``after``: only those after this id in that order. Filters as for :meth:`find`.
        """
        wanted, _ = prepare_filters(filters, self._config.limits)
        if after is not None:
            prepare_count(after, "after")
        lineage = await self._lineage()
        newest = prepare_flag(newest_first, "newest_first")
        while page := await self._recall.scan(lineage, after, wanted, newest=newest):
            for frame in page:
                yield frame
            after = page[-1].frame_id

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
            prepare_text(embedding_model, "embedding_model", "title_chars", limits.title_chars)
        vector = prepare_embedding(embedding, limits)
        if vector is None and mode != "lexical" and self._config.embedder is not None:
            vector = prepare_embedding((await embed(self._config, [text]))[0], limits)
            embedding_model = embedding_model or self._config.embedding_model
        if vector is None and mode != "lexical":
            raise InvalidValueError(
                f"a {mode} search needs an embedding, or StoreConfig(embedder=...)"
            )
        search = Search(text, mode, top_k, parameters, vector, embedding_model, syntax)
        return await self._recall.find(await self._lineage(), search, texts=texts)
