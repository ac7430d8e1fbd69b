"""One contract suite for every storage, and what only a file can do."""

import errno
import fcntl
import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    MemvidAsyncError,
    NotAStoreError,
    StoreFailedError,
    StoreNotFoundError,
    StoreReadOnlyError,
)
from memvid_async.storage import FileStorage, RamStorage
from tests.support.disk import SimDisk, SimStorage
from tests.support.plans import examples

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.mva"


def simulated():
    """A file of a simulated disk, which takes changes from the holder of its lock alone."""
    opened = SimStorage(SimDisk(), "store")
    opened.lock(0)
    return opened


STORAGES = {
    "memory": lambda _: RamStorage(),
    "file": FileStorage.open,
    "simulated": lambda _: simulated(),
}


@pytest.fixture(params=STORAGES)
def storage(request, path):
    opened = STORAGES[request.param](path)
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
    storage.sync()
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


def test_what_was_created_beside_a_file_takes_its_place(storage):
    with pytest.raises(StoreFailedError):
        storage.install()
    assert storage.is_current()
    storage.lock(0)
    created = storage.create_beside("new")
    created.lock(0)
    created.write(0, b"new")
    created.sync()
    created.install()
    created.sync_directory()
    assert created.is_current()
    assert not storage.is_current()
    storage.unlock()
    reopened = storage.reopen()
    assert reopened.read(0, 10) == b"new"
    assert storage.open_beside("new") is None
    for each in (created, reopened):
        each.close()


def test_what_was_created_beside_a_file_can_be_removed(storage):
    storage.lock(0)
    created = storage.create_beside("new")
    created.remove()
    created.close()
    assert storage.is_current()
    assert storage.open_beside("new") is None
    again = storage.create_beside("new")
    assert again.size() == 0
    again.remove()
    again.close()


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
    storages = (RamStorage(), FileStorage.open(place), simulated())
    for at, data in writes:
        if data is None:
            at = min(at, len(expected))
            del expected[at:]
        elif data:
            expected.extend(bytes(max(0, at - len(expected))))
            expected[at : at + len(data)] = data
        for storage in storages:
            if data is None:
                storage.truncate(at)
                storage.sync()
            elif data:
                storage.write(at, data)
    for storage in storages:
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
    before = sorted(path.parent.iterdir())
    with pytest.raises(NotAStoreError, match=path.name):
        FileStorage.open(path, read_only=read_only)
    assert sorted(path.parent.iterdir()) == before
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
