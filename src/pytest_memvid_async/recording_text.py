"""A recording as text in which ``git diff`` shows what changed between two of them.

Whatever differs between two recordings of the same run is left out: times, durations, ids and
positions. Structured values are spread over several lines.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memvid_async import Action, Store

_NUMBERED = re.compile(r"Task-\d+").fullmatch
_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cost_usd")


async def print_recording(path: str) -> int:
    """Print every session of a file; return 1 when it cannot be read, with a line that says why."""
    from memvid_async import MemvidAsyncError, open_store  # noqa: PLC0415 - see the package
    from memvid_async.view.text import printable  # noqa: PLC0415 - the same

    try:
        async with open_store(path, read_only=True) as store:
            for summary in await store.list_sessions(include_open=True):
                session = await store.get_session(summary.session_id)
                _say(printable(f"session {session.name or ''}".rstrip()))
                if session.error is not None:
                    _say(printable(f"error: {session.error}"))
                unnamed: dict[str, int] = {}
                for action in session.actions:
                    for line in await _action_lines(store, action, unnamed):
                        _say(printable(line))
    except MemvidAsyncError as error:
        sys.stderr.write(f"{path}: {error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


async def _action_lines(store: Store, action: Action, unnamed: dict[str, int]) -> list[str]:
    """Return the lines of an action.

    ``unnamed``: the places of the tasks that asyncio numbered, whose numbers are of one run.
    """
    from memvid_async.view.documents import read_action  # noqa: PLC0415 - see the package

    document = await read_action(store, action, full=True)
    details: dict[str, Any] = dict(document["details"])
    title = [f"{action.index} {action.kind}"]
    title += [str(details.pop(name)) for name in ("name", "provider", "model") if details.get(name)]
    if action.task is not None:
        task = action.task
        if _NUMBERED(task):
            task = f"#{unnamed.setdefault(task, len(unnamed) + 1)}"
        title.append(f"in task {task}")
    shown = {
        "arguments": document.get("arguments"),
        "messages": document.get("messages"),
        "input": _text(document["input"]) if document.get("arguments") is None else None,
        "output": _text(document["output"]),
        "error": action.error,
        **details,
        "metadata": {key: value for key, value in document["metadata"].items() if _is_own(key)},
    }
    reply = document.get("reply") or {}
    shown |= {name: reply.get(name) for name in _COUNTS}
    lines = ["", " ".join(title)]
    for name, value in shown.items():
        if value is not None and value not in ([], {}):
            lines += _named(name, value)
    return lines


def _is_own(key: str) -> bool:
    """Whether metadata is the caller's own and not a note of the library."""
    return key not in ("memvid_async", "imported_chat")


def _named(name: str, value: Any) -> Iterator[str]:
    """Yield a value's lines: the first with its name, the others indented."""
    from memvid_async import content_text  # noqa: PLC0415 - see the package
    from memvid_async.view.documents import dump  # noqa: PLC0415 - the same

    structured = isinstance(value, (Mapping, list))
    first, *rest = content_text(dump(value) if structured else str(value)).split("\n")
    yield f"  {name}: {first}"
    yield from (f"    {line}" for line in rest)


def _text(content: Mapping[str, Any] | None) -> Any:
    """Return a content's text; of bytes their base64, of what was erased a note."""
    if content is None:
        return None
    if content.get("is_erased"):
        return "(erased)"
    return content.get("text", content.get("base64"))
