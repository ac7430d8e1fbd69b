"""The lock, and who the file belongs to."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

import pytest

from memvid_async import NotAStoreError, StoreConfig, StoreLockedError, open_store
from tests.torture.children import Child

pytestmark = pytest.mark.one_loop


@pytest.fixture
async def path(tmp_path):
    path = tmp_path / "locked.mva"
    async with open_store(path) as store:
        await store.start_session("ambient")
    return path


@pytest.fixture
def holder(path):
    with Child("hold_lock", path) as child:
        assert child.hear() == "ready"
        yield child
        child.kill()


@pytest.mark.parametrize("patience", [0.0, 0.15])
async def test_a_locked_file_is_an_error_only_after_lock_timeout_and_names_the_holder(
    path, holder, patience
):
    before = time.monotonic()
    with pytest.raises(StoreLockedError, match=f"process {holder.pid} ") as raised:
        await open_store(path, config=StoreConfig(lock_timeout=patience))
    assert raised.value.pid == holder.pid
    assert time.monotonic() - before >= patience


async def test_a_store_that_was_refused_the_lock_goes_on_when_it_is_free(path):
    async with open_store(path, config=StoreConfig(lock_timeout=0.05)) as store:
        with Child("hold_lock", path) as holder:
            assert holder.hear() == "ready"
            with pytest.raises(StoreLockedError) as raised:
                await store.record_put(0, "refused")
            assert raised.value.pid == holder.pid
            holder.tell()
            assert holder.hear() == "closed"
        action = await store.record_put(1, "taken")
        assert (action.index, action.sequence) == (0, 2)


async def test_the_lock_falls_with_a_killed_holder(path):
    with Child("hold_lock", path) as holder:
        assert holder.hear() == "ready"
        holder.kill()
        holder.wait()
        async with open_store(path, config=StoreConfig(lock_timeout=0.0)) as store:
            assert await store.record_put(0, "taken")


async def test_the_lock_is_free_between_batches(path):
    async with open_store(path) as store:
        await store.record_put(0, "x")
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)


async def test_a_forked_child_does_not_keep_the_lock_of_a_parent_that_is_killed(path):
    with Child("fork_holding_lock", path) as parent:
        forked = parent.hear()
        assert parent.process.wait(10) == -9
        # The child, which shares the open file, lives on.
        os.kill(forked, 0)
        async with open_store(path, config=StoreConfig(lock_timeout=0.0)) as store:
            assert await store.record_put(0, "taken")
        parent.tell("end")


async def test_a_forked_child_can_neither_write_nor_drop_the_lock(path):
    with Child("fork_and_close", path) as parent:
        refused = parent.hear()
        assert refused >= 3
        with pytest.raises(StoreLockedError) as raised:
            await open_store(path, config=StoreConfig(lock_timeout=0.0))
        assert raised.value.pid == parent.pid
        parent.tell()
        assert parent.hear() == "closed"
    async with open_store(path, config=StoreConfig(lock_timeout=0.0)):
        pass


async def test_a_file_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        async with open_store(tmp_path / "new.mva") as store:
            await store.start_session()
            await store.compact()
    finally:
        os.umask(before)
    assert (tmp_path / "new.mva").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_link_in_the_last_component_is_not_followed(path, read_only):
    link = path.with_name("link.mva")
    link.symlink_to(path)
    with pytest.raises(NotAStoreError, match="symbolic link"):
        await open_store(link, read_only=read_only)
    link.unlink()
    link.symlink_to(path.with_name("nowhere.mva"))
    with pytest.raises(NotAStoreError):
        await open_store(link, read_only=read_only)
    assert not path.with_name("nowhere.mva").exists()


@pytest.mark.parametrize("read_only", [False, True])
async def test_files_are_closed_when_another_program_is_executed(path, read_only):
    async with open_store(path, read_only=read_only) as store:
        await store.list_sessions()
        ours = _descriptors(path)
        assert len(ours) == 1
        for descriptor in ours:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFD)
            assert flags & fcntl.FD_CLOEXEC


def _descriptors(path):
    """This process's descriptors of a file."""
    found = []
    for descriptor in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.path.samestat(path.stat(), os.fstat(int(descriptor.name))):
                found.append(int(descriptor.name))
    return found
