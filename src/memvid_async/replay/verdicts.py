"""What is said of a recorded action, and of a session as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any
from uuid import UUID

from attrs import field as _field
from attrs import frozen

from ..events.event import Action
from ..events.printing import brief, counted, html_table


class Verdict(StrEnum):
    """What became of one recorded action."""

    MATCHED = "matched"
    """It was compared, and is the same."""
    DIVERGED = "diverged"
    """It was compared, and is not the same."""
    SERVED = "served"
    """Its recorded answer was given."""
    SKIPPED = "skipped"
    """It was not looked at."""
    UNVERIFIABLE = "unverifiable"
    """It could not be looked at: something that is needed for it is gone."""


@frozen
class Difference:
    """One field in which two actions differ."""

    field: str
    """Its name, as the ``record_…`` method has it."""
    a: Any = _field(repr=brief)
    """The value in a: a :class:`Content` for an input or output, their number for messages."""
    b: Any = _field(repr=brief)
    """The value in b, likewise."""
    diff: str = _field(repr=brief)
    """Both values in lines that begin with ``-`` (in a alone), ``+`` (in b alone) or a space (in
    both)."""


@frozen
class Rerun:
    """A find done differently, against the recorded one."""

    hits: tuple[tuple[int, float], ...] = _field(repr=counted("hit"))
    """What it finds: frame ids with scores, best first."""
    new: tuple[tuple[int, float], ...] = _field(repr=counted("hit"))
    """Hits that the recorded one had not."""
    lost: tuple[tuple[int, float], ...] = _field(repr=counted("hit"))
    """Hits that the recorded one had, and this one has not."""
    moved: tuple[tuple[int, int, int], ...] = _field(repr=counted("hit"))
    """Of the others those that moved: the frame id, the place it had and the place it has, from
    0."""


@frozen
class ReplayStep:
    """The verdict on one action."""

    index: int
    """The action's place in its session."""
    action: Action
    """The action."""
    verdict: Verdict
    """What became of it."""
    reason: str | None = None
    """Why it was skipped, what is missing to verify it, or in what it diverged."""
    differences: tuple[Difference, ...] = ()
    """Every field that diverged."""
    rerun: Rerun | None = None
    """Of a find that was done differently, what became of it."""


def count_verdicts(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """How often each verdict was given; all five are named."""
    counts = dict.fromkeys(Verdict, 0)
    for verdict in verdicts:
        counts[verdict] += 1
    return counts


@frozen
class ReplayReport:
    """What a replay, or a served session, came to."""

    session_id: UUID
    """The session."""
    counts: Mapping[Verdict, int]
    """How many actions got each verdict; all five are named."""
    steps: tuple[ReplayStep, ...] = _field(repr=counted("step"))
    """The verdict on each action, in order."""
    checkpoint_id: int | None = None
    """The checkpoint at which the replay started; None for the session's start."""

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

    def _repr_html_(self) -> str:
        """A notebook's table: what diverged, then the rest."""
        told = ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items() if count)
        caption = f"Session {self.session_id}: match rate {self.match_rate:.3f}; {told}"
        steps = sorted(self.steps, key=lambda step: step.verdict is not Verdict.DIVERGED)
        rows = ((step.index, step.action.kind, step.verdict, step.reason) for step in steps)
        return html_table(caption, ("index", "action", "verdict", "reason"), rows, len(steps))
