"""Seeded workloads: what several processes do to one file."""

from __future__ import annotations

from random import Random
from uuid import UUID

import cbor2

from memvid_async import (
    ActionKind,
    KeyDeleted,
    KeyPut,
    ListChanged,
    PrefixDeleted,
    RecordingConfig,
)
from memvid_async.config import DEFAULT_RECORDING
from memvid_async.core import commands
from memvid_async.events.keyed import KeyChange
from memvid_async.file.journal import Journal
from tests.crash.driver import Boundary, Driver, Opener, Process
from tests.crash.oracle import History, demand
from tests.support.disk import SimDisk
from tests.support.naive import FIRST_TIME, Op, Record

# Content that is stored once, however often it is put.
SAME = "é" * 550
# What every run has to cross, again and again: the kinds of boundaries.
KINDS = (
    "create",
    "write header",
    "sync header",
    "sync_directory by opening",
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
    "cut by opening",
    "sync by opening",
    "append after recovery",
    "append by the second writer",
    "append by the third writer",
    "toc by closing",
    "cut by closing",
    "sync by closing",
    "write by compacting",
    "sync by compacting",
    "cut by compacting",
    "rename by compacting",
    "sync_directory by compacting",
    "unlink by opening",
    "ack of a compaction",
    "kill",
    "kill inside a write",
)


# What a seed makes of it.


def pick_op(rng: Random, history: History, serial: int) -> Op:
    """A command that fits the naive store as it is; sometimes one that does not."""
    naive = history.naive
    still_open = [n for n, s in naive.sessions.items() if s["ended"] is None]
    ended = [n for n, s in naive.sessions.items() if s["ended"] is not None]
    draw = rng.random()
    if not still_open or draw < 0.09:
        config = RecordingConfig(
            auto_checkpoint_interval=rng.choice((0, 0, 2)), max_actions=rng.choice((None, None, 3))
        )
        ambient = rng.random() < 0.3
        return commands.StartSession(UUID(int=serial), f"s{serial}", config, ambient=ambient)
    number = rng.choice(still_open)
    if draw < 0.16:
        return commands.EndSession(number, rng.choice((None, "it broke")))
    if draw < 0.24:
        return commands.DeleteSession(naive.ids[rng.choice(ended or still_open)])
    if draw < 0.28:
        return commands.CreateCheckpoint(rng.choice((number, ())), None)
    if draw > 0.88:
        return pick_change(rng, serial)
    return pick_record(rng, number, serial, big=draw < 0.37)


def pick_change(rng: Random, serial: int) -> commands.ChangeCollection:
    """A change of a collection of values, or of one of lists."""
    key, is_list = rng.choice(("a/1", "a/2", "b")), rng.random() < 0.5
    text = cbor2.dumps(f"{serial:04d}" * rng.choice((1, 12, 300)))
    changes: list[KeyChange] = [KeyPut(key, text)]
    if is_list:
        first, count = rng.randint(0, 1), rng.choice((None, 0, 2, 9))
        changes = [ListChanged(key, first, count, (text,) * rng.randint(0, 2))]
    if rng.random() < 0.3:
        changes.insert(rng.randint(0, 1), rng.choice((KeyDeleted("b"), PrefixDeleted("a/"))))
    name = "lists" if is_list else "values"
    return commands.ChangeCollection(name, tuple(changes), (), {}, -1, 100)


def pick_record(rng: Random, number: int, serial: int, *, big: bool) -> Record:
    text = f"{serial:04d}" * rng.randint(1, 12)
    if big:
        data = rng.choice((SAME, SAME, f"{serial}".ljust(1024, "b")))
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
    compact it, close it and die, at once and one after another."""

    PLAN = (
        *("commit",) * 5,
        *("stage",) * 2,
        *("open",) * 4,
        *("close",) * 2,
        *("kill",) * 2,
        "all",
        "compact",
        "kill in compaction",
    )

    def __init__(self, seed: int, opener: Opener) -> None:
        self.rng = Random(f"workload {seed}")
        self.driver = Driver(SimDisk(), History(), 0, 1 << 100, opener)
        self._opener = opener
        self._open: list[Process] = []
        self._serial = 0

    def run(self) -> list[Boundary]:
        """Do everything; the boundaries that were crossed."""
        driver, follower = self.driver, None
        driver.note("nothing")
        plan = list(self.PLAN)
        self.rng.shuffle(plan)
        for step in ["commit", "open", "commit", *plan, "delete", "open", "commit"]:
            if not self._open:
                self._open_another()
            self._step(step)
            if follower is None:
                storage = self._opener(driver.disk, read_only=True)
                follower = Journal.open(storage, driver.config, read_only=True)
            else:
                follower.refresh()
            found, wanted = follower.view.state.last_sequence, len(driver.history.naive.log)
            demand(found == wanted, "a follower is at event {}, not {}", found, wanted)
        while self._open:
            driver.close(self._open.pop())
        return driver.boundaries

    def _open_another(self) -> None:
        taken = {process.number for process in self._open}
        number = min({1, 2, 3} - taken)
        self._open.append(self.driver.open(number))

    def _time(self) -> int:
        self._serial += 1
        return FIRST_TIME + 1_000_000 * self._serial

    def _stage(self, process: Process, count: int) -> None:
        self.driver.begin(process)
        for _ in range(count):
            time = self._time()
            self.driver.stage(process, pick_op(self.rng, self.driver.history, self._serial), time)

    def _step(self, step: str) -> None:
        rng, driver = self.rng, self.driver
        process = rng.choice(self._open)
        if step == "open":
            if len(self._open) < 3:
                self._open_another()
        elif step == "all":
            while len(self._open) < 3:
                self._open_another()
            for each in self._open:
                self._stage(each, 1)
                driver.flush(each)
        elif step == "close":
            self._open.remove(process)
            driver.close(process)
        elif step == "kill":
            self._kill_in_commit(process)
        elif step == "compact":
            beside = self._write_beside if rng.random() < 0.5 else None
            driver.compact(process, self._time(), beside)
        elif step == "kill in compaction":
            self._kill_in_compaction(process)
        elif step == "delete":
            self._delete(process)
        else:
            # A BUFFERED store holds the lock for many commands.
            self._stage(process, rng.randint(2, 5) if step == "stage" else rng.choice((1, 1, 2)))
            driver.flush(process)

    def _kill_in_commit(self, process: Process) -> None:
        """Others have the file open meanwhile and go on at once, the first with nothing to add."""
        rng, driver = self.rng, self.driver
        survivor = self._survivor(process)
        self._stage(process, rng.randint(1, 4))
        if rng.random() < 0.5:
            driver.die_inside_a_write(process, rng.random())
        else:
            driver.die(process, rng.randrange(3), process.journal.flush)
        driver.commit(survivor, [commands.EndSession(UUID(int=1 << 50))], self._time())

    def _write_beside(self) -> None:
        """Others, or the process itself, append while it compacts."""
        rng, driver = self.rng, self.driver
        for _ in range(rng.randint(1, 2)):
            time = self._time()
            sessions = driver.history.naive.sessions
            still_open = [n for n, session in sessions.items() if session["ended"] is None]
            op: Op = commands.StartSession(UUID(int=self._serial), None, DEFAULT_RECORDING)
            if still_open:
                number = rng.choice(still_open)
                op = pick_record(rng, number, self._serial, big=rng.random() < 0.4)
            driver.commit(rng.choice(self._open), [op], time)

    def _kill_in_compaction(self, process: Process) -> None:
        """Another process has the file open meanwhile, and goes on at once."""
        survivor = self._survivor(process)
        time = self._time()
        call = lambda: self.driver.compact(process, time)  # noqa: E731
        self.driver.die(process, self.rng.randrange(12), call)
        self._stage(survivor, 1)
        self.driver.flush(survivor)

    def _survivor(self, victim: Process) -> Process:
        if len(self._open) < 2:
            self._open_another()
        self._open.remove(victim)
        return self._open[0]

    def _delete(self, process: Process) -> None:
        naive = self.driver.history.naive
        if not naive.sessions:
            time = self._time()
            op = commands.StartSession(UUID(int=self._serial), None, DEFAULT_RECORDING)
            self.driver.commit(process, [op], time)
        number = self.rng.choice(list(naive.sessions))
        op = commands.DeleteSession(naive.ids[number])
        self.driver.commit(process, [op], self._time())
