"""A batch that is decided but not appended: dropped without a trace where somebody else was first.

What the log file knows is read, and not changed. So a batch that lost costs what deciding it cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from ..core.commands import Command
from ..core.decide import decide
from ..core.evolve import evolve_together
from ..core.recent_keys import KeyFacts, RecentKeys
from ..core.state import drafted
from ..errors import as_ours
from ..events.decided import AnyEvent, DecidedAction
from ..events.event import ContentStored
from ..events.keyed import CollectionChanged, KeyUsed
from ..file.catalog import Catalog
from ..file.log_file import LogFile, OwnSegment
from ..format.codec import encode_events
from ..format.segment import HEAD_SIZE, Segment, SegmentKind, seal
from .server_answers import StreamGoneError


class _StagedKeys(RecentKeys):
    """The keys that changed last, those of the draft included."""

    def __init__(self, before: RecentKeys, last: int) -> None:
        super().__init__(last)
        self._before = before
        self._last = last

    @property
    def floor(self) -> int:
        """See :class:`RecentKeys`."""
        own = super().floor
        return own if own > self._last else self._before.floor

    def get(self, collection: int, key: str) -> KeyFacts | None:
        """See :class:`RecentKeys`."""
        found = super().get(collection, key)
        if found is None and super().floor == self._last:
            found = self._before.get(collection, key)
        return found


class _StagedKnown:
    """What is known of the log besides the folded state, the draft included."""

    def __init__(self, catalog: Catalog, last: int) -> None:
        self._catalog = catalog
        self._contents: dict[bytes, int] = {}
        self._used_keys: dict[bytes, tuple[bytes, int]] = {}
        self._last = last

    @cached_property
    def recent_keys(self) -> RecentKeys:
        """See :class:`..core.new_contents.Known`, for this and the next ones."""
        return _StagedKeys(self._catalog.recent_keys, self._last)

    def used_key(self, key_hash: bytes, /) -> tuple[bytes, int] | None:
        """Return what a key came with, and its answer."""
        return self._used_keys.get(key_hash) or self._catalog.used_key(key_hash)

    def get(self, digest: bytes, /) -> int | None:
        """Return the sequence of the event that stored a content."""
        return self._contents.get(digest) or self._catalog.get(digest)

    def note(self, events: Sequence[AnyEvent]) -> None:
        """Note events of the draft."""
        for event in events:
            payload = event.payload
            if isinstance(payload, ContentStored):
                self._contents[payload.digest] = event.sequence
            elif isinstance(payload, CollectionChanged):
                self.recent_keys.note(event)
            elif isinstance(payload, KeyUsed):
                self._used_keys[payload.key_hash] = (payload.content_hash, payload.answer)


class BatchDraft:
    """Commands decided after the end of ``file``, and the segments that they would append.

    ``state``: the state after them, for the thread that makes the draft only. ``derived``, then
    ``own``: the segments; see :meth:`..file.log_file.LogFile.take_in_own`. ``size``: theirs.
    """

    def __init__(self, file: LogFile) -> None:
        self.state = drafted(file.state)
        self.known = _StagedKnown(file.catalog, file.state.last_sequence)
        self._file = file
        self._salt = file.header.salt
        self.checksum = file.checksum
        self._start = file.storage.size()
        self._pieces: list[bytes | bytearray] = []
        self.derived: list[Segment] = []
        self.own: list[OwnSegment] = []
        self.size = 0

    def stage(self, command: Command, clock: Callable[[], int]) -> Any:
        """Decide a command at the clock's time; return its answer, or the error that refuses it."""
        try:
            events, answer = decide(self.state, command, clock(), self.known)
            if not events:
                return answer
            payload = encode_events(events)
        except StreamGoneError:
            raise
        except BaseException as error:
            outcome = as_ours(error)
            if not isinstance(outcome, Exception):
                raise
            return outcome
        if not self._pieces:
            self._stage_positions()
        offset, sequence = self._start + self.size, events[0].sequence
        size = self._seal(SegmentKind.EVENTS, payload, sequence)
        self.state, owner = evolve_together(self.state, events)
        self.own.append((events, owner, offset, size))
        if len(events) > 1 or type(events[0].payload) is not DecidedAction:
            self.known.note(events)
        return answer

    def _stage_positions(self) -> None:
        """Stage the chunks of positions that are due: the log file notes them as it reads them."""
        catalog, after = self._file.catalog, self._file.state.last_sequence + 1
        for owner in catalog.due_positions():
            before, offset = self.checksum, self._start + self.size
            kind, payload = SegmentKind.POSITIONS, bytes(catalog.encode_positions(owner))
            end = offset + self._seal(kind, payload, after)
            self.derived.append(Segment(kind, after, payload, offset, end, before, self.checksum))

    def _seal(self, kind: SegmentKind, payload: bytes | bytearray, sequence: int) -> int:
        """Stage a segment, and return its size."""
        head, self.checksum = seal(kind, sequence, payload, self.checksum, self._salt)
        self._pieces.append(head)
        self._pieces.append(payload)
        size = HEAD_SIZE + len(payload)
        self.size += size
        return size

    @property
    def data(self) -> bytes:
        """The bytes to append."""
        return b"".join(self._pieces)
