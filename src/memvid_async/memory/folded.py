"""The memory, folded from the log into a search index: live, or as it was at some moment.

Synchronous; used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from attrs import evolve

from ..core.state import State
from ..engine.event_log import View
from ..errors import ContentNotFoundError, CorruptFileError, UnsupportedVersionError
from ..events.content import Content
from ..events.event import Event
from ..events.frames import (
    Frame,
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    Version,
)
from ..events.pace import unhurried
from ..search import Batch, DamagedSearchIndexError, FramePlace, IndexedFrame, SearchIndex
from ..search.schema import TOKENIZERS

# Events are read from the file in pieces of about so many bytes.
_READ_BYTES = 1024 * 1024
# So many characters of texts that were read are kept.
_CACHED_CHARS = 512 * 1024
# A save is due when so many bytes of text were folded since the last, or a part of all the text.
_SAVE_BYTES = 256 * 1024
_SAVE_PART = 64
# Nor may more than this be put, or this part of all the text, while a save goes on.
_BEHIND_BYTES = 384 * 1024
_BEHIND_PART = 48
# Pages that later ones replaced are left behind; past so many times the index it is saved whole.
_MOST_SAVED = 3

# The memories that one is made of: the number, and the last sequence that counts.
Lineage = Sequence[tuple[int, int]]
SHARED: Lineage = ((0, 2**63),)


def lineage_of(state: State, number: int, until: int = 2**63) -> Lineage:
    """The memories that a session sees, as far as the event ``until``: the one that all share,
    but for a fork."""
    branch = number if number in state.memory.branches else 0
    return tuple((part, min(last, until)) for part, last, _ in state.memory.lineage(branch))


# Of a body that was put as a stream, so many parts of a mebibyte are searched. It must not change
# while a file lives: what was indexed is taken out of the index by the same text.
_SEARCHED_PARTS = 16
_TEXT_TYPES = ("text/", "application/json", "application/xml", "application/yaml")


def is_text(media_type: str | None) -> bool:
    """Whether bytes of a media type are text."""
    return media_type is not None and media_type.lower().startswith(_TEXT_TYPES)


def text_of(data: str | bytes, media_type: str | None) -> str:
    """What is searched of a frame's body: text, or bytes that a media type says are text."""
    if isinstance(data, str):
        return data
    if is_text(media_type):
        return data.decode("utf-8", "replace")
    return ""


class FoldedMemory:
    """The frames of a memory and their index, up to the last event that was asked for.

    ``lineage``: a fork's own memory before its parents'.
    """

    def __init__(self, lineage: Lineage = SHARED, *, is_live: bool = True) -> None:
        self._until = dict(lineage)
        # Only such a one is saved.
        self._is_live = is_live and lineage == SHARED
        self._view: View | None = None
        self._index: SearchIndex | None = None
        # The last event that was looked at, and a byte that the next one begins at or behind.
        self._through = self._behind = 0
        # Frames that a compaction erased, or damage, and that nobody had deleted yet.
        self.missing: set[int] = set()
        # The texts that snippets were made of, by sequence; what is found is often found again.
        self._texts: dict[tuple[Version, str | None], str] = {}
        self._text_room = _CACHED_CHARS
        self._unsaved = self._text_bytes = 0
        self._saved_at = self._saved_pages = 0

    @property
    def through(self) -> int:
        """The sequence of the last event that was looked at."""
        return self._through

    def close(self) -> None:
        """Give the memory back."""
        if self._index is not None:
            self._index.close()
            self._index = None

    @property
    def is_open(self) -> bool:
        """Whether it was asked for anything yet."""
        return self._index is not None

    @property
    def most_behind(self) -> int:
        """How many bytes may be put while a save goes on."""
        return max(_BEHIND_BYTES, self._text_bytes // _BEHIND_PART)

    def interrupt(self) -> None:
        """Stop a find that is under way; from any thread."""
        index = self._index
        if index is not None:
            index.interrupt()

    # Folding.

    def continue_as(self, lineage: Lineage) -> bool:
        """Take another lineage, if it counts the same events up to now; whether it does. So the
        memory of a session goes on as that of its fork."""
        if self._counted(lineage) != self._counted(self._until.items()):
            return False
        self._until = dict(lineage)
        return True

    def _counted(self, lineage: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Per memory, up to which event of those looked at it counts; a later one has none yet."""
        through = self._through
        return {number: min(last, through) for number, last in lineage if number <= through}

    def catch_up(self, view: View, until: int = 2**63) -> SearchIndex:
        """Fold what the view shows, up to the event ``until``, and the index does not hold yet.

        :raises CorruptFileError: when the log is damaged.
        :raises UnsupportedVersionError: when a newer release's way to read words is asked for.
        """
        analyser = view.state.memory.analyser or "english"
        if analyser not in TOKENIZERS:
            raise UnsupportedVersionError(f"this release knows no analyser {analyser!r:.80}")
        if self._index is None or self._view is None or self._view.edition is not view.edition:
            self._restart(view, analyser, until)
        assert self._index is not None
        if self._index.language != analyser:
            # It was made before the file had a frame.
            self._restart(view, analyser, until)
        if self._view is None or self._view.state.last_sequence <= view.state.last_sequence:
            # A save may have folded a later view than the one that a find was given.
            self._view = view
        index = self._index
        if self._saved_at:
            with suppress(DamagedSearchIndexError, KeyError, ValueError):
                self._fold(view, index, until)
                return index
            # A saved index that loads and is wrong all the same: the events have the last word.
            self._restart(view, analyser, 0)
        try:
            self._fold(view, self._index, until)
        except (DamagedSearchIndexError, KeyError, ValueError) as error:
            raise CorruptFileError(self._behind, f"the memory does not fold: {error}") from None
        return self._index

    def _restart(self, view: View, analyser: str, until: int) -> None:
        """Begin anew, from a saved index that goes no further than the event ``until``."""
        self.close()
        self._view = view
        self._index = SearchIndex(self._read_text, language=analyser)
        self._through = self._behind = self._unsaved = self._text_bytes = 0
        self._saved_at = self._saved_pages = 0
        self.missing = set()
        self._texts, self._text_room = {}, _CACHED_CHARS
        if until and set(self._until) == {SHARED[0][0]}:
            # What a fork has of its own is in no save.
            last = min(view.state.last_sequence, max(self._until.values()), until)
            self._load(view, self._index, last)

    def _load(self, view: View, index: SearchIndex, until: int) -> None:
        try:
            saved = view.saved_memory(until)
            if saved is None:
                return
            index.load(saved.page_count, saved.pages.items())
        except (CorruptFileError, ValueError, OSError):
            # It can be made again from the events.
            index.clear()
            return
        if index.through <= until:
            self._saved_at, self._through = saved.at, index.through
            self._saved_pages = len(saved.pages)
            self._text_bytes = index.total_size
        else:
            index.clear()

    def _fold(self, view: View, index: SearchIndex, until: int) -> None:
        last = min(view.state.last_sequence, max(self._until.values()), until)
        # Where all of the log is folded, no segment is left that is to be looked at again.
        whole = last == view.state.last_sequence
        behind = self._behind
        while self._through < last:
            reached = self._through
            waiting = _Waiting(index)
            found = view.memory_events(reached, _READ_BYTES, last, behind)
            for event, offset in unhurried(found):
                self._take_in(view, waiting, event, offset)
                reached, behind = event.sequence, offset + 1
                self._behind = behind if whole else offset
            waiting.put()
            self._through = reached if reached > self._through else last
            index.through = self._through

    def _take_in(self, view: View, waiting: _Waiting, event: Event, offset: int) -> None:
        payload: Any = event.payload
        branch = getattr(payload, "branch", None)
        if branch is None or event.sequence > self._until.get(branch, 0):
            return
        if isinstance(payload, FramesPut):
            self._put(view, waiting, event, payload, offset)
        elif payload.frame_id in self.missing:
            if isinstance(payload, FrameDeleted):
                self.missing.discard(payload.frame_id)
        elif not isinstance(payload, FrameErased):
            waiting.put()
            self._change(view, waiting.index, event, offset)

    def _put(
        self, view: View, waiting: _Waiting, event: Event, put: FramesPut, offset: int
    ) -> None:
        sequence, time_ns = event.sequence, event.time_ns
        for place, kept in enumerate(unhurried(put.kept)):
            frame_id = put.frame_id + place
            if isinstance(kept, str):
                # The quick way for what most frames are.
                text = kept
                waiting.batch.add_text(frame_id, (sequence, place), offset, time_ns, text)
            else:
                frame = put[place]
                if isinstance(frame, FrameErased):
                    self.missing.add(frame_id)
                    continue
                text = self._text(view, frame.content, frame.media_type)
                waiting.batch.add(_new_row(frame, event, place, offset), text)
            self._unsaved += len(text)
            self._text_bytes += len(text)
            if waiting.batch.is_full:
                waiting.put()

    def _change(self, view: View, index: SearchIndex, event: Event, offset: int) -> None:
        payload: Any = event.payload
        old = index.get(payload.frame_id)
        if old is None:
            if self._saved_at:
                raise KeyError(payload.frame_id)
            # Its put was lost to damage, and a recovery kept what came after it.
            if not isinstance(payload, FrameDeleted):
                self.missing.add(payload.frame_id)
            return
        old_text = self._read_text(old.offset, old.version, old.media_type)
        if isinstance(payload, FrameDeleted):
            index.delete(payload.frame_id, old_text)
            return
        assert isinstance(payload, FrameUpdated)
        changes = dict(payload.changes)
        content = changes.pop("content", None)
        row = evolve(old, updated_ns=event.time_ns, **changes)
        text = old_text
        if content is not None:
            row = evolve(row, sequence=event.sequence, place=0, offset=offset, size=content.size)
            text = self._text(view, content, row.media_type)
        elif row.media_type != old.media_type:
            text = self._read_text(row.offset, row.version, row.media_type)
        index.update(row, text, old_text)
        self._unsaved += len(text)

    def _text(self, view: View, content: Content, media_type: str | None) -> str:
        stored = content.stored
        try:
            if stored is None or not stored.parts:
                return text_of(view.value(content), media_type)
            if not is_text(media_type):
                return ""
            count = min(len(stored.parts), _SEARCHED_PARTS)
            parts = (view.part(content, i) for i in range(count))
            return text_of(b"".join(parts), media_type)
        except ContentNotFoundError:
            # What a recovery could not save.
            return ""

    def _read_text(self, offset: int, version: Version, media_type: str | None) -> str:
        key = (version, media_type)
        text = self._texts.get(key)
        if text is None:
            assert self._view is not None
            content = self._view.frame_content(offset, version)
            text = self._text(self._view, content, media_type)
            self._text_room -= len(text)
            if self._text_room < 0:
                self._texts, self._text_room = {}, _CACHED_CHARS
            if len(text) < _CACHED_CHARS // 16:
                self._texts[key] = text
        return text

    # Frames.

    def frame(self, row: IndexedFrame) -> Frame:
        """The frame that a row of the index stands for."""
        assert self._view is not None
        return Frame(
            frame_id=row.frame_id,
            content=self._view.frame_content(row.offset, row.version),
            title=row.title,
            uri=row.uri,
            media_type=row.media_type,
            tags=row.tags,
            metadata=row.metadata,
            embedding_model=row.embedding_model,
            created_ns=row.time_ns,
            updated_ns=row.updated_ns,
            sequence=row.sequence,
            place=row.place,
        )

    def text(self, place: FramePlace) -> str:
        """The body of a frame, as it is searched."""
        return self._read_text(place.offset, place.version, place.media_type)

    # Saving.

    def due(self, view: View) -> tuple[object, int, int, int, list[tuple[int, bytes]]] | None:
        """What :meth:`EventLog.save_memory` is to keep: None while too little is new."""
        self.catch_up(view)
        index = self._index
        assert index is not None
        if not self._is_live or self.missing:
            return None
        if self._unsaved < max(_SAVE_BYTES, self._text_bytes // _SAVE_PART):
            return None
        if self._saved_pages > _MOST_SAVED * index.page_count:
            self._saved_at = self._saved_pages = 0
        if not self._saved_at:
            index.forget_saved()
        try:
            dump = index.dump()
        except OSError:
            # It is only a cache; the next put asks again.
            return None
        self._unsaved = 0
        self._saved_pages += len(dump.pages)
        return view.edition, self._saved_at, self._through, dump.page_count, dump.pages

    def rest(self) -> None:
        """No save will follow soon."""
        if self._index is not None:
            self._index.rest()

    def saved(self, offset: int) -> None:
        """The last dump stands at this offset; at 0 it was not kept, and the next one is whole."""
        self._saved_at = offset
        if not offset:
            self._saved_pages = 0


class _Waiting:
    """Frames that are put into an index together, before anything else is done to it."""

    def __init__(self, index: SearchIndex) -> None:
        self.index = index
        self.batch = Batch()

    def put(self) -> None:
        """Put what waits."""
        batch, self.batch = self.batch, Batch()
        if batch.count:
            self.index.put_many(batch)


def _new_row(payload: FramePut, event: Event, place: int, offset: int) -> IndexedFrame:
    return IndexedFrame(
        payload.frame_id,
        event.sequence,
        offset,
        event.time_ns,
        event.time_ns,
        payload.title,
        payload.uri,
        payload.media_type,
        payload.tags,
        payload.metadata,
        payload.content.size,
        payload.embedding,
        payload.embedding_model,
        place,
    )
