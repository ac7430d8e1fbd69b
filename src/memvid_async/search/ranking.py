"""Which rows need a score. Pure.

FTS5 finds rows fast and scores them slowly (BM25 reads each row's length). The words that few
frames have decide who is first: once enough frames with one of those are scored, whatever has only
the common words cannot come near, and is never scored. This is MaxScore (Turtle and Flood, 1995).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

# What a word counts in body, title, tags and uri. A weight divides BM25's k1, which FTS5 fixes at
# 1.2: 0.8 suits texts of a few sentences.
WEIGHTS = (1.5, 3.0, 2.0, 0.75)
_K1 = 1.2

# So many rows are scored before looking for a way around it; where there are a few times as many,
# the way would cost more than it saves.
FEW_ROWS = 256
# A try may score this share of the rows at most: should it fail, little is lost.
_TRY_SHARE = 1 / 8
_TRIES = 2


def most_from(count: int, total: int) -> float:
    """The most that a word adds to a score: FTS5's BM25 of a text of nothing else.

    ``count`` of ``total`` rows have it.
    """
    weight = math.log((total - count + 0.5) / (count + 0.5))
    return max(weight, 1e-6) * (_K1 + 1)


def tries(counts: Sequence[int], total: int, top_k: int) -> Iterator[tuple[int, float]]:
    """Ways to score fewer rows: score those with one of the first ``n`` words alone.

    ``counts``: how many rows have each word, ascending. Gives ``n``, and what no row without these
    words can score more than: when the ``top_k``-th is above it, the best are found. Only what is
    likely to succeed is given.
    """
    bounds = [most_from(count, total) for count in counts]
    scored, given, likely = 0, 0, 0.0
    for n in range(1, len(counts)):
        scored += counts[n - 1]
        if scored > sum(counts) * _TRY_SHARE or given == _TRIES:
            return
        if scored >= top_k:
            # A row of usual length that has a word once scores about half of the word's most; so
            # many rows have this word or a rarer one.
            likely = likely or 0.75 * bounds[n - 1]
            rest = sum(bounds[n:])
            if rest <= likely:
                given += 1
                yield n, rest
