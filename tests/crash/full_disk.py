"""A sync that really fails: ``python -m tests.crash.full_disk``.

An ext4 lies in an image on a tmpfs, and that one runs full. The kernel goes on showing what it
could not write, and counts it as clean. A store that was opened after the failure must see what was
acked and nothing else; with the store's remedy taken out it must see more, else this proves
nothing.

It needs root, a loop device and mkfs; without them it says so and ends well.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from unittest import mock

from memvid_async import ActionKind, StoreConfig, StoreFailedError
from memvid_async.file.journal import Journal
from memvid_async.storage import FileStorage
from memvid_async.storage import disk as file_storage
from tests.support.naive import Record, command, start
from tests.torture.powercut import _CLONE_NEWNS, CannotRunError, Disk, _run

_IMAGE_BYTES = 40 * 1024 * 1024


def put(journal: Journal, text: str) -> int:
    """Record it; the last sequence that is acked then."""
    put = Record(1, ActionKind.PUT, text, frames=(1,))
    _, flushed = journal.commit([command(put)])
    return flushed.events[-1].sequence


def seen_after(folder: Path) -> tuple[int, int]:
    """How many events were acked until a sync failed, and how many the next opener sees."""
    _run("mount", "-t", "tmpfs", "-o", f"size={_IMAGE_BYTES}", "tmpfs", str(folder))
    disk = Disk(folder, "ext4")
    path = disk.root / "store"
    try:
        journal = Journal.open(FileStorage.open(path), StoreConfig())
        journal.commit([command(start(1))])
        for number in range(10):
            acked = put(journal, f"{number}")
        room = os.statvfs(folder)
        (folder / "fill").write_bytes(bytes(room.f_bavail * room.f_frsize))
        with suppress(StoreFailedError):
            for number in range(100):
                acked = put(journal, f"{number}" * 100_000)
            raise CannotRunError("no sync failed")
        journal.release()
        config = StoreConfig()
        later = Journal.open(FileStorage.open(path, read_only=True), config, read_only=True)
        seen = later.view.state.last_sequence
        later.release()
        return acked, seen
    finally:
        disk.unmount()
        _run("umount", "-l", str(folder))


def _enter_own_namespace() -> None:
    if os.geteuid() != 0 or ctypes.CDLL(None).unshare(_CLONE_NEWNS):
        raise CannotRunError("only root can mount")
    _run("mount", "--make-rprivate", "/")


def main() -> int:
    """Once as it is, once without the remedy."""
    found = []
    try:
        _enter_own_namespace()
        for remedy in (file_storage._forget, mock.Mock()):
            with (
                tempfile.TemporaryDirectory() as folder,
                mock.patch.object(file_storage, "_forget", remedy),
            ):
                found.append(seen_after(Path(folder)))
    except CannotRunError as why:
        print(f"skipped: {why}")
        return 0
    (acked, seen), (acked_without, seen_without) = found
    print(f"{acked} events were acked before the sync failed; the next opener sees {seen}")
    print(f"without the remedy: {acked_without}, and {seen_without}")
    return 0 if seen == acked and seen_without > acked_without else 1


if __name__ == "__main__":
    sys.exit(main())
