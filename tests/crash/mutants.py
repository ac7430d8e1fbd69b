"""Seeded bugs in storage, recovery, locking, journal and index, each with the check of ``hunt.py``
that finds it soonest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from attrs import frozen

from memvid_async import StoreFailedError
from memvid_async.core.reports import TornTail
from memvid_async.file import journal
from memvid_async.file import log_file as logfile
from memvid_async.file.catalog import Catalog
from memvid_async.file.journal import Journal
from memvid_async.file.log_file import LogFile
from memvid_async.format import header, segment
from memvid_async.format.codec import encode_events
from memvid_async.format.tables import Table
from memvid_async.storage import FileStorage
from memvid_async.storage import disk as file_module

Patch = pytest.MonkeyPatch


@frozen
class Mutant:
    """``seed`` puts the bug in; ``found_by`` is the cheapest check that finds it."""

    name: str
    found_by: str
    seed: Callable[[Patch], None]


def replaces(owner: Any, name: str, new: Any) -> Callable[[Patch], None]:
    return lambda patch: patch.setattr(owner, name, new)


def nothing(*_: Any, **__: Any) -> None:
    """What was to be done is not."""


# Storage.


def sync_again(self: FileStorage) -> None:
    try:
        _file_sync(self)
    except StoreFailedError:
        _file_sync(self)


_file_sync, _file_write, _file_size = FileStorage.sync, FileStorage.write, FileStorage.size
_file_sync_directory, _file_truncate = FileStorage.sync_directory, FileStorage.truncate


def hide(call: Callable[..., Any]) -> Callable[..., Any]:
    def hiding(*given: Any) -> None:
        with suppress(StoreFailedError):
            call(*given)

    return hiding


def write_once(self: FileStorage, offset: int, data: bytes) -> None:
    with file_module._WRITING:
        file_module.os.pwrite(self._descriptor, data, offset)


def read_once(self: FileStorage, offset: int, length: int) -> bytes:
    with file_module._READING:
        return file_module.os.pread(self._descriptor, length, offset)


def size_at_first(self: FileStorage) -> int:
    if not hasattr(self, "first_size"):
        self.first_size = _file_size(self)  # type: ignore[attr-defined]
    return self.first_size  # type: ignore[attr-defined]


def install_unsynced(self: FileStorage) -> None:
    _install(self)
    self.sync_directory = nothing  # type: ignore[method-assign]


_install = FileStorage.install


def sync_but_successors(self: FileStorage) -> None:
    if not self._path.name.endswith(".compact"):
        _file_sync(self)


STORAGE = (
    Mutant("no fsync", "files", replaces(FileStorage, "sync", nothing)),
    Mutant("no directory fsync", "files", replaces(FileStorage, "sync_directory", nothing)),
    Mutant("fsync error ignored", "failures", replaces(FileStorage, "sync", hide(_file_sync))),
    Mutant(
        "what a failed fsync dropped still seen",
        "failures",
        replaces(file_module, "_forget", nothing),
    ),
    Mutant("failed fsync tried again", "failures", replaces(FileStorage, "sync", sync_again)),
    Mutant("write error ignored", "failures", replaces(FileStorage, "write", hide(_file_write))),
    Mutant("short write ignored", "failures", replaces(FileStorage, "write", write_once)),
    Mutant("short read ignored", "failures", replaces(FileStorage, "read", read_once)),
    Mutant(
        "the system's errors get out",
        "failures",
        replaces(file_module._Mapped, "__exit__", nothing),
    ),
    Mutant("lock not taken", "rules", replaces(FileStorage, "lock", nothing)),
    Mutant("lock not released", "files", replaces(FileStorage, "unlock", nothing)),
    Mutant("cut does nothing", "files", replaces(FileStorage, "truncate", nothing)),
    Mutant("size of the opening trusted", "files", replaces(FileStorage, "size", size_at_first)),
    Mutant(
        "a replaced file taken for current",
        "rules",
        replaces(FileStorage, "is_current", lambda _: True),
    ),
    Mutant(
        "new file installed unsynced", "files", replaces(FileStorage, "install", install_unsynced)
    ),
    Mutant(
        "successor renamed before its sync",
        "files",
        replaces(FileStorage, "sync", sync_but_successors),
    ),
    Mutant(
        "a killed compaction's file left",
        "files",
        replaces(journal, "discard_left", nothing),
    ),
)


# Writing.


@contextmanager
def call_replaced(storage: Any, name: str, new: Callable[..., Any]) -> Any:
    """One object's method is another for a while."""
    setattr(storage, name, new)
    try:
        yield
    finally:
        delattr(storage, name)


_write_out, _append = LogFile.write_out, LogFile.append


def write_out_unsynced(self: LogFile) -> None:
    with call_replaced(self.storage, "sync", nothing):
        _write_out(self)


def write_out_unlocked(self: LogFile) -> None:
    sync = self.storage.sync

    def unlock_and_sync() -> None:
        self.storage.unlock()
        sync()

    with call_replaced(self.storage, "sync", unlock_and_sync):
        _write_out(self)


def slot_first(self: LogFile) -> None:
    if self._buffer:
        self._write_slot(header.Slot(self._end))
    _write_out(self)


def in_pieces(self: LogFile, kind: Any, payload: bytes, events: Any) -> int:
    if kind != segment.SegmentKind.EVENTS:
        return _append(self, kind, payload, events)
    return sum(_append(self, kind, encode_events([event]), [event]) for event in events)


def over_the_newest(start: bytes, salt: int) -> int:
    return sum(header.SLOT_OFFSETS) - header.next_slot_offset(start, salt)


def sync_own_only(self: LogFile) -> None:
    if self._buffer or self._toc is not None:
        _write_out(self)


def not_poisoned(patch: Patch) -> None:
    patch.setattr(Journal, "fail", nothing)


WRITING = (
    Mutant("ack before fsync", "states", replaces(LogFile, "write_out", write_out_unsynced)),
    Mutant(
        "lock released before fsync", "states", replaces(LogFile, "write_out", write_out_unlocked)
    ),
    Mutant("slot names what is not synced", "states", replaces(LogFile, "write_out", slot_first)),
    Mutant(
        "slot over the newest", "states", replaces(logfile, "next_slot_offset", over_the_newest)
    ),
    Mutant("one command in several segments", "states", replaces(LogFile, "append", in_pieces)),
    Mutant(
        "only what it wrote itself is synced",
        "states",
        replaces(LogFile, "write_out", sync_own_only),
    ),
    Mutant("failure forgotten", "failures", not_poisoned),
    Mutant(
        "tail not re-read under the lock",
        "rules",
        replaces(Journal, "_take_in_news", nothing),
    ),
    Mutant(
        "another time than the clock's",
        "states",
        replaces(Journal, "_now", lambda self: self._config.clock() % 977),
    ),
)


# TornTail.

_look_after, _catch_up, _load_toc = LogFile._look_after, LogFile.catch_up, LogFile._load_toc
_parse, _decode_slots = segment.parse, header.decode_slots


def cut_nothing(self: LogFile, size: int) -> None:
    with call_replaced(self.storage, "truncate", nothing):
        _look_after(self, size)


def cut_unsynced(self: LogFile, size: int) -> None:
    with call_replaced(self.storage, "sync", nothing):
        _look_after(self, size)


def cut_too_much(self: LogFile, size: int) -> None:
    truncate = self.storage.truncate
    with call_replaced(self.storage, "truncate", lambda end: truncate(end // 512 * 512)):
        _look_after(self, size)


def cut_zeros(self: LogFile, size: int) -> None:
    _look_after(self, size)
    if self._end < size and not self.torn_tail.offset:
        self.torn_tail = TornTail(size - self._end, self._end)


def cut_silently(self: LogFile, size: int) -> None:
    _look_after(self, size)
    self.torn_tail = TornTail(0, 0)


def trust_size(self: LogFile, *given: Any) -> None:
    _catch_up(self, *given)
    self._end = self._written = max(self._end, self.storage.size())


def trust_others(self: LogFile, *given: Any) -> None:
    _catch_up(self, *given)
    self._unsynced = False


def toc_without_tail(self: LogFile, *given: Any) -> None:
    if self._end == header.LOG_START or self.torn_tail.offset:
        _catch_up(self, *given)


def unchecked(data: bytes, position: int, base: int, salt: int) -> Any:
    """A segment whose length fits is taken."""
    start = position + segment.HEAD_SIZE
    if start > len(data):
        return None
    length, previous, packed = segment._REST.unpack_from(data, position + 4)
    end, kind = start + length, packed >> 56
    if not length or end > len(data) or kind not in tuple(segment.SegmentKind):
        return None
    sequence = packed & segment._SEQUENCE_MASK
    checksum = int.from_bytes(data[position : position + 4], "little")
    return segment.Segment(
        kind, sequence, data[start:end], base + position, base + end, previous, checksum
    )


def head_only(data: bytes, position: int, base: int, salt: int) -> Any:
    """The payload is not looked at: a head that was written proves the rest."""
    found = unchecked(data, position, base, salt)
    whole = _parse(data, position, base, salt)
    return whole or (found if found is not None and found.kind == 1 else None)


_scan = segment.scan


def unchained(read: Any, start: int, end: int, _: Any, salt: int) -> Any:
    while found := next(_scan(read, start, end, None, salt), None):
        yield found
        start = found.end


def slots_unchecked(data: bytes, salt: int) -> Any:
    found = [header.Slot(*header._SLOT.unpack_from(data, offset)) for offset in header.SLOT_OFFSETS]
    return tuple(slot if slot.end >= header.LOG_START else None for slot in found)


def toc_ignored_if_damaged(self: LogFile, slot: Any) -> None:
    with suppress(Exception):
        _load_toc(self, slot)


def gaps_taken(patch: Patch) -> None:
    fold = LogFile._fold

    def accepting(self: LogFile, found: Any, content: Any) -> Any:
        expected = self.state.last_sequence + 1
        moved = segment.Segment(
            found.kind,
            expected,
            found.payload,
            found.offset,
            found.end,
            found.previous,
            found.checksum,
        )
        return fold(self, moved, content)

    patch.setattr(LogFile, "_fold", accepting)


def anything_is_new(start: bytes, size: int) -> bool:
    return size <= header.LOG_START or not start.startswith(header.MAGIC)


RECOVERY = (
    Mutant("torn tail not cut", "states", replaces(LogFile, "_look_after", cut_nothing)),
    Mutant("cut not synced", "states", replaces(LogFile, "_look_after", cut_unsynced)),
    Mutant("cut too much", "states", replaces(LogFile, "_look_after", cut_too_much)),
    Mutant("cut without telling", "states", replaces(LogFile, "_look_after", cut_silently)),
    Mutant("log's end taken from the size", "states", replaces(LogFile, "catch_up", trust_size)),
    Mutant(
        "tail after the TOC not folded", "states", replaces(LogFile, "catch_up", toc_without_tail)
    ),
    Mutant("checksum not compared", "states", replaces(segment, "parse", unchecked)),
    Mutant("payload not in the checksum", "states", replaces(segment, "parse", head_only)),
    Mutant("reserved zeros told as torn", "states", replaces(LogFile, "_look_after", cut_zeros)),
    Mutant("checksums not chained", "rules", replaces(logfile, "scan", unchained)),
    Mutant(
        "slot's checksum not compared", "states", replaces(header, "decode_slots", slots_unchecked)
    ),
    Mutant(
        "damaged TOC passed over", "rules", replaces(LogFile, "_load_toc", toc_ignored_if_damaged)
    ),
    Mutant(
        "damage below what is durable cut",
        "rules",
        replaces(LogFile, "_require_reached", nothing),
    ),
    Mutant("gap in the sequence taken", "rules", gaps_taken),
    Mutant(
        "others' bytes taken for durable", "states", replaces(LogFile, "catch_up", trust_others)
    ),
    Mutant("a reader keeps what is gone", "rules", replaces(LogFile, "_check_last", nothing)),
    Mutant(
        "any file taken for a new one", "rules", replaces(journal, "is_unfinished", anything_is_new)
    ),
    Mutant(
        "killed creation not recognised",
        "states",
        replaces(journal, "is_unfinished", lambda _, size: size == 0),
    ),
)


# The index.


def deletion_forgotten(self: Catalog, number: int) -> None:
    kept = bytes(self._new[Table.DELETED])
    _forget(self, number)
    self._new[Table.DELETED][:] = kept


_forget, _load_open = Catalog._forget, Catalog._load_open


def old_rows_current(self: Catalog, toc: Any, read: Any, end: int, salt: int, _gone: Any) -> Any:
    return _load_open(self, toc, read, end, salt, set())


def contents_forgotten(self: Catalog) -> None:
    self._load_tables = None


def chunk_forgotten(self: Catalog, number: int, offset: int) -> None:
    self.positions[number] = (offset, self.positions[number][1])


INDEX = (
    Mutant("a deletion not saved", "states", replaces(Catalog, "_forget", deletion_forgotten)),
    Mutant(
        "old rows of open sessions count",
        "rules",
        replaces(Catalog, "_load_open", old_rows_current),
    ),
    Mutant(
        "contents of the file not loaded",
        "states",
        replaces(Catalog, "load_tables", contents_forgotten),
    ),
    Mutant(
        "positions written twice",
        "states",
        replaces(Catalog, "_positions_written", chunk_forgotten),
    ),
    Mutant("no positions", "states", replaces(Catalog, "save_positions", nothing)),
)

MUTANTS = (*STORAGE, *WRITING, *RECOVERY, *INDEX)
