"""What of a response is beyond what its recording keeps, in a file until the client has read it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import IO

from anyio import to_thread

_PIECE = 64 * 1024


class Overflow:
    """Bytes in a temporary file that has no name, so that nothing is left of it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added."""
        return self._file is None

    async def add(self, part: bytes) -> None:
        """Add bytes."""
        await to_thread.run_sync(self._add, part)

    def _add(self, part: bytes) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - close() does it
        self._file.write(part)

    def pieces(self) -> Iterator[bytes]:
        """Yield all bytes, piece by piece, and close the file."""
        try:
            self._rewind()
            while piece := self._read():
                yield piece
        finally:
            self.close()

    async def pieces_in_threads(self) -> AsyncIterator[bytes]:
        """Do what :meth:`pieces` does, reading in threads."""
        try:
            self._rewind()
            while piece := await to_thread.run_sync(self._read):
                yield piece
        finally:
            self.close()

    def _rewind(self) -> None:
        if self._file is not None:
            self._file.seek(0)

    def _read(self) -> bytes:
        return b"" if self._file is None else self._file.read(_PIECE)

    def close(self) -> None:
        """Close the file; what is in it is gone."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
