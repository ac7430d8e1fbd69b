"""The longest common subsequence of two sequences, exact and within bounded time and memory.

Equal beginnings and ends are set aside, and so are items that the other sequence does not have.
For the n and m items that are left, each row of the usual table is an integer of m bits, one bit
per column (Hyyrö, "Bit-parallel LCS-length computation revisited", 2004): n * m / 64 machine steps.
A table of more than ``TABLE_BITS`` is halved first (Hirschberg, "A linear space algorithm for
computing maximal common subsequences", 1975). This at most doubles the time, and keeps memory at
O(n + m) and ``TABLE_BITS``. Two sequences of 100,000 items in a different order take seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from itertools import accumulate

TABLE_BITS = 1 << 26  # 8 MiB
KEPT_ROWS = 256

Pairs = list[tuple[int, int]]


def align(a: Sequence[Hashable], b: Sequence[Hashable]) -> Pairs:
    """Return the positions of a longest common subsequence, ``(in a, in b)``, ascending in both."""
    start, end_a, end_b = 0, len(a), len(b)
    while start < min(end_a, end_b) and a[start] == b[start]:
        start += 1
    while end_a > start and end_b > start and a[end_a - 1] == b[end_b - 1]:
        end_a -= 1
        end_b -= 1
    common = set(a[start:end_a]) & set(b[start:end_b])
    left = [i for i in range(start, end_a) if a[i] in common]
    right = [j for j in range(start, end_b) if b[j] in common]
    numbers = {item: number for number, item in enumerate(common)}
    inner = _align([numbers[a[i]] for i in left], [numbers[b[j]] for j in right])
    pairs = [(i, i) for i in range(start)]
    pairs += [(left[i], right[j]) for i, j in inner]
    pairs += [(end_a + k, end_b + k) for k in range(len(a) - end_a)]
    return pairs


def _align(a: list[int], b: list[int]) -> Pairs:
    if not a or not b:
        return []
    if len(a) == 1:
        return [(0, b.index(a[0]))] if a[0] in b else []
    if len(a) * len(b) <= TABLE_BITS:
        return _walk(a, b)
    middle = len(a) // 2
    upper = _lengths(a[:middle], b)
    lower = _lengths(a[middle:][::-1], b[::-1])
    cut = max(range(len(b) + 1), key=lambda j: upper[j] + lower[len(b) - j])
    first = _align(a[:middle], b[:cut])
    second = _align(a[middle:], b[cut:])
    return first + [(i + middle, j + cut) for i, j in second]


def _rows(a: list[int], b: list[int]) -> Iterator[int]:
    """Yield the table's row after each item of ``a``; bit j is 0 where column j adds length."""
    row = mask = (1 << len(b)) - 1
    places = _ItemBits(b)
    for item in a:
        met = row & places.bits(item)
        row = ((row + met) | (row - met)) & mask
        yield row


def _lengths(a: list[int], b: list[int]) -> list[int]:
    """Return the length of the longest common subsequence of ``a`` and each prefix of ``b``."""
    (row,) = deque(_rows(a, b), maxlen=1)
    bits = format(row, f"0{len(b)}b")[::-1]
    return [0, *accumulate(bit == "0" for bit in bits)]


class _ItemBits:
    """The places of each item in ``b``, as bits; those of frequent items are kept."""

    def __init__(self, b: list[int]) -> None:
        self._size = len(b) // 8 + 1
        self._positions: dict[int, list[int]] = {}
        for j, item in enumerate(b):
            self._positions.setdefault(item, []).append(j)
        self._kept = {
            item: self._make(positions)
            for item, positions in self._positions.items()
            if len(positions) * KEPT_ROWS > len(b)
        }

    def bits(self, item: int) -> int:
        """Return the bits of an item; 0 for one that is not in ``b``."""
        kept = self._kept.get(item)
        return self._make(self._positions.get(item, [])) if kept is None else kept

    def _make(self, positions: list[int]) -> int:
        bits = bytearray(self._size)
        for j in positions:
            bits[j >> 3] |= 1 << (j & 7)
        return int.from_bytes(bits, "little")


def _walk(a: list[int], b: list[int]) -> Pairs:
    """Walk through the table from its last corner to its first, and return the pairs."""
    rows = list(_rows(a, b))
    pairs: Pairs = []
    i, j = len(a) - 1, len(b) - 1
    while i >= 0 and j >= 0:
        if rows[i] >> j & 1:
            j -= 1
        elif i > 0 and not rows[i - 1] >> j & 1:
            i -= 1
        else:
            pairs.append((i, j))
            i -= 1
            j -= 1
    return pairs[::-1]
