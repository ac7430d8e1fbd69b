"""The ``record_…`` methods of a store, which record where a session is in force."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path

import anyio

from ..core.commands import SessionChoice
from ..errors import UnrecordedWarning
from ..events.event import Action
from .action_recorder import ActionRecorder

# Files that have no code of a caller: this library, and those that await coroutines for others.
_PASSED_OVER = tuple(
    f"{Path(file).parent}{os.sep}"
    for file in (str(Path(__file__).parent), asyncio.__file__, anyio.__file__)
)


class StoreRecorder(ActionRecorder[Action | None]):
    """The ``record_…`` methods of a store.

    They record into the session in force. Without one they warn (:class:`UnrecordedWarning`) and
    return None.
    """

    def _choice(self) -> SessionChoice:
        return self._intake.blocks.entered

    def _answer(self, action: Action | None) -> Action | None:
        if action is None:
            warn_unrecorded(
                "nothing was recorded, as no session is in force: use an `async with "
                "store.session()` block, start_session(), or RecordingConfig(auto_record=True)"
            )
        return action

    async def create_checkpoint(self) -> int:
        """Mark a checkpoint in the session in force; its id, counted from 0 in the session.

        :raises NoActiveSessionError: when no session is in force.
        """
        return await self._intake.checkpoint(self._choice())


def warn_unrecorded(message: str) -> None:
    """Warn that something is not recorded, at the caller's line. Python shows it once a line.

    A coroutine knows who awaits it and not who made it. If it is a task of its own, the line is the
    one that runs the event loop.
    """
    frame, level = sys._getframe(1), 2  # noqa: SLF001 - as `warnings` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_OVER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UnrecordedWarning, stacklevel=level)
