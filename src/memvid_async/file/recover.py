"""Recovery of a damaged file: a new file with everything that can still be proven good.

Every segment that is whole is copied with its own sequence, wherever in the file it is. Events that
are gone become stubs, so that the others keep their sequences. What is derived from events is made
again.
"""

from __future__ import annotations

import os
import uuid
from bisect import bisect_right
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from attrs import define, field, frozen

from ..config import DEFAULT_RECORDING
from ..core.session_state import SessionInfo
from ..errors import InvalidValueError, MemvidAsyncError, StoreFailedError
from ..events.event import Event, SessionEnded, SessionStarted
from ..events.keyed import CollectionCreated
from ..format.action_rows import content_references
from ..format.codec import encode_events
from ..format.header import LOG_START, Header, decode_header, is_unfinished
from ..format.kinds import (
    ACTION_KINDS,
    CALL_STARTED,
    CHECKPOINT,
    COLLECTION_CHANGED,
    COLLECTION_KINDS,
    DELETED,
    ERASED,
    STARTED,
    STORED,
)
from ..format.stubs import decode_stubs
from ..storage import FileStorage, Storage
from ..storage.beside import beside
from .log_copy import LogCopy
from .log_file import LogFile
from .wreck import Damage, DamagedBytes, Part, Progress, Wreck

# Ends the name of a file that is not whole yet, after the new file's id.
_SUFFIX = ".recovering"
LOST_START = "this session's start was lost: its metadata is unknown"
UNKNOWN_START = "this session's start was lost: its id, name, settings and metadata are unknown"
LOST_NAME = "recovered {number}: the name of this collection was lost"
ENDED_BY_RECOVERY = "ended by recovery: a part of this session was lost"


@frozen
class LostEvents:
    """Events that are gone, one after another."""

    first: int
    """The sequence of the first."""
    last: int
    """The sequence of the last."""


@frozen
class RecoverReport:
    """What :func:`recover` saved, and what it did not."""

    complete: bool
    """Whether nothing that was recorded is known or likely to be lost. Damage to what can be
    derived from the events costs nothing."""
    damage: tuple[Damage, ...]
    """The bytes that could not be used."""
    unexplained_bytes: int
    """How many of them, at the end, may have held anything: a torn write, or an unknown number of
    events."""
    lost: tuple[LostEvents, ...]
    """The events that are gone; each is :class:`Erased` in the new file."""
    lost_contents: int
    """How many of them are contents that actions which were saved refer to; reading one raises
    :class:`ContentNotFoundError`."""
    touched_sessions: tuple[UUID, ...]
    """The sessions known to have lost something; others may have, where events are lost."""
    rebuilt_sessions: tuple[UUID, ...]
    """Those of them whose start was lost."""
    ended_sessions: tuple[UUID, ...]
    """Those of them that were open, and were ended by the recovery."""
    header_lost: bool
    """Whether the header could not be used."""
    event_count: int
    """Events in the new file, those that are gone not counted."""
    session_count: int
    """Sessions in the new file."""
    content_count: int
    """Distinct contents of 1 KiB or more in the new file."""
    last_sequence: int
    """The sequence of the new file's last event."""
    lost_messages: int = 0
    """Of a stream, how many messages its servers do not have, or somebody else put into it. Where
    the last of them are gone, it is not known how many events these held."""


@define
class _Inventory:
    """What a first pass learns about the events that are left. Sessions are numbers."""

    lost: list[LostEvents] = field(factory=list)
    ids: dict[int, UUID] = field(factory=dict)
    """The ids of the sessions whose start is left."""
    next_index: dict[int, int] = field(factory=dict)
    """The index that each session's next action must have."""
    touched: set[int] = field(factory=set)
    """The sessions that have lost something."""
    orphans: set[int] = field(factory=set)
    """The sessions whose start is lost."""
    nameless: set[int] = field(factory=set)
    """The collections whose creation is lost."""
    deleted: set[int] = field(factory=set)
    lost_contents: set[int] = field(factory=set)
    """The sequences of lost contents that an action refers to."""
    last: int = 0
    """The highest sequence so far, of an event that is left or lost."""
    generation: int = 0
    event_count: int = 0

    def is_lost(self, sequence: int) -> bool:
        """Whether the event with this sequence is gone."""
        at = bisect_right(self.lost, sequence, key=lambda lost: lost.first) - 1
        return at >= 0 and sequence <= self.lost[at].last

    def reach(self, sequence: int) -> None:
        """Count the events up to this sequence that were not found as lost."""
        if sequence > self.last:
            self.lost.append(LostEvents(self.last + 1, sequence))
            self.last = sequence

    def take(self, part: Part) -> None:
        """Learn from the next part in the order of sequences."""
        self.reach(part.segment.sequence - 1)
        self.last = max(self.last, part.last)
        self.event_count += part.count
        for sequence, row in enumerate(part.rows or (), part.segment.sequence):
            self._take_row(row, sequence, part.session)

    def _take_row(self, row: list[Any], sequence: int, number: int) -> None:
        kind = row[0]
        if kind == STARTED and number == sequence:
            self.ids[number] = UUID(bytes=row[1])
        elif kind == DELETED:
            self.deleted.add(number)
        elif kind in COLLECTION_KINDS:
            if kind == COLLECTION_CHANGED and self.is_lost(row[1]):
                self.nameless.add(row[1])
            return
        elif kind in (ERASED, STORED) or not number:
            return
        elif number not in self.ids and self.is_lost(number):
            self.orphans.add(number)
        if kind in ACTION_KINDS or kind == CHECKPOINT:
            if row[1] != self.next_index.get(number, 0):
                self.touched.add(number)
            self.next_index[number] = row[1] + 1
        if kind == CHECKPOINT:
            self.generation = max(self.generation, row[5])
        elif kind in ACTION_KINDS or kind == CALL_STARTED:
            gone = [at for at in content_references(row) if self.is_lost(at)]
            if gone:
                self.touched.add(number)
                self.lost_contents.update(gone)


class _Salvage:
    """One recovery: ``wreck`` is read, and :meth:`write` fills the new file."""

    def __init__(self, wreck: Wreck) -> None:
        self._wreck = wreck
        self._saved: dict[int, SessionInfo] = {}
        self._rebuilt: dict[int, UUID] = {}
        self._ended: list[UUID] = []
        self.inventory = _Inventory()

    def look(self) -> None:
        """Find out which events are left, and which are lost."""
        found = self.inventory
        for part in self._wreck.parts(check=True):
            found.take(part)
        found.reach(self._wreck.known_last(found.last))
        found.orphans -= found.deleted
        found.touched |= found.orphans
        if found.orphans:
            for info in self._wreck.saved_sessions():
                if info.number in found.orphans:
                    self._saved[info.number] = info

    def write(self, target: LogFile) -> None:
        """Write the new file, durably."""
        copy = LogCopy(target)
        for part in self._wreck.parts(check=False):
            if part.count:
                self._fill(copy, part.segment.sequence - 1, part.time_ns)
            if part.rows is None:
                for time_ns, count in decode_stubs(part.segment.payload):
                    copy.add_stubs(time_ns, count)
            elif part.rows:
                parts = part.time_ns, part.session, part.rows
                copy.append(part.segment.payload, parts)
        self._fill(copy, self.inventory.last, 0)
        copy.flush_stubs()
        for number in sorted(self.inventory.touched):
            self._end(copy, number)
        copy.finish()
        self._wreck.finish()

    def _fill(self, copy: LogCopy, until: int, time_after: int) -> None:
        """Append stubs for the lost events up to ``until``, a new start for orphaned sessions, and
        a new name for collections that lost theirs.

        Their time is that of the event before them, or of the event after them (``time_after``)
        where none is before.
        """
        if copy.last_sequence >= until:
            return
        time_ns = copy.last_time_ns if copy.last_sequence else time_after
        found = self.inventory
        starts = [n for n in found.orphans | found.nameless if copy.last_sequence < n <= until]
        for number in sorted(starts):
            copy.add_stubs(time_ns, number - 1 - copy.last_sequence)
            if number in found.nameless:
                created = CollectionCreated(LOST_NAME.format(number=number))
                copy.append(encode_events([Event(number, time_ns, None, created)]))
            else:
                self._rebuild(copy, number, time_ns)
        copy.add_stubs(time_ns, until - copy.last_sequence)

    def _rebuild(self, copy: LogCopy, number: int, time_ns: int) -> None:
        """Append a session's new start, whose metadata says what is unknown.

        Its time is ``time_ns``, where no saved row of the session has its own.
        """
        saved = self._saved.get(number)
        session_id = uuid.uuid4()
        start = SessionStarted(
            None, ambient=False, config=DEFAULT_RECORDING, metadata={"recovered": UNKNOWN_START}
        )
        if saved is not None:
            session_id = saved.session_id
            time_ns = saved.created_ns
            start = SessionStarted(
                saved.name, saved.ambient, saved.config, {"recovered": LOST_START}
            )
        self._rebuilt[number] = session_id
        copy.append(encode_events([Event(number, time_ns, session_id, start, number)]))

    def _end(self, copy: LogCopy, number: int) -> None:
        """End a session that is open and has lost something: later actions could refer to that."""
        state = copy.target.state
        session = state.sessions.get(number)
        if session is not None and session.ended_ns is None:
            session_id, payload = session.info.session_id, SessionEnded(ENDED_BY_RECOVERY)
            sequence, time_ns = state.last_sequence + 1, state.last_time_ns
            copy.append(encode_events([Event(sequence, time_ns, session_id, payload, number)]))
            self._ended.append(session_id)

    def report(self, target: LogFile) -> RecoverReport:
        """Return what was saved and what was lost."""
        found = self.inventory
        damage, unexplained = self._wreck.damage(found.last)
        ids = {**found.ids, **self._rebuilt}
        return RecoverReport(
            complete=not found.lost and not unexplained,
            damage=damage,
            unexplained_bytes=unexplained,
            lost=tuple(found.lost),
            lost_contents=len(found.lost_contents),
            touched_sessions=tuple(ids[n] for n in sorted(found.touched) if n in ids),
            rebuilt_sessions=tuple(self._rebuilt.values()),
            ended_sessions=tuple(self._ended),
            header_lost=self._wreck.header is None,
            event_count=found.event_count,
            session_count=len(target.state.sessions),
            content_count=target.catalog.content_count,
            last_sequence=target.state.last_sequence,
        )


def recover_into(
    source: DamagedBytes, target: Storage, progress: Progress, file_id: UUID | None = None
) -> RecoverReport:
    """Write everything of ``source`` that can still be proven good to ``target``, which is empty.

    ``file_id``: the new file's; None for a random one.

    :raises NotAStoreError: when nothing of a store is left.
    :raises UnsupportedVersionError: when a newer release wrote it.
    """
    wreck = Wreck(source, progress)
    salvage = _Salvage(wreck)
    salvage.look()
    header = wreck.header
    generation = header.generation if header else salvage.inventory.generation
    file = LogFile.create(target, Header(file_id or uuid.uuid4(), min(generation, 2**32 - 1)))
    salvage.write(file)
    return salvage.report(file)


def recover_file(damaged: Path, out: Path, progress: Progress) -> RecoverReport:
    """Recover the file ``damaged`` into a new file ``out``. Blocking; see
    :func:`memvid_async.recover`. It stops where ``progress`` raises."""
    check_new(out)
    source = FileStorage.open(damaged, read_only=True)
    try:
        return recover_to(source, out, progress)
    finally:
        source.close()


def check_new(out: Path) -> None:
    """Refuse the path of a new file that is there already."""
    if os.path.lexists(out):
        raise InvalidValueError(f"{out} exists already; name a new file")


def recover_to(source: DamagedBytes, out: Path, progress: Progress) -> RecoverReport:
    """Recover the bytes of a damaged log into a new file ``out``."""
    _discard_left(out)
    file_id = uuid.uuid4()
    unfinished = _unfinished(out, file_id)
    target = FileStorage.open(unfinished)
    try:
        target.lock(0)
        report = recover_into(source, target, progress, file_id)
        if isinstance(source, FileStorage):
            target.take_attributes(source)
        _install(unfinished, out)
        target.sync_directory()
    finally:
        target.close()
        unfinished.unlink(missing_ok=True)
    return report


def _unfinished(out: Path, file_id: UUID) -> Path:
    """Return the path of the file of this id until it is whole and gets the name ``out``."""
    return beside(out, f".{file_id.hex}{_SUFFIX}")


def _discard_left(out: Path) -> None:
    """Remove what killed recoveries to ``out`` left, if anything.

    Each is proven by its name, which holds the id in its own header, and by its lock, which nobody
    holds any more. Whatever else has such a name is left alone.
    """
    with suppress(OSError):
        for path in list(out.parent.iterdir()):
            stem = path.name.removesuffix(_SUFFIX)
            with suppress(ValueError, MemvidAsyncError, OSError):
                if stem != path.name and path == _unfinished(out, UUID(stem[-32:])):
                    _discard(path, stem[-32:])


def _discard(path: Path, file_id: str) -> None:
    found = FileStorage.open(path, create=False)
    try:
        found.lock(0)
        start = found.read(0, LOG_START)
        if is_unfinished(start, found.size()) or decode_header(start).file_id.hex == file_id:
            path.unlink()
    finally:
        found.close()


def _install(unfinished: Path, out: Path) -> None:
    """Give the finished file its name, without ever replacing another file."""
    try:
        out.hardlink_to(unfinished)
    except FileExistsError:
        raise InvalidValueError(f"{out} exists already; name a new file") from None
    except OSError as error:
        raise StoreFailedError(f"{out} cannot be made: {error}") from error
