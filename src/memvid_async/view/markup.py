"""Pieces of an HTML page. All recorded text goes through :func:`shown`, so that it can neither
become markup nor hide anything."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Any

from .text import format_size, printable, shorten

SHOWN_CHARS = 64 * 1024
"""How many characters of a content the page shows."""

_FOLDED_LINES = 14
_FOLDED_CHARS = 1_400
_MARKED_CHARS = 4_000
# The script indents JSON that is longer.
_ONE_LINE = 80
_IMAGES = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "R0lGOD": "gif", "UklGR": "webp"}
_IMAGE_CHARS = 1024 * 1024


def shown(text: str, *, one_line: bool = False) -> str:
    """Return recorded text as HTML between tags; what is not printable is escaped."""
    return html.escape(printable(text, one_line=one_line), quote=False)


def attribute(text: str) -> str:
    """Return recorded text as the value of an attribute, without its quotes."""
    return html.escape(printable(text, one_line=True))


def named(name: str, fallback: str = "(no name)", width: int = 120) -> str:
    """Return a recorded name as HTML, in one line of at most ``width`` characters."""
    return shown(shorten(name or fallback, width))


def block(text: str, size: int | None = None) -> str:
    """Return a text as HTML, its end folded when it is long. ``size``: the whole content's, in
    bytes."""
    is_json = _is_json(text)
    note = ""
    if len(text) > SHOWN_CHARS:
        whole = "" if size is None else f" of {format_size(size)}"
        said = f"The first {SHOWN_CHARS} characters{whole}; export as jsonl has all."
        note = f"<p class=note>{said}</p>"
    text = text[:SHOWN_CHARS].replace("\r\n", "\n")
    form = " class=json" if is_json else ""
    at = _fold_at(text)
    if at == len(text):
        return f"<pre{form}>{shown(text)}</pre>{note}"
    start, rest = text[:at], text[at:]
    # A line break is what the two elements have between them anyway.
    joined = "" if rest[:1] == "\n" else " data-joined"
    more = f"Show all: {text.count(chr(10)) + 1} lines, {len(text)} characters"
    return (
        f"<div class=long{joined}><pre{form}>{shown(start)}</pre><details><summary>{more}"
        f"</summary><pre>{shown(rest.removeprefix(chr(10)))}</pre>{note}</details></div>"
    )


def _fold_at(text: str) -> int:
    """Return where a text is folded: its length for one that is not."""
    at = len(text)
    if len(text) > _FOLDED_CHARS:
        at = max(text.rfind(" ", 0, _FOLDED_CHARS) + 1, text.rfind("\n", 0, _FOLDED_CHARS))
        at = at if at > _FOLDED_CHARS // 2 else _FOLDED_CHARS
    lines = [found.start() for found in re.finditer("\n", text[:at])]
    return lines[_FOLDED_LINES - 1] if len(lines) >= _FOLDED_LINES else at


def _is_json(text: str) -> bool:
    if text[:1] not in ("{", "[") or not _ONE_LINE < len(text) <= SHOWN_CHARS:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def image(data: str, what: str = "image") -> str | None:
    """Return base64 as an image, if it begins as one of a known kind and is not too large."""
    kind = next((kind for start, kind in _IMAGES.items() if data.startswith(start)), None)
    if kind is None or len(data) > _IMAGE_CHARS or not re.fullmatch(r"[A-Za-z0-9+/]+=*", data):
        return None
    size = format_size(len(data) * 3 // 4)
    alt = attribute(f"{what}: {kind}, {size}")
    return f'<img alt="{alt}" src="data:image/{kind};base64,{data}">'


def part(name: str, body: str) -> str:
    """Return a piece of an action with its name, for :func:`parts_list`."""
    # HTML closes both by itself, and a page has thousands of them.
    return f"<dt>{shown(name, one_line=True)}<dd>{body}"


def parts_list(parts: Iterable[str]) -> str:
    """Return what :func:`part` returned, as one list; "" for none."""
    joined = "".join(parts)
    return f"<dl>{joined}</dl>" if joined else ""


def aside(title: str, body: str) -> str:
    """Return a body that is folded until it is clicked."""
    return f"<details class=aside><summary>{shown(title)}</summary>{body}</details>"


def facts_list(facts: dict[str, str]) -> str:
    """Return facts with their names."""
    rows = "".join(
        f"<div><dt>{name}</dt><dd>{shown(value)}</dd></div>" for name, value in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def json_text(value: Any) -> str:
    """Return a value as JSON on one line; the script indents what is long."""
    return json.dumps(value, ensure_ascii=False)


# --- differences ---------------------------------------------------------------------------------


def diff_block(diff: str) -> str:
    """Return the lines of a difference as HTML; in a changed line, the changed words are marked."""
    lines = diff.split("\n")
    out, place = [], 0
    while place < len(lines):
        mark, text = lines[place][:1], lines[place][2:]
        following = lines[place + 1] if place + 1 < len(lines) else ""
        if mark == "-" and following[:1] == "+":
            old, new = _mark_words(text, following[2:])
            out += [f'<span class="del">{old}</span>', f'<span class="add">{new}</span>']
            place += 2
            continue
        name = {"-": "del", "+": "add"}.get(mark, "both")
        out.append(f'<span class="{name}">{shown(text)}</span>')
        place += 1
    return f'<pre class="diff">{"".join(out)}</pre>'


def _mark_words(old: str, new: str) -> tuple[str, str]:
    if max(len(old), len(new)) > _MARKED_CHARS:
        return shown(old), shown(new)
    a, b = (re.findall(r"\w+|\s+|.", text) for text in (old, new))
    runs = SequenceMatcher(None, a, b).get_matching_blocks()
    kept_a = {run.a + place for run in runs for place in range(run.size)}
    kept_b = {run.b + place for run in runs for place in range(run.size)}
    # In lines that have almost nothing in common, marked words tell nothing.
    alike = sum(len(a[place]) for place in kept_a if not a[place].isspace())
    if 3 * alike < max(len(old), len(new)):
        return shown(old), shown(new)
    return _marked(a, kept_a), _marked(b, kept_b)


def _marked(words: list[str], kept: set[int]) -> str:
    out, marking = [], False
    for place, word in enumerate(words):
        if (place not in kept) != marking:
            marking = not marking
            out.append("<mark>" if marking else "</mark>")
        out.append(shown(word))
    return "".join(out) + ("</mark>" if marking else "")
