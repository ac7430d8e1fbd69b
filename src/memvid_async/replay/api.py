"""What a store offers to do with its recordings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar
from uuid import UUID

from anyio import to_thread

from ..prepare import prepare_session_id
from .compare import (
    ChangedAction,
    Comparison,
    build_comparison,
    find_differences,
    is_equal_pair,
    match,
    read_side,
)

T = TypeVar("T")


class Source(Protocol):
    """What replaying needs of a store."""

    async def _read(self, call: Callable[..., T], *args: Any) -> T:
        """Make a call in the reading thread, with a reader and a view before its arguments."""
        ...


class Replays:
    """What a store offers to do with its recordings."""

    async def compare(self: Source, session_a: UUID, session_b: UUID) -> Comparison:
        """Align two sessions by what they did, and say where and how they differ.

        Compared are the kind, the details, input, output, messages, metadata, task, error and a
        checkpoint's state; not compared is when and where it was recorded. `docs/replay.md` has
        the list.

        :raises SessionNotFoundError: when there is no such session.
        :raises CorruptFileError: when one cannot be read.
        """
        a = await self._read(read_side, prepare_session_id(session_a))
        b = await self._read(read_side, prepare_session_id(session_b))
        pairs = await to_thread.run_sync(match, a, b)
        changed = []
        for i, j in pairs:
            if not is_equal_pair(a, i, b, j):
                differences = await self._read(find_differences, a, i, b, j)
                actions = a.recording.actions[i], b.recording.actions[j]
                changed.append(ChangedAction(*actions, differences))
        return build_comparison(a, b, pairs, changed)
