"""What recording at the HTTP transport adds to a call of a model on the loopback interface."""

import asyncio
import json
import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from memvid_async import open_store

from .harness import Detail, Figure, Result, Scale, spread

_MESSAGES = [{"role": "user", "content": "What is the weather in Oslo today? " * 8}]
_REPLY = {"role": "assistant", "content": "It is dry, and a little cloudy. " * 8}
_BODY = json.dumps(
    {
        "choices": [{"index": 0, "message": _REPLY}],
        "usage": {"prompt_tokens": 64, "completion_tokens": 64},
    }
).encode()
_HEAD = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(_BODY)}\r\n\r\n"
_FIRST = 50  # calls that are not counted


def run(directory: Path, scale: Scale) -> Result:
    """Call with and without the transport, in turns, and compare the medians."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there,))
    server.start()
    try:
        url = f"http://127.0.0.1:{here.recv()}"
        calls = scale.count(500)
        rounds = [
            asyncio.run(_call(url, directory / f"transport-{number}", calls))
            for number in range(scale.rounds)
        ]
    finally:
        server.terminate()
        server.join()
    taken = {name: [one[name] for one in rounds] for name in ("plain", "recorded")}
    figure = Figure(
        case="recording at the HTTP transport",
        against="the same call on the loopback interface",
        values=[one["recorded"] - one["plain"] for one in rounds],
        unit="ms more",
        must=1.0,
        at_least=False,
    )
    rows = [[name, *spread(values, ".2f")] for name, values in taken.items()]
    columns = ("call", "ms, median", "least", "most")
    note = f"{calls:,} calls each a sample, one at a time; a recorded one is two synced events."
    return Result(
        figures=[figure],
        details=[Detail(title="HTTP transport", columns=columns, rows=rows, note=note)],
    )


async def _call(url: str, path: Path, calls: int) -> dict[str, float]:
    """Return the median durations of calls, in milliseconds."""
    import httpx2

    from memvid_async.interop.http import RecordingTransport

    body = {"model": "m", "messages": _MESSAGES}
    taken: dict[str, list[float]] = {"plain": [], "recorded": []}
    async with (
        open_store(path) as store,
        store.session() as session,
        httpx2.AsyncClient(base_url=url) as plain,
        httpx2.AsyncClient(base_url=url, transport=RecordingTransport(session)) as recorded,
    ):
        clients = {"plain": plain, "recorded": recorded}
        for _ in range(_FIRST + calls):
            for name, client in clients.items():
                start = time.perf_counter()
                response = await client.post("/v1/chat/completions", json=body)
                taken[name].append((time.perf_counter() - start) * 1000)
                response.raise_for_status()
    return {name: median(durations[_FIRST:]) for name, durations in taken.items()}


def _serve(connection: Connection) -> None:
    """Answer every request alike, in a process of its own; send the port first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length))
                writer.write(_HEAD.encode() + _BODY)
        except asyncio.IncompleteReadError:
            writer.close()

    async def serve() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        connection.send(listening.sockets[0].getsockname()[1])
        await listening.serve_forever()

    asyncio.run(serve())
