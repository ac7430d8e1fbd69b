"""A stream to which another store's log is copied."""

from __future__ import annotations

from ..config import StoreConfig
from ..errors import StoreFailedError
from ..file.file_view import FileView
from ..format.header import Header
from .address import Address
from .client_loop import ClientLoop
from .stream_journal import StreamJournal


class StreamTarget:
    """A :class:`..file.byte_copy.CopyTarget` that is a stream. Made by :meth:`open`."""

    def __init__(self, journal: StreamJournal) -> None:
        self._journal = journal

    @classmethod
    def open(
        cls, address: Address, config: StoreConfig, header: Header, loop: ClientLoop
    ) -> StreamTarget:
        """Open the stream; one that is not there is created with this header.

        :raises MemvidAsyncError: as :func:`memvid_async.open_store` says.
        """
        return cls(StreamJournal.open(address, config, read_only=False, header=header, loop=loop))

    @property
    def view(self) -> FileView:
        """See :class:`..file.byte_copy.CopyTarget`, for this and the others."""
        return self._journal.view

    def extend(self, data: bytes, toc: tuple[int, int] | None) -> None:
        """Append whole segments, as one batch."""
        if not self._journal.extend(data, toc):
            raise StoreFailedError("somebody else appended to the target while it was copied to")

    def finish(self) -> None:
        """Do nothing: each message says where the newest TOC is."""

    def release(self) -> None:
        """Disconnect."""
        self._journal.release()
