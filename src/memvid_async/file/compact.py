"""Compaction: the log is written again without what was deleted.

Every event keeps its sequence and time. Events of deleted sessions, and content that no other event
refers to, become stubs. Of collections, only what their keys hold is left. Everything else is
copied unchanged.

What is left is judged at one moment. Events that others append while the log is copied are copied
after it as they are: the result is that of a compaction at that moment, and of these events after
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..core.recent_keys import RecentKeys
from ..errors import CorruptFileError
from ..events.content import Content
from ..events.pace import unhurried
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
from ..format.segment import Segment, SegmentKind
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


class _Judge:
    """Tells what is left of the events in a view, at the time ``now``.

    ``kept``: the sequences of the contents to which what is left refers. ``moves``: the moves to
    another embedding model that came to their end.
    """

    def __init__(self, source: FileView, now: int) -> None:
        self._source = source
        self._keys = LivingKeys(now)
        state = source.state
        # The memories that are still read: the shared one, forks' own, and those they come from.
        self._branches = {0}
        branches = dict(state.memory.branches)
        for number in branches:
            part = number if number in state.sessions else 0
            while part not in self._branches:
                self._branches.add(part)
                part = branches[part].parent
        self.moves: set[int] = set()
        self.kept: set[int] = set()

    def note(self, segment: Segment) -> None:
        """Note a segment of events. All of them are noted before :meth:`left` is called."""
        _, session, rows = decode_rows(segment.payload)
        for sequence, row in enumerate(rows, segment.sequence):
            if row[0] == COLLECTION_CHANGED:
                self._keys.note(row, sequence)
            elif row[0] == MODEL_SET:
                self.moves.add(row[3])
            self.kept.update(self._references(row, session, rows))

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

    def left(self, rows: list[list[Any]], sequence: int, session: int) -> list[list[Any]]:
        """Return what is left of the rows of a command, the first of which has this sequence."""
        return [
            self._left(row, at, session)
            if row[0] != KEY_USED
            else self._left_key(row, rows, session)
            for at, row in enumerate(rows, sequence)
        ]

    def _content(self, sequence: int) -> Content:
        return self._source.content(sequence)

    def _left(self, row: list[Any], sequence: int, session: int) -> list[Any]:
        kind = row[0]
        if kind == STORED:
            return row if sequence in self.kept else [ERASED]
        if kind in HOLDERS:
            is_alive = self._living_in(row[2])
            return without_frames(row, lambda frame_id: not is_alive(frame_id), self._content)
        if kind == COLLECTION_CHANGED:
            return self._keys.left(row, sequence)
        if kind == EMBEDDINGS_MADE:
            is_alive = self._living_in(0)
            is_used = (row[1] or sequence) in self.moves
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


class Compactor:
    """Copies a log to another file: what is left of a view of it, then what was appended since.

    It is used by one thread at a time, and needs no lock. ``target``: a new file. ``now``: what has
    expired by then goes, in nanoseconds since the Unix epoch. ``position``: the offset up to which
    the source was copied. ``erased``: how many events went.
    """

    def __init__(self, source: FileView, target: LogFile, now: int) -> None:
        self.source = source
        self._judge = _Judge(source, now)
        self._copy = LogCopy(target)
        self.position = LOG_START
        # Of the last segment that was copied.
        self._checksum = source.reader.salt
        self.erased = 0

    def copy(self, progress: Callable[[int, int], None]) -> None:
        """Copy what is left. ``progress`` is called with the bytes done and the bytes there are.

        :raises CorruptFileError: when the source is damaged.
        """
        total = self.source.end
        for segment in unhurried(self._segments(), 1):
            if segment.kind == SegmentKind.EVENTS:
                with _damage_named(segment):
                    self._judge.note(segment)
        told = 0
        for segment in unhurried(self._segments(), 1):
            with _damage_named(segment):
                self._carry(segment)
            self._note_copied(segment)
            if segment.end - told >= STEP_BYTES:
                progress(segment.end, total)
                told = segment.end
        if self.position != total:
            raise CorruptFileError(self.position, "there is no valid segment")
        self._copy.flush_stubs()
        # Keys of which nothing is left have changed too, and nobody noted that here.
        target = self._copy.target
        target.catalog.recent_keys = RecentKeys(target.state.last_sequence)
        progress(total, total)

    def save(self, fold: FoldWhole) -> None:
        """Save the projections that ``fold`` makes of the copy so far, with a TOC, durably."""
        target = self._copy.target
        target.write_out()
        for folded in fold(target.view):
            target.save_projection(*folded)
        self._copy.finish()

    def _segments(self) -> Iterator[Segment]:
        """Iterate over the view's segments, in order."""
        reader = self.source.reader
        return reader.scan(LOG_START, self.source.end, reader.salt)

    def _carry(self, segment: Segment) -> None:
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
            left = self._judge.left(rows, segment.sequence, session)
            self.erased += sum(row != old for row, old in zip(left, rows, strict=True))
            if all(row == [ERASED] for row in left):
                self._copy.add_stubs(time_ns, len(left))
            elif left == rows:
                self._copy.append(segment.payload, parts)
            else:
                named = session in self.source.state.sessions or left[0][0] == STARTED
                self._copy.append(encode_rows(time_ns, session if named else 0, left))

    def _note_copied(self, segment: Segment) -> None:
        self.position, self._checksum = segment.end, segment.checksum

    def catch_up(self, end: int) -> None:
        """Copy what was appended since, up to the offset ``end`` of the source, as it is.

        It stops before an event that refers to what the copy lacks: a content, for one, that was
        left out because nobody referred to it, and was then recorded once more.
        """
        reader = self.source.reader
        for segment in unhurried(reader.scan(self.position, end, self._checksum), 1):
            with _damage_named(segment):
                if segment.kind == SegmentKind.EVENTS:
                    parts = decode_rows(segment.payload)
                    if not all(map(self._is_whole, parts[2])):
                        return
                    self._copy.append(segment.payload, parts)
                self._note_copied(segment)

    def _is_whole(self, row: list[Any]) -> bool:
        """Whether the copy has what an appended event refers to."""
        last = self.source.state.last_sequence
        if row[0] == MODEL_SET:
            return not 0 < row[3] <= last or row[3] in self._judge.moves
        found: Iterable[int] = ()
        if row[0] in HOLDERS:
            found = (at for _, field in content_fields(row) for at in content_sequences(field))
        elif row[0] in _REFERRING:
            found = content_references(row)
        return all(sequence > last or sequence in self._judge.kept for sequence in found)

    def is_copy_of(self, source: LogFile) -> bool:
        """Whether all of a log was copied: its last checksum depends on all before it."""
        return (self.position, self._checksum) == (source.view.end, source.checksum)


@contextmanager
def _damage_named(segment: Segment) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, LookupError) as error:
        raise CorruptFileError(segment.offset, str(error)) from None
