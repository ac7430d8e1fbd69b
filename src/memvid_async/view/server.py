"""The live view: pages over an open store, for a browser on this machine.

Pages are made on the server. Each has the same content security policy as an exported page, and may
ask this server for what is new; nothing is asked of anybody else. Requests must name a host that
the server was told about, which a page of another site cannot (DNS rebinding), and must have the
token where one is set.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

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

from .. import InvalidValueError, SessionNotFoundError, Store
from .list_page import ListFilter, find_sessions, list_news, list_page
from .session_page import Loaded, Window, load_session, session_news, session_page

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
    routes = [
        Route("/", _guarded(pages.index, token)),
        Route("/sessions/{session_id}", _guarded(pages.session, token)),
        Route("/live", _guarded(pages.live, token)),
    ]
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
            response = PlainTextResponse(str(error), 404)
        response.headers.update(_HEADERS)
        if token is not None and "token" in request.query_params:
            response.set_cookie(_COOKIE, token, httponly=True, samesite="strict")
        return response

    return guarded


class _Pages:
    """The pages of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: tuple[tuple[str, int], Loaded] | None = None

    async def index(self, request: Request) -> Response:
        """Return all sessions, or the rows of them."""
        asked = request.query_params
        wanted = ListFilter(
            asked.get("q", "").strip(),
            "failed" in asked,
            "open" in asked,
            UUID(asked["after"]) if _is_uuid(asked.get("after")) else None,
        )
        await self._store.refresh()
        found = await find_sessions(self._store, wanted)
        if asked.get("part") == "rows":
            return HTMLResponse(list_news(found))
        return HTMLResponse(list_page(self._store, wanted, found))

    async def session(self, request: Request) -> Response:
        """Return a session, or what a page of it does not have yet."""
        await self._store.refresh()
        wanted = request.path_params["session_id"]
        # Of a session that is not there this raises, before the page has begun.
        async for _ in self._store.actions(wanted, newest_first=True, limit=1):
            pass
        given = request.query_params.get("from", "")
        first = int(given) if given.isdecimal() and len(given) < 10 else 0
        pieces: AsyncGenerator[str, None]
        if request.query_params.get("part") == "new":
            loaded = await self._read(wanted)
            if loaded.session.actions:
                first = max(0, first - loaded.session.actions[0].index)
            pieces = session_news(self._store, loaded, _window(wanted, first))
        else:
            pieces = session_page(self._store, self._read(wanted), _window(wanted, first))
        return StreamingResponse(pieces, media_type="text/html; charset=utf-8")

    async def _read(self, session_id: str) -> Loaded:
        """Return a session: a long one takes half a second, so it is kept until something is
        recorded."""
        key = session_id, self._store.last_sequence
        if self._kept is None or self._kept[0] != key:
            self._kept = key, await load_session(self._store, session_id)
        return self._kept[1]

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


def _is_uuid(text: Any) -> bool:
    try:
        UUID(text)
    except (TypeError, ValueError, AttributeError):
        return False
    return True
