"""How a command ends: one line instead of a traceback, and its exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

from ..errors import MemvidAsyncError
from ..view.text import printable

FINE = 0
BAD = 1
WRONG_USAGE = 2
INTERRUPTED = 130
"""What a shell reports for a program that Ctrl-C ended (128 + SIGINT)."""

READER_GONE = 141
"""What a shell reports for a program whose reader went away, as `head` does (128 + SIGPIPE)."""


class AnswerError(MemvidAsyncError):
    """The file is fine, but it has no answer to what was asked."""


def report(problem: object) -> None:
    """Say on the standard error, in one safe line, what went wrong."""
    line = printable(" ".join(str(problem).split()), one_line=True)
    sys.stderr.write(f"memvid-async: error: {line}\n")
    sys.stderr.flush()


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command to its exit status; None stands for 0, an error raised on purpose for 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return READER_GONE
    except (MemvidAsyncError, OSError, ModuleNotFoundError) as error:
        # Of the modules that a command imports, only an extra's can be missing; the error says so.
        report(error)
        return BAD
    return status or FINE


def _drop_output() -> None:
    # The interpreter flushes once more at its end, and would complain about the closed pipe.
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
