"""What every page has around its contents: its policy, style, scripts, keys, and links.

A content security policy names the digests of the page's own style and script. So recorded text
could not run even if the escaping let it through. Without scripts everything can still be read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from .markup import shown

KEYS = {
    "j": "next",
    "k": "previous",
    "f": "fold or unfold all",
    "/": "search",
    "c": "copy",
    "t": "light or dark",
    "?": "keys",
}
"""The keys of a page with actions, and what they do."""

LIST_KEYS = {key: KEYS[key] for key in "jk/t?"}
"""The keys of a page with a list."""


@cache
def _asset(name: str) -> tuple[str, str]:
    """Return a file of the page's own, and the source expression that allows it (CSP Level 3)."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"'sha256-{digest}'"


def head(*, live: bool = False) -> str:
    """Return how a page begins, which needs nothing of what it shows; :func:`start` goes on.

    ``live``: its script may ask its own server, and nobody else.
    """
    style, style_source = _asset("page.css")
    sources = " ".join(_asset(name)[1] for name in _scripts(live=live))
    policy = (
        f"default-src 'none'; style-src {style_source}; script-src {sources}; img-src data:; "
        + ("connect-src 'self'; form-action 'self'; " if live else "form-action 'none'; ")
        + "base-uri 'none'"
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<link rel="icon" href="data:,">\n'
        f"<style>{style}</style>\n"
    )


def start(title: str, *, live: bool = False, here: str = "") -> str:
    """Return what comes after :func:`head`: the title, and where the page leads. ``here``: which of
    the links leads to it."""
    return (
        f"<title>{shown(title)}</title>\n</head>\n<body>\n"
        '<a class="skip" href="#list">Skip to the list</a>\n' + (_links(here) if live else "")
    )


def end(keys: Mapping[str, str], *, live: bool = False) -> str:
    """Return what ends a page: its keys, and its scripts."""
    rows = "".join(f"<dt><kbd>{key}</kbd></dt><dd>{what}</dd>" for key, what in keys.items())
    scripts = "".join(f"<script>{_asset(name)[0]}</script>\n" for name in _scripts(live=live))
    return (
        "<footer>Recorded with memvid_async. Times are UTC. "
        "Press <kbd>?</kbd> for the keys.</footer></main>\n"
        f'<dialog id="keys" aria-label="Keys"><dl>{rows}</dl>'
        '<form method="dialog"><button>Close</button></form></dialog>\n'
        f"{scripts}</body>\n</html>\n"
    )


def _scripts(*, live: bool) -> tuple[str, ...]:
    return ("page.js", "live.js") if live else ("page.js",)


_PLACES = {"/": "Sessions", "/search": "Search", "/memory": "Memory", "/usage": "Usage"}


def _links(here: str) -> str:
    links = "".join(
        f'<a href="{address}"{" aria-current=page" if address == here else ""}>{name}</a>'
        for address, name in _PLACES.items()
    )
    return (
        f'<nav class="home" aria-label="Pages">{links}'
        '<span id="live" role="status">not connected</span></nav>\n'
    )
