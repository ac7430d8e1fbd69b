"""Where a command's store is: FILE, or the address of a stream in its place."""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio

from .. import NotAStoreError, StoreNotFoundError, open_store
from ..view.text import printable
from .exits import say_note

_SCHEMES = ("nats://", "tls://")
_PORT = 4222
# A server takes a connection within this many seconds, or the user is told what is waited for.
_PATIENCE = 2.0


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


async def note_unreachable(address: str) -> None:
    """Say that a command waits, where none of the servers of an address takes a connection."""
    scheme, _, rest = address.partition("://")
    why: object = "no answer"
    for host in rest.partition("/")[0].rpartition("@")[2].split(","):
        with anyio.move_on_after(_PATIENCE):
            try:
                parts = urlsplit(f"{scheme}://{host}")
                stream = await anyio.connect_tcp(parts.hostname or "", parts.port or _PORT)
            except (OSError, ValueError) as error:
                why = error
                continue
            await stream.aclose()
            return
    say_note(f"waiting for {shown_place(address)}: {why}")


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
