"""Which rows need a score. Pure.

FTS5 finds rows fast and scores them slowly, because BM25 reads each row's length. The words that
few frames have decide which frames are best. Once enough frames with such a word are scored, a
frame that has only common words cannot be among the best, and is never scored. This is MaxScore
(Turtle and Flood, 1995).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

# The weights of a word in body, title, tags and uri. A weight divides BM25's k1, which FTS5 fixes
# at 1.2: the body's weight makes it 0.8, which suits texts of a few sentences.
WEIGHTS = (1.5, 3.0, 2.0, 0.75)
_K1 = 1.2

# When all words together have fewer rows than this, all are scored.
FEW_ROWS = 2048
# A first try, which may fail, scores at most this share of the rows, so that little is lost.
_TRY_SHARE = 1 / 8
# A try that is certain to succeed scores at most this share.
_SURE_SHARE = 1 / 2


def most_from(count: int, total: int) -> float:
    """The most that a word can add to a score, when ``count`` of ``total`` rows have it.

    That is FTS5's BM25 for a text of this word alone.
    """
    weight = math.log((total - count + 0.5) / (count + 0.5))
    return max(weight, 1e-6) * (_K1 + 1)


def first_try(counts: Sequence[int], top_k: int) -> int:
    """Return how many of the rarest words to begin with; 0 means: score all rows.

    ``counts``: how many rows have each word, ascending.
    """
    rows, most = list(accumulate(counts)), sum(counts)
    if most < FEW_ROWS:
        return 0
    few = bisect_right(rows, most * _TRY_SHARE)
    return few if few and rows[few - 1] >= top_k else 0


def needed(counts: Sequence[int], total: int, score: float) -> int:
    """Return the least number of first words of which a row must have one to reach ``score``."""
    rest, few = 0.0, len(counts)
    while few and (rest := rest + most_from(counts[few - 1], total)) < score:
        few -= 1
    return few


def is_worth(counts: Sequence[int], few: int) -> bool:
    """Whether scoring the rows with one of the first ``few`` words saves enough."""
    return sum(counts[:few]) <= sum(counts) * _SURE_SHARE
