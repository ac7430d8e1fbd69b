"""The warning of a recording that found no session, at the line of whoever asked for it."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from pathlib import Path

import anyio

from ..errors import UnrecordedWarning

# No code of a caller: this library, and those that await a coroutine in the place of who made it.
_PASSED_OVER = tuple(
    f"{Path(file).parent}{os.sep}"
    for file in (str(Path(__file__).parent), asyncio.__file__, anyio.__file__)
)


def warn_unrecorded() -> None:
    """Warn that nothing was recorded: by Python's default, once for each line that asked for it.

    A coroutine knows who awaits it, and not who made it: of one that is a task of its own, that is
    whoever runs the event loop.
    """
    frame, level = sys._getframe(1), 2  # noqa: SLF001 - as `warnings` itself does
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_OVER):
        frame, level = frame.f_back, level + 1
    warnings.warn(
        "nothing was recorded, as no session is in force: use an `async with store.session()` "
        "block, start_session(), or RecordingConfig(auto_record=True)",
        UnrecordedWarning,
        stacklevel=level,
    )
