"""Give an agent a memory, ask it, and see what an answer was made of, also after it changed."""

import asyncio

from memvid_async import open_store


def model(prompt):
    return f"I read: {prompt.context.items[0].text}"


async def main():
    async with open_store("memory.mva") as store:
        async with store.session("advice"):
            oslo = await store.put("It rains in Oslo until Friday.", tags=["weather"])
            await store.put("Rome is dry and hot.", tags=["weather"])
            answer = await store.ask("Will it rain in Oslo?", generate=model, model="tiny")
            print(answer.text)
            await store.update(oslo, "It is dry in Oslo again.")

        why = await store.why(answer.action)
        for frame in why.frames:
            print(f"frame {frame.frame_id}, put by action {frame.put_by.index}")

        now = await store.find("Oslo weather?")
        print("now: ", (await store.get(now.hits[0].frame_id)).content.preview)
        then = await store.at(sequence=answer.action.retrieval.as_of)
        print("then:", (await then.get(oslo)).content.preview)


asyncio.run(main())
