"""A proxy before a server, which cuts the connections that go through it."""

from __future__ import annotations

import asyncio
from typing import Self


class CuttingProxy:
    """Takes connections on a port of its own, and hands on what they carry until :meth:`cut`, or
    :meth:`stall`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected = asyncio.Event()
        self._flows = asyncio.Event()
        self._flows.set()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self._end()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def cut(self) -> None:
        """End the connections at once, with what is on its way; first wait until there is one
        that the server has greeted."""
        await self._connected.wait()
        self._end()

    def stall(self) -> None:
        """Hand on nothing any more, as a server that hangs."""
        self._flows.clear()

    def go_on(self) -> None:
        """Hand on what came since :meth:`stall`."""
        self._flows.set()

    def _end(self) -> None:
        self._flows.set()
        self._connected.clear()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(
            self._hand_on(reader, their_writer), self._hand_on(their_reader, writer)
        )

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                await self._flows.wait()
                if b"PONG\r\n" in data:
                    self._connected.set()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()
