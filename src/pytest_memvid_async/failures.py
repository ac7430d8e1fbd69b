"""What a test shows when it asks for something else than its recording holds: one screen."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from memvid_async import ServedSession

MOST_LINES = 40
"""At most this many lines of a difference are shown."""

MOST_NAMED = 10
"""At most this many calls that nobody asked for are named."""

_SHOWN_CHARS = 120
_OURS = ("memvid_async", "pytest_memvid_async", "contextlib", "asyncio", "anyio")
_MOST_ERRORS = 1_000


def explain(error: BaseException, path: Path, node: pytest.Item) -> None:
    """Make a failure show the difference, the recording's path and how to record it again.

    Every :class:`memvid_async.ReplayDivergenceError` in it, also in a group or as a cause, has its
    message cut, gets a note, and loses the library's frames from its traceback.
    """
    from memvid_async import ReplayDivergenceError  # noqa: PLC0415 - pytest imports this module

    for one in _errors(error):
        if isinstance(one, ReplayDivergenceError):
            one.args = (_cut(str(one)), *one.args[1:])
            one.add_note(
                f"\nthe recording:  {os.path.relpath(path)}\nrecord it again: {_command(node)}"
            )
            _drop_our_frames(one.__traceback__)


def check_all_served(recorded: ServedSession) -> None:
    """Fail when the recording holds calls that nobody asked for.

    :raises ReplayDivergenceError: naming the first of them.
    """
    from memvid_async import ReplayDivergenceError, ToolCallDetails  # noqa: PLC0415 - the same

    unserved = recorded.unserved
    if not unserved:
        return
    lines = []
    for action in unserved[:MOST_NAMED]:
        details = action.details
        name = f" {details.name!r}" if isinstance(details, ToolCallDetails) else ""
        preview = " ".join(action.input.preview.split()) if action.input is not None else ""
        lines.append(f"action {action.index}, {action.kind}{name}: {preview[:_SHOWN_CHARS]}")
    if len(unserved) > MOST_NAMED:
        lines.append(f"and {len(unserved) - MOST_NAMED} more")
    calls = "a recorded call was" if len(unserved) == 1 else f"{len(unserved)} recorded calls were"
    raise ReplayDivergenceError(
        "\n".join([f"{calls} not asked for (unserved='allow' permits that):", *lines]), unserved[0]
    )


def describe_missing(path: Path, node: pytest.Item) -> str:
    """Say that there is no recording, and how to make it."""
    return f"there is no recording {os.path.relpath(path)}; record it: {_command(node, 'once')}"


def _errors(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes, what was handled when it was raised, and members of groups."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MOST_ERRORS:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        waiting += [other for other in (one.__cause__, one.__context__) if other is not None]
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions


def _cut(message: str) -> str:
    lines = message.split("\n")
    if len(lines) <= MOST_LINES:
        return message
    left = len(lines) - MOST_LINES
    return "\n".join([*lines[:MOST_LINES], f"… and {left} more lines; error.differences has all"])


def _drop_our_frames(traceback: TracebackType | None) -> None:
    """Take the frames of the library and of what it stands on out of a traceback.

    The first entry stays: the exception refers to it.
    """
    while traceback is not None:
        after = traceback.tb_next
        while after is not None and _is_ours(after):
            after = after.tb_next
        traceback.tb_next = after
        traceback = after


def _is_ours(traceback: TracebackType) -> bool:
    module = str(traceback.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _OURS


def _command(node: pytest.Item, mode: str = "all") -> str:
    return f"pytest {shlex.quote(node.nodeid)} --recordings={mode}"
