"""What httpx2 and httpx have in common, of whichever a request is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

from anyio import to_thread


def library_of(request: Any) -> ModuleType:
    """Return the client library that a request is of: httpx2 or httpx."""
    return import_module(type(request).__module__.partition(".")[0])


@cache
def streams_of(library: ModuleType) -> tuple[type[Any], type[Any]]:
    """Return classes of response bodies, asyncio and synchronous, of what yields their parts."""

    class AsyncBody(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, parts: Any) -> None:
            self._parts = parts
            self._is_closed = False

        # No generator is handed out: the client library would close it, too.
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            return await self._parts.__anext__()  # type: ignore[no-any-return]

        async def aclose(self) -> None:
            # A reader that was dropped may be closing it, too.
            if not self._is_closed:
                self._is_closed = True
                await self._parts.aclose()

    class Body(library.SyncByteStream):  # type: ignore[misc,name-defined]
        def __init__(self, parts: Any) -> None:
            self._parts = parts

        def __iter__(self) -> Iterator[bytes]:
            return self._parts  # type: ignore[no-any-return]

        def close(self) -> None:
            self._parts.close()

    return AsyncBody, Body


class InThreads:
    """A synchronous transport for asyncio: each of its calls is made in a thread."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request; the parts of its body come from threads, too."""
        response = await to_thread.run_sync(self._transport.handle_request, request)
        response.stream = _ThreadStream(response.stream)
        return response


class _ThreadStream:
    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._parts = iter(stream)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        advance: Callable[[], bytes | None] = partial(next, self._parts, None)
        while (part := await to_thread.run_sync(advance)) is not None:
            yield part

    async def aclose(self) -> None:
        await to_thread.run_sync(self._stream.close)
