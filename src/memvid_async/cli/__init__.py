"""The command line. `demo` needs only the package; all other commands need the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and end the process with its exit status.

    ``arguments``: those after the program's name; by default the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from .command_line import cli
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("click", "rich"):
            raise
        sys.exit(_run_without_extra(words))
    cli.main(words, prog_name="memvid-async")
    raise AssertionError("unreachable: the line above leaves the process")


def _run_without_extra(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["demo"]:
        from .demo import main as demo
        from .exits import guarded

        return guarded(lambda: demo(arguments[1:]))
    sys.stderr.write(
        "memvid-async: error: only `demo` runs without click and rich; "
        "for the rest: pip install 'memvid-async[cli]'\n"
    )
    return 2
