"""The handle of a session, with the store's memory as the session sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..core.commands import ResumeSession, StartSession
from ..engine.engine import Engine
from ..errors import SessionEndedError
from ..recording.command_intake import CommandIntake
from ..recording.session_recorder import SessionRecorder
from .frame_store import FrameStore
from .memory_methods import MemoryMethods

R = TypeVar("R")


class StoreSession(SessionRecorder, MemoryMethods):
    """The handle of one open session: ``async with store.session(…) as session``.

    Inside the block, ``store.record_…()`` records into this session, too: in the same task and in
    tasks that it starts. Leaving the block ends the session, cancelled or not; leaving it by an
    exception keeps the error in ``Session.error``. The block may be left in another task than the
    one that entered it.

    Its memory is the store's, or the fork's own. What is done with it through the handle is
    recorded in this session, whichever is in force.
    """

    def __init__(
        self,
        engine: Engine,
        memory: FrameStore,
        intake: CommandIntake,
        command: StartSession | ResumeSession,
        large_metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(intake, command, large_metadata)
        self._engine = engine
        self._frames = memory

    @property
    def _memory(self) -> FrameStore:
        """The store's memory.

        :raises SessionEndedError: when the session takes no more actions.
        """
        session = self._engine.view.state.sessions.open.get(self._made.session)
        if session is None or session.is_full:
            raise SessionEndedError(self.session_id)
        return self._frames

    async def _read_log(self, function: Callable[..., R], *args: Any) -> R:
        return await self._engine.read(function, *args)


def memory_of(session: StoreSession) -> FrameStore:
    """Return the memory of a session's handle, as its calls use it."""
    return session._memory  # noqa: SLF001 - no part of what users of a session see
