"""The best frames for a query's words: FTS5's BM25, of no more rows than necessary.

Inside this module a score is negated and counted in millionths: the least is the best, and of
equal ones the lower id comes first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from ..events.pace import unhurried
from .filters import Conditions
from .fusion import in_order
from .query import Query
from .ranking import WEIGHTS, are_common, first_try, is_worth, needed, weight_again

# Fewer scores than this are added up so fast that other threads need no turn meanwhile.
_MANY_ROWS = 1_000
_BM25 = f"bm25(words, {', '.join(map(str, WEIGHTS))})"


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
    for term in query.scored:
        if term not in known:
            known[term] = _count_of(database, term)
    counts = [count for term in query.scored if (count := known[term])]
    if counts and are_common(counts, total):
        return _best_of_common(database, query, known, total, top_k, chosen)
    best = None
    if len(query.words) > 1 and not query.required:
        best = _best_of_few(database, query, known, total, top_k, chosen)
    if best is None:
        best = _best(database, match, top_k, chosen)
    return {frame_id: -score / 1e6 for score, frame_id in best}


def _best_of_common(
    database: sqlite3.Connection,
    query: Query,
    known: Mapping[str, int],
    total: int,
    top_k: int,
    chosen: Conditions,
) -> dict[int, float]:
    """Return the best by our own weights: FTS5's score for each word is weighted again."""
    scores: dict[int, float] = {}
    for term in query.scored:
        weight = weight_again(known[term], total)
        rows = _selected(database, f"words.rowid, {_BM25}", term, ([], [])).fetchall()
        for frame_id, score in rows if len(rows) < _MANY_ROWS else unhurried(rows):
            scores[frame_id] = scores.get(frame_id, 0.0) - score * weight
    if query.required or query.excluded or chosen[0]:
        wanted = _matching(database, query.match or "", chosen)
        scores = {frame_id: score for frame_id, score in scores.items() if frame_id in wanted}
    return dict(in_order(scores, top_k))


def _matching(database: sqlite3.Connection, match: str, chosen: Conditions) -> set[int]:
    return {frame_id for (frame_id,) in _selected(database, "words.rowid", match, chosen)}


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
    columns = f"CAST({_BM25} * 1e6 - 0.5 AS INTEGER) AS score, words.rowid"
    order = "ORDER BY score, words.rowid LIMIT ?"
    return _selected(database, columns, match, chosen, order, top_k).fetchall()


def _selected(
    database: sqlite3.Connection, columns: str, match: str, chosen: Conditions, *rest: Any
) -> sqlite3.Cursor:
    wanted, parameters = chosen
    joined = "JOIN frames ON frames.id = words.rowid " if wanted else ""
    return database.execute(
        f"SELECT {columns} FROM words {joined}"  # noqa: S608 - only conditions written here; values are parameters
        f"WHERE {' AND '.join(['words MATCH ?', *wanted])} {' '.join(rest[:1])}",
        (match, *parameters, *rest[1:]),
    )
