"""Two sessions side by side, as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from itertools import groupby

from .. import Comparison, Session, Store
from .aligned import Pairing, aligned_pairings
from .documents import read_action
from .markup import diff_block, facts_list, named, part, parts_list, shown
from .page_parts import Shown, article, head
from .session_page import tools
from .shell import KEYS, LIST_KEYS, end, start
from .shell import head as page_head
from .text import count_of, format_time, shorten

_COLUMNS = 480
_WIDEST = 36.0
# The newest sessions are offered for a comparison.
_CHOICES = 100


async def choice_page(store: Store, session_id: str) -> AsyncGenerator[str, None]:
    """Yield the page that asks what a session is to be compared with."""
    session = await store.get_summary(session_id)
    yield page_head(live=True) + start("Compare", live=True)
    yield f"<main><header><h1>Compare {named(session.name or '')} with</h1></header>"
    yield '<ol class="rows matches" id="list">'
    for other in await store.list_sessions(include_open=True, newest_first=True, limit=_CHOICES):
        if other.session_id != session.session_id:
            href = f"/compare?a={session.session_id}&amp;b={other.session_id}"
            when = format_time(other.created_ns).partition(".")[0]
            yield (
                f'<li><a href="{href}">{named(other.name or "")}</a> '
                f'<span class="soft">{when} · {count_of(other.action_count, "action")}</span></li>'
            )
    yield "</ol>" + end(LIST_KEYS, live=True)


async def comparison_page(
    store: Store, compare: Callable[[], Awaitable[Comparison]], *, live: bool = False
) -> AsyncGenerator[str, None]:
    """Yield the page of two sessions side by side, piece by piece; the first before they are
    compared."""
    yield page_head(live=live)
    comparison = await compare()
    a = await store.get_session(comparison.session_a)
    b = await store.get_session(comparison.session_b)
    names = [shorten(session.name or "(no name)", 120) for session in (a, b)]
    pairs = list(aligned_pairings(comparison))
    yield start(" / ".join(names), live=live)
    yield f'<main class="wide">{_header(comparison, (a, b), live=live)}'
    yield _comparison_timeline(pairs)
    counts = {
        "changed": len(comparison.changed),
        "only in a": len(comparison.only_in_a),
        "only in b": len(comparison.only_in_b),
    }
    yield tools(counts, "differences") + '<div id="list">\n'
    page = Shown()
    diverged = '<span id="diverged"></span>'
    for is_equal, group in groupby(pairs, key=lambda pair: pair.is_equal):
        if is_equal:
            yield _equal_pairings(list(group))
        else:
            yield diverged
            diverged = ""
            for pair in group:
                yield await _pairing_html(store, pair, page)
    yield "</div>" + end(KEYS, live=live)


def _header(comparison: Comparison, sessions: Sequence[Session], *, live: bool) -> str:
    sides = ""
    for letter, session in zip("ab", sessions, strict=True):
        name = named(session.name or "", "(no name)", 200)
        if live:
            name = f'<a href="/sessions/{session.session_id}">{name}</a>'
        sides += (
            f'<div><h2><span class="letter">{letter}</span>{name}</h2>'
            f'<div class="id">{session.session_id}</div></div>'
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
        f'<header><h1 class="unseen">Two sessions compared</h1><div class="sides">{sides}</div>'
        f'<p class="verdict">{verdict}</p>{facts_list(facts)}</header>'
    )


# --- the timeline --------------------------------------------------------------------------------


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
                f'<a href="{link}" tabindex="-1"><title>{shown(title)}</title><rect class="{name}" '
                f'x="{left + x * width:.1f}" y="{lane * lane_height + 2}" '
                f'width="{max(1.2, width - 1.5):.1f}" height="13"/></a>'
            )
    height = len(lanes) * lane_height
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Timeline">'
        f'<svg class="timeline" viewBox="0 0 1100 {height}" '
        f'aria-label="What each did, in order" role="group">{"".join(out)}</svg></div>'
    )


# --- the pairs of a comparison -------------------------------------------------------------------


def _anchor(pair: Pairing) -> str:
    if pair.a is not None:
        return f"a{pair.a.index}"
    return f"b{pair.b.index}" if pair.b is not None else ""


async def _pairing_html(store: Store, pair: Pairing, page: Shown) -> str:
    if pair.a is not None and pair.b is not None:
        document = await read_action(store, pair.a, full=False)
        parts = parts_list(part(d.field, diff_block(d.diff)) for d in pair.differences)
        line = head(document, page, other=f" / {pair.b.index}")
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
        + article(document, page, anchor=letter, name=f"{letter}-only", kind=f"only in {letter}")
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
