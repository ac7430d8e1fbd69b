"""A compaction replaces one file by another: which one, where, and what belongs to it."""

import contextlib
import os
import shutil
import stat
import sys
from contextlib import closing

import pytest

from memvid_async import MemvidAsyncError, NotCompactedError, StoreFailedError, open_store, recover
from memvid_async.format.header import LOG_START, decode_header
from memvid_async.storage import FileStorage, attributes
from memvid_async.storage import disk as module

pytestmark = pytest.mark.one_loop
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux has these calls")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
async def path(tmp_path):
    path = tmp_path / "replaced.mva"
    async with open_store(path) as store:
        await store.put("one")
    return path


def id_of(path):
    return decode_header(path.read_bytes()[:LOG_START]).file_id


def beside(path):
    """The name of the file that a compaction writes."""
    return path.with_name(f"{path.name}.{id_of(path).hex}.compact")


async def works(store):
    """Put one more frame, and look for trouble."""
    before = store.last_sequence
    await store.put("two")
    assert store.last_sequence == before + 1
    assert (await store.verify()).ok


# What belongs to the file.


async def test_the_mode_is_kept(path):
    for mode in (0o640, 0o664, 0o4711, 0o600):
        path.chmod(mode)
        async with open_store(path) as store:
            await store.compact()
        assert stat.S_IMODE(path.stat().st_mode) == mode


@ROOT
async def test_owner_and_group_are_kept(path):
    os.chown(path, 1234, 2345)
    path.chmod(0o4750)
    async with open_store(path) as store:
        await store.compact()
    kept = path.stat()
    assert (kept.st_uid, kept.st_gid, stat.S_IMODE(kept.st_mode)) == (1234, 2345, 0o4750)


def set_attribute(path, name, value):
    try:
        os.setxattr(path, name, value)
    except OSError:
        pytest.skip("the file system has no such attributes")


# An ACL of the user, user 1234, the group, the mask and others (<linux/posix_acl_xattr.h>).
ACL = bytes.fromhex(
    "02000000 01000600ffffffff 02000600d2040000 04000400ffffffff 10000600ffffffff 20000000ffffffff"
)


@LINUX
async def test_extended_attributes_and_the_acl_are_kept(path):
    set_attribute(path, "user.origin", b"robot 7")
    set_attribute(path, "system.posix_acl_access", ACL)
    mode = path.stat().st_mode
    async with open_store(path) as store:
        await store.compact()
    assert os.getxattr(path, "user.origin") == b"robot 7"
    assert os.getxattr(path, "system.posix_acl_access") == ACL
    assert path.stat().st_mode == mode


@LINUX
async def test_an_acl_that_the_directory_gives_to_new_files_is_not_taken(path):
    set_attribute(path.parent, "system.posix_acl_default", ACL)
    before = os.listxattr(path)
    async with open_store(path) as store:
        await store.compact()
    assert os.listxattr(path) == before


@LINUX
async def test_flags_are_kept(path):
    no_dump = 0x40
    with closing(FileStorage.open(path)) as file:
        attributes._set_flags(file._descriptor, no_dump)
        if attributes._read(file._descriptor).get("flags") != no_dump:
            pytest.skip("the file system has no such flags")
    async with open_store(path) as store:
        await store.compact()
    with closing(FileStorage.open(path)) as file:
        assert attributes._read(file._descriptor)["flags"] == no_dump


async def test_what_cannot_be_kept_is_named_before_anything_is_replaced(path, monkeypatch):
    path.chmod(0o640)
    before, inode = path.read_bytes(), path.stat().st_ino
    async with open_store(path) as store:
        with monkeypatch.context() as patch:
            patch.setattr(attributes.os, "fchmod", lambda *_: None)
            with pytest.raises(NotCompactedError, match="same mode"):
                await store.compact()
        assert path.stat().st_ino == inode
        assert path.read_bytes().rstrip(b"\0") == before
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        await works(store)
        assert (await store.compact()).generation == 1


async def test_a_recovered_file_has_what_belonged_to_the_damaged_one(path):
    path.chmod(0o640)
    out = path.with_name("out.mva")
    await recover(path, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o640


async def test_a_file_with_two_names_is_not_replaced_under_one_of_them(path):
    second = path.with_name("second.mva")
    os.link(path, second)
    async with open_store(path) as store, open_store(second) as other:
        with pytest.raises(NotCompactedError, match="2 names"):
            await store.compact()
        await works(store)
        await other.put("three")
        assert store.path.samefile(second)
        second.unlink()
        await store.compact()


# Which file, and where.


@pytest.mark.parametrize("what", ["another store", "nothing", "a copy that is behind"])
async def test_a_link_above_the_file_that_is_switched_costs_no_store(path, tmp_path, what):
    """As deployments do: the path leads to another directory from one moment to the next."""
    old, new = tmp_path / "old", tmp_path / "new"
    for each in (old, new):
        each.mkdir()
    if what == "another store":
        async with open_store(new / path.name) as store:
            await store.put("precious")
    elif what == "a copy that is behind":
        shutil.copy(path, new / path.name)
    moved = path.rename(old / path.name)
    link = tmp_path / "current"
    link.symlink_to(old.name)
    there = {each: each.read_bytes() for each in new.iterdir()}
    async with open_store(link / path.name) as store:
        await store.put("two")
        switched = tmp_path / "switched"
        switched.symlink_to(new.name)
        switched.replace(link)
        with pytest.raises(StoreFailedError, match="deleted or replaced"):
            await store.compact()
    assert {each: each.read_bytes() for each in new.iterdir()} == there
    async with open_store(moved) as store:
        assert store.statistics().frame_count == 2


async def test_a_file_that_gets_another_while_it_is_compacted_is_not_replaced(path, monkeypatch):
    """Somebody who takes no lock puts another store at the path, at the last moment."""
    other = path.with_name("other")
    async with open_store(other) as store:
        await store.put("precious")
    precious = other.read_bytes()
    copied = module.copy_attributes

    def meanwhile(*given):
        other.rename(path)
        return copied(*given)

    monkeypatch.setattr(module, "copy_attributes", meanwhile)
    async with open_store(path) as store:
        with pytest.raises(NotCompactedError, match="another file has its name"):
            await store.compact()
        assert path.read_bytes() == precious
        with pytest.raises(StoreFailedError, match="another store"):
            await store.put("lost")
    assert path.read_bytes() == precious


async def test_a_directory_that_is_moved_while_it_is_compacted_keeps_all_that_is_its_own(
    tmp_path, monkeypatch
):
    home, moved = tmp_path / "home", tmp_path / "moved"
    home.mkdir()
    path = home / "a.mva"
    async with open_store(path) as store:
        await store.put("one")
    copied = module.copy_attributes

    def meanwhile(*given):
        if not moved.exists():
            home.rename(moved)
            home.mkdir()
            path.write_bytes(b"precious")
        return copied(*given)

    monkeypatch.setattr(module, "copy_attributes", meanwhile)
    async with open_store(path) as store:
        with contextlib.suppress(MemvidAsyncError):
            await store.compact()
    assert path.read_bytes() == b"precious"
    assert [each.name for each in moved.iterdir()] == ["a.mva"]
    async with open_store(moved / "a.mva") as store:
        assert store.statistics().frame_count == 1


async def test_what_fails_after_the_renaming_does_not_remove_the_new_file(path, monkeypatch):
    """The file has a name again only by the path; nothing may be undone by that name."""

    def broken(_self):
        raise StoreFailedError("looking failed")

    rename = module.os.rename

    def renamed(*given, **named):
        rename(*given, **named)
        monkeypatch.setattr(FileStorage, "_is_at_path", broken)

    monkeypatch.setattr(module.os, "rename", renamed)
    async with open_store(path) as store:
        with contextlib.suppress(MemvidAsyncError):
            await store.compact()
        monkeypatch.undo()
        assert path.exists()
    async with open_store(path) as store:
        assert store.statistics().frame_count == 1
        await works(store)


# What is in the way.


def in_the_way(path, what, other):
    if what == "directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to(other)
    elif what == "text":
        path.write_bytes(b"precious")
    else:
        shutil.copy(other, path)


@pytest.mark.parametrize("what", ["directory", "pipe", "link", "text", "another store"])
async def test_what_is_in_the_way_of_the_new_file_is_left_alone(path, tmp_path, what):
    other = tmp_path / "other.mva"
    async with open_store(other) as store:
        await store.put("precious")
    precious = other.read_bytes()
    for way in (beside(path), path.with_name(f"{path.name}.compact")):
        in_the_way(way, what, other)
        before = way.lstat()
        async with open_store(path) as store:
            await store.compact()
            await works(store)
        assert (way.lstat().st_ino, way.lstat().st_mode) == (before.st_ino, before.st_mode)
        assert other.read_bytes() == precious
        assert way.is_dir() or what == "pipe" or way.read_bytes() in (precious, b"precious")
    left = {each.name for each in tmp_path.iterdir()}
    assert left == {path.name, other.name, beside(path).name, f"{path.name}.compact"}


async def test_with_every_name_taken_it_says_so_and_goes_on(path):
    first = beside(path)
    first.mkdir()
    for at in range(1, 4):
        first.with_name(first.name.replace(".compact", f".{at}.compact")).mkdir()
    async with open_store(path) as store:
        with pytest.raises(NotCompactedError, match="have the names"):
            await store.compact()
        await works(store)


@pytest.mark.parametrize("left", ["empty", "half a header", "a header", "all"])
async def test_what_a_compaction_of_this_file_left_is_removed(path, left):
    size = {"empty": 0, "half a header": 20, "a header": LOG_START, "all": None}[left]
    beside(path).write_bytes(path.read_bytes()[:size])
    async with open_store(path, read_only=True) as store:
        assert beside(path).exists()
    async with open_store(path) as store:
        assert not beside(path).exists()
        await works(store)


@pytest.mark.parametrize("length", [209, 210, 250, 255])
async def test_the_longest_names_can_be_compacted(tmp_path, length):
    path = tmp_path / ("n" * length)
    async with open_store(path) as store:
        await store.put("one")
        await store.compact()
        await works(store)
    assert list(tmp_path.iterdir()) == [path]
