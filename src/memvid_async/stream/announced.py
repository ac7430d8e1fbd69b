"""What the server told of what was stored, until it is taken in."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

# At most this many bytes of messages are held; what is beyond is asked for when it is needed.
_HELD_BYTES = 8 * 1024 * 1024


class Announced(NamedTuple):
    """A message that the server announced."""

    sequence: int
    """Its sequence in the stream."""
    payload: bytes
    """What it holds."""
    at: float
    """When it came, by the monotonic clock."""


class Announcements:
    """The messages announced on one subject: noted in one thread, taken in another.

    ``newest``: the highest sequence that was announced.
    """

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self._lock = threading.Lock()
        self._held: deque[Announced] = deque()
        self._bytes = 0
        self.newest = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def note(self, sequence: int, payload: bytes) -> None:
        """Note a message."""
        with self._lock:
            if self._bytes + len(payload) <= _HELD_BYTES:
                self._held.append(Announced(sequence, payload, time.monotonic()))
                self._bytes += len(payload)
            self.newest = max(self.newest, sequence)

    def take(self, after: int) -> list[Announced]:
        """Return those that follow the sequence ``after`` in a row; those before them are gone."""
        found: list[Announced] = []
        with self._lock:
            while self._held and self._held[0].sequence <= after + len(found) + 1:
                message = self._held.popleft()
                self._bytes -= len(message.payload)
                if message.sequence == after + len(found) + 1:
                    found.append(message)
        return found
