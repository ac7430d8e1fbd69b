"""The contract between a journal and the place where its bytes live.

One test suite checks every implementation.
"""

from __future__ import annotations

from typing import Protocol


class Storage(Protocol):
    """One open file. Every method blocks; all but ``read`` and ``size`` are called by one thread.

    Errors of the operating system are raised as :class:`~memvid_async.StoreFailedError`. After
    one of ``write``, ``sync`` or ``truncate``, nothing is known about the bytes written since the
    last ``sync``, and the caller must not write again.
    """

    def size(self) -> int:
        """The file's length in bytes, as it is now."""

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from ``offset``; fewer only at the end of the file."""

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write all of ``data`` at ``offset``; the file grows as needed. Durable after ``sync``."""

    def sync(self) -> None:
        """Return once everything written, and the length, would survive a power cut."""

    def sync_directory(self) -> None:
        """Make the file's name durable. Needed once, after the file was created or installed."""

    def room(self) -> int:
        """How many bytes the file may still grow by, as far as the system tells."""

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes. Durable after ``sync``."""

    def lock(self, timeout: float) -> None:
        """Become the one writer among all openers of the file.

        :raises StoreLockedError: when another opener still holds the lock after ``timeout``
            seconds.
        """

    def unlock(self) -> None:
        """Let others write. Does nothing when the lock is not held."""

    def is_current(self) -> bool:
        """Whether the path still names this file: not deleted, not replaced."""

    def reopen(self) -> Storage:
        """Open the file that the path names now, for reading or writing as this one.

        :raises StoreFailedError: when the path names no file any more.
        """

    def create_beside(self, suffix: str) -> Storage | None:
        """Create an empty file in the same directory, named after this one with a suffix.

        None when something has that name already; that is not touched.
        """

    def open_beside(self, suffix: str) -> Storage | None:
        """Open a file that :meth:`create_beside` created; None when there is none."""

    def install(self) -> None:
        """Make this file, created beside another, replace it. Durable after ``sync_directory``.

        First it gets the other's owner, mode and attributes.

        :raises StoreFailedError: when the other one cannot be replaced; then nothing was changed.
        """

    def remove(self) -> None:
        """Remove this file, created beside another and not installed."""

    def retire(self) -> None:
        """Release the lock of a file that was replaced.

        It can be read as before, and is closed once nothing refers to it.
        """

    def close(self) -> None:
        """Release the file and the lock. A second call does nothing."""
