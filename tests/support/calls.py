"""The system calls that ``FileStorage`` makes, answered by a simulated disk: the real storage code
runs on it, and any call can be made to fail.

Like Linux, a failed sync may have written everything, nothing, or count what it did not write as
clean: then everyone still sees it, and no later sync writes it, until the system is made to forget
it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Self

import pytest
from attrs import define, frozen

from memvid_async.storage import FileStorage
from memvid_async.storage import disk as module
from tests.crash.driver import NAME
from tests.support.disk import KilledError, Owner, SimDisk, SimFile, UndisciplinedError

# Calls that change what is in the file. A process that saw one fail must write no more.
CHANGING = ("pwrite", "fdatasync", "ftruncate")


@frozen
class Fault:
    """Which call fails, counted from 0, and how. ``forever``: so do all that follow.

    ``number`` SHORT: a pwrite that writes a part, or a pread that reads a part; FULL: the same, and
    the next pwrite finds no room. ``then``: what a failed sync did: "kept" the data for a later
    one, "dropped" it, "half" of it, or "wrote" it.
    """

    at: int
    number: int
    forever: bool = False
    then: str = "kept"

    def __str__(self) -> str:
        name = {SHORT: "short", FULL: "full"}.get(self.number) or errno.errorcode[self.number]
        return f"call {self.at}: {name} {'for ever' if self.forever else 'once'} ({self.then})"


SHORT, FULL = -1, -2


@define(eq=False)
class Opened:
    """What a descriptor stands for: a file, or the directory (None)."""

    disk: SimDisk
    name: str
    file: SimFile | None
    owner: Owner
    unsynced_cut: bool = False


class SimPath:
    """As much of a ``Path`` as ``FileStorage`` uses."""

    def __init__(self, system: SimOs, disk: SimDisk, name: str, owner: Owner) -> None:
        self.system = system
        self.disk = disk
        self.name = name
        self.owner = owner

    def __str__(self) -> str:
        return f"/sim/{self.name}"

    def with_name(self, name: str) -> SimPath:
        return SimPath(self.system, self.disk, name, self.owner)

    @property
    def parent(self) -> SimPath:
        return self.with_name("")

    def is_dir(self) -> bool:
        return not self.name

    def stat(self) -> Any:
        self.system.enter("stat", self.owner)
        return self.system.status(self.disk, self.name)

    def lstat(self) -> Any:
        self.system.enter("lstat", self.owner)
        return self.system.status(self.disk, self.name)


def _status(of: SimFile | SimDisk) -> Any:
    kind = stat.S_IFREG if isinstance(of, SimFile) else stat.S_IFDIR
    return SimpleNamespace(st_mode=kind | 0o600, st_dev=1, st_ino=id(of), st_nlink=1)


class SimOs:
    """Stands in for the modules ``os`` and ``fcntl`` in ``storage/file.py``."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fault: Fault | None = None
        # Which call a fault made fail, by name.
        self.failed: list[str] = []
        self._open: dict[int, Opened] = {}
        self._next = 100
        self._full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(fcntl if name.startswith("LOCK_") else os, name)

    def arm(self, fault: Fault | None) -> None:
        """Count calls from 0 again, and let them fail as ``fault`` says."""
        self.fault, self.calls, self.failed, self._full = fault, [], [], False

    def enter(self, call: str, owner: Owner) -> Fault | None:
        """Note a call, and fail it if it is its turn; faults of a part are the caller's to do."""
        if owner.dead:
            raise KilledError
        at = len(self.calls)
        self.calls.append(call)
        fault = self.fault
        if self._full and call == "pwrite":
            self._full = fault is not None and fault.forever
            self.failed.append(call)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if fault is None or at < fault.at or (at > fault.at and not fault.forever):
            return None
        if fault.number in (SHORT, FULL):
            return fault if call in ("pwrite", "pread") else None
        if fault.number == errno.ENOSPC and call not in _NEEDS_ROOM:
            return None
        self.failed.append(call)
        if call in ("fdatasync", "close"):
            return fault
        raise OSError(fault.number, os.strerror(fault.number))

    def _enter(self, call: str, descriptor: int) -> tuple[Opened, Fault | None]:
        opened = self._open.get(descriptor)
        if opened is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return opened, self.enter(call, opened.owner)

    def _file(self, call: str, descriptor: int) -> tuple[SimFile, Fault | None]:
        opened, fault = self._enter(call, descriptor)
        assert opened.file is not None
        return opened.file, fault

    # The calls.

    def open(
        self, path: SimPath | str, flags: int, _mode: int = 0, *, dir_fd: int | None = None
    ) -> int:
        if dir_fd is None:
            assert isinstance(path, SimPath)
            disk, name, owner = path.disk, path.name, path.owner
        else:
            directory = self._open[dir_fd]
            disk, name, owner = directory.disk, str(path), directory.owner
        self.enter("open", owner)
        file = None
        if name:
            file = disk.names.get(name)
            if file is None and not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if file is not None and flags & os.O_EXCL:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            if file is None:
                file = disk.create(name)
        return self._opened(Opened(disk, name, file, owner))

    def _opened(self, opened: Opened) -> int:
        self._next += 1
        self._open[self._next] = opened
        return self._next

    def dup(self, descriptor: int) -> int:
        opened, _ = self._enter("dup", descriptor)
        assert opened.file is None
        return self._opened(Opened(opened.disk, opened.name, None, opened.owner))

    def stat(self, name: str, *, dir_fd: int, follow_symlinks: bool) -> Any:
        directory, _ = self._enter("stat", dir_fd)
        assert not follow_symlinks
        return self.status(directory.disk, name)

    @staticmethod
    def status(disk: SimDisk, name: str) -> Any:
        if not name:
            return _status(disk)
        if name not in disk.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return _status(disk.names[name])

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        opened, _ = self._enter("rename", src_dir_fd)
        assert src_dir_fd == dst_dir_fd
        opened.disk.rename(old, new)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        opened, _ = self._enter("unlink", dir_fd)
        opened.disk.unlink(name)

    def close(self, descriptor: int) -> None:
        opened, fault = self._enter("close", descriptor)
        del self._open[descriptor]
        if opened.file is not None and opened.file.holder is opened:
            opened.file.holder = None
        if fault is not None:
            raise OSError(fault.number, os.strerror(fault.number))

    def fstat(self, descriptor: int) -> Any:
        opened, _ = self._enter("fstat", descriptor)
        return _status(opened.file or opened.disk)

    def lseek(self, descriptor: int, _offset: int, _whence: int) -> int:
        return len(self._file("lseek", descriptor)[0].cache)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        file, fault = self._file("pread", descriptor)
        if fault is not None:
            length = (length + 1) // 2
        return bytes(file.cache[offset : offset + length])

    def _change(self, call: str, descriptor: int) -> tuple[Opened, SimFile, Fault | None]:
        opened, fault = self._enter(call, descriptor)
        file = opened.file
        assert file is not None
        if file.holder is not opened:
            raise UndisciplinedError(f"{call} without the lock")
        if call == "pwrite" and opened.unsynced_cut:
            raise UndisciplinedError("a write after a cut that was not synced")
        return opened, file, fault

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        opened, file, fault = self._change("pwrite", descriptor)
        if fault is not None:
            self._full = fault.number == FULL
            data = data[: max(1, len(data) // 2)]
        opened.disk.write(file, opened.owner, offset, bytes(data))
        return len(data)

    def ftruncate(self, descriptor: int, size: int) -> None:
        opened, file, _ = self._change("ftruncate", descriptor)
        opened.unsynced_cut = size < len(file.cache)
        file.cut(size)
        opened.disk.watch("cut", file)

    def fdatasync(self, descriptor: int) -> None:
        opened, file, fault = self._change("fdatasync", descriptor)
        opened.unsynced_cut = False
        if fault is None or fault.then == "wrote":
            file.sync()
            opened.disk.watch("sync", file)
        elif fault.then in ("dropped", "half"):
            file.drop(half=fault.then == "half")
        if fault is not None:
            raise OSError(fault.number, os.strerror(fault.number))

    def posix_fadvise(self, descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        opened = self._open[descriptor]
        if opened.file is not None and not opened.owner.dead:
            opened.file.forget()

    def fsync(self, descriptor: int) -> None:
        opened, _ = self._enter("fsync", descriptor)
        assert opened.file is None
        opened.disk.sync_names()

    def readlink(self, path: str) -> str:
        opened, _ = self._enter("readlink", int(path.rpartition("/")[2]))
        for name, file in opened.disk.names.items():
            if file is opened.file:
                return f"/sim/{name}"
        return f"/sim/{opened.name} (deleted)"

    def flock(self, descriptor: int, operation: int) -> None:
        opened, _ = self._enter("flock", descriptor)
        file = opened.file
        assert file is not None
        if operation & fcntl.LOCK_UN:
            file.holder = None if file.holder is opened else file.holder
        elif file.holder not in (None, opened):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        else:
            file.holder = opened


_NEEDS_ROOM = ("open", "pwrite", "ftruncate", "fdatasync", "fsync", "rename")


class SimFileStorage(FileStorage):
    """The real storage, and which process opened it."""

    owner: Owner

    @classmethod
    def on(cls, system: SimOs, disk: SimDisk, *, read_only: bool) -> Self:
        owner = Owner()
        opened: Any = cls.open(SimPath(system, disk, NAME, owner), read_only=read_only)  # type: ignore[arg-type]
        opened.__class__ = cls
        opened.owner = owner
        return opened


@contextmanager
def simulated_calls() -> Iterator[SimOs]:
    """``FileStorage`` works on simulated disks while this lasts."""
    system = SimOs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "os", system)
        patch.setattr(module, "fcntl", system)
        patch.setattr(module, "watch", lambda *_: None)
        patch.setattr(module, "copy_attributes", lambda *_: [])
        # What is freed later must not close descriptors that only this system returned.
        patch.setattr(FileStorage, "retire", FileStorage.unlock)
        yield system


def file_opener(system: SimOs) -> Callable[..., SimFileStorage]:
    """How a process opens a file of a simulated disk with the real storage."""

    def opener(disk: SimDisk, *, read_only: bool = False) -> SimFileStorage:
        return SimFileStorage.on(system, disk, read_only=read_only)

    return opener
