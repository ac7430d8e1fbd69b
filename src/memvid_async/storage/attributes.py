"""What a file has besides its bytes: owner, group, mode, ACL, extended attributes, flags."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from contextlib import suppress

# The kernel computes these from the file itself, so they cannot be copied.
_OF_ONE_FILE = {"security.evm", "security.ima"}
# From <linux/fs.h>: reading and setting the flags that chattr sets.
_GET_FLAGS, _SET_FLAGS = 0x80086601, 0x40086602
# The flags that a file may share with another: compression, sync, nodump, noatime, journalled data,
# no tails, no copy-on-write. (A file with the flag that forbids changes cannot be replaced at all.)
_FLAGS = 0x4 | 0x8 | 0x40 | 0x80 | 0x400 | 0x4000 | 0x8000 | 0x800000
# From <copyfile.h>: ACL, mode and owner, extended attributes.
_COPYFILE_METADATA = 1 | 2 | 4


def copy_attributes(source: int, target: int) -> list[str]:
    """Copy an open file's attributes to another one; return the names of those that differ still.

    :raises OSError: when they cannot be read.
    """
    wanted, has = _read(source), _read(target)
    if wanted != has:
        _set_all(source, target, wanted, has)
        has = _read(target)
    os.fsync(target)
    return sorted(name for name in wanted.keys() | has if wanted.get(name) != has.get(name))


def _read(descriptor: int) -> dict[str, int | bytes]:
    status = os.fstat(descriptor)
    found: dict[str, int | bytes] = {
        "owner": status.st_uid,
        "group": status.st_gid,
        "mode": stat.S_IMODE(status.st_mode),
    }
    if sys.platform == "linux":
        for name in _attribute_names(descriptor):
            if name not in _OF_ONE_FILE:
                found[name] = os.getxattr(descriptor, name)
        with suppress(OSError):
            flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
            found["flags"] = int.from_bytes(flags[:4], sys.byteorder) & _FLAGS
    return found


def _attribute_names(descriptor: int) -> list[str]:
    if sys.platform == "linux":
        try:
            return os.listxattr(descriptor)
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
    return []


def _set_all(
    source: int, target: int, wanted: dict[str, int | bytes], has: dict[str, int | bytes]
) -> None:
    if sys.platform == "darwin":
        import posix  # noqa: PLC0415 - the call that shutil makes; nothing else copies an ACL there

        with suppress(OSError):
            posix._fcopyfile(source, target, _COPYFILE_METADATA)  # noqa: SLF001
    with suppress(OSError):
        os.fchown(target, int(wanted["owner"]), int(wanted["group"]))
    if sys.platform == "linux":
        for name in wanted.keys() | has:
            value = wanted.get(name)
            with suppress(OSError):
                if isinstance(value, bytes):
                    os.setxattr(target, name, value)
                elif isinstance(has.get(name), bytes):
                    # The new file may have an ACL that it inherited from the directory.
                    os.removexattr(target, name)
        _set_flags(target, wanted.get("flags"))
    # Last, because a change of the owner clears the set-user-id bit.
    with suppress(OSError):
        os.fchmod(target, int(wanted["mode"]))


def _set_flags(target: int, wanted: int | bytes | None) -> None:
    if isinstance(wanted, int):
        with suppress(OSError):
            now = fcntl.ioctl(target, _GET_FLAGS, bytes(8))
            flags = int.from_bytes(now[:4], sys.byteorder) & ~_FLAGS | wanted
            if flags != int.from_bytes(now[:4], sys.byteorder):
                fcntl.ioctl(target, _SET_FLAGS, flags.to_bytes(4, sys.byteorder) + bytes(4))
