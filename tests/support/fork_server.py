"""Processes that cost little to start: a server, with all imported, forks one for each life.

Both sides say JSON, a value per line. The server hears the arguments of a life; then the process
that lives hears and says, until it is over.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.torture.jobs import hear, say

ROOT = Path(__file__).resolve().parents[2]


def serve(live: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Live in a process of its own, each time with what is heard, until that is null."""
    while arguments := hear():
        child = os.fork()
        if child == 0:
            os._exit(_live(live(*arguments)))
        say(["born", child])
        _, status = os.waitpid(child, 0)
        say(["over", os.waitstatus_to_exitcode(status)])


def _live(life: Coroutine[Any, Any, None]) -> int:
    try:
        asyncio.run(life)
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 2
    except BaseException:  # noqa: BLE001 - it must not go on as the server
        traceback.print_exc()
        return 1
    return 0


class ForkServer:
    """The server that a module is, and its process that lives; one at a time."""

    def __init__(self, module: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", module],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._living: int | None = None

    def bear(self, *arguments: Any) -> None:
        """Begin a life."""
        self.tell([os.fspath(a) if isinstance(a, Path) else a for a in arguments])
        _, self._living = self.hear()

    def tell(self, value: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(value).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def end(self, number: signal.Signals | None = None) -> int:
        """Return with what the life ends; ``number``: after this signal."""
        if number is not None:
            assert self._living is not None
            os.kill(self._living, number)
        over, status = self.hear()
        assert over == "over"
        self._living = None
        return int(status)

    def close(self) -> None:
        if self._living is not None:  # a test failed meanwhile
            os.kill(self._living, signal.SIGKILL)
        self.tell(None)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.read()
        assert self._process.wait(20) == 0
        self._process.stdout.close()
