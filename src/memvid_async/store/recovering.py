"""Recovering a damaged file, in a thread."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InvalidValueError
from ..file.recover import RecoverReport, recover_file
from ..file.wreck import Progress
from ..stream.address import is_address
from .long_work import run_telling


def _path(value: str | os.PathLike[str]) -> Path:
    if is_address(value):
        raise InvalidValueError(
            "recover() is for files; copy_store() copies a store on a stream to one"
        )
    try:
        return Path(os.fspath(value)).absolute()
    except TypeError:
        raise InvalidValueError(f"a path must be a str or a path, not {value!r:.80}") from None


async def recover(
    damaged: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> RecoverReport:
    """Write a new file at ``out`` with everything of ``damaged`` that can still be proven good.

    Events keep their sequences, times and sessions. Lost ones are delivered as :class:`Erased`. A
    session whose start was lost gets a new one, whose metadata says so. An open session that lost
    something is ended. The new file has an id of its own, and ``damaged`` is only read.
    ``progress`` is called on the loop with the bytes done and the bytes in all, each counted once
    per pass. A recovery that is cancelled leaves no file.

    :raises InvalidValueError: when ``out`` exists, or one of them is a stream.
    :raises NotAStoreError: when nothing of a store is left in the file.
    :raises StoreNotFoundError: when there is no file ``damaged``, or no directory for ``out``.
    :raises UnsupportedVersionError: when another version of the format is in the file.
    :raises StoreReadOnlyError: when ``out`` may not be written.
    :raises StoreFailedError: when the system refuses to read or write.
    """
    return await run_telling("recovery", progress, recover_file, _path(damaged), _path(out))
