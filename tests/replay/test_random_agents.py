"""Random agents on a real store, killed at every event: nothing happens twice without a report.

What is checked after each of their lives: an effect happened at most once more often than its call
was reported uncertain; each effect's call is in the log; and the finished log, served, lets the
agent come to the same result, with nothing run.
"""

from random import Random

import pytest

from memvid_async import ActionStarted
from pytest_memvid_async.told_apart import tasks_told_apart_by_chance
from tests.support.agents import Program, make_program
from tests.support.depth import RANDOM_AGENTS
from tests.support.lives import Life, Remains, live

MOST_LIVES = 4
# Agents that were refused or told something else once, each for a reason of its own.
ONCE_WRONG = (26, 84, 130, 1175, 2098)
KILLED = sorted({*range(RANDOM_AGENTS), *ONCE_WRONG})


@pytest.mark.parametrize("seed", KILLED)
def test_a_killed_agent_goes_on_where_it_was(seed: int) -> None:
    """Whatever it does, it is never refused."""
    for life in _killed_at_every_event(seed):
        assert life.how in ("killed", "done"), life.problem


@pytest.mark.parametrize("seed", [*range(RANDOM_AGENTS // 2), 806])
def test_an_agent_that_is_asked_to_end_does_nothing_twice(seed: int) -> None:
    """It is never refused, whatever it calls in its ``finally`` blocks."""
    for life in _killed_at_every_event(seed, shutdowns=True):
        assert life.how in ("killed", "suspended", "done"), life.problem


def _killed_at_every_event(seed: int, *, shutdowns: bool = False) -> list[Life]:
    """Kill an agent at each event of its first life, and at random ones of the next."""
    program = make_program(Random(seed))
    first = live(program, Remains(), Random(f"{seed} first"))
    assert first.how == "done"
    events = list(first.last.events())
    assert len(first.kills) == len(events)
    # Nothing but calls decides what they do.
    assert not tasks_told_apart_by_chance(events)
    lives = []
    # The last event says that the session has ended.
    for place, killed in enumerate(first.kills[:-1]):
        chances = Random(f"{seed} {place}")
        lives += _go_on(program, killed, chances, shutdowns=shutdowns)
    return lives


def _go_on(program: Program, left: Remains, chances: Random, *, shutdowns: bool) -> list[Life]:
    """Let an agent live again until it is done, and check what it did."""
    lives: list[Life] = []
    while not lives or lives[-1].how in ("killed", "suspended"):
        shutdown = dies_at = None
        if len(lives) < MOST_LIVES - 1:
            if shutdowns and chances.random() < 0.5:
                shutdown = chances.randrange(60)
            else:
                dies_at = chances.randrange(8)
        life = live(program, left, chances, shutdown_after=shutdown)
        left = life.last
        if dies_at is not None and dies_at < len(life.kills) - (life.how == "done"):
            life.how, left = "killed", life.kills[dies_at]
        lives.append(life)
    _check(program, lives[-1], left)
    return lives


def _check(program: Program, life: Life, left: Remains) -> None:
    payloads = [event.payload for event in left.events()]
    starts = {start.key for start in payloads if isinstance(start, ActionStarted)}
    for key, times in left.effects.items():
        assert key in starts
        assert times <= 1 + left.reported[key]
    if life.how == "done":
        served = live(program, left, Random(0), serves=True)
        assert (served.how, served.result) == ("done", life.result), served.problem
