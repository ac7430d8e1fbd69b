"""Durable recording: every await returns once its action is on the disk."""

import itertools
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from . import floor, slow_sync
from .harness import Detail, Figure, Result, Scale, alternate, ratios, spread
from .racers import Raced, Racer, racing
from .samples import asks

OURS, AIOSQLITE, FORTY = "memvid_async", "aiosqlite", "forty lines of sqlite3"
SAVER = "AsyncSqliteSaver"
BARE = "bare loop"
JSONL, MCAP = "JSONL, a sync a line", "mcap, a sync a message"
FAST = [OURS, AIOSQLITE, FORTY]
# What a contender that syncs every action by itself, or that is slow, records of the others' count.
SHARE = {SAVER: 10, JSONL: 10, MCAP: 10}


@frozen
class Setting:
    """How the contenders race: the tasks, where they run, and by how much a sync is slowed."""

    tasks: int
    count: int
    names: list[str]
    pinned: bool = False
    slower_ms: float = 0

    @property
    def case(self) -> str:
        """What the report calls it."""
        where = "pinned" if self.pinned else "unpinned"
        slower = f", sync {self.slower_ms:g} ms slower" if self.slower_ms else ""
        return f"durable, {self.tasks} task{'s' * (self.tasks > 1)}, {where}{slower}"


# Sized for less than a second each.
SETTINGS = (
    Setting(1, 2_000, [*FAST, SAVER, JSONL, MCAP]),
    Setting(64, 25_600, FAST),
    Setting(64, 25_600, [*FAST, SAVER, JSONL, MCAP], pinned=True),
    Setting(256, 25_600, [*FAST, SAVER], pinned=True),
    Setting(64, 12_800, FAST, slower_ms=1),
    Setting(64, 6_400, FAST, slower_ms=5),
)
# (tasks, pinned, slower by, against): (must reach, aim). The aims are for a compiled inner loop.
GOALS: dict[tuple[int, bool, float, str], tuple[float, float | None]] = {
    (1, False, 0, AIOSQLITE): (1.3, 1.5),
    (1, False, 0, BARE): (0.45, 0.65),
    (64, True, 0, AIOSQLITE): (1.9, 2.7),
    (256, True, 0, AIOSQLITE): (2.1, 3.2),
    (64, True, 0, FORTY): (1.0, 1.4),
    (256, True, 0, FORTY): (1.0, 1.4),
    (64, True, 0, SAVER): (12.0, None),
    (64, False, 5, AIOSQLITE): (1.05, None),
}
COLUMNS = (
    "case",
    "store",
    "actions/s, median",
    "least",
    "most",
    "p50, ms",
    "p99, ms",
    "p99.9, ms",
    "longest, ms",
)


def run(directory: Path, scale: Scale) -> Result:
    """Compare rates and latencies of durable recording, alone and from many tasks."""
    figures: list[Figure] = []
    rows: list[list[str]] = []
    for setting in SETTINGS:
        taken = _race(directory, scale, setting)
        if not taken:
            continue
        rows += [[setting.case, name, *_described(raced)] for name, raced in taken.items()]
        figures += _figures(setting, taken)
    note = (
        "Each task has a session (for the saver, a thread) of its own; starting and ending them is"
        " not timed. Every contender has a process of its own; pinned, all run on one core. A sync"
        " is made slower by a library that is preloaded into every contender, and waits after the"
        " disk's own `fdatasync`. The latencies are medians of the rounds; the longest is of all."
    )
    detail = Detail(title="Durable recording", columns=COLUMNS, rows=rows, note=note)
    return Result(figures=figures, details=[detail])


def _race(directory: Path, scale: Scale, setting: Setting) -> dict[str, list[Raced]]:
    environment = None
    if setting.slower_ms:
        environment = slow_sync.environment(directory, setting.slower_ms)
        if environment is None:
            print(f"{setting.case}: left out, there is no compiler", file=sys.stderr)
            return {}

    def race(name: str, racer: Racer) -> Raced:
        count = setting.count // SHARE.get(name, 1)
        return racer.race(setting.tasks, scale.count(count, multiple=setting.tasks))

    with racing(
        setting.names, directory, race, pinned=setting.pinned, environment=environment
    ) as contenders:
        found: dict[str, Callable[[], Raced]] = dict(contenders)
        if setting.tasks == 1:
            found[BARE] = lambda: _bare(directory, scale.count(setting.count))
        for one in found.values():
            one()
        return alternate(found, scale.rounds)


def _bare(directory: Path, count: int) -> Raced:
    some = list(itertools.islice(itertools.cycle(asks(4_096)), count))
    path = directory / "bare"
    seconds = floor.bare_loop(path, some)
    path.unlink()
    each = seconds / count
    return Raced(count, seconds, p50=each, p99=each, p999=each, worst=each, slowest_sync=0)


def _described(taken: Sequence[Raced]) -> list[str]:
    rates = spread([raced.rate for raced in taken])
    parts = [[raced.p50 for raced in taken], [raced.p99 for raced in taken]]
    parts.append([raced.p999 for raced in taken])
    latencies = [f"{statistics.median(part) * 1e3:.2f}" for part in parts]
    return [*rates, *latencies, f"{max(raced.worst for raced in taken) * 1e3:.1f}"]


def _figures(setting: Setting, taken: Mapping[str, list[Raced]]) -> list[Figure]:
    rates = {name: [raced.rate for raced in some] for name, some in taken.items()}
    figures = []
    for name in list(rates)[1:]:
        key = (setting.tasks, setting.pinned, setting.slower_ms, name)
        must, aim = GOALS.get(key, (None, None))
        values = ratios(rates[OURS], rates[name])
        figures.append(
            Figure(case=setting.case, against=name, values=values, unit="x", must=must, aim=aim)
        )
    if setting == SETTINGS[1] and AIOSQLITE in taken:
        figures += [_latency(setting, taken, place) for place in ("p50", "p99")]
    return figures


def _latency(setting: Setting, taken: Mapping[str, list[Raced]], place: str) -> Figure:
    ours, theirs = ([getattr(one, place) for one in taken[name]] for name in (OURS, AIOSQLITE))
    return Figure(
        case=f"an ack's {place}, {setting.tasks} tasks, unpinned",
        against=AIOSQLITE,
        values=ratios(ours, theirs),
        unit="x",
        must=0.5,
        aim=1 / 3,
        at_least=False,
    )
