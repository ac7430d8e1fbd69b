"""Copying a store, file or stream, to another place, in a thread."""

from __future__ import annotations

import os
from contextlib import ExitStack

from ..config import StoreConfig
from ..errors import InvalidValueError
from ..file.byte_copy import (
    CopyReport,
    CopyTarget,
    FileTarget,
    Progress,
    check_copy,
    copy_log,
    header_of,
)
from ..file.file_view import FileView
from ..file.journal import Journal
from ..stream.client_loop import ClientLoops
from ..stream.stream_journal import StreamJournal
from ..stream.stream_target import StreamTarget
from .long_work import run_telling
from .opening import Place, place_of


async def copy_store(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    config: StoreConfig | None = None,
    progress: Progress | None = None,
) -> CopyReport:
    """Copy a store, event for event: from a file to a stream, back, or from one of them to another.

    The target's log has the same bytes as the source's, so sequences, ids, checkpoints, the saved
    state and the saved search index are the same. What the source holds when this begins is copied;
    others may record in it meanwhile. At every moment the target is a store that holds the first
    events of the source. So a copy that was killed or cancelled is continued by the same call, and
    so is one whose source has grown since. What is in the target is compared with the source byte
    for byte: what was there before anything is appended, and the rest after it.

    ``config``: how both are opened, such as ``replicas`` of a new stream. ``progress`` is called on
    the loop with the bytes done and the bytes in all, of the copying and then of the comparing.

    :raises StoreNotFoundError: when there is no source.
    :raises InvalidValueError: when the target holds something else, or more than the source.
    :raises CorruptFileError: when the source is damaged; the target ends before the damage.
    :raises MemvidAsyncError: as :func:`open_store` says, for either of them.
    """
    if config is not None and not isinstance(config, StoreConfig):
        raise InvalidValueError("config must be a StoreConfig")
    places = place_of(source), place_of(target)
    return await run_telling("copying", progress, _copy, *places, config or StoreConfig())


def _copy(
    source: Place, target: Place, config: StoreConfig, loops: ClientLoops, tell: Progress
) -> CopyReport:
    with ExitStack() as held:
        found = _look(source, config, loops, held)
        with ExitStack() as extending:
            extended = _open_target(target, config, loops, found)
            extending.callback(extended.release)
            copied = copy_log(found, extended, tell)
        if copied:
            # Opened a second time: what the disk or the servers have is compared.
            check_copy(found, _look(target, config, loops, held), found.end - copied, tell)
        return CopyReport(found.state.last_sequence, found.end, copied)


def _look(place: Place, config: StoreConfig, loops: ClientLoops, held: ExitStack) -> FileView:
    """Return what is there now; it is closed with ``held``."""
    path, address = place
    journal: Journal | StreamJournal
    if address is None:
        journal = Journal.open_path(path, config, read_only=True)
    else:
        journal = StreamJournal.open(address, config, read_only=True, loop=loops.new())
    held.callback(journal.release)
    return journal.view


def _open_target(
    place: Place, config: StoreConfig, loops: ClientLoops, source: FileView
) -> CopyTarget:
    path, address = place
    if address is None:
        return FileTarget.open(path, config, header_of(source))
    return StreamTarget.open(address, config, header_of(source), loops.new())
