"""Where a command's store is: FILE, or the address of a stream in its place."""

from __future__ import annotations

import anyio

from .. import NotAStoreError, StoreNotFoundError, open_store
from ..view.text import printable

_SCHEMES = ("nats://", "tls://")


def is_address(file: str) -> bool:
    """Whether FILE is the address of a store on a stream."""
    return file.startswith(_SCHEMES)


def shown_place(file: str) -> str:
    """Return FILE as it may be printed, in one line: an address without user and password."""
    scheme, mark, rest = file.partition("://")
    if is_address(file):
        hosts, slash, name = rest.partition("/")
        file = scheme + mark + hosts.rpartition("@")[2] + slash + name
    return printable(file, one_line=True)


async def require_store(file: str) -> None:
    """Refuse what opening for writing would create, or turn into a store.

    :raises StoreNotFoundError: when there is no such file or stream.
    :raises NotAStoreError: when the file is empty.
    """
    if is_address(file):
        async with open_store(file, read_only=True):
            return
    try:
        size = (await anyio.Path(file).stat()).st_size
    except FileNotFoundError:
        raise StoreNotFoundError(f"there is no file {file}") from None
    if size == 0:
        raise NotAStoreError(f"{file} is empty")
