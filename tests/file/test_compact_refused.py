"""compact() that the system refuses: nothing is changed, and the store goes on."""

import errno
import os
import subprocess
import sys

import pytest

from memvid_async import NotCompactedError, open_store
from memvid_async.storage import attributes
from memvid_async.storage import disk as module

pytestmark = pytest.mark.one_loop

# Every call of the system that a compaction makes on its way to the new file.
CALLS = {
    "dup": module.os,
    "open": module.os,
    "pwrite": module.os,
    "fdatasync": module.os,
    "ftruncate": module.os,
    "fsync": attributes.os,
    "rename": module.os,
}
NUMBERS = [
    errno.EBUSY,
    errno.ENOSPC,
    errno.EMFILE,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EDQUOT,
    errno.EIO,
]


@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_is_refused_changes_nothing(tmp_path, monkeypatch, call, number):
    path = tmp_path / "refused.mva"
    async with open_store(path) as store:
        frame = await store.put("one " * 300)
        await store.delete(frame)
        sequence, inode = store.last_sequence, path.stat().st_ino
        with monkeypatch.context() as patch:

            def refuse(*_given, **_named):
                raise OSError(number, os.strerror(number))

            patch.setattr(CALLS[call], call, refuse)
            with pytest.raises(NotCompactedError, match="as it was"):
                await store.compact()
        assert path.stat().st_ino == inode
        assert list(tmp_path.iterdir()) == [path]
        await store.put("two")
        assert store.last_sequence == sequence + 1
        assert (await store.verify()).ok
        assert (await store.compact()).generation == 1
        assert len((await store.find("two")).hits) == 1


async def test_what_others_wrote_before_a_refusal_is_delivered(tmp_path, monkeypatch):
    path = tmp_path / "refused.mva"
    async with open_store(path) as store, open_store(path) as other:
        await other.put("from elsewhere")
        with monkeypatch.context() as patch:
            patch.setattr(module.os, "dup", lambda _: (_ for _ in ()).throw(OSError(errno.EMFILE)))
            with pytest.raises(NotCompactedError):
                await store.compact()
        assert store.last_sequence == other.last_sequence
        assert (await store.get(1)).content.size > 0


BOUND = """
import asyncio, subprocess, sys
from memvid_async import NotCompactedError, open_store

async def main(host, mount):
    async with open_store(host) as store:
        await store.put("one")
    open(mount, "w").close()
    subprocess.check_call(["mount", "--bind", host, mount])
    async with open_store(mount) as store:
        try:
            await store.compact()
        except NotCompactedError:
            await store.put("two")
            print(len((await store.find("two")).hits))

asyncio.run(main(*sys.argv[1:]))
"""


def test_a_file_that_is_a_mount_point_is_not_replaced_and_goes_on(tmp_path):
    """As ``docker -v ./a.mva:/data/a.mva`` makes it."""
    child = ["unshare", "-m", sys.executable, "-c", BOUND, tmp_path / "host", tmp_path / "mount"]
    try:
        done = subprocess.run(child, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("only Linux has unshare")
    if b"unshare" in done.stderr or b"mount" in done.stderr:
        pytest.skip("only root may mount")
    assert done.stdout.strip() == b"1", done.stderr
