"""The agent that tests/replay/test_conformance.py lets die, in a process that a server forks.

It hears ``["step", item]`` until ``["end"]``, and says each effect when that happens. Whether one
did is asked of the parent, which has them all.
"""

from __future__ import annotations

import asyncio
from typing import Any

from memvid_async import RUN, Result, UncertainCall, open_store
from tests.support.fork_server import serve
from tests.torture.jobs import say, told


class Parent:
    """What outlives the process. One question at a time."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def ask(self, *question: Any) -> Any:
        async with self._lock:
            say(question)
            return await told()


class Shop:
    """An agent: for each order a model, three tools at once, and a tool that calls a tool.

    ``session``: set before its first step.
    """

    session: Any

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self.said: list[str] = []

    async def step(self, item: str) -> None:
        async def plan(_prompt: Any) -> str:
            return await self._have_effect("plan", item)

        async def deliver(item: str) -> str:
            parcel = await self._use("wrap", item)
            return f"{await self._have_effect('deliver', item)} of {parcel}"

        planned = str(await self.session.call_model(f"plan {item}", plan, model="plan"))
        several = await asyncio.gather(*(self._use(n, item) for n in ("charge", "mail", "thank")))
        delivered = await self.session.call_tool("deliver", {"item": item}, deliver)
        self.said += [planned, *several, delivered]

    async def _use(self, name: str, item: str) -> str:
        async def run(item: str) -> str:
            return await self._have_effect(name, item)

        done: str = await self.session.call_tool(name, {"item": item}, run)
        return done

    async def _have_effect(self, name: str, item: str) -> str:
        await self._parent.ask("effect", name, item)
        return f"{name} {item}"

    async def look(self, call: UncertainCall) -> Any:
        """Ask whether it happened."""
        asked = call.arguments
        item = asked["item"] if isinstance(asked, dict) else asked.removeprefix("plan ")
        if not await self._parent.ask("happened?", call.name, item):
            return RUN
        return Result(f"{call.name} {item}" + (f" of wrap {item}" * (call.name == "deliver")))


async def live(path: str, policy: str) -> None:
    """Do the steps that the parent says; at the end, say what came of them."""
    parent = Parent()
    async with open_store(path) as store:
        found = await store.list_sessions(include_open=True)
        shop = Shop(parent)
        if not found:
            opening = store.session("shop")
        else:
            uncertain = shop.look if policy == "look" else policy
            session_id = found[0].session_id
            opening = store.resume_session(session_id, replay=True, uncertain=uncertain)
        async with opening as shop.session:
            say(["ready"])
            while (heard := await told())[0] == "step":
                await shop.step(heard[1])
                say(["done"])
        session = await store.get_session(opening.session_id)
        recorded = sorted(one.output.preview for one in session.actions)
        say(["state", shop.said, recorded, session.error, len(session.in_flight)])


if __name__ == "__main__":
    serve(live)
