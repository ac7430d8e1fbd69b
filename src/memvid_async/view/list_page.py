"""The list of all sessions, as a page: newest first, a page at a time."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Self
from uuid import UUID

from attrs import field, frozen

from .. import SessionSummary, Store
from .forms import check_box, day_ns, form, query_of, search_field, text_field
from .gathered import Gathered
from .markup import attribute, json_text, named, shown
from .shell import LIST_KEYS, end, head, start
from .text import count_of, format_duration, format_time, shorten
from .tree import tree_of

ROWS = 100
"""How many sessions a page shows."""

# At most this many sessions are looked at for one page: a rare filter must not hold up the server.
_LOOKED_AT = 10_000


@frozen
class ListFilter:
    """Which sessions to show."""

    name: str = ""
    """Part of a name, in any case, or the beginning of an id."""
    failed: bool = False
    """Only those that failed, or in which a call failed."""
    is_open: bool = False
    """Only those that are being recorded."""
    in_flight: bool = False
    """Only those with a call in flight."""
    used: str = ""
    """Only those that used this model or tool."""
    task: str = ""
    """Only those in which this task did something."""
    metadata: str = ""
    """Only those whose metadata has this: ``key`` or ``key=value``."""
    since: str = ""
    """Only those that began on this day (in UTC) or later."""
    until: str = ""
    """Only those that began before this day."""
    after: UUID | None = None
    """Those after this one, which was the last of the page before."""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> Self:
        """Return the filter of a page's address."""
        texts = {name: asked.get(name, "").strip() for name in _TEXTS}
        return cls(
            asked.get("q", "").strip(),
            "failed" in asked,
            "open" in asked,
            "flight" in asked,
            **texts,
            after=_uuid(asked.get("after", "")),
        )

    def fits(self, summary: SessionSummary) -> bool:
        """Whether a session is to be shown, as far as its summary tells."""
        text = self.name.casefold()
        since, until = day_ns(self.since), day_ns(self.until)
        return (
            (not text or text in (summary.name or "").casefold() or self._is_id(summary))
            and (not self.failed or summary.error is not None or summary.failed_count > 0)
            and (not self.is_open or summary.ended_ns is None)
            and (not self.in_flight or summary.in_flight_count > 0)
            and (since is None or summary.created_ns >= since)
            and (until is None or summary.created_ns < until)
            and self._has_metadata(summary)
        )

    def _is_id(self, summary: SessionSummary) -> bool:
        return str(summary.session_id).startswith(self.name.lower())

    def _has_metadata(self, summary: SessionSummary) -> bool:
        key, equals, value = self.metadata.partition("=")
        if not key:
            return True
        held = summary.metadata.get(key)
        return key in summary.metadata and (not equals or value in (str(held), json_text(held)))

    def query(self, after: UUID | None = None) -> str:
        """Return the query string of the page of these sessions after one."""
        return query_of(
            {
                "q": self.name,
                "failed": "1" if self.failed else "",
                "open": "1" if self.is_open else "",
                "flight": "1" if self.in_flight else "",
                **{name: getattr(self, name) for name in _TEXTS},
                "after": "" if after is None else str(after),
            }
        )


_TEXTS = ("used", "task", "metadata", "since", "until")


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


@frozen
class ListPage:
    """The sessions of a page, and the last one looked at when there may be more."""

    rows: list[SessionSummary] = field(factory=list)
    last: UUID | None = None


async def find_sessions(store: Store, wanted: ListFilter, gathered: Gathered) -> ListPage:
    """Return the newest sessions that are wanted, at most ``ROWS``."""
    within: set[UUID] | None = None
    if wanted.used or wanted.task:
        await gathered.catch_up()
        within = gathered.sessions(name=wanted.used or None, task=wanted.task or None)
    found: list[SessionSummary] = []
    after, looked_at = wanted.after, 0
    while looked_at < _LOOKED_AT:
        listed = await store.list_sessions(
            include_open=True, newest_first=True, after=after, limit=ROWS
        )
        for summary in listed:
            if (within is None or summary.session_id in within) and wanted.fits(summary):
                found.append(summary)
                if len(found) == ROWS:
                    return ListPage(found, summary.session_id)
        if len(listed) < ROWS:
            return ListPage(found)
        looked_at += len(listed)
        after = listed[-1].session_id
    return ListPage(found, after)


async def list_page(
    store: Store, wanted: ListFilter, gathered: Gathered
) -> AsyncGenerator[str, None]:
    """Yield the page of the sessions that are wanted; its head before they are looked for."""
    name = shown(store.path.name, one_line=True)
    yield (
        f"{head(live=True)}{start(store.path.name, live=True, here='/')}<main>"
        f"<header><h1>{name}</h1>"
        f'<div class="id">{shown(str(store.path), one_line=True)}</div></header>'
        f"{_filters(wanted)}"
        '<div class="scroll" id="list" tabindex="0" role="region" aria-label="Sessions">'
        '<table class="sessions"><thead><tr><th>Session</th><th>Started</th>'
        '<th class="number">Lasted</th><th class="number">Asks</th><th class="number">Tools</th>'
        '<th class="number">Failed</th><th class="number">Tokens</th><th class="number">Cost</th>'
        '</tr></thead><tbody id="sessions">'
    )
    found = await find_sessions(store, wanted, gathered)
    more = ""
    if found.last is not None:
        more = (
            f'<nav class="pages" aria-label="Sessions"><a rel="next" href="?'
            f'{attribute(wanted.query(found.last))}">older sessions</a></nav>'
        )
    yield f"{_rows(found.rows)}</tbody></table></div>{more}{end(LIST_KEYS, live=True)}"


def list_news(found: ListPage) -> str:
    """Return what a page shows that was made before."""
    table = f'<table><tbody id="sessions">{_rows(found.rows)}</tbody></table>'
    return f'<div data-replace="sessions">{table}</div>'


def _rows(summaries: list[SessionSummary]) -> str:
    """Return the rows of the table."""
    if not summaries:
        return '<tr><td colspan="8" class="note">No session fits.</td></tr>'
    return "".join(map(_row, summaries))


def _row(summary: SessionSummary) -> str:
    failed = summary.error is not None or summary.failed_count > 0
    name = shown(shorten(summary.name or "(no name)", 120), one_line=True)
    error = "" if summary.error is None else f"<br>{shown(shorten(summary.error, 120))}"
    flight = f" · {summary.in_flight_count} in flight" if summary.in_flight_count else ""
    if summary.ended_ns is None:
        lasted = f"open{flight}"
    else:
        lasted = format_duration(summary.ended_ns - summary.created_ns)
    tokens = summary.input_tokens + summary.output_tokens
    numbers = (
        lasted,
        str(summary.ask_count or ""),
        str(summary.tool_call_count or ""),
        str(summary.failed_count or ""),
        f"{tokens:,}" if tokens else "",
        f"${summary.cost_usd:.4f}" if summary.cost_usd else "",
    )
    cells = "".join(f'<td class="number">{text}</td>' for text in numbers)
    started = format_time(summary.created_ns).partition(".")[0]
    return (
        f'<tr{" class=failed" if failed else ""}><td class="name">'
        f'<a href="/sessions/{summary.session_id}">{name}</a>{error}</td>'
        f'<td class="date">{started}</td>{cells}</tr>'
    )


def _filters(wanted: ListFilter) -> str:
    more = [
        text_field("used", "model or tool", wanted.used),
        text_field("task", "task", wanted.task),
        text_field("metadata", "metadata", wanted.metadata),
        text_field("since", "from", wanted.since, kind="date"),
        text_field("until", "before", wanted.until, kind="date"),
    ]
    is_used = any(getattr(wanted, name) for name in _TEXTS)
    opened = " open" if is_used else ""
    fields = [
        search_field("Name or id", wanted.name),
        check_box("failed", "only failed", on=wanted.failed),
        check_box("open", "only open", on=wanted.is_open),
        check_box("flight", "only in flight", on=wanted.in_flight),
        f"<details{opened}><summary>more</summary><div>{''.join(more)}</div></details>",
    ]
    return form("/", fields) + '<p class="note"><a href="/forks">the tree of forks</a></p>'


async def forks_page(store: Store) -> AsyncGenerator[str, None]:
    """Yield the page of the sessions that are forks, below those they were forked from."""
    yield head(live=True) + start("Forks", live=True)
    yield '<main><header><h1>Forks</h1></header><ol class="rows tree" id="list">'
    summaries = await store.list_sessions(include_open=True)
    parents = {one.fork.parent_id for one in summaries if one.fork is not None}
    related = [one for one in summaries if one.fork is not None or one.session_id in parents]
    for node in tree_of(related):
        one = node.summary
        deep = f' class="d{min(node.depth, 8)}"' if node.depth else ""
        if one is None:
            yield f"<li{deep}><span>(a deleted session) {node.session_id}</span></li>"
            continue
        where = f" after {count_of(one.fork.action_count, 'action')}" if one.fork else ""
        yield (
            f'<li{deep}><span><a href="/sessions/{one.session_id}">{named(one.name or "")}</a> '
            f'<small class="soft">{where} {format_time(one.created_ns).partition(".")[0]}</small>'
            "</span></li>"
        )
    yield "</ol>" + ("" if related else '<p class="note">No session was forked.</p>')
    yield end(LIST_KEYS, live=True)
