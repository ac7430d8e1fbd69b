"""The file that a compaction writes, until it replaces the old one.

Its name holds the id of the file that it will replace. A file that a killed compaction left is
recognised by that name, by the same id in its header, and because nobody holds its lock. Other
files of that name are not touched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from attrs import evolve

from ..core.reports import CompactReport
from ..errors import (
    CorruptFileError,
    MemvidAsyncError,
    NotAStoreError,
    NotCompactedError,
    StoreFailedError,
    StoreLockedError,
    UnsupportedVersionError,
)
from ..format.header import LOG_START, MOST_GENERATIONS, decode_header, is_unfinished
from ..storage import Storage
from .compact import Compactor, FoldWhole
from .log_file import LogFile

# Where something else has the first name, the next one is taken.
_NAMES = 4
# Without the lock, the copy catches up until at most this many bytes are new, in this many rounds.
_REST_BYTES = 64 * 1024
_ROUNDS = 8


class Successor:
    """A new file with what is left of another one. Made by :meth:`create`.

    :meth:`copy` needs no lock, and may run in a thread of its own while others append to the old
    file. A call that fails discards the new file. ``file``: the new file.
    """

    def __init__(self, source: LogFile, target: LogFile, now: int) -> None:
        self.file = target
        # None once it is installed or discarded: then the old file may be closed.
        self._compactor: Compactor | None = Compactor(source.view, target, now)
        self._abandoned = False
        # Held by each call: discarding waits for the one that is under way.
        self._turn = threading.RLock()

    @classmethod
    def create(cls, source: LogFile, lock_timeout: float, now: int) -> Successor:
        """Create the file beside ``source``, whose lock is held.

        ``now``: the time, in nanoseconds since the Unix epoch; what has expired by then goes.

        :raises NotCompactedError: when it cannot be created.
        """
        header = evolve(source.header, generation=source.header.generation + 1)
        if header.generation > MOST_GENERATIONS:
            raise NotCompactedError("no file can be compacted that often")
        with _refusals():
            discard_left(source.storage, header.file_id)
            storage = _create(source.storage, header.file_id)
            try:
                storage.lock(lock_timeout)
                target = LogFile.create(storage, header)
                # From here on the header says which file it was to replace, even after a power cut.
                storage.sync()
                return cls(source, target, now)
            except BaseException:
                _remove(storage)
                raise

    def copy(self, progress: Callable[[int, int], None], fold: FoldWhole) -> None:
        """Copy what is left as of :meth:`create`, with the projections that ``fold`` makes of it,
        and nearly all that was appended since.

        ``progress`` is called with the bytes done and the bytes there were.

        :raises CorruptFileError: when the old file is damaged.
        :raises NotCompactedError: when the new file cannot be written, or was abandoned.
        """

        def tell(done: int, total: int) -> None:
            if self._abandoned:
                raise NotCompactedError("the store was closed, or the call cancelled")
            progress(done, total)

        with self._under_way() as compactor:
            compactor.copy(tell)
            _catch_up(compactor)
            compactor.save(fold)
            _catch_up(compactor)
            self.file.write_out()

    def install(self, source: LogFile) -> CompactReport | None:
        """Copy the rest, and rename the new file over the old one; ``source`` is that one as it is
        now, and its lock is held.

        The new name is durable after :meth:`~..storage.Storage.sync_directory`. Returns None when
        the copy cannot be used, because another compaction came first, or because it lacks
        something that was used again since; then the old file is as it was.

        :raises CorruptFileError, NotCompactedError: as :meth:`copy` does; the old file is as it
            was.
        """
        with self._under_way() as compactor:
            target = self.file
            if source.view.edition is compactor.source.edition:
                compactor.catch_up(source.view.end)
            if not compactor.is_copy_of(source):
                self.discard()
                return None
            target.write_out()
            target.storage.install()
            self._compactor = None
            before, after = source.view.end, target.view.end
            return CompactReport(before, after, compactor.erased, target.header.generation)

    @contextmanager
    def _under_way(self) -> Iterator[Compactor]:
        with self._turn:
            if self._compactor is None:
                raise NotCompactedError("the compaction was abandoned")
            try:
                with _refusals():
                    yield self._compactor
            except BaseException:
                self.discard()
                raise

    def abandon(self) -> None:
        """Let :meth:`copy` end early. May be called from any thread."""
        self._abandoned = True

    def discard(self) -> None:
        """Remove the new file, unless it was installed, once no other call is under way."""
        with self._turn:
            if self._compactor is not None:
                self._compactor = None
                _remove(self.file.storage)


def _catch_up(compactor: Compactor) -> None:
    """Copy what was appended by now, and what is appended meanwhile, until that is little."""
    for _ in range(_ROUNDS):
        before = compactor.position
        compactor.catch_up(compactor.source.reader.storage.size())
        if compactor.position - before <= _REST_BYTES:
            return


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise :class:`NotCompactedError` in place of other errors than those that say why a file is
    not compacted."""
    try:
        yield
    except (CorruptFileError, NotCompactedError):
        raise
    except Exception as error:
        why = str(error) if isinstance(error, MemvidAsyncError) else repr(error)
        raise NotCompactedError(
            f"the file could not be compacted, and is as it was: {why}"
        ) from error


def _remove(storage: Storage) -> None:
    with suppress(StoreFailedError):
        storage.remove()
    storage.close()


def _create(storage: Storage, file_id: UUID) -> Storage:
    for suffix in _suffixes(file_id):
        created = storage.create_beside(suffix)
        if created is not None:
            return created
    raise StoreFailedError(f"others have the names of the new file (…{file_id.hex}.compact)")


def discard_left(storage: Storage, file_id: UUID) -> None:
    """Remove what killed compactions of a file left beside it, if anything; its lock is held.

    A compaction that is under way holds the lock of its new file.
    """
    for suffix in _suffixes(file_id):
        found = storage.open_beside(suffix)
        if found is None:
            continue
        # A file that cannot be removed does no harm: a compaction uses another name.
        with suppress(StoreFailedError, StoreLockedError):
            found.lock(0)
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
