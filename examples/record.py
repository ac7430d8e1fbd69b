"""Record an agent, run it again from the recording, and look at what it did."""

import asyncio

from memvid_async import open_store


async def weather(city):
    print(f"  asking the weather service about {city}")
    return {"Oslo": "rain", "Rome": "sun"}[city]


def model(prompt):
    print("  paying a model")  # call yours here, with str(prompt) or prompt.messages
    return "Take an umbrella." if "rain" in prompt.question else "Take sunglasses."


async def agent(session):
    reports = [await session.call_tool("weather", {"city": c}, weather) for c in ("Oslo", "Rome")]
    # `model` is called; model="tiny" is its name in the recording; str(…) is the reply's text.
    return str(await session.call_model(f"{reports}: what to pack?", model, model="tiny"))


async def main():
    async with open_store("agents.mva") as store:
        async with store.session("packing") as session:
            print("recorded:", await agent(session))
        async with store.serve(session.session_id) as served:
            print("answered:", await agent(served))
        for action in (await store.get_session(session.session_id)).actions:
            print(action.index, action.kind, action.output.preview)


asyncio.run(main())
