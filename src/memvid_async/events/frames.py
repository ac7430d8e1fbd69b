"""Frames, which make up the store's own memory, and the payloads of the events that change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload
from uuid import UUID

from attrs import field, frozen

from .content import EMPTY, Content
from .embeddings import EmbeddingModelSet, EmbeddingsMade
from .printing import amount, brief, counted, html_table

SearchMode = Literal["lexical", "semantic", "hybrid"]
"""How a memory is searched: by words, by embeddings, or by both."""


@frozen
class MemoryConfigured:
    """How the memory is searched, from its first frame or embedding on."""

    analyser: str
    """How its text is analysed: ``english`` or ``none``."""
    embedding_model: str | None = None
    """The model of its embeddings, where one was named."""
    dimension: int = 0
    """How many numbers an embedding has; 0 while there is none."""


@frozen
class ForkPoint:
    """Where a forked session leaves its parent."""

    parent: int
    """The parent's number: the sequence of its start."""
    parent_id: UUID
    """The parent's id."""
    sequence: int
    """The last event that both share."""
    action_count: int
    """With how many actions of the parent, and of the parent's own parents, the fork begins."""
    checkpoint_count: int
    """How many of those are checkpoints."""
    branch: int
    """The branch of the parent's memory; 0 for the memory that all sessions share."""
    last_frame: int
    """The last frame id in use at that event."""
    frame_count: int
    """How many frames the memory held then."""
    memory_hash: bytes
    """The hash of the memory then (32 bytes)."""
    in_flight: tuple[tuple[int, int], ...] = field(default=(), repr=brief)
    """The calls and steps that were in flight at that event: of each the sequence of its first
    start, and the time of that."""


@frozen
class FramePut:
    """A frame as it entered the memory: one of those that a :class:`FramesPut` holds."""

    frame_id: int
    """Its id."""
    content: Content
    """Its body."""
    title: str | None = None
    """Its title."""
    uri: str | None = None
    """Where it comes from."""
    media_type: str | None = None
    """The media type of its content, such as ``text/plain``."""
    tags: tuple[str, ...] = field(default=(), repr=brief)
    """Its tags, without repeats."""
    metadata: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """The caller's own data about it."""
    embedding: bytes | None = field(default=None, repr=False)
    """Its embedding: float32 numbers, little-endian, one after another."""
    embedding_model: str | None = None
    """The model that the embedding is of."""
    branch: int = 0
    """The number of the forked session in whose memory alone it is; 0 for the memory that all
    sessions share."""


# What an update may change, in the order of the fields in the file.
FRAME_FIELDS = (
    "content",
    "title",
    "uri",
    "media_type",
    "tags",
    "metadata",
    "embedding",
    "embedding_model",
)


@frozen
class FrameUpdated:
    """A frame changed."""

    frame_id: int
    """The frame."""
    changes: Mapping[str, Any] = field(repr=brief)
    """The new values, by the names of the fields of :class:`FramePut`."""
    branch: int = 0
    """As for :class:`FramePut`."""


@frozen
class FrameDeleted:
    """A frame was deleted: hidden from now on, its bytes erased by compaction."""

    frame_id: int
    """The frame."""
    branch: int = 0
    """As for :class:`FramePut`."""


@frozen
class FrameErased:
    """What a compaction leaves of a deleted frame, in the event that put it or that changed it."""

    frame_id: int
    """The frame."""
    digest: bytes
    """The digest of what was erased (32 bytes); with it the memory's hash stays the same."""
    branch: int = 0
    """As for :class:`FramePut`."""


# A frame as a put keeps it: only its content, if that is small and there is no other field.
KeptFrame = str | bytes | FramePut | FrameErased


@frozen(repr=False)
class FramesPut(Sequence[FramePut | FrameErased]):
    """Frames that were put together: one, or thousands. The event is a Python sequence of them.

    Most frames have a text and no other field. Such a frame is kept as its text, and becomes a
    :class:`FramePut` when it is used. Python's garbage collector visits every object that lives for
    a while: three objects for each of thousands of frames would delay everything else.
    """

    frame_id: int
    """The id of the first frame; those of the others follow in order."""
    kept: Sequence[KeptFrame]
    """Each frame as it is kept."""
    branch: int = 0
    """The number of the forked session in whose memory alone they are; 0 for the memory that all
    sessions share."""

    @property
    def frame_ids(self) -> range:
        """The ids of the frames."""
        return range(self.frame_id, self.frame_id + len(self.kept))

    def __len__(self) -> int:
        return len(self.kept)

    @overload
    def __getitem__(self, place: int) -> FramePut | FrameErased: ...
    @overload
    def __getitem__(self, place: slice) -> list[FramePut | FrameErased]: ...
    def __getitem__(
        self, place: int | slice
    ) -> FramePut | FrameErased | list[FramePut | FrameErased]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        frame_id, kept = self.frame_ids[place], self.kept[place]
        if isinstance(kept, (str, bytes)):
            return FramePut(frame_id, Content(kept), branch=self.branch)
        return kept

    def __repr__(self) -> str:
        return f"FramesPut(frame_id={self.frame_id}, frames={len(self)}, branch={self.branch})"


# The payloads of the events that change the memory.
FRAME_EVENTS = (
    FramesPut,
    FrameUpdated,
    FrameDeleted,
    FrameErased,
    MemoryConfigured,
    EmbeddingsMade,
    EmbeddingModelSet,
)


@frozen
class Frame:
    """A frame as it is, or was at the moment of a view."""

    frame_id: int
    """Its id: 1, 2, 3 … in the order in which frames were put."""
    content: Content
    """Its body; ``await store.read_content(frame.content)`` reads it."""
    title: str | None
    """Its title."""
    uri: str | None
    """Where it comes from."""
    media_type: str | None
    """The media type of its content, such as ``text/plain``."""
    tags: tuple[str, ...] = field(repr=brief)
    """Its tags."""
    metadata: Mapping[str, Any] = field(repr=brief)
    """The caller's own data about it."""
    embedding_model: str | None
    """The model of its embedding; None if it has no embedding, or no model was named."""
    created_ns: int
    """When it was put, in nanoseconds since the Unix epoch."""
    updated_ns: int
    """When it was last changed, in nanoseconds since the Unix epoch."""
    sequence: int
    """The sequence of the event that holds its present content."""
    place: int = 0
    """Which of that event's frames it is, from 0."""


@frozen
class Hit:
    """A frame that a search found."""

    frame_id: int
    """The frame."""
    score: float
    """The higher the better; comparable within one search."""
    snippet: str
    """The part of its text that matches best, the matches between ``[`` and ``]``."""
    title: str | None = None
    """Its title."""
    uri: str | None = None
    """Its URI."""


@frozen
class FindResult:
    """What a search found."""

    hits: tuple[Hit, ...] = field(repr=counted("hit"))
    """What was found, best first; those with equal scores (to 1e-6) in the order of their ids."""
    mode: SearchMode
    """How it was searched."""
    as_of: int
    """The sequence of the last event in the memory that was searched."""
    duration_ms: float
    """How long it took, in milliseconds."""
    incomplete: int = 0
    """How many frames of that memory could not be searched, as a compaction has erased them."""

    def _repr_html_(self) -> str:
        """A notebook's table: the hits."""
        erased = f", {amount(self.incomplete, 'frame')} erased since" if self.incomplete else ""
        hits = amount(len(self.hits), "hit")
        caption = f"{hits}, {self.mode}, as of sequence {self.as_of:,}{erased}"
        rows = ((h.frame_id, f"{h.score:.3g}", h.title, h.snippet) for h in self.hits)
        return html_table(caption, ("frame", "score", "title", "snippet"), rows, len(self.hits))


# The sequence of the event that holds a frame's content, and the frame's place in that event.
Version = tuple[int, int]


@frozen
class Retrieval:
    """How an action searched the memory: all that is needed to search again."""

    mode: str
    """How it was searched: lexical, semantic or hybrid."""
    top_k: int
    """The most hits that were asked for."""
    as_of: int
    """The sequence of the last event in the memory that was searched."""
    scores: tuple[float, ...] = field(repr=brief)
    """The score of each frame that was found."""
    versions: tuple[Version, ...] = field(default=(), repr=brief)
    """For each frame, the sequence of the event that held its body then, and its place there."""
    parameters: Mapping[str, Any] = field(default=EMPTY, repr=brief)
    """The filters."""
    embedding: bytes | None = field(default=None, repr=False)
    """The query's embedding: float32 numbers, little-endian, one after another."""
    embedding_model: str | None = None
    """The model that the embedding is of."""
    syntax: bool = True
    """Whether the query could hold phrases, excluded words, prefixes and fields; else it was plain
    text."""


@frozen
class ContextItem:
    """A frame that an ask retrieved, as it was then."""

    frame_id: int
    """The frame."""
    score: float
    """Its score in the search."""
    text: str | None = field(repr=brief)
    """Its whole text; None if that has been erased."""


@frozen
class Context:
    """What an ask retrieved. As text it is one numbered passage per frame."""

    items: tuple[ContextItem, ...] = field(repr=counted("item"))
    """The frames, best first."""

    @property
    def is_complete(self) -> bool:
        """Whether no text has been erased."""
        return all(item.text is not None for item in self.items)

    def __str__(self) -> str:
        texts = ((i, item.text) for i, item in enumerate(self.items, 1) if item.text is not None)
        return "\n\n".join(f"[{i}] {text}" for i, text in texts)
