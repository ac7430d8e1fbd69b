"""The paths of files that the library makes in the directory of a store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

# How many bytes a name may have on the usual file systems of Linux and macOS.
_NAME_BYTES = 255


def beside(path: Path, suffix: str) -> Path:
    """Return the path in the same directory whose name is that of ``path`` and then ``suffix``.

    A name that would be too long for a file system is cut, and a digest of the whole name comes
    before the suffix, so that two long names never become the same.
    """
    name = path.name
    if len(os.fsencode(name + suffix)) > _NAME_BYTES:
        digest = hashlib.blake2b(os.fsencode(name), digest_size=8).hexdigest()
        suffix = f"~{digest}{suffix}"
        while len(os.fsencode(name + suffix)) > _NAME_BYTES:
            name = name[:-1]
    return path.with_name(name + suffix)
