"""That a session is resumed by one process at a time: a lock that ends with its process."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from uuid import UUID


class SessionLock:
    """A lock on a file of the session's own, in the directory for temporary files."""

    def __init__(self, session_id: UUID) -> None:
        self._path = Path(tempfile.gettempdir()) / f"memvid-async-{session_id}.lock"
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take the lock; return whether nobody else has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        while True:
            descriptor = os.open(self._path, flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            with suppress(FileNotFoundError):
                if self._path.stat().st_ino == os.fstat(descriptor).st_ino:
                    self._descriptor = descriptor
                    return True
            # It was removed by the process that had it.
            os.close(descriptor)

    def release(self) -> None:
        """Release the lock; also one that was not taken."""
        if self._descriptor is not None:
            with suppress(FileNotFoundError):
                self._path.unlink()
            os.close(self._descriptor)
            self._descriptor = None
