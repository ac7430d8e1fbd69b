"""The name of a recording's file: no two recordings have the same one, on any file system.

The file of a plain test function has the function's name. The name for any other test (in a class,
with parameters, with capital letters) is shortened, and ends in a digest of the whole name: a file
system may not tell all characters apart, and a name has at most 255 bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

import pytest

_PLAIN = re.compile(r"[a-z0-9_]{1,60}")
_OTHERS = re.compile(r"[^A-Za-z0-9_.]+")
# Windows takes these names for devices, whatever comes after a dot.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)
_SHOWN_CHARS = 100
# The parameters of a test, without that of anyio's plugin, which is the first.
_ASYNCIO = re.compile(r"\[asyncio(?:-(.*))?\]$", re.DOTALL)


def path_in_file(node: pytest.Item) -> list[str]:
    """Return the names of the classes around a test, the outermost first, and its own name.

    It is the same whether anyio's plugin runs the test, on asyncio's own loop, or another one: that
    plugin makes the loop a parameter.
    """
    names: list[str] = []
    for one in reversed(node.listchain()):
        if isinstance(one, pytest.File):
            break
        names.append(one.name)
    parameters = getattr(getattr(node, "callspec", None), "params", {})
    if parameters.get("anyio_backend") == "asyncio":
        names[0] = _ASYNCIO.sub(lambda found: f"[{found[1]}]" if found[1] else "", names[0])
    return names[::-1]


def file_name(test: Sequence[str], name: str | None) -> str:
    """Return the name of the file for a recording; it is the same on every machine.

    ``test``: what :func:`path_in_file` returns. ``name``: the recording's, None for the test's only
    one.
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
