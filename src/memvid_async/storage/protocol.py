"""The contract between a journal and the place its bytes live; one suite tests whoever keeps it."""

from __future__ import annotations

from typing import Protocol


class Storage(Protocol):
    """One open file. Every method blocks; all but ``read`` and ``size`` are called by one thread.

    Errors of the operating system are raised as :class:`~memvid_async.StoreFailedError`. After
    one, nothing may be assumed of the bytes since the last ``sync``, and the caller writes no more.
    """

    def size(self) -> int:
        """The file's length in bytes, as it is now."""

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the file."""

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put all of ``data`` at ``offset``; the file grows as needed. Not durable until synced."""

    def sync(self) -> None:
        """Return once all that was written, and the length, survive a power cut."""

    def sync_directory(self) -> None:
        """Make the file's name durable; needed once, after it was created."""

    def truncate(self, size: int) -> None:
        """Cut the file to ``size`` bytes. Not durable until synced."""

    def lock(self, timeout: float) -> None:
        """Become the one writer among all openers of the file.

        :raises StoreLockedError: when another holds the lock for ``timeout`` seconds.
        """

    def unlock(self) -> None:
        """Let others write. Nothing happens when the lock is not held."""

    def is_current(self) -> bool:
        """Whether the path still names this file: not deleted, not replaced."""

    def reopen(self) -> Storage:
        """Whatever the path names now, open the same way.

        :raises StoreFailedError: when it names nothing any more.
        """

    def successor(self) -> Storage:
        """A new, empty file beside this one, under one name that is always the same."""

    def install(self) -> None:
        """Put this file, a successor, in the place of the one it was made beside, durably."""

    def discard_successor(self) -> None:
        """Remove the successor that a killed process left, if one did."""

    def close(self) -> None:
        """Release the file and the lock. Further calls do nothing."""
