"""One contract suite for every storage, and what only a file can do."""

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    MemvidAsyncError,
    NotAStoreError,
    StoreFailedError,
    StoreLockedError,
    StoreNotFoundError,
    StoreReadOnlyError,
)
from memvid_async.storage import FileStorage, MemoryStorage
from memvid_async.storage import file as module
from tests.plans import examples

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.mva"


@pytest.fixture(params=["memory", "file"])
def storage(request, path):
    opened = MemoryStorage() if request.param == "memory" else FileStorage.open(path)
    yield opened
    opened.close()


@pytest.fixture
def file(path):
    opened = FileStorage.open(path)
    yield opened
    opened.close()


# The contract.


def test_a_new_storage_is_empty(storage):
    assert storage.size() == 0
    assert storage.read(0, 100) == b""
    assert storage.is_current()


def test_what_is_written_is_read(storage):
    storage.write(0, b"hello")
    storage.write(5, b" world")
    storage.write(0, b"J")
    assert storage.size() == 11
    assert storage.read(0, 100) == b"Jello world"
    assert storage.read(6, 3) == b"wor"
    assert storage.read(11, 1) == b""
    assert storage.read(500, 5) == b""
    assert storage.read(3, 0) == b""


def test_a_gap_is_zeros(storage):
    storage.write(4, b"x")
    assert storage.read(0, 10) == b"\0\0\0\0x"


def test_a_cut_takes_the_end_away(storage):
    storage.write(0, b"0123456789")
    storage.truncate(4)
    assert storage.size() == 4
    assert storage.read(0, 100) == b"0123"
    storage.write(6, b"x")
    assert storage.read(0, 100) == b"0123\0\0x"


def test_a_cut_beyond_the_end_is_no_concern_of_the_content(storage):
    storage.write(0, b"abc")
    storage.truncate(3)
    assert storage.read(0, 100) == b"abc"


def test_bytes_like_data_is_taken(storage):
    storage.write(0, bytearray(b"abc"))
    assert type(storage.read(0, 3)) is bytes


def test_syncing_changes_nothing(storage):
    storage.write(0, b"abc")
    storage.sync()
    storage.sync_directory()
    assert storage.read(0, 100) == b"abc"


def test_the_lock_may_be_taken_and_let_go_again_and_again(storage):
    for _ in range(3):
        storage.lock(0)
        storage.lock(0)
        storage.unlock()
        storage.unlock()


def test_closing_twice_is_closing(storage):
    storage.lock(0)
    storage.close()
    storage.close()


WRITES = st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=30) | st.none()), max_size=12)


@given(WRITES)
@examples(1)
def test_any_writes_and_cuts_leave_the_same_in_every_storage(tmp_path_factory, writes):
    place = tmp_path_factory.getbasetemp() / "same.mva"
    place.unlink(missing_ok=True)
    expected = bytearray()
    both = (MemoryStorage(), FileStorage.open(place))
    for at, data in writes:
        if data is None:
            at = min(at, len(expected))
            del expected[at:]
        elif data:
            expected.extend(bytes(max(0, at - len(expected))))
            expected[at : at + len(data)] = data
        for storage in both:
            if data is None:
                storage.truncate(at)
            elif data:
                storage.write(at, data)
    for storage in both:
        assert storage.size() == len(expected)
        assert storage.read(0, 1000) == expected
        storage.close()


# A file.


def test_a_new_file_is_its_owners_alone(file, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_existing_file_keeps_its_content_and_mode(path):
    path.write_bytes(b"data")
    path.chmod(0o640)
    opened = FileStorage.open(path)
    assert opened.read(0, 10) == b"data"
    opened.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_child_process_does_not_inherit_the_file(file):
    assert fcntl.fcntl(file._descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert not os.get_inheritable(file._descriptor)


def test_reading_creates_no_file(path):
    with pytest.raises(StoreNotFoundError) as caught:
        FileStorage.open(path, read_only=True)
    assert isinstance(caught.value, FileNotFoundError)
    assert not path.exists()


@pytest.mark.parametrize("read_only", [False, True])
def test_a_missing_directory_is_not_created(tmp_path, read_only):
    with pytest.raises(StoreNotFoundError):
        FileStorage.open(tmp_path / "no" / "store.mva", read_only=read_only)
    assert list(tmp_path.iterdir()) == []


def make_directory(path):
    path.mkdir()


def make_link(path):
    target = path.with_name("target")
    target.write_bytes(b"kept")
    path.symlink_to(target)


def make_dangling_link(path):
    path.symlink_to(path.with_name("nowhere"))


def make_loop(path):
    path.symlink_to(path)


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    "make", [make_directory, make_link, make_dangling_link, make_loop, make_pipe, make_socket]
)
def test_what_is_no_regular_file_is_refused_and_left_alone(path, make, read_only, monkeypatch):
    make(path, monkeypatch) if make is make_socket else make(path)
    before = sorted(os.listdir(path.parent))
    with pytest.raises(NotAStoreError, match=path.name):
        FileStorage.open(path, read_only=read_only)
    assert sorted(os.listdir(path.parent)) == before
    if make is make_link:
        assert path.with_name("target").read_bytes() == b"kept"


def test_a_device_is_refused():
    with pytest.raises(NotAStoreError):
        FileStorage.open(Path(os.devnull))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_path_through_a_file_is_refused(path, read_only):
    path.write_bytes(b"text")
    with pytest.raises(NotAStoreError):
        FileStorage.open(path / "below", read_only=read_only)
    assert path.read_bytes() == b"text"


def test_a_name_too_long_is_an_error_of_ours(tmp_path):
    with pytest.raises(MemvidAsyncError):
        FileStorage.open(tmp_path / ("n" * 5000))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_no_permission_to_write_is_named(path, monkeypatch, number):
    def refuse(*_args):
        raise OSError(number, os.strerror(number))

    path.write_bytes(b"")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreReadOnlyError):
        FileStorage.open(path)
    with pytest.raises(StoreFailedError):
        FileStorage.open(path, read_only=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_read_only_file_is_named(path):
    path.write_bytes(b"")
    path.chmod(0o400)
    with pytest.raises(StoreReadOnlyError):
        FileStorage.open(path)


def test_nothing_stays_open_after_a_refusal(tmp_path):
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = os.dup(0)
    os.close(before)
    for name in ("directory", "pipe"):
        with pytest.raises(NotAStoreError):
            FileStorage.open(tmp_path / name, read_only=True)
    after = os.dup(0)
    os.close(after)
    assert after == before


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


def test_closing_lets_the_lock_go(file, path):
    other = FileStorage.open(path)
    other.lock(0)
    other.close()
    file.lock(0)


def test_closing_another_descriptor_keeps_the_lock(file, path):
    """Unlike with lockf, where any closing in the process lets it go."""
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
        # A child that is being started lets go a moment after its parent goes on.
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


@pytest.mark.timeout(5)
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
