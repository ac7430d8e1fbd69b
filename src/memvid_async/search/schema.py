"""The tables of the memory index, and the proof that a saved image holds just these."""

from __future__ import annotations

import sqlite3

# "mva" and a letter; the version changes when a table, a column or the text that is indexed does.
APPLICATION_ID = 0x6D766169
VERSION = 1
PAGE_SIZE = 4096

TOKENIZERS = {
    "english": "porter unicode61 remove_diacritics 2",
    "none": "unicode61 remove_diacritics 2",
}

_TABLES = """
CREATE TABLE frames (
  id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL, offset INTEGER NOT NULL,
  time_ns INTEGER NOT NULL, updated_ns INTEGER NOT NULL, title TEXT, uri TEXT, media_type TEXT,
  tags TEXT, metadata BLOB, size INTEGER NOT NULL, embedding_model TEXT
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


def connect(file: str | None = None) -> sqlite3.Connection:
    """A connection to an empty database in memory, for one thread at a time; or to a temporary
    ``file``, which may come to hold what others made."""
    # Interrupting comes from another thread; everything else from one at a time.
    connection = sqlite3.connect(file or ":memory:", isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
    connection.execute("PRAGMA trusted_schema = OFF")
    # A page that is given back need not be saved once more; purging is what erases.
    connection.execute("PRAGMA secure_delete = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    if file is not None:
        connection.execute("PRAGMA cell_size_check = ON")
        # Nobody needs it after a crash.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def create(language: str) -> sqlite3.Connection:
    """A new index without frames."""
    connection = connect()
    connection.executescript(_TABLES.format(tokenizer=TOKENIZERS[language]))
    connection.execute("INSERT INTO progress VALUES (1, 0)")
    # Merging only where there are many segments rewrites a page less than twice between dumps;
    # segments are written when so many bytes wait.
    connection.execute("INSERT INTO words (words, rank) VALUES ('automerge', 0)")
    connection.execute("INSERT INTO words (words, rank) VALUES ('hashsize', 2097152)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    return connection


def described(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    """What tells one schema from another: the two numbers, and every definition's text."""
    return [
        *connection.execute("PRAGMA application_id"),
        *connection.execute("PRAGMA user_version"),
        *connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"),
    ]


def check(connection: sqlite3.Connection, language: str) -> None:
    """Refuse a database that this release did not make.

    :raises ValueError: when its schema is another one, or its structure is damaged.
    """
    if described(connection) != _expected(language):
        raise ValueError("the saved index has another schema")
    if connection.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
        raise ValueError("the saved index is damaged")
    if connection.execute("SELECT count(*) FROM progress").fetchone() != (1,):
        raise ValueError("the saved index does not say how far it goes")


def _expected(language: str) -> list[tuple[object, ...]]:
    connection = create(language)
    try:
        return described(connection)
    finally:
        connection.close()
