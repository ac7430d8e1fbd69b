"""A store as it was at some moment: its memory and its sessions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Unpack
from uuid import UUID

from ..config import StoreConfig
from ..engine.engine import Engine
from ..engine.event_log import View
from ..events.event import Session, SessionSummary
from ..events.frames import FindResult, SearchMode
from ..memory.folded import Lineage
from ..memory.frame_store import FrameReader
from ..memory.keywords import FrameFilters
from ..memory.past import session_at, state_at
from ..memory.recall import Recall
from .parts import PartMethod


class StoreView:
    """What a store held at one moment, read-only: made by ``await store.at(…)``.

    The memory of that moment is folded when it is first asked for, and kept for the next calls.
    Frames that a compaction erased since are missing, and a :class:`FindResult` counts them.
    """

    def __init__(
        self, sequence: int, lineage: Lineage, recall: Recall, config: StoreConfig, engine: Engine
    ) -> None:
        self._sequence = sequence
        self._lineage = lineage
        self._engine = engine
        self._frames = FrameReader(recall, config, self._place)

    async def _place(self) -> tuple[View, Lineage]:
        return await self._engine.fresh_view(), self._lineage

    @property
    def sequence(self) -> int:
        """The last event that counts."""
        return self._sequence

    get = PartMethod("_frames", FrameReader.get)
    frames = PartMethod("_frames", FrameReader.frames)

    async def find(
        self,
        query: str | None,
        *,
        top_k: int = 10,
        mode: SearchMode = "lexical",
        embedding: Iterable[float] | None = None,
        embedding_model: str | None = None,
        **filters: Unpack[FrameFilters],
    ) -> FindResult:
        """What :meth:`Store.find` gave at that moment: the same ids in the same order, the scores
        within 1e-6. Nothing is recorded.

        :raises InvalidValueError: as :meth:`Store.find` does.
        """
        return (
            await self._frames.searched(query, top_k, mode, embedding, embedding_model, filters)
        ).result

    async def list_sessions(self, *, include_open: bool = False) -> list[SessionSummary]:
        """The sessions that had ended by then, oldest first; with ``include_open`` those that were
        open too. Reads the log up to that moment. Sessions erased since are missing."""
        state = await self._engine.read(state_at, self._sequence)
        sessions = sorted(state.sessions.items())
        return [s.summary() for _, s in sessions if include_open or s.ended_ns is not None]

    async def get_session(self, session_id: UUID) -> Session:
        """A session as far as it was recorded by then, whether it was deleted since or not.

        :raises SessionNotFoundError: when there was none with this id, or it was erased since.
        """
        return await self._engine.read(session_at, session_id, self._sequence)
