"""A workload in which one system call fails, once or for ever: what was acked stays, what was not
is not acked, errors are typed, and who failed to write writes no more."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable, Iterator
from random import Random
from uuid import UUID

from attrs import frozen

from memvid_async import (
    ActionKind,
    MemvidAsyncError,
    NotCompactedError,
    RecordingConfig,
    StoreFailedError,
)
from memvid_async.config import DEFAULT_RECORDING
from memvid_async.core import commands
from memvid_async.file.journal import Journal
from tests.crash.driver import NAME, Driver, Process, small_bounds
from tests.crash.images import images
from tests.crash.oracle import (
    HEADER_BYTES,
    REFUSALS,
    BrokenPromiseError,
    History,
    Truth,
    Values,
    demand,
    expect_open,
)
from tests.support.calls import CHANGING, FULL, SHORT, Fault, SimOs, file_opener, simulated_calls
from tests.support.disk import SimDisk
from tests.support.naive import FIRST_TIME, Op, Record

BIG = "large content " * 80


def ask(number: int, text: str) -> Record:
    return Record(number, ActionKind.ASK, text, "yes", detail=("o", "m"), messages=("m" * 40,))


def start(number: int, **config: int) -> commands.StartSession:
    recording = RecordingConfig(**config) if config else DEFAULT_RECORDING
    return commands.StartSession(UUID(int=number), f"s{number}", recording)


Step = Callable[["Run"], None]


def commit(process: int, *ops: Op) -> Step:
    return lambda run: run.commit(process, ops)


# Creation; two writers in turns; content, positions, pages, TOCs; a deletion, a compaction that the
# other writer follows; a torn tail; a batch that nobody synced; closing.
SCRIPT: tuple[tuple[str, Step], ...] = (
    ("create", lambda run: run.open(0)),
    ("start", commit(0, start(1), start(2, auto_checkpoint_interval=2))),
    ("append", commit(0, ask(1, "a" * 100), ask(2, "b" * 50))),
    ("open", lambda run: run.open(1)),
    ("append elsewhere", commit(1, ask(1, BIG), ask(2, "c" * 90))),
    ("catch up, a TOC", commit(0, ask(1, "d" * 200), ask(2, "e" * 150))),
    ("end", commit(0, commands.EndSession(1), ask(2, "f" * 150))),
    ("delete, a TOC", commit(1, commands.DeleteSession(UUID(int=1)), ask(2, "g" * 150))),
    ("compact", lambda run: run.compact(1)),
    ("move", commit(0, ask(2, "h" * 100), start(30))),
    ("die while compacting", lambda run: run.die_compacting(1)),
    ("remove what it left", lambda run: run.open(1)),
    ("die half-way", lambda run: run.tear(0)),
    ("recover", lambda run: run.open(0)),
    ("append again", commit(0, ask(2, "i" * 100))),
    ("die before the sync", lambda run: run.die(1)),
    ("build on it", commit(0, ask(2, "j" * 80))),
    ("close", lambda run: run.close(1)),
    ("close the last", lambda run: run.close(0)),
)


class Run:
    """The script once. Its victim dies after a fault, and unless ``alone`` everybody else too;
    after a fault that stays, the disk is repaired then."""

    def __init__(
        self,
        system: SimOs,
        fault: Fault | None,
        values: Values | None = None,
        *,
        alone: bool = False,
    ) -> None:
        self.system = system
        self.values = values or Values()
        self.fault = fault
        self._alone = alone
        self.driver = Driver(SimDisk(), History(), 0, 1 << 100, file_opener(system))
        self.errors: list[MemvidAsyncError] = []
        self._open: dict[int, Process] = {}
        self._serial = 0

    def run(self) -> None:
        """Every step; what a step finds closed it opens first."""
        self.system.arm(self.fault)
        for name, step in SCRIPT:
            before = len(self.system.failed)
            try:
                error = self._attempt(lambda step=step: step(self))
                if error is not None:
                    by_itself = len(self.system.failed) == before
                    demand(not by_itself, "failed without a cause: {!r}", error)
                    if isinstance(error, NotCompactedError) and not self._is_broken:
                        # Nothing was changed, so everybody goes on.
                        self.driver.settle()
                        continue
                    self._after_failure(error)
            except BrokenPromiseError as crash:
                raise BrokenPromiseError(f"in {name!r}: {crash}") from crash
        self.system.arm(None)
        self.commit(0, (start(40),))
        self.close(0)
        self._cut_power(8)

    @property
    def _is_broken(self) -> bool:
        """Whether calls fail for ever."""
        return self.fault is not None and self.fault.forever

    def _attempt(self, call: Callable[[], object]) -> MemvidAsyncError | None:
        """The error that the call raised, which has to be one of ours."""
        try:
            call()
        except MemvidAsyncError as error:
            self.errors.append(error)
            return error
        except OSError as error:
            raise BrokenPromiseError(f"not one of ours: {error!r}") from error
        return None

    # Steps.

    def _time(self) -> int:
        self._serial += 1
        return FIRST_TIME + 1_000_000 * self._serial

    def process(self, number: int) -> Process:
        if number not in self._open:
            self.open(number)
        return self._open[number]

    def open(self, number: int) -> None:
        if number not in self._open:
            self._open[number] = self.driver.open(number + 1)

    def commit(self, number: int, ops: tuple[Op, ...]) -> None:
        self.driver.commit(self.process(number), ops, self._time())

    def compact(self, number: int) -> None:
        self.driver.compact(self.process(number), self._time())

    def close(self, number: int) -> None:
        self.driver.close(self.process(number))
        del self._open[number]

    def tear(self, number: int) -> None:
        """The process dies inside a write: the tail that it leaves is for another to cut."""
        process = self.process(number)
        self.driver.kill(process)
        del self._open[number]
        file = self.driver.disk.names[NAME]
        end = Truth.of(bytes(file.cache), 0, self.driver.history).ends[-1]
        file.write(end, b"\x77" * 30)

    def die(self, number: int) -> None:
        """Kill the process after a whole write: what it leaves is for another to sync."""
        process = self.process(number)
        self.driver.begin(process)
        self.driver.stage(process, ask(2, "k" * 90), self._time())
        self.driver.die(process, 1, process.journal.flush)
        del self._open[number]

    def die_compacting(self, number: int) -> None:
        """Kill the process once the header of the new file is durable; another removes it."""
        process = self.process(number)
        self.driver.acting = process
        self.driver.die(process, 3, lambda: process.journal.compact(lambda *_: None))
        del self._open[number]

    # Failing.

    def _after_failure(self, error: MemvidAsyncError) -> None:
        """Who saw a change fail must refuse everything; the next process finds all acked events."""
        driver = self.driver
        changed = any(call in CHANGING for call in self.system.failed)
        changed = changed and not isinstance(error, NotCompactedError)
        if driver.acting in self._open.values() and changed:
            refusal = self._attempt(driver.acting.journal.begin)
            refused = isinstance(refusal, StoreFailedError)
            demand(refused, "a writer goes on after {}", self.system.failed)
        for number, process in list(self._open.items()):
            if process is driver.acting or not self._alone:
                self._attempt(process.journal.release)
                driver.bury(process)
                del self._open[number]
        if self._is_broken:
            self._try_while_broken()
            self._repair()
        self._cut_power(3)
        driver.settle()

    def _try_while_broken(self) -> None:
        """Opening may succeed or not; if not, the error is one of ours."""
        opened: list[Process] = []
        self._attempt(lambda: opened.append(self.driver.open(1)))
        for process in opened:
            self.driver.bury(process)

    def _repair(self) -> None:
        """The disk works again. What its system had lost from its memory is lost."""
        self.system.arm(None)
        for file in self.driver.disk.names.values():
            if file.dropped:
                file.remount()

    def _cut_power(self, limit: int) -> None:
        """What a power cut would leave now opens, with everything that was acked. Of what failed,
        a part may be there: the longest log that was given to the system tells which."""
        driver = self.driver
        driver.note("failed")
        truths: dict[bytes, Truth] = {}
        for boundary in driver.boundaries[-8:]:
            for told in boundary.truths:
                truth = Truth.of(told.view, driver.acked, driver.history)
                best = truths.setdefault(truth.view[:HEADER_BYTES], truth)
                if truth.ends[-1] > best.ends[-1]:
                    truths[truth.view[:HEADER_BYTES]] = truth
        frozen = driver.boundaries[-1].disk
        acting, self.system.fault = self.system.fault, None
        for image in images(frozen, NAME, Random(f"{self.fault}"), limit):
            before = dict(image).get(NAME)
            demand(before is not None or not driver.acked, "the file's name is lost")
            truth = truths.get((before or b"")[:HEADER_BYTES], truth)
            disk = SimDisk(image)
            storage = file_opener(self.system)(disk)
            try:
                journal = Journal.open(storage, driver.config)
            except REFUSALS as error:
                demand(truth.may_be_refused(before or b""), "refused: {!r}", error)
                continue
            _, count = expect_open(truth, before or b"", journal, bytes(disk.names[NAME].cache))
            self.values.expect(truth, count, journal, bytes(disk.names[NAME].cache))
            storage.close()
        self.system.fault = acting


@frozen
class Failed:
    """What became of some faults: the calls there were, and the errors that were raised."""

    calls: list[str]
    runs: int
    errors: Counter[str]


def calls_of(system: SimOs) -> list[str]:
    """The calls that the script makes when none fails."""
    run = Run(system, None)
    system.arm(None)
    for _, step in SCRIPT:
        step(run)
    return system.calls


def faults(calls: list[str]) -> Iterator[Fault]:
    """Every call fails in every way that it can."""
    for at, call in enumerate(calls):
        for forever in (False, True):
            then = ("kept", "dropped", "half", "wrote") if call == "fdatasync" else ("kept",)
            for outcome in then:
                yield Fault(at, errno.EIO, forever, outcome)
                yield Fault(at, errno.ENOSPC, forever, outcome)
            yield Fault(at, errno.EINTR, forever)
            if call in ("pwrite", "pread"):
                yield Fault(at, SHORT, forever)
            if call == "pwrite":
                yield Fault(at, FULL, forever)


def fail_each(how: str, bounds: str, first: int, every: int) -> Failed:
    """Run the script with every nth fault of a kind."""
    errors, runs = Counter[str](), 0
    with simulated_calls() as system, small_bounds(Random(bounds)):
        values, calls = Values(), calls_of(system)
        wanted = [fault for fault in faults(calls) if fault.forever is (how == "for ever")]
        for fault in wanted[first::every]:
            run = Run(system, fault, values, alone=how == "once, and others go on")
            try:
                run.run()
            except Exception as error:
                told = f"{how}, bounds {bounds}, {fault}: {calls[fault.at]}: {error!r}"
                raise BrokenPromiseError(told) from error
            errors.update(type(error).__name__ for error in run.errors)
            runs += 1
    return Failed(calls, runs, errors)
