"""Seeded workloads: what several processes do to one file, and what is true at every boundary.

A boundary lies behind every operation that changes what a power cut may leave, and behind every
ack. A crash before or inside an operation leaves nothing that one of the two boundaries around it
does not leave too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any
from uuid import UUID

import pytest
from attrs import define, frozen

from memvid_async import ActionKind, RecordingConfig, StoreConfig, index, journal
from memvid_async.format.header import SLOT_OFFSETS
from memvid_async.format.tables import Table
from memvid_async.journal import Flushed, Journal
from memvid_async.model import commands
from memvid_async.storage import Storage
from tests.crash.oracle import LOG_START, SEGMENT_KINDS, Crash, History, Truth, demand
from tests.crash.simfs import Frozen, SimDisk, SimFile, SimStorage, Write
from tests.naive import FIRST_TIME, Op, Record, command

NAME = "store"
# What every run has to cross, again and again: the kinds of boundaries.
KINDS = (
    "create",
    "write header",
    "sync header",
    "sync_directory",
    "write events",
    "write positions",
    "write page",
    "write toc",
    "write slot",
    "write zeros",
    "sync events",
    "sync toc",
    "ack",
    "ack of a deletion",
    "cut by closing",
    "sync by closing",
    "toc by closing",
    "cut by recovery",
    "sync by recovery",
    "append after recovery",
    "append of a second writer",
    "append of a third writer",
    "kill",
    "kill inside a write",
)


@contextmanager
def small_bounds(rng: Random) -> Iterator[None]:
    """Bounds so low that a file of a few kilobytes has everything: chunks, pages, TOCs, zeros."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "TOC_LEAST_BYTES", rng.choice((500, 900, 1500)))
        patch.setattr(index, "TOC_FACTOR", 1)
        patch.setattr(index, "CHUNK", rng.choice((2, 3)))
        patch.setattr(index, "MARK_BYTES", 300)
        rows = {Table.SESSIONS: 2, Table.CONTENTS: 1, Table.MARKS: 3}
        patch.setattr(index, "PAGE_ROWS", rows)
        patch.setattr(journal, "_RESERVE", rng.choice((0, 600, 1024)))
        patch.setattr(journal, "_MOST_RESERVE", 1024)
        patch.setattr(journal, "_CLOSING_TOC_BYTES", 250)
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
    """A moment in a run, and what is true at it."""

    label: str
    disk: Frozen
    truth: Truth


@define
class Process:
    """A process with the file open for writing; ``staged``: commands that are not flushed yet."""

    number: int
    storage: Storage
    journal: Journal
    recovered: bool = False
    staged: int = 0


Opener = Callable[..., Storage]


def sim_opener(disk: SimDisk, *, read_only: bool = False) -> Storage:
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
        self._opener = opener
        self._doing = "opening"
        self._process = 0
        self._last_write: list[str] = []
        self._deleting = False
        disk.watch = self._noted

    # Boundaries.

    def note(self, label: str) -> None:
        frozen_disk = self.disk.freeze()
        truth = Truth.of(frozen_disk.view(NAME), self.acked, self.history)
        self.boundaries.append(Boundary(label, frozen_disk, truth))

    def _noted(self, what: str, file: SimFile | None) -> None:
        labels = [what]
        if file is not None and what == "write":
            last = file.pending[-1]
            assert isinstance(last, Write)
            self._last_write = parts(last)
            labels = [f"write {part}" for part in self._last_write]
            if "events" in self._last_write and self._process > 1:
                ordinal = {2: "second", 3: "third"}.get(self._process, "later")
                labels.append(f"append of a {ordinal} writer")
            if "toc" in self._last_write and self._doing == "closing":
                labels.append("toc by closing")
            if "events" in self._last_write and self._doing == "appending after recovery":
                labels.append("append after recovery")
        elif file is not None:
            labels = [f"{what} {part}" for part in self._last_write] if what == "sync" else []
            cause = {"opening": "recovery", "closing": "closing"}.get(self._doing, "recovery")
            if what == "cut":
                self._last_write = []
            if not labels or self._doing == "closing":
                labels.append(f"{what} by {cause}")
        self.note(", ".join(labels))

    # What processes do.

    def open(self, number: int) -> Process:
        self._doing, self._process, self._last_write = "opening", number, []
        storage = self._opener(self.disk)
        process = Process(number, storage, Journal.open(storage, self.config))
        process.recovered = process.journal.recovery.bytes_dropped > 0
        self.note("opened")
        return process

    def stage(self, process: Process, op: Op, time: int) -> None:
        """Decide one command in a process that holds the lock."""
        self.time.now = time
        self._process = process.number
        self._doing = "appending after recovery" if process.recovered else "appending"
        # First here: staging may write, and then the truth has to know of it.
        expected = self.history.apply(op, time)
        outcome = outcome_type(process.journal.stage(command(op)))
        wanted = expected if isinstance(expected, type) else None
        demand(outcome is wanted, "{} was answered with {}, not {}", op, outcome, wanted)
        process.staged += 1
        self._deleting |= isinstance(op, commands.DeleteSession) and wanted is None

    def flush(self, process: Process) -> Flushed:
        self._process = process.number
        flushed = process.journal.flush()
        process.staged, process.recovered = 0, False
        self.acked = len(self.history)
        self.note("ack of a deletion" if self._deleting else "ack")
        self._deleting = False
        return flushed

    def commit(self, process: Process, ops: list[Op], time: int) -> None:
        """One batch, and a look at what it tells to be durable."""
        before = len(self.history.known[-1]["events",])
        process.journal.begin()
        for at, op in enumerate(ops):
            self.stage(process, op, time + 1000 * at)
        own = [event.sequence for event in self.flush(process).events]
        wanted = range(before + 1, len(self.history.known[-1]["events",]) + 1)
        demand(own[len(own) - len(wanted) :] == list(wanted), "published {}, not {}", own, wanted)

    def close(self, process: Process) -> None:
        self._doing, self._process, self._last_write = "closing", process.number, []
        process.journal.close()
        self.note("closed")

    def kill(self, process: Process) -> None:
        """The process is gone; what it gave to the system stays."""
        process.storage.close()
        count = Truth.of(self.disk.freeze().view(NAME), 0, self.history).counts[-1]
        if count < len(self.history):
            self.history = self.history.cut(count)
        self._deleting = False


def parts(write: Write) -> list[str]:
    """What a write holds."""
    if write.offset < LOG_START:
        return ["slot" if write.offset in SLOT_OFFSETS else "header"]
    found, at, data = [], 0, write.data
    while at + 20 <= len(data) and any(data[at : at + 20]):
        found.append(SEGMENT_KINDS[data[at + 19]])
        at += 20 + int.from_bytes(data[at + 4 : at + 8], "little")
    if at < len(data):
        found.append("zeros")
    return list(dict.fromkeys(found))


def outcome_type(outcome: Any) -> type | None:
    return type(outcome) if isinstance(outcome, Exception) else None


# What a seed makes of it.


def pick_op(rng: Random, history: History, serial: int) -> Op:
    """A command that fits the naive store as it is; now and then one that does not."""
    naive = history.naive
    still_open = [n for n, s in naive.sessions.items() if s["ended"] is None]
    ended = [n for n, s in naive.sessions.items() if s["ended"] is not None]
    draw = rng.random()
    if not still_open or draw < 0.12:
        config = RecordingConfig(
            auto_checkpoint_interval=rng.choice((0, 0, 2)), max_actions=rng.choice((None, None, 3))
        )
        ambient = rng.random() < 0.3
        return commands.StartSession(UUID(int=serial), f"s{serial}", config, ambient=ambient)
    number = rng.choice(still_open)
    if draw < 0.2:
        return commands.EndSession(number, rng.choice((None, "it broke")))
    if draw < 0.24:
        return commands.DeleteSession(naive.ids[rng.choice(ended or still_open)])
    if draw < 0.28:
        return commands.CreateCheckpoint(rng.choice((number, None)), None)
    return pick_record(rng, number, serial, big=draw < 0.36)


def pick_record(rng: Random, number: int, serial: int, *, big: bool) -> Record:
    text = f"{serial:04d}" * rng.randint(1, 12)
    if big:
        size = rng.choice((1024, 1100))
        data = rng.choice((f"{serial % 3}" * size, f"{serial}".ljust(size, "é")))
        return Record(number, ActionKind.PUT, data, frames=(serial,))
    kind = rng.randrange(4)
    if kind == 0:
        return Record(number, ActionKind.TOOL_CALL, {"n": serial}, text, detail=("tool",))
    if kind == 1:
        return Record(number, ActionKind.FIND, text, frames=(1, 2), detail=("lex", 2))
    messages = ({"role": "user", "content": text}, {"role": "user", "content": "p" * 40})
    asked = messages[: rng.randint(0, 2)]
    return Record(
        number, ActionKind.ASK, text, "r" * rng.randint(0, 60), detail=("o", "m"), messages=asked
    )


class Workload:
    """The whole life of a file, from one seed: up to three processes create it, append to it,
    close it and die, at once and one after another."""

    STEPS = 26

    def __init__(self, seed: int, opener: Opener) -> None:
        self.rng = Random(f"workload {seed}")
        self.driver = Driver(SimDisk(), History(), 0, 1 << 100, opener)
        self._opener = opener
        self._open: list[Process] = []
        self._serial = 0
        self._opened = 0

    def run(self) -> list[Boundary]:
        """Do everything; the boundaries that were crossed."""
        self.driver.note("nothing")
        self._open_another()
        follower = None
        plan = ["commit"] * 12 + ["stage"] * 4 + ["open"] * 4 + ["close"] * 2 + ["kill"] * 2
        self.rng.shuffle(plan)
        for step in ["commit", "open", "commit", *plan, "delete", "commit"][: self.STEPS + 4]:
            if not self._open:
                self._open_another()
            self._step(step)
            if follower is None:
                storage = self._opener(self.driver.disk, read_only=True)
                follower = Journal.open(storage, self.driver.config, read_only=True)
            else:
                follower.refresh()
            expected = self.driver.history.known[-1]
            if not any(process.staged for process in self._open):
                demand(
                    follower.view.state.last_sequence == len(expected["events",]),
                    "a follower is at event {}",
                    follower.view.state.last_sequence,
                )
        while self._open:
            self.driver.close(self._open.pop())
        return self.driver.boundaries

    def _open_another(self) -> None:
        self._opened += 1
        number = min(self._opened, 3) if self._open else 1
        self._open.append(self.driver.open(number))

    def _ops(self, count: int) -> Iterator[tuple[Op, int]]:
        for _ in range(count):
            self._serial += 1
            op = pick_op(self.rng, self.driver.history, self._serial)
            yield op, FIRST_TIME + 1_000_000 * self._serial

    def _step(self, step: str) -> None:
        rng, driver = self.rng, self.driver
        process = rng.choice(self._open)
        if step == "open" and len(self._open) < 3:
            self._open_another()
        elif step == "close":
            self._open.remove(process)
            driver.close(process)
        elif step == "kill":
            self._open.remove(process)
            self._staged(process)
            driver.kill(process)
        elif step == "delete":
            self._delete(process)
        elif step == "stage":
            self._staged(process)
            driver.flush(process)
        else:
            process.journal.begin()
            for op, time in self._ops(rng.choice((1, 1, 1, 2, 3))):
                driver.stage(process, op, time)
            driver.flush(process)

    def _staged(self, process: Process) -> None:
        """As a BUFFERED store does it: the lock is held for many commands."""
        process.journal.begin()
        for op, time in self._ops(self.rng.randint(2, 5)):
            self.driver.stage(process, op, time)

    def _delete(self, process: Process) -> None:
        naive = self.driver.history.naive
        if naive.sessions:
            self._serial += 1
            process.journal.begin()
            number = self.rng.choice(list(naive.sessions))
            op = commands.DeleteSession(naive.ids[number])
            self.driver.stage(process, op, FIRST_TIME + 1_000_000 * self._serial)
            self.driver.flush(process)


__all__ = [
    "KINDS",
    "NAME",
    "Boundary",
    "Crash",
    "Driver",
    "Opener",
    "Process",
    "Workload",
    "outcome_type",
    "sim_opener",
    "small_bounds",
]
