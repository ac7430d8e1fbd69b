"""From every boundary of a workload to every image of it: reopen, check, append, crash again."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any
from uuid import UUID

from attrs import frozen

from memvid_async import ActionKind, NotAStoreError
from memvid_async.config import DEFAULT_RECORDING
from memvid_async.core import commands
from memvid_async.file.journal import Journal
from tests.crash.driver import (
    NAME,
    Boundary,
    Driver,
    Opener,
    Time,
    fixed_config,
    outcome_type,
    sim_opener,
    small_bounds,
)
from tests.crash.images import images, torn
from tests.crash.oracle import (
    COMPACT,
    HEADER_BYTES,
    LOG_START,
    REFUSALS,
    BrokenPromiseError,
    History,
    Truth,
    Values,
    demand,
    expect_open,
)
from tests.crash.workload import SAME, Workload
from tests.support.calls import file_opener, simulated_calls
from tests.support.depth import CRASH_EVERY
from tests.support.disk import Frozen, Image, SimDisk, UndisciplinedError
from tests.support.naive import FIRST_TIME, Op, Record, command

# Commands after a crash come from another time than those that were lost, and are as long.
_LATER = 10**12


@frozen
class Effort:
    """How far one seed is explored. ``images``: per boundary, by level of crash; ``nested``: how
    many of a boundary's outcomes are lived on from and crashed again, by level; ``every``: at how
    many boundaries of a level one is."""

    images: tuple[int, ...] = (500, 16, 8)
    nested: tuple[int, ...] = (1, 1, 0)
    every: tuple[int, ...] = (CRASH_EVERY, 12, 1)


class Explorer:
    """Everything that one seed leads to. ``states``: crash images that were opened and checked;
    each is another one, or stands for another history."""

    def __init__(
        self, seed: int, effort: Effort | None = None, opener: Opener = sim_opener
    ) -> None:
        self.seed = seed
        self.states = 0
        self.boundaries: Counter[str] = Counter()
        self.levels: Counter[int] = Counter()
        self._effort = effort or Effort()
        self._opener = opener
        self._time = Time()
        self._config = fixed_config(self._time, 1 << 90)
        self._where = ""
        self._values = Values()
        self._appended: set[int] = set()

    def run(self) -> None:
        """Explore the whole seed.

        :raises BrokenPromiseError: when a promise is broken; the message says how to see it again.
        """
        try:
            with small_bounds(Random(f"bounds {self.seed}")):
                self._where = "the workload"
                found = Workload(self.seed, self._opener).run()
                for at, boundary in enumerate(found):
                    self._cross(boundary, f"{at}", 0)
        except Exception as error:
            # One kind for all, as not every error can travel from one process to another.
            ours = isinstance(error, (BrokenPromiseError, UndisciplinedError))
            told = str(error) if ours else repr(error)
            raise BrokenPromiseError(f"{told}\n{self._replay()}") from error

    def _replay(self) -> str:
        return (
            f"at {self._where} of seed {self.seed}; see it again with\n"
            f"CRASH_SEED={self.seed} python -m pytest tests/crash/test_crash_states.py"
        )

    # One boundary.

    def _cross(self, boundary: Boundary, path: str, level: int) -> None:
        effort, rng = self._effort, Random(f"{self.seed} {path}")
        self.boundaries.update(boundary.label.split(", "))
        outcomes: dict[Any, tuple[Image, int]] = {}
        for number, image in enumerate(images(boundary.disk, NAME, rng, effort.images[level])):
            self._where = f"boundary {path} ({boundary.label}), image {number}"
            found = self._examine(image, boundary, level)
            if found is not None:
                outcomes.setdefault(found, (image, found[1]))
        if rng.randrange(effort.every[level]):
            return
        chosen = list(outcomes.values())
        for at, (image, count) in enumerate(
            rng.sample(chosen, min(len(chosen), effort.nested[level]))
        ):
            truth = boundary.truth(dict(image).get(NAME, b""))
            self._live_on(SimDisk(image), truth, count, f"{path}/{at}", level + 1)
        if level == 0:
            self._kill(boundary, path, rng)

    def _kill(self, boundary: Boundary, path: str, rng: Random) -> None:
        """The process dies here, or inside the write before; the system keeps what it was given.
        The power goes later."""
        half = torn(boundary.disk, rng) if "write" in boundary.label else None
        kinds: list[tuple[str, Frozen | None]] = [
            ("kill", boundary.disk),
            ("kill inside a write", half),
        ]
        for kind, disk in kinds:
            if disk is not None:
                self.boundaries[kind] += 1
                last = boundary.truths[-1]
                (*_, (view, durable)) = disk.views(NAME) or [(b"", b"")]
                truth = Truth.of(view, last.acked, last.history, durable)
                demand(truth.counts[-1] >= last.acked, "a kill lost what was acked")
                self._live_on(SimDisk.thaw(disk), truth, truth.counts[-1], f"{path}/{kind}", 1)

    # One image.

    def _examine(
        self, image: Image, boundary: Boundary, level: int
    ) -> tuple[int, int, bool] | None:
        """Open it for writing, check, append.

        Returns where recovery ended, after how many commands, and whether it cut; None when the
        image was refused, or met before.
        """
        before = dict(image).get(NAME)
        truth = boundary.truth(before or b"")
        seen, key = truth.history.seen, hash(image)
        if key in seen:
            end, count = truth.end_in(before or b"")
            demand(seen[key] in (None, (end, count)), "another outcome than before")
            demand(count >= truth.acked, "{} commands of {} acked", count, truth.acked)
            return None
        self.states += 1
        self.levels[level] += 1
        demand(before is not None or not truth.acked, "the file's name is lost, with acked events")
        if self.states % 16 == 0:
            self._look(image, truth)
        disk = SimDisk(image)
        storage = self._opener(disk)
        try:
            journal = Journal.open(storage, self._config)
        except REFUSALS as error:
            demand(truth.may_be_refused(before or b""), "refused: {!r}", error)
            demand(disk.names[NAME].cache == before, "a file that was refused was changed")
            seen[key] = None
            storage.close()
            return None
        left = [name for name in disk.names if name != NAME and self._is_proven(disk, name)]
        demand(not left, "{} are left after opening", left)
        file = disk.names[NAME]
        after = bytes(file.cache)
        end, count = expect_open(truth, before or b"", journal, after)
        demand(file.durable == after, "what opening changed is not durable")
        self._values.expect(truth, count, journal, after)
        seen[key] = (end, count)
        if hash(after) not in self._appended:
            self._appended.add(hash(after))
            self._append(disk, journal, truth.history, count)
        storage.close()
        return end, count, len(before or b"") > len(after)

    @staticmethod
    def _is_proven(disk: SimDisk, name: str) -> bool:
        """Whether a file that a compaction left says of which file: where its header was torn to
        garbage, it is left alone, as somebody else's would be."""
        data, header = bytes(disk.names[name].cache), bytes(disk.names[NAME].cache[:HEADER_BYTES])
        return not data or len(data) > LOG_START or data[: len(header)] == header

    def _look(self, image: Image, truth: Truth) -> None:
        """What a reader sees in the file as the crash left it, and that it changes nothing."""
        disk = SimDisk(image)
        before = dict(image).get(NAME)
        if before is None:
            return
        storage = self._opener(disk, read_only=True)
        try:
            journal = Journal.open(storage, self._config, read_only=True)
        except REFUSALS as error:
            new = isinstance(error, NotAStoreError) and truth.is_new(before)
            demand(new or truth.may_be_refused(before), "a reader was refused: {!r}", error)
        else:
            end = truth.end_in(before)[0]
            demand(journal.view.end == end, "a reader sees up to {}, not {}", journal.view.end, end)
            dropped = len(before[end:].rstrip(b"\0"))
            demand(journal.torn_tail.bytes_dropped == dropped, "a reader was told of another tail")
        demand(disk.names[NAME].cache == before, "a reader changed the file")
        storage.close()

    def _append(self, disk: SimDisk, journal: Journal, history: History, count: int) -> None:
        """One more command: it is there when it was acked, with all that was there before."""
        later = history.branch(count, "append", lambda branch: go_on(branch, history))
        op, self._time.now = later.steps[count]
        if op is COMPACT:
            _, flushed = journal.compact(lambda *_: None)
        else:
            outcomes, flushed = journal.commit([command(op)])
            demand(outcome_type(outcomes[0]) is None, "{} was refused: {}", op, outcomes[0])
        before = len(history.known[count]["events",])
        wanted = list(range(before + 1, len(later.known[count + 1]["events",]) + 1))
        published = [event.sequence for event in flushed.events]
        demand(published == wanted, "published {}, not {}", published, wanted)
        data, end = bytes(disk.names[NAME].durable), journal.view.end
        storage = self._opener(SimDisk(((NAME, data),)), read_only=True)
        again = Journal.open(storage, self._config, read_only=True)
        demand(again.view.end == end, "{} is durable up to {}, not {}", op, again.view.end, end)
        demand(again.view.state == journal.view.state, "another state when opened again")
        self._values.expect(Truth.of(data, 0, later), count + 1, again, data)
        storage.close()

    # The next crash.

    def _live_on(self, disk: SimDisk, truth: Truth, count: int, path: str, level: int) -> None:
        """Another process opens what the crash left, goes on with what was lost, and so on; the
        boundaries that it crosses are crossed in turn."""
        self._where = f"life after {path}"
        rng, history = Random(f"{self.seed} {path} life"), truth.history.cut(count)
        driver = Driver(disk, history, truth.acked, (2 + level) << 100, self._opener)
        driver.note("crashed")
        try:
            process = driver.open(1)
        except REFUSALS as error:
            view = bytes(disk.names[NAME].cache)
            demand(truth.may_be_refused(view), "refused after {}: {!r}", path, error)
            return
        lost = [op for op, _ in truth.history.steps[count : count + 3]]
        time = FIRST_TIME + _LATER * (1 + level)
        driver.commit(process, lost[:1] or [any_op(history, time)], time)
        if rng.random() < 0.5:
            driver.kill(process)
            process = driver.open(2)
        driver.commit(process, lost[1:] or [any_op(driver.history, time + 1)], time + 10_000)
        if rng.random() < 0.5:
            driver.close(process)
        for at, boundary in enumerate(driver.boundaries):
            self._cross(boundary, f"{path}/{at}", level)


def go_on(branch: History, base: History) -> None:
    """Do what was lost once more, at another time: a ghost of it would fit where it stood."""
    count = len(branch)
    time = FIRST_TIME + _LATER // 2
    op = base.steps[count][0] if count < len(base.steps) else any_op(branch, count)
    branch.apply(op, time)


def any_op(history: History, serial: int) -> Op:
    """A command that the naive store, as it is, turns into events."""
    still_open = [n for n, s in history.naive.sessions.items() if s["ended"] is None]
    if not still_open:
        return commands.StartSession(UUID(int=serial + (1 << 64)), "later", DEFAULT_RECORDING)
    return Record(still_open[0], ActionKind.PUT, SAME, frames=(serial,))


@frozen
class Explored:
    """What became of one seed; ``boundaries`` by kind, ``levels`` in states, ``seconds`` of CPU."""

    seed: int
    states: int
    seconds: float
    boundaries: Counter[str]
    levels: Counter[int]


def explore(seed: int, *, through_files: bool) -> Explored:
    """Explore one seed, on the simulated storage or through ``FileStorage`` on simulated calls."""
    start = time.process_time()
    with _without_collector(), simulated_calls() as system:
        found = Explorer(seed, opener=file_opener(system) if through_files else sim_opener)
        found.run()
    seconds = time.process_time() - start
    return Explored(seed, found.states, seconds, found.boundaries, found.levels)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Reference counts free nearly all; the rest waits until the seed is done with."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
