"""The search index: the frames as folded so far, searchable by words, by vectors and by both.

Rules for its caller:

- Pass it every frame event in the order of the log: :meth:`SearchIndex.put` (or many as a
  :class:`Batch` to :meth:`~SearchIndex.put_many`), :meth:`~SearchIndex.update` and
  :meth:`~SearchIndex.delete`. Then set :attr:`~SearchIndex.through` to the event's sequence. The
  next find sees the change; there is nothing to commit.
- The index keeps no text. It calls ``read_text(hint, version, media_type)`` for snippets, and
  the caller passes the old text when a frame changes or goes. That must be exactly the text that
  was indexed. Bytes without a text media type have the text "".
- :meth:`~SearchIndex.dump` returns the pages that changed, and :meth:`~SearchIndex.load` takes
  pages. The bytes depend on the moment of a dump. So the log must determine that moment, not the
  clock.
- After any exception of a write, and after :class:`DamagedSearchIndexError` of any call, throw the
  index away and fold it again from the events.
- Use it from one thread at a time. Only :meth:`~SearchIndex.interrupt`, which stops a find, may be
  called from any thread.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from typing import Any

from ..errors import InvalidValueError
from ..events.embeddings import NewEmbedding
from ..events.frames import SearchMode, Version
from ..events.values import decode_value
from .agreement import check_frames
from .approximate import ApproximateVectors, is_installed
from .filters import HAS_METADATA, Conditions, Filters, conditions, has_metadata
from .fusion import fuse, in_order
from .inserts import Batch, replace_vectors, searchable
from .query import Query, parse
from .results import Found, FramePlace, IndexedFrame
from .saved_database import DamagedSearchIndexError, SavedDatabase
from .schema import create, parts
from .snippets import Snippets
from .vectors import ExactVectors, check_vector
from .words import best_by_words

# At most this many vectors are searched exactly; more by a graph, where the extra ``ann`` is
# installed.
EXACT_MOST = 100_000
_VECTORS_AT_ONCE = 4096
# A find checks whether it is to stop after this many steps of SQLite's virtual machine: about
# every 10 ms.
_STEPS = 50_000
# A hybrid find looks at no fewer candidates of each kind.
_CANDIDATES = 100

_COLUMNS = (
    "frames.id, sequence, hint, time_ns, updated_ns, title, uri, media_type, tags, metadata, "
    "size, embedding, embedding_model, place"
)


ReadText = Callable[[int, Version, str | None], str]


class InterruptedFindError(Exception):
    """A find was stopped by :meth:`SearchIndex.interrupt`."""


class SearchIndex(SavedDatabase):
    """The frames up to one sequence, searchable, in memory.

    ``read_text(hint, version, media_type)`` returns the text of that version of a frame; ``hint``
    is the frame's own (:class:`IndexedFrame`). ``language``: "english" (stemmed) or "none".
    ``count``: how many frames there are. ``through``: the sequence of the last event folded; the
    caller sets it, and a dump saves it.
    """

    _CONTENTS = (
        "SELECT through FROM progress",
        "SELECT * FROM frames ORDER BY id",
        "SELECT * FROM tags ORDER BY tag, id",
        "SELECT * FROM vectors ORDER BY id",
        "SELECT * FROM words_docsize ORDER BY id",
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.places USING fts5vocab (main, words, instance)",
        # Each term with all places where it is. A row for each place would take several times as
        # long to make.
        """SELECT term, group_concat(doc || ' ' || col || ' ' || offset) FROM temp.places
        GROUP BY term ORDER BY term""",
        # How long the texts are on average, which scores depend on.
        "SELECT block FROM words_data WHERE id = 1",
        "SELECT * FROM words_config ORDER BY k",
        # Where in its own segments a term is: other segments hold the same in another way.
        "INSERT INTO words (words) VALUES ('integrity-check')",
    )

    def __init__(self, read_text: ReadText, *, language: str = "english") -> None:
        self.language = language
        self._read_text = read_text
        self._snippets = Snippets(language)
        self._guard = threading.Lock()
        self._finding = False
        self._stop = threading.Event()
        super().__init__(partial(create, language))

    def _start(self, database: sqlite3.Connection) -> None:
        super()._start(database)
        # Not SQLite's own interrupt: while FTS5 keeps a page open, that would stop the next write.
        database.set_progress_handler(self._stop.is_set, _STEPS)
        database.create_function(HAS_METADATA, 2, has_metadata, deterministic=True)
        (self.count,) = database.execute("SELECT count(*) FROM frames").fetchone()
        self._space = self._stored_space()
        self._vectors: ExactVectors | ApproximateVectors | None = None
        # Of each word that was looked for since the last change: how many frames have it.
        self._counts: dict[str, int] = {}

    def close(self) -> None:
        """Release everything. The index cannot be used afterwards."""
        super().close()
        self._snippets.close()

    # What the fold calls.

    def put(self, frame: IndexedFrame, text: str) -> None:
        """Add a frame. Its id must be above all ids so far.

        :raises InvalidValueError: when its embedding does not fit the others in the index.
        """
        batch = Batch()
        batch.add(frame, text)
        self.put_many(batch)

    def put_many(self, batch: Batch) -> None:
        """Add frames. Their ids must be above all ids so far.

        :raises InvalidValueError: when an embedding does not fit the others in the index or in the
            batch; then no frame was added.
        """
        self._check_fit(batch)
        self._change(None, "", batch)

    def update(self, frame: IndexedFrame, text: str, old_text: str) -> None:
        """Replace a frame by its newer version. ``old_text``: the text that was indexed before.

        :raises InvalidValueError: when its embedding does not fit the others in the index.
        :raises KeyError: when there is no such frame.
        """
        old = self.get(frame.frame_id)
        if old is None:
            raise KeyError(frame.frame_id)
        batch = Batch()
        batch.add(frame, text)
        self._check_fit(batch)
        self._change(old, old_text, batch)

    def delete(self, frame_id: int, old_text: str) -> None:
        """Remove a frame. ``old_text``: the text that was indexed.

        :raises KeyError: when there is no such frame.
        """
        old = self.get(frame_id)
        if old is None:
            raise KeyError(frame_id)
        self._change(old, old_text, None)

    def replace_vectors(self, model: str, made: Iterable[NewEmbedding]) -> None:
        """Replace all embeddings. A frame gets the one that was made of its present version.

        :raises InvalidValueError: when one is not an embedding.
        """
        self._begin()
        try:
            replace_vectors(self._database, model, made)
        except (sqlite3.DatabaseError, OverflowError) as error:
            raise DamagedSearchIndexError(str(error)) from error
        self._vectors, self._space = None, self._stored_space()

    def _check_fit(self, batch: Batch) -> None:
        space = self._space
        for _, vector, model in batch.vectors:
            _check_space(space, model, len(vector) // 4)
            space = (model, len(vector) // 4)

    def _change(self, old: IndexedFrame | None, old_text: str, new: Batch | None) -> None:
        self._begin()
        self._counts.clear()
        try:
            if old is not None:
                self._remove(old, old_text)
            if new is not None:
                self._insert(new)
        except sqlite3.DatabaseError as error:
            raise DamagedSearchIndexError(str(error)) from error

    def _insert(self, new: Batch) -> None:
        new.insert(self._database)
        self.count += new.count
        if new.vectors:
            _, vector, model = new.vectors[-1]
            self._space = (model, len(vector) // 4)
            if self._vectors is not None:
                self._vectors.put([(frame_id, vector) for frame_id, vector, _ in new.vectors])

    def _remove(self, old: IndexedFrame, old_text: str) -> None:
        run = self._database.execute
        key = (old.frame_id,)
        run(
            "INSERT INTO words (words, rowid, body, title, tags, uri) "
            "VALUES ('delete', ?, ?, ?, ?, ?)",
            (old.frame_id, *searchable(old, old_text)),
        )
        for tag in old.tags:
            run("DELETE FROM tags WHERE tag = ? AND id = ?", (tag, old.frame_id))
        if old.embedding is not None:
            run("DELETE FROM vectors WHERE id = ?", key)
            if self._vectors is not None:
                self._vectors.remove(old.frame_id)
            self._space = self._stored_space()
            if self._space is None:
                self._vectors = None
        run("DELETE FROM frames WHERE id = ?", key)
        self.count -= 1

    # What readers call.

    def get(self, frame_id: int) -> IndexedFrame | None:
        """Return one frame, or None when there is no such frame."""
        found = self._rows("WHERE frames.id = ?", [frame_id])
        return found[0] if found else None

    def with_uri(self, uri: str) -> tuple[int, ...]:
        """Return the ids of the frames that have this URI, in order."""
        found = self._run("SELECT id FROM frames WHERE uri = ? ORDER BY id", [uri])
        return tuple(frame_id for (frame_id,) in found)

    def check_frames(self, count: int, last: int, others: Sequence[int]) -> None:
        """Check a loaded index as :func:`.agreement.check_frames` says.

        :raises ValueError: when it holds what was never put.
        """
        check_frames(self._database, count, last, others)

    @property
    def total_size(self) -> int:
        """The size of all bodies together, in bytes."""
        found = self._database.execute("SELECT total(size) FROM frames").fetchone()
        return int(found[0])

    def scan(
        self,
        *,
        after_id: int | None = None,
        newest_first: bool = False,
        filters: Filters | None = None,
        limit: int = 100,
    ) -> list[IndexedFrame]:
        """Return at most ``limit`` frames in the order of their ids.

        ``after_id``: only those after this id in that order. Pass the last one's id to go on.
        """
        wanted, parameters = conditions(filters)
        if after_id is not None:
            wanted.append("frames.id < ?" if newest_first else "frames.id > ?")
            parameters.append(after_id)
        where = f"WHERE {' AND '.join(wanted)} " if wanted else ""
        order = "DESC" if newest_first else "ASC"
        return self._rows(f"{where}ORDER BY frames.id {order} LIMIT ?", [*parameters, limit])

    def find(
        self,
        query: str | None,
        vector: bytes | None = None,
        *,
        mode: SearchMode = "lexical",
        top_k: int = 10,
        filters: Filters | None = None,
        embedding_model: str | None = None,
        syntax: bool = True,
    ) -> list[Found]:
        """Return at most ``top_k`` frames, best first: by score rounded to 1e-6, then by id.

        ``syntax``: False takes the query for plain text, see :mod:`.query`.

        :raises InvalidValueError: when the mode needs a query or a vector that is missing, or
            the vector does not fit those of the frames.
        :raises InterruptedFindError: when :meth:`interrupt` stopped the find.
        :raises DamagedSearchIndexError: when the index was loaded from a damaged image.
        """
        if mode != "semantic" and query is None:
            raise InvalidValueError(f"a {mode} find needs a query")
        if mode != "lexical":
            if vector is None:
                raise InvalidValueError(f"a {mode} find needs an embedding")
            # A query need not name the model again.
            model = self._space[0] if self._space and embedding_model is None else embedding_model
            _check_space(self._space, model, check_vector(vector))
        chosen = conditions(filters)
        with self._interruptible():
            if mode == "lexical":
                best = self._lexical(self._parse(query or "", syntax=syntax), top_k, chosen)
                return list(map(Found._make, best.items()))
            wanted = top_k if mode == "semantic" else max(_CANDIDATES, 2 * top_k)
            near = in_order(self._semantic(vector or b"", wanted, chosen), wanted)
            if mode == "semantic":
                return near
            matched = self._lexical(self._parse(query or "", syntax=syntax), wanted, chosen)
            cosines = {found.frame_id: found.score for found in near}
            if self._vectors is not None:
                cosines |= self._vectors.cosines(vector or b"", matched.keys() - cosines.keys())
            return fuse(matched, cosines, top_k)

    def places(self, frame_ids: Sequence[int]) -> dict[int, FramePlace]:
        """Return where the texts of these frames are, by id, in the order of the log.

        Frames that do not exist are left out.

        :raises DamagedSearchIndexError: when the index was loaded from a damaged image.
        """
        found: list[Any] = []
        for part in parts(frame_ids):
            found += self._run(
                "SELECT hint, sequence, place, media_type, title, uri, id FROM frames "  # noqa: S608 - as above
                f"WHERE id IN ({','.join('?' * len(part))})",
                part,
            )
        return {row[-1]: FramePlace(*row[:-1]) for row in sorted(found, key=itemgetter(0, 1, 2))}

    def snippets(
        self, query: str | None, places: Mapping[int, FramePlace], *, syntax: bool = True
    ) -> dict[int, str]:
        """Return a snippet of each of these frames, with the words of the query in brackets.

        A frame without such words is shown by its beginning.
        """
        parsed = self._parse(query, syntax=syntax) if query is not None else None
        read = self._read_text
        texts = {
            frame_id: read(place.hint, place.version, place.media_type)
            for frame_id, place in places.items()
        }
        return self._snippets.of_all(parsed, texts)

    def _stored_space(self) -> tuple[str | None, int] | None:
        row: tuple[str | None, int] | None = self._database.execute(
            "SELECT embedding_model, length(embedding) / 4 FROM vectors "
            "JOIN frames ON frames.id = vectors.id LIMIT 1"
        ).fetchone()
        return row

    def interrupt(self) -> None:
        """Stop the find that runs now, if there is one. May be called from any thread."""
        with self._guard:
            if self._finding:
                self._stop.set()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._finding = True
        try:
            self._begin()
            yield
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if not self._stop.is_set():
                raise DamagedSearchIndexError(str(error)) from error
        finally:
            with self._guard:
                self._finding = False
                stopped = self._stop.is_set()
                self._stop.clear()
        if stopped:
            raise InterruptedFindError

    def _parse(self, text: str, *, syntax: bool) -> Query:
        return parse(text, english=self.language == "english", syntax=syntax)

    def _lexical(self, query: Query, top_k: int, chosen: Conditions) -> dict[int, float]:
        return best_by_words(
            self._database,
            query,
            total=self.count,
            top_k=top_k,
            chosen=chosen,
            known=self._counts,
        )

    def _semantic(self, vector: bytes, top_k: int, chosen: Conditions) -> dict[int, float]:
        if self._space is None:
            return {}
        vectors = self._vectors
        if vectors is None:
            vectors = ExactVectors(self._space[1])
            stored = self._database.execute("SELECT id, embedding FROM vectors")
            while part := stored.fetchmany(_VECTORS_AT_ONCE):
                vectors.put(part)
        if isinstance(vectors, ExactVectors) and len(vectors) > EXACT_MOST and is_installed():
            vectors = ApproximateVectors(vectors)
        self._vectors = vectors
        return vectors.search(vector, top_k, self._allowed(chosen))

    def _allowed(self, chosen: Conditions) -> list[int] | None:
        wanted, parameters = chosen
        if not wanted:
            return None
        ids = self._database.execute(
            f"SELECT id FROM frames WHERE {' AND '.join(wanted)}",  # noqa: S608 - as above
            parameters,
        )
        return [frame_id for (frame_id,) in ids]

    def _rows(self, rest: str, parameters: list[Any]) -> list[IndexedFrame]:
        found = self._run(
            f"SELECT {_COLUMNS} FROM frames LEFT JOIN vectors ON vectors.id = frames.id {rest}",  # noqa: S608 - as above
            parameters,
        )
        try:
            return [_frame_row(row) for row in found]
        except (ValueError, TypeError) as error:
            raise DamagedSearchIndexError(str(error)) from error

    def _run(self, statement: str, parameters: Sequence[Any]) -> list[Any]:
        try:
            return self._database.execute(statement, parameters).fetchall()
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise DamagedSearchIndexError(str(error)) from error


def _check_space(space: tuple[str | None, int] | None, model: str | None, dimension: int) -> None:
    if space is not None and space != (model, dimension):
        raise InvalidValueError(
            f"the memory holds embeddings of model {space[0]!r} with {space[1]} "
            f"dimensions; this one is of {model!r} with {dimension}"
        )


def _frame_row(found: tuple[Any, ...]) -> IndexedFrame:
    tags = tuple(json.loads(found[8])) if found[8] else ()
    metadata = decode_value(found[9])
    if not isinstance(metadata, dict) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError("metadata that is not a map, or a tag that is not text")
    values: list[Any] = [*found[:8], tags, metadata, *found[10:]]
    return IndexedFrame(*values)
