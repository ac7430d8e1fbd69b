"""A readable difference between two texts. Only the beginnings of long texts are compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .lcs import align

TEXT_CHARS = 64 * 1024
"""How many characters of a text are compared and shown."""

_MOST_LINES = 4096
_CONTEXT_LINES = 2
_LINE_CHARS = 240
_NEAR_CHARS = 60
# Longer integers are shown in hexadecimal: Python does not write very long ones in decimal.
_DECIMAL_BITS = 4096


def plain_text(value: Any) -> str:
    """Return a recorded value as text: JSON over several lines, bytes in hexadecimal."""
    return json.dumps(_plain(value), indent=1, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else repr(key): _plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return f"hex {value.hex()}"
    if isinstance(value, int) and value.bit_length() > _DECIMAL_BITS:
        return hex(value)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def content_text(data: str | bytes | None) -> str:
    """Return an input or output as text; a JSON object or list becomes several lines."""
    if data is None:
        return "(none)"
    if isinstance(data, str):
        return _over_lines(data)
    try:
        return _over_lines(data.decode())
    except UnicodeDecodeError:
        lines = data[:TEXT_CHARS].hex(" ", -16).replace(" ", "\n")
        return f"({len(data)} bytes)\n{lines}"


def _over_lines(text: str) -> str:
    if text[:1] in ("{", "[") and len(text) <= TEXT_CHARS:
        try:
            return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    return text


def spoken_text(response: str | bytes | None) -> str | None:
    """Return the text of a response in the OpenAI format, and a line for each tool that it calls.

    None for a response of another form.
    """
    if not isinstance(response, str) or not response.startswith("{") or len(response) > TEXT_CHARS:
        return None
    try:
        spoken = json.loads(response)
        calls = [call["function"] for call in spoken["tool_calls"]]
        lines = [f"\N{RIGHTWARDS ARROW} {call['name']} {call['arguments']}" for call in calls]
        return "\n".join([spoken["content"], *lines] if spoken.get("content") else lines)
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def response_diff(a: str | bytes | None, b: str | bytes | None) -> str:
    """Compare two responses as :func:`text_diff` does: by their texts where those differ."""
    said = [spoken_text(data) or content_text(data) for data in (a, b)]
    if said[0] == said[1]:
        said = [content_text(data) for data in (a, b)]
    return text_diff(*said)


def text_diff(a: str, b: str) -> str:
    """Return the lines that differ, and those next to a difference.

    ``-`` precedes a line of a alone, ``+`` a line of b alone, and a space a line of both.
    """
    lines_a, lines_b = (text[:TEXT_CHARS].split("\n", _MOST_LINES) for text in (a, b))
    cut = max(len(a), len(b)) > TEXT_CHARS or max(len(lines_a), len(lines_b)) > _MOST_LINES
    marked = list(_marked(lines_a[:_MOST_LINES], lines_b[:_MOST_LINES]))
    # Texts may differ only after the part that is compared. Then their beginning is shown.
    near = set[int]() if any(mark != " " for mark, _ in marked) else {0, 1, 2}
    for place, (mark, _) in enumerate(marked):
        if mark != " ":
            near.update(range(place - _CONTEXT_LINES, place + _CONTEXT_LINES + 1))
    lines, shown = [], -1
    for place, (mark, line) in enumerate(marked):
        if place in near:
            if place != shown + 1:
                lines.append("  …")
            lines.append(f"{mark} {line}")
            shown = place
    if marked and shown != len(marked) - 1:
        lines.append("  …")
    if cut:
        lines.append(f"  … ({len(a)} and {len(b)} characters in all)")
    return "\n".join(lines)


def _marked(a: list[str], b: list[str]) -> Iterator[tuple[str, str]]:
    done_a = done_b = 0
    for i, j in [*align(a, b), (len(a), len(b))]:
        removed, added = a[done_a:i], b[done_b:j]
        if len(removed) == len(added):
            for old, new in zip(removed, added, strict=True):
                yield from zip("-+", _focus(old, new), strict=True)
        else:
            yield from (("-", _shorten(line)) for line in removed)
            yield from (("+", _shorten(line)) for line in added)
        if i < len(a):
            yield " ", _shorten(a[i])
        done_a, done_b = i + 1, j + 1


def _shorten(line: str) -> str:
    return line if len(line) <= _LINE_CHARS else line[: _LINE_CHARS - 1] + "…"


def _focus(old: str, new: str) -> tuple[str, str]:
    """Return two lines; long ones only from shortly before to shortly after their difference."""
    if max(len(old), len(new)) <= _LINE_CHARS:
        return old, new
    shortest = min(len(old), len(new))
    start = next((k for k in range(shortest) if old[k] != new[k]), shortest)
    start = max(0, start - _NEAR_CHARS)
    lead = "…" if start else ""
    return _shorten(lead + old[start:]), _shorten(lead + new[start:])
