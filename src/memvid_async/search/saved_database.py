"""A database in main memory that holds a projection, and is saved as the pages that changed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import ClassVar

from ..events.pace import unhurried
from .saved_pages import Dump, Image, SavedPages, complete
from .schema import check, connect


class DamagedSearchIndexError(Exception):
    """An index contradicts itself; fold it again from the events."""


class SavedDatabase:
    """What the indexes of projections have in common: one SQLite database each, in main memory.

    ``create`` makes an empty one; its table ``progress`` has one row, for :attr:`through`: the
    sequence of the last event folded, which the caller sets and a dump saves. ``_CONTENTS``: reads
    all that it holds, in an order that does not depend on the pages.
    """

    _CONTENTS: ClassVar[tuple[str, ...]] = ()

    def __init__(self, create: Callable[[], sqlite3.Connection]) -> None:
        self._create = create
        self._saved = SavedPages()
        self._image: Image | None = None
        self._start(create())

    def _start(self, database: sqlite3.Connection) -> None:
        self._database = database
        (self.through,) = database.execute("SELECT through FROM progress").fetchone()

    def close(self) -> None:
        """Release everything. It cannot be used afterwards."""
        self.rest()
        self._database.close()

    def clear(self) -> None:
        """Remove everything: it is as new."""
        self._database.close()
        self._start(self._create())
        self._saved.forget()

    def _begin(self) -> None:
        # One transaction lasts from dump to dump, so that FTS5 writes in large pieces. A find
        # inside it need not begin and end a transaction for each row that it scores.
        if not self._database.in_transaction:
            self._database.execute("BEGIN")

    @property
    def page_count(self) -> int:
        """How many pages it has."""
        (count,) = self._database.execute("PRAGMA page_count").fetchone()
        return int(count)

    def dump(self) -> Dump:
        """Return what to save: the pages that changed since the last dump or load, and the first.

        :raises OSError: when there is no room for a temporary file; then nothing has changed.
        """
        self._commit()
        # The same file is overwritten by each dump: a new file would take as long again.
        self._image = self._image or Image()
        try:
            self._database.backup(self._image.connection)
        except sqlite3.Error as error:
            self.rest()
            raise OSError(f"the index was not copied: {error}") from error
        return self._saved.changed(self._image.pages())

    def _commit(self) -> None:
        self._begin()
        self._database.execute("UPDATE progress SET through = ?", (self.through,))
        self._database.execute("COMMIT")

    def digest(self) -> bytes:
        """Return a hash (BLAKE2b-256) of all that it holds, in whichever pages that is.

        :raises DamagedSearchIndexError: when it cannot be read.
        """
        found = hashlib.blake2b(digest_size=32)
        try:
            self._commit()
            for statement in self._CONTENTS:
                for row in unhurried(self._database.execute(statement)):
                    found.update(repr(row).encode())
        except (sqlite3.DatabaseError, OverflowError) as error:
            raise DamagedSearchIndexError(str(error)) from error
        return found.digest()

    def rest(self) -> None:
        """Release what the last dump took, because no dump will follow soon."""
        image, self._image = self._image, None
        if image is not None:
            image.close()

    def forget_saved(self) -> None:
        """Let the next dump hold every page."""
        self._saved.forget()

    def load(
        self,
        page_count: int,
        pages: Iterable[tuple[int, bytes | memoryview]],
        *,
        most_bytes: int = 2**30,
    ) -> None:
        """Become what these pages hold. If a page comes twice, the last one is used.

        :raises ValueError: when the pages are not such a database of this release; then it is as it
            was.
        :raises OSError: when there is no room for a temporary file; then it is as it was.
        """
        whole = complete(page_count, pages, most_bytes)
        database = connect()
        try:
            with closing(Image()) as image:
                image.write(whole)
                check(image.connection, self._create)
                image.connection.backup(database)
        except (sqlite3.Error, TypeError) as error:
            database.close()
            raise ValueError(f"the saved index is damaged: {error}") from None
        except BaseException:
            database.close()
            raise
        self._database.close()
        self._start(database)
        self._saved.remember(whole)
