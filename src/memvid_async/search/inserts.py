"""Frames on their way into the tables of the memory index, many at a time."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from .filters import NO_METADATA, encode_metadata
from .query import spaced
from .results import IndexedFrame

# A batch takes so many frames, or so much of texts and embeddings.
_MOST_FRAMES = 1000
_MOST_SIZE = 512 * 1024
# With so many characters it goes in by one statement a table: another thread has the interpreter
# for all of it. FTS5 writes what it holds before such a statement, so fewer, as they come between
# finds, go in one by one and wait to be written with others.
_MANY_CHARS = 96 * 1024
# Giving a statement its parameters holds the interpreter: so many rows of a plain table at once.
_ROWS_AT_ONCE = 100
_FRAMES = "INSERT INTO frames VALUES "
_FRAME_COLUMNS = 12
_WORDS = "INSERT INTO words (rowid, body, title, tags, uri) VALUES "
_WORD_COLUMNS = 5


class Batch:
    """Frames that are put into an index together, in the order of their ids.

    Kept as the parameters of statements, flat: a thousand objects of ours would be looked at again
    and again by Python's garbage collector.
    """

    def __init__(self) -> None:
        self.count = 0
        self.vectors: list[tuple[int, bytes, str | None]] = []
        self._tags: list[tuple[str, int]] = []
        self._frames: list[Any] = []
        self._words: list[Any] = []
        self._chars = 0
        self._vector_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to put it."""
        return self.count >= _MOST_FRAMES or self._chars + self._vector_bytes >= _MOST_SIZE

    def add(self, row: IndexedFrame, text: str) -> None:
        """Add a frame."""
        frame_id = row.frame_id
        self._frames += (
            frame_id,
            row.sequence,
            row.offset,
            row.time_ns,
            row.updated_ns,
            row.title,
            row.uri,
            row.media_type,
            json.dumps(row.tags, ensure_ascii=False) if row.tags else None,
            encode_metadata(row.metadata),
            row.size,
            row.embedding_model,
        )
        self._words += (frame_id, *searchable(row, text))
        self._tags += [(tag, frame_id) for tag in dict.fromkeys(row.tags)]
        if row.embedding is not None:
            self.vectors.append((frame_id, row.embedding, row.embedding_model))
            self._vector_bytes += len(row.embedding)
        self.count += 1
        self._chars += len(text)

    def add_text(self, frame_id: int, sequence: int, offset: int, time_ns: int, text: str) -> None:
        """Add a frame that is its text and nothing else."""
        size, words = len(text), text
        if not text.isascii():
            size, words = len(text.encode()), spaced(text)
        self._frames += (
            frame_id,
            sequence,
            offset,
            time_ns,
            time_ns,
            None,
            None,
            None,
            None,
            NO_METADATA,
            size,
            None,
        )
        self._words += (frame_id, words, None, None, None)
        self.count += 1
        self._chars += size

    def insert(self, database: sqlite3.Connection) -> None:
        """Put the frames into the tables, in a transaction that is under way."""
        if self._chars >= _MANY_CHARS:
            _insert_together(database, _FRAMES, self._frames, _FRAME_COLUMNS, _ROWS_AT_ONCE)
            _insert_together(database, _WORDS, self._words, _WORD_COLUMNS, self.count)
        else:
            _insert_each(database, _FRAMES, self._frames, _FRAME_COLUMNS)
            _insert_each(database, _WORDS, self._words, _WORD_COLUMNS)
        if self._tags:
            database.executemany("INSERT INTO tags VALUES (?, ?)", self._tags)
        if self.vectors:
            vectors = [(frame_id, vector) for frame_id, vector, _ in self.vectors]
            database.executemany("INSERT INTO vectors VALUES (?, ?)", vectors)


def _insert_together(
    database: sqlite3.Connection, into: str, values: list[Any], columns: int, rows: int
) -> None:
    # An SQLite may take fewer parameters (before 3.32, or built so).
    most = database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // columns
    most = min(rows, most) * columns
    for at in range(0, len(values), most):
        some = values[at : at + most]
        database.execute(into + ", ".join([_row(columns)] * (len(some) // columns)), some)


def _insert_each(database: sqlite3.Connection, into: str, values: list[Any], columns: int) -> None:
    database.executemany(into + _row(columns), zip(*[iter(values)] * columns, strict=True))


def _row(columns: int) -> str:
    return f"({', '.join('?' * columns)})"


def searchable(row: IndexedFrame, text: str) -> tuple[str | None, ...]:
    """The columns of a frame that are searched: its text, title, tags and URI."""
    return (
        spaced(text),
        spaced(row.title) if row.title else None,
        spaced(" ".join(row.tags)) if row.tags else None,
        spaced(row.uri) if row.uri else None,
    )
