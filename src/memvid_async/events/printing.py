"""How values are shown at a prompt, always short, and as tables in a notebook."""

from __future__ import annotations

import html
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

# A table has at most this many rows, and a cell at most _CELL_CHARS characters.
ROWS = 20
_CELL_CHARS = 120

_brief = reprlib.Repr()
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = 120


def brief(value: Any) -> str:
    """Return a shortened repr: a container's first items, a text's beginning and end."""
    return _brief.repr(dict(value) if isinstance(value, Mapping) else value)


def counted(name: str) -> Callable[[Sized], str]:
    """Return a repr for a field of many items: it says only how many there are."""
    return lambda items: f"<{amount(len(items), name)}>"


def amount(number: int, name: str) -> str:
    """Return a number of things with their name: ``1 hit``, ``2,000 hits``."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]], total: int) -> str:
    """Return the first of ``total`` rows as an HTML table. Only the rows that are shown are taken.

    Recorded text cannot become markup, span lines or hide anything: it is escaped, runs of white
    space become one space, and characters that are not printable are replaced.
    """
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in islice(rows, ROWS))
    more = f"<tfoot><tr><td colspan={len(head)}>… and {total - ROWS:,} more</td></tr></tfoot>"
    return (
        f"<table><caption>{_text(caption)}</caption>"
        f"<thead><tr>{_cells('th', head)}</tr></thead><tbody>{body}</tbody>"
        f"{more if total > ROWS else ''}</table>"
    )


def _cells(tag: str, values: Iterable[Any]) -> str:
    return "".join(f"<{tag}>{_text(value)}</{tag}>" for value in values)


def _text(value: Any) -> str:
    if value is None:
        return ""
    text = " ".join(str(value)[: 4 * _CELL_CHARS].split())
    if len(text) > _CELL_CHARS:
        text = text[: _CELL_CHARS - 1] + "…"
    return html.escape("".join(c if c.isprintable() else "\ufffd" for c in text))
