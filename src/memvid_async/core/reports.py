"""What an event log tells of itself: its torn tail, what verifying and compacting found."""

from __future__ import annotations

from typing import NamedTuple

from attrs import frozen


@frozen
class TornTail:
    """What opening found after the last whole segment: bytes of a write that was cut short.

    A writer cut them off; a read-only store looks past them. Nothing of them was acked.
    """

    bytes_dropped: int
    """How many bytes there were; 0 where there was none."""
    offset: int
    """The byte of the file at which they began."""


@frozen
class Problem:
    """Something in a file that is not as it must be."""

    offset: int
    """The byte of the file at which it was found."""
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
    """Events that were folded again, erased ones included."""
    session_count: int
    """Sessions that they fold to, deleted ones left out."""
    content_count: int
    """Contents that were held against their digests."""
    byte_count: int
    """How many bytes of the file were read and found whole."""


@frozen
class CompactReport:
    """What :meth:`Store.compact` did."""

    bytes_before: int
    """The length of the log before, in bytes."""
    bytes_after: int
    """Its length now, in bytes."""
    erased_events: int
    """How many events lost what they held that still had it before."""
    generation: int
    """How often the file has been compacted by now."""


class SavedProjection(NamedTuple):
    """A projection as it was saved last."""

    at: int
    """Where it was saved: the changes since are saved upon it. Only the log knows what it means."""
    through: int
    """The sequence of the last event that is folded into it."""
    page_count: int
    """How many pages it has."""
    pages: dict[int, memoryview]
    """The pages by number, as far as they are there."""
