"""An agent of six tools and six model calls, and the world in which each of them has its effect.

Every effect is a line in a file of its own, written by one system call, so that it is there whole
or not at all, whenever the process dies.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from memvid_async import RUN, Failed, Result, UncertainCall, current_call

CITIES = ("Rome", "Oslo", "Lima")
TOOLS = ("search", *(f"hold {city}" for city in CITIES), "pay", "receipt")
MODELS = ("plan", *(f"judge {city}" for city in CITIES), "choose", "sum up")
STREAMED = ("judge Oslo", "choose")
NAMES = TOOLS + MODELS
MOMENTS = ("start", "middle", "end")
# Seconds that a timeout allows, which are never over.
PATIENCE = 60.0
POLICIES = ("run", "again", "look", "refuse")


def die() -> None:
    """What ``kill -9`` does, at this very instruction."""
    os.kill(os.getpid(), signal.SIGKILL)


class World:
    """What lies outside of the agent and outlives it, in a folder.

    ``dies_at``: the name of a call, and its moment at which the process is killed; None for none.
    """

    def __init__(self, folder: Path, dies_at: tuple[str, str] | None = None) -> None:
        self._folder = folder
        self._dies_at = dies_at

    # Effects.

    def reach(self, name: str, moment: str) -> None:
        """Die, if this is where."""
        if self._dies_at == (name, moment):
            die()

    def happen(self, name: str) -> None:
        """Have a call's effect."""
        call = current_call()
        assert call is not None
        self._append(f"effect {name}", call.key)

    def effects(self, name: str) -> Counter[str]:
        """How often a call's effect happened, by the key of the call."""
        return Counter(self._lines(f"effect {name}"))

    # What was said of calls in flight: a report before the agent ran, and what was decided.

    def report(self, call: UncertainCall) -> None:
        self._append("reported", f"{call.key} {call.name}")

    @property
    def reported(self) -> list[tuple[str, str]]:
        """The keys and names of the calls that were reported uncertain, each time that one was."""
        lines = [line.split(" ", 1) for line in self._lines("reported")]
        return [(key, name) for key, name in lines]

    def say(self, result: Any) -> None:
        """Keep what the agent came to."""
        self._append("result", json.dumps(result))

    @property
    def results(self) -> list[Any]:
        return [json.loads(line) for line in self._lines("result")]

    def _append(self, name: str, line: str) -> None:
        path = self._folder / name
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def _lines(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text("utf-8").splitlines() if path.exists() else []

    # What the agent calls.

    async def tool(self, name: str) -> str:
        self.reach(name, "start")
        self.happen(name)
        await asyncio.sleep(0)
        self.reach(name, "middle")
        return told(name)

    def model(self, name: str) -> Callable[[Any], Any]:
        """Return a model; it streams where the name says so."""

        async def whole(_prompt: Any) -> str:
            return await self.tool(name)

        async def streamed(_prompt: Any) -> AsyncIterator[str]:
            self.reach(name, "start")
            self.happen(name)
            for chunk in told(name).split("|"):
                yield chunk
                await asyncio.sleep(0)
                self.reach(name, "middle")

        return streamed if name in STREAMED else whole

    # Who decides about calls that were in flight.

    def policy(self, name: str) -> Any:
        """Return what ``uncertain`` is to be."""
        return {"run": "run", "again": again, "look": self._look, "refuse": refuse}[name]

    async def _look(self, call: UncertainCall) -> Any:
        """Ask the world: nothing runs twice."""
        assert call.name is not None
        if not self.effects(call.name)[call.key]:
            return RUN
        return Result(told(call.name).replace("|", ""))


def again(_call: UncertainCall) -> Any:
    return RUN


def refuse(_call: UncertainCall) -> Any:
    return Failed(ConnectionAbortedError("nobody knows"))


def told(name: str) -> str:
    """What a tool or a model returns; a streamed one in chunks that "|" divides."""
    return f"{name} | is | done" if name in STREAMED else f"{name} is done"


async def insist(make: Callable[[], Awaitable[Any]]) -> Any:
    """Try again, by a call of its own, where a connection broke: the agent's decision."""
    while True:
        try:
            return await make()
        except ConnectionError:
            continue


class PaidAgent:
    """``at_once``: whether it works on its three cities at once, in tasks without names."""

    def __init__(self, session: Any, world: World, *, at_once: bool) -> None:
        self._session = session
        self._world = world
        self._at_once = at_once

    async def run(self) -> list[str]:
        """Do the whole of it, and return what was said."""
        said = [await self._ask("plan"), await self._use("search")]
        if self._at_once:
            async with self._session.timeout(PATIENCE), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._city(city)) for city in CITIES]
            said += [task.result() for task in tasks]
        else:
            said += [await self._city(city) for city in CITIES]
        said.append(await self._ask("choose"))
        said.append(await insist(self._pay))
        self._world.reach("pay", "end")
        return [*said, await self._ask("sum up")]

    async def _city(self, city: str) -> str:
        return f"{await self._use(f'hold {city}')}, {await self._ask(f'judge {city}')}"

    async def _pay(self) -> str:
        """A tool that calls a tool."""

        async def pay(name: str) -> str:
            receipt = await self._use("receipt")
            return f"{await self._world.tool(name)}, {receipt}"

        paid: str = await self._session.call_tool("pay", {"name": "pay"}, pay)
        return paid.split(",", maxsplit=1)[0]

    async def _use(self, name: str) -> str:
        called = self._session.call_tool
        done: str = await insist(lambda: called(name, {"name": name}, self._world.tool))
        self._world.reach(name, "end")
        return done

    async def _ask(self, name: str) -> str:
        async def whole() -> str:
            return str(await self._session.call_model(name, model, model=name))

        async def streamed() -> str:
            chunks = self._session.stream_model(name, model, model=name)
            return "".join([str(chunk) async for chunk in chunks])

        model = self._world.model(name)
        said: str = await insist(streamed if name in STREAMED else whole)
        self._world.reach(name, "end")
        return said
