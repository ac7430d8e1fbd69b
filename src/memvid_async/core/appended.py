"""What a log gained: by appending, or by taking in what others appended."""

from __future__ import annotations

from attrs import frozen

from ..events.event import Event


@frozen
class Appended:
    """Events that became durable, in order."""

    events: list[Event]
    sizes: list[int]
    """Per event, the bytes that it takes in the log."""
    rewritten: bool = False
    """Whether the log was compacted: earlier events may have been erased."""
