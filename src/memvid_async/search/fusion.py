"""One order from two: the scores of both parts, brought to a common scale and added. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from .rows import Found

# How much of a hybrid score is lexical.
LEXICAL_SHARE = 0.5


def normalised(scores: Mapping[int, float]) -> dict[int, float]:
    """The scores on a scale from 0 (the lowest of them) to 1 (the highest)."""
    if not scores:
        return {}
    low, high = min(scores.values()), max(scores.values())
    width = high - low
    return {key: (score - low) / width if width else 1.0 for key, score in scores.items()}


def fuse(lexical: Mapping[int, float], semantic: Mapping[int, float], top_k: int) -> list[Found]:
    """The best of both: the weighted sum of the normalised scores, 0 where a part has none."""
    first, second = normalised(lexical), normalised(semantic)
    sums = {
        key: LEXICAL_SHARE * first.get(key, 0.0) + (1 - LEXICAL_SHARE) * second.get(key, 0.0)
        for key in {*first, *second}
    }
    return in_order(sums, top_k)


def in_order(scores: Mapping[int, float], top_k: int) -> list[Found]:
    """The ``top_k`` best, by score rounded to 1e-6, then by id."""
    rounded = sorted((-round(score * 1e6), key) for key, score in scores.items())
    return [Found(key, -score / 1e6) for score, key in rounded[:top_k]]
