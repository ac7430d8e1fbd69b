"""Kill torture: ``python -m tests.torture --kills N [--seed S] [--strace]``.

Writers (1, 2 or 8 at a time) and two followers share one file through all kills. Every round's
acks are compared by value with what is then in the file.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from attrs import define, field

from memvid_async import StoreConfig
from memvid_async.file.journal import Journal
from memvid_async.storage import FileStorage
from tests.torture.ledger import Ledger, LostError, demand
from tests.torture.victim import Orders, as_argument, fork, tighten

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 120.0
KILLS = ("time", "time", "call", "call", "write", "write", "toc", "compact", "close", "none")
SYSTEM_CALLS = "pwrite64,fdatasync,fsync,ftruncate,rename,unlink,flock"


@define
class Life:
    """A child, the pipe with its acks, and what it said."""

    orders: Orders
    pid: int
    pipe: int
    dies_at: float | None = None
    said: bytes = b""
    status: int | None = None

    def acks(self) -> list[list[Any]]:
        """What it acked: whole lines only."""
        return [json.loads(line) for line in self.said.split(b"\n")[:-1]]


@define
class Torture:
    """One run on one file."""

    path: Path
    seed: int
    strace: bool = False
    kills: int = 0
    rounds: int = 0
    writers: int = 0
    kinds: collections.Counter[str] = field(factory=collections.Counter)
    _followers: list[tuple[Life, int]] = field(factory=list)

    def run(self, kills: int) -> str:
        """Kill this many writers, and say what came of it."""
        draw = random.Random(self.seed)
        Journal.open(FileStorage.open(self.path), StoreConfig()).release()
        ledger = Ledger(self.path)
        for _ in range(2):
            orders, telling = os.pipe()
            pid, heard = fork(str(self.path), orders, [telling])
            os.close(orders)
            self._followers.append((Life(Orders(0, "none"), pid, heard), telling))
        began = time.monotonic()
        try:
            while self.kills < kills:
                acks = self._round(draw)
                self.rounds += 1
                ledger.check(acks, whole=self.rounds % 25 == 0)
            ledger.check([], whole=True)
            self._end_followers(ledger)
        finally:
            for life, _ in self._followers:
                if life.status is None:
                    os.kill(life.pid, signal.SIGKILL)
                    os.waitpid(life.pid, 0)
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{self.kills} kills ({kinds}) in {time.monotonic() - began:.1f} s, "
            f"{self.rounds} rounds, {self.writers} writers, {ledger.acked} acks kept, "
            f"{ledger.last} events, generation {ledger.generation}: nothing acked was lost"
        )

    # A round.

    def _round(self, draw: random.Random) -> list[list[Any]]:
        count = draw.choice([1, 1, 2, 2, 8])
        oldest = self.writers + 1
        lives = []
        for _ in range(count):
            self.writers += 1
            lives.append(self._start(self._orders(draw, oldest), draw))
        self._hear(lives)
        acks: list[list[Any]] = []
        for life in lives:
            said = life.acks()
            failed = [ack[1] for ack in said if ack[0] == "failed"]
            demand(not failed, f"{life.orders} failed:\n{''.join(failed)}")
            demand(life.status in (0, -signal.SIGKILL), f"{life.orders} ended with {life.status}")
            if life.status:
                self.kills += 1
                self.kinds[life.orders.kill] += 1
            acks += said
        for life, _ in self._followers:
            self._check_alive(life)
        return acks

    def _orders(self, draw: random.Random, oldest: int) -> Orders:
        kill = "system" if self.strace else draw.choice(KILLS)
        most = {"call": 60, "write": 25, "system": 40}.get(kill, 12)
        # Half of them die early: while what was left by the one before is being mended.
        at = draw.randint(1, 8 if draw.random() < 0.4 else most)
        return Orders(
            self.writers,
            kill,
            at,
            draw.choice([0.0, 0.01, 0.5, 0.9, 1.0, draw.random()]),
            draw.choice([2, 10, 30]),
            draw.choice([1, 1, 4]),
            resumes=draw.random() < 0.3,
            deletes=draw.choice([0, 1, 2, 4]),
            compacts=kill == "compact" or draw.random() < 0.3,
            oldest=oldest,
        )

    def _start(self, orders: Orders, draw: random.Random) -> Life:
        if self.strace:
            return self._start_traced(orders)
        telling = [telling for _, telling in self._followers]
        pid, pipe = fork(str(self.path), orders, telling)
        dies_at = time.monotonic() + draw.uniform(0.0, 0.25) if orders.kill == "time" else None
        return Life(orders, pid, pipe, dies_at)

    def _start_traced(self, orders: Orders) -> Life:
        heard, pipe = os.pipe()
        inject = f"inject={SYSTEM_CALLS}:signal=SIGKILL:when={orders.at}"
        child = [sys.executable, "-m", "tests.torture.victim", str(self.path), as_argument(orders)]
        command = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={SYSTEM_CALLS}"]
        process = subprocess.Popen([*command, "-e", inject, *child], stdout=pipe, cwd=ROOT)
        process.returncode = 0  # it is waited for below, not by its destructor
        os.close(pipe)
        return Life(orders, process.pid, heard)

    def _hear(self, lives: list[Life]) -> None:
        """Read the acks, killing each writer when its time has come, until all are dead."""
        deadline = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as pipes:
            for life in lives:
                pipes.register(life.pipe, selectors.EVENT_READ, life)
            while pipes.get_map():
                now = time.monotonic()
                demand(now < deadline, f"hung: {[life.orders for life in lives]}")
                due = [life.dies_at for life in lives if life.dies_at is not None]
                for key, _ in pipes.select(max(0.0, min([*due, deadline]) - now)):
                    life = key.data
                    data = os.read(life.pipe, 65536)
                    life.said += data
                    if not data:
                        pipes.unregister(life.pipe)
                        os.close(life.pipe)
                        status = os.waitpid(life.pid, 0)[1]
                        life.status, life.dies_at = os.waitstatus_to_exitcode(status), None
                for life in lives:
                    if life.dies_at is not None and time.monotonic() >= life.dies_at:
                        os.kill(life.pid, signal.SIGKILL)
                        life.dies_at = None

    # The followers.

    def _check_alive(self, life: Life) -> None:
        pid, _ = os.waitpid(life.pid, os.WNOHANG)
        if pid:
            life.status = 1
            life.said += os.read(life.pipe, 65536)
            raise LostError(f"a follower died: {life.acks()}")

    def _end_followers(self, ledger: Ledger) -> None:
        for life, telling in self._followers:
            os.write(telling, str(ledger.last).encode())
            os.close(telling)
            self._hear([life])
            wanted = [["followed", ledger.last, ledger.rolled]]
            demand(life.acks() == wanted, f"a follower saw {life.acks()}, not {wanted}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--strace", action="store_true", help="kill at the Nth system call")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}", flush=True)
    if options.strace and shutil.which("strace") is None:
        print("skipped: strace is not installed")
        return 0
    tighten()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        print(Torture(folder / "torture.mva", seed, strace=options.strace).run(options.kills))
    except LostError as error:
        print(f"seed {seed}: {error}\nthe file is kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
