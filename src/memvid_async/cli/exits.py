"""How a command ends: one line instead of a traceback, and its exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import anyio

from .. import LimitExceededError, MemvidAsyncError
from ..view.text import printable

FINE = 0
BAD = 1
WRONG_USAGE = 2
INTERRUPTED = 130
"""The status that a shell reports for a program ended by Ctrl-C (128 + SIGINT)."""

READER_GONE = 141
"""The status that a shell reports for a program whose reader, such as `head`, went away
(128 + SIGPIPE)."""


class AnswerError(MemvidAsyncError):
    """The file is fine, but it has no answer to the request."""


def report(problem: object) -> None:
    """Print a problem on the standard error, in one line that is safe for a terminal."""
    _say("error", advised(problem))


def advised(problem: object) -> object:
    """Return what to print of a problem: where a limit was reached, the option that raises it; of
    an error of the system, the file and what is wrong."""
    if isinstance(problem, OSError) and not isinstance(problem, MemvidAsyncError):
        if isinstance(problem, FileNotFoundError) and problem.filename is not None:
            return f"there is no file or directory {problem.filename}"
        told = problem.strerror or str(problem)
        return told if problem.filename is None else f"{problem.filename}: {told}"
    if not isinstance(problem, LimitExceededError):
        return problem
    option = f"--limit {problem.limit}=NUMBER"
    return f"{problem.value} is above the limit {problem.limit}; raise it with {option}"


def say_note(note: object) -> None:
    """Print what a user should know, though nothing failed, on the standard error."""
    _say("note", note)


def _say(kind: str, what: object) -> None:
    line = printable(" ".join(str(what).split()), one_line=True)
    sys.stderr.write(f"memvid-async: {kind}: {line}\n")
    sys.stderr.flush()


@contextmanager
def telling_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Say what is in the file after all, where Ctrl-C ends a command that writes."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        say_note(f"interrupted: {kept()}")
        raise


def guarded(command: Callable[[], int | None]) -> int:
    """Run a command and return its exit status: its own, where None means 0, or 1 for an error."""
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
        # Only a module of an extra can be missing, and its error names the extra.
        report(error)
        return BAD
    return status or FINE


def _drop_output() -> None:
    # The interpreter flushes once more when it ends, and would report the closed pipe.
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
