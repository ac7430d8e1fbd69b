"""SIGKILLs of one file's writers, a hundred where CI is set. The parent holds the acks."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from memvid_async import (
    ActionRecorded,
    CheckpointCreated,
    Erased,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    open_store,
)
from tests.support import kill_child
from tests.support.depth import KILLS

pytestmark = pytest.mark.one_loop

CHILD = Path(kill_child.__file__)


class Server:
    """The process that forks the ones that are killed."""

    def __init__(self, path):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(CHILD), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        os.set_blocking(self._process.stdout.fileno(), False)
        self._data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)

    def _lines(self):
        """Whole lines that have come since, waiting a little for one."""
        select.select([self._process.stdout], [], [], 0.0005)
        self._data += self._process.stdout.read() or b""
        *lines, self._data = self._data.split(b"\n")
        return [line.decode() for line in lines]

    def run(self, seed, wait):
        """Have a process record, kill it once ``wait(lines, seconds)``; what it said."""
        self._process.stdin.write(b"%d\n" % seed)
        self._process.stdin.flush()
        lines = []
        while not lines:
            lines = self._lines()
        child = int(lines.pop(0).split()[1])
        began = time.monotonic()
        while not wait(lines, time.monotonic() - began):
            lines += self._lines()
            assert not [line for line in lines if line.startswith("over")], "it ended by itself"
        os.kill(child, signal.SIGKILL)
        while not (lines and lines[-1].startswith("over")):
            lines += self._lines()
        assert lines[-1] == f"over {int(signal.SIGKILL)}"
        return [line.split() for line in lines[:-1]]


class Ledger:
    """What was acked, and what the file was seen to hold."""

    def __init__(self):
        self.acks = 0
        self.sequence = 0
        self.actions = {}
        self.counts = {}
        self.marks = set()
        self.started = set()
        self.ended = set()
        self.deleted = set()
        self.erased = set()
        self.unseen = 0

    def take(self, event):
        """Note an event that the file holds."""
        assert event.sequence == self.sequence + 1, "the sequence has a gap"
        self.sequence = event.sequence
        payload, session = event.payload, str(event.session_id)
        if isinstance(payload, ActionRecorded):
            key = payload.action.task
            seed, number, count = key.split(":")
            assert payload.action.input.digest.hex() == kill_child.digest(key)
            self._in_order(f"{seed}:{number}", int(count))
            self.actions[key] = event.sequence
        elif isinstance(payload, CheckpointCreated):
            self.marks.add((session, payload.checkpoint.checkpoint_id))
        elif isinstance(payload, SessionStarted):
            self.started.add(session)
        elif isinstance(payload, SessionEnded):
            self.ended.add(session)
        elif isinstance(payload, SessionDeleted):
            self.deleted.add(session)
        elif isinstance(payload, Erased):
            self.erased.add(event.sequence)

    def _in_order(self, agent, count):
        """What an agent did is there as far as it goes: it waits for each call."""
        expected = self.counts.get(agent, 0)
        assert count >= expected, f"{agent}: {count} came after {expected - 1}"
        # What lies between them was deleted before it was seen.
        self.unseen += count - expected
        self.counts[agent] = count + 1

    def check(self, acks):
        """Every one of the acks is in the file."""
        assert self.unseen <= len(self.erased)
        assert {words[1] for words in acks if words[0] == "deleted"} <= self.deleted
        for words in acks:
            self.acks += 1
            if words[0] == "action":
                sequence = int(words[2])
                assert self.actions.get(words[1]) == sequence or sequence in self.erased, words
            elif words[1] not in self.deleted:
                if words[0] == "started":
                    assert words[1] in self.started
                elif words[0] == "ended":
                    assert words[1] in self.ended
                elif words[0] == "checkpoint":
                    assert (words[1], int(words[2])) in self.marks


# When to kill: early, while it opens and recovers, or in the midst of its work. After this many
# acks, and at most that many seconds later.
MOMENTS = [(0, 0.006), (1, 0.01), (1, 0.03), (30, 0.01)]


def moment(acks, delay):
    since = []

    def wait(lines, seconds):
        if len(lines) >= acks and not since:
            since.append(seconds)
        return bool(since) and seconds - since[0] >= delay

    return wait


async def look(path, ledger, acks, *, read_only):
    """Open what was killed, and compare it to the acks."""
    async with open_store(path, read_only=read_only) as store:
        report = await store.verify()
        assert report.ok, report.problems
        last = store.last_sequence
        assert report.event_count == last >= ledger.sequence
        async with store.subscribe(after=ledger.sequence) as events:
            while ledger.sequence < last:
                ledger.take(await anext(events))
        ledger.check(acks)
        summaries = await store.list_sessions(include_open=True)
        listed = {str(summary.session_id) for summary in summaries}
        assert not listed & ledger.deleted
        for summary in summaries[-3:]:
            session = await store.get_session(summary.session_id)
            assert [action.index for action in session.actions] == list(range(summary.action_count))
        return store.torn_tail.bytes_dropped


async def test_what_was_acked_is_there_after_many_kills(tmp_path):
    path = tmp_path / "store.mva"
    first = random.SystemRandom().randrange(10**6)
    ledger, torn, awaited = Ledger(), 0, 0
    with Server(path) as server:
        for number in range(KILLS):
            seed = first + number
            rng = random.Random(seed)
            try:
                after, longest = MOMENTS[number % len(MOMENTS)]
                acks = server.run(seed, moment(after, longest * rng.random()))
                awaited += after
                unseen = not path.exists() or path.stat().st_size < 1536
                # Sometimes not written to: the next process then finds what this one left.
                read_only = rng.random() < 0.5 and not unseen
                torn += await look(path, ledger, acks, read_only=read_only) > 0
            except Exception as error:
                error.add_note(f"round {number}; begin with the seed {first} to see it again")
                raise
    assert ledger.acks >= awaited > 0
    assert len(ledger.actions) > 4 * KILLS
