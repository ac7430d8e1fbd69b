"""Lives of a random agent on a real store, and what is left of it when its process is killed.

A kill is the file as it was once a command was durable. What the process does after that happens to
nobody, so one life shows what each kill of it leaves.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from attrs import Factory, define

from memvid_async import (
    RUN,
    Event,
    ReplayDivergenceError,
    SessionEnded,
    Store,
    StoreConfig,
    UncertainCall,
    current_call,
)
from memvid_async.core.commands import Command
from memvid_async.file.journal import Journal
from memvid_async.format.segment import SegmentKind
from memvid_async.storage import RamStorage

from .agents import Agent, Program, World
from .own_time import OwnTime, store_of
from .segments import segments_of

# Seconds of the loop's own time, after which nobody will ask any more.
_STALL = 1000.0


@define
class Remains:
    """The file that a process left, and what had happened outside by then.

    ``effects``: how often each call's effect happened. ``reported``: how often each call was said
    to be uncertain. Both are by the calls' keys.
    """

    file: bytes = b""
    effects: Counter[str] = Factory(Counter)
    reported: Counter[str] = Factory(Counter)

    def events(self) -> Iterator[Event]:
        """The events of the file."""
        view = Journal.open(RamStorage(self.file), StoreConfig(), read_only=True).view
        return iter(view.events_after(0, 2**30))


@define
class Life:
    """How a process ended. ``how``: done, suspended or diverged. ``kills``: what each kill of it
    would have left, in order; ``last``: what it did leave."""

    how: str
    result: int | None
    problem: BaseException | None
    kills: list[Remains]
    last: Remains


class _Process:
    """A process of the agent, which begins with what the one before left."""

    def __init__(self, before: Remains, chances: Random) -> None:
        self.chances = chances
        self.world = World(chances, before.effects.copy())
        self.reported = before.reported.copy()
        self.kills: list[Remains] = []
        self._storage = RamStorage(before.file)

    def now(self) -> Remains:
        data = bytes(self._storage.data)
        return Remains(data, self.world.effects.copy(), self.reported.copy())

    def open(self) -> Store:
        config = StoreConfig(clock=lambda: 0)
        journal = Journal.open(self._storage, config)
        # The file is longer: space is reserved in it.
        known = journal.view.end
        commit = journal.commit

        def committed(commands: Sequence[Command]) -> Any:
            nonlocal known
            answer = commit(commands)
            left = self.now()
            for segment in segments_of(left.file, SegmentKind.EVENTS):
                if segment.end > known:
                    killed = Remains(left.file[: segment.end], left.effects, left.reported)
                    self.kills.append(killed)
            known = journal.view.end
            return answer

        journal.commit = committed  # type: ignore[method-assign]
        return store_of(journal, config, self.chances)

    def report(self, call: UncertainCall) -> Any:
        self.reported[call.key] += 1
        return RUN


def live(
    program: Program,
    before: Remains,
    chances: Random,
    *,
    serves: bool = False,
    shutdown_after: int | None = None,
) -> Life:
    """Perform a program in a process of its own. ``shutdown_after``: seconds after which the
    process is asked to end. ``serves``: the recording is only served."""
    process = _Process(before, chances)
    result: int | None = None

    async def perform(store: Store) -> None:
        nonlocal result
        known = await store.list_sessions(include_open=True)
        block: Any
        if not known:
            block = store.session("agent")
        elif serves:
            block = store.serve(known[0].session_id, stall=_STALL)
        else:
            block = store.resume_session(
                known[0].session_id, replay=True, uncertain=process.report, stall=_STALL
            )
        async with block as session:
            agent = Agent(session, process.world, lambda: _key(current_call()))
            result = await agent.perform(program, 1)

    async def main() -> None:
        async with process.open() as store:
            agent = asyncio.create_task(perform(store))
            if shutdown_after is not None:
                asyncio.get_running_loop().call_later(shutdown_after, agent.cancel)
            await agent

    how, problem = "done", None
    with asyncio.Runner(loop_factory=OwnTime) as runner:
        try:
            runner.run(main())
        except asyncio.CancelledError:
            how = "suspended"
        except ReplayDivergenceError as error:
            how, problem = "diverged", error
    last = process.now()
    if how == "suspended" and any(isinstance(e.payload, SessionEnded) for e in last.events()):
        # It was asked to end when it had ended.
        how = "done"
    return Life(how, result, problem, process.kills, last)


def _key(call: Any) -> str:
    key: str = call.key
    return key
