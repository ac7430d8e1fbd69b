"""The large files that several benchmarks share: each is built once a run, by a child process."""

import json
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

from attrs import frozen

from .harness import Scale

SESSIONS, ACTIONS = 10_000, 100


@frozen
class Built:
    """A file of many sessions, and the seconds and the bytes of memory that building it took."""

    path: Path
    sessions: int
    actions: int
    seconds: float
    growth: int
    tenths: tuple[float, ...]
    """The seconds that each tenth of the sessions took."""


@cache
def contiguous(directory: Path, scale: Scale) -> Built:
    """One session after the other, then closed."""
    return _build(directory / "contiguous", scale.count(SESSIONS), ACTIONS, together=1)


@cache
def interleaved(directory: Path, scale: Scale) -> Built:
    """A hundred sessions at a time, taking turns; then the process is killed."""
    return _build(
        directory / "interleaved", scale.count(SESSIONS), ACTIONS, together=100, kill=True
    )


@cache
def single(directory: Path, scale: Scale) -> Built:
    """Everything in one session, then closed."""
    return _build(directory / "single", 1, scale.count(SESSIONS * ACTIONS), together=1)


@cache
def alone(directory: Path) -> Built:
    """One session of a hundred actions, beside the warm-up that every child records."""
    return _build(directory / "alone", 1, ACTIONS, together=1)


@cache
def ended(directory: Path, count: int) -> Built:
    """Sessions without actions, ended."""
    return _build(directory / f"ended-{count}", count, 0, together=64)


@cache
def opened(directory: Path, count: int, *, kill: bool) -> Built:
    """Sessions without actions that nobody ended; at last a close, or a kill of the process."""
    name = f"opened-{count}-{'killed' if kill else 'closed'}"
    return _build(directory / name, count, 0, together=64, kill=kill, leave=True)


@cache
def long(directory: Path, count: int) -> Built:
    """One session of very many actions."""
    return _build(directory / f"long-{count}", 1, count, together=1)


def _build(
    path: Path,
    sessions: int,
    actions: int,
    *,
    together: int,
    kill: bool = False,
    leave: bool = False,
) -> Built:
    arguments = [str(path), str(sessions), str(actions), str(together), *["--hold"] * kill]
    arguments += ["--leave-open"] * leave
    command = [sys.executable, "-m", "benchmarks.child", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        line = child.stdout.readline()
        if kill:
            child.send_signal(signal.SIGKILL)
    if not line or child.returncode != (-signal.SIGKILL if kill else 0):
        raise RuntimeError(f"the child that records {path.name} ended with {child.returncode}")
    report = json.loads(line)
    tenths = tuple(report["tenths"])
    return Built(path, sessions, actions, report["seconds"], report["growth"], tenths)
