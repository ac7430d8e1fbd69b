"""Several processes at work on one file, and what is true at every boundary.

A boundary follows every operation that changes what a power cut may leave, and every ack. A crash
before or inside an operation leaves nothing that one of the two boundaries around it does not leave
too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any, Protocol
from uuid import UUID

import pytest
from attrs import define, frozen

from memvid_async import MemvidAsyncError, StoreConfig
from memvid_async.core import commands
from memvid_async.core.appended import Appended
from memvid_async.file import catalog as index
from memvid_async.file import journal, open_table
from memvid_async.file import log_file as logfile
from memvid_async.file.compact import fold_nothing
from memvid_async.file.journal import Journal
from memvid_async.format.header import SLOT_OFFSETS
from memvid_async.format.tables import Table
from tests.crash.oracle import (
    COMPACT,
    HEADER_BYTES,
    LOG_START,
    SEGMENT_KINDS,
    Compacted,
    History,
    Truth,
    demand,
)
from tests.support.disk import Frozen, KilledError, SimDisk, SimFile, SimStorage, Write
from tests.support.naive import FIRST_TIME, Op, command

NAME = "store"


@contextmanager
def small_bounds(rng: Random) -> Iterator[None]:
    """Bounds so low that a file of a few kilobytes has everything: chunks, pages, TOCs, zeros."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "TOC_LEAST_BYTES", rng.choice((400, 700, 1100)))
        patch.setattr(index, "TOC_FACTOR", 1)
        patch.setattr(index, "CHUNK", rng.choice((2, 3)))
        patch.setattr(index, "MARK_BYTES", 300)
        rows = dict.fromkeys(Table, 2) | {Table.CONTENTS: 1, Table.MARKS: 3}
        patch.setattr(index, "PAGE_ROWS", rows)
        patch.setattr(open_table, "PAGE_BYTES", 50)
        patch.setattr(open_table, "LEAST_PAGES", 1)
        patch.setattr(logfile, "_RESERVE", rng.choice((64, 600, 1024)))
        patch.setattr(logfile, "_MOST_RESERVE", 1024)
        patch.setattr(journal, "_CLOSING_TOC_BYTES", 250)
        patch.setattr(logfile, "_SLOT_BYTES", rng.choice((1, 300, 1500)))
        yield


class Time:
    """The clock of all processes, set by the driver before each command."""

    def __init__(self) -> None:
        self.now = FIRST_TIME

    def __call__(self) -> int:
        return self.now


def fixed_config(time: Time, first_id: int) -> StoreConfig:
    """A configuration that leaves nothing to chance; file ids count from ``first_id``."""
    ids = iter(range(first_id, first_id + 1000))
    return StoreConfig(clock=time, id_factory=lambda: UUID(int=next(ids)), lock_timeout=0)


@frozen
class Boundary:
    """A moment in a run, and what is true of each file that the name may lead to after a cut; the
    one that it leads to now is the last."""

    label: str
    disk: Frozen
    truths: tuple[Truth, ...]

    def truth(self, data: bytes) -> Truth:
        """What is true of the file with these bytes; it is told by its header."""
        for truth in self.truths:
            if truth.view[:HEADER_BYTES] == data[:HEADER_BYTES]:
                return truth
        return self.truths[0]


@define
class Process:
    """A process with the file open for writing. ``recovered``: it cut a torn tail on opening."""

    number: int
    storage: Any
    journal: Journal
    recovered: bool = False


class Opener(Protocol):
    """How a process opens the file of a disk."""

    def __call__(self, disk: SimDisk, *, read_only: bool = False) -> Any: ...


def sim_opener(disk: SimDisk, *, read_only: bool = False) -> SimStorage:
    return SimStorage(disk, NAME, read_only=read_only)


class Driver:
    """Lets processes work on a simulated disk, checks each answer, and notes every boundary."""

    def __init__(
        self, disk: SimDisk, history: History, acked: int, first_id: int, opener: Opener
    ) -> None:
        self.disk = disk
        self.history = history
        self.acked = acked
        self.time = Time()
        self.config = fixed_config(self.time, first_id)
        self.boundaries: list[Boundary] = []
        self.on_operation: Callable[[], None] = lambda: None
        self._opener = opener
        self._doing = "opening"
        self.acting: Process | None = None
        self._last_write: list[str] = []
        self._deleting = False
        disk.watch = self._noted

    # Boundaries.

    def note(self, label: str) -> None:
        frozen_disk = self.disk.freeze()
        views = frozen_disk.views(NAME) or [(b"", b"")]
        truths = tuple(Truth.of(view, self.acked, self.history, durable) for view, durable in views)
        self.boundaries.append(Boundary(label, frozen_disk, truths))

    def _noted(self, what: str, file: SimFile | None) -> None:
        self.note(", ".join(self._labels(what, file)))
        self.on_operation()

    def _labels(self, what: str, file: SimFile | None) -> list[str]:
        by = f"{what} by {self._doing}"
        if file is None or self._doing == "compacting":
            return [what, by]
        if what == "cut":
            self._last_write = []
            return [by]
        if what == "sync":
            return [*(f"sync {part}" for part in self._last_write), by]
        last = file.pending[-1]
        assert isinstance(last, Write)
        self._last_write = parts(last)
        labels = [f"write {part}" for part in self._last_write]
        process = self.acting
        if "events" in self._last_write and process is not None:
            ordinal = ("first", "second", "third")[process.number - 1]
            labels.append(f"append by the {ordinal} writer")
            if process.recovered:
                labels.append("append after recovery")
        if "toc" in self._last_write and self._doing == "closing":
            labels.append("toc by closing")
        return labels

    # What processes do.

    def open(self, number: int) -> Process:
        self._doing, self.acting, self._last_write = "opening", None, []
        storage = self._opener(self.disk)
        try:
            process = Process(number, storage, Journal.open(storage, self.config))
        except MemvidAsyncError:
            storage.close()
            raise
        process.recovered = process.journal.torn_tail.bytes_dropped > 0
        self.note("opened")
        return process

    def begin(self, process: Process) -> None:
        self._doing, self.acting = "appending", process
        process.journal.begin()

    def stage(self, process: Process, op: Op, time: int) -> None:
        """Decide one command in a process that holds the lock."""
        self.time.now = time
        # First here: staging may write, and then the truth has to know of it.
        expected = self.history.apply(op, time)
        outcome = outcome_type(process.journal.stage(command(op)))
        wanted = expected if isinstance(expected, type) else None
        demand(outcome is wanted, "{} was answered with {}, not {}", op, outcome, wanted)
        self._deleting |= isinstance(op, commands.DeleteSession) and wanted is None

    def flush(self, process: Process) -> Appended:
        flushed = process.journal.flush()
        file, end = self.disk.names[NAME], process.journal.view.end
        durable = file.durable[LOG_START:end] == file.cache[LOG_START:end]
        demand(durable, "what is acked and published is not durable")
        process.recovered = False
        self.acked = len(self.history)
        self.note("ack of a deletion" if self._deleting else "ack")
        self._deleting = False
        return flushed

    def commit(self, process: Process, steps: Sequence[Op | Compacted], time: int) -> None:
        """Commands as one batch, or a compaction, and a look at what is published."""
        if COMPACT in steps:
            for at, step in enumerate(steps):
                if step is COMPACT:
                    self.compact(process, time + at)
                else:
                    self.commit(process, [step], time + at)
            return
        before = len(self.history.known[-1]["events",])
        self.begin(process)
        for at, op in enumerate(steps):
            self.stage(process, op, time + 1000 * at)
        own = [event.sequence for event in self.flush(process).events]
        wanted = range(before + 1, len(self.history.known[-1]["events",]) + 1)
        demand(own[len(own) - len(wanted) :] == list(wanted), "published {}, not {}", own, wanted)

    def compact(
        self, process: Process, time: int, beside: Callable[[], None] | None = None
    ) -> None:
        """``beside``: what happens between copying and installing, when others may write; nothing
        is deleted by it."""
        self._doing, self.acting = "compacting", process
        outcome: Any = None
        if beside is not None:
            successor, _ = process.journal.begin_compaction()
            if isinstance(successor, MemvidAsyncError):
                raise successor
            successor.copy(lambda *_: None, fold_nothing)
            beside()
            self._doing, self.acting = "compacting", process
        self.history.apply(COMPACT, time)
        if beside is not None:
            outcome, _ = process.journal.install(successor)
        if outcome is None:
            # With the lock held throughout: where others used again what was not copied, too.
            outcome, _ = process.journal.compact(lambda *_: None)
        if isinstance(outcome, MemvidAsyncError):
            raise outcome
        self.acked = len(self.history)
        self.note("ack of a compaction")

    def close(self, process: Process) -> None:
        self._doing, self.acting, self._last_write = "closing", process, []
        try:
            process.journal.close()
        finally:
            process.journal.release()
        self.note("closed")

    def kill(self, process: Process) -> None:
        """Kill the process; what it passed to the system stays."""
        self.bury(process)
        self.settle()

    def bury(self, process: Process) -> None:
        """End a process and let its locks go, as the system does."""
        process.storage.owner.dead = True
        self.disk.release(process.storage.owner)

    def settle(self) -> None:
        """See what is left of what was not acked when its process went."""
        (*_, (view, _)) = self.disk.freeze().views(NAME) or [(b"", b"")]
        count = Truth.of(view, 0, self.history).counts[-1]
        demand(count >= self.acked, "{} of {} acked steps are left", count, self.acked)
        if count < len(self.history):
            self.history = self.history.cut(count)
        self._deleting = False

    def die(self, process: Process, operation: int, call: Callable[[], object]) -> None:
        """Kill the process in a call, after this many operations on the disk or the last one."""
        left = [operation]

        def count_down() -> None:
            left[0] -= 1
            if left[0] == 0:
                process.storage.owner.dead = True
                raise KilledError

        if operation == 0:
            process.storage.owner.dead = True
        self.on_operation = count_down
        try:
            with suppress(KilledError):
                call()
        finally:
            self.on_operation = lambda: None
        self.kill(process)

    def die_inside_a_write(self, process: Process, share: float) -> None:
        """The process dies when a share of what it flushes was given to the system."""
        self.disk.tear = lambda size: 1 + int(share * (size - 1))
        with suppress(KilledError):
            process.journal.flush()
        self.disk.tear = lambda _size: None
        self.kill(process)


def parts(write: Write) -> list[str]:
    """What a write holds; "rest" for what is not a beginning."""
    if write.offset < LOG_START:
        return ["slot" if write.offset in SLOT_OFFSETS else "header"]
    found, at, data = [], 0, write.data
    while at + 20 <= len(data) and any(data[at : at + 20]):
        kind = SEGMENT_KINDS.get(data[at + 19])
        if kind is None:
            return [*found, "rest"]
        found.append(kind)
        at += 20 + int.from_bytes(data[at + 4 : at + 8], "little")
    if at < len(data):
        found.append("zeros")
    return list(dict.fromkeys(found))


def outcome_type(outcome: Any) -> type | None:
    return type(outcome) if isinstance(outcome, Exception) else None
