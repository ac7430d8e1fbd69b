"""The best frames for a query's words: BM25 by FTS5, of no more rows than it takes.

Scores are negated millionths inside, so the least is the best, and ties go to the lower id.
"""

from __future__ import annotations

import sqlite3

from .filters import Conditions
from .query import Query
from .ranking import FEW_ROWS, WEIGHTS, tries

_SCORE = f"CAST(bm25(words, {', '.join(map(str, WEIGHTS))}) * 1e6 - 0.5 AS INTEGER)"


def best_by_words(
    database: sqlite3.Connection, query: Query, *, total: int, top_k: int, chosen: Conditions
) -> dict[int, float]:
    """The scores of the ``top_k`` best of ``total`` frames."""
    match = query.match
    if match is None:
        return {}
    if query.required or len(query.words) == 1:
        best = _best(database, match, top_k, chosen)
    else:
        best = _best_of_words(database, query, match, total, top_k, chosen)
    return {frame_id: -score / 1e6 for score, frame_id in best}


def _best_of_words(
    database: sqlite3.Connection,
    query: Query,
    match: str,
    total: int,
    top_k: int,
    chosen: Conditions,
) -> list[tuple[int, int]]:
    counted = sorted((_count_of(database, word), at, word) for at, word in enumerate(query.words))
    counts, _, words = zip(*counted, strict=True)
    if sum(counts) < 8 * FEW_ROWS:
        return _best(database, match, top_k, chosen)
    for few, bound in tries(counts, total, top_k):
        found = sorted(
            row
            for part in query.parted(words[:few], words[few:])
            for row in _best(database, part, top_k, chosen)
        )
        if len(found) >= top_k and -found[top_k - 1][0] > bound * 1e6 + 1:
            return found[:top_k]
    return _best(database, match, top_k, chosen)


def _count_of(database: sqlite3.Connection, term: str) -> int:
    (count,) = database.execute(
        "SELECT count(*) FROM words WHERE words MATCH ?", (term,)
    ).fetchone()
    return int(count)


def _best(
    database: sqlite3.Connection, match: str, top_k: int, chosen: Conditions
) -> list[tuple[int, int]]:
    return _scored(database, match, chosen, "ORDER BY score, words.rowid LIMIT ?", top_k).fetchall()


def _scored(
    database: sqlite3.Connection, match: str, chosen: Conditions, rest: str, *more: int
) -> sqlite3.Cursor:
    wanted, given = chosen
    joined = "JOIN frames ON frames.id = words.rowid " if wanted else ""
    return database.execute(
        f"SELECT {_SCORE} AS score, words.rowid FROM words {joined}"  # noqa: S608 - only conditions written here; values are parameters
        f"WHERE {' AND '.join(['words MATCH ?', *wanted])} {rest}",
        (match, *given, *more),
    )
