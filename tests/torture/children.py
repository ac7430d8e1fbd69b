"""Processes of their own for tests: ``Child("name", …)`` runs ``tests.torture.jobs.name(…)``."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 30.0


class ChildFailedError(AssertionError):
    """A child ended, or kept silent, when it should have spoken."""


class Child:
    """A fresh interpreter that runs one job. It speaks JSON, a value a line, both ways."""

    def __init__(self, job: str, *args: Any) -> None:
        self.job = job
        command = [sys.executable, "-W", "error", "-m", "tests.torture.jobs", job]
        self.process = subprocess.Popen(
            [*command, json.dumps([os.fspath(a) if isinstance(a, Path) else a for a in args])],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.said = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, value: Any = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(value).encode() + b"\n")

    def hear(self, patience: float = PATIENCE) -> Any:
        """The next value it says; :class:`ChildFailedError` when it ends or says none in time."""
        deadline = time.monotonic() + patience
        while b"\n" not in self.said:
            if not self._more(deadline):
                raise ChildFailedError(f"{self.job} ended with {self.process.wait(PATIENCE)}")
        line, _, self.said = self.said.partition(b"\n")
        return json.loads(line)

    def rest(self, patience: float = PATIENCE) -> list[Any]:
        """Everything it says until it ends, whole lines only."""
        deadline = time.monotonic() + patience
        while self._more(deadline):
            pass
        lines, self.said = self.said.split(b"\n")[:-1], b""
        return [json.loads(line) for line in lines]

    def _more(self, deadline: float) -> bool:
        assert self.process.stdout is not None
        stream = self.process.stdout
        if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ChildFailedError(f"{self.job} said nothing for too long")
        data = os.read(stream.fileno(), 65536)
        self.said += data
        return bool(data)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None and error is not None:
            self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.process.stdout.close()
