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

# The least weight of a word. A word in half of the rows has twice this weight.
_COMMON_WEIGHT = 0.01
# Words that fewer rows than this have, together, are weighed again when one of them is common.
_FEW_TO_WEIGH = 4096
# When all words together have fewer rows than this, all are scored.
FEW_ROWS = 2048
# A first try, which may fail, scores at most this share of the rows, so that little is lost.
_TRY_SHARE = 1 / 8
# A try that is certain to succeed scores at most this share.
_SURE_SHARE = 1 / 2


def are_common(counts: Sequence[int], total: int) -> bool:
    """Whether words are weighed again, of which ``counts`` of ``total`` rows have one each.

    That takes a statement for each word, which reads all of its rows. So it is done when these are
    few, or when all words are common. Beside a rare word, a common one has almost no weight anyway.
    """
    if weight_again(max(counts), total) == 1:
        return False
    return sum(counts) < _FEW_TO_WEIGH or weight_again(min(counts), total) > 1


def weight_again(count: int, total: int) -> float:
    """Return the weight of a word that ``count`` of ``total`` rows have, divided by FTS5's.

    FTS5's weight is the logarithm of a word's odds. It falls to 0 for a word that half of the rows
    have, and is 0.000001 for every more common word. This weight falls from 0.02 to 0.01 there. So
    common words still order rows by how often each row has them and by its length, while a rare
    word counts much more.
    """
    odds = _odds(count, total)
    return max(1.0, _COMMON_WEIGHT * (1 + min(odds, 1.0)) / _fts5_weight(odds))


def _odds(count: int, total: int) -> float:
    return (total - count + 0.5) / (count + 0.5)


def _fts5_weight(odds: float) -> float:
    return math.log(odds) if odds > 1 else 1e-6


def most_from(count: int, total: int) -> float:
    """The most that a word can add to a score, when ``count`` of ``total`` rows have it.

    That is FTS5's BM25 for a text of this word alone.
    """
    return _fts5_weight(_odds(count, total)) * (_K1 + 1)


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
