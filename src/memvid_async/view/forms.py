"""Forms of the served pages: fields that fill in what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlencode

from .markup import attribute
from .text import read_time


def search_field(label: str, value: str) -> str:
    """Return the field that the key for searching leads to."""
    return (
        f'<input type="search" id="search" name="q" value="{attribute(value)}" '
        f'placeholder="{label}" aria-label="{label}">'
    )


def text_field(name: str, label: str, value: str, *, kind: str = "text") -> str:
    """Return a field with its label. ``kind``: what it takes, as ``date`` or ``number``."""
    return f'<label>{label} <input type="{kind}" name="{name}" value="{attribute(value)}"></label>'


def check_box(name: str, label: str, *, on: bool) -> str:
    """Return a box to check."""
    checked = " checked" if on else ""
    return f'<label><input type="checkbox" name="{name}" value="1"{checked}> {label}</label>'


def choice(name: str, label: str, values: Iterable[str], chosen: str) -> str:
    """Return a choice of values; "" means any."""
    options = "".join(
        f'<option value="{attribute(value)}"{" selected" if value == chosen else ""}>'
        f"{value.replace('_', ' ') or 'any'}</option>"
        for value in values
    )
    return f'<label>{label} <select name="{name}">{options}</select></label>'


def form(action: str, fields: Iterable[str], button: str = "Show") -> str:
    """Return a form that asks for a page."""
    return (
        f'<form class="filters" method="get" action="{action}" role="search">'
        f"{''.join(fields)}<button>{button}</button></form>"
    )


def query_of(asked: Mapping[str, str]) -> str:
    """Return what was asked for as the query of an address; empty fields are left out."""
    return urlencode({name: value for name, value in asked.items() if value})


def day_ns(text: str) -> int | None:
    """Return the begin of a day in UTC, in nanoseconds since the Unix epoch; None for no day."""
    try:
        return read_time(text)
    except ValueError:
        return None


def number_of(text: str) -> int | None:
    """Return a whole number from 0; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
