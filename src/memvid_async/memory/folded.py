"""The memory, folded from the log into a search index: live, or as it was at one moment.

It is synchronous and used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any, TypeVar

from attrs import evolve

from ..core.state import State
from ..engine.event_log import View
from ..errors import (
    ContentNotFoundError,
    CorruptFileError,
    UnsupportedVersionError,
)
from ..events.content import Content
from ..events.embeddings import EmbeddingModelSet, EmbeddingsMade, NewEmbedding
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
from .body_text import is_text, text_of

# At most this many characters of texts that were read are kept.
_CACHED_CHARS = 512 * 1024
# A save is due when this many characters were folded since the last one, or this part of all text
# (1/64) where that is more.
_SAVE_CHARS = 256 * 1024
_SAVE_PART = 64
# While a save goes on, at most this much may be put, or this part of all text (1/48) where that is
# more.
_UNSAVED_BYTES = 384 * 1024
_UNSAVED_PART = 48
# Replaced pages stay in the log. When this many times the pages of the search index were saved, the
# next save is whole.
_MOST_SAVED = 3

# The name of the search index among the projections that are saved.
MEMORY = "memory"
# What a save takes: the arguments of :meth:`EventLog.save_projection`.
Due = tuple[str, object, int, int, int, list[tuple[int, bytes]]]

# The memories of which a session's memory consists: each a number, and the last sequence of it that
# counts.
Lineage = Sequence[tuple[int, int]]
SHARED: Lineage = ((0, 2**63),)


def lineage_of(state: State, number: int, until: int = 2**63) -> Lineage:
    """Return the memories that a session sees, up to the event ``until``.

    That is the one that all sessions share, unless the session is a fork.
    """
    branch = number if number in state.memory.branches else 0
    return tuple((part, min(last, until)) for part, last, _ in state.memory.lineage(branch))


# Of a body that was put as a stream, the first 16 parts of 1 MiB are searched. This must never
# change for a file: removing a text from the search index needs the same text that was added.
_SEARCHED_PARTS = 16
T = TypeVar("T")

# What a fold raises for events that no writer wrote, or over an index that holds others.
_NOT_FOLDABLE = (DamagedSearchIndexError, KeyError, ValueError)


class FoldedMemory:
    """The frames of a memory, folded into a search index up to the last event asked for.

    ``lineage``: the memories that it consists of; a fork's own comes before its parents'.
    ``save_events``: a save is also due when this many events were folded.
    ``missing``: frames that a compaction or damage erased, and that nobody had deleted before.
    """

    def __init__(
        self, lineage: Lineage = SHARED, *, is_live: bool = True, save_events: float = inf
    ) -> None:
        self._until = dict(lineage)
        # Only the live, shared memory is saved.
        self._is_live = is_live and lineage == SHARED
        self._view: View | None = None
        self._search_index: SearchIndex | None = None
        # The last event that was folded, and the hint of the last one that changed the memory, if
        # that event ended a view.
        self._through = 0
        self._hint: int | None = None
        self.missing: set[int] = set()
        # Whether the frames of an index that was loaded are known to be those of the events.
        self._is_checked = True
        # The texts of snippets, by version: frames are often found again.
        self._texts: dict[tuple[Version, str | None], str] = {}
        self._text_room = _CACHED_CHARS
        self._unsaved = self._text_size = self._events = 0
        self._save_events = save_events
        self._saved_at = self._saved_pages = 0
        self._dumped: SearchIndex | None = None

    @property
    def through(self) -> int:
        """The sequence of the last event that was folded."""
        return self._through

    def close(self) -> None:
        """Close the search index, and release its memory."""
        if self._search_index is not None:
            self._search_index.close()
            self._search_index = None

    def leave(self, view: View) -> None:
        """Close the search index if it was folded from another file than the view's.

        A file that was replaced is kept open by what reads it.
        """
        if self._view is not None and self._view.edition is not view.edition:
            self.close()
            self._view = None

    @property
    def is_open(self) -> bool:
        """Whether it has folded anything yet."""
        return self._search_index is not None

    @property
    def most_unsaved(self) -> int:
        """How many bytes may be put while a save goes on."""
        return max(_UNSAVED_BYTES, self._text_size // _UNSAVED_PART)

    def interrupt(self) -> None:
        """Stop a find that is under way. May be called from any thread."""
        search_index = self._search_index
        if search_index is not None:
            search_index.interrupt()

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
        """Return the search index as it was after the last event of the view, or after ``until``
        where that is earlier; :attr:`through` is then that event.

        It goes forward by the events that are new. Going back, it is folded again.

        :raises CorruptFileError: when the log is damaged.
        :raises UnsupportedVersionError: when the memory needs an analyser of a newer release.
        """
        analyser = view.state.memory.analyser or "english"
        if analyser not in TOKENIZERS:
            raise UnsupportedVersionError(f"this release knows no analyser {analyser!r:.80}")
        last = min(view.state.last_sequence, max(self._until.values()), until)
        is_same = self._view is not None and self._view.edition is view.edition
        index = self._search_index
        # An index that was made before the log had a frame may be of another language.
        if index is None or not is_same or index.language != analyser or self._through > last:
            index = self._restart(view, analyser, last)
        self._view = view
        try:
            if self._saved_at:
                with suppress(*_NOT_FOLDABLE):
                    self._fold(view, index, last)
                    self._check_loaded(view.state, index, last)
                    return index
                # A saved index may load and still be wrong. Then the events are folded again.
                index = self._restart(view, analyser, 0)
            self._fold(view, index, last)
        except _NOT_FOLDABLE as error:
            self.close()
            raise view.damage(max(1, self._through), f"the memory does not fold: {error}") from None
        except BaseException:
            # A part of it may be in the index: the next call starts again, from the last save.
            self.close()
            raise
        return index

    def answer(
        self, view: View, ask: Callable[[SearchIndex], T], until: int = 2**63
    ) -> tuple[T, SearchIndex]:
        """Return what ``ask`` returns for the search index of :meth:`catch_up`, and that index.

        A saved index may load, fold and still hold what no writer wrote. Then the events are folded
        again, and ``ask`` is called once more.

        :raises CorruptFileError: also when the events themselves cannot be searched.
        """
        index = self.catch_up(view, until)
        try:
            return ask(index), index
        except DamagedSearchIndexError:
            self._restart(view, index.language, 0)
        index = self.catch_up(view, until)
        try:
            return ask(index), index
        except DamagedSearchIndexError as error:
            self.close()
            raise view.damage(max(1, self._through), f"it cannot be searched: {error}") from None

    def start_again(self, view: View) -> None:
        """Let the next call fold all events of the view's log again."""
        self._restart(view, view.state.memory.analyser or "english", 0)

    def _restart(self, view: View, analyser: str, until: int) -> SearchIndex:
        """Start again, from a saved index that is folded no further than the event ``until``."""
        self.close()
        self._view = view
        self._search_index = index = SearchIndex(self._read_text, language=analyser)
        self._through = self._unsaved = self._text_size = self._events = 0
        self._hint = None
        self._saved_at = self._saved_pages = 0
        self.missing = set()
        self._texts, self._text_room = {}, _CACHED_CHARS
        if until and set(self._until) == {SHARED[0][0]}:
            # Only the shared memory is saved, so a fork's own memory is not looked for.
            self._load(view, index, until)
        return index

    def _check_loaded(self, state: State, index: SearchIndex, last: int) -> None:
        """Check, once, that an index that was loaded has the frames that the events say are there.

        :raises ValueError: when it has others. Of a past moment, the state does not tell.
        """
        if not self._is_checked and last == state.last_sequence:
            memory = state.memory
            others = [*dict(memory.gone), *dict(memory.owners)]
            index.check_frames(memory.frame_count, memory.last_frame, others)
        self._is_checked = True

    def _load(self, view: View, search_index: SearchIndex, until: int) -> None:
        try:
            saved = view.saved_projection(MEMORY, until)
            if saved is None:
                return
            search_index.load(saved.page_count, saved.pages.items())
        except (CorruptFileError, ValueError, OSError):
            # The index can be made again from the events.
            search_index.clear()
            return
        if search_index.through <= until:
            self._is_checked = False
            self._saved_at, self._through = saved.at, search_index.through
            self._saved_pages = len(saved.pages)
            self._text_size = search_index.total_size
        else:
            search_index.clear()

    def _fold(self, view: View, search_index: SearchIndex, last: int) -> None:
        if self._through == last:
            return
        waiting, hint = _Waiting(search_index), self._hint
        for event, found in unhurried(view.memory_events(self._through, last, hint)):
            self._take_in(view, waiting, event, found)
            hint = found
        waiting.put()
        self._through = search_index.through = last
        # Before the end of a view, the last command may have more events.
        self._hint = hint if last == view.state.last_sequence else None

    def _take_in(self, view: View, waiting: _Waiting, event: Event, hint: int) -> None:
        payload: Any = event.payload
        self._events += 1
        if isinstance(payload, EmbeddingModelSet):
            waiting.put()
            made = _embeddings(view, payload, event.sequence)
            waiting.search_index.replace_vectors(payload.model, made)
            return
        branch = getattr(payload, "branch", None)
        if branch is None or event.sequence > self._until.get(branch, 0):
            return
        if isinstance(payload, FramesPut):
            self._put(view, waiting, event, payload, hint)
        elif payload.frame_id in self.missing:
            if isinstance(payload, FrameDeleted):
                self.missing.discard(payload.frame_id)
        elif not isinstance(payload, FrameErased):
            waiting.put()
            self._change(view, waiting.search_index, event, hint)

    def _put(self, view: View, waiting: _Waiting, event: Event, put: FramesPut, hint: int) -> None:
        sequence, time_ns = event.sequence, event.time_ns
        for place, kept in enumerate(unhurried(put.kept)):
            frame_id = put.frame_id + place
            if isinstance(kept, str):
                # The quick way for frames with a text and no other field, as most are.
                text = kept
                waiting.batch.add_text(frame_id, (sequence, place), hint, time_ns, text)
            else:
                frame = put[place]
                if isinstance(frame, FrameErased):
                    self.missing.add(frame_id)
                    continue
                text = read_text(view, frame.content, frame.media_type)
                waiting.batch.add(_indexed(frame, event, place, hint), text)
            self._unsaved += len(text)
            self._text_size += len(text)
            if waiting.batch.is_full:
                waiting.put()

    def _change(self, view: View, search_index: SearchIndex, event: Event, hint: int) -> None:
        payload: Any = event.payload
        old = search_index.get(payload.frame_id)
        if old is None:
            if self._saved_at:
                raise KeyError(payload.frame_id)
            # Damage took its put, and a recovery kept what came after.
            if not isinstance(payload, FrameDeleted):
                self.missing.add(payload.frame_id)
            return
        old_text = self._read_text(old.hint, old.version, old.media_type)
        if isinstance(payload, FrameDeleted):
            search_index.delete(payload.frame_id, old_text)
            return
        assert isinstance(payload, FrameUpdated)
        changes = dict(payload.changes)
        content = changes.pop("content", None)
        new = evolve(old, updated_ns=event.time_ns, **changes)
        text = old_text
        if content is not None:
            new = evolve(new, sequence=event.sequence, place=0, hint=hint, size=content.size)
            text = read_text(view, content, new.media_type)
        elif new.media_type != old.media_type:
            text = self._read_text(new.hint, new.version, new.media_type)
        search_index.update(new, text, old_text)
        self._unsaved += len(text)

    def _read_text(self, hint: int, version: Version, media_type: str | None) -> str:
        key = (version, media_type)
        text = self._texts.get(key)
        if text is None:
            assert self._view is not None
            content = self._view.frame_content(hint, version)
            text = read_text(self._view, content, media_type)
            self._text_room -= len(text)
            if self._text_room < 0:
                self._texts, self._text_room = {}, _CACHED_CHARS
            if len(text) < _CACHED_CHARS // 16:
                self._texts[key] = text
        return text

    # Frames.

    def frame(self, kept: IndexedFrame) -> Frame:
        """Return a frame from what the search index keeps of it."""
        assert self._view is not None
        return Frame(
            frame_id=kept.frame_id,
            content=self._view.frame_content(kept.hint, kept.version),
            title=kept.title,
            uri=kept.uri,
            media_type=kept.media_type,
            tags=kept.tags,
            metadata=kept.metadata,
            embedding_model=kept.embedding_model,
            created_ns=kept.time_ns,
            updated_ns=kept.updated_ns,
            sequence=kept.sequence,
            place=kept.place,
        )

    def text(self, place: FramePlace) -> str:
        """Return the text of a frame, as it is searched."""
        return self._read_text(place.hint, place.version, place.media_type)

    # Saving.

    def due(self, view: View) -> Due | None:
        """Return what :meth:`EventLog.save_projection` takes; None while too little is new."""
        self.catch_up(view)
        search_index = self._search_index
        assert search_index is not None
        if not self._is_live or self.missing:
            return None
        is_small = self._unsaved < max(_SAVE_CHARS, self._text_size // _SAVE_PART)
        if is_small and self._events < self._save_events:
            return None
        if self._saved_pages > _MOST_SAVED * search_index.page_count:
            self._saved_at = self._saved_pages = 0
        if not self._saved_at:
            search_index.forget_saved()
        try:
            dump = search_index.dump()
        except OSError:
            # The saved index is only a cache, and the next put tries again.
            return None
        self._unsaved = 0
        self._dumped = search_index
        self._saved_pages += len(dump.pages)
        return MEMORY, view.edition, self._saved_at, self._through, dump.page_count, dump.pages

    def rest(self) -> None:
        """Release what saving needs, because no save will follow soon."""
        if self._search_index is not None:
            self._search_index.rest()

    def saved(self, at: int) -> None:
        """Note where the last dump was saved; 0: it was not, and the next one will be whole."""
        if self._dumped is not self._search_index:
            # Another search index has begun since, with pages of its own.
            return
        self._saved_at = at
        if not at:
            self._saved_pages = 0


def read_text(view: View, content: Content, media_type: str | None) -> str:
    """Return what is searched of a content; "" where there is nothing to search."""
    stored = content.stored
    if content.data is not None:
        return text_of(content.data, media_type)
    try:
        if stored is None or not stored.parts:
            return text_of(view.value(content), media_type)
        if not is_text(media_type):
            return ""
        count = min(len(stored.parts), _SEARCHED_PARTS)
        parts = (view.part(content, i) for i in range(count))
        return text_of(b"".join(parts), media_type)
    except ContentNotFoundError:
        # A recovery could not save the content.
        return ""


def _embeddings(view: View, model: EmbeddingModelSet, sequence: int) -> Iterator[NewEmbedding]:
    """Iterate over the embeddings that the event with this sequence puts in use."""
    if not model.move:
        return
    for event, _ in unhurried(view.memory_events(model.move - 1, sequence)):
        made = event.payload
        if isinstance(made, EmbeddingsMade) and (made.move or event.sequence) == model.move:
            yield from (one for one in made if len(one.vector) == 4 * model.dimension)


class _Waiting:
    """Frames that wait to go into a search index together, before it is changed otherwise."""

    def __init__(self, search_index: SearchIndex) -> None:
        self.search_index = search_index
        self.batch = Batch()

    def put(self) -> None:
        """Put the waiting frames."""
        batch, self.batch = self.batch, Batch()
        if batch.count:
            self.search_index.put_many(batch)


def _indexed(payload: FramePut, event: Event, place: int, hint: int) -> IndexedFrame:
    return IndexedFrame(
        payload.frame_id,
        event.sequence,
        hint,
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
