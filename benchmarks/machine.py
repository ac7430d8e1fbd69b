"""The machine and the library versions a report names."""

import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "memvid-async",
    "anyio",
    "attrs",
    "cbor2",
    "aiosqlite",
    "langgraph",
    "langgraph-checkpoint-sqlite",
    "mcap",
)


def describe(directory: Path, load: float) -> list[tuple[str, str]]:
    """Name the processor, the system, the file system under `directory`, and the versions.

    `load`: the load average from before anything was measured.
    """
    import sqlite3

    rows = [
        ("processor", f"{_processor()}, {os.cpu_count()} cores"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("file system", file_system(directory)),
        ("load before", f"{load:.2f} processes on average in the last minute"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}, asyncio"),
        ("SQLite", sqlite3.sqlite_version),
    ]
    return rows + [(name, _version(name)) for name in LIBRARIES]


def file_system(directory: Path) -> str:
    """The type and the options of the file system of `directory`, where the system tells."""
    best = ("", "unknown")
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8")
    except OSError:
        return best[1]
    for line in mounts.splitlines():
        _device, point, kind, options = line.split()[:4]
        if directory.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, f"{kind} ({options})")
    return best[1]


def resident_bytes() -> int:
    """The memory this process holds now (Linux), or the most it ever held (elsewhere)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return peak_resident_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_resident_bytes() -> int:
    """The most memory this process ever held."""
    import resource

    # On Linux, getrusage(2) also counts what the parent held when it started this process.
    with suppress(OSError):
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    names = [
        line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")
    ]
    return names[0] if names else platform.machine()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
