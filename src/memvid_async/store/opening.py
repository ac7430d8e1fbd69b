"""Opening a store."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any

from attrs import evolve

from ..config import Durability, StoreConfig
from ..engine.event_log import EventLog
from ..engine.file_log import FileLog
from ..engine.worker import Worker
from ..errors import InvalidValueError
from ..recording.scrubbing import scrubbing
from ..stream.address import Address, StreamPath, is_address
from ..stream.stream_log import StreamLog
from .store import Store

# The path of a file and None; or what stands for the path of a stream, and its address.
Place = tuple[Path, Address | None]


class OpenStore:
    """What :func:`open_store` returns: await it, or use it in an ``async with`` block."""

    def __init__(
        self, path: Path, address: Address | None, config: StoreConfig, *, read_only: bool
    ) -> None:
        self._path = path
        self._address = address
        self._config = config
        self._read_only = read_only
        self._store: Store | None = None

    def __repr__(self) -> str:
        how = ", read_only=True" if self._read_only else ""
        call = f"open_store({str(self._path)!r}{how})"
        return f"<{call}: await it, or use it in an async with block>"

    def __await__(self) -> Generator[Any, None, Store]:
        return self._open().__await__()

    async def __aenter__(self) -> Store:
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._store is not None:
            await self._store.aclose()

    async def _open(self) -> Store:
        config, read_only = self._config, self._read_only
        reads = Worker("memvid_async reads")
        try:
            log: EventLog
            if self._address is None:
                log = await FileLog.open(self._path, config, reads, read_only=read_only)
            else:
                # What is acked is in the stream: without a lock, what is not yet appended may have
                # to be decided again. So BUFFERED promises more than it must there.
                config = evolve(config, durability=Durability.SYNC)
                log = await StreamLog.open(self._address, config, reads, read_only=read_only)
        except BaseException:
            reads.stop()
            raise
        store = Store(self._path, log, reads, config, read_only=read_only)
        if config.recording.auto_record and not read_only and not store.is_recording:
            try:
                await store.start_session_if_none()
            except BaseException:
                await store.aclose()
                raise
        return store


def open_store(
    path: str | os.PathLike[str],
    *,
    config: StoreConfig | None = None,
    read_only: bool = False,
) -> OpenStore:
    """Open a file, in an ``async with`` block or by awaiting the call and later ``aclose()``.

    Opening for writing creates a file that does not exist, and cuts a torn tail (see
    :attr:`Store.torn_tail`). ``read_only`` follows a file that others may be writing.

    ``nats://host:4222/NAME`` in place of a path opens a store on a stream of NATS JetStream, with
    the extra ``nats``: the same store, which processes on many machines may write.
    ``docs/streams.md`` says what differs.

    Opening raises

    - :class:`StoreNotFoundError` when there is no file (read-only), or no directory for it;
    - :class:`NotAStoreError` when the path names something else than a store;
    - :class:`UnsupportedVersionError` when this release cannot read the file's format;
    - :class:`CorruptFileError` when bytes that were known to be durable are damaged;
    - :class:`StoreReadOnlyError` when the file may not be written;
    - :class:`StoreLockedError` when another process kept the lock for too long;
    - :class:`StoreFailedError` when the system refuses to read or write, or no server answers.
    """
    where, address = place_of(path)
    if not isinstance(read_only, bool):
        raise InvalidValueError(f"read_only must be a bool, not {read_only!r:.80}")
    if config is not None and not isinstance(config, StoreConfig):
        raise InvalidValueError("config must be a StoreConfig")
    used = config or StoreConfig()
    used = evolve(used, limits=scrubbing(used.limits, used.scrub))
    return OpenStore(where, address, used, read_only=read_only)


def place_of(path: str | os.PathLike[str]) -> Place:
    """Return where a store is.

    :raises InvalidValueError: when it is neither a path nor an address.
    """
    if is_address(path):
        return StreamPath.of(str(path)), Address.parse(str(path))
    try:
        where = Path(os.fspath(path))
        os.fsencode(where)
    except (TypeError, UnicodeEncodeError):
        raise InvalidValueError(f"path must be a str or a path, not {path!r:.80}") from None
    if "\0" in str(where):
        raise InvalidValueError("path holds a NUL character")
    return where.absolute(), None
