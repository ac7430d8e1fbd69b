"""The lock of the file that a path names now."""

from __future__ import annotations

from .protocol import Storage


def lock_current(storage: Storage, timeout: float) -> Storage:
    """Return the file that the path of ``storage`` names, with the lock held; close it on failure.

    A compaction may replace the file while this waits for the lock, up to ``timeout`` seconds.
    """
    while True:
        try:
            storage.lock(timeout)
            if storage.is_current():
                return storage
            newer = storage.reopen()
        except BaseException:
            storage.close()
            raise
        storage.close()
        storage = newer
