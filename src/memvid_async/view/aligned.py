"""A comparison as one sequence of pairs: what each session did, in order."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import frozen

from .. import Action, Comparison, Difference


@frozen
class Pairing:
    """An action of a and the one of b that corresponds to it, or an action without such a one."""

    a: Action | None
    """The action of the first session; None where only b has it."""
    b: Action | None
    """The action of the second session; None where only a has it."""
    differences: tuple[Difference, ...] = ()
    """The fields in which both differ; empty where only one session has the action."""

    @property
    def is_equal(self) -> bool:
        """Whether both sessions have the action, and it is equal."""
        return self.a is not None and self.b is not None and not self.differences


def aligned_pairings(comparison: Comparison) -> Iterator[Pairing]:
    """Yield every action of both sessions once, in an order that keeps that of each session."""
    pairs = [Pairing(a, b) for a, b in comparison.equal]
    pairs += [Pairing(c.a, c.b, c.differences) for c in comparison.changed]
    pairs.sort(key=_place)
    only_a, only_b = list(comparison.only_in_a[::-1]), list(comparison.only_in_b[::-1])
    for pair in pairs:
        assert pair.a is not None
        assert pair.b is not None
        while only_a and only_a[-1].index < pair.a.index:
            yield Pairing(only_a.pop(), None)
        while only_b and only_b[-1].index < pair.b.index:
            yield Pairing(None, only_b.pop())
        yield pair
    yield from (Pairing(action, None) for action in reversed(only_a))
    yield from (Pairing(None, action) for action in reversed(only_b))


def _place(pair: Pairing) -> int:
    assert pair.a is not None
    return pair.a.index
