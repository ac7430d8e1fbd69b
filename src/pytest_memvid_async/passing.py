"""What a call holds that the next run of the same test has otherwise: dates, ids, folders.

A served call is compared with the recorded one without them, as each is replaced by its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
_DAYS = "Mon|Tue|Wed|Thu|Fri|Sat|Sun"
_PREFIXES = (
    "asst|batch|call|chatcmpl|file|ft|fc|gen|item|msg|msgbatch|req|resp|rs|run|srvtoolu|step|thread"
    "|toolu|trace|span|vs|group"
)

# Where several begin at one place, the first of the list wins.
_KINDS = {
    # ISO 8601 and RFC 3339, with a time or without.
    "date": r"\b\d{4}-\d\d-\d\d"
    r"(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?: ?Z\b| ?[+-]\d\d:?\d\d\b)?)?"
    # RFC 5322, as in e-mail and HTTP; and what asctime prints.
    rf"|\b(?:{_DAYS}), \d\d? (?:{_MONTHS}) \d{{4}} \d\d:\d\d:\d\d(?: GMT| [+-]\d{{4}})?"
    rf"|\b(?:{_DAYS}) (?:{_MONTHS}) [ \d]\d \d\d:\d\d:\d\d \d{{4}}\b",
    "uuid": r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b",
    # The ids of requests, messages, calls, … in the APIs of OpenAI, Anthropic and their like.
    "id": rf"\b(?:{_PREFIXES})[_-](?=[A-Za-z]*\d)[A-Za-z0-9_-]{{8,}}",
    # W3C trace context, and ids and digests in hexadecimal: at least one digit and one letter.
    "hex": r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{32,128}\b",
    # pytest's tmp_path, and Python's temporary files.
    "folder": r"/\S{0,100}?/pytest-of-[^/\s]+/pytest-\d+"
    r"|/(?:tmp|var/folders/\S{1,100}?)/tmp[a-z0-9_]{8}\b",
}
_PASSING = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in _KINDS.items()))


def leave_out(text: str) -> str:
    """Return a text with ``<date>``, ``<uuid>``, ``<id>``, ``<hex>`` or ``<folder>`` in place of
    each such thing."""
    return _PASSING.sub(lambda found: f"<{found.lastgroup}>", text)


def leave_out_of(value: Any) -> Any:
    """Return a value with :func:`leave_out` done to every text in it, keys of dicts included."""
    holder: list[Any] = [None]
    # What is still to be copied, and the place that gets it.
    waiting: list[tuple[Any, Any, Any]] = [(holder, 0, value)]
    for into, key, item in waiting:
        made: Any = item
        if isinstance(item, str):
            made = leave_out(item)
        elif isinstance(item, Mapping):
            made = {}
            waiting.extend(
                (made, leave_out(name) if isinstance(name, str) else name, inner)
                for name, inner in item.items()
            )
        elif isinstance(item, (list, tuple)):
            made = [None] * len(item)
            waiting.extend((made, place, inner) for place, inner in enumerate(item))
        into[key] = made
    return holder[0]
