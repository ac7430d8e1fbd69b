"""The longest common subsequence, against the table that everybody knows."""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.replay import lcs

ITEMS = st.lists(st.integers(0, 4), max_size=24)


def naive_length(a, b):
    rows = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, left in enumerate(a):
        for j, right in enumerate(b):
            best = max(rows[i][j + 1], rows[i + 1][j])
            rows[i + 1][j + 1] = rows[i][j] + 1 if left == right else best
    return rows[-1][-1]


@pytest.mark.parametrize("table_bits", [lcs.TABLE_BITS, 16])
@given(a=ITEMS, b=ITEMS)
def test_it_is_common_a_subsequence_and_the_longest(table_bits, a, b):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lcs, "TABLE_BITS", table_bits)
        pairs = lcs.align(a, b)
    assert all(a[i] == b[j] for i, j in pairs)
    assert all(x[0] < y[0] and x[1] < y[1] for x, y in pairwise(pairs))
    assert len(pairs) == naive_length(a, b)


@given(shared=ITEMS, a=ITEMS, b=ITEMS)
def test_what_begins_alike_stays_together(shared, a, b):
    pairs = lcs.align(shared + a, shared + b)
    assert pairs[: len(shared)] == [(i, i) for i in range(len(shared))]


def test_a_long_shuffle_costs_seconds_at_most():
    chosen = random.Random(5)
    a = list(range(20_000))
    b = chosen.sample(a, len(a))
    start = time.process_time()
    pairs = lcs.align(a, b)
    assert 200 < len(pairs) < 400  # about 2 * sqrt(n)
    assert time.process_time() - start < 10  # measured: 0.3 s


def test_items_that_only_one_side_has_cost_nothing():
    a, b = list(range(200_000)), list(range(200_000, 400_000))
    assert lcs.align([*a, -1], [-1, *b]) == [(len(a), 0)]
