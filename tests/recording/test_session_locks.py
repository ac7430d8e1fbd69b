"""The locks of sessions: bytes of one file, each of one process at a time."""

import json
import os
import subprocess
import sys
import tempfile
from uuid import UUID

import pytest

from memvid_async.recording.session_lock import SessionLocks
from memvid_async.stream.address import StreamPath

ONE, TWO = UUID(int=1), UUID(int=2)

# Says for each session whether it got the lock, and holds what it got until its input ends.
CHILD = """
import json, sys, tempfile
from pathlib import Path
from uuid import UUID
from memvid_async.recording.session_lock import SessionLocks
tempfile.tempdir, path, *sessions = sys.argv[1:]
locks = SessionLocks(Path(path))
print(json.dumps([locks.take(UUID(one)) for one in sessions]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Another:
    """Another process that takes locks."""

    def __init__(self, folder, path, *sessions):
        arguments = [str(folder), str(path), *map(str, sessions)]
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.took = json.loads(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.communicate()


def test_a_lock_is_of_one_store_and_ends_with_its_process(folder):
    a, b = SessionLocks(folder / "a"), SessionLocks(folder / "b")
    assert a.take(ONE)
    assert not a.take(ONE)
    assert not SessionLocks(folder / "a").take(ONE)
    assert b.take(ONE), "a copy of a file has sessions of its own"
    another = Another(folder, folder / "a", ONE, TWO)
    assert another.took == [False, True]
    assert not a.take(TWO)
    another.kill()
    assert a.take(TWO)
    for locks in (a, b):
        locks.close()
        assert locks.take(ONE)
        locks.release(ONE)
        locks.release(ONE)
        locks.close()


def test_a_link_to_the_file_is_the_file(folder):
    (folder / "link").symlink_to(folder / "a")
    locks = SessionLocks(folder / "a")
    assert locks.take(ONE)
    assert not SessionLocks(folder / "link").take(ONE)
    locks.close()


def test_the_address_of_a_stream_is_the_same_from_every_directory(folder, monkeypatch):
    address = StreamPath.of("nats://127.0.0.1:4222/agents")
    locks = SessionLocks(address)
    assert locks.take(ONE)
    monkeypatch.chdir(folder)
    assert not SessionLocks(address).take(ONE)
    locks.close()


def test_what_is_held_holds_after_a_cleaner_removed_the_file(folder):
    locks = SessionLocks(folder / "a")
    assert locks.take(ONE)
    (folder / f"memvid-async-{os.getuid()}.lock").unlink()
    # What it takes next shows that the file is gone, and locks everything in a new one.
    assert locks.take(TWO)
    another = Another(folder, folder / "a", ONE, TWO)
    another.kill()
    assert another.took == [False, False]
    locks.close()


def test_a_forked_child_has_no_lock_of_its_parent(folder):
    locks = SessionLocks(folder / "a")
    assert locks.take(ONE)
    code = (
        "import os, sys, tempfile; from pathlib import Path; from uuid import UUID\n"
        "from memvid_async.recording.session_lock import SessionLocks\n"
        "tempfile.tempdir, path = sys.argv[1:]; locks = SessionLocks(Path(path))\n"
        "one, two = UUID(int=1), UUID(int=2)\n"
        "assert locks.take(two)\n"
        "child = os.fork()\n"
        "if not child: os._exit(2 * SessionLocks(Path(path)).take(one) + locks.take(two))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(folder), str(folder / "a")]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"0\n"
    locks.close()
