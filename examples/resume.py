"""Kill an agent in the middle of its work, start it again, and pay for nothing twice.

The agent runs in a child process, which ends without a warning after two of four cities.
"""

import asyncio
import os
import sys

from memvid_async import open_store


async def agent(session, cities_before_the_crash=None):
    plans = []
    for number, city in enumerate(("Rome", "Oslo", "Lima", "Kyiv")):
        if number == cities_before_the_crash:
            os._exit(1)  # as in a power cut: nothing is tidied up

        def model(prompt, city=city):
            print(f"  paying a model for {city}", flush=True)
            return f"a day in {city}"

        plans.append(str(await session.call_model(f"Plan {city}.", model, model="tiny")))
    return plans


async def first_try():
    async with open_store("trip.mva") as store, store.session("trip") as session:
        await agent(session, cities_before_the_crash=2)


async def main():
    print("the first process:", flush=True)
    child = await asyncio.create_subprocess_exec(sys.executable, __file__, "first try")
    print("it died with status", await child.wait())
    print("the second process:")
    async with open_store("trip.mva") as store:
        (left,) = await store.list_sessions(include_open=True, newest_first=True, limit=1)
        async with store.resume_session(left.session_id, replay=True) as session:
            print(", ".join(await agent(session)))


asyncio.run(first_try() if sys.argv[1:] == ["first try"] else main())
