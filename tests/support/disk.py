"""The simulated disk of all tests: it dies, fails or holds calls, and forgets what was not synced.

:class:`SimStorage` is a file of it that keeps the storage protocol; ``calls.py`` answers the system
calls of the real storage from it.

Writes are at risk in sectors of 512 bytes: each pending sector may come out as it was, as it was to
be, half-way, as zeros or as garbage, whatever became of the others. Bytes outside those being
written stay (docs/design.md, "Limits of what is promised"). The length and the names in the
directory come out as they were or as they were to be, in the order in which they changed; a length
also half-way. A killed process, by contrast, loses nothing: the system keeps what it was given,
and the next process builds on it, durable or not.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

from memvid_async import StoreFailedError, StoreLockedError, StoreNotFoundError
from memvid_async.file import journal

SECTOR = 512
# Storage calls that change what is on the disk.
CHANGES = {"write", "sync", "sync_directory", "truncate", "create_beside", "install", "remove"}
# How long a sync is held at most: a test that forgets it fails.
HELD_SECONDS = 20


class Write(NamedTuple):
    """Bytes given to the system, not synced yet."""

    offset: int
    data: bytes


class Cut(NamedTuple):
    """A truncation that was not synced yet."""

    size: int


Op = Write | Cut


class UndisciplinedError(AssertionError):
    """The code under test did what docs/format.md says a writer MUST NOT do."""


class SimFile:
    """``cache``: what every process sees. ``durable`` and ``pending``: what the disk has, and what
    it was not made to have yet. ``starts``: where writes began, for garbage that looks right."""

    def __init__(self, data: bytes = b"") -> None:
        self.durable = data
        self.cache = bytearray(data)
        self.pending: list[Op] = []
        self.starts: list[int] = []
        self.holder: object | None = None
        self.dropped = False

    def write(self, offset: int, data: bytes | bytearray) -> None:
        if offset > len(self.cache):
            self.cache.extend(bytes(offset - len(self.cache)))
        self.cache[offset : offset + len(data)] = data
        self.pending.append(Write(offset, bytes(data)))
        self.starts.append(offset)

    def cut(self, size: int) -> None:
        if size < len(self.cache):
            del self.cache[size:]
        else:
            self.cache.extend(bytes(size - len(self.cache)))
        self.pending.append(Cut(size))

    def sync(self) -> None:
        if not self.dropped:
            self.durable = bytes(self.cache)
        elif self.pending:
            self.durable = self._written_back(self._touched())
        self.pending.clear()

    def drop(self, *, half: bool = False) -> None:
        """A failed sync, as Linux does it: what was not written back counts as clean from now on,
        is still seen by everyone, and no later sync writes it. ``half``: every other sector was."""
        if half and self.pending:
            self.durable = self._written_back(self._touched()[::2])
        self.dropped = True
        self.pending.clear()

    def forget(self) -> None:
        """What counts as clean is read from the disk again, up to the length as it is known."""
        disk = SimFile(self.durable[: len(self.cache)])
        disk.cut(len(self.cache))
        for op in self.pending:
            disk.apply(op)
        self.cache[:] = disk.cache
        self.dropped = False

    def apply(self, op: Op) -> None:
        if isinstance(op, Write):
            self.write(*op)
        else:
            self.cut(op.size)

    def remount(self) -> None:
        """The system forgets what it did not write."""
        self.cache[:] = self.durable
        self.dropped = False
        self.pending.clear()

    def cut_power(self, is_kept: Callable[[], bool], sector_at: Callable[[int], int]) -> bytes:
        """What a power cut leaves: all that is durable, and of each pending write, in their order,
        the sectors for which ``is_kept`` says so. ``sector_at``: the sector's size at an offset."""
        disk = SimFile(self.durable)
        for op in self.pending:
            if isinstance(op, Cut):
                if is_kept():
                    disk.cut(op.size)
                continue
            at = op.offset
            while at < op.offset + len(op.data):
                end = at + sector_at(at) - at % sector_at(at)
                if is_kept():
                    disk.write(at, op.data[at - op.offset : end - op.offset])
                at = end
        return bytes(disk.cache)

    def _touched(self) -> list[int]:
        """The sectors that are not clean."""
        found: set[int] = set()
        for op in self.pending:
            end = op.offset + len(op.data) if isinstance(op, Write) else op.size + 1
            start = op.offset if isinstance(op, Write) else op.size
            found.update(range(start // SECTOR, math.ceil(end / SECTOR)))
        return sorted(found)

    def _written_back(self, sectors: list[int]) -> bytes:
        """What the disk has when these sectors, and the length, have reached it."""
        size = len(self.cache)
        disk = bytearray(self.durable[:size].ljust(size, b"\0"))
        for sector in sectors:
            low, high = sector * SECTOR, min(size, sector * SECTOR + SECTOR)
            disk[low:high] = self.cache[low:high]
        return bytes(disk)


class FrozenFile(NamedTuple):
    """A file at a moment."""

    durable: bytes
    pending: tuple[Op, ...]
    view: bytes
    starts: tuple[int, ...]
    dropped: bool


class Frozen(NamedTuple):
    """A disk at a moment. ``names``: what the directory held when it was last synced, then after
    each change since; the numbers are places in ``files``."""

    names: tuple[tuple[tuple[str, int], ...], ...]
    files: tuple[FrozenFile, ...]

    def views(self, name: str) -> list[tuple[bytes, bytes]]:
        """The files that may stand under a name after a cut, the one that stands there now last:
        what processes see in them, and what is durable of that."""
        numbers = dict.fromkeys(at for names in self.names for each, at in names if each == name)
        return [(self.files[at].view, self.files[at].durable) for at in numbers]


# What a power cut leaves: names, and what stands under them.
Image = tuple[tuple[str, bytes], ...]


class SimDisk:
    """One directory, and what becomes of the storage calls of the processes that use it.

    ``counts``: how often each call was made, by its name in the storage protocol. ``watch`` is
    called after every operation that changes what a cut may leave, with the operation's name and
    the file. ``changes_left``: after this many calls that change something, the next caller dies.
    ``tear`` says of a write of a size after how many bytes its caller dies; None: it does not.
    """

    def __init__(self, image: Image = ()) -> None:
        self.names = {name: SimFile(data) for name, data in image}
        self._durable_names = [dict(self.names)]
        self._files = list(self.names.values())
        self.watch: Callable[[str, SimFile | None], None] = lambda *_: None
        self.counts: Counter[str] = Counter()
        self.changes_left: float = math.inf
        self.tear: Callable[[int], int | None] = lambda _size: None
        self._failing: dict[str, _Failing] = {}
        self._is_open, self._is_waited_for = threading.Event(), threading.Event()
        self._is_open.set()
        self.unlocked = threading.Condition()

    # What becomes of calls.

    def enter(self, call: str, owner: Owner) -> None:
        """Note a storage call, and let it wait, fail or die if it is its turn."""
        if owner.dead:
            raise KilledError
        self.counts[call] += 1
        if call in CHANGES:
            self.changes_left -= 1
            if self.changes_left < 0:
                owner.dead = True
                raise KilledError
        failing = self._failing.get(call)
        if failing is not None and self.counts[call] > failing.after and not failing.share:
            raise failing.error(call)
        if call == "sync" and not self._is_open.is_set():
            self._is_waited_for.set()
            self._is_open.wait(HELD_SECONDS)

    def fail(
        self, call: str, after: int = 0, number: int = errno.EIO, share: float | None = None
    ) -> None:
        """The call after ``after`` more fails, and all that follow, until :meth:`heal`.

        ``share``: how much of a write is written first.
        """
        self._failing[call] = _Failing(self.counts[call] + after, number, share)

    def heal(self) -> None:
        """No call fails any more."""
        self._failing.clear()

    def die_after(self, size: int) -> None:
        """Kill the writer when ``size`` bytes are written, in any number of writes."""

        def part(wanted: int) -> int | None:
            nonlocal size
            size -= wanted
            return None if size >= 0 else max(0, wanted + size)

        self.tear = part

    def hold(self) -> None:
        """Let no sync return, nor touch the disk, until :meth:`let_go`."""
        self._is_waited_for.clear()
        self._is_open.clear()

    def let_go(self) -> None:
        """Let syncs return again."""
        self._is_open.set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no sync return within the block."""
        self.hold()
        try:
            yield
        finally:
            self.let_go()

    async def until_held(self) -> None:
        """Return when a sync is being held."""
        assert await asyncio.to_thread(self._is_waited_for.wait, HELD_SECONDS)

    # What the processes do.

    def _renamed(self, what: str) -> None:
        self._durable_names.append(dict(self.names))
        self.watch(what, None)

    def write(self, file: SimFile, owner: Owner, offset: int, data: bytes) -> None:
        part, failing = self.tear(len(data)), self._failing.get("write")
        if part is not None:
            file.write(offset, data[:part])
            owner.dead = True
            self.watch("write", file)
            raise KilledError
        if failing is not None and failing.share and self.counts["write"] > failing.after:
            file.write(offset, data[: int(failing.share * len(data))])
            raise failing.error("write")
        file.write(offset, data)
        self.watch("write", file)

    def create(self, name: str) -> SimFile:
        found = self.names.get(name)
        if found is None:
            found = self.names[name] = SimFile()
            self._files.append(found)
            self._renamed("create")
        return found

    def rename(self, old: str, new: str) -> None:
        self.names[new] = self.names.pop(old)
        self._renamed("rename")

    def unlink(self, name: str) -> None:
        del self.names[name]
        self._renamed("unlink")

    def sync_names(self) -> None:
        self._durable_names = [dict(self.names)]
        self.watch("sync_directory", None)

    def release(self, owner: Owner) -> None:
        """Release the locks of a process that died."""
        for file in self._files:
            if getattr(file.holder, "owner", None) is owner:
                file.holder = None

    def freeze(self) -> Frozen:
        files = {id(file): file for names in self._durable_names for file in names.values()}
        number = {key: at for at, key in enumerate(files)}
        return Frozen(
            tuple(
                tuple((name, number[id(file)]) for name, file in names.items())
                for names in self._durable_names
            ),
            tuple(
                FrozenFile(f.durable, tuple(f.pending), bytes(f.cache), tuple(f.starts), f.dropped)
                for f in files.values()
            ),
        )

    @classmethod
    def thaw(cls, frozen: Frozen) -> SimDisk:
        """The disk as the next process finds it after a kill: nothing is lost, nothing is synced,
        and nobody holds a lock."""
        disk = cls()
        files = []
        for durable, pending, view, starts, dropped in frozen.files:
            file = SimFile(durable)
            file.cache[:] = view
            file.pending += pending
            file.starts += starts
            file.dropped = dropped
            files.append(file)
        maps = [{name: files[at] for name, at in names} for names in frozen.names]
        disk._durable_names, disk.names, disk._files = maps, dict(maps[-1]), files
        return disk


class _Failing(NamedTuple):
    """From which call on one fails, with which error of the system, and after how much of it."""

    after: int
    number: int
    share: float | None

    def error(self, call: str) -> StoreFailedError:
        return StoreFailedError(f"{call} failed: {os.strerror(self.number)}")


class Owner:
    """A process, as far as its open files are concerned. ``dead`` ones do nothing any more."""

    def __init__(self) -> None:
        self.dead = False


class KilledError(BaseException):
    """The process is gone; what its code does on the way out happens to nobody."""


class SimStorage:
    """A file of a simulated disk that keeps the storage protocol, and checks the order of writes
    that docs/format.md demands of a writer."""

    def __init__(
        self,
        disk: SimDisk,
        name: str,
        *,
        read_only: bool = False,
        create: bool = True,
        owner: Owner | None = None,
    ) -> None:
        if name not in disk.names and (read_only or not create):
            raise StoreNotFoundError(f"there is no file {name}")
        self.owner = owner or Owner()
        self._disk = disk
        self._name = name
        self._read_only = read_only
        self._file = disk.create(name)
        self._cut_unsynced = False
        self._replaces: SimStorage | None = None

    def _changes(self, call: str, what: str) -> None:
        self._disk.enter(call, self.owner)
        if self._read_only:
            raise UndisciplinedError(f"{what} of a file that was opened read-only")
        if self._file.holder is not self:
            raise UndisciplinedError(f"{what} without the lock")

    def size(self) -> int:
        return len(self._file.cache)

    def read(self, offset: int, length: int) -> bytes:
        self._disk.enter("read", self.owner)
        return bytes(self._file.cache[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray) -> None:
        self._changes("write", "a write")
        if self._cut_unsynced:
            raise UndisciplinedError("a write after a cut that was not synced")
        self._disk.write(self._file, self.owner, offset, data)

    def sync(self) -> None:
        self._changes("sync", "a sync")
        self._file.sync()
        self._cut_unsynced = False
        self._disk.watch("sync", self._file)

    def sync_directory(self) -> None:
        self._changes("sync_directory", "a sync of the directory")
        self._disk.sync_names()

    def room(self) -> int:
        return 2**63

    def truncate(self, size: int) -> None:
        self._changes("truncate", "a cut")
        self._cut_unsynced = size < len(self._file.cache)
        self._file.cut(size)
        self._disk.watch("cut", self._file)

    def lock(self, timeout: float) -> None:
        if self._read_only:
            raise UndisciplinedError("a lock by a reader")
        with self._disk.unlocked:
            if not self._disk.unlocked.wait_for(self._is_free, timeout):
                raise StoreLockedError(None, timeout)
            self._file.holder = self

    def _is_free(self) -> bool:
        return self._file.holder in (None, self)

    def unlock(self) -> None:
        with self._disk.unlocked:
            if self._file.holder is self:
                self._file.holder = None
                self._disk.unlocked.notify_all()

    def is_current(self) -> bool:
        return self._disk.names.get(self._name) is self._file

    def reopen(self) -> SimStorage:
        try:
            return SimStorage(
                self._disk, self._name, read_only=self._read_only, create=False, owner=self.owner
            )
        except StoreNotFoundError:
            raise StoreFailedError("the file was deleted") from None

    def create_beside(self, suffix: str) -> SimStorage | None:
        self._changes("create_beside", "a creation")
        if f"{self._name}{suffix}" in self._disk.names:
            return None
        created = SimStorage(self._disk, f"{self._name}{suffix}", owner=self.owner)
        created._replaces = self
        return created

    def open_beside(self, suffix: str) -> SimStorage | None:
        name = f"{self._name}{suffix}"
        if name not in self._disk.names:
            return None
        return SimStorage(self._disk, name, owner=self.owner)

    def install(self) -> None:
        self._changes("install", "a renaming")
        before = self._replaces
        if before is None or not before.is_current():
            raise StoreFailedError("there is nothing to replace")
        if before._file.holder is not before:
            raise UndisciplinedError("a renaming over a file whose lock is not held")
        self._disk.rename(self._name, before._name)
        self._name, self._replaces = before._name, None

    def remove(self) -> None:
        self._disk.enter("remove", self.owner)
        if self.is_current():
            self._disk.unlink(self._name)

    def retire(self) -> None:
        self.unlock()

    def close(self) -> None:
        self.unlock()


@contextmanager
def simulated_files(disk: SimDisk) -> Iterator[None]:
    """Stores of this process open files of a simulated disk while this lasts: by the last part of
    their path."""

    def opened(path: Path, *, read_only: bool = False) -> SimStorage:
        return SimStorage(disk, path.name, read_only=read_only)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "FileStorage", SimpleNamespace(open=opened))
        yield
