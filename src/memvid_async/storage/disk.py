"""A store file on a local file system of Linux or macOS."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
import time
import weakref
from contextlib import suppress
from pathlib import Path

from ..errors import (
    NotAStoreError,
    StoreFailedError,
    StoreLockedError,
    StoreNotFoundError,
    StoreReadOnlyError,
)
from .attributes import copy_attributes
from .beside import beside
from .notices import Watch, watch

_READ_ONLY_ERRNOS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY}
_LOCK_PAUSES = (0.0005, 0.001, 0.002)
# The flags with which a directory is opened: to open files in it, or also to sync it.
_LOOKING = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_SYNCABLE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Opening a pipe must not wait until its other end is opened.
_OPENING = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class _Mapped:
    """Turn the operating system's errors into :class:`StoreFailedError`, in this one place.

    A class, because it surrounds every call: a generator would take three times as long.
    """

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        # Python raises ValueError for a descriptor that is closed.
        if isinstance(error, (OSError, ValueError)):
            raise StoreFailedError(f"{self._doing} failed: {error}") from error


class _Opening:
    """Turn the errors of opening a path into the library's own."""

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self._path = path
        self._read_only = read_only

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        path = self._path
        if not isinstance(error, OSError):
            return
        if isinstance(error, FileNotFoundError):
            missing = f"file {path}" if path.parent.is_dir() else f"directory {path.parent}"
            raise StoreNotFoundError(f"there is no {missing}") from None
        if isinstance(error, (NotADirectoryError, IsADirectoryError)):
            raise NotAStoreError(f"{path} is a directory, or runs through a file") from None
        if error.errno == errno.ELOOP:
            raise NotAStoreError(f"{path} is a symbolic link; name the file itself") from None
        if error.errno == errno.ENXIO:
            raise NotAStoreError(f"{path} is not a regular file") from None
        if error.errno in _READ_ONLY_ERRNOS and not self._read_only:
            raise StoreReadOnlyError(f"{path} cannot be written: {error.strerror}") from error
        raise StoreFailedError(f"{path} cannot be opened: {error}") from error


# For the calls of every batch; rare calls make their own.
_READING = _Mapped("reading")
_WRITING = _Mapped("writing")
_SYNCING = _Mapped("syncing to the disk")
_UNLOCKING = _Mapped("unlocking")


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        # fsync there does not reach the medium (Apple's fsync(2) page).
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(descriptor)


def _forget(descriptor: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError):
            # Drops the pages that count as written; the others stay in the cache for the next sync.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


# A forked child shares the open file and its lock, so the lock would outlive the parent.
_OPEN: weakref.WeakSet[FileStorage] = weakref.WeakSet()


def _close_in_child() -> None:
    for storage in list(_OPEN):
        # Unlocking would take the lock from the parent too; closing drops only the child's share.
        storage._locked = False  # noqa: SLF001 - the class's own hook
        storage._watch = None  # noqa: SLF001 - the child has closed the notices it belongs to
        storage.close()


os.register_at_fork(after_in_child=_close_in_child)


class FileStorage:
    """An open file, as :class:`~.protocol.Storage` describes it.

    The lock is ``flock``, which belongs to the open file: the system releases it when the process
    dies, and closing another descriptor of the file does not drop it, as it would with ``lockf``.

    The directory is held open as well: what is created, renamed and removed beside the file is in
    the directory where the file was opened, wherever its path leads by then.
    """

    def __init__(
        self,
        path: Path,
        directory: int,
        descriptor: int,
        *,
        read_only: bool,
        replaces: FileStorage | None = None,
    ) -> None:
        self._path = path
        self._directory = directory
        self._descriptor = descriptor
        self._read_only = read_only
        self._locked = False
        self._link = f"/proc/self/fd/{descriptor}"
        self._watch: Watch | None = None
        # The file beside which this one was created, until it is replaced or this one is removed.
        self._replaces = replaces
        self._retired = False
        self._find_name()
        _OPEN.add(self)

    def _find_name(self) -> None:
        # Linux tells the present path of an open file, and appends " (deleted)" once the file is
        # replaced. This is the only way to notice that without reading its times (see size).
        self._name: str | None = None
        self._unwatch()
        if sys.platform == "linux":
            with suppress(OSError):
                name = self._current_name()
                watched = watch(self._descriptor, name, str(self._path))
                # If the file was replaced before this look, its name will never change again.
                at_path = False
                with suppress(StoreFailedError):
                    at_path = self._is_at_path()
                if at_path:
                    self._name, self._watch = name, watched
                elif watched is not None:
                    watched.leave()

    def _unwatch(self) -> None:
        if self._watch is not None:
            self._watch.leave()
            self._watch = None

    def _current_name(self) -> str:
        return os.readlink(self._link)  # noqa: PTH115 - a Path costs four times as much

    @classmethod
    def open(cls, path: Path, *, read_only: bool = False, create: bool = True) -> FileStorage:
        """Open the file at ``path``, and create it (mode 0600) where there is none.

        A symbolic link in the last component is not followed. Nothing is created when
        ``read_only`` is true or ``create`` is false.

        :raises StoreNotFoundError: when there is no such file, or no directory to create it in.
        :raises NotAStoreError: when ``path`` names a directory, a device, a pipe or a link.
        :raises StoreReadOnlyError: when the file may not be written.
        :raises StoreFailedError: when the system refuses for another reason.
        """
        flags = os.O_RDONLY if read_only else os.O_RDWR | (os.O_CREAT if create else 0)
        with _Opening(path, read_only=read_only):
            directory = os.open(path.parent, _LOOKING if read_only else _SYNCABLE)
            try:
                # "." and "/" have no name; as directories they are refused.
                name = path.name or "."
                descriptor = os.open(name, _OPENING | flags, 0o600, dir_fd=directory)
            except BaseException:
                os.close(directory)
                raise
        return cls._opened(path, directory, descriptor, read_only=read_only)

    @classmethod
    def _opened(
        cls,
        path: Path,
        directory: int,
        descriptor: int,
        *,
        read_only: bool,
        replaces: FileStorage | None = None,
    ) -> FileStorage:
        """Return the open file; if it is not a regular file, close both descriptors and raise."""
        try:
            with _Mapped("looking at the file"):
                if stat.S_ISREG(os.fstat(descriptor).st_mode):
                    return cls(path, directory, descriptor, read_only=read_only, replaces=replaces)
        except BaseException:
            _close(descriptor, directory)
            raise
        _close(descriptor, directory)
        raise NotAStoreError(f"{path} is not a regular file")

    def size(self) -> int:
        """The file's length in bytes."""
        # Not fstat: since Linux 6.13, reading a file's times makes its next write record a new
        # time, and the sync after that write takes half as long again.
        with _Mapped("looking at the file's size"):
            return os.lseek(self._descriptor, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end of the file."""
        with _READING:
            data = os.pread(self._descriptor, length, offset)
            while len(data) < length:
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write all of ``data`` at ``offset``, in as many system calls as that takes."""
        with _WRITING:
            written = step = os.pwrite(self._descriptor, data, offset)
            while written < len(data):
                if not step:
                    raise OSError(errno.EIO, "the system wrote nothing")
                rest = memoryview(data)[written:]
                step = os.pwrite(self._descriptor, rest, offset + written)
                written += step

    def sync(self) -> None:
        """Make the data durable, and the length where it changed (``fdatasync``).

        After a failure the system may go on showing data that it did not write, and count it as
        written. So the data is dropped from the cache, and the next opener sees what the disk has.
        """
        with _SYNCING:
            try:
                _sync(self._descriptor)
            except OSError:
                _forget(self._descriptor)
                raise

    def sync_directory(self) -> None:
        """Make the file's name durable. Needed once, after the file was created or installed."""
        with _Mapped("syncing the directory"):
            os.fsync(self._directory)

    def room(self) -> int:
        """How many bytes of the file system are free for this user."""
        with _Mapped("looking at the file system"):
            found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        with _Mapped("truncating"):
            os.ftruncate(self._descriptor, size)

    def lock(self, timeout: float) -> None:
        """Take the advisory lock, waiting up to ``timeout`` seconds for its holder.

        ``flock`` has no timeout, so it is tried again at short, growing intervals.
        """
        if self._locked or self._try_lock():
            return
        deadline, pauses = time.monotonic() + timeout, iter(_LOCK_PAUSES)
        while time.monotonic() < deadline:
            time.sleep(next(pauses, _LOCK_PAUSES[-1]))
            if self._try_lock():
                return
        raise StoreLockedError(self._holder(), timeout)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except (OSError, ValueError) as error:
            raise StoreFailedError(f"locking failed: {error}") from error
        self._locked = True
        return True

    def unlock(self) -> None:
        """Let others write."""
        if self._locked:
            self._locked = False
            with _UNLOCKING:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _holder(self) -> int | None:
        """The pid of the lock's holder, from Linux's /proc/locks; None where that is unreadable."""
        status = os.fstat(self._descriptor)
        inode = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        try:
            lines = Path("/proc/locks").read_text().splitlines()
        except OSError:
            return None
        for line in lines:
            fields = line.split()
            if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == inode:
                return int(fields[4])
        return None

    def is_current(self) -> bool:
        """Whether the path still names the open file."""
        if self._watch is not None:
            try:
                return self._watch.is_quiet or self._watch.look_again(self._has_its_name)
            except OSError:
                # The name can still be read without the watch.
                self._watch = None
        return self._has_its_name()

    def _has_its_name(self) -> bool:
        if self._name is not None:
            with suppress(OSError):
                return self._current_name() == self._name and self._is_below_path()
        return self._is_at_path()

    def _is_below_path(self) -> bool:
        """Whether the path leads to the directory that is held; a link in it may have changed."""
        return _is_same(self._path.parent.stat(), os.fstat(self._directory))

    def _is_at_path(self) -> bool:
        try:
            there = self._path.lstat()
        except OSError:
            return False
        with _Mapped("looking at the file"):
            return _is_same(there, os.fstat(self._descriptor))

    def _is_in_directory(self) -> bool:
        """Whether the file has its name in the directory that is held."""
        try:
            there = os.stat(self._path.name, dir_fd=self._directory, follow_symlinks=False)
        except OSError:
            return False
        return _is_same(there, os.fstat(self._descriptor))

    def reopen(self) -> FileStorage:
        """Open the file that the path names now.

        :raises StoreFailedError: when it names none any more.
        """
        try:
            return FileStorage.open(self._path, read_only=self._read_only, create=False)
        except StoreNotFoundError:
            raise StoreFailedError(f"{self._path} was deleted or replaced; open it again") from None

    # A file that is to replace this one.

    def create_beside(self, suffix: str) -> FileStorage | None:
        """Create an empty file in the same directory, named after this one; None if it exists.

        It has this file's owner, mode and other attributes by the time it replaces it.
        """
        return self._open_beside(suffix, os.O_CREAT | os.O_EXCL)

    def open_beside(self, suffix: str) -> FileStorage | None:
        """Open what :meth:`create_beside` created; None when no regular file has that name."""
        try:
            return self._open_beside(suffix, 0)
        except (StoreFailedError, NotAStoreError):
            return None

    def _open_beside(self, suffix: str, flags: int) -> FileStorage | None:
        path = beside(self._path, suffix)
        with _Mapped(f"creating {path.name}"):
            directory = os.dup(self._directory)
            try:
                flags |= _OPENING | os.O_RDWR
                descriptor = os.open(path.name, flags, 0o600, dir_fd=directory)
            except BaseException as error:
                os.close(directory)
                if isinstance(error, FileExistsError):
                    return None
                raise
        return self._opened(path, directory, descriptor, read_only=False, replaces=self)

    def install(self) -> None:
        """Rename this file over the one beside which it was created.

        :raises StoreFailedError: when that one cannot be replaced; then nothing was changed.
        """
        before = self._replaces
        if before is None:
            raise StoreFailedError("the file was not created to replace another")
        with _Mapped("replacing the file"):
            before.check_replaceable_by(self._descriptor)
            path, here = self._path.with_name(before.name), self._directory
            os.rename(self._path.name, path.name, src_dir_fd=here, dst_dir_fd=here)
        self._path, self._replaces = path, None
        self._find_name()

    @property
    def name(self) -> str:
        """The file's name in its directory."""
        return self._path.name

    def check_replaceable_by(self, descriptor: int) -> None:
        """Copy this file's attributes to another open file, and check that it may replace this one.

        :raises OSError: when it must not; the message says why.
        """
        lost = copy_attributes(self._descriptor, descriptor)
        if lost:
            raise OSError(errno.EPERM, f"the new file cannot have the same {', '.join(lost)}")
        names = os.fstat(self._descriptor).st_nlink
        if names > 1:
            raise OSError(errno.EMLINK, f"the file has {names} names; remove the other links")
        if not self._is_in_directory():
            raise OSError(errno.ESTALE, "another file has its name by now")

    def take_attributes(self, other: FileStorage) -> None:
        """Copy the owner, group, mode and attributes of another file, as far as is possible."""
        with _Mapped("looking at the file's attributes"):
            copy_attributes(other._descriptor, self._descriptor)

    def remove(self) -> None:
        """Remove this file, which :meth:`create_beside` created and which was not installed."""
        if self._replaces is None:
            return
        self._replaces = None
        with _Mapped(f"removing {self._path.name}"):
            if self._is_in_directory():
                os.unlink(self._path.name, dir_fd=self._directory)

    def retire(self) -> None:
        """Release the lock. What still refers to the file can read it; then it is closed."""
        self.unlock()
        self._unwatch()
        self._retired = True

    def __del__(self) -> None:
        # Only what holds no watch: this may be called anywhere, with the lock of the notices held.
        if getattr(self, "_retired", False):
            with suppress(StoreFailedError):
                self.close()

    def close(self) -> None:
        """Release the lock and close the descriptors."""
        if self._descriptor >= 0:
            if self._locked:
                # Closing alone would leave the lock to a process that inherited the descriptor.
                with suppress(StoreFailedError):
                    self.unlock()
            self._unwatch()
            self._replaces = None
            descriptor, self._descriptor = self._descriptor, -1
            directory, self._directory = self._directory, -1
            with _Mapped("closing the file"):
                try:
                    os.close(directory)
                finally:
                    os.close(descriptor)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
