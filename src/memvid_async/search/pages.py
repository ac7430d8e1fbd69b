"""A database as numbered pages: which of them changed since they were last saved."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from mmap import ACCESS_READ, mmap
from pathlib import Path
from tempfile import NamedTemporaryFile

from attrs import frozen

from ..events.pace import unhurried
from .schema import PAGE_SIZE, connect

Page = bytes | memoryview
# So many pages are written at once.
_PAGES_AT_ONCE = 64
# Where a header says how the database is to be written and read: 1 is without a write-ahead log,
# which would be a file of its own (SQLite's "Database File Format", 1.3.3).
_VERSIONS = slice(18, 20)


@frozen
class Dump:
    """The pages that changed since the last dump, in order, and how many there are now.

    A page is ``PAGE_SIZE`` bytes; numbers count from 0. Pages at or above ``page_count`` are gone.
    """

    page_count: int
    pages: list[tuple[int, bytes]]


class Image:
    """A database in a temporary file that nobody else can open.

    ``sqlite3`` can hand over a database in memory, or take one, as one piece only, and holds the
    interpreter while it copies that. From and to a file it copies in the background.

    :raises OSError: there is no room for one.
    """

    def __init__(self) -> None:
        # Apple's SQLite minds a file whose name goes while it is open.
        keeps_name = sys.platform == "darwin"
        self._stack = ExitStack()
        with ExitStack() as stack:
            file = NamedTemporaryFile(prefix="memvid_async-", delete=keeps_name)  # noqa: SIM115
            self._file = stack.enter_context(file)
            try:
                self.connection = stack.enter_context(closing(connect(file.name)))
            except sqlite3.Error as error:
                raise OSError(f"no temporary database: {error}") from error
            finally:
                if not keeps_name:
                    Path(file.name).unlink()
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Give the room back."""
        self._stack.close()

    def __del__(self) -> None:
        # Of a store that was dropped without being closed.
        self._stack.close()

    def pages(self) -> Iterator[memoryview]:
        """Every page, in order."""
        whole = memoryview(mmap(self._file.fileno(), 0, access=ACCESS_READ))
        for at in range(0, len(whole), PAGE_SIZE):
            yield whole[at : at + PAGE_SIZE]

    def write(self, pages: Sequence[Page]) -> None:
        """Become the database of these pages.

        :raises ValueError: when it would need more than the one file.
        """
        if pages[0][_VERSIONS] != b"\1\1":
            raise ValueError("the saved index is not one file")
        for at in range(0, len(pages), _PAGES_AT_ONCE):
            self._file.write(b"".join(pages[at : at + _PAGES_AT_ONCE]))
        self._file.flush()
        # Read without a system call for each of them.
        self.connection.execute(f"PRAGMA mmap_size = {len(pages) * PAGE_SIZE}")


class SavedPages:
    """Remembers what was saved, by hash."""

    def __init__(self) -> None:
        self._hashes: list[int] = []

    def forget(self) -> None:
        """The next dump holds every page."""
        self._hashes = []

    def remember(self, pages: Iterable[Page]) -> None:
        """From here on these pages, all there are, count as saved."""
        # Of this process alone, and keyed: nobody can make two pages look the same. hashlib would
        # let the interpreter go, and wait to get it back, for each of thousands of pages.
        self._hashes = [hash(page) for page in unhurried(pages)]

    def changed(self, pages: Iterable[Page]) -> Dump:
        """What to save of these pages, all there are; from here on they count as saved."""
        known, self._hashes = self._hashes, []
        changed: list[tuple[int, bytes]] = []
        for number, page in enumerate(unhurried(pages)):
            digest = hash(page)
            self._hashes.append(digest)
            if number >= len(known) or known[number] != digest:
                changed.append((number, bytes(page)))
        return Dump(len(self._hashes), changed)


def complete(page_count: int, pages: Iterable[tuple[int, Page]], most_bytes: int) -> list[Page]:
    """These pages in the order of their numbers; of one given twice, the last counts.

    :raises ValueError: when one is missing, of another size or out of range, or the whole is
        larger than ``most_bytes``.
    """
    if not 0 < page_count <= most_bytes // PAGE_SIZE:
        raise ValueError(f"a saved index of {page_count} pages")
    found: dict[int, Page] = {}
    for number, page in pages:
        if len(page) != PAGE_SIZE:
            raise ValueError("a page of another size")
        if 0 <= number < page_count:
            found[number] = page
    if len(found) != page_count:
        raise ValueError("a page of the saved index is missing")
    return [found[number] for number in range(page_count)]
