"""The file that a compaction writes, until it replaces the old one.

Its name holds the id of the file that it will replace. A file that a killed compaction left is
recognised by that name and by the same id in its header. Other files of that name are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from uuid import UUID

from attrs import evolve

from ..core.reports import CompactReport
from ..errors import (
    CorruptFileError,
    MemvidAsyncError,
    NotAStoreError,
    NotCompactedError,
    StoreFailedError,
    UnsupportedVersionError,
)
from ..format.header import LOG_START, MOST_GENERATIONS, decode_header, is_unfinished
from ..storage import Storage
from .compact import FoldWhole, compact_into
from .log_file import LogFile

# Where something else has the first name, the next one is taken.
_NAMES = 4


def write_successor(
    source: LogFile,
    lock_timeout: float,
    now: int,
    progress: Callable[[int, int], None],
    fold: FoldWhole,
) -> tuple[LogFile, CompactReport]:
    """Compact a file whose lock is held, and rename the new file over it.

    ``now``: the time, in nanoseconds since the Unix epoch; what has expired by then goes. The new
    name is durable after :meth:`~..storage.Storage.sync_directory`. When this fails, the
    file is as it was.

    :raises CorruptFileError: when the file is damaged.
    :raises NotCompactedError: when the new file cannot be written or installed.
    """
    try:
        return _write(source, lock_timeout, now, progress, fold)
    except (CorruptFileError, NotCompactedError):
        raise
    except Exception as error:
        why = str(error) if isinstance(error, MemvidAsyncError) else repr(error)
        raise NotCompactedError(
            f"the file could not be compacted, and is as it was: {why}"
        ) from error


def _write(
    source: LogFile,
    lock_timeout: float,
    now: int,
    progress: Callable[[int, int], None],
    fold: FoldWhole,
) -> tuple[LogFile, CompactReport]:
    header = evolve(source.header, generation=source.header.generation + 1)
    if header.generation > MOST_GENERATIONS:
        raise NotCompactedError("no file can be compacted that often")
    storage = _create(source.storage, header.file_id)
    try:
        storage.lock(lock_timeout)
        target = LogFile.create(storage, header)
        # From here on the header says which file it was to replace, even after a power cut.
        storage.sync()
        report = compact_into(target, source, now, progress, fold)
        storage.install()
    except BaseException:
        with suppress(StoreFailedError):
            storage.remove()
        storage.close()
        raise
    return target, report


def _create(storage: Storage, file_id: UUID) -> Storage:
    for suffix in _suffixes(file_id):
        created = storage.create_beside(suffix)
        if created is not None:
            return created
    raise StoreFailedError(f"others have the names of the new file (…{file_id.hex}.compact)")


def discard_left(storage: Storage, file_id: UUID) -> None:
    """Remove what killed compactions of a file left beside it, if anything; its lock is held."""
    for suffix in _suffixes(file_id):
        found = storage.open_beside(suffix)
        if found is None:
            continue
        # A file that cannot be removed does no harm: a compaction uses another name.
        with suppress(StoreFailedError):
            if _is_left_by(found, file_id):
                found.remove()
        found.close()


def _suffixes(file_id: UUID) -> Iterator[str]:
    yield f".{file_id.hex}.compact"
    yield from (f".{file_id.hex}.{at}.compact" for at in range(1, _NAMES))


def _is_left_by(found: Storage, file_id: UUID) -> bool:
    start = found.read(0, LOG_START)
    if is_unfinished(start, found.size()):
        return True
    try:
        return decode_header(start).file_id == file_id
    except (NotAStoreError, UnsupportedVersionError, CorruptFileError):
        return False
