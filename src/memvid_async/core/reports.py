"""Reports of an event log: its torn tail, and what verifying and compacting found."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen


@frozen
class TornTail:
    """What was found after the last whole segment: bytes of an interrupted write.

    A writer has cut them off; a read-only store ignores them. Nothing of them was acked.
    """

    bytes_dropped: int
    """How many bytes there were; 0 for none."""
    offset: int
    """The offset in the file at which they began."""


@frozen
class Problem:
    """Something that is wrong in a file."""

    offset: int
    """The offset in the file at which it was found."""
    message: str
    """What is wrong there."""


@frozen
class VerifyReport:
    """What :meth:`Store.verify` found."""

    ok: bool
    """Whether there is no problem."""
    problems: tuple[Problem, ...]
    """What is wrong, in the order of the file."""
    event_count: int
    """How many events were folded, including erased ones."""
    session_count: int
    """How many sessions there are, without deleted ones."""
    content_count: int
    """How many contents were checked against their digests."""
    byte_count: int
    """How many bytes of the file were read and are valid."""


@frozen
class CompactReport:
    """What :meth:`Store.compact` did."""

    bytes_before: int
    """The length of the log before, in bytes."""
    bytes_after: int
    """Its length now, in bytes."""
    erased_events: int
    """How many events this compaction erased."""
    generation: int
    """How often the file has been compacted by now."""


class SavedProjection(NamedTuple):
    """The last save of a projection."""

    at: int
    """Where it was saved: a number that only the log can interpret. The next save names it."""
    through: int
    """The sequence of the last event folded into it."""
    page_count: int
    """How many pages it has."""
    pages: dict[int, memoryview]
    """The pages by number, as far as they are there."""
