"""Deciding changes of the memory: frames put, updated and deleted."""

from __future__ import annotations

from ..errors import FrameNotFoundError, InvalidValueError
from ..events.content import Content, StoredContent
from ..events.details import ActionKind
from ..events.frames import (
    FRAME_FIELDS,
    FrameDeleted,
    FramePut,
    FramesPut,
    FrameUpdated,
    KeptFrame,
    MemoryConfigured,
)
from ..events.frozen_dict import FrozenDict
from .commands import ChangeMemory, NewFrame
from .memory_state import MemoryState
from .new_contents import NewContents


def change_frames(
    memory: MemoryState, command: ChangeMemory, number: int, contents: NewContents
) -> tuple[tuple[int, ...], Content | None]:
    """Add the events that change the memory.

    The event of the frames is the last one. Returns their ids, and the content of a single frame.
    """
    branch = number if number in memory.branches else 0
    if not command.frames and not memory.holds(command.frame_id, branch):
        raise FrameNotFoundError(command.frame_id)
    configured = _configuration(memory, command)
    if configured is not None:
        contents.add(configured)
    content: Content | None = None
    if command.frames:
        first, new = memory.last_frame + 1, command.frames
        kept = (
            one if type(one) is str else _kept(one, contents, first + at, branch)  # type: ignore[arg-type]
            for at, one in enumerate(new)
        )
        for frame_id in command.replaced:
            contents.add(FrameDeleted(frame_id, branch))
        put = FramesPut(first, tuple(kept), branch)
        contents.add(put)
        if command.kind is ActionKind.PUT:
            content = put[0].content  # type: ignore[union-attr]
        return tuple(range(first, first + len(new))), content
    if command.kind is ActionKind.DELETE:
        contents.add(FrameDeleted(command.frame_id, branch))
        return (command.frame_id,), None
    changes = dict(command.changes)
    if "content" in changes:
        content = changes["content"] = contents.content(changes["content"])
    contents.add(FrameUpdated(command.frame_id, FrozenDict(changes), branch))
    return (command.frame_id,), content


def _kept(new: NewFrame, contents: NewContents, frame_id: int, branch: int) -> KeptFrame:
    """Return a new frame as the event keeps it."""
    content = contents.content(new.content)
    if content.data is not None and not _has_fields(new):
        return content.data
    values = {name: getattr(new, name) for name in FRAME_FIELDS[1:]}
    return FramePut(frame_id, content, branch=branch, **values)


def _has_fields(new: NewFrame) -> bool:
    """Whether a new frame is more than its content. An empty title is a title."""
    return (
        new.title is not None
        or new.uri is not None
        or new.media_type is not None
        or bool(new.tags)
        or bool(new.metadata)
        or new.embedding is not None
        or new.embedding_model is not None
    )


def _configuration(memory: MemoryState, command: ChangeMemory) -> MemoryConfigured | None:
    """Return the event that says how the memory is searched, if it is needed for the first time.

    :raises InvalidValueError: when an embedding is of another model or dimension.
    """
    embeddings = [
        (new.embedding, new.embedding_model) for new in command.frames if not isinstance(new, str)
    ]
    if "embedding" in command.changes:
        model = command.changes.get("embedding_model")
        embeddings.append((command.changes["embedding"], model))
    analyser = memory.analyser or command.analyser
    held, dimension = memory.embedding_model, memory.dimension
    for embedding, model in embeddings:
        if embedding is None:
            continue
        if not dimension:
            held, dimension = model, len(embedding) // 4
        elif (model, len(embedding) // 4) != (held, dimension):
            raise InvalidValueError(
                f"the memory holds embeddings of model {held!r} with {dimension} dimensions; "
                f"this one is of {model!r} with {len(embedding) // 4}"
            )
    if memory.analyser is not None and dimension == memory.dimension:
        return None
    return MemoryConfigured(analyser, held, dimension)


def kept_by(content: Content | None, sequence: int) -> Content | None:
    """Return content as an action refers to it when the frame event ``sequence`` holds it."""
    if content is None or content.stored is not None:
        return content
    return Content(None, StoredContent(content.digest, content.size, content.preview, sequence))
