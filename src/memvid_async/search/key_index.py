"""The keys of all collections as folded so far: what each holds, and where in the log it is.

Rules for its caller: pass it every change in the order of the log, then set
:attr:`~KeyIndex.through`. The values themselves are not here; a *hint* finds them. After an error
of a change, throw the index away and fold it again. Use it from one thread at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .conditions import where_sql
from .saved_database import DamagedSearchIndexError, SavedDatabase
from .schema import connect

# "mvk" and a letter.
_APPLICATION_ID = 0x6D766B61
# It changes when a table or a column changes.
_VERSION = 1
# An event has fewer changes than this: the sequence and the place make the number of a list.
_PLACES = 2**20

_TABLES = """
CREATE TABLE keys (
  collection INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL,
  time_ns INTEGER NOT NULL, hint INTEGER NOT NULL, place INTEGER NOT NULL, expires_ns INTEGER,
  metadata TEXT, list INTEGER, length INTEGER, PRIMARY KEY (collection, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE items (
  list INTEGER NOT NULL, n INTEGER NOT NULL, sequence INTEGER NOT NULL, hint INTEGER NOT NULL,
  place INTEGER NOT NULL, item INTEGER NOT NULL, hash BLOB NOT NULL, PRIMARY KEY (list, n)
) STRICT, WITHOUT ROWID;
CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), through INTEGER NOT NULL) STRICT;
"""
_COLUMNS = "key, version, time_ns, hint, place, expires_ns, list, length"
_SET = "INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# At most this many values wait to go into the table together.
_MOST_WAITING = 256
_METADATA = "coalesce(metadata, '{}')"
_ALIVE = "(expires_ns IS NULL OR expires_ns > ?)"


class Change(NamedTuple):
    """Where a change is: the sequence and the time of its event, the event's hint, its place."""

    sequence: int
    time_ns: int
    hint: int
    place: int


class KeptKey(NamedTuple):
    """What the index keeps of a key. ``length``: of a list; None for a value."""

    key: str
    version: int
    time_ns: int
    hint: int
    place: int
    expires_ns: int | None
    list: int | None
    length: int | None


class KeptItem(NamedTuple):
    """Where an item of a list is: in which event, which change of it and which of its items."""

    sequence: int
    hint: int
    place: int
    item: int
    hash: bytes


def create_keys() -> sqlite3.Connection:
    """Create an index without keys."""
    connection = connect()
    connection.executescript(_TABLES)
    connection.execute("INSERT INTO progress VALUES (1, 0)")
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
    return connection


class KeyIndex(SavedDatabase):
    """The keys up to one sequence, in order, in memory."""

    _CONTENTS = (
        "SELECT through FROM progress",
        "SELECT * FROM keys ORDER BY collection, key",
        "SELECT * FROM items ORDER BY list, n",
    )

    def __init__(self) -> None:
        super().__init__(create_keys)
        # Rows of values that were put: many go into the table by one statement.
        self._waiting: list[tuple[Any, ...]] = []

    def _run(self, statement: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, parameters)
        except (sqlite3.DatabaseError, OverflowError) as error:
            raise DamagedSearchIndexError(str(error)) from error

    def _run_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except (sqlite3.DatabaseError, OverflowError) as error:
            raise DamagedSearchIndexError(str(error)) from error

    # What the fold calls.

    def put(
        self, collection: int, key: str, at: Change, expires_ns: int | None, metadata: str | None
    ) -> None:
        """Let a key hold a value. It may wait until :meth:`put_waiting`, or another change.

        A key that held a list needs :meth:`drop_list` before.
        """
        self._waiting.append((collection, key.encode(), *at, expires_ns, metadata, None, None))
        if len(self._waiting) >= _MOST_WAITING:
            self.put_waiting()

    def put_waiting(self) -> None:
        """Put the values that wait."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._begin()
            self._run_many(_SET, waiting)

    def renew(self, collection: int, key: str, expires_ns: int) -> None:
        """Let a value expire at another time."""
        self.put_waiting()
        self._begin()
        self._run(
            "UPDATE keys SET expires_ns = ? WHERE collection = ? AND key = ? AND list IS NULL",
            (expires_ns, collection, key.encode()),
        )

    def delete(self, collection: int, key: str) -> None:
        """Delete a key, if it is there."""
        self.drop_list(collection, key)
        where = (collection, key.encode())
        self._run("DELETE FROM keys WHERE collection = ? AND key = ?", where)

    def delete_prefix(self, collection: int, prefix: str) -> None:
        """Delete every key that begins so."""
        self.put_waiting()
        self._begin()
        condition, parameters = _range(prefix)
        found = f"FROM keys WHERE collection = ? AND {condition}"
        values = (collection, *parameters)
        self._run(
            f"DELETE FROM items WHERE list IN (SELECT list {found} AND list IS NOT NULL)",  # noqa: S608 - only names of columns
            values,
        )
        self._run(f"DELETE {found}", values)

    def change_list(
        self,
        collection: int,
        key: str,
        at: Change,
        first: int,
        count: int | None,
        hashes: Sequence[bytes],
    ) -> None:
        """Let a list keep ``count`` items from ``first`` on (None: all), and get more."""
        self.put_waiting()
        self._begin()
        run = self._run
        held = self.get(collection, key, -(2**63))
        number, start, end = at.sequence * _PLACES + at.place, 0, 0
        if held is not None and held.list is not None:
            number, length = held.list, held.length or 0
            # The list may have lost items at its beginning: the first number is not always 0.
            (begin,) = run("SELECT min(n) FROM items WHERE list = ?", (number,)).fetchone()
            start = (begin or 0) + min(first, length)
            end = (begin or 0) + (length if count is None else min(first + count, length))
            end = max(start, end)
            run("DELETE FROM items WHERE list = ? AND (n < ? OR n >= ?)", (number, start, end))
        self._run_many(
            "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (number, end + item, at.sequence, at.hint, at.place, item, hashed)
                for item, hashed in enumerate(hashes)
            ],
        )
        length = end - start + len(hashes)
        run(_SET, (collection, key.encode(), *at, None, None, number, length))

    def drop_list(self, collection: int, key: str) -> None:
        """Remove the items of a key's list, if it holds one."""
        self.put_waiting()
        self._begin()
        found = self._run(
            "SELECT list FROM keys WHERE collection = ? AND key = ?", (collection, key.encode())
        ).fetchone()
        if found is not None and found[0] is not None:
            self._run("DELETE FROM items WHERE list = ?", found)

    # Looking.

    @property
    def count(self) -> int:
        """How many keys there are, with those that have expired."""
        (count,) = self._run("SELECT count(*) FROM keys").fetchone()
        return int(count)

    def get(self, collection: int, key: str, now: int) -> KeptKey | None:
        """Return what is kept of a key; None when it is not there at the time ``now``."""
        found = self._run(
            f"SELECT {_COLUMNS} FROM keys WHERE collection = ? AND key = ? AND {_ALIVE}",  # noqa: S608 - as above
            (collection, key.encode(), now),
        ).fetchone()
        return None if found is None else _kept(found)

    def items(
        self, number: int, first: int = 0, count: int | None = None, *, last: bool = False
    ) -> list[KeptItem]:
        """Return where the items of a list are, from ``first`` on; ``last``: its last ``count``."""
        found = self._run(
            "SELECT sequence, hint, place, item, hash FROM items WHERE list = ? "  # noqa: S608 - as above
            f"ORDER BY n {'DESC' if last else 'ASC'} LIMIT ? OFFSET ?",
            (number, -1 if count is None else count, first),
        ).fetchall()
        kept = [KeptItem(*row) for row in found]
        return kept[::-1] if last else kept

    def scan(
        self,
        collection: int,
        prefix: str,
        now: int,
        *,
        after: str | None,
        reverse: bool,
        limit: int,
        where: Any = None,
    ) -> list[KeptKey]:
        """Return up to ``limit`` keys that begin so, in order; only those after ``after`` in that
        order.

        :raises InvalidValueError: when ``where`` is not a map of conditions.
        """
        condition, parameters = _range(prefix)
        if after is not None:
            condition += f" AND key {'<' if reverse else '>'} ?"
            parameters.append(after.encode())
        if where is not None:
            asked, more = where_sql(where, _METADATA)
            condition += f" AND {asked}"
            parameters += more
        found = self._run(
            f"SELECT {_COLUMNS} FROM keys WHERE collection = ? AND {condition} AND {_ALIVE} "  # noqa: S608 - as above
            f"ORDER BY key {'DESC' if reverse else 'ASC'} LIMIT ?",
            (collection, *parameters, now, limit),
        )
        return [_kept(row) for row in found]

    def expired(self, collection: int, now: int, limit: int) -> list[str]:
        """Return up to ``limit`` keys that have expired by the time ``now``."""
        found = self._run(
            "SELECT key FROM keys WHERE collection = ? AND expires_ns <= ? LIMIT ?",
            (collection, now, limit),
        )
        return [key.decode() for (key,) in found]

    def newest(self, collection: int, now: int, where: Any = None) -> list[KeptKey]:
        """Return all keys, those that changed last first.

        :raises InvalidValueError: when ``where`` is not a map of conditions.
        """
        condition, parameters = ("1", []) if not where else where_sql(where, _METADATA)
        found = self._run(
            f"SELECT {_COLUMNS} FROM keys WHERE collection = ? AND {condition} AND {_ALIVE} "  # noqa: S608 - as above
            "ORDER BY version DESC, place DESC",
            (collection, *parameters, now),
        )
        return [_kept(row) for row in found]

    def prefixes(self, collection: int, depth: int, prefix: str, now: int) -> Iterator[str]:
        """Iterate over the distinct beginnings of keys, of up to ``depth`` parts split at "/".

        It skips from one beginning to the next, and the keys between cost nothing.
        """
        condition, parameters = _range(prefix)
        least, seen = b"", set[str]()
        while True:
            found = self._run(
                f"SELECT key FROM keys WHERE collection = ? AND {condition} AND key >= ? "  # noqa: S608 - as above
                f"AND {_ALIVE} ORDER BY key LIMIT 1",
                (collection, *parameters, least, now),
            ).fetchone()
            if found is None:
                return
            parts = found[0].split(b"/")
            begin = b"/".join(parts[:depth])
            # After all keys that begin so and have more parts; "0" follows "/".
            least = begin + b"0" if len(parts) > depth else found[0] + b"\0"
            text = begin.decode()
            if text not in seen:
                seen.add(text)
                yield text


def _kept(row: Sequence[Any]) -> KeptKey:
    return KeptKey(row[0].decode(), *row[1:])


def _range(prefix: str) -> tuple[str, list[Any]]:
    """Return the condition that a key begins so, by the order of UTF-8."""
    low = prefix.encode()
    if not low:
        return "1", []
    # UTF-8 has no byte 255.
    return "key >= ? AND key < ?", [low, low[:-1] + bytes((low[-1] + 1,))]
