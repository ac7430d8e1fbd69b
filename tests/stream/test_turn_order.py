"""Whose turn it is: simulated writers on one clock, without a server."""

import itertools
import statistics
from types import SimpleNamespace

import pytest

from memvid_async.stream import turn_order
from memvid_async.stream.turn_order import TurnOrder


class Race:
    """Writers that append whenever it is their turn, each message to all at once."""

    def __init__(self, count, monkeypatch, append):
        self.now, self.append = 100.0, append
        clock = SimpleNamespace(monotonic=lambda: self.now)
        monkeypatch.setattr(turn_order, "time", clock)
        self.writers = [bytes([at]) * 8 for at in range(1, count + 1)]
        self.orders = {writer: TurnOrder(writer) for writer in self.writers}
        self.has_lost = dict.fromkeys(self.writers, False)
        self.appended = {writer: [] for writer in self.writers}

    def try_all(self, writers):
        """Let each of them try; the first whose turn it is appends, and the others lost."""
        won = None
        for writer in writers:
            order = self.orders[writer]
            while (wait := order.wait(has_lost=self.has_lost[writer])) is not None:
                self.say_lost(writer)
                self.has_lost[writer] = True
                if wait.has_begun or self.appended.get(wait.writer, None) is not None:
                    break
                order.pass_over(wait.writer)
            if wait is not None:
                continue
            if won is None:
                won = writer
            else:
                self.has_lost[writer] = True
                self.say_lost(writer)
        self.now += self.append
        if won is not None:
            self.has_lost[won] = False
            self.appended[won].append(self.now)
            for order in self.orders.values():
                order.note(won, self.now)
            self.orders[won].note_append(self.append)

    def say_lost(self, writer):
        for order in self.orders.values():
            order.note_lost(writer)


@pytest.mark.parametrize("count", [2, 3, 8])
@pytest.mark.parametrize("append", [0.001, 0.02])
def test_all_who_want_to_get_their_turns(count, append, monkeypatch):
    race = Race(count, monkeypatch, append)
    turn = max(0.02, 4 * append) + 2 * append
    for _ in range(round(6 * turn * count / append)):
        race.try_all(race.writers)
    shares = [len(times) for times in race.appended.values()]
    assert min(shares) > 0.7 * sum(shares) / count
    for times in race.appended.values():
        gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
        assert max(gaps) < count * turn
        assert statistics.median(gaps) < 1.5 * append


def test_a_turn_that_is_not_used_is_over_soon(monkeypatch):
    race = Race(2, monkeypatch, 0.001)
    one, two = race.writers
    race.try_all([one])
    race.has_lost[two] = True
    wait = race.orders[two].wait(has_lost=True)
    assert wait.has_begun
    assert wait.writer == one
    race.now += wait.seconds + 0.0001
    assert race.orders[two].wait(has_lost=True) is None


def test_who_says_that_it_lost_and_does_not_append_is_passed_over(monkeypatch):
    race = Race(2, monkeypatch, 0.001)
    one, _ = race.writers
    gone = b"g" * 8
    for _ in range(60):
        race.try_all([one])
    race.say_lost(gone)
    order = race.orders[one]
    race.now += 0.0001
    wait = order.wait(has_lost=False)
    assert wait is not None
    assert (wait.writer, wait.has_begun) == (gone, False)
    order.pass_over(gone)
    assert order.wait(has_lost=False) is None
