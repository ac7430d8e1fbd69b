"""The list of all sessions, as a page: newest first, a page at a time."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode
from uuid import UUID

from attrs import field, frozen

from .. import SessionSummary, Store
from .markup import attribute, shown
from .shell import LIST_KEYS, end, head, start
from .text import format_duration, format_time, shorten

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
    after: UUID | None = None
    """Those after this one, which was the last of the page before."""

    def fits(self, summary: SessionSummary) -> bool:
        """Whether a session is to be shown."""
        text = self.name.casefold()
        return (
            (not text or text in (summary.name or "").casefold() or self._is_id(summary))
            and (not self.failed or summary.error is not None or summary.failed_count > 0)
            and (not self.is_open or summary.ended_ns is None)
        )

    def _is_id(self, summary: SessionSummary) -> bool:
        return str(summary.session_id).startswith(self.name.lower())

    def query(self, after: UUID | None = None) -> str:
        """Return the query string of the page of these sessions after one."""
        fields = {
            "q": self.name,
            "failed": "1" if self.failed else "",
            "open": "1" if self.is_open else "",
            "after": "" if after is None else str(after),
        }
        return urlencode({name: value for name, value in fields.items() if value})


@frozen
class ListPage:
    """The sessions of a page, and the last one looked at when there may be more."""

    rows: list[SessionSummary] = field(factory=list)
    last: UUID | None = None


async def find_sessions(store: Store, wanted: ListFilter) -> ListPage:
    """Return the newest sessions that are wanted, at most ``ROWS``."""
    found: list[SessionSummary] = []
    after, looked_at = wanted.after, 0
    while looked_at < _LOOKED_AT:
        listed = await store.list_sessions(
            include_open=True, newest_first=True, after=after, limit=ROWS
        )
        for summary in listed:
            if wanted.fits(summary):
                found.append(summary)
                if len(found) == ROWS:
                    return ListPage(found, summary.session_id)
        if len(listed) < ROWS:
            return ListPage(found)
        looked_at += len(listed)
        after = listed[-1].session_id
    return ListPage(found, after)


def list_page(store: Store, wanted: ListFilter, found: ListPage) -> str:
    """Return the page of these sessions."""
    name = shown(store.path.name, one_line=True)
    more = ""
    if found.last is not None:
        more = (
            f'<nav class="pages" aria-label="Sessions"><a rel="next" href="?'
            f'{attribute(wanted.query(found.last))}">older sessions</a></nav>'
        )
    return (
        f"{head(live=True)}{start(store.path.name, live=True, here='/')}<main>"
        f"<header><h1>{name}</h1>"
        f'<div class="id">{shown(str(store.path), one_line=True)}</div></header>'
        f"{_filters(wanted)}"
        '<table class="sessions" id="list"><thead><tr><th>Session</th><th>Started</th>'
        '<th class="number">Lasted</th><th class="number">Asks</th><th class="number">Tools</th>'
        '<th class="number">Failed</th><th class="number">Tokens</th><th class="number">Cost</th>'
        f'</tr></thead><tbody id="sessions">{_rows(found.rows)}</tbody></table>'
        f"{more}{end(LIST_KEYS, live=True)}"
    )


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
        f"<td>{started}</td>{cells}</tr>"
    )


def _filters(wanted: ListFilter) -> str:
    boxes: Mapping[str, bool] = {"failed": wanted.failed, "open": wanted.is_open}
    checks = "".join(
        f'<label><input type="checkbox" name="{name}" value="1"{" checked" if on else ""}> '
        f"only {name}</label>"
        for name, on in boxes.items()
    )
    return (
        '<form class="filters" method="get" action="/" role="search">'
        f'<input type="search" id="search" name="q" value="{attribute(wanted.name)}" '
        f'placeholder="Name or id" aria-label="Name or id">{checks}<button>Show</button></form>'
    )
