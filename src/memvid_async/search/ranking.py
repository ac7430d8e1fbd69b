"""Which rows need a score. Pure.

FTS5 finds rows fast and scores them slowly (BM25 reads each row's length). The words that few
frames have decide who is first: once enough frames with one of those are scored, whatever has only
the common words cannot come near, and is never scored. This is MaxScore (Turtle and Flood, 1995).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

# What a word counts in body, title, tags and uri. A weight divides BM25's k1, which FTS5 fixes at
# 1.2: 0.8 suits texts of a few sentences.
WEIGHTS = (1.5, 3.0, 2.0, 0.75)
_K1 = 1.2

# Where all words together have fewer rows, all are scored.
FEW_ROWS = 2048
# A first try may score this share of the rows, so that little is lost should it fail; and one that
# is certain, this.
_TRY_SHARE = 1 / 8
_SURE_SHARE = 1 / 2


def most_from(count: int, total: int) -> float:
    """The most that a word adds to a score: FTS5's BM25 of a text of nothing else.

    ``count`` of ``total`` rows have it.
    """
    weight = math.log((total - count + 0.5) / (count + 0.5))
    return max(weight, 1e-6) * (_K1 + 1)


def first_try(counts: Sequence[int], top_k: int) -> int:
    """With how many of the words to begin: as many as few rows have. 0: score all rows.

    ``counts``: how many rows have each word, ascending.
    """
    rows, most = list(accumulate(counts)), sum(counts)
    if most < FEW_ROWS:
        return 0
    few = bisect_right(rows, most * _TRY_SHARE)
    return few if few and rows[few - 1] >= top_k else 0


def needed(counts: Sequence[int], total: int, score: float) -> int:
    """The fewest first words of which a row must have one to score as much as this."""
    rest, few = 0.0, len(counts)
    while few and (rest := rest + most_from(counts[few - 1], total)) < score:
        few -= 1
    return few


def is_worth(counts: Sequence[int], few: int) -> bool:
    """Whether scoring the rows with one of the first ``few`` words saves enough."""
    return sum(counts[:few]) <= sum(counts) * _SURE_SHARE
