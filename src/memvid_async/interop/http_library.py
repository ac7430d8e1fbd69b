"""What httpx2 and httpx have in common, of whichever a request is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import cache, partial
from importlib import import_module
from types import ModuleType
from typing import Any

from anyio import to_thread

# An encoded body is decoded in pieces of this size.
_ENCODED_PIECE = 4 * 1024


def library_of(request: Any) -> ModuleType:
    """Return the client library that a request is of: httpx2 or httpx."""
    return import_module(type(request).__module__.partition(".")[0])


def decoded(
    library: ModuleType, headers: Iterable[tuple[str, str]], body: bytes, most: int
) -> bytes:
    """Return a body without its encoding, or how it begins: about ``most`` bytes.

    A kilobyte of a compressed body can stand for a megabyte.
    """
    pieces = (body[at : at + _ENCODED_PIECE] for at in range(0, len(body), _ENCODED_PIECE))
    response = library.Response(200, headers=headers, stream=streams_of(library)[1](pieces))
    parts: list[bytes] = []
    for part in response.iter_bytes():
        parts.append(part)
        most -= len(part)
        if most <= 0:
            break
    return b"".join(parts)


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
