"""The order of a hybrid find: lexical and semantic scores, scaled and added. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from .results import Found

# The share of a hybrid score that is lexical.
LEXICAL_SHARE = 0.5
# The share of its squared score that a frame lends to those put just before and just after it.
# Frames put together are often about the same subject. The square makes the best lend more, and the
# others next to nothing. So conversations gain more than by a share of the score itself, and frames
# whose neighbours are about something else lose no more.
NEIGHBOUR_SHARE = 0.2
# The share of a semantic score by which cosines below 0 are told apart, also where all of them are.
# It counts for nothing beside what is alike.
_UNLIKE_SHARE = 0.002


def fuse(lexical: Mapping[int, float], semantic: Mapping[int, float], top_k: int) -> list[Found]:
    """Return the ``top_k`` best frames by both scores together, best first.

    Each score is divided by the best of its kind, so that both have one scale whatever the query;
    a missing score counts as 0, and a negative one as almost 0, in order. The weighted sum of both
    is at most 1. Neighbours by id then lend each other a share of their squares.
    """
    first, second = _scaled(lexical), _in_full_order(semantic)
    sums = {
        key: LEXICAL_SHARE * first.get(key, 0.0) + (1 - LEXICAL_SHARE) * second.get(key, 0.0)
        for key in {*first, *second}
    }
    lent = {
        key: score + NEIGHBOUR_SHARE * (sums.get(key - 1, 0.0) ** 2 + sums.get(key + 1, 0.0) ** 2)
        for key, score in sums.items()
    }
    return in_order(lent, top_k)


def in_order(scores: Mapping[int, float], top_k: int) -> list[Found]:
    """Return the ``top_k`` best, by score rounded to 1e-6, then by id."""
    rounded = sorted((-round(score * 1e6), key) for key, score in scores.items())
    return [Found(key, -score / 1e6) for score, key in rounded[:top_k]]


def _in_full_order(cosines: Mapping[int, float]) -> dict[int, float]:
    """Return cosines, scaled, none of them 0."""
    return {
        key: (1 - _UNLIKE_SHARE) * score + _UNLIKE_SHARE * (1 + min(0.0, cosines[key]) / 2)
        for key, score in _scaled(cosines).items()
    }


def _scaled(scores: Mapping[int, float]) -> dict[int, float]:
    best = max(scores.values(), default=0.0)
    return {key: max(score, 0.0) / best if best > 0 else 0.0 for key, score in scores.items()}
