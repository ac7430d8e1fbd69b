"""A session, or two side by side, as one HTML page that needs no other file.

A content security policy names the digests of the page's own style and script. So recorded text
could not run even if the escaping let it through. Without scripts everything can still be read.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from importlib.resources import files
from itertools import groupby

from .. import Action, Comparison, ForkPoint, Session, Store
from .aligned import Pairing, aligned_pairings
from .documents import checkpoint_document, plain, read_action, used_of
from .page_parts import (
    article,
    aside,
    block,
    checkpoint_article,
    diff_block,
    head,
    json_text,
    part,
    shown,
)
from .text import count_of, format_cost, format_count, format_duration, format_time, shorten
from .tree import describe_fork

_COLUMNS = 480
_LANES = 8
_WIDEST = 36.0
_KEYS = {
    "j": "next",
    "k": "previous",
    "f": "fold or unfold all",
    "/": "search",
    "t": "light or dark",
}


async def session_page(
    store: Store, session: Session, *, window: slice = slice(None), live: bool = False
) -> AsyncGenerator[str, None]:
    """Yield the page of a session, piece by piece.

    ``window``: the indexes of the actions that are shown whole. ``live``: the page is served, and
    asks its server for what is new.
    """
    yield start(shorten(session.name or "(no name)", 200), live=live)
    yield f"<main>{home_link() if live else ''}{_session_header(session)}"
    kinds = Counter(action.kind.value for action in session.actions)
    yield _session_timeline(session.actions)
    yield _tools(dict(kinds), "actions")
    yield _pages(session, window)
    async for piece in session_articles(store, session, window):
        yield piece
    if not session.actions:
        yield '<p class="note">Nothing is recorded.</p>'
    yield "</div>" + _pages(session, window) + end(_KEYS, live=live)


async def session_articles(
    store: Store, session: Session, window: slice
) -> AsyncGenerator[str, None]:
    """Yield the actions of a session as HTML, and where it was forked."""
    checkpoints = {checkpoint.at_index: checkpoint for checkpoint in session.checkpoints}
    fork = session.fork
    for action in session.actions[window]:
        if fork is not None and action.index >= fork.action_count:
            yield _fork_mark(fork)
            fork = None
        document = await read_action(store, action, full=True)
        checkpoint = checkpoints.get(action.index)
        if checkpoint is not None:
            yield checkpoint_article(document, checkpoint_document(checkpoint))
        else:
            yield article(document)
    if fork is not None and window.stop is None:
        yield _fork_mark(fork)


def _pages(session: Session, window: slice) -> str:
    """Return links to the actions before and after those that are shown."""
    first, last, _ = window.indices(len(session.actions))
    size = last - first
    links = []
    if first > 0:
        links.append(f'<a rel="prev" href="?from={max(0, first - size)}">earlier actions</a>')
    if last < len(session.actions):
        links.append(f'<a rel="next" href="?from={last}">later actions</a>')
    if not links:
        return ""
    shown_now = f"actions {first} to {last - 1} of {len(session.actions)}"
    return f'<nav class="pages" aria-label="Actions">{shown_now} · {" · ".join(links)}</nav>\n'


async def comparison_page(store: Store, comparison: Comparison) -> AsyncGenerator[str, None]:
    """Yield the page of two sessions side by side, piece by piece."""
    a = await store.get_session(comparison.session_a)
    b = await store.get_session(comparison.session_b)
    names = [shorten(session.name or "(no name)", 120) for session in (a, b)]
    pairs = list(aligned_pairings(comparison))
    yield start(" / ".join(names))
    yield f'<main class="wide">{_comparison_header(comparison, (a, b))}'
    yield _comparison_timeline(pairs)
    counts = {
        "changed": len(comparison.changed),
        "only in a": len(comparison.only_in_a),
        "only in b": len(comparison.only_in_b),
    }
    yield _tools(counts, "differences")
    diverged = '<span id="diverged"></span>'
    for is_equal, group in groupby(pairs, key=lambda pair: pair.is_equal):
        if is_equal:
            yield _equal_pairings(list(group))
        else:
            yield diverged
            diverged = ""
            for pair in group:
                yield await _pairing_html(store, pair)
    yield "</div>" + end(_KEYS)


# --- around the list -----------------------------------------------------------------------------


def _asset(name: str) -> tuple[str, str]:
    """Return a file of the page's own, and the source expression that allows it (CSP Level 3)."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"'sha256-{digest}'"


def start(title: str, *, live: bool = False) -> str:
    """Return the head of a page. ``live``: its script may ask its own server, and nobody else."""
    style, style_source = _asset("page.css")
    sources = " ".join(_asset(name)[1] for name in _scripts(live=live))
    policy = (
        f"default-src 'none'; style-src {style_source}; script-src {sources}; "
        + ("connect-src 'self'; form-action 'self'; " if live else "form-action 'none'; ")
        + "base-uri 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{shown(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#list">Skip to the list</a>\n'
    )


def end(keys: Mapping[str, str], *, live: bool = False) -> str:
    """Return what ends a page: its keys, and its scripts."""
    named = " ".join(f"<kbd>{key}</kbd> {what} ·" for key, what in keys.items())
    scripts = "".join(f"<script>{_asset(name)[0]}</script>\n" for name in _scripts(live=live))
    return (
        f"<footer>{named.removesuffix(' ·')}<br>Recorded with memvid_async. Times are UTC.</footer>"
        f"</main>\n{scripts}</body>\n</html>\n"
    )


def _scripts(*, live: bool) -> tuple[str, ...]:
    return ("page.js", "live.js") if live else ("page.js",)


def home_link() -> str:
    """Return the link to all sessions."""
    return '<nav class="home"><a href="/">All sessions</a></nav>'


def _tools(counts: dict[str, int], what: str) -> str:
    chips = "".join(
        f'<button class="chip {_state_class(kind)}" data-kind="{kind}" aria-pressed="true">'
        f"{kind.replace('_', ' ')}<b>{count}</b></button>"
        for kind, count in counts.items()
        if count
    )
    return (
        '<div class="bar"><div class="tools" hidden role="search">'
        f'<input type="search" id="search" placeholder="Search {what}" aria-label="Search {what}">'
        f'{chips}<span class="count" id="count" role="status"></span>'
        '<button id="fold">Fold / unfold</button><button id="theme">Light / dark</button>'
        '</div></div><div id="list">\n'
    )


def _state_class(kind: str) -> str:
    return {"changed": "t-changed", "only in a": "t-a", "only in b": "t-b"}.get(kind, kind)


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{shown(value)}</dd></div>" for name, value in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def _session_header(session: Session) -> str:
    end = session.ended_ns
    last = end or (session.actions[-1].time_ns if session.actions else session.created_ns)
    facts = {
        "started": format_time(session.created_ns).partition(".")[0],
        "lasted": format_duration(last - session.created_ns) + ("" if end else ", still open"),
        "actions": str(len(session.actions) - len(session.checkpoints)),
        "checkpoints": str(len(session.checkpoints)),
        "failed": str(sum(action.error is not None for action in session.actions)),
    }
    used = used_of(session.actions)
    if used.input_tokens or used.output_tokens:
        facts["tokens"] = (
            f"{format_count(used.input_tokens)} in, {format_count(used.output_tokens)} out"
        )
    if used.cost_usd:
        facts["cost"] = format_cost(used.cost_usd)
    name = shown(shorten(session.name or "(no name)", 200))
    error = "" if session.error is None else f'<p class="error">{shown(session.error)}</p>'
    forked = ""
    if session.fork is not None:
        where = shown(describe_fork(session, session.fork))
        forked = f'<div class="id"><a href="#forked">forked</a> {where}</div>'
    metadata = ""
    if session.metadata:
        metadata = aside("metadata", block(json_text(plain(session.metadata))))
    return (
        f'<header><h1>{name}</h1><div class="id">session {session.session_id}</div>'
        f"{forked}{error}{_facts(facts)}{metadata}</header>"
    )


def _fork_mark(fork: ForkPoint) -> str:
    return (
        f'<p class="forked" id="forked">Up to here it is session {fork.parent_id}; '
        "from here on it is the fork's own.</p>\n"
    )


def _comparison_header(comparison: Comparison, sessions: Sequence[Session]) -> str:
    sides = "".join(
        f'<div><h2><span class="letter">{letter}</span>{shown(shorten(s.name or "(no name)", 200))}'
        f'</h2><div class="id">{s.session_id}</div></div>'
        for letter, s in zip("ab", sessions, strict=True)
    )
    first = comparison.first_divergence
    verdict = (
        "Both did the same."
        if first is None
        else f'They did the same up to action {first}, where they <a href="#diverged">diverge</a>.'
    )
    facts = {
        "equal": str(len(comparison.equal)),
        "changed": str(len(comparison.changed)),
        "only in a": str(len(comparison.only_in_a)),
        "only in b": str(len(comparison.only_in_b)),
    }
    return (
        f'<header><div class="sides">{sides}</div><p class="verdict">{verdict}</p>'
        f"{_facts(facts)}</header>"
    )


# --- the timeline --------------------------------------------------------------------------------


def _session_timeline(actions: Sequence[Action]) -> str:
    """Return the timeline of a session: a lane for each task, in the recorded order."""
    lanes = list(dict.fromkeys(action.task or "" for action in actions))
    if len(lanes) > _LANES:
        lanes[_LANES - 1 :] = [f"{len(lanes) - _LANES + 1} other tasks"]
    places = {name: place for place, name in enumerate(lanes)}
    marks = [
        (
            places.get(action.task or "", _LANES - 1),
            "t-failed" if action.error is not None else action.kind.value,
            f"#a{action.index}",
            f"{action.index} {action.kind}",
        )
        for action in actions
    ]
    return _timeline(lanes, [[mark] for mark in marks])


def _comparison_timeline(pairs: Sequence[Pairing]) -> str:
    columns = []
    for pair in pairs:
        state = "t-equal" if pair.is_equal else "t-changed" if pair.a and pair.b else None
        column = []
        for lane, (action, alone) in enumerate(((pair.a, "t-a"), (pair.b, "t-b"))):
            if action is not None:
                link = "#list" if pair.is_equal else f"#{_anchor(pair)}"
                column.append((lane, state or alone, link, f"{action.index} {action.kind}"))
        columns.append(column)
    return _timeline(["a", "b"], columns)


def _timeline(lanes: Sequence[str], columns: Sequence[Iterable[tuple[int, str, str, str]]]) -> str:
    if not columns:
        return ""
    left, lane_height = (130 if max(map(len, lanes)) > 2 else 24), 20
    width = min(_WIDEST, (1100 - left) / min(len(columns), _COLUMNS))
    each = -(-len(columns) // _COLUMNS)
    out = []
    for lane, name in enumerate(lanes):
        y = lane * lane_height
        out.append(f'<text x="0" y="{y + 12}">{shown(shorten(name or "(no task)", 20))}</text>')
        out.append(f'<rect class="lane" x="{left}" y="{y + 8}" width="{1100 - left}" height="1"/>')
    drawn = set[tuple[int, int]]()
    for place, column in enumerate(columns):
        x = place // each
        for lane, name, link, title in column:
            # With more actions than columns, a column shows its first action and those that failed.
            if (x, lane) in drawn and name != "t-failed":
                continue
            drawn.add((x, lane))
            out.append(
                f'<a href="{link}"><title>{shown(title)}</title><rect class="{name}" '
                f'x="{left + x * width:.1f}" y="{lane * lane_height + 2}" '
                f'width="{max(1.2, width - 1.5):.1f}" height="13"/></a>'
            )
    height = len(lanes) * lane_height
    return (
        f'<div class="scroll"><svg class="timeline" viewBox="0 0 1100 {height}" role="img" '
        f'aria-label="Timeline">{"".join(out)}</svg></div>'
    )


# --- the pairs of a comparison -------------------------------------------------------------------


def _anchor(pair: Pairing) -> str:
    if pair.a is not None:
        return f"a{pair.a.index}"
    return f"b{pair.b.index}" if pair.b is not None else ""


async def _pairing_html(store: Store, pair: Pairing) -> str:
    if pair.a is not None and pair.b is not None:
        document = await read_action(store, pair.a, full=False)
        parts = "".join(part(d.field, diff_block(d.diff)) for d in pair.differences)
        line = head(document, other=f" / {pair.b.index}")
        return (
            f'<article id="a{pair.a.index}" class="changed" tabindex="-1" data-kind="changed">'
            f"{line}{parts}</article>\n"
        )
    action = pair.a or pair.b
    assert action is not None
    letter = "a" if pair.a is not None else "b"
    document = await read_action(store, action, full=True)
    return (
        '<div class="row">'
        + article(document, anchor=letter, name=f"{letter}-only", kind=f"only in {letter}")
        + "</div>"
    )


def _equal_pairings(pairs: Sequence[Pairing]) -> str:
    items = []
    for pair in pairs:
        assert pair.a is not None
        assert pair.b is not None
        preview = shorten(pair.a.input.preview if pair.a.input is not None else "", 140)
        items.append(
            f"<li><span>{pair.a.index} / {pair.b.index}</span>"
            f'<span class="{pair.a.kind}">{pair.a.kind}</span><span>{shown(preview)}</span></li>'
        )
    return (
        f'<details class="same"><summary>{count_of(len(pairs), "equal action")}</summary>'
        f'<ul class="same-list">{"".join(items)}</ul></details>\n'
    )
