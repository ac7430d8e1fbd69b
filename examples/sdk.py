"""Record an agent that calls its model with an HTTP client, without changing the agent.

Give the SDK of OpenAI or Anthropic the same client: ``AsyncOpenAI(http_client=http)``. Here a
function stands for the service, so the program runs without a network and without an SDK.
"""

import asyncio

import httpx2

from memvid_async import open_store
from memvid_async.interop.http import RecordingTransport


def service(request):
    print("  a request reached the service")
    message = {"role": "assistant", "content": "Take the night train."}
    usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
    return httpx2.Response(200, json={"choices": [{"message": message}], "usage": usage})


async def agent(http):
    asked = [{"role": "user", "content": "How do I get to Oslo?"}]
    body = {"model": "gpt-5-mini", "messages": asked}
    response = await http.post("https://api.openai.com/v1/chat/completions", json=body)
    return response.json()["choices"][0]["message"]["content"]


async def main():
    async with open_store("sdk.mva") as store:
        async with store.session("trip") as session:
            transport = RecordingTransport(session, httpx2.MockTransport(service))
            async with httpx2.AsyncClient(transport=transport) as http:
                print("recorded:", await agent(http))
        async with store.serve(session.session_id) as served:
            transport = RecordingTransport(served)
            async with httpx2.AsyncClient(transport=transport) as http:
                print("answered:", await agent(http))
        (ask,) = (await store.get_session(session.session_id)).actions
        usage = ask.usage
        print(ask.details.model, usage.input_tokens, "tokens in,", usage.output_tokens, "out")


asyncio.run(main())
