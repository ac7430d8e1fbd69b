"""That the agent of a session runs in one place at a time: locks that end with their process.

All sessions share one file, in the directory for temporary files: the lock of a session is that of
one byte in it. So a session needs no file and no descriptor of its own, and taking a lock is a
system call that waits for nothing.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

# A lock of POSIX may lie anywhere up to the highest offset, beyond the end of the file too.
_PLACE_BITS = 62


class _LockFile:
    """The file with the bytes, as this process has it open. The threads of a process share it.

    A process never locks itself out, so which places are taken here is kept beside.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._descriptor: int | None = None
        self._taken: set[int] = set()

    def take(self, place: int) -> bool:
        """Lock a byte; return whether nobody else has it.

        :raises OSError: when there is no such file, and none can be made.
        """
        with self._guard:
            if place in self._taken:
                return False
            if not self._lock(self._open(), place):
                return False
            self._taken.add(place)
            return True

    def release(self, place: int) -> None:
        """Unlock a byte that this process has."""
        with self._guard:
            if place in self._taken and self._descriptor is not None:
                self._taken.remove(place)
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    def _open(self) -> int:
        """Return the descriptor of the file that has the name now; also where a cleaner removed
        the one before. What this process has is then locked in the new one too."""
        path = Path(tempfile.gettempdir()) / f"memvid-async-{os.getuid()}.lock"
        if self._descriptor is not None:
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(self._descriptor).st_ino:
                    return self._descriptor
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        opened = os.open(path, flags, 0o600)
        for place in self._taken:
            self._lock(opened, place)
        # No lock of POSIX survives that any descriptor of its file is closed, so the old file's go.
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = opened
        return opened

    def _lock(self, descriptor: int, place: int) -> bool:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except (BlockingIOError, PermissionError):  # both mean that another process has it
            return False
        return True

    def leave_to_parent(self) -> None:
        """Begin again, in a forked child: the locks are its parent's."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self.__init__()  # type: ignore[misc]


_FILE = _LockFile()
os.register_at_fork(after_in_child=_FILE.leave_to_parent)


class SessionLocks:
    """The locks of the sessions of one store, which is known by its path."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name: bytes | None = None
        self._places: dict[UUID, int] = {}

    def take(self, session_id: UUID) -> bool:
        """Take a session's lock; return whether nobody else has it, in this process or another.

        :raises OSError: when the file with the locks cannot be opened.
        """
        if self._name is None:
            # An address of a stream names no file, and is the same from every directory.
            path = str(self._path)
            self._name = os.fsencode(os.path.realpath(path) if os.path.lexists(path) else path)
        digest = blake2b(self._name + session_id.bytes, digest_size=8).digest()
        place = int.from_bytes(digest) >> (64 - _PLACE_BITS)
        if not _FILE.take(place):
            return False
        self._places[session_id] = place
        return True

    def is_free(self, session_id: UUID) -> bool:
        """Whether nobody has a session's lock, in this process or another.

        :raises OSError: as :meth:`take` does.
        """
        if not self.take(session_id):
            return False
        self.release(session_id)
        return True

    def release(self, session_id: UUID) -> None:
        """Release a session's lock; also one that this store does not have."""
        place = self._places.pop(session_id, None)
        if place is not None:
            _FILE.release(place)

    def close(self) -> None:
        """Release all."""
        for session_id in list(self._places):
            self.release(session_id)
