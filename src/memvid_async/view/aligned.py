"""A comparison in one order: what both did, line by line."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from .. import Action, Comparison, Difference


@frozen
class Row:
    """An action of a, of b, or the two that belong together."""

    a: Action | None
    b: Action | None
    differences: tuple[Difference, ...] = ()

    @property
    def is_equal(self) -> bool:
        """Whether it stands for two equal actions."""
        return self.a is not None and self.b is not None and not self.differences


def aligned_rows(comparison: Comparison) -> Iterator[Row]:
    """Every action of both, once, in an order that is that of each session."""
    pairs = [Row(a, b) for a, b in comparison.equal]
    pairs += [Row(c.a, c.b, c.differences) for c in comparison.changed]
    pairs.sort(key=_place)
    only_a, only_b = list(comparison.only_in_a[::-1]), list(comparison.only_in_b[::-1])
    for pair in pairs:
        assert pair.a is not None
        assert pair.b is not None
        while only_a and only_a[-1].index < pair.a.index:
            yield Row(only_a.pop(), None)
        while only_b and only_b[-1].index < pair.b.index:
            yield Row(None, only_b.pop())
        yield pair
    yield from (Row(action, None) for action in reversed(only_a))
    yield from (Row(None, action) for action in reversed(only_b))


def _place(row: Row) -> int:
    assert row.a is not None
    return row.a.index
