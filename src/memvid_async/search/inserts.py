"""Frames on their way into the tables of the search index, many at a time."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from ..events.embeddings import NewEmbedding
from ..events.frames import Version
from .analyser import analyse
from .filters import NO_METADATA, encode_metadata
from .results import IndexedFrame
from .vectors import check_vector

# A batch is full at this many frames, or at this size of texts (characters) and embeddings (bytes).
_MOST_FRAMES = 1000
_MOST_SIZE = 512 * 1024
# A batch of at least this many characters goes in by one statement per table, and other threads
# have the interpreter while it runs. FTS5 writes all that it holds before such a statement. So
# smaller batches, as they come between finds, go in frame by frame and are written with later ones.
_MANY_CHARS = 96 * 1024
# Rows of a plain table that one statement takes: binding its parameters holds the interpreter.
_ROWS_AT_ONCE = 100
_FRAMES = "INSERT INTO frames VALUES "
_FRAME_COLUMNS = 13
_WORDS = "INSERT INTO words (rowid, body, title, tags, uri) VALUES "
_WORD_COLUMNS = 5


class Batch:
    """Frames that go into a search index together, in the order of their ids.

    ``count``: how many. ``vectors``: of each embedding its frame's id, its bytes and its model.

    The frames are kept flat, as the parameters of statements: Python's garbage collector would
    visit a thousand objects of ours again and again.
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
        """Whether the batch has reached its size and is to be put."""
        return self.count >= _MOST_FRAMES or self._chars + self._vector_bytes >= _MOST_SIZE

    def add(self, frame: IndexedFrame, text: str) -> None:
        """Add a frame."""
        frame_id = frame.frame_id
        self._frames += (
            frame_id,
            frame.sequence,
            frame.hint,
            frame.time_ns,
            frame.updated_ns,
            frame.title,
            frame.uri,
            frame.media_type,
            json.dumps(frame.tags, ensure_ascii=False) if frame.tags else None,
            encode_metadata(frame.metadata),
            frame.size,
            frame.embedding_model,
            frame.place,
        )
        self._words += (frame_id, *searchable(frame, text))
        self._tags += [(tag, frame_id) for tag in dict.fromkeys(frame.tags)]
        if frame.embedding is not None:
            self.vectors.append((frame_id, frame.embedding, frame.embedding_model))
            self._vector_bytes += len(frame.embedding)
        self.count += 1
        self._chars += len(text)

    def add_text(self, frame_id: int, version: Version, hint: int, time_ns: int, text: str) -> None:
        """Add a frame that has a text and no other field."""
        sequence, place = version
        size = len(text) if text.isascii() else len(text.encode())
        self._frames += (
            frame_id,
            sequence,
            hint,
            time_ns,
            time_ns,
            None,
            None,
            None,
            None,
            NO_METADATA,
            size,
            None,
            place,
        )
        self._words += (frame_id, analyse(text), None, None, None)
        self.count += 1
        self._chars += size

    def insert(self, database: sqlite3.Connection) -> None:
        """Put the frames into the tables, inside a transaction that the caller began."""
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


def replace_vectors(database: sqlite3.Connection, model: str, made: Iterable[NewEmbedding]) -> None:
    """Remove all embeddings, and put these, where a frame has the version that one is of."""
    database.execute("DELETE FROM vectors")
    database.execute("UPDATE frames SET embedding_model = NULL WHERE embedding_model IS NOT NULL")
    for one in made:
        check_vector(one.vector)
        version = one[:3]
        found = database.execute(
            "INSERT INTO vectors SELECT id, ? FROM frames "
            "WHERE id = ? AND sequence = ? AND place = ?",
            (one.vector, *version),
        )
        if found.rowcount:
            database.execute(
                "UPDATE frames SET embedding_model = ? WHERE id = ?", (model, one.frame_id)
            )


def _insert_together(
    database: sqlite3.Connection, into: str, values: list[Any], columns: int, rows: int
) -> None:
    # Some SQLites take fewer parameters: those before 3.32, and those built that way.
    most = database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // columns
    most = min(rows, most) * columns
    for at in range(0, len(values), most):
        some = values[at : at + most]
        database.execute(into + ", ".join([_row(columns)] * (len(some) // columns)), some)


def _insert_each(database: sqlite3.Connection, into: str, values: list[Any], columns: int) -> None:
    database.executemany(into + _row(columns), zip(*[iter(values)] * columns, strict=True))


def _row(columns: int) -> str:
    return f"({', '.join('?' * columns)})"


def searchable(frame: IndexedFrame, text: str) -> tuple[str | None, ...]:
    """Return the columns of a frame that are searched: its text, title, tags and URI."""
    return (
        analyse(text),
        analyse(frame.title) if frame.title else None,
        analyse(" ".join(frame.tags)) if frame.tags else None,
        analyse(frame.uri) if frame.uri else None,
    )
