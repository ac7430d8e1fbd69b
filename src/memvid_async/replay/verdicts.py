"""What is said of a recorded action, and of a session as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from attrs import field, frozen

from ..events.event import Action


class Verdict(StrEnum):
    """What became of one recorded action."""

    MATCHED = "matched"
    DIVERGED = "diverged"
    SERVED = "served"
    SKIPPED = "skipped"
    UNVERIFIABLE = "unverifiable"


@frozen
class Difference:
    """One field in which two actions differ.

    ``field``: as the ``record_…`` method names it. ``a`` / ``b``: the two values; a
    :class:`Content` for an input or output, the number of messages for messages. ``diff``: both in
    lines that begin with ``-`` (in a alone), ``+`` (in b alone) or a space (in both).
    """

    field: str
    a: Any
    b: Any
    diff: str


@frozen
class Rerun:
    """A find done differently, against the recorded one.

    ``hits``: what it finds, frame ids with scores, best first. ``new`` / ``lost``: hits of this or
    that alone. ``moved``: frame ids with the place they had and the place they have, from 0.
    """

    hits: tuple[tuple[int, float], ...]
    new: tuple[tuple[int, float], ...]
    lost: tuple[tuple[int, float], ...]
    moved: tuple[tuple[int, int, int], ...]


@frozen
class ReplayStep:
    """The verdict on one action.

    ``index``: the action's place in its session. ``reason``: why it was skipped, what is missing
    to verify it, or in what it diverged. ``differences``: every field that diverged. ``rerun``: of
    a find that was done differently, what became of it.
    """

    index: int
    action: Action
    verdict: Verdict
    reason: str | None = None
    differences: tuple[Difference, ...] = ()
    rerun: Rerun | None = None


def count_verdicts(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """How often each verdict was given; all five are named."""
    counts = dict.fromkeys(Verdict, 0)
    for verdict in verdicts:
        counts[verdict] += 1
    return counts


@frozen
class ReplayReport:
    """What a replay, or a served session, came to.

    ``counts``: how many actions got each verdict; all five are named. ``checkpoint_id``: of
    the checkpoint at which the replay started, None for the session's start.
    """

    session_id: UUID
    counts: Mapping[Verdict, int]
    steps: tuple[ReplayStep, ...] = field(repr=False)
    checkpoint_id: int | None = None

    @property
    def match_rate(self) -> float:
        """Matched among those that were compared, 0 to 1; 1 when nothing could be compared."""
        matched = self.counts[Verdict.MATCHED]
        compared = matched + self.counts[Verdict.DIVERGED]
        return matched / compared if compared else 1.0

    @property
    def first_divergence(self) -> ReplayStep | None:
        """The first step that diverged, None when none did."""
        return next((step for step in self.steps if step.verdict is Verdict.DIVERGED), None)
