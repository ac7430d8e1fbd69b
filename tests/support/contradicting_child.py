"""Every call and every command on contradicting files: ``python -m … GROUP EVERY``.

Each file may take 2 GB and 20 s of processor time for each MB of it, from all calls together. No
task may end with an error that nobody awaits, as a writer does that meets what it did not expect.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import resource
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuzz.every_call import build, every_call
from fuzz.mutate import split
from fuzz.structure import contradicting, file_of, made_by_hand
from fuzz.target import small_tables

MEMORY = 2 * 1024**3
CPU_SECONDS_PER_MB = 20.0
# Of the files that chance makes.
SEEDS = 200


class TooMuchError(BaseException):
    """A file took more than it may; not an Exception, so that nothing takes it for its own."""


class Untold(logging.Handler):
    """Keeps what asyncio only logs: errors of tasks that nobody awaits."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def check(self) -> None:
        """Fail if there was one."""
        gc.collect()
        if self.records:
            first = self.records[0]
            raise RuntimeError(first.getMessage()) from (first.exc_info or (None, None))[1]


def too_much(number: int, _frame: object) -> None:
    raise TooMuchError(signal.Signals(number).name)


def by_hand(base: bytes) -> Iterator[tuple[str, bytes]]:
    """The files that chance hardly meets."""
    begin, _ = split(base)
    for name, payloads in made_by_hand().items():
        yield name, file_of(payloads, begin)


def by_chance(base: bytes) -> Iterator[tuple[str, bytes]]:
    """A file of everything, with a few values replaced by others of its own."""
    for seed in range(SEEDS):
        yield f"seed {seed}", contradicting(base, seed)


def main(group: str, every: str) -> None:
    """Run every nth case of a group within bounds, and print how many they were."""
    signal.signal(signal.SIGPROF, too_much)
    signal.signal(signal.SIGALRM, too_much)
    count, untold = 0, Untold()
    logging.getLogger("asyncio").addHandler(untold)
    with tempfile.TemporaryDirectory() as folder, small_tables():
        path = Path(folder, "base.mva")
        asyncio.run(build(path))
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        cases = {"hand": by_hand, "chance": by_chance}[group](path.read_bytes())
        for name, data in itertools.islice(cases, 0, None, int(every)):
            print(name, file=sys.stderr, flush=True)
            bound = CPU_SECONDS_PER_MB * max(1.0, len(data) / 1e6)
            signal.setitimer(signal.ITIMER_PROF, bound)
            signal.setitimer(signal.ITIMER_REAL, 5 * bound)
            every_call(data, Path(folder, "case"))
            untold.check()
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            count += 1
    print(count)


if __name__ == "__main__":
    main(*sys.argv[1:])
