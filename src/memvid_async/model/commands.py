"""Requests that may become events. A command is whole before it is queued: checked, encoded and
hashed, so that deciding is cheap and cannot fail half-way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from attrs import frozen

from ..config import RecordingConfig
from ..events import EMPTY, ActionKind
from .messages import Messages


@frozen
class LargeContent:
    """Content of 1 KiB or more, hashed: it becomes an event of its own, once per digest."""

    data: str | bytes
    digest: bytes
    size: int
    preview: str


Prepared = str | bytes | LargeContent


@frozen
class StartSession:
    """Start a session; as the file's ambient one, or as one of the caller's own.

    ``if_none``: do nothing when an ambient session is open already (``auto_record``).
    """

    session_id: UUID
    name: str | None
    config: RecordingConfig
    metadata: Mapping[str, Any] = EMPTY
    ambient: bool = False
    if_none: bool = False


@frozen
class EndSession:
    """End a session, named by number or id; None stands for the ambient one."""

    session: int | UUID | None
    error: str | None = None


@frozen
class ResumeSession:
    """Look up a session that is still open; records nothing."""

    session_id: UUID


@frozen
class DeleteSession:
    """Delete a session, open or ended."""

    session_id: UUID


@frozen
class CreateCheckpoint:
    """Mark a checkpoint; ``number`` None stands for the ambient session."""

    number: int | None
    task: str | None = None


class RecordAction(NamedTuple):
    """Record an action; ``number`` None stands for the ambient session, if there is one.

    ``detail`` is what the kind adds: ``(provider, model)`` of an ask, ``(mode, result_count)`` of
    a find, ``(name,)`` of a tool call, else ``()``.
    """

    number: int | None
    kind: ActionKind
    detail: tuple[Any, ...]
    input: Prepared | None
    output: Prepared | None
    frames: tuple[int, ...]
    duration_ms: float
    task: str | None
    error: str | None
    metadata: Mapping[str, Any]
    messages: Messages | None


Command = (
    StartSession | EndSession | ResumeSession | DeleteSession | CreateCheckpoint | RecordAction
)
