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

from .. import InvalidValueError, Session, SessionNotFoundError, Store
from .list_page import ListFilter, find_sessions, list_page, session_rows
from .page import session_articles, session_page

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
            return HTMLResponse(session_rows(found.rows))
        return HTMLResponse(list_page(self._store, wanted, found))

    async def session(self, request: Request) -> Response:
        """Return a session, or those of its actions that a page does not have yet."""
        await self._store.refresh()
        session = await self._store.get_session(request.path_params["session_id"])
        given = request.query_params.get("from", "")
        first = (
            min(int(given), len(session.actions)) if given.isdecimal() and len(given) < 10 else 0
        )
        pieces: AsyncGenerator[str, None]
        if request.query_params.get("part") == "new":
            pieces = session_articles(self._store, session, slice(first, first + ACTIONS))
        else:
            pieces = session_page(
                self._store, session, window=self._window(session, first), live=True
            )
        return StreamingResponse(pieces, media_type="text/html; charset=utf-8")

    def _window(self, session: Session, first: int) -> slice:
        last = first + ACTIONS
        return slice(first, last if last < len(session.actions) else None)

    async def live(self, request: Request) -> Response:
        """Return a stream that says when something was recorded (server-sent events)."""
        events = _sequences(self._store, request)
        return StreamingResponse(events, media_type="text/event-stream")


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
