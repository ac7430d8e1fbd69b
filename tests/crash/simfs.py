"""A disk that forgets: what a power cut may leave of what was written since the last sync.

Writes are at risk in sectors of 512 bytes: each pending sector may come out as it was, as it was to
be, half-way, as zeros or as garbage, whatever became of the others. Bytes outside those being
written stay (docs/design.md, "Limits of what is promised"). The length and the names in the
directory come out as they were or as they were to be, in the order in which they changed; a length
also half-way. A killed process, by contrast, loses nothing: the system keeps what it was given,
and the next process builds on it, durable or not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from memvid_async import StoreFailedError, StoreLockedError, StoreNotFoundError

SECTOR = 512
# How many images of one boundary are all built; of more, as many are drawn.
_BETWEEN_SIZES = 3


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

    def write(self, offset: int, data: bytes) -> None:
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
    """One directory. ``watch`` is called after every operation that changes what a cut may leave,
    with the operation's name and the file."""

    def __init__(self, image: Image = ()) -> None:
        self.names = {name: SimFile(data) for name, data in image}
        self._durable_names = [dict(self.names)]
        self._files = list(self.names.values())
        self.watch: Callable[[str, SimFile | None], None] = lambda *_: None
        # Set: who writes next dies when this share of the bytes was given to the system.
        self.tear: float | None = None

    def _renamed(self, what: str) -> None:
        self._durable_names.append(dict(self.names))
        self.watch(what, None)

    def write(self, file: SimFile, owner: Owner, offset: int, data: bytes) -> None:
        if self.tear is not None:
            file.write(offset, data[: 1 + int(self.tear * (len(data) - 1))])
            self.tear, owner.dead = None, True
            self.watch("write", file)
            raise KilledError
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
        """Let go the locks of a process that died."""
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


def torn(frozen: Frozen, rng: Random) -> Frozen | None:
    """The disk as it would be, had the process been killed inside its last write."""
    for at, file in enumerate(frozen.files):
        if file.pending and isinstance(file.pending[-1], Write) and len(file.pending[-1].data) > 1:
            *before, last = file.pending
            assert isinstance(last, Write)
            part = Write(last.offset, last.data[: rng.randrange(1, len(last.data))])
            thawed = SimFile(file.durable)
            for op in (*before, part):
                thawed.apply(op)
            half = FrozenFile(
                file.durable, (*before, part), bytes(thawed.cache), file.starts, file.dropped
            )
            return Frozen(frozen.names, (*frozen.files[:at], half, *frozen.files[at + 1 :]))
    return None


def images(frozen: Frozen, name: str, rng: Random, limit: int) -> Iterator[Image]:
    """What a power cut may leave: everything that ``name`` may hold, or about ``limit`` samples
    where that is more, each beside something that the other names may hold."""
    share = max(1, limit // len(frozen.names))
    for names in frozen.names:
        found = {
            each: list(crash_contents(frozen.files[at], rng, share if each == name else 2))
            for each, at in names
        }
        for at in range(max(map(len, found.values()), default=1)):
            yield tuple((each, data[at % len(data)]) for each, data in found.items())


def crash_contents(file: FrozenFile, rng: Random, limit: int) -> Iterator[bytes]:
    """What may stand in a file after a power cut."""
    if not file.pending:
        yield file.durable
        return
    sizes, cells = _cells(file, rng)
    base = bytearray(file.durable.ljust(max(sizes), b"\0"))

    def build(size: int, choice: tuple[bytes, ...]) -> bytes:
        for sector, data in zip(cells, choice, strict=True):
            start = sector * SECTOR
            if start < size:
                base[start : start + len(data)] = data
        return bytes(memoryview(base)[:size])

    options = list(cells.values())
    # A sector's data may reach past the longest file; it is cut to size all the same.
    base.extend(bytes(SECTOR))
    if len(sizes) * math.prod(map(len, options)) <= limit:
        for size in sizes:
            for choice in itertools.product(*options):
                yield build(size, choice)
        return
    yield from (build(size, choice) for size, choice in _plain(sizes, options))
    for _ in range(limit):
        choice = tuple(option[int(rng.random() * len(option))] for option in options)
        yield build(rng.choice(sizes), choice)


def _plain(sizes: list[int], options: list[list[bytes]]) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """The images that come to mind first: nothing written, all written, written up to a sector,
    one sector that differs from the others."""
    old = tuple(option[0] for option in options)
    new = tuple(option[-1] for option in options)
    for size in sizes:
        yield size, old
        yield size, new
    for at in range(len(options)):
        yield sizes[-1], (*new[:at], *old[at:])
        for data in options[at]:
            yield sizes[-1], (*new[:at], data, *new[at + 1 :])


def _sector(data: bytearray | bytes, number: int) -> bytes:
    return bytes(data[number * SECTOR : number * SECTOR + SECTOR]).ljust(SECTOR, b"\0")


def _cells(file: FrozenFile, rng: Random) -> tuple[list[int], dict[int, list[bytes]]]:
    """The lengths that the file may have, the newest last; and per sector at risk what it may
    hold, as it was first, as it was to be last."""
    current = bytearray(file.durable)
    sizes = [len(current)]
    versions: dict[int, list[bytes]] = {}
    risk: dict[int, list[tuple[int, int]]] = {}
    for op in file.pending:
        start = op.offset if isinstance(op, Write) else op.size
        end = start + len(op.data) if isinstance(op, Write) else max(len(current), start)
        sectors = range(start // SECTOR, math.ceil(end / SECTOR))
        for sector in sectors:
            versions.setdefault(sector, [_sector(file.durable, sector)])
        if isinstance(op, Write):
            current.extend(bytes(max(0, end - len(current))))
            current[start:end] = op.data
            for sector in sectors:
                low = sector * SECTOR
                risk.setdefault(sector, []).append((max(start - low, 0), min(end - low, SECTOR)))
        else:
            del current[start:]
            current.extend(bytes(start - len(current)))
        for sector in sectors:
            versions[sector].append(_sector(current, sector))
        sizes.append(len(current))
    options = {
        sector: list(dict.fromkeys([*found[:1], *_harmed(file, sector, found, risk, rng), *found]))
        for sector, found in versions.items()
    }
    for sector, found in versions.items():
        # Duplicates went; what it was to be still has to come last.
        options[sector].remove(found[-1])
        options[sector].append(found[-1])
    return _lengths(sizes, rng), options


def _harmed(
    file: FrozenFile,
    sector: int,
    versions: list[bytes],
    risk: dict[int, list[tuple[int, int]]],
    rng: Random,
) -> Iterator[bytes]:
    """The sector half-way, as zeros, as garbage; bytes that were not being written stay."""
    new, ranges = versions[-1], risk.get(sector, [])
    zeros, garbage = bytearray(new), bytearray(new)
    for low, high in ranges:
        zeros[low:high] = bytes(high - low)
        garbage[low:high] = _garbage(file, high - low, rng)
    if ranges:
        low, high = ranges[-1]
        middle = rng.randrange(low, high)
        yield new[:middle] + versions[-2][middle:]
        yield bytes(zeros)
        yield bytes(garbage)


def _garbage(file: FrozenFile, length: int, rng: Random) -> bytes:
    """Noise, or what stands elsewhere in the file, from where a write began."""
    if file.starts and rng.random() < 0.5:
        start = rng.choice(file.starts)
        return file.durable[start : start + length].ljust(length, b"\xa5")
    return rng.randbytes(length)


def _lengths(sizes: list[int], rng: Random) -> list[int]:
    found = list(sizes)
    for before, after in itertools.pairwise(sizes):
        low, high = sorted((before, after))
        between = list(range(low // SECTOR * SECTOR + SECTOR, high, SECTOR))
        found += rng.sample(between, min(len(between), _BETWEEN_SIZES))
        if high - low > 1:
            found.append(rng.randrange(low + 1, high))
    found.append(sizes[-1])
    return list(dict.fromkeys(reversed(found)))[::-1]


class Owner:
    """A process, as far as its open files are concerned. ``dead`` ones do nothing any more."""

    def __init__(self) -> None:
        self.dead = False


class KilledError(BaseException):
    """The process is gone; what its code does on the way out happens to nobody."""


class SimStorage:
    """A file of a simulated disk behind the storage protocol, and the order of things that
    docs/format.md demands of a writer."""

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

    def _changes(self, what: str) -> None:
        if self.owner.dead:
            raise KilledError
        if self._read_only:
            raise UndisciplinedError(f"{what} of a file that was opened read-only")
        if self._file.holder is not self:
            raise UndisciplinedError(f"{what} without the lock")

    def size(self) -> int:
        return len(self._file.cache)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self._file.cache[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        self._changes("a write")
        if self._cut_unsynced:
            raise UndisciplinedError("a write after a cut that was not synced")
        self._disk.write(self._file, self.owner, offset, data)

    def sync(self) -> None:
        self._changes("a sync")
        self._file.sync()
        self._cut_unsynced = False
        self._disk.watch("sync", self._file)

    def sync_directory(self) -> None:
        self._changes("a sync of the directory")
        self._disk.sync_names()

    def truncate(self, size: int) -> None:
        self._changes("a cut")
        self._cut_unsynced = size < len(self._file.cache)
        self._file.cut(size)
        self._disk.watch("cut", self._file)

    def lock(self, timeout: float) -> None:
        if self._read_only:
            raise UndisciplinedError("a lock by a reader")
        if self._file.holder not in (None, self):
            raise StoreLockedError(None, timeout)
        self._file.holder = self

    def unlock(self) -> None:
        if self._file.holder is self:
            self._file.holder = None

    def is_current(self) -> bool:
        return self._disk.names.get(self._name) is self._file

    def reopen(self) -> SimStorage:
        try:
            return SimStorage(
                self._disk, self._name, read_only=self._read_only, create=False, owner=self.owner
            )
        except StoreNotFoundError:
            raise StoreFailedError("the file was deleted") from None

    def successor(self) -> SimStorage:
        self.discard_successor()
        return SimStorage(self._disk, f"{self._name}.compact", owner=self.owner)

    def install(self) -> None:
        self._changes("a renaming")
        target = self._name.removesuffix(".compact")
        self._disk.rename(self._name, target)
        self._name = target
        self.sync_directory()

    def discard_successor(self) -> None:
        self._changes("an unlinking")
        if f"{self._name}.compact" in self._disk.names:
            self._disk.unlink(f"{self._name}.compact")

    def close(self) -> None:
        self.unlock()


__all__ = [
    "Cut",
    "Frozen",
    "Image",
    "KilledError",
    "Owner",
    "SimDisk",
    "SimFile",
    "SimStorage",
    "StoreFailedError",
    "UndisciplinedError",
    "Write",
    "crash_contents",
    "images",
    "torn",
]
