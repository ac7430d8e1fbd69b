"""Kills of nodes and of clients: ``python -m tests.torture.cluster --faults N --kills M``.

Writers record on a stream with three replicas, two followers read it, and a process compacts it
again and again, while nodes, writers and that process are killed, nodes stopped for a while, and
the network between them cut, where this process may make network namespaces. None of them may be
refused anything meanwhile: they are patient. In the end everything that was acked must be there,
nothing twice, and what the followers saw must be what is there. With ``--early`` the writers ack
before the servers did: the harness must find that something is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import faulthandler
import hashlib
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from itertools import cycle, islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from uuid import uuid4

from attrs import define, field

from memvid_async import NotCompactedError, SessionStarted, StoreConfig, open_store
from tests.support.cut_network import CutNetwork
from tests.support.nats_server import NatsCluster

# The name of the last session.
END = "the end"
# A process costs little to start: it is forked where all is imported.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["memvid_async.stream.stream_log", "nats.aio.client"])
# Tasks of one writer: it is always in the middle of a commit. The least pause between two faults,
# and how long one lasts, in seconds.
TASKS, PAUSE, LASTS = 2, 1.0, (0.2, 3.0)
PATIENT = StoreConfig(replicas=3, server_timeout=120.0, lock_timeout=120.0)
# The process that compacts lives at most this many times as long as a compaction took, and at least
# this many seconds are taken for one.
COMPACTOR_LIVES, LEAST_LIFE = 4.0, 5.0
# Nodes are killed most often. What else is done to them, once for this many kills; a data directory
# is lost where the two others are current.
KILLS, KILLS_PER_OTHER = ("kill leader", "kill follower"), 4
OTHERS = ("stop leader", "two down", "lose data", "stop follower")
# From whom a node is cut: the leader or another node from both others, or from one of them.
CUTS = ("cut leader", "cut follower", "cut half of leader")


class LostError(AssertionError):
    """A promise was broken."""


# The children.


async def write(address: str, writer: str, *, early: bool) -> None:
    """Record until killed; each text is acked by a line."""
    async with open_store(address, config=PATIENT) as store, store.session(writer) as session:

        async def one(task: int) -> None:
            number = 0
            while True:
                number += 1
                text = f"{writer} {task} {number}"
                if early:
                    os.write(1, f"{text}\n".encode())
                await session.record_find(text, mode="m", result_count=0, result_frames=[])
                if not early:
                    os.write(1, f"{text}\n".encode())

        await asyncio.gather(*map(one, range(TASKS)))


async def compact(address: str) -> None:
    """Compact until killed; print for each time how many seconds it took, or that it was refused,
    as it is where it began beside one that was killed."""
    async with open_store(address, config=PATIENT) as store:
        while True:
            begun = time.monotonic()
            try:
                await store.compact()
                print(f"{time.monotonic() - begun:.1f}", flush=True)
            except NotCompactedError as error:
                print(f"refused: {error}", flush=True)
            await asyncio.sleep(PAUSE)


async def follow(address: str) -> None:
    """Print each event, up to the start of the session by whose name all ends."""
    async with (
        open_store(address, config=PATIENT, read_only=True) as store,
        store.subscribe() as events,
    ):
        async for event in events:
            print(as_line(event), flush=not event.sequence % 64)
            if isinstance(event.payload, SessionStarted) and event.payload.name == END:
                return


def live(job: str, name: str, address: str, said: Path, *, early: bool) -> None:
    """Do the job of a child; ``said``: the file that it prints into."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1)
    os.dup2(os.open(said, os.O_WRONLY), sys.stdout.fileno())
    if job == "write":
        asyncio.run(write(address, name, early=early))
    else:
        asyncio.run({"compact": compact, "follow": follow}[job](address))


def as_line(event: Any) -> str:
    """What must be equal of an event, wherever it is read."""
    text = f"{event.time_ns} {event.session_id} {event.payload!r}"
    return f"{event.sequence} {hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


# The parent.


@define
class Child:
    """A process of ours, and the file that it prints into."""

    name: str
    process: BaseProcess
    said: Path

    def check(self) -> None:
        """Return while it runs.

        :raises LostError: when it ended by itself: its traceback is on standard error.
        """
        if self.process.exitcode is not None:
            raise LostError(f"{self.name} ended by itself")

    def wait(self) -> None:
        """Return once it ended by itself.

        :raises LostError: when it does not: where it waits is on standard error.
        """
        self.process.join(PATIENT.server_timeout)
        if self.process.exitcode is None:
            assert self.process.pid is not None
            os.kill(self.process.pid, signal.SIGUSR1)
            # It tells before it is killed.
            time.sleep(PAUSE)
            raise LostError(f"{self.name} does not end")

    def end(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        self.process.join()


@define
class Torture:
    """One run on one cluster."""

    cluster: NatsCluster
    folder: Path
    draw: random.Random
    early: bool = False
    writers: list[Child] = field(factory=list)
    dead: list[Child] = field(factory=list)
    done: collections.Counter[str] = field(factory=collections.Counter)
    compactors: list[Child] = field(factory=list)
    followers: list[Child] = field(factory=list)
    _name: str = field(factory=lambda: f"torture_{uuid4().hex[:8]}")
    _started: int = 0

    def _start(self, job: str) -> Child:
        self._started += 1
        name = f"{job}{self._started}"
        said = self.folder / name
        said.touch()
        given = job, name, self.cluster.address(self._name), said
        process = FORKED.Process(target=live, args=given, kwargs={"early": self.early})
        process.start()
        return Child(name, process, said)

    async def run(self, faults: int, kills: int, writers: int = 3) -> str:
        """Kill nodes this many times, with other faults between, and this many writers; say what
        came of it."""
        begun = time.monotonic()
        plan = self._plan(faults)
        async with open_store(self.cluster.address(self._name), config=PATIENT) as store:
            self.writers = [self._start("write") for _ in range(writers)]
            self.compactors = [self._start("compact")]
            self.followers = [self._start("follow") for _ in range(2)]
            try:
                await asyncio.gather(
                    self._fault(plan, kills),
                    self._kill(kills, len(plan)),
                    self._kill_compactors(plan),
                )
                for child in (*self.writers, self.compactors[-1]):
                    child.end()
                self.dead += self.writers
                await store.refresh()
                count = await self._check(store)
            finally:
                for child in self._living:
                    child.end()
            last, generation = store.last_sequence, store.statistics().generation
        told = [line for child in self.compactors for line in _lines(child.said)]
        refused = sum(line.startswith("refused") for line in told)
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.done.items()))
        return (
            f"{kinds}, {kills} writers and {len(self.compactors) - 1} compactors killed in "
            f"{time.monotonic() - begun:.0f} s: {count} acks kept, {last} events, {generation} "
            f"compactions, {refused} refused, nothing twice, two followers exact"
        )

    @property
    def _living(self) -> list[Child]:
        return [*self.writers, *self.followers, self.compactors[-1]]

    async def _pause(self) -> None:
        """Return after a moment, unless a child ended by itself."""
        for child in self._living:
            child.check()
        await asyncio.sleep(0.05)

    def _plan(self, faults: int) -> list[str]:
        """Return the faults in their order: kills, and each other kind as often as the others."""
        others = OTHERS if self.cluster.network is None else (*CUTS, *OTHERS)
        kinds = list(islice(cycle(KILLS), faults))
        kinds += islice(cycle(others), faults // KILLS_PER_OTHER)
        self.draw.shuffle(kinds)
        return kinds

    async def _kill(self, kills: int, faults: int) -> None:
        """Kill writers, as many beside each fault as beside the others."""
        for number in range(kills):
            while self.done.total() < faults * number // kills:
                await self._pause()
            at = self.draw.randrange(len(self.writers))
            # Only where it has come to write, or it would be killed on its way there.
            while not self.writers[at].said.stat().st_size:
                await self._pause()
            await asyncio.sleep(self.draw.uniform(0, 0.3))
            self.writers[at].check()
            self.writers[at].end()
            self.dead.append(self.writers[at])
            self.writers[at] = self._start("write")

    async def _kill_compactors(self, plan: list[str]) -> None:
        """Kill the process that compacts, often in the middle of it, until the plan is done."""
        took = LEAST_LIFE
        while True:
            until = time.monotonic() + self.draw.uniform(0, COMPACTOR_LIVES * took)
            while time.monotonic() < until:
                if self.done.total() == len(plan):
                    return
                await self._pause()
            last = self.compactors[-1]
            last.end()
            took = max([took, *(float(line) for line in _lines(last.said) if line[0].isdigit())])
            self.compactors.append(self._start("compact"))

    async def _fault(self, plan: list[str], kills: int) -> None:
        for number, kind in enumerate(plan):
            while len(self.dead) < kills * number // len(plan):
                await self._pause()
            await asyncio.to_thread(self._one_fault, kind)
            self.done[kind] += 1
            await asyncio.sleep(PAUSE)
        await asyncio.to_thread(self.cluster.wait_whole)

    def _one_fault(self, kind: str) -> None:
        nodes = self.cluster.nodes
        if kind == "lose data":
            # The two others have all that was acked.
            self.cluster.wait_whole()
        until = time.monotonic() + PATIENT.server_timeout
        while (at := self.cluster.leader(self._name)) is None:
            if time.monotonic() >= until:
                raise LostError("the stream has no leader")
            time.sleep(0.05)
        if not kind.endswith("leader"):
            at = (at + self.draw.choice((1, 2))) % 3
        if kind in CUTS:
            self._cut(at, self.draw.choice((1, 2)) if "half" in kind else None)
            return
        hit = [nodes[at], nodes[(at + 1) % 3]] if kind == "two down" else [nodes[at]]
        for node in hit:
            node.pause() if kind.startswith("stop") else node.kill()
        # A cut of this length is a part of the fault.
        time.sleep(self.draw.uniform(*LASTS) * (3 if kind.startswith("stop") else 1))
        for node in hit:
            if kind.startswith("stop"):
                node.resume()
                continue
            if kind == "lose data":
                _remove(node.data)
            node.start()
        if kind == "lose data":
            self.cluster.wait_whole()

    def _cut(self, at: int, only: int | None) -> None:
        network = self.cluster.network
        assert network is not None
        for step in (1, 2) if only is None else (only,):
            network.cut(at, (at + step) % 3)
        # A leader gives up after some ten seconds without the others.
        time.sleep(self.draw.uniform(*LASTS) * 6)
        network.heal()

    async def _check(self, store: Any) -> int:
        acked = [line for child in self.dead for line in _lines(child.said)]
        found = collections.Counter[str]()
        async for action in store.actions():
            found[action.input.preview] += 1
        lost = [text for text in acked if text not in found]
        twice = [text for text, count in found.items() if count > 1]
        if lost or twice:
            raise LostError(
                f"{len(lost)} of {len(acked)} acks lost: {lost[:3]}; "
                f"{len(twice)} are there twice: {twice[:3]}"
            )
        last, here = store.last_sequence, []
        async with store.subscribe() as events:
            while len(here) < last:
                here.append(as_line(await anext(events)))
        await store.start_session(END)
        for child in self.followers:
            await asyncio.to_thread(child.wait)
            seen = _lines(child.said)[:last]
            if seen != here:
                raise LostError(f"a follower saw {len(seen)} events, and not these {last}")
        report = await store.verify()
        if not report.ok:
            raise LostError(f"{report.problems}")
        return len(acked)


def _lines(said: Path) -> list[str]:
    """Whole lines only."""
    return said.read_text().split("\n")[:-1]


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def torture(
    faults: int, kills: int, seed: int, *, cluster: NatsCluster, early: bool = False
) -> str:
    """Run it on a stream of its own.

    :raises LostError: when a promise was broken.
    """
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        run = Torture(cluster, Path(folder), random.Random(seed), early=early)
        return asyncio.run(run.run(faults, kills))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.cluster", description=__doc__)
    parser.add_argument("--faults", type=int, default=10, help="of nodes")
    parser.add_argument("--kills", type=int, default=50, help="of writers")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--early", action="store_true", help="ack before the servers do")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}", flush=True)
    network = None
    try:
        network = CutNetwork(3)
    except PermissionError as error:
        print(f"the network is not cut: {error}", flush=True)
    cluster = NatsCluster(network=network)
    try:
        faults, kills = options.faults, options.kills
        print(torture(faults, kills, seed, cluster=cluster, early=options.early))
    except LostError as error:
        print(f"seed {seed}: {error}")
        return 1
    finally:
        cluster.close()
        if network is not None:
            network.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
