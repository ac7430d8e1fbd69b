"""An agent that plans a day in each of several cities: a model, two tools, retries and a stream.

Nothing in it knows that it is recorded. ``trip_agent_recorded.py`` is the same with four lines
changed and one added. The model is any that speaks like OpenAI's chat; the tools are web services.
"""

import asyncio
import json

MODEL = "gpt-5-mini"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
    for name, description in (
        ("weather", "Tell the weather of today."),
        ("book", "Book a table for two tonight."),
    )
]


class RateLimit(Exception):
    """The model has too much to do; try again later."""


class TripAgent:
    """``client``: an ``httpx2.AsyncClient`` for the address of the model and the tools."""

    def __init__(self, client):
        self.client = client

    async def run(self, cities):
        """Plan all cities at once; print a summary as it comes, and return it."""
        async with asyncio.TaskGroup() as group:
            plans = [group.create_task(self.plan(city), name=city) for city in cities]
        told = "\n".join(plan.result() for plan in plans)
        messages = [{"role": "user", "content": f"Sum up these plans:\n{told}"}]
        summary = ""
        async for text in self.tell(messages):
            print(text, end="", flush=True)
            summary += str(text)
        return summary

    async def plan(self, city):
        """Let the model call tools until it has a plan."""
        messages = [{"role": "user", "content": f"Plan a day in {city}, and book dinner."}]
        while True:
            reply = json.loads(str(await self.ask(messages)))
            if not reply.get("tool_calls"):
                return reply["content"]
            messages.append(reply)
            for call in reply["tool_calls"]:
                tool = getattr(self, call["function"]["name"])
                result = await tool(**json.loads(call["function"]["arguments"]))
                content = json.dumps(result)
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": content})

    async def ask(self, messages):
        """Return the model's reply, a message as JSON; try again where it has too much to do."""
        for pause in (0.01, 0.1, 1.0, None):
            try:
                return await self.think(messages)
            except RateLimit:
                if pause is None:
                    raise
                await asyncio.sleep(pause)

    async def think(self, messages):
        body = {"model": MODEL, "messages": messages, "tools": TOOLS}
        response = await self.client.post("/v1/chat/completions", json=body)
        if response.status_code == 429:
            raise RateLimit(response.json()["error"]["message"])
        return json.dumps(response.raise_for_status().json()["choices"][0]["message"])

    async def tell(self, messages):
        body = {"model": MODEL, "messages": messages, "stream": True}
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.raise_for_status().aiter_lines():
                if line.startswith("data: {"):
                    for choice in json.loads(line[6:])["choices"]:
                        yield choice["delta"].get("content") or ""

    async def weather(self, city):
        return (await self.client.get("/weather", params={"city": city})).json()

    async def book(self, city):
        return (await self.client.post("/book", json={"city": city})).json()
