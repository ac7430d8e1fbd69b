"""The contenders of a race, each in a process of its own that waits for its turn."""

import importlib.util
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from .contenders import OPENERS, PACKAGES


@frozen
class Raced:
    """One race, in seconds: until all was durable, and how long an action's await took."""

    count: int
    seconds: float
    p50: float
    p99: float
    p999: float
    worst: float
    slowest_sync: float
    """The longest `fdatasync` that Python called; 0 where SQLite did."""

    @property
    def rate(self) -> float:
        """Actions a second."""
        return self.count / self.seconds


class Racer:
    """A process that races for one contender, until it is closed."""

    def __init__(self, process: "subprocess.Popen[str]", directory: Path) -> None:
        self._process = process
        self._directory = directory
        self._numbers = itertools.count()

    def race(
        self, tasks: int, count: int, base: Path | None = None, what: str = "actions"
    ) -> Raced:
        """Record `count` actions from `tasks` tasks in a new file, or in a copy of `base`.

        `what`: "sessions" starts and ends as many sessions instead.
        """
        path = self._directory / f"race-{next(self._numbers)}"
        if base is not None:
            shutil.copyfile(base, path)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"path": str(path), "tasks": tasks, "count": count, "what": what}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a racer ended: {self._process.args!r}")
        for left in self._directory.glob(f"{path.name}*"):
            left.unlink()
        return Raced(count, **json.loads(line))


@contextmanager
def racer(
    name: str, directory: Path, *, pinned: bool, environment: Mapping[str, str] | None = None
) -> Iterator[Racer]:
    """Start the process of a contender. `pinned`: it runs on one core only."""
    place = directory / f"racer-{next(_NUMBERS)}"
    place.mkdir()
    command = [sys.executable, "-m", "benchmarks.racer", name, *["--pinned"] * pinned]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    ) as process:
        try:
            yield Racer(process, place)
        finally:
            assert process.stdin is not None
            process.stdin.close()
    shutil.rmtree(place)


_NUMBERS = itertools.count()


def available(names: list[str]) -> list[str]:
    """Return those contenders whose packages are installed."""
    return [name for name in names if name not in PACKAGES or is_installed(PACKAGES[name])]


def is_installed(package: str) -> bool:
    """Whether a package, or a part of one, can be imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False


@contextmanager
def racing(
    names: list[str],
    directory: Path,
    race: Callable[[str, Racer], Raced],
    *,
    pinned: bool,
    environment: Mapping[str, str] | None = None,
) -> Iterator[dict[str, Callable[[], Raced]]]:
    """Yield a function for each contender that races it once, as `race` says."""
    assert set(names) <= set(OPENERS)
    with ExitStack() as stack:
        found = {
            name: stack.enter_context(
                racer(name, directory, pinned=pinned, environment=environment)
            )
            for name in available(names)
        }
        yield {name: lambda n=name, one=one: race(n, one) for name, one in found.items()}  # type: ignore[misc]
