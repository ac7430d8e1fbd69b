"""What only a file can do: locks, replacements, and a system in a bad mood."""

import errno
import fcntl
import os
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from memvid_async import MemvidAsyncError, StoreFailedError, StoreLockedError
from memvid_async.storage import FileStorage
from memvid_async.storage import disk as module

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.mva"


@pytest.fixture
def file(path):
    opened = FileStorage.open(path)
    yield opened
    opened.close()


# The lock.


def test_the_lock_keeps_another_opener_out_and_names_its_holder(file, path):
    other = FileStorage.open(path)
    file.lock(0)
    with pytest.raises(StoreLockedError) as caught:
        other.lock(0)
    assert caught.value.pid in (os.getpid(), None)
    file.unlock()
    other.lock(0)
    with pytest.raises(StoreLockedError):
        file.lock(0.01)
    other.close()
    file.lock(0)


@LINUX
def test_the_holder_is_known_on_linux(file, path):
    try:
        readable = "FLOCK" in Path("/proc/locks").read_text()
    except OSError:
        readable = False
    other = FileStorage.open(path)
    file.lock(0)
    readable = readable or "FLOCK" in Path("/proc/locks").read_text()
    with pytest.raises(StoreLockedError) as caught:
        other.lock(0)
    assert caught.value.pid == (os.getpid() if readable else None)
    assert (str(os.getpid()) in str(caught.value)) == readable
    other.close()


def test_a_lock_is_waited_for(file, path, monkeypatch):
    other = FileStorage.open(path)
    file.lock(0)
    waited = []

    def pause(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            file.unlock()

    monkeypatch.setattr(module.time, "sleep", pause)
    other.lock(60)
    assert len(waited) == 3
    other.close()


def test_a_holder_that_cannot_be_known_is_none(file, path, monkeypatch):
    def unreadable(_path):
        raise PermissionError

    with closing(FileStorage.open(path)) as other:
        other.lock(0)
        for read in (unreadable, lambda _path: "1: POSIX  ADVISORY  WRITE 1 00:00:1 0 EOF\n"):
            with monkeypatch.context() as patch:
                patch.setattr(Path, "read_text", read)
                with pytest.raises(StoreLockedError) as caught:
                    file.lock(0)
            assert caught.value.pid is None


def test_a_forked_child_drops_its_share_and_unlocks_nothing(path, monkeypatch):
    """What runs in the child, run here: the lock stays with the other descriptor of the file."""
    mine, parents = FileStorage.open(path), FileStorage.open(path)
    monkeypatch.setattr(module, "_OPEN", {mine})
    parents.lock(0)
    mine._locked = True
    unlocked = []
    monkeypatch.setattr(FileStorage, "unlock", lambda storage: unlocked.append(storage._locked))
    module._close_in_child()
    monkeypatch.undo()
    assert unlocked == []
    with pytest.raises(StoreFailedError):
        mine.read(0, 1)
    with closing(FileStorage.open(path)) as other, pytest.raises(StoreLockedError):
        other.lock(0)
    parents.close()


def test_closing_lets_the_lock_go(file, path):
    other = FileStorage.open(path)
    other.lock(0)
    other.close()
    file.lock(0)


def test_closing_another_descriptor_keeps_the_lock(file, path):
    """Unlike with lockf, where any closing in the process releases it."""
    file.lock(0)
    FileStorage.open(path).close()
    os.close(os.open(path, os.O_RDONLY))
    other = FileStorage.open(path)
    with pytest.raises(StoreLockedError):
        other.lock(0)
    other.close()


def test_the_lock_of_a_dead_process_is_gone(file, path):
    code = (
        "import os, pathlib, sys\n"
        "from memvid_async.storage import FileStorage\n"
        "held = FileStorage.open(pathlib.Path(sys.argv[1]))\n"
        "held.lock(0)\n"
        "print('held', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (b"held", -9)
    file.lock(0)


@pytest.mark.parametrize("inherited", [False, True])
def test_a_child_that_lives_on_does_not_keep_the_lock(file, path, inherited):
    """Not even one that was forked with the descriptor: closing unlocks what all of them share."""
    file.lock(0)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"],
        stdin=subprocess.PIPE,
        pass_fds=[file._descriptor] if inherited else [],
    )
    try:
        file.close()
        other = FileStorage.open(path)
        # A child that is being started releases it a moment after its parent continues.
        other.lock(1)
        other.close()
    finally:
        child.communicate(b"\n")


# The path.


def test_a_deleted_file_is_not_current(file, path):
    assert file.is_current()
    path.unlink()
    assert not file.is_current()
    path.write_bytes(b"another")
    assert not file.is_current()


def test_a_replaced_file_is_not_current(file, path):
    other = path.with_name("other")
    other.write_bytes(b"another")
    other.replace(path)
    assert not file.is_current()


def test_a_moved_file_is_not_current_until_it_is_back(file, path):
    moved = path.rename(path.with_name("moved"))
    assert not file.is_current()
    moved.rename(path)
    assert file.is_current()


def test_a_link_in_the_files_place_is_not_current(file, path):
    moved = path.rename(path.with_name("moved"))
    path.symlink_to(moved)
    assert not file.is_current()


def test_a_second_name_of_the_file_changes_nothing(file, path):
    second = path.with_name("second")
    os.link(path, second)
    assert file.is_current()
    path.unlink()
    assert not file.is_current()


def test_without_proc_the_file_is_told_by_its_inode(file, path, monkeypatch):
    monkeypatch.setattr(file, "_name", None, raising=False)
    assert file.is_current()
    path.unlink()
    assert not file.is_current()
    path.write_bytes(b"another")
    assert not file.is_current()


def test_without_a_name_in_proc_the_file_is_told_by_its_inode(file, path, monkeypatch):
    def missing(_link):
        raise FileNotFoundError

    monkeypatch.setattr(module.os, "readlink", missing)
    assert file.is_current()
    with closing(FileStorage.open(path)) as other:
        assert other._name is None
        assert other.is_current()
    path.unlink()
    assert not file.is_current()


@pytest.mark.parametrize("name", ["a (deleted)", "ü", " ", "new\nline", "%s", "\udcff"])
def test_an_odd_name_is_a_name(tmp_path, name):
    try:
        opened = FileStorage.open(tmp_path / name)
    except (OSError, UnicodeError, MemvidAsyncError):
        pytest.skip("the file system has no such name")
    assert opened.is_current()
    (tmp_path / name).unlink()
    assert not opened.is_current()
    opened.close()


# The system's moods.


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_a_short_write_is_gone_on_with(file, monkeypatch, most):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data)[:most], at))
    file.write(2, b"0123456789")
    assert file.read(0, 100) == b"\0\x000123456789"


def test_a_write_of_nothing_is_a_failure_not_a_loop(file, monkeypatch):
    monkeypatch.setattr(os, "pwrite", lambda *_: 0)
    with pytest.raises(StoreFailedError):
        file.write(0, b"data")


def test_a_short_read_is_gone_on_with(file, monkeypatch):
    file.write(0, b"0123456789")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: real(fd, min(length, 3), at))
    assert file.read(1, 8) == b"12345678"
    assert file.read(8, 100) == b"89"


def fail_with(number):
    def fail(*_args, **_keywords):
        raise OSError(number, os.strerror(number))

    return fail


CALLS = {
    "pwrite": lambda file: file.write(0, b"data"),
    "pread": lambda file: file.read(0, 4),
    "ftruncate": lambda file: file.truncate(0),
    "fdatasync": lambda file: file.sync(),
    "fsync": lambda file: file.sync_directory(),
    "rename": lambda file: file.create_beside("new").install(),
}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("call", CALLS)
def test_an_error_of_the_system_becomes_ours(file, monkeypatch, call, number):
    if call == "fdatasync" and sys.platform == "darwin":
        monkeypatch.setattr(fcntl, "fcntl", fail_with(number))
    else:
        monkeypatch.setattr(os, call, fail_with(number), raising=False)
    with pytest.raises(StoreFailedError) as caught:
        CALLS[call](file)
    assert isinstance(caught.value.__cause__, OSError)
    assert os.strerror(number) in str(caught.value)


def test_a_write_that_fails_half_way_is_an_error(file, monkeypatch):
    real, calls = os.pwrite, []

    def half(descriptor, data, at):
        calls.append(at)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "full")
        return real(descriptor, bytes(data)[:4], at)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(StoreFailedError, match="full"):
        file.write(0, b"0123456789")


def test_a_lock_that_cannot_be_had_is_an_error(file, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", fail_with(errno.ENOLCK))
    with pytest.raises(StoreFailedError, match="lock"):
        file.lock(0)


def test_a_closed_file_says_so_in_our_words(file):
    file.close()
    for call in (file.size, lambda: file.read(0, 1), lambda: file.write(0, b"x"), file.sync):
        with pytest.raises(StoreFailedError):
            call()
    with pytest.raises(MemvidAsyncError):
        file.lock(0)
    with suppress(MemvidAsyncError):
        assert not file.is_current()


def test_a_descriptor_that_the_system_gave_to_another_is_not_touched(path, tmp_path):
    file = FileStorage.open(path)
    file.close()
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    file.close()
    os.fstat(other)
    os.close(other)


def test_on_macos_a_sync_reaches_the_medium_and_the_inode_tells_the_file(path, monkeypatch):
    """As far as it can be shown elsewhere: fsync there leaves the data in the disk's cache."""
    asked = []
    monkeypatch.setattr(module.sys, "platform", "darwin")
    monkeypatch.setattr(module.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(module.fcntl, "fcntl", lambda *given: asked.append(given))
    with closing(FileStorage.open(path)) as file:
        file.write(0, b"data")
        file.sync()
        assert asked == [(file._descriptor, 51)]
        monkeypatch.setattr(module.os, "posix_fadvise", asked.append, raising=False)
        module._forget(file._descriptor)
        assert len(asked) == 1
        assert file._name is None
        assert file.is_current()
        path.unlink()
        assert not file.is_current()


def test_a_file_that_cannot_be_looked_at_is_not_kept_open(path, monkeypatch):
    def broken(descriptor):
        looked_at.append(descriptor)
        raise OSError(errno.EIO, "broken")

    looked_at = []
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fstat", broken)
        with pytest.raises(StoreFailedError):
            FileStorage.open(path)
    (descriptor,) = looked_at
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
