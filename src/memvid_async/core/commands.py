"""Commands: requests that may become events.

A command is checked, encoded and hashed before it is queued, so that deciding is cheap and cannot
fail half-way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from attrs import frozen

from ..config import RecordingConfig
from ..events.calls import (
    AnswerDropped,
    CallFacts,
    ChunksCame,
    LanePath,
    SessionResumed,
    SessionSuspended,
)
from ..events.content import EMPTY, Content
from ..events.decided import Extras
from ..events.details import ActionKind
from ..events.embeddings import NewEmbedding
from ..events.frames import ForkPoint
from ..events.keyed import KeyChange
from .recent_keys import KeyFacts


@frozen
class LargeContent:
    """Content of 1 KiB or more, hashed. It becomes an event of its own, one for each digest."""

    data: str | bytes
    digest: bytes
    size: int
    preview: str


Prepared = str | bytes | LargeContent

# The session that a command is for. A number: this one, which must be open. A tuple: the first of
# these that is open (those of the blocks that the caller is in, innermost first), otherwise the
# ambient session, otherwise none.
SessionChoice = int | tuple[int, ...]


@frozen
class StartSession:
    """Start a session: the file's ambient one, or one of the caller's own.

    ``if_none``: do nothing when an ambient session is open already (``auto_record``). ``fork``:
    continue another session.
    """

    session_id: UUID
    name: str | None
    config: RecordingConfig
    metadata: Mapping[str, Any] = EMPTY
    ambient: bool = False
    if_none: bool = False
    fork: ForkPoint | None = None


@frozen
class EndSession:
    """End a session, named by its number or id; None means the ambient one."""

    session: int | UUID | None
    error: str | None = None


@frozen
class ResumeSession:
    """Look up a session that is still open; records nothing."""

    session_id: UUID


@frozen
class ChangeSession:
    """Rename a session or add to its metadata, whether it has ended or not.

    ``changes``: as those of a :class:`SessionChanged`. ``most_bytes``: what the metadata may have
    as CBOR afterwards.
    """

    session_id: UUID
    changes: Mapping[str, Any]
    most_bytes: int


@frozen
class NoteEvent:
    """Note something about an open session that changes nothing else."""

    session: int
    note: AnswerDropped | ChunksCame | SessionResumed | SessionSuspended


@frozen
class DeleteSession:
    """Delete a session, open or ended."""

    session_id: UUID


@frozen
class CreateCheckpoint:
    """Mark a checkpoint in a session."""

    session: SessionChoice
    task: str | None = None


@frozen
class NewFrame:
    """A frame that is to be put, its content prepared."""

    content: Prepared | Content
    title: str | None = None
    uri: str | None = None
    media_type: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = EMPTY
    embedding: bytes | None = None
    embedding_model: str | None = None


class ChangeMemory(NamedTuple):
    """Put frames, update one or delete one, and record it where a session is in force.

    ``frames``: those to put. ``frame_id``: the one to change; ``changes``: an update's.
    ``analyser`` is for a memory that has none yet. ``replaced``: those to delete for a put, as they
    were found when the memory's hash was ``memory_hash``; the answer is None, and nothing is done,
    where it is another one now. A str among the frames is one that is this text
    and nothing else: of very many frames most are, and Python's collector would look at an object
    for each again and again. ``call``: what only a call's action has.
    """

    session: SessionChoice
    kind: ActionKind
    analyser: str
    frames: tuple[NewFrame | str, ...]
    frame_id: int
    changes: Mapping[str, Any]
    duration_ms: float
    task: str | None
    metadata: Mapping[str, Any]
    replaced: tuple[int, ...] = ()
    memory_hash: bytes | None = None
    call: CallFacts | None = None


class AddEmbeddings(NamedTuple):
    """Keep embeddings of another model, which are not used yet.

    ``move``: the answer to the first of these commands for that model; 0 in that one.
    """

    move: int
    made: tuple[NewEmbedding, ...]


class SetEmbeddingModel(NamedTuple):
    """Move the memory to another embedding model.

    ``model`` to ``digest``: as in :class:`..events.embeddings.EmbeddingModelSet`. ``hashes`` and
    ``generation``: the memories' (:meth:`.memory_state.MemoryState.hashes`) and the log's when the
    embeddings were made; the answer is None, and nothing is done, where one is another now.
    """

    model: str
    dimension: int
    move: int
    digest: bytes
    hashes: tuple[bytes, ...]
    generation: int


@frozen
class StoreParts:
    """Store parts of a content that is too long for one event. Nothing refers to them yet."""

    parts: tuple[LargeContent, ...]


class RecordAction(NamedTuple):
    """Record an action where a session is in force; or the end of a call, in its own session.

    From ``kind`` on it is as the action is decided (:class:`.decided.DecidedAction`), its contents
    and messages still to be stored. What the kind adds to ``fields``: provider and model of an ask,
    mode and count of results of a find, the name of a tool call, a step or a once.
    """

    session: SessionChoice
    kind: ActionKind
    fields: tuple[Any, ...]
    extras: Extras | None


class ChangeCollection(NamedTuple):
    """Change keys of a collection, all of them or none, where every check holds.

    ``checks``: keys, each with the version that it must have (0: it is not there). ``seen``: what
    the caller saw of keys, in a view that ended with the event ``as_of``. ``most``: of a store's
    collections.
    """

    name: str
    changes: tuple[KeyChange, ...]
    checks: tuple[tuple[str, int], ...]
    seen: Mapping[str, KeyFacts]
    as_of: int
    most: int


class OnlyOnce(NamedTuple):
    """Carry out a command unless one with the same key was. Then the answer is :class:`Repeated`.

    ``key``: it is unique in the session that the command records into; that of a put, in the
    memory. ``content_hash``: BLAKE2b-128 of what makes two commands the same.
    """

    command: RecordAction | ChangeMemory
    key: str
    content_hash: bytes


class Repeated(NamedTuple):
    """The answer to a command whose key was used before: the sequence of the event that has it."""

    sequence: int


class StartAction(NamedTuple):
    """Note that a call or a step begins, in an open session; or that a call is tried again.

    The answer is the sequence of the call's first start. From ``kind`` on, the fields are those of
    a :class:`.decided.DecidedStart`.
    """

    session: int
    kind: ActionKind
    detail: tuple[Any, ...]
    input: Prepared | None
    task: str | None
    parent: int | None
    lane: LanePath
    seen: int = 0
    first: int | None = None
    try_number: int = 1
    settled_by: str | None = None
    messages_digest: bytes | None = None


Command = (
    StartSession
    | EndSession
    | ResumeSession
    | DeleteSession
    | CreateCheckpoint
    | RecordAction
    | StartAction
    | NoteEvent
    | ChangeSession
    | ChangeMemory
    | StoreParts
    | AddEmbeddings
    | SetEmbeddingModel
    | ChangeCollection
    | OnlyOnce
)
