"""Names of the files that the library makes beside a store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# What the usual file systems of Linux and macOS allow for one name, in bytes.
_NAME_BYTES = 255


def beside(path: Path, suffix: str) -> Path:
    """Return the path in the same directory whose name is that of ``path`` with ``suffix``.

    A name that would be too long for a file system is cut, and ends in a digest of all of it, so
    that two long names never become one.
    """
    name = path.name
    if len(os.fsencode(name + suffix)) > _NAME_BYTES:
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
        suffix = f"~{digest}{suffix}"
        while len(os.fsencode(name + suffix)) > _NAME_BYTES:
            name = name[:-1]
    return path.with_name(name + suffix)
