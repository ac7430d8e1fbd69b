"""Measuring and judging: samples taken in turn, medians, and figures held against goals."""

import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from attrs import field, frozen


class Verdict(StrEnum):
    """How a figure stands against the two goals of its case."""

    AIM = "aim reached"
    MUST = "pass"
    MISS = "**miss**"
    NONE = "—"


@frozen(kw_only=True)
class Figure:
    """One line of the report's first table: a measured figure and its goals, all in `unit`."""

    case: str
    against: str
    values: Sequence[float]
    """The figure of each round."""
    unit: str
    must: float | None = None
    aim: float | None = None
    at_least: bool = True
    """Whether a larger figure is the better one."""

    @property
    def value(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values)

    @property
    def verdict(self) -> Verdict:
        """The better goal that the figure reaches."""
        if self.must is None and self.aim is None:
            return Verdict.NONE
        if self._reaches(self.aim):
            return Verdict.AIM
        return Verdict.MUST if self._reaches(self.must) else Verdict.MISS

    def _reaches(self, goal: float | None) -> bool:
        if goal is None:
            return False
        return self.value >= goal if self.at_least else self.value <= goal


@frozen(kw_only=True)
class Detail:
    """A table of raw measurements that figures were computed from."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@frozen(kw_only=True)
class Result:
    """What one benchmark hands to the report."""

    figures: Sequence[Figure] = field(factory=tuple)
    details: Sequence[Detail] = field(factory=tuple)


@frozen(kw_only=True)
class Scale:
    """How much is measured: `rounds` samples a median, and every count multiplied by `factor`."""

    # The files that are built do not depend on it.
    rounds: int = field(default=9, eq=False)
    factor: float = 1.0

    def count(self, full: int, *, multiple: int = 1) -> int:
        """`full` scaled, as a multiple of `multiple` and at least that."""
        return max(1, round(full * self.factor / multiple)) * multiple


FULL = Scale()
QUICK = Scale(rounds=1, factor=0.02)


Sample = TypeVar("Sample")


def alternate(
    contenders: Mapping[str, Callable[[], Sample]], rounds: int
) -> dict[str, list[Sample]]:
    """Run every contender once a round and return its samples, in the order of the rounds.

    The order rotates, so no contender always follows the same one: the effects of a disk or a
    processor on later contenders are spread over all.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            gc.collect()
            samples[name].append(contenders[name]())
    return samples


def ratios(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    """Return the ratio within each round.

    Both samples of a round are seconds apart, so a machine that slows down for a minute does
    not move their median.
    """
    return [a / b for a, b in zip(numerator, denominator, strict=True)]


def spread(samples: Sequence[float], form: str = ",.0f") -> tuple[str, str, str]:
    """The median, the least and the greatest of the samples, formatted."""
    return tuple(format(f(samples), form) for f in (statistics.median, min, max))  # type: ignore[return-value]
