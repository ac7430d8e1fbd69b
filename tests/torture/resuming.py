"""Kill an agent, also while it resumes: ``python -m tests.torture.resuming --kills N [--seed S]``.

An agent of six tools and six model calls (``paid_agent.py``) is killed with SIGKILL at the start,
in the middle and at the end of every call, and at N random moments; some are asked to end first.
Each is resumed until it is done. Then every effect happened at least once, and again only where the
call was reported uncertain and the policy said run; the result is that of an agent that was never
killed; and the recording serves again.

``--broken`` breaks a rule on purpose: then effects must be found that happened twice.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import define, field, frozen

from memvid_async import (
    ActionStarted,
    Durability,
    Store,
    StoreConfig,
    UncertainCallError,
    open_store,
)
from memvid_async.recording.command_intake import CommandIntake
from memvid_async.replay.past_calls import PastSession
from tests.torture.faults import Fuse
from tests.torture.ledger import LostError, demand
from tests.torture.paid_agent import MOMENTS, NAMES, POLICIES, PaidAgent, World

PATIENCE = 60.0
MOST_LIVES = 6
RANDOM_KILLS = ("time", "time", "call", "write", "SIGINT", "SIGTERM")
ASKED_TO_END, FAILED = 2, 1
ENDS = (0, ASKED_TO_END, -signal.SIGKILL, -signal.SIGTERM)
BROKEN = ("late start", "silent retry")


@frozen
class Case:
    """An agent, and how it lives. ``broken``: the rule that does not hold; None for none."""

    folder: Path
    at_once: bool
    policy: str
    durability: Durability
    broken: str | None = None

    @property
    def path(self) -> Path:
        return self.folder / "trip.mva"


@frozen
class Killed:
    """How a life ends. ``how``: "moment" (the call and the moment in ``where``), "call" and "write"
    (before the storage call number ``at``, or in the middle of that write), "time" (``after``
    seconds), the name of a signal ("SIGINT", "SIGTERM": it is asked to end after as long, and
    killed a moment later) or "none"."""

    how: str = "none"
    where: tuple[str, str] | None = None
    at: int = 0
    after: float = 0.0


# A life, in a process of its own.


async def live(case: Case, world: World) -> None:
    """Begin the agent, or go on where it was killed."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
    config = StoreConfig(durability=case.durability, flush_interval=0.01)
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with open_store(case.path, config=config) as store, AsyncExitStack() as stack:
        found = await store.list_sessions(include_open=True)
        # One that is asked to end before its first call has nothing to go on with: it has ended.
        if not found or found[-1].error is not None:
            session = await stack.enter_async_context(store.session("trip"))
        elif found[-1].ended_ns is not None:
            return
        else:
            session = await _resume(store, stack, case, world, found[-1].session_id)
        world.say(await PaidAgent(session, world, at_once=case.at_once).run())


async def _resume(
    store: Store, stack: AsyncExitStack, case: Case, world: World, session_id: UUID
) -> Any:
    try:
        return await stack.enter_async_context(store.resume_session(session_id, replay=True))
    except UncertainCallError as error:
        for call in error.calls:
            world.report(call)
    policy = world.policy(case.policy)
    resumed = store.resume_session(session_id, replay=True, uncertain=policy)
    return await stack.enter_async_context(resumed)


def break_rule(broken: str | None) -> None:
    """Let a rule not hold in this process: that a start is durable before its effect, or that a
    call in flight is reported before it is tried again."""
    if broken == "late start":
        CommandIntake.is_dirty = False  # type: ignore[assignment,method-assign]
    elif broken == "silent retry":
        PastSession._is_uncertain = lambda *_: False  # type: ignore[method-assign]


async def audit(case: Case, world: World, expected: list[str] | None) -> None:
    """Compare what happened, what was recorded, and what was reported.

    ``expected``: what an agent that was never killed came to.

    :raises LostError: when they do not fit.
    """
    async with open_store(case.path, read_only=True) as store:
        report = await store.verify()
        demand(report.ok, f"the file is damaged: {report.problems}")
        listed = (await store.list_sessions(include_open=True))[-1]
        session = await store.get_session(listed.session_id)
        demand(session.error is None, f"the session ended with {session.error}")
        tries: Counter[str] = Counter()
        async with store.subscribe(session_id=listed.session_id) as events:
            async for event in events:
                if isinstance(event.payload, ActionStarted):
                    tries[event.payload.key] += 1
                if event.sequence == store.last_sequence:
                    break
        failures = Counter(_name(one) for one in session.actions if one.error is not None)
        _compare(case, world, tries, failures)
        # Nobody said how a call ended that was made by one of which somebody said how it ended.
        settled = [one.started for one in session.actions if one.call.settled_by is not None]
        left = [one for one in session.in_flight if one.parent not in settled]
        demand(not left, f"left in flight: {left}")
        before = {name: world.effects(name) for name in NAMES}
        async with store.serve(listed.session_id) as served:
            said = await PaidAgent(served, world, at_once=case.at_once).run()
        demand(before == {name: world.effects(name) for name in NAMES}, "serving had effects")
    for result in [*world.results, said]:
        demand(expected in (None, result), f"the result is {result}, not {expected}")


def _name(action: Any) -> str:
    name: str = getattr(action.details, "name", None) or action.details.model
    return name


def _compare(case: Case, world: World, tries: Counter[str], failures: Counter[str]) -> None:
    reported = Counter(world.reported)
    for name in NAMES:
        effects = world.effects(name)
        demand(effects, f"{name!r} never happened")
        # After a failure that it was told of, the agent makes a call of its own. What pays makes
        # that with another receipt.
        failed = failures[name] + (failures["pay"] if name == "receipt" else 0)
        allowed = 1 + failed
        if case.policy != "look":
            allowed += sum(count for (_, whose), count in reported.items() if whose == name)
        happened = effects.total()
        demand(happened <= allowed, f"{name!r} happened {happened} times, and may {allowed}")
        for key, times in effects.items():
            demand(key in tries, f"{name!r} happened, and is not in the log")
            demand(times <= tries[key], f"{name!r} happened {times} times in {tries[key]} tries")
            most = 1 + reported[key, name]
            demand(tries[key] <= most, f"{name!r} was tried {tries[key]} times, and may {most}")


# Processes.


def fork(job: Callable[[], Awaitable[None]], fuse: Fuse | None = None) -> tuple[int, int]:
    """Do a job in a process of its own; return its id, and a pipe with what went wrong in it."""
    heard, telling = os.pipe()
    # Until the child's loop is there to be told.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT,))
        os.close(telling)
        return child, heard
    status = ASKED_TO_END
    try:
        if fuse is not None:
            fuse.install()
        asyncio.run(job())  # type: ignore[arg-type]
        status = 0
    except (KeyboardInterrupt, asyncio.CancelledError):
        pass
    except LostError as error:
        status = FAILED
        os.write(telling, str(error).encode())
    except BaseException:  # noqa: BLE001 - the parent is told
        status = FAILED
        os.write(telling, traceback.format_exc().encode()[-60_000:])
    finally:
        os._exit(status)


def hear(pipe: int, until: float) -> bytes | None:
    """Return what a process said until it ended; None when it is still there at that time."""
    said = b""
    while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        data = os.read(pipe, 65536)
        said += data
        if not data:
            return said
    return None


@define
class Torture:
    """One run. ``kills``: how many SIGKILLs there were of each kind. ``asked``: how many lives
    ended by themselves after they were asked to."""

    folder: Path
    draw: random.Random
    broken: str | None = None
    kills: Counter[str] = field(factory=collections.Counter)
    asked: int = 0
    cases: int = 0
    lives: int = 0
    kills_of_resumes: int = 0
    reported: int = 0
    again: int = 0
    expected: list[str] | None = None
    _lasts: float = 0.0

    def run(self, kills: int, every: int) -> str:
        """Kill at every nth moment of the calls, and at this many random ones."""
        began = time.monotonic()
        self._measure()
        moments = [(name, moment) for name in NAMES for moment in MOMENTS]
        places = [(where, at_once) for where in moments for at_once in (False, True)]
        self.draw.shuffle(places)
        for where, at_once in places[::every]:
            self._case(at_once, Killed("moment", where))
        while self.kills.total() - self.kills["moment"] < kills:
            self._case(self.draw.random() < 0.6, self._random())
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.kills.items()))
        return (
            f"{self.kills.total()} kills ({kinds}; {self.kills_of_resumes} of them in a resume) of "
            f"{self.cases} agents; {self.asked} of {self.lives} lives ended when asked to; "
            f"{time.monotonic() - began:.0f} s: "
            f"{self.reported} calls were reported uncertain, {self.again} effects happened again, "
            "and nothing else differs from agents that were never killed"
        )

    def _measure(self) -> None:
        """Find out how long an agent lives that nobody kills, and what it comes to."""
        began = time.monotonic()
        for at_once in (False, True):
            case = self._new_case(at_once)
            self._live(case, Killed())
            self._lasts = (time.monotonic() - began) / 2
            said = World(case.folder).results
            demand(self.expected in (None, said[0]), "two ways to work come to two results")
            self.expected = said[0]
            self._audit(case)

    def _new_case(self, at_once: bool) -> Case:
        self.cases += 1
        folder = self.folder / f"{self.cases}"
        folder.mkdir()
        policy = POLICIES[self.cases % len(POLICIES)]
        durability = self.draw.choice(list(Durability))
        if self.broken == "late start":
            durability = Durability.BUFFERED  # elsewhere a start is durable as anything is
        return Case(folder, at_once, policy, durability, self.broken)

    def _random(self, *, resumes: bool = False) -> Killed:
        how = self.draw.choice((*RANDOM_KILLS, "moment") if resumes else RANDOM_KILLS)
        if how == "moment":
            return Killed(how, (self.draw.choice(NAMES), self.draw.choice(MOMENTS)))
        after = self.draw.uniform(0.0, self._lasts)
        at = self.draw.randint(1, 120 if how == "call" else 40)
        return Killed(how, None, at, after)

    def _case(self, at_once: bool, killed: Killed) -> None:
        case = self._new_case(at_once)
        lives = [killed]
        try:
            while status := self._live(case, lives[-1]):
                if status == -signal.SIGKILL:
                    self.kills[lives[-1].how] += 1
                    self.kills_of_resumes += len(lives) > 1
                else:
                    self.asked += 1
                is_last = len(lives) >= MOST_LIVES or self.draw.random() < 0.3
                lives.append(Killed() if is_last else self._random(resumes=True))
            self._audit(case)
        except LostError as error:
            raise LostError(f"{error}\n{case}\n{lives}") from None
        shutil.rmtree(case.folder)

    def _live(self, case: Case, killed: Killed) -> int:
        """Let an agent live; return how its process ended, 0 when it is done."""
        self.lives += 1
        fuse = None
        if killed.how in ("call", "write"):
            only, share = ("write", 0.5) if killed.how == "write" else (None, None)
            fuse = Fuse(killed.at, share, only=only)
        world = World(case.folder, killed.where)

        def job() -> Awaitable[None]:
            break_rule(case.broken)
            return live(case, world)

        child, pipe = fork(job, fuse)
        said = self._end(child, pipe, killed)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(pipe)
        demand(said is not None, "it hung")
        demand(status in ENDS, f"it failed with {status}:\n{_text(said)}")
        return status

    def _end(self, child: int, pipe: int, killed: Killed) -> bytes | None:
        if killed.how in ("time", "SIGINT", "SIGTERM"):
            said = hear(pipe, time.monotonic() + killed.after)
            if said is not None:
                return said
            if killed.how != "time":
                os.kill(child, signal.Signals[killed.how])
                # Killed in the midst of its end, or given the time that it needs.
                rest = self.draw.choice([0.0, 0.002, PATIENCE])
                said = hear(pipe, time.monotonic() + rest)
                if said is not None:
                    return said
            os.kill(child, signal.SIGKILL)
        said = hear(pipe, time.monotonic() + PATIENCE)
        if said is None:
            os.kill(child, signal.SIGKILL)
        return said

    def _audit(self, case: Case) -> None:
        child, pipe = fork(lambda: audit(case, World(case.folder), self.expected))
        said = hear(pipe, time.monotonic() + PATIENCE)
        if said is None:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(pipe)
        demand(said is not None, "the recording hangs when it is served")
        demand(status == 0, _text(said))
        world = World(case.folder)
        self.reported += len(world.reported)
        self.again += sum((n.total() - 1) for n in map(world.effects, NAMES))


def _text(said: bytes | None) -> str:
    return (said or b"").decode(errors="replace")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.resuming", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at random moments")
    parser.add_argument("--every", type=int, default=1, help="of the moments of calls: every nth")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are made")
    parser.add_argument("--broken", choices=BROKEN, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="resuming-", dir=options.folder))
    gc.freeze()
    try:
        torture = Torture(folder, random.Random(seed), options.broken)
        print(torture.run(options.kills, options.every))
    except LostError as error:
        print(f"seed {seed}: {error}\nthe files are kept: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
