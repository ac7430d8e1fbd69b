"""Compaction: the log is written again without what was deleted.

Every event keeps its sequence and time. Events of deleted sessions, and content that no other event
refers to, become stubs. Of collections, only what their keys hold is left. Everything else is
copied unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.reports import CompactReport
from ..errors import CorruptFileError
from ..events.content import Content
from ..format.action_rows import content_references
from ..format.codec import started_row_without_names
from ..format.frame_rows import (
    HOLDERS,
    content_fields,
    content_sequences,
    without_embeddings,
    without_frames,
)
from ..format.header import LOG_START
from ..format.kinds import (
    ACTION_KINDS,
    CALL_STARTED,
    COLLECTION_CHANGED,
    COLLECTION_CREATED,
    DELETED,
    EMBEDDINGS_MADE,
    ERASED,
    FRAME_KINDS,
    KEY_USED,
    MODEL_SET,
    STARTED,
    STORED,
)
from ..format.rows import decode_rows, encode_rows
from ..format.segment import Segment, SegmentKind, scan
from ..format.stubs import decode_stubs
from .file_view import FileView
from .living_keys import LivingKeys
from .log_copy import STEP_BYTES, LogCopy
from .log_file import LogFile

# Folds the projections of a view. Returns the arguments of :meth:`LogFile.save_projection` for each
# that is worth being saved.
FoldWhole = Callable[[FileView], Sequence[tuple[str, int, int, Sequence[tuple[int, bytes]]]]]


def fold_nothing(_view: FileView) -> tuple[()]:
    """Save no projection: the next reader folds it."""
    return ()


# The kinds whose row may refer to contents, frames' aside.
_REFERRING = {*ACTION_KINDS, CALL_STARTED}


class _Compactor:
    """Copies a log to another file, segment by segment."""

    def __init__(self, source: LogFile, target: LogFile, now: int) -> None:
        self._source = source
        self._keys = LivingKeys(now)
        self._copy = LogCopy(target)
        state = source.state
        # The memories that are still read: the shared one, forks' own, and those they come from.
        self._branches = {0}
        branches = dict(state.memory.branches)
        for number in branches:
            part = number if number in state.sessions else 0
            while part not in self._branches:
                self._branches.add(part)
                part = branches[part].parent
        # The moves to another embedding model that came to their end.
        self._moves: set[int] = set()
        self._kept = self._referenced()
        self.erased = 0

    def segments(self) -> Iterator[Segment]:
        """Iterate over the source's segments, in order."""
        source = self._source
        salt = source.header.salt
        return scan(source.storage.read, LOG_START, source.view.end, salt, salt)

    def _referenced(self) -> set[int]:
        """Return the sequences of the contents to which sessions and frames that are left refer."""
        kept: set[int] = set()
        for segment in self.segments():
            if segment.kind != SegmentKind.EVENTS:
                continue
            with _damage_named(segment):
                _, session, rows = decode_rows(segment.payload)
                for sequence, row in enumerate(rows, segment.sequence):
                    if row[0] == COLLECTION_CHANGED:
                        self._keys.note(row, sequence)
                    elif row[0] == MODEL_SET:
                        self._moves.add(row[3])
                    kept.update(self._references(row, session, rows))
        return kept

    def _references(self, row: list[Any], session: int, rows: list[list[Any]]) -> Iterable[int]:
        """Return the contents that an event keeps: those of an action or of a frame.

        An action beside a frame's event keeps none, because it names that frame.
        """
        if row[0] in HOLDERS:
            is_alive = self._living_in(row[2])
            fields = (field for frame_id, field in content_fields(row) if is_alive(frame_id))
            return [sequence for field in fields for sequence in content_sequences(field)]
        if row[0] not in _REFERRING or session not in self._source.state.sessions:
            return ()
        return () if any(row[0] in HOLDERS for row in rows) else content_references(row)

    def _living_in(self, branch: int) -> Callable[[int], bool]:
        """Return a function that tells whether a frame of a branch's memory is alive, by its id.

        It is if it was not deleted, and a session that is left has that memory.
        """
        memory, left = self._source.state.memory, self._branches

        def is_alive(frame_id: int) -> bool:
            for number in {branch, memory.owners.get(frame_id, 0)}:
                part = memory.branches.get(number) if number else memory
                if part is None or frame_id in part.gone or number not in left:
                    return False
            return True

        return is_alive

    def carry(self, segment: Segment) -> None:
        """Copy a segment, or what is left of it.

        :raises ValueError: when it is not as its kind requires, or not the next one.
        """
        if segment.sequence != self._copy.last_sequence + 1:
            raise ValueError("the log's sequence has a gap")
        if segment.kind == SegmentKind.STUBS:
            for time_ns, count in decode_stubs(segment.payload):
                self._copy.add_stubs(time_ns, count)
        elif segment.kind == SegmentKind.EVENTS:
            parts = time_ns, session, rows = decode_rows(segment.payload)
            left = [
                self._left(row, sequence, session)
                if row[0] != KEY_USED
                else self._left_key(row, rows, session)
                for sequence, row in enumerate(rows, segment.sequence)
            ]
            self.erased += sum(row != old for row, old in zip(left, rows, strict=True))
            if all(row == [ERASED] for row in left):
                self._copy.add_stubs(time_ns, len(left))
            elif left == rows:
                self._copy.append(segment.payload, parts)
            else:
                named = session in self._source.state.sessions or left[0][0] == STARTED
                session = session if named else 0
                self._copy.append(encode_rows(time_ns, session, left))

    def _content(self, sequence: int) -> Content:
        return self._source.reader.content(sequence, self._source.view.end)

    def finish(self, fold: FoldWhole) -> None:
        """Write the rest and the folded projections, and make everything durable."""
        target = self._copy.target
        self._copy.flush_stubs()
        target.write_out()
        for folded in fold(target.view):
            target.save_projection(*folded)
        self._copy.finish()

    def _left(self, row: list[Any], sequence: int, session: int) -> list[Any]:
        kind = row[0]
        if kind == STORED:
            return row if sequence in self._kept else [ERASED]
        if kind in HOLDERS:
            is_alive = self._living_in(row[2])
            return without_frames(row, lambda frame_id: not is_alive(frame_id), self._content)
        if kind == COLLECTION_CHANGED:
            return self._keys.left(row, sequence)
        if kind == EMBEDDINGS_MADE:
            is_alive = self._living_in(0)
            is_used = (row[1] or sequence) in self._moves
            return without_embeddings(row, lambda one: not (is_used and is_alive(one)))
        if kind in FRAME_KINDS or kind == COLLECTION_CREATED:
            return row
        # A session's deletion stays: it only says which session is gone.
        if session in self._source.state.sessions or session == 0 or kind == DELETED:
            return row
        if kind == STARTED and session in self._branches:
            # A fork of it is left, and needs to know where the memory that they share began.
            return started_row_without_names(row)
        return [ERASED]

    def _left_key(self, row: list[Any], rows: list[list[Any]], session: int) -> list[Any]:
        """Return what is left of an idempotency key: all of it, unless its session is gone.

        That of a put goes on to name the frame.
        """
        is_put = any(other[0] in HOLDERS for other in rows)
        alive = not session or session in self._source.state.sessions
        return row if is_put or alive else [ERASED]


@contextmanager
def _damage_named(segment: Segment) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None


def compact_into(
    target: LogFile,
    source: LogFile,
    now: int,
    progress: Callable[[int, int], None],
    fold: FoldWhole,
) -> CompactReport:
    """Write what is left of ``source`` at the time ``now`` to ``target``, which is new, durably;
    return a report.

    ``fold`` makes the projections that the new file has as saved.

    :raises CorruptFileError: when the source is damaged; it is not changed.
    """
    total = source.view.end
    compactor = _Compactor(source, target, now)
    told = 0
    position = LOG_START
    for segment in compactor.segments():
        with _damage_named(segment):
            compactor.carry(segment)
        position = segment.end
        if position - told >= STEP_BYTES:
            progress(position, total)
            told = position
    source.require_end(position)
    compactor.finish(fold)
    progress(total, total)
    return CompactReport(total, target.view.end, compactor.erased, target.header.generation)
