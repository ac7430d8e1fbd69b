"""Random agents, killed at every event: nothing happens twice unless it was reported.

What is checked after each of their lives: an effect happened at most once more often than its call
was reported uncertain; each effect's call is in the log; and the finished log, served, lets the
agent come to the same result, with nothing run.
"""

import random
from collections import Counter

import pytest

from tests.support.agents import Program, World, make_program
from tests.support.depth import RANDOM_AGENTS
from tests.support.rehearsal import Life, Log, live

MOST_LIVES = 4


@pytest.mark.parametrize("seed", range(RANDOM_AGENTS))
def test_a_killed_agent_goes_on_where_it_was(seed: int) -> None:
    """Whatever it does, it is never refused."""
    for lives in _killed_at_every_event(seed):
        assert lives[-1].how == "done", lives[-1].problem


@pytest.mark.parametrize("seed", range(RANDOM_AGENTS // 2))
def test_an_agent_that_is_asked_to_end_does_nothing_twice(seed: int) -> None:
    """Calls in its ``finally`` blocks look like decisions, so some of these are refused."""
    ends = Counter[str]()
    for lives in _killed_at_every_event(seed, shutdowns=True):
        ends.update(life.how for life in lives)
    assert ends["diverged"] <= 1 + ends.total() / 20


def _killed_at_every_event(seed: int, *, shutdowns: bool = False) -> list[list[Life]]:
    """Kill an agent at each event of its first life, and at random ones of the next."""
    program = make_program(random.Random(seed))
    found = []
    while not found or len(found[-1]) > 1:
        chance = random.Random(f"{seed} {len(found)}")
        found.append(_lives(program, len(found) + 1, chance, shutdowns=shutdowns))
    return found


def _lives(program: Program, dies_at: int, chance: random.Random, *, shutdowns: bool) -> list[Life]:
    """Kill an agent at an event, let it live again until it is done, and check what it did."""
    world = World(chance)
    log = Log([], world, dies_at)
    lives = [live(program, log, world)]
    while lives[-1].how in ("dead", "suspended"):
        shutdown = None
        log = log.again(None)
        if len(lives) < MOST_LIVES:
            if shutdowns and chance.random() < 0.5:
                shutdown = chance.randrange(100)
            else:
                log.dies_at = len(log.entries) + 1 + chance.randrange(8)
        lives.append(live(program, log, world, shutdown_after=shutdown))
    for key, times in world.effects.items():
        assert key in log.starts
        assert times <= 1 + log.reported[key]
    if lives[-1].how == "done":
        served = live(program, log.again(None), world, serves=True)
        assert (served.how, served.result) == ("done", lives[-1].result)
    return lives
