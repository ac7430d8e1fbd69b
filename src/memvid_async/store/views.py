"""A store as it was at one moment: its memory and its sessions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack
from uuid import UUID

from ..config import StoreConfig
from ..engine.engine import Engine
from ..engine.reading import list_sessions
from ..events.event import Session, SessionSummary
from ..events.frames import FindResult, SearchMode
from ..memory.collection_reader import CollectionReader
from ..memory.folded import Lineage
from ..memory.frame_reader import FrameReader
from ..memory.key_recall import KeyRecall
from ..memory.keywords import FrameFilters
from ..memory.past import session_at, state_at
from ..memory.recall import Recall
from ..recording.prepare_values import prepare_listing, prepare_session_id
from .parts import PartMethod


class StoreView:
    """A store as it was at one moment, read-only. Made by ``await store.at(…)``.

    The memory of that moment is folded for the first call that needs it, and kept for later ones.
    Frames that a compaction erased since are missing, and a :class:`FindResult` counts them.
    """

    def __init__(
        self,
        sequence: int,
        lineage: Lineage,
        recall: Recall,
        keys: KeyRecall,
        config: StoreConfig,
        engine: Engine,
    ) -> None:
        self._sequence = sequence
        self._lineage = lineage
        self._engine = engine
        self._keys = keys
        self._config = config
        self._frames = FrameReader(recall, config, self._fresh_lineage)

    async def _fresh_lineage(self) -> Lineage:
        # A follower may have to take in what the moment is in, or that a compaction came after it.
        await self._engine.fresh_view()
        return self._lineage

    def __repr__(self) -> str:
        return f"<StoreView of the moment after event {self._sequence:,}>"

    @property
    def sequence(self) -> int:
        """The sequence of the last event before this moment."""
        return self._sequence

    get = PartMethod("_frames", FrameReader.get)
    frames = PartMethod("_frames", FrameReader.frames)
    context = PartMethod("_frames", FrameReader.context)

    async def find(
        self,
        query: str | None,
        *,
        top_k: int = 10,
        mode: SearchMode = "lexical",
        embedding: Iterable[float] | None = None,
        embedding_model: str | None = None,
        syntax: bool = True,
        **filters: Unpack[FrameFilters],
    ) -> FindResult:
        """Find what :meth:`Store.find` found at that moment: the same ids in the same order.

        The scores are equal to 1e-6. Nothing is recorded.

        :raises InvalidValueError: as :meth:`Store.find` does.
        """
        searched = await self._frames.searched(
            query, top_k, mode, embedding, embedding_model, filters, syntax=syntax
        )
        return searched.result

    def collection(self, name: str) -> CollectionReader:
        """Return a collection as it was at that moment. What a compaction dropped since is missing.

        :raises InvalidValueError, LimitExceededError: when it is not a name.
        """
        return CollectionReader(name, self._engine, self._keys, self._config, self._sequence)

    async def list_sessions(
        self,
        *,
        include_open: bool = False,
        newest_first: bool = False,
        after: UUID | str | None = None,
        limit: int | None = None,
        name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[SessionSummary]:
        """List the sessions that had ended by then, as :meth:`Store.list_sessions` does.
        Sessions that were erased since
        are missing. This reads the log up to that moment.
        """
        options = prepare_listing(
            include_open=include_open,
            newest_first=newest_first,
            after=after,
            limit=limit,
            name=name,
            metadata=metadata,
        )
        state = await self._engine.read(state_at, self._sequence)
        return await self._engine.reads.run(lambda: list_sessions(state, **options))

    async def get_session(self, session_id: UUID | str) -> Session:
        """Return a session as far as it was recorded by then, also if it was deleted since.

        :raises SessionNotFoundError: when there was none with this id, or it was erased since.
        """
        return await self._engine.read(session_at, prepare_session_id(session_id), self._sequence)
