"""Runs the agent of examples/ in a process of its own, which may be killed.

Arguments: the file, the server's address, "calls" or "transport", and the id of the session to
resume ("-" for a new one). Prints the session's id and then the agent's summary.
"""

import asyncio
import sys
from pathlib import Path

import httpx2

from memvid_async import open_store
from memvid_async.interop.http import RecordingTransport

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import trip_agent
import trip_agent_recorded

CITIES = ["Rome", "Oslo", "Lima"]
trip_agent.MODEL = trip_agent_recorded.MODEL = "busy 2"
# The agent prints its summary as it comes.
trip_agent.print = trip_agent_recorded.print = lambda *_, **__: None


async def run_agent(session, url, how):
    """Run the agent in a session that records, serves or resumes; return its summary."""
    if how == "transport":
        return await run_at_the_transport(session, url)
    async with httpx2.AsyncClient(base_url=url) as client:
        return await trip_agent_recorded.TripAgent(client, session).run(CITIES)


async def run_unrecorded(session, url):
    async with httpx2.AsyncClient(base_url=url) as client:
        return await trip_agent.TripAgent(client).run(CITIES)


async def run_at_the_transport(session, url):
    transport = RecordingTransport(session, other="record")
    async with httpx2.AsyncClient(base_url=url, transport=transport) as client:
        return await trip_agent.TripAgent(client).run(CITIES)


async def main(path, url, how, session_id):
    async with open_store(path) as store:
        if session_id == "-":
            opening = store.session("trip")
        else:
            opening = store.resume_session(session_id, replay=True, uncertain="run")
        async with opening as session:
            print(session.session_id, flush=True)
            print(await run_agent(session, url, how), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
