"""The name of a recording's file: one for each test and recording, on every file system.

A plain test function's file is called as the function is. Any other name (of a test in a class,
with parameters, with capital letters) is made readable, and ends in a digest of what it stands for:
file systems do not tell all characters apart, and take 255 bytes at most.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import pytest

_PLAIN = re.compile(r"[a-z0-9_]{1,60}")
_OTHERS = re.compile(r"[^A-Za-z0-9_.]+")
# What Windows takes for a device, whatever comes after a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_SHOWN_CHARS = 100


def path_in_file(node: pytest.Item) -> list[str]:
    """Return the names of the classes that a test is in, the outermost first, and its own."""
    names: list[str] = []
    for one in reversed(node.listchain()):
        if isinstance(one, pytest.File):
            break
        names.append(one.name)
    return names[::-1]


def file_name(test: Sequence[str], name: str | None) -> str:
    """Return the file's name for the recording ``name`` of a test (its :func:`path_in_file`).

    No file system takes the names of two recordings for the same, and they do not depend on the
    machine.
    """
    parts = [*test] if name is None else [*test, name]
    shown = ".".join(parts)
    if len(test) == 1 and all(map(_PLAIN.fullmatch, parts)) and not _DEVICES.match(shown):
        return f"{shown}.mva"
    whole = json.dumps([list(test), name]).encode()
    digest = hashlib.blake2b(whole, digest_size=8).hexdigest()
    readable = _OTHERS.sub("-", shown)[:_SHOWN_CHARS].strip("-.")
    if not readable or _DEVICES.match(readable):
        readable = f"test-{readable}".strip("-")
    return f"{readable}-{digest}.mva"
