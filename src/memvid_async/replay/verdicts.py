"""The verdicts of a replay: on each recorded action, and on the session as a whole."""

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
    """It was compared, and is equal."""
    DIVERGED = "diverged"
    """It was compared, and is not equal."""
    SERVED = "served"
    """Its recorded answer was returned to a live call."""
    SKIPPED = "skipped"
    """It was not compared."""
    UNVERIFIABLE = "unverifiable"
    """It could not be compared, because something that is needed for it is gone."""


@frozen
class Difference:
    """One field in which two actions differ."""

    field: str
    """Its name, as the ``record_…`` method has it."""
    a: Any = _field(repr=brief)
    """The value in a: a :class:`Content` for an input or output, a count for messages."""
    b: Any = _field(repr=brief)
    """The value in b, in the same form."""
    diff: str = _field(repr=brief)
    """Both values in lines that begin with ``-`` (in a alone), ``+`` (in b alone) or a space (in
    both)."""


@frozen
class Rerun:
    """A find that was repeated with a change, compared with the recorded one."""

    hits: tuple[tuple[int, float], ...] = _field(repr=counted("hit"))
    """What it finds: frame ids with scores, best first."""
    new: tuple[tuple[int, float], ...] = _field(repr=counted("hit"))
    """Hits that the recorded find does not have."""
    lost: tuple[tuple[int, float], ...] = _field(repr=counted("hit"))
    """Hits of the recorded find that this one does not have."""
    moved: tuple[tuple[int, int, int], ...] = _field(repr=counted("hit"))
    """Hits of both at different places: frame id, old place and new place, which count from 0."""


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
    """What a find that was repeated with a change finds; None for other actions."""


def count_verdicts(verdicts: Iterable[Verdict]) -> dict[Verdict, int]:
    """Count each verdict; all five are in the result."""
    counts = dict.fromkeys(Verdict, 0)
    for verdict in verdicts:
        counts[verdict] += 1
    return counts


@frozen
class ReplayReport:
    """The result of a replay, or of serving a session."""

    session_id: UUID
    """The session."""
    counts: Mapping[Verdict, int]
    """How many actions have each verdict; all five are there."""
    steps: tuple[ReplayStep, ...] = _field(repr=counted("step"))
    """The verdict on each action, in order."""
    checkpoint_id: int | None = None
    """The checkpoint at which the replay started; None for the session's start."""

    @property
    def match_rate(self) -> float:
        """The matched share of the compared actions, 0 to 1; 1 when none could be compared."""
        matched = self.counts[Verdict.MATCHED]
        compared = matched + self.counts[Verdict.DIVERGED]
        return matched / compared if compared else 1.0

    @property
    def first_divergence(self) -> ReplayStep | None:
        """The first step that diverged; None when none did."""
        return next((step for step in self.steps if step.verdict is Verdict.DIVERGED), None)

    def _repr_html_(self) -> str:
        """A table for notebooks: what diverged, then the rest."""
        told = ", ".join(f"{count:,} {verdict}" for verdict, count in self.counts.items() if count)
        caption = f"Session {self.session_id}: match rate {self.match_rate:.3f}; {told}"
        steps = sorted(self.steps, key=lambda step: step.verdict is not Verdict.DIVERGED)
        rows = ((step.index, step.action.kind, step.verdict, step.reason) for step in steps)
        return html_table(caption, ("index", "action", "verdict", "reason"), rows, len(steps))
