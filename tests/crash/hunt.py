"""Holds every seeded bug of ``mutants.py`` against the checks, and prints who finds it.

    python -m tests.crash.hunt             each mutant against the check that finds it soonest
    python -m tests.crash.hunt --all       each against every check
    python -m tests.crash.hunt slot        those with "slot" in their name

The exit status is 1 if a mutant survives, or if a check fails without one.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from random import Random

import pytest
from attrs import frozen

from tests.crash import test_rules
from tests.crash.driver import small_bounds
from tests.crash.explore import Effort, Explorer
from tests.crash.failures import Run, calls_of, faults
from tests.crash.mutants import MUTANTS, Mutant
from tests.crash.oracle import Values
from tests.support.calls import file_opener, simulated_calls

QUICK = Effort(images=(40, 5, 4), nested=(1, 0, 0), every=(5, 1, 1))
# Those that find every mutant between them.
QUICK_SEEDS = (4, 0, 1)
# Of the faults, each so-manieth.
QUICK_FAULTS = 3


# The checks: they raise something when they find a bug.


def states() -> None:
    """BrokenPromiseError states over the simulated disk."""
    for seed in QUICK_SEEDS:
        Explorer(seed, QUICK).run()


def files() -> None:
    """The same through ``FileStorage``."""
    with simulated_calls() as system:
        for seed in QUICK_SEEDS:
            Explorer(seed, QUICK, file_opener(system)).run()


def failures() -> None:
    """Failing calls."""
    with simulated_calls() as system, small_bounds(Random("1")):
        values = Values()
        for at, fault in enumerate(faults(calls_of(system))):
            if at % QUICK_FAULTS == 0:
                Run(system, fault, values).run()


def rules() -> None:
    """The hand-made files of ``test_rules.py``."""
    for name, test in vars(test_rules).items():
        if name.startswith("test_"):
            arguments = [{}]
            for mark in getattr(test, "pytestmark", []):
                names, values = mark.args
                arguments = [{names: value} for value in values]
            for given in arguments:
                test(**given)


CHECKS: dict[str, Callable[[], None]] = {
    "rules": rules,
    "failures": failures,
    "states": states,
    "files": files,
}


def finds(check: str, mutant: Mutant | None) -> str | None:
    """What a check says of a mutant; None when it finds nothing."""
    with pytest.MonkeyPatch.context() as patch:
        if mutant is not None:
            mutant.seed(patch)
        try:
            CHECKS[check]()
        except (AttributeError, NameError):
            # The mutant fits the code no longer; it would be found by anything.
            raise
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it finds
            return f"{type(error).__name__}: {str(error) or repr(error)}".splitlines()[0]
    return None


@frozen
class Hunted:
    """A mutant (None: the code as it is), the checks that found it, what the first of them said,
    and the seconds until then."""

    name: str | None
    by: tuple[str, ...]
    says: str
    seconds: float


def hunt(name: str | None, checks: Iterable[str]) -> Hunted:
    """Hold one mutant against checks."""
    mutant = next((each for each in MUTANTS if each.name == name), None)
    start, by, says, seconds = time.process_time(), [], "", 0.0
    for check in checks:
        found = finds(check, mutant)
        if found is not None:
            seconds = seconds or time.process_time() - start
            by.append(check)
            says = says or found
    return Hunted(name, tuple(by), says, seconds or time.process_time() - start)


def main(*arguments: str) -> int:
    """Hunt all; in two processes."""
    wanted = [argument for argument in arguments if not argument.startswith("--")]
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in wanted)]
    survivors, context = [], multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        sound = [pool.submit(hunt, None, [check]) for check in CHECKS]
        jobs = []
        for mutant in chosen:
            checks = CHECKS if "--all" in arguments else [mutant.found_by]
            jobs.append(pool.submit(hunt, mutant.name, list(checks)))
        for job in sound:
            if job.result().by:
                print(f"without a mutant, {job.result().by[0]} finds: {job.result().says}")
                return 1
        print("| mutant | killed by | what it says | CPU |\n|---|---|---|---|")
        for job in jobs:
            found = job.result()
            if not found.by:
                survivors.append(found.name)
            by, says = ", ".join(found.by) or "nothing", found.says.replace("|", "/")
            print(f"| {found.name} | {by} | {says:.90} | {found.seconds:.1f} s |", flush=True)
    print(f"\n{len(chosen)} mutants, {len(survivors)} survived: {survivors}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
