"""A store file in memory, for tests and for folds that need no disk."""

from __future__ import annotations


class RamStorage:
    """Bytes in memory behind the storage contract."""

    def __init__(self, data: bytes = b"", replaces: RamStorage | None = None) -> None:
        self.data = bytearray(data)
        self._replaces = replaces
        self._replaced_by: RamStorage | None = None

    def size(self) -> int:
        """The length in bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """A copy of the bytes asked for, as far as there are any."""
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Put the bytes in place, zeros before them where the data was shorter."""
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Memory survives nothing; there is nothing to do."""

    def sync_directory(self) -> None:
        """Memory has no names."""

    def truncate(self, size: int) -> None:
        """Cut to ``size`` bytes."""
        del self.data[size:]

    def lock(self, timeout: float) -> None:
        """Nobody else can open it."""

    def unlock(self) -> None:
        """Nobody else can open it."""

    def is_current(self) -> bool:
        """Whether no successor was installed in its place."""
        return self._replaced_by is None

    def reopen(self) -> RamStorage:
        """What was installed in its place, or itself."""
        return self if self._replaced_by is None else self._replaced_by.reopen()

    def successor(self) -> RamStorage:
        """Empty memory that can take the place of this."""
        return RamStorage(replaces=self)

    def install(self) -> None:
        """Take the place of what this is the successor of."""
        if self._replaces is not None:
            self._replaces._replaced_by = self  # noqa: SLF001 - the same class

    def discard_successor(self) -> None:
        """A successor that was not installed is gone by itself."""

    def close(self) -> None:
        """There is nothing to release."""
