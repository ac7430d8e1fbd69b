"""Recorded text, made safe for a terminal. Needs only the standard library."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Categories of characters that move the cursor, colour, ring, hide or reorder text: controls (Cc),
# invisible formatting characters (Cf), line and paragraph separators (Zl, Zp), and lone surrogates
# (Cs).
_UNSAFE = ("Cc", "Cf", "Zl", "Zp", "Cs")
# The two that join letters and emoji or keep them apart, without which Persian, Hindi and families
# of emoji are misread. After a character of ASCII they mean nothing, and could only hide.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Escape every unsafe character but newline and tab, for example as ``\x1b``.

    With ``one_line``, newline and tab are escaped too. A joiner after a character that is not ASCII
    is kept.
    """
    if text.isprintable():
        return text
    kept = "" if one_line else "\n\t"
    out, before = [], " "
    for c in text:
        is_safe = c in kept or unicodedata.category(c) not in _UNSAFE
        if is_safe or (c in _JOINERS and not before.isascii()):
            out.append(c)
        else:
            out.append(c.encode("unicode_escape").decode())
        before = c
    return "".join(out)


def count_of(number: int, noun: str) -> str:
    """Return "1 action", "2 actions"; ``noun`` is the singular, whose plural ends with an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shorten(text: str, width: int) -> str:
    """Return the text on one line, safe to print, and at most ``width`` characters long."""
    line = printable(" ".join(text[: 4 * width].split()), one_line=True)
    return line if len(line) <= width else line[: width - 1] + "…"


def format_time(time_ns: int) -> str:
    """Format a time in nanoseconds since the Unix epoch, in UTC, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(time_ns // 10**9, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{time_ns} ns"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns // 10**6 % 1000:03d}"


def iso_time(time_ns: int) -> str | None:
    """Return a time in nanoseconds since the Unix epoch as ISO 8601 in UTC; None beyond the years
    1 to 9999."""
    try:
        moment = _EPOCH + timedelta(seconds=time_ns // 10**9)
    except OverflowError:
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9:09d}Z"


def read_time(text: str) -> int:
    """Return a time in ISO 8601 as nanoseconds since the Unix epoch; without a zone it is UTC.

    :raises ValueError: when it is none.
    """
    moment = datetime.fromisoformat(text)
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    return since // timedelta(microseconds=1) * 1_000


def format_duration(duration_ns: int) -> str:
    """Format a duration in nanoseconds in a fitting unit."""
    seconds = duration_ns / 10**9
    if seconds < 1:
        return f"{1000 * seconds:.1f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(int(seconds), 60)
    return (
        f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
    )


def format_milliseconds(value: float) -> str:
    """Format a duration in milliseconds, to about three digits."""
    if value < 10:
        return f"{value:.2g} ms"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def format_count(count: int) -> str:
    """Format a whole number, in groups of three digits."""
    return f"{count:,}"


def format_cost(dollars: float) -> str:
    """Format US dollars: to the cent, and small sums to four digits."""
    if not dollars:
        return "0"
    return f"${dollars:,.2f}" if dollars >= 10 else f"${dollars:.4g}"


def format_size(size: int) -> str:
    """Format a number of bytes in a fitting unit (1 KiB is 1024 bytes)."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
