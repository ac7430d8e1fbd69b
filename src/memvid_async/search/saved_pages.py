"""A database as numbered pages, and which of them changed since the last save."""

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
# Pages that one call writes.
_PAGES_AT_ONCE = 64
# The bytes of a database's header that say how to write and to read it. 1 means without a
# write-ahead log, which would be a second file (SQLite's "Database File Format", 1.3.3).
_VERSIONS = slice(18, 20)


@frozen
class Dump:
    """The pages that changed since the last dump. A page has ``PAGE_SIZE`` bytes."""

    page_count: int
    """How many pages the database has now. Pages with this number or a higher one are gone."""
    pages: list[tuple[int, bytes]]
    """The changed pages, each with its number, which counts from 0; in order."""


class Image:
    """A database in a temporary file that nobody else can open.

    ``sqlite3`` serializes and deserializes a database in memory only in one piece, and holds the
    interpreter during that copy. From and to a file it copies without holding the interpreter.

    :raises OSError: when there is no room for the file.
    """

    def __init__(self) -> None:
        # Apple's SQLite reports an error when the name of an open file is removed.
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
        """Remove the file."""
        self._stack.close()

    def __del__(self) -> None:
        # For a store that was dropped without being closed.
        self._stack.close()

    def pages(self) -> Iterator[memoryview]:
        """Iterate over all pages, in order."""
        whole = memoryview(mmap(self._file.fileno(), 0, access=ACCESS_READ))
        for at in range(0, len(whole), PAGE_SIZE):
            yield whole[at : at + PAGE_SIZE]

    def write(self, pages: Sequence[Page]) -> None:
        """Fill the file with these pages, which make a whole database.

        :raises ValueError: when that database would need more than one file.
        """
        if pages[0][_VERSIONS] != b"\1\1":
            raise ValueError("the saved index is not one file")
        for at in range(0, len(pages), _PAGES_AT_ONCE):
            self._file.write(b"".join(pages[at : at + _PAGES_AT_ONCE]))
        self._file.flush()
        # Mapped pages are read without a system call for each.
        self.connection.execute(f"PRAGMA mmap_size = {len(pages) * PAGE_SIZE}")


class SavedPages:
    """The pages as last saved, remembered by their hashes."""

    def __init__(self) -> None:
        self._hashes: list[int] = []

    def forget(self) -> None:
        """Let the next dump hold every page."""
        self._hashes = []

    def remember(self, pages: Iterable[Page]) -> None:
        """Count these pages, which are all there are, as saved."""
        # Python's hash is keyed for each process, so nobody can make two pages look the same.
        # hashlib would release the interpreter, and wait to get it back, for each of thousands of
        # pages.
        self._hashes = [hash(page) for page in unhurried(pages)]

    def changed(self, pages: Iterable[Page]) -> Dump:
        """Return which of these pages, which are all there are, to save; count them as saved."""
        known, self._hashes = self._hashes, []
        changed: list[tuple[int, bytes]] = []
        for number, page in enumerate(unhurried(pages)):
            digest = hash(page)
            self._hashes.append(digest)
            if number >= len(known) or known[number] != digest:
                changed.append((number, bytes(page)))
        return Dump(len(self._hashes), changed)


def complete(page_count: int, pages: Iterable[tuple[int, Page]], most_bytes: int) -> list[Page]:
    """Return the pages in the order of their numbers; of a page that comes twice, the last counts.

    :raises ValueError: when a page is missing, of another size or out of range, or all of them are
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
