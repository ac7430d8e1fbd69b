"""A search through everything that was recorded: the newest actions that fit, as they are found."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from urllib.parse import quote
from uuid import UUID

from .. import Action, ActionKind, ContentNotFoundError, Store
from .bars import title_of
from .documents import read_action
from .forms import check_box, choice, day_ns, form, number_of, query_of, search_field, text_field
from .markup import attribute, json_text, named, shown
from .session_names import SessionNames
from .shell import LIST_KEYS, end, head, start
from .text import format_time, shorten

MATCHES = 50
"""How many actions a page shows."""

_FIELDS = ("q", "kind", "name", "task", "session", "since", "until", "failed")
_AROUND = 90


async def search_page(store: Store, asked: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """Yield the page of the actions that fit, each as soon as it is found."""
    wanted = {name: asked.get(name, "").strip() for name in _FIELDS}
    yield head(live=True) + start("Search", live=True, here="/search")
    yield f'<main><header><h1>Search</h1></header>{_form(wanted)}<div id="list">'
    if not any(wanted.values()):
        yield '<p class="note">Everything that was recorded is searched, newest first.</p>'
        yield "</div>" + end(LIST_KEYS, live=True)
        return
    names = SessionNames(store)
    session = _session_of(wanted["session"])
    yield '<ol class="rows matches">'
    count, last = 0, 0
    actions = store.actions(
        session,
        text=wanted["q"] or None,
        kind=wanted["kind"] if wanted["kind"] in list(ActionKind) else None,
        name=wanted["name"] or None,
        task=wanted["task"] or None,
        failed=True if wanted["failed"] else None,
        since_ns=day_ns(wanted["since"]),
        until_ns=day_ns(wanted["until"]),
        newest_first=True,
        after=number_of(asked.get("after", "")),
        limit=MATCHES,
    )
    async with aclosing(actions):
        async for action in actions:
            count, last = count + 1, action.sequence
            yield await _match(store, action, wanted["q"], names)
    yield "</ol>"
    if not count:
        yield '<p class="note">Nothing fits.</p>'
    elif count == MATCHES:
        older = attribute(query_of({**wanted, "after": str(last)}))
        yield f'<nav class="pages" aria-label="More"><a rel="next" href="?{older}">older</a></nav>'
    yield "</div>" + end(LIST_KEYS, live=True)


def _session_of(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _form(wanted: Mapping[str, str]) -> str:
    kinds = ["", *(kind.value for kind in ActionKind)]
    fields = [
        search_field("Part of an input, an output, arguments or an error", wanted["q"]),
        choice("kind", "kind", kinds, wanted["kind"]),
        text_field("name", "model or tool", wanted["name"]),
        text_field("task", "task", wanted["task"]),
        text_field("since", "from", wanted["since"], kind="date"),
        text_field("until", "before", wanted["until"], kind="date"),
        check_box("failed", "failed", on=bool(wanted["failed"])),
    ]
    if wanted["session"]:
        fields.append(text_field("session", "session", wanted["session"]))
    return form("/search", fields, "Search")


async def _match(store: Store, action: Action, text: str, names: SessionNames) -> str:
    failed = ' class="failed"' if action.error is not None else ""
    session = action.session_id
    name = None if session is None else await names.get(session)
    # The page of the session begins at the action, and a browser that can marks the text there
    # (a text fragment, WICG). In one, "-" and "," have a meaning.
    mark = f":~:text={quote(text, safe='').replace('-', '%2D')}" if text else ""
    href = attribute(f"/sessions/{session}?from={action.index}#a{action.index}{mark}")
    return (
        f'<li{failed}><a href="{href}"><span class="kind {action.kind.value}">'
        f"{action.kind.value.replace('_', ' ')}</span> <b>{named(title_of(action.details), '')}</b>"
        f'</a> <span class="soft">{action.index} of {named(name or "")} · '
        f"{format_time(action.time_ns).partition('.')[0]}</span>"
        f"<pre>{await _snippet(store, action, text)}</pre></li>"
    )


async def _snippet(store: Store, action: Action, text: str) -> str:
    """Return the first place of an action with a text, the text marked."""
    if not text:
        one = action.output or action.input
        return shown(shorten("" if one is None else one.preview, 2 * _AROUND))
    try:
        document = await read_action(store, action, full=True, messages=())
    except ContentNotFoundError:
        return ""
    values = [action.error or ""]
    if document.get("arguments") is not None:
        values.append(json_text(document["arguments"]))
    values += [(document[one] or {}).get("text", "") for one in ("input", "output")]
    for value in values:
        at = value.casefold().find(text.casefold())
        if at >= 0:
            first, last = max(0, at - _AROUND), at + len(text)
            before = ("…" if first else "") + value[first:at]
            after = value[last : last + _AROUND]
            return (
                f"{shown(before, one_line=True)}<mark>{shown(value[at:last], one_line=True)}</mark>"
                f"{shown(after, one_line=True)}"
            )
    return ""
