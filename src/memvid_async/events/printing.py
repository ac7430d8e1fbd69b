"""How values are printed at a prompt: short, whatever they hold, and as tables in a notebook."""

from __future__ import annotations

import html
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

# A table has this many rows, a cell this many characters, however much there is.
ROWS = 20
_CELL_CHARS = 120

_brief = reprlib.Repr()
_brief.maxlevel = 3
_brief.maxstring = _brief.maxother = 120


def brief(value: Any) -> str:
    """The repr of a value, shortened: of a container its first items, of a text its two ends."""
    return _brief.repr(dict(value) if isinstance(value, Mapping) else value)


def counted(name: str) -> Callable[[Sized], str]:
    """A repr for a field of many items that says how many there are, not which."""
    return lambda items: f"<{len(items)} {name}{'' if len(items) == 1 else 's'}>"


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[Any]], total: int) -> str:
    """The first rows of ``total`` as an HTML table. Only those that are shown are taken.

    No recorded text can become markup, span lines or hide anything: it is escaped, its white
    space is made single, and what does not print is replaced.
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
