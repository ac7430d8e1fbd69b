"""At least 250,000 crash states in a CI run, each opened and compared with what was acked.

    CRASH_SEED=7 python -m pytest tests/crash/test_crash_states.py      see one seed again
    CRASH_STATES=10000000 CRASH_FIRST=31337 python -m pytest …          more, and other ones

What the disk may do is told in ``simfs.py``, what must be found in ``oracle.py``.
"""

import os
from collections import Counter

import pytest

from tests.crash.explore import Explorer
from tests.crash.simos import file_opener, simulated_calls
from tests.crash.workload import KINDS, sim_opener

STATES = int(os.environ.get("CRASH_STATES", "15000"))
SHARDS = 10 if STATES >= 100_000 else 2
QUOTA = STATES // SHARDS
FIRST = int(os.environ.get("CRASH_FIRST", "0"))
SEEDS_A_SHARD = 1_000_000
SEED = os.environ.get("CRASH_SEED")


def explore(seeds, opener, quota):
    """Explore seeds until there were enough states and every kind of boundary was crossed."""
    states, explored, crossed, levels = 0, [], Counter(), Counter()
    for seed in seeds:
        explorer = Explorer(seed, opener=opener)
        explorer.run()
        explored.append(seed)
        states += explorer.states
        crossed += explorer.boundaries
        levels += explorer.levels
        if states >= quota and not set(KINDS) - set(crossed):
            break
    shown = f"{explored[0]} to {explored[-1]}"
    print(f"\n{states} crash states (by level: {sorted(levels.items())}) of seeds {shown}")
    print(", ".join(f"{kind}: {crossed[kind]}" for kind in KINDS))
    return states, crossed


if SEED is None:
    # A shard's time limit allows for a machine ten times as slow as the one this was measured on.
    @pytest.mark.timeout(120 + QUOTA // 200)
    @pytest.mark.parametrize("shard", range(SHARDS))
    def test_nothing_acked_is_lost_in_any_crash(shard):
        first = FIRST + shard * SEEDS_A_SHARD
        seeds = range(first, first + SEEDS_A_SHARD)
        if shard == 0:
            # The same through the real storage, on simulated system calls.
            with simulated_calls() as system:
                states, crossed = explore(seeds, file_opener(system), QUOTA)
        else:
            states, crossed = explore(seeds, sim_opener, QUOTA)
        assert states >= QUOTA
        assert not set(KINDS) - set(crossed)

else:

    @pytest.mark.timeout(3600)
    @pytest.mark.parametrize("storage", ["simulated", "file"])
    def test_a_seed_again(storage):
        with simulated_calls() as system:
            opener = sim_opener if storage == "simulated" else file_opener(system)
            states, _ = explore([int(SEED)], opener, 0)
        assert states
