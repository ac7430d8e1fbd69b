"""The live view: pages over an open store, for a browser on this machine.

Pages are made on the server. Each has the same content security policy as an exported page, and may
ask this server for what is new; nothing is asked of anybody else. Requests must name a host that
the server was told about, which a page of another site cannot (DNS rebinding), and must have the
token where one is set.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import partial

try:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route
except ModuleNotFoundError as error:
    message = "the view needs Starlette and uvicorn: install memvid-async[view]"
    raise ModuleNotFoundError(message, name=error.name) from error

from .. import InvalidValueError, MemvidAsyncError, SessionNotFoundError, Store
from .compare_page import choice_page, comparison_page
from .forms import number_of
from .gathered import Gathered
from .list_page import ListFilter, find_sessions, forks_page, list_news, list_page
from .markup import shown
from .memory_pages import frame_page, memory_page
from .search_page import search_page
from .session_page import Loaded, Window, load_session, session_news, session_page
from .text import printable
from .usage_page import usage_page
from .verdict_pages import replay_page, why_page

ACTIONS = 500
"""How many actions a session's page shows whole."""

_COOKIE = "memvid_token"
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(store: Store, *, hosts: tuple[str, ...], token: str | None = None) -> Starlette:
    """Return an ASGI application that shows a store.

    ``hosts``: the names that a request may call this server by. ``token``: what a browser's first
    request must have as ``?token=``; it is then kept in a cookie.
    """
    pages = _Pages(store)
    endpoints = {
        "/": pages.index,
        "/forks": pages.forks,
        "/search": pages.search,
        "/usage": pages.usage,
        "/memory": pages.memory,
        "/memory/{frame_id:int}": pages.frame,
        "/compare": pages.compare,
        "/sessions/{session_id}": pages.session,
        "/sessions/{session_id}/replay": pages.replay,
        "/sessions/{session_id}/why/{index:int}": pages.why,
        "/live": pages.live,
    }
    routes = [Route(path, _guarded(pages_of, token)) for path, pages_of in endpoints.items()]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    return Starlette(routes=routes, middleware=[trusted])


def _guarded(endpoint: Endpoint, token: str | None) -> Endpoint:
    """Return the endpoint, for requests that have the token; with the headers of every page."""

    async def guarded(request: Request) -> Response:
        given = request.query_params.get("token") or request.cookies.get(_COOKIE) or ""
        if token is not None and not secrets.compare_digest(given.encode(), token.encode()):
            return PlainTextResponse("the token is missing or wrong", 403, _HEADERS)
        try:
            response = await endpoint(request)
        except (SessionNotFoundError, InvalidValueError) as error:
            response = PlainTextResponse(printable(str(error)), 404)
        response.headers.update(_HEADERS)
        if token is not None and "token" in request.query_params:
            response.set_cookie(_COOKIE, token, httponly=True, samesite="strict")
        return response

    return guarded


class _Pages:
    """The pages of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gathered = Gathered(store)
        self._kept: tuple[tuple[str, int], Loaded] | None = None

    async def index(self, request: Request) -> Response:
        """Return all sessions, or the rows of them."""
        await self._store.refresh()
        wanted = ListFilter.of(request.query_params)
        if request.query_params.get("part") == "rows":
            found = await find_sessions(self._store, wanted, self._gathered)
            return HTMLResponse(list_news(found))
        return await self._streamed(list_page(self._store, wanted, self._gathered))

    async def forks(self, _: Request) -> Response:
        """Return the tree of forks."""
        return await self._streamed(forks_page(self._store))

    async def search(self, request: Request) -> Response:
        """Return the actions that fit."""
        return await self._streamed(search_page(self._store, request.query_params))

    async def usage(self, request: Request) -> Response:
        """Return what calls used."""
        return await self._streamed(usage_page(self._gathered, request.query_params))

    async def memory(self, request: Request) -> Response:
        """Return the memory at a moment."""
        return await self._streamed(memory_page(self._store, request.query_params))

    async def frame(self, request: Request) -> Response:
        """Return a frame with its history."""
        frame_id = request.path_params["frame_id"]
        page = frame_page(self._store, self._gathered, frame_id, request.query_params)
        return await self._streamed(page)

    async def compare(self, request: Request) -> Response:
        """Return two sessions side by side, or what one can be compared with."""
        a, b = (request.query_params.get(name, "") for name in "ab")
        if not b:
            return await self._streamed(choice_page(self._store, a))
        for one in a, b:
            # Of a session that is not there this raises, before the page has begun.
            await self._store.get_summary(one)
        compare = partial(self._store.compare, a, b)
        return await self._streamed(comparison_page(self._store, compare, live=True))

    async def replay(self, request: Request) -> Response:
        """Return the verdicts of a session's replay."""
        return await self._streamed(replay_page(self._store, request.path_params["session_id"]))

    async def why(self, request: Request) -> Response:
        """Return what an answer was made of."""
        named = request.path_params
        return await self._streamed(why_page(self._store, named["session_id"], named["index"]))

    async def session(self, request: Request) -> Response:
        """Return a session, or what a page of it does not have yet."""
        await self._store.refresh()
        wanted = request.path_params["session_id"]
        await self._store.get_summary(wanted)
        first = number_of(request.query_params.get("from", "")) or 0
        if request.query_params.get("part") == "new":
            loaded = await self._read(wanted)
            if loaded.session.actions:
                first = max(0, first - loaded.session.actions[0].index)
            return await self._streamed(session_news(self._store, loaded, _window(wanted, first)))
        load = partial(self._read, wanted)
        return await self._streamed(session_page(self._store, load, _window(wanted, first)))

    async def _read(self, session_id: str) -> Loaded:
        """Return a session: a long one takes half a second, so it is kept until something is
        recorded."""
        key = session_id, self._store.last_sequence
        if self._kept is None or self._kept[0] != key:
            self._kept = key, await load_session(self._store, session_id)
        return self._kept[1]

    async def _streamed(self, pieces: AsyncGenerator[str, None]) -> Response:
        """Return a page as it is made. An error before its first piece is raised."""
        await self._store.refresh()
        try:
            first = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        return StreamingResponse(_all(first, pieces), media_type="text/html; charset=utf-8")

    async def live(self, request: Request) -> Response:
        """Return a stream that says when something was recorded (server-sent events)."""
        events = _sequences(self._store, request)
        return StreamingResponse(events, media_type="text/event-stream")


def _window(session_id: str, first: int) -> Window:
    return Window(first, ACTIONS, f"/sessions/{session_id}")


async def _sequences(store: Store, request: Request) -> AsyncIterator[str]:
    async with store.subscribe(after=store.last_sequence) as events:
        yield ": connected\n\n"
        async for event in events:
            if await request.is_disconnected():
                return
            yield f"data: {event.sequence}\n\n"


async def _all(first: str, rest: AsyncGenerator[str, None]) -> AsyncIterator[str]:
    """Yield the pieces of a page; what goes wrong on the way is said where it did."""
    async with aclosing(rest):
        yield first
        try:
            async for piece in rest:
                yield piece
        except MemvidAsyncError as error:
            yield f'<p class="error">{shown(str(error))}</p>'
