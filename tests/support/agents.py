"""Random agents: programs of calls, and what performs them on a session.

A program decides by what its calls return, and what it passes on depends on everything that it was
told, so an answer that reaches it at another place, or in another order, shows.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

Program = tuple[Any, ...]


class ToolError(Exception):
    """A tool failed."""


def mixed(*values: object) -> int:
    """Return a number that depends on all values and their order, the same in every process."""
    result = 17
    for value in values:
        part = value if isinstance(value, int) else sum(str(value).encode())
        result = (result * 1_000_003 + part + 7) % 1_000_000_007
    return result


# How often each kind of program is chosen, where it may nest.
WEIGHTS = {
    "seq": 5,
    "branch": 2,
    "loop": 2,
    "gather": 3,
    "group": 3,
    "first": 3,
    "retry": 3,
    "step": 1,
    "nest": 3,
    "cancel": 2,
    "stream": 2,
    "finally": 1,
    "same": 2,
    "call": 3,
}


def make_program(random_: random.Random, depth: int = 3) -> Program:
    """Return a random program; ``depth``: how deep it nests."""
    if depth == 0 or random_.random() < 0.15:
        return ("call", random_.choice("abc"), random_.random() < 0.25)

    def sub(count: int = 1) -> list[Program]:
        return [make_program(random_, depth - 1) for _ in range(count)]

    kind = random_.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    several = 2 + random_.randrange(2)
    parts: dict[str, list[Any]] = {
        "seq": sub(several),
        "branch": sub(2),
        "loop": sub(),
        "gather": sub(several),
        "group": [random_.random() < 0.5, *sub(several)],
        "first": sub(several),
        "retry": sub(),
        "step": sub(),
        "nest": sub(),
        "cancel": [1 + random_.randrange(6), *sub(2)],
        "stream": [1 + random_.randrange(3), random_.random() < 0.3, *sub()],
        "finally": sub(2),
        "same": sub(several),
        "call": [random_.choice("abc"), random_.random() < 0.25],
    }
    return (kind, *parts[kind])


class World:
    """What is outside of the agent, and outlives its process: the effects that its tools had.

    ``random``: decides what tools return, and how long everything takes. ``effects``: how often
    each key's effect happened.
    """

    def __init__(self, random_: random.Random, effects: Counter[str]) -> None:
        self.random = random_
        self.effects = effects

    async def pass_time(self) -> None:
        """Let some seconds pass, or none."""
        await asyncio.sleep(self.random.randrange(6))


class Agent:
    """Performs programs on a session: anything with ``call_tool``, ``step`` and ``stream_model``.

    ``key``: returns the key of the call that runs.
    """

    def __init__(self, session: Any, world: World, key: Callable[[], str]) -> None:
        self._session = session
        self._world = world
        self._key = key

    async def _effect(self, fails: bool) -> int:
        world = self._world
        await world.pass_time()
        world.effects[self._key()] += 1
        await world.pass_time()
        if fails and world.random.random() < 0.5:
            raise ToolError(f"no luck {world.random.randrange(3)}")
        return world.random.randrange(4)

    async def perform(self, program: Program, told: int) -> int:
        """Perform a program that was told a number, and return what it makes of it."""
        what, *rest = program
        method = getattr(self, f"_{what}")
        return await method(told, *rest)

    async def _call(self, told: int, name: str, fails: bool) -> int:
        async def run(told: int) -> int:
            return await self._effect(fails)

        try:
            return mixed(told, await self._session.call_tool(name, {"told": told}, run))
        except ToolError as error:
            return mixed(told, str(error))

    async def _nest(self, told: int, inner: Program) -> int:
        async def run(told: int) -> int:
            await self._effect(fails=False)
            return await self.perform(inner, told)

        return mixed(told, await self._session.call_tool("nest", {"told": told}, run))

    async def _retry(self, told: int, inner: Program) -> int:
        for attempt in range(3):
            try:

                async def run(told: int, attempt: int) -> int:
                    return await self._effect(fails=True)

                given = {"told": told, "attempt": attempt}
                told = mixed(told, await self._session.call_tool("shaky", given, run))
                break
            except ToolError as error:
                told = mixed(told, str(error))
        return await self.perform(inner, told)

    async def _seq(self, told: int, *parts: Program) -> int:
        for part in parts:
            told = await self.perform(part, told)
        return told

    async def _branch(self, told: int, one: Program, other: Program) -> int:
        return await self.perform(one if told % 2 else other, told)

    async def _loop(self, told: int, inner: Program) -> int:
        for _ in range(told % 3):
            told = await self.perform(inner, told)
        return told

    async def _gather(self, told: int, *parts: Program) -> int:
        found = await asyncio.gather(
            *(self.perform(part, mixed(told, place)) for place, part in enumerate(parts))
        )
        return mixed(told, *found)

    async def _same(self, told: int, first: Program, *parts: Program) -> int:
        """Tasks that all do the same until they are told different things."""
        found = await asyncio.gather(*(self.perform(first, told) for _ in range(1 + len(parts))))
        return mixed(told, *found)

    async def _group(self, told: int, named: bool, *parts: Program) -> int:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self.perform(part, mixed(told, place)),
                    name=f"worker {place}" if named else None,
                )
                for place, part in enumerate(parts)
            ]
        return mixed(told, *(task.result() for task in tasks))

    async def _first(self, told: int, *parts: Program) -> int:
        """The first to end decides; the others are cancelled."""
        tasks = [
            asyncio.create_task(self.perform(part, mixed(told, place)))
            for place, part in enumerate(parts)
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
        stopped = [one for one in ends if isinstance(one, BaseException)]
        for error in stopped:
            if not isinstance(error, (asyncio.CancelledError, ToolError)):
                raise error
        winners = [place for place, task in enumerate(tasks) if task in done]
        return mixed(told, *winners, *(mixed(str(ends[place])) for place in winners))

    async def _cancel(self, told: int, after: int, one: Program, other: Program) -> int:
        """A task is cancelled once another one is through, whatever it does then."""
        task = asyncio.create_task(self.perform(one, mixed(told, 1)), name="to be cancelled")
        try:
            told = await self.perform(other, told)
        finally:
            task.cancel()
            [end] = await asyncio.gather(task, return_exceptions=True)
        if isinstance(end, BaseException):
            if not isinstance(end, (asyncio.CancelledError, ToolError)):
                raise end
            return told
        return mixed(told, end)

    async def _step(self, told: int, inner: Program) -> int:
        async with self._session.step("a step"):
            return await self.perform(inner, told)

    async def _finally(self, told: int, one: Program, other: Program) -> int:
        try:
            told = await self.perform(one, told)
        finally:
            last = await self.perform(other, mixed(told, 5))
        return mixed(told, last)

    async def _stream(self, told: int, count: int, stops: bool, inner: Program) -> int:
        async def generate(_: object) -> Any:
            await self._effect(fails=False)
            for _ in range(count):
                await self._world.pass_time()
                yield str(self._world.random.randrange(4))

        place = 0
        try:
            async with aclosing(self._session.stream_model(f"stream {told}", generate)) as stream:
                async for chunk in stream:
                    told = mixed(told, chunk)
                    if place == 0:
                        told = await self.perform(inner, told)
                        if stops:
                            break
                    place += 1
        except (ToolError, ConnectionResetError) as error:
            told = mixed(told, str(error))
        return told
