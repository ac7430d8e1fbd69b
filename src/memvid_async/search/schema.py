"""The tables of the search index, and the check that a saved image holds exactly these."""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TypeVar

from .analyser import VERSION as ANALYSER_VERSION

# "mva" and a letter.
APPLICATION_ID = 0x6D766169
# It changes when a table or a column changes.
_TABLES_VERSION = 2
PAGE_SIZE = 4096
# The most parameters of one statement: every build of SQLite takes this many.
_PARAMETERS = 900

# They get analysed texts, and split them into terms; ``porter`` stems English words as well.
TOKENIZERS = {"english": "porter ascii", "none": "ascii"}
# The terms of a text depend on the analyser and on Python's Unicode tables, and a row can be
# removed only by the text as it was indexed. So an index that others made is made again.
_MAJOR, _MINOR = map(int, unicodedata.unidata_version.split(".")[:2])
VERSION = _TABLES_VERSION * 10**6 + ANALYSER_VERSION * 10**4 + _MAJOR * 100 + _MINOR

_TABLES = """
CREATE TABLE frames (
  id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, hint INTEGER NOT NULL,
  time_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL, title TEXT, uri TEXT, media_type TEXT,
  tags TEXT, metadata BLOB, size INTEGER NOT NULL, embedding_model TEXT, place INTEGER NOT NULL
) STRICT;
CREATE INDEX frames_uri ON frames (uri) WHERE uri IS NOT NULL;
CREATE TABLE tags (tag TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (tag, id))
  STRICT, WITHOUT ROWID;
CREATE TABLE vectors (id INTEGER PRIMARY KEY, embedding BLOB NOT NULL) STRICT;
CREATE TABLE progress (one INTEGER PRIMARY KEY CHECK (one = 1), through INTEGER NOT NULL) STRICT;
CREATE VIRTUAL TABLE words USING fts5 (
  body, title, tags, uri, content = '', tokenize = '{tokenizer}'
);
"""


T = TypeVar("T")


def parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Iterate over the items in parts, each as long as one statement may take as parameters."""
    return (items[at : at + _PARAMETERS] for at in range(0, len(items), _PARAMETERS))


def connect(file: str | None = None) -> sqlite3.Connection:
    """Connect to a new database in memory, or to a temporary ``file``; for one thread at a time.

    The file may be filled with pages that others made, so its pages are checked when read.
    """
    # Interrupting comes from another thread; all other calls come from one thread at a time.
    connection = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("PRAGMA trusted_schema = OFF")
    # Overwriting deleted rows would change pages that then had to be saved. Purging erases.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    if file is not None:
        connection.execute("PRAGMA cell_size_check = ON")
        # Nobody needs the file after a crash.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def create(language: str) -> sqlite3.Connection:
    """Create a search index without frames."""
    connection = connect()
    connection.executescript(_TABLES.format(tokenizer=TOKENIZERS[language]))
    connection.execute("INSERT INTO progress VALUES (1, 0)")
    # FTS5 keeps its words in segments of its own. With automerge off, it merges them only where
    # there are many, and rewrites a page less than twice between dumps. It writes a new one when
    # hashsize bytes wait.
    connection.execute("INSERT INTO words (words, rank) VALUES ('automerge', 0)")
    connection.execute("INSERT INTO words (words, rank) VALUES ('hashsize', 2097152)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    return connection


def described(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """What distinguishes a schema: its two numbers, and the text of every definition."""
    return [
        *connection.execute("PRAGMA application_id"),
        *connection.execute("PRAGMA user_version"),
        *connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"),
    ]


class OtherReleaseError(ValueError):
    """Another release made a saved index, or this one with another version of Python."""


def check(connection: sqlite3.Connection, create: Callable[[], sqlite3.Connection]) -> None:
    """Refuse a database that this release did not make; ``create`` makes an empty one.

    :raises OtherReleaseError: when another one made it.
    :raises ValueError: when its schema differs, or its structure is damaged.
    """
    with closing(create()) as expected:
        found, wanted = described(connection), described(expected)
    if found[:2] != wanted[:2]:
        raise OtherReleaseError("the saved index is of another release")
    if found != wanted:
        raise ValueError("the saved index has another schema")
    if connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
        raise ValueError("the saved index is damaged")
    if connection.execute("SELECT count(*) FROM progress").fetchone() != (1,):
        raise ValueError("the saved index does not say how far it goes")
