"""A session as one HTML page that needs no other file: what happened when, and every action."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from uuid import UUID

from attrs import frozen

from .. import ActionStarted, ContentNotFoundError, ForkPoint, Session, Store
from .bars import Bar, Overview, overview_of, time_range
from .documents import checkpoint_document, plain, read_actions
from .markup import aside, block, facts_list, json_text, named, shown
from .page_parts import Shown, article, checkpoint_article, flight_article
from .shell import KEYS, end, start
from .shell import head as page_head
from .text import format_cost, format_count, format_duration, format_time, shorten
from .tree import describe_fork
from .waterfall import lanes_picture, rows_in_time


@frozen
class Loaded:
    """A session, and what a page says of it as a whole."""

    session: Session
    """The session."""
    overview: Overview
    """What a page says of it."""


async def load_session(store: Store, session_id: UUID | str) -> Loaded:
    """Read a session for its page."""
    session = await store.get_session(session_id)
    return Loaded(session, overview_of(session))


@frozen
class Window:
    """Which actions of a session a page shows whole, and how it is reached."""

    first: int = 0
    """The place of the first one among the session's actions."""
    size: int | None = None
    """How many there are at most; None for all."""
    address: str | None = None
    """The address of the session where the page is served; None for a page that stands alone."""

    @property
    def live(self) -> bool:
        """Whether the page is served, and asks its server for what is new."""
        return self.address is not None

    def of(self, session: Session) -> slice:
        """Return the window as a slice; its stop is None where it ends with the last action."""
        stop = None if self.size is None else self.first + self.size
        return slice(self.first, None if stop is None or stop >= len(session.actions) else stop)

    def link(self, index: int, session: Session) -> str:
        """Return the address of an action."""
        shown_now = self.of(session)
        begun_at = session.actions[0].index if session.actions else 0
        place = index - begun_at
        if place >= shown_now.start and (shown_now.stop is None or place < shown_now.stop):
            return f"#a{index}"
        size = self.size or 1
        return f"?from={max(0, place) // size * size}#a{index}"


# The actions that are rendered together.
_TOGETHER = 20

ALL = Window()
"""A page that stands alone, with every action."""


async def session_page(
    store: Store, load: Callable[[], Awaitable[Loaded]], window: Window = ALL
) -> AsyncGenerator[str, None]:
    """Yield the page of a session, piece by piece; the first before the session is read."""
    yield page_head(live=window.live)
    loaded = await load()
    session = loaded.session
    yield start(shorten(session.name or "(no name)", 200), live=window.live)
    yield f'<main class="wide">{_header(loaded, window)}{_picture(loaded, window)}'
    yield tools(loaded.overview.counts, "actions") + _pages(session, window)
    yield _outline(loaded, window) + '<div id="list">\n'
    async for piece in session_articles(store, session, window):
        yield piece
    if not session.actions and not session.in_flight:
        yield '<p class="note">Nothing is recorded.</p>'
    yield "</div>"
    if window.of(session).stop is None:
        yield f'<div id="flight">{await _flight(store, session, window)}</div>'
    yield "</div></div>" + _pages(session, window) + end(KEYS, live=window.live)


async def session_news(store: Store, loaded: Loaded, window: Window) -> AsyncGenerator[str, None]:
    """Yield what a page that ends with the action before ``window.first`` does not have yet.

    Each piece names the element that it replaces, or in which it comes last.
    """
    session = loaded.session
    yield f'<div data-replace="head">{_header(loaded, window)}</div>'
    yield f'<div data-replace="picture">{_picture(loaded, window)}</div>'
    rows = _rows(loaded, Window(max(0, len(session.actions) - (window.size or 0))))
    yield f'<div data-replace="rows">{rows}</div>'
    yield '<div data-append="list">'
    async for piece in session_articles(store, session, window):
        yield piece
    flight = await _flight(store, session, window)
    yield f'</div><div data-replace="flight"><div id="flight">{flight}</div></div>'


async def session_articles(
    store: Store, session: Session, window: Window
) -> AsyncGenerator[str, None]:
    """Yield the actions of a session as HTML, and where it was forked. A browser renders some of
    them together, once they are near."""
    checkpoints = {checkpoint.at_index: checkpoint for checkpoint in session.checkpoints}
    fork, bounds = session.fork, window.of(session)
    page, count = _shown(session, window), 0
    async for document in read_actions(store, session.actions[bounds]):
        if count % _TOGETHER == 0:
            yield "</div>\n<div class=some>" if count else "<div class=some>"
        count += 1
        if fork is not None and document["index"] >= fork.action_count:
            yield _fork_mark(fork)
            fork = None
        checkpoint = checkpoints.get(document["index"])
        if checkpoint is not None:
            yield checkpoint_article(document, checkpoint_document(checkpoint), page)
        else:
            yield article(document, page)
    if count:
        yield "</div>"
    if fork is not None and bounds.stop is None:
        yield _fork_mark(fork)


def _shown(session: Session, window: Window) -> Shown:
    frame_link = None if window.address is None else _frame_address
    day = format_time(session.created_ns).partition(" ")[0]
    return Shown(lambda index: window.link(index, session), frame_link, window.address, day)


def _frame_address(frame_id: int, as_of: int) -> str:
    return f"/memory/{frame_id}?at={as_of}"


async def _flight(store: Store, session: Session, window: Window) -> str:
    """Return the calls in flight, with their arguments."""
    page = _shown(session, window)
    parts = [
        flight_article(started, await _arguments(store, started), page)
        for started in session.in_flight
    ]
    return "".join(parts)


async def _arguments(store: Store, started: ActionStarted) -> Any:
    if started.input is None:
        return None
    try:
        if started.kind in ("tool_call", "step"):
            return plain(await store.read_arguments(started))
        return (await store.read_content(started.input)).decode("utf-8", "replace")
    except ContentNotFoundError:
        return "(erased)"


# --- around the list -----------------------------------------------------------------------------


def _picture(loaded: Loaded, window: Window) -> str:
    session, bars = loaded.session, loaded.overview.bars
    last = session.actions[-1].time_ns if session.actions else None
    begin, finish = time_range(bars, session.created_ns, session.ended_ns, last)

    def link(bar: Bar) -> str:
        return "#flight" if bar.index is None else window.link(bar.index, session)

    picture = lanes_picture(bars, begin, finish, link)
    return f'<div id="picture">{picture}</div>'


def _outline(loaded: Loaded, window: Window) -> str:
    return (
        '<div class="split"><nav class="outline" aria-label="Actions in time">'
        f'{_rows(loaded, window)}</nav><div class="beside">'
    )


def _rows(loaded: Loaded, window: Window) -> str:
    session, bars = loaded.session, loaded.overview.bars
    bounds = window.of(session)
    shown_now = {action.index for action in session.actions[bounds]} if bounds.stop else None
    if shown_now is None:
        first = session.actions[bounds.start].index if session.actions[bounds.start :] else 0
        wanted = [bar for bar in bars if bar.index is None or bar.index >= first]
    else:
        wanted = [bar for bar in bars if bar.index in shown_now]
    return f'<div id="rows" data-bars="{rows_in_time(wanted)}"></div>'


def _pages(session: Session, window: Window) -> str:
    """Return links to the actions before and after those that are shown."""
    first, last, _ = window.of(session).indices(len(session.actions))
    links = []
    if first > 0:
        before = max(0, first - (window.size or first))
        links.append(f'<a rel="prev" href="?from={before}">earlier actions</a>')
    if last < len(session.actions):
        links.append(f'<a rel="next" href="?from={last}">later actions</a>')
    if not links:
        return ""
    shown_now = f"actions {first} to {last - 1} of {len(session.actions)}"
    return f'<nav class="pages" aria-label="More">{shown_now} · {" · ".join(links)}</nav>\n'


def tools(counts: dict[str, int], what: str) -> str:
    """Return the search and a filter for each kind, which the page's script makes work."""
    chips = "".join(
        f'<button class="chip {_state_class(kind)}" data-kind="{kind}" aria-pressed="false">'
        f"{kind.replace('_', ' ')}<b>{count}</b></button>"
        for kind, count in counts.items()
        if count
    )
    return (
        '<div class="bar"><div class="tools" hidden role="search">'
        f'<input type="search" id="search" placeholder="Search {what}" aria-label="Search {what}">'
        f'{chips}<span class="count" id="count" role="status"></span>'
        '<button id="fold">Fold / unfold</button><button id="theme">Light / dark</button>'
        "</div></div>\n"
    )


def _state_class(kind: str) -> str:
    classes = {"changed": "t-changed", "only in a": "t-a", "only in b": "t-b"}
    return {**classes, "failed": "t-failed", "in flight": "soft"}.get(kind, kind)


def _header(loaded: Loaded, window: Window) -> str:
    session = loaded.session
    name = named(session.name or "", "(no name)", 200)
    error = "" if session.error is None else f'<p class="error">{shown(session.error)}</p>'
    forked = ""
    if session.fork is not None:
        where = shown(describe_fork(session, session.fork))
        forked = f'<div class="id"><a href="#forked">forked</a> {where}</div>'
    metadata = ""
    if session.metadata:
        metadata = aside("metadata", block(json_text(plain(session.metadata))))
    links = ""
    if window.address is not None:
        links = (
            f'<p class="note"><a href="{window.address}/replay">replay it</a> · '
            f'<a href="/compare?a={session.session_id}">compare it with another</a></p>'
        )
    return (
        f'<header id="head"><h1>{name}</h1><div class="id">session {session.session_id}</div>'
        f"{forked}{error}{facts_list(_facts(loaded))}{metadata}{links}</header>"
    )


def _facts(loaded: Loaded) -> dict[str, str]:
    session, overview = loaded.session, loaded.overview
    end_ns = session.ended_ns
    last = end_ns or (session.actions[-1].time_ns if session.actions else session.created_ns)
    facts = {
        "started": format_time(session.created_ns).partition(".")[0],
        "lasted": format_duration(max(0, last - session.created_ns))
        + ("" if end_ns else ", still open"),
        "actions": str(len(session.actions) - len(session.checkpoints)),
        "checkpoints": str(len(session.checkpoints)),
        "failed": str(overview.counts["failed"]),
    }
    if session.in_flight:
        facts["in flight"] = str(len(session.in_flight))
    used = overview.used
    if used.input_tokens or used.output_tokens:
        facts["tokens"] = (
            f"{format_count(used.input_tokens)} in, {format_count(used.output_tokens)} out"
        )
    if used.cost_usd:
        facts["cost"] = format_cost(used.cost_usd)
    return facts


def _fork_mark(fork: ForkPoint) -> str:
    return (
        f'<p class="forked" id="forked">Up to here it is session {fork.parent_id}; '
        "from here on it is the fork's own.</p>\n"
    )
