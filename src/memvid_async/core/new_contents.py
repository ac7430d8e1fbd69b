"""The contents that a command brings along: what the log does not hold becomes events."""

from __future__ import annotations

from typing import Protocol

from ..events.content import BEGIN_BYTES, Content, StoredContent, content_digest
from ..events.decided import DecidedEvent
from ..events.event import ContentStored, Payload
from .commands import LargeContent, Prepared
from .recent_keys import RecentKeys


class Known(Protocol):
    """What is known of the log besides the folded state: which contents it holds, which keys of
    collections changed last."""

    @property
    def recent_keys(self) -> RecentKeys:
        """The keys that changed last."""
        ...

    def used_key(self, key_hash: bytes, /) -> tuple[bytes, int] | None:
        """Return what an idempotency key came with (a hash), and the sequence of its answer."""
        ...

    def get(self, digest: bytes, /) -> int | None:
        """Return the sequence of the event that stored the content with this digest, or None."""


class NewContents:
    """The contents of one command. What the log does not hold yet becomes events of its own."""

    __slots__ = ("_events", "_known", "_last", "_new", "_now")

    def __init__(self, last: int, now: int, known: Known, events: list[DecidedEvent]) -> None:
        self._last = last
        self._now = now
        self._known = known
        self._events = events
        self._new: dict[bytes, int] = {}

    def content(self, data: Prepared | Content) -> Content:
        """Return prepared data as an event refers to it."""
        if isinstance(data, Content):
            # Its parts are in the log already.
            return data
        if type(data) is not LargeContent:
            return Content(data)  # type: ignore[arg-type]
        sequence = self._store(data.digest, data.size, data.data)
        begin = b"" if isinstance(data.data, str) else data.data[:BEGIN_BYTES]
        stored = StoredContent(data.digest, data.size, data.preview, sequence, begin=begin)
        return Content(None, stored)

    def store_string(self, data: str | bytes) -> int:
        """Return the sequence of the event that holds a string."""
        size = len(data.encode()) if isinstance(data, str) else len(data)
        return self._store(content_digest(data), size, data)

    def _store(self, digest: bytes, size: int, data: str | bytes) -> int:
        sequence = self._known.get(digest)
        if sequence is None:
            sequence = self._new.get(digest)
        if sequence is None:
            # It belongs to no session, because others may refer to it later.
            sequence = self._new[digest] = self.add(ContentStored(digest, size, data))
        return sequence

    def add(self, payload: Payload) -> int:
        """Add an event that belongs to no session, and return its sequence."""
        sequence = self._last + len(self._events) + 1
        self._events.append(DecidedEvent(sequence, self._now, None, payload))
        return sequence
