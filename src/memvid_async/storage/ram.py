"""A store file in memory, for tests and for folds that need no disk."""

from __future__ import annotations

from ..errors import StoreFailedError


class RamStorage:
    """Bytes in memory that keep the storage contract; ``data`` holds them."""

    def __init__(self, data: bytes = b"", replaces: RamStorage | None = None) -> None:
        self.data = bytearray(data)
        self._replaces = replaces
        self._replaced_by: RamStorage | None = None

    def size(self) -> int:
        """The length in bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """Return a copy of ``length`` bytes from ``offset``; fewer only at the end."""
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes | bytearray) -> None:
        """Write all of ``data`` at ``offset``; a gap before it is filled with zeros."""
        if offset > len(self.data):
            self.data.extend(bytes(offset - len(self.data)))
        self.data[offset : offset + len(data)] = data

    def sync(self) -> None:
        """Do nothing: memory survives no power cut."""

    def sync_directory(self) -> None:
        """Do nothing: memory has no name."""

    def room(self) -> int:
        """Return more than is ever needed: memory that runs out says so itself."""
        return 2**63

    def truncate(self, size: int) -> None:
        """Cut to ``size`` bytes."""
        del self.data[size:]

    def lock(self, timeout: float) -> None:
        """Do nothing: nobody else can open it."""

    def unlock(self) -> None:
        """Do nothing: nobody else can open it."""

    def is_current(self) -> bool:
        """Whether no successor has replaced it."""
        return self._replaced_by is None

    def reopen(self) -> RamStorage:
        """Return the successor that replaced it, or itself."""
        return self if self._replaced_by is None else self._replaced_by.reopen()

    def create_beside(self, suffix: str) -> RamStorage:  # noqa: ARG002 - it has no name
        """Return empty memory that can replace this."""
        return RamStorage(replaces=self)

    def open_beside(self, suffix: str) -> None:
        """Return None: memory that was not installed needs no removal."""

    def install(self) -> None:
        """Replace the memory that this was created beside."""
        if self._replaces is None:
            raise StoreFailedError("the memory was not created to replace another")
        self._replaces._replaced_by = self  # noqa: SLF001 - the same class

    def remove(self) -> None:
        """Do nothing: there is nothing to remove."""

    def retire(self) -> None:
        """Do nothing: there is no lock."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
