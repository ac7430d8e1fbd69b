"""Copying a log as it is: the target's bytes are the source's, so that every event, offset, TOC and
checksum is the same in both.

At each moment the target is a store with a prefix of the source's log. So a copy that was killed is
continued where the target ends, and a log that grew is copied further.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from attrs import frozen

from ..config import StoreConfig
from ..errors import CorruptFileError, InvalidValueError, StoreFailedError
from ..format.header import (
    LOG_START,
    SLOT_OFFSETS,
    Header,
    Slot,
    decode_header,
    is_unfinished,
    next_slot_offset,
)
from ..format.segment import SegmentKind, scan
from ..storage import FileStorage, Storage
from ..storage.current import lock_current
from .file_view import FileView
from .log_file import LogFile

# About how many bytes are appended at once, and compared at once.
_STEP_BYTES = 256 * 1024
# A file is synced about once in this many bytes, and a slot then says how far.
_SYNC_BYTES = 4 * 1024 * 1024

Progress = Callable[[int, int], None]


@frozen
class CopyReport:
    """What :func:`copy_store` did."""

    event_count: int
    """Events in the target, erased ones included."""
    byte_count: int
    """The length of its log, in bytes."""
    copied_bytes: int
    """How many of them this call appended; the others were there and are the source's."""


class CopyTarget(Protocol):
    """A log that is extended by bytes of another one, which it is a prefix of."""

    @property
    def view(self) -> FileView:
        """The log as far as it is durable."""

    def extend(self, data: bytes, toc: tuple[int, int] | None) -> None:
        """Append whole segments.

        ``toc``: the offset of the last TOC among them, and the sequence of the last event folded
        into it.

        :raises StoreFailedError: when they cannot be appended, or somebody else has.
        """

    def finish(self) -> None:
        """Make what :meth:`extend` appended durable, and quick to open."""

    def release(self) -> None:
        """Close it, without appending anything."""


class FileTarget:
    """A file that is extended. It holds the file's lock. Made by :meth:`open`."""

    def __init__(self, storage: Storage, file: LogFile) -> None:
        self._storage = storage
        self._file = file
        self._synced = file.view.end
        # The last TOC that no slot names yet.
        self._toc: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: Path, config: StoreConfig, header: Header) -> FileTarget:
        """Open the file; one that is not there is created with this header.

        :raises MemvidAsyncError: as :func:`memvid_async.open_store` says.
        """
        storage: Storage = FileStorage.open(path)
        try:
            storage = lock_current(storage, config.lock_timeout)
            if is_unfinished(storage.read(0, LOG_START), storage.size()):
                LogFile.create(storage, header)
            return cls(storage, LogFile.load(storage, read_only=False))
        except BaseException:
            storage.close()
            raise

    @property
    def view(self) -> FileView:
        """See :class:`CopyTarget`, for this and the others."""
        return self._file.view

    def extend(self, data: bytes, toc: tuple[int, int] | None) -> None:
        """Append whole segments."""
        file = self._file
        end = file.view.end + len(data)
        self._storage.write(file.view.end, data)
        file.catch_up(None)
        if file.view.end != end:
            raise StoreFailedError("what was appended to the file is not what it holds")
        self._toc = toc or self._toc
        if end - self._synced >= _SYNC_BYTES:
            self._sync()

    def _sync(self) -> None:
        """Make the log durable, and the slot before; then write the slot of the last TOC."""
        storage, end, salt = self._storage, self._file.view.end, self._file.header.salt
        storage.sync()
        if self._toc is not None:
            at = next_slot_offset(storage.read(0, LOG_START), salt)
            storage.write(at, Slot(end, *self._toc).encode(salt))
        self._synced, self._toc = end, None

    def finish(self) -> None:
        """Make it durable, and let the slots say so."""
        self._sync()
        # The next slot must not be torn together with the last one.
        self._storage.sync()
        if not self._file.is_tidy:
            self._file.tidy(with_toc=False)

    def release(self) -> None:
        """Close the file, and with that release its lock."""
        self._storage.close()


def copy_log(source: FileView, target: CopyTarget, progress: Progress) -> int:
    """Extend the target to all of the source; return how many bytes were appended.

    What the target has is compared first. ``progress`` is called with the bytes done, and with how
    many the source has.

    :raises InvalidValueError: when the target is not a prefix of the source.
    :raises CorruptFileError: when the source is damaged.
    """
    begun = target.view.end
    if begun > source.end or not _same_header(source, target.view):
        raise InvalidValueError(
            "the target holds something else than a part of the source: name one that is not there"
        )
    for at in _compared(source, target.view, LOG_START, begun):
        progress(at, source.end)
    for data, toc in _pieces(source, begun):
        target.extend(data, toc)
        progress(target.view.end, source.end)
    target.finish()
    return source.end - begun


def check_copy(source: FileView, target: FileView, begun: int, progress: Progress) -> None:
    """Compare the logs from the offset ``begun`` up to the source's end.

    :raises StoreFailedError: when they differ.
    """
    try:
        for at in _compared(source, target, begun, source.end):
            progress(at, source.end)
    except InvalidValueError as error:
        raise StoreFailedError(f"what was copied is not there: {error}") from None


def header_of(view: FileView) -> Header:
    """Return the header of the log that a view shows."""
    return decode_header(view.reader.storage.read(0, LOG_START))


def _same_header(source: FileView, target: FileView) -> bool:
    # What follows are the slots, which differ.
    starts = [view.reader.storage.read(0, SLOT_OFFSETS[0]) for view in (source, target)]
    return starts[0] == starts[1]


def _compared(source: FileView, target: FileView, at: int, end: int) -> Iterator[int]:
    """Compare the logs piece by piece, and yield how far they are known to be the same."""
    while at < end:
        length = min(_STEP_BYTES, end - at)
        theirs = source.reader.storage.read(at, length)
        if len(theirs) < length or theirs != target.reader.storage.read(at, length):
            raise InvalidValueError(
                f"the target differs from the source, somewhere after byte {at}: name one that is "
                "not there"
            )
        at += length
        yield at


def _pieces(source: FileView, start: int) -> Iterator[tuple[bytes, tuple[int, int] | None]]:
    """Yield the source's segments from an offset on, about ``_STEP_BYTES`` together, and the last
    TOC among these."""
    read, at, end = source.reader.storage.read, start, start
    toc: tuple[int, int] | None = None
    for segment in scan(read, start, source.end, None, source.reader.salt):
        end = segment.end
        if segment.kind == SegmentKind.TOC:
            toc = segment.offset, segment.sequence - 1
        if end - at >= _STEP_BYTES:
            yield read(at, end - at), toc
            at, toc = end, None
    if end > at:
        yield read(at, end - at), toc
    if end < source.end:
        raise CorruptFileError(
            end, "there is no valid segment in the source; recover() saves what is left of a file"
        )
