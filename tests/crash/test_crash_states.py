"""Crash states, 250,000 where CI is set: each is opened and compared with what was acked.

    CRASH_SEED=7 python -m pytest tests/crash/test_crash_states.py      see one seed again
    CRASH_STATES=10000000 CRASH_FIRST=31337 python -m pytest …          more, and other ones

What the disk may do is told in ``tests/support/disk.py``, what must be found in ``oracle.py``.
"""

import multiprocessing
import os
import time
from collections import Counter

import pytest

from tests.crash.explore import explore
from tests.crash.workload import KINDS
from tests.support.depth import CRASH_STATES

STATES = int(os.environ.get("CRASH_STATES", CRASH_STATES))
FIRST = int(os.environ.get("CRASH_FIRST", "0"))
SEED = os.environ.get("CRASH_SEED")
# No seed has fewer states.
LEAST = 2000
# Each so-manieth seed goes through the real storage, on simulated system calls; that is slower.
FILES_EVERY = 4


def explored(seed):
    return explore(seed, through_files=seed % FILES_EVERY == 0)


if SEED is None:
    # Allows for a machine so busy that this gets a twentieth of two processors.
    @pytest.mark.timeout(300 + STATES // 100)
    def test_nothing_acked_is_lost_in_any_crash(capsys):
        states, crossed, levels, start = 0, Counter(), Counter(), time.monotonic()
        seeds = range(FIRST, FIRST + len(KINDS) + STATES // LEAST)
        with multiprocessing.get_context("spawn").Pool(min(8, os.cpu_count() or 1)) as pool:
            for found in pool.imap(explored, seeds):
                states += found.states
                crossed += found.boundaries
                levels += found.levels
                if states >= STATES and not set(KINDS) - set(crossed):
                    break
        with capsys.disabled():
            seconds = time.monotonic() - start
            print(f"\n{states} crash states of seeds {FIRST} to {found.seed} in {seconds:.0f} s")
        print(f"by level: {sorted(levels.items())}; boundaries: {dict(crossed)}")
        assert states >= STATES
        assert not set(KINDS) - set(crossed)

else:

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("through_files", [False, True])
    def test_a_seed_again(through_files):
        assert explore(int(SEED), through_files=through_files).states
