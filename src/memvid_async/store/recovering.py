"""Recovering a damaged store, in a thread."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from attrs import evolve

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..file.recover import RecoverReport, check_new, recover_file, recover_to
from ..file.wreck import Progress
from ..stream.client_loop import ClientLoops
from ..stream.stream_image import StreamImage
from .long_work import run_telling
from .opening import Place, place_of


async def recover(
    damaged: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: StoreConfig | None = None,
    progress: Progress | None = None,
) -> RecoverReport:
    """Write a new file at ``out`` with everything of ``damaged`` that can still be proven good.

    Events keep their sequences, times and sessions. Lost ones are delivered as :class:`Erased`. A
    session whose start was lost gets a new one, whose metadata says so. An open session that lost
    something is ended. The new file has an id of its own, and ``damaged`` is only read.
    ``progress`` is called on the loop with the bytes done and the bytes in all, each counted once
    per pass. A recovery that is cancelled leaves no file.

    ``damaged`` may be the address of a store on a stream; its messages are read first, and counted
    for ``progress``. ``config``: how the servers are reached. :func:`copy_store` brings the new
    file to a stream again.

    :raises InvalidValueError: when ``out`` exists, or is a stream.
    :raises NotAStoreError: when nothing of a store is left in the file or stream.
    :raises StoreNotFoundError: when there is no ``damaged``, or no directory for ``out``.
    :raises UnsupportedVersionError: when another version of the format is in the file.
    :raises StoreReadOnlyError: when ``out`` may not be written.
    :raises StoreFailedError: when the system or a server refuses, or no server answers.
    """
    if config is not None and not isinstance(config, StoreConfig):
        raise InvalidValueError("config must be a StoreConfig")
    target, address = place_of(out)
    if address is not None:
        raise InvalidValueError(
            "recover() writes a new file; copy_store() brings that to a stream again"
        )
    return await run_telling(
        "recovery", progress, _recover, place_of(damaged), target, config or StoreConfig()
    )


def _recover(
    damaged: Place, out: Path, config: StoreConfig, loops: ClientLoops, tell: Progress
) -> RecoverReport:
    path, address = damaged
    if address is None:
        return recover_file(path, out, tell)
    check_new(out)
    with closing(StreamImage.of_store(address, config, loops.new(), tell)) as image:
        report = recover_to(image, out, tell)
        complete = report.complete and not image.ends_in_loss
        return evolve(report, complete=complete, lost_messages=image.lost)
