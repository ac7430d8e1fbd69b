"""Watch from one process what the agents of another one do, as it happens."""

import asyncio
import sys

from memvid_async import ActionRecorded, SessionEnded, open_store


async def record():
    """Record a team of agents, which share every write to the disk."""
    async with open_store("team.mva") as store, store.session("team") as session:

        async def scout(city):
            await session.record_tool_call("weather", arguments={"city": city}, result="dry")

        async with asyncio.TaskGroup() as group:
            for city in ("Lima", "Oslo", "Rome"):
                group.create_task(scout(city), name=city)


async def main():
    async with open_store("team.mva"):
        pass  # the file is there from now on
    async with open_store("team.mva", read_only=True) as store, store.subscribe() as events:
        child = await asyncio.create_subprocess_exec(sys.executable, __file__, "record")
        tasks = []
        async for event in events:
            if isinstance(event.payload, ActionRecorded):
                tasks.append(event.payload.action.task)
            if isinstance(event.payload, SessionEnded):
                break
        print("seen live:", ", ".join(sorted(tasks)))
        print("the other process ended with", await child.wait())


asyncio.run(record() if sys.argv[1:] == ["record"] else main())
