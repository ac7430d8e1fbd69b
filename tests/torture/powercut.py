"""Power cuts: ``python -m tests.torture.powercut --cuts N [--file-system ext4] [--no-sync]``.

Writers record on a file system in a loop-mounted image, until its shutdown ioctl takes the disk
away from under them: what did not reach the journal or the disk by then is lost, as when the power
fails. It is mounted again, and every ack that was heard before the cut is looked for, by value.
``--no-sync`` takes fdatasync and fsync out, and must show losses: else the harness proves nothing.

It needs root, a loop device and mkfs; without them it says so and ends well.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from memvid_async import MemvidAsyncError, StoreConfig
from memvid_async.file.journal import Journal
from memvid_async.storage import FileStorage
from memvid_async.storage import disk as file_storage
from tests.torture.__main__ import Life
from tests.torture.ledger import Ledger, LostError
from tests.torture.victim import Orders, fork, tighten

# EXT4_IOC_SHUTDOWN (linux/fs/ext4/ext4.h), the same number as XFS_IOC_GOINGDOWN.
_SHUTDOWN = 0x8004587D
_LOG_FLUSHED, _LOG_NOT_FLUSHED = 1, 2
_CLONE_NEWNS = 0x00020000
_MEBIBYTES = {"ext4": 128, "xfs": 320}
_MOST_BYTES = 16 * 1024 * 1024


class CannotRunError(Exception):
    """The machine does not allow it."""


class Disk:
    """A file system in an image, mounted where no other process sees it."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._image, self.root = folder / "image", folder / "mounted"
        self._kind = kind
        self._mounted = False
        mkfs = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if os.geteuid() != 0:
            raise CannotRunError("only root can mount")
        if mkfs is None:
            raise CannotRunError(f"mkfs.{kind} is not installed")
        if not Path("/dev/loop-control").exists():
            raise CannotRunError("there are no loop devices")
        libc = ctypes.CDLL(None, use_errno=True)
        # A mount namespace of our own: however this process ends, the mounts end with it.
        if libc.unshare(_CLONE_NEWNS):
            raise CannotRunError(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
        self.root.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_MEBIBYTES[kind] * 1024 * 1024)
        _run("mount", "--make-rprivate", "/")
        _run(mkfs, "-q", str(self._image))
        self.mount()

    def mount(self) -> None:
        _run("mount", "-t", self._kind, "-o", "loop", str(self._image), str(self.root))
        self._mounted = True

    def unmount(self) -> None:
        if self._mounted:
            _run("umount", str(self.root))
            self._mounted = False

    def cut(self, flags: int) -> None:
        """Take the power away."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", flags))
        finally:
            os.close(descriptor)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise CannotRunError(f"{command[0]} failed: {done.stderr.strip()}")


class PowerCuts:
    """Cuts on one disk, one file after another."""

    def __init__(self, disk: Disk, seed: int) -> None:
        self._disk = disk
        self._draw = random.Random(seed)
        self._writers = self._files = 0
        self.cuts = self.losses = self.acked = 0
        self.first_loss = ""
        self._new_file()

    def _new_file(self) -> None:
        for old in self._disk.root.glob("store*"):
            old.unlink()
        self._files += 1
        self._path = self._disk.root / f"store{self._files}.mva"
        Journal.open(FileStorage.open(self._path), StoreConfig()).release()
        # What is not synced later is to be missed in what is recorded, not in the file's header.
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        self._ledger = Ledger(self._path)

    def cut(self) -> None:
        """Record, cut, mount, compare. A loss is counted, and another file begun."""
        acks = self._record_and_cut()
        self._disk.unmount()
        self._disk.mount()
        self.cuts += 1
        self.acked += len(acks)
        try:
            self._ledger.check(acks, whole=self.cuts % 50 == 0)
        except (LostError, MemvidAsyncError) as error:
            self.losses += 1
            self.first_loss = self.first_loss or f"cut {self.cuts}: {error}"
            self._new_file()
        else:
            if self._path.stat().st_size > _MOST_BYTES:
                self._new_file()

    def _record_and_cut(self) -> list[list[Any]]:
        draw = self._draw
        oldest = self._writers + 1
        lives = []
        for _ in range(draw.choice([1, 1, 2])):
            self._writers += 1
            orders = Orders(
                self._writers,
                "power",
                actions=1000,
                at_once=draw.choice([1, 4, 16]),
                resumes=draw.random() < 0.2,
                oldest=oldest,
            )
            if draw.random() < 0.3:
                orders = Orders(
                    self._writers, "power", actions=8, deletes=6, compacts=True, oldest=oldest
                )
            lives.append(Life(orders, *fork(str(self._path), orders, [])))
        self._hear(lives, time.monotonic() + draw.uniform(0.005, 0.12))
        self._disk.cut(draw.choice([_LOG_FLUSHED, _LOG_NOT_FLUSHED]))
        acks = [ack for life in lives for ack in life.acks() if ack[0] != "failed"]
        for life in lives:
            os.kill(life.pid, signal.SIGKILL)
            os.waitpid(life.pid, 0)
            os.close(life.pipe)
        return acks

    @staticmethod
    def _hear(lives: list[Life], until: float) -> None:
        """Read acks up to a moment; later ones were not heard before the cut."""
        open_pipes = {life.pipe: life for life in lives}
        while open_pipes and (left := until - time.monotonic()) > 0:
            for pipe in select.select(list(open_pipes), [], [], left)[0]:
                data = os.read(pipe, 65536)
                open_pipes[pipe].said += data
                if not data:
                    del open_pipes[pipe]


def _no_sync(_: int) -> None:
    """Say that it was done."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.powercut", description=__doc__)
    parser.add_argument("--cuts", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after so long")
    parser.add_argument("--file-system", choices=sorted(_MEBIBYTES), default="ext4")
    parser.add_argument("--no-sync", action="store_true", help="without fdatasync: must lose")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)
    print(f"{options.file_system}, seed {seed}", flush=True)
    tighten()
    if options.no_sync:
        file_storage._sync = _no_sync
    folder = Path(tempfile.mkdtemp(prefix="powercut-"))
    began = time.monotonic()
    try:
        disk = Disk(folder, options.file_system)
    except CannotRunError as error:
        shutil.rmtree(folder)
        print(f"skipped: {error}")
        return 0
    try:
        cuts = PowerCuts(disk, seed)
        while cuts.cuts < options.cuts and time.monotonic() - began < options.seconds:
            cuts.cut()
    finally:
        disk.unmount()
        shutil.rmtree(folder)
    print(
        f"{options.file_system}{' without sync' if options.no_sync else ''}: {cuts.cuts} cuts, "
        f"{cuts.acked} acks, {cuts.losses} cuts lost something acked "
        f"({time.monotonic() - began:.0f} s) {cuts.first_loss}"
    )
    if options.no_sync:
        return 0 if cuts.losses else 1
    return 1 if cuts.losses else 0


if __name__ == "__main__":
    sys.exit(main())
