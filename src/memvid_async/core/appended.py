"""What a log gained: by appending, or by taking in what others appended."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ..events.decided import AnyEvent, DecidedEvent
from ..events.event import Event


@frozen
class Appended:
    """Events that became durable, in order."""

    last_sequence: int
    """Of the last event of the log."""
    added: Sequence[AnyEvent]
    """The events as they were decided or read; not all of them where nobody wanted them."""
    sizes: list[int]
    """Per event in ``added``, the bytes that it takes in the log."""
    rewritten: bool = False
    """Whether the log was compacted: earlier events may have been erased."""

    @property
    def events(self) -> list[Event]:
        """The events, made for this look at them."""
        return [one.event() if type(one) is DecidedEvent else one for one in self.added]  # type: ignore[misc]
