"""What became of each call of a session: a fold over its events, in order.

A call that began and of which nobody said how it ended is in flight. A cancellation is a decision
of the agent's only where the agent went on after it. What was cancelled because the process was
asked to end is in flight too, and what began after that is not repeated.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from attrs import Factory, define

from ..events.calls import LanePath
from .matching import Outcome, RecordedCall


@define(eq=False)
class PastCall:
    """A call as the events so far tell it. ``action``: what its last end recorded, if there is one.

    ``tries``: how often it began. ``chunks``: see :class:`RecordedCall`; ``texts``: their texts.
    ``is_interrupted``: whether it ended by Ctrl-C.
    """

    start: int
    lane: LanePath
    seen: int | None
    scope: int
    content: Any
    facts: Mapping[str, Hashable]
    info: Any = None
    gap: float = 0
    tries: int = 1
    chunks: list[tuple[int, int, int]] = Factory(list)
    texts: list[str | bytes] = Factory(list)
    end: int | None = None
    is_cancelled: bool = False
    is_interrupted: bool = False
    answer: Hashable = None
    action: Any = None
    finished: tuple[int | None, Any, Hashable] = (None, None, None)


class History:
    """The calls of a session, as its events tell them."""

    def __init__(self) -> None:
        self.calls: dict[int, PastCall] = {}
        # Calls whose end is taken back, so that they are in flight again.
        self.reopened: list[PastCall] = []
        self._went_on = 0

    @property
    def went_on(self) -> int:
        """The sequence of the last event that shows that the agent went on."""
        return self._went_on

    def began(self, call: PastCall, *, is_cancelled: bool = False) -> None:
        """Add a call that began; also one that is recorded in one piece, when it ended. One that
        was cancelled then does not show that the agent went on."""
        self.calls[call.start] = call
        if not is_cancelled:
            self._went_on = call.start

    def began_again(self, start: int, sequence: int) -> None:
        """Note one more try of a call."""
        call = self.calls.get(start)
        if call is None:
            return
        call.tries += 1
        call.end, call.is_cancelled, call.finished = None, False, (None, None, None)
        self._went_on = sequence

    def ended(
        self,
        start: int,
        sequence: int,
        action: Any,
        answer: Hashable,
        *,
        is_cancelled: bool,
        is_interrupted: bool = False,
    ) -> None:
        """Note how a call ended. A later end stands: the agent cancelled what had just ended."""
        call = self.calls.get(start)
        if call is None:
            # It began while the process was being ended.
            return
        if call.end is not None and not call.is_cancelled:
            call.finished = call.end, call.action, call.answer
        call.end, call.action, call.answer = sequence, action, answer
        call.is_cancelled, call.is_interrupted = is_cancelled, is_interrupted

    def session_ended(self, sequence: int) -> None:
        """Note that the agent left the block, so it had gone on after every cancellation."""
        self._went_on = sequence

    def resumed(self) -> None:
        """Note that the agent was run again: what it cancelled last, it may not have decided."""
        self._undo_cancellations(self._went_on)
        self.reopened = []

    def suspended(self, since: int) -> None:
        """Note that the process was asked to end after the event with this sequence."""
        for start in [start for start in self.calls if start > since]:
            del self.calls[start]
        self._undo_cancellations(since)
        self._went_on = max((call.start for call in self.calls.values()), default=0)

    def _undo_cancellations(self, since: int) -> None:
        """Take back the cancellations after the event with this sequence: the agent decided none.
        So is taken back that a call ended by Ctrl-C where the agent did not go on after it.

        A call that had finished has its own end again; any other one is in flight, or, where it is
        recorded in one piece, was not made.
        """
        for call in list(self.calls.values()):
            last = min(since, self._went_on) if call.is_interrupted else since
            is_undecided = call.is_cancelled or call.is_interrupted
            if is_undecided and call.end is not None and call.end > last:
                if call.end == call.start:
                    del self.calls[call.start]
                    continue
                call.end, call.action, call.answer = call.finished
                call.is_cancelled = call.is_interrupted = False
                if call.end is None:
                    self.reopened.append(call)

    def recorded(self) -> list[RecordedCall]:
        """Return the calls for :class:`Matching`, once all events are in."""
        self._undo_cancellations(self._went_on)
        return [_recorded(call) for call in self.calls.values()]


def _recorded(call: PastCall) -> RecordedCall:
    outcome = Outcome.CANCELLED if call.is_cancelled else Outcome.FINISHED
    return RecordedCall(
        call.start,
        call.end,
        call.lane,
        call.seen,
        call.scope,
        call.content,
        Outcome.IN_FLIGHT if call.end is None else outcome,
        tuple(call.chunks),
        call.facts,
        call.answer,
        call.gap,
    )
