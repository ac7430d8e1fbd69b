"""The best frames for a query's words: FTS5's BM25, of no more rows than necessary.

Inside this module a score is negated and counted in millionths: the least is the best, and of
equal ones the lower id comes first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from .filters import Conditions
from .query import Query
from .ranking import WEIGHTS, first_try, is_worth, needed

_SCORE = f"CAST(bm25(words, {', '.join(map(str, WEIGHTS))}) * 1e6 - 0.5 AS INTEGER)"


def best_by_words(
    database: sqlite3.Connection,
    query: Query,
    *,
    total: int,
    top_k: int,
    chosen: Conditions,
    known: dict[str, int],
) -> dict[int, float]:
    """Return the scores of the ``top_k`` best of ``total`` frames by id, best first.

    ``known``: of each word counted before, how many frames have it; newly counted ones are added.
    """
    match = query.match
    if match is None:
        return {}
    best = None
    if len(query.words) > 1 and not query.required:
        for word in query.words:
            if word not in known:
                known[word] = _count_of(database, word)
        best = _best_of_few(database, query, known, total, top_k, chosen)
    if best is None:
        best = _best(database, match, top_k, chosen)
    return {frame_id: -score / 1e6 for score, frame_id in best}


def _best_of_few(
    database: sqlite3.Connection,
    query: Query,
    known: Mapping[str, int],
    total: int,
    top_k: int,
    chosen: Conditions,
) -> list[tuple[int, int]] | None:
    """Return the best, found by scoring only some rows; None where all must be scored."""
    words = sorted(query.words, key=known.__getitem__)
    counts = [known[word] for word in words]
    few = first_try(counts, top_k)
    while few:
        found: list[tuple[int, int]] = []
        enough = 0
        for part in query.parted(words[:few], words[few:]):
            found = sorted([*found, *_best(database, part, top_k, chosen)])[:top_k]
            if len(found) == top_k:
                enough = needed(counts, total, (-found[-1][0] - 1) / 1e6)
                if enough > few:
                    # The first part alone shows already that these words do not suffice.
                    break
        if len(found) == top_k and enough <= few:
            return found
        few = enough if few < enough and is_worth(counts, enough) else 0
    return None


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
    wanted, parameters = chosen
    joined = "JOIN frames ON frames.id = words.rowid " if wanted else ""
    return database.execute(
        f"SELECT {_SCORE} AS score, words.rowid FROM words {joined}"  # noqa: S608 - only conditions written here; values are parameters
        f"WHERE {' AND '.join(['words MATCH ?', *wanted])} {rest}",
        (match, *parameters, *more),
    )
