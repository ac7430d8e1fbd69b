"""A database as numbered pages: which of them changed since they were last saved."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from attrs import frozen

from ..pace import unhurried
from .schema import PAGE_SIZE


@frozen
class Dump:
    """The pages that changed since the last dump, in order, and how many there are now.

    A page is ``PAGE_SIZE`` bytes; numbers count from 0. Pages at or above ``page_count`` are gone.
    """

    page_count: int
    pages: list[tuple[int, bytes]]


class SavedPages:
    """Remembers what was saved, by hash."""

    def __init__(self) -> None:
        self._hashes: list[int] = []

    def forget(self) -> None:
        """The next dump holds every page."""
        self._hashes = []

    def remember(self, image: bytes) -> None:
        """From here on this image counts as saved."""
        view = memoryview(image)
        # Of this process alone, and keyed: nobody can make two pages look the same. hashlib would
        # let the interpreter go, and wait to get it back, for each of thousands of pages.
        places = unhurried(range(0, len(image), PAGE_SIZE))
        self._hashes = [hash(view[at : at + PAGE_SIZE]) for at in places]

    def changed(self, image: bytes) -> Dump:
        """What to save of this image; from here on it counts as saved."""
        known = self._hashes
        self.remember(image)
        pages = [
            (number, image[number * PAGE_SIZE : (number + 1) * PAGE_SIZE])
            for number, digest in enumerate(self._hashes)
            if number >= len(known) or known[number] != digest
        ]
        return Dump(len(self._hashes), pages)


def assemble(
    page_count: int, pages: Iterable[tuple[int, bytes | memoryview]], most_bytes: int
) -> bytes:
    """The image that these pages make; of a page given twice, the last counts.

    :raises ValueError: when one is missing, of another size or out of range, or the whole is
        larger than ``most_bytes``.
    """
    if not 0 < page_count <= most_bytes // PAGE_SIZE:
        raise ValueError(f"a saved index of {page_count} pages")
    found: dict[int, bytes | memoryview] = {}
    for number, page in pages:
        if len(page) != PAGE_SIZE:
            raise ValueError("a page of another size")
        if 0 <= number < page_count:
            found[number] = page
    if len(found) != page_count:
        raise ValueError("a page of the saved index is missing")
    return b"".join(found[number] for number in range(page_count))


def open_image(connection: sqlite3.Connection, image: bytes) -> None:
    """Load an image into a connection.

    :raises ValueError: when it is not a database.
    """
    try:
        connection.deserialize(image)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except sqlite3.Error as error:
        raise ValueError(f"the saved index is not a database: {error}") from None
