"""A run went wrong in its second step: fork it before that, go on another way, and compare."""

import asyncio

from memvid_async import open_store


async def agent(session, style):
    for step, question in enumerate(("Where to?", "How to get there?", "Where to sleep?")):
        wanted = "plain" if step == 0 else style

        def model(prompt, wanted=wanted):
            print(f"  paying a model: {prompt.question}")
            return f"{wanted} answer to {prompt.question!r}"

        await session.call_model(question, model, model="tiny")


async def main():
    async with open_store("forks.mva") as store:
        print("the first run")
        async with store.session("hasty") as session:
            await agent(session, "hasty")

        print("the fork, after action 0")
        forked = await store.fork(session.session_id, action_index=0, name="careful")
        async with store.resume_session(forked, replay=True) as another:
            await agent(another, "careful")

        comparison = await store.compare(session.session_id, forked)
        print("they diverge at action", comparison.first_divergence)
        for changed in comparison.changed:
            print(changed.a.output.preview, "|", changed.b.output.preview)


asyncio.run(main())
