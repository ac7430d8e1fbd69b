"""Chat transcripts from a file into a store, and back out of it."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import UUID

import aiofiles
from anyio import to_thread

from .. import AskDetails, Content, InvalidValueError, Limits, Store
from .chat_plans import KEY, PlannedAction, PlannedAsk, SessionPlan, plan_run, rebuild_run
from .transcripts import (
    MAX_TRANSCRIPT_BYTES,
    Transcript,
    TranscriptError,
    open_transcripts,
    parse_runs,
)

# How long the next bytes of a pipe are waited for, and how many are read at once.
_PIPE_SECONDS = 5
_PIPE_BYTES = 1024 * 1024


async def read_plans(
    path: str | Path, *, limits: Limits | None = None, max_bytes: int = MAX_TRANSCRIPT_BYTES
) -> AsyncGenerator[list[SessionPlan | TranscriptError], None]:
    """Read a transcript file: yield a list for each transcript, with a plan or an error per run.

    ``max_bytes``: how many bytes the file may hold, decompressed. A pipe is read to its end, and
    waited for at most 5 s at a time.

    :raises TranscriptError: when the file cannot be read, or the file or an archive's member is no
        transcript.
    """
    name = Path(path).name
    try:
        # Opening a pipe does not wait for who writes to it, because of O_NONBLOCK.
        async with aiofiles.open(path, "rb", opener=_open_at_once) as file:
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISFIFO(mode):
                data = await to_thread.run_sync(_read_pipe, file.fileno(), name, max_bytes + 1)
            elif stat.S_ISREG(mode):
                data = await file.read(max_bytes + 1)
            else:
                raise TranscriptError(f"{name}: is neither a regular file nor a pipe")
    except OSError as error:
        raise TranscriptError(f"{name}: cannot be read: {error.strerror or error}") from None
    transcripts = open_transcripts(name, data, max_bytes)
    del data
    while transcript := await to_thread.run_sync(next, transcripts, None):
        yield await to_thread.run_sync(_plan_all, transcript, limits)


def _read_pipe(descriptor: int, name: str, most: int) -> bytes:
    """Read a pipe to its end, or ``most`` bytes of it."""
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    pieces, size = list[bytes](), 0
    while size < most:
        if not waiting.poll(_PIPE_SECONDS * 1000):
            raise TranscriptError(f"{name}: nobody has written to this pipe for {_PIPE_SECONDS} s")
        piece = os.read(descriptor, min(most - size, _PIPE_BYTES))
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _plan_all(transcript: Transcript, limits: Limits | None) -> list[SessionPlan | TranscriptError]:
    plans: list[SessionPlan | TranscriptError] = []
    for run in parse_runs(transcript):
        try:
            plans.append(run if isinstance(run, TranscriptError) else plan_run(run, limits))
        except TranscriptError as error:
            plans.append(error)
    return plans


async def record_run(store: Store, plan: SessionPlan, *, provider: str = "") -> UUID:
    """Record a planned run as a session of its own, and return the session's id.

    Most transcripts hold no times. So every duration is 0, and the times are those of the import.
    """
    async with store.session(plan.name, metadata=plan.metadata) as recorder:
        for planned in plan.actions:
            if isinstance(planned, PlannedAsk):
                await recorder.record_ask(
                    planned.query,
                    provider=provider,
                    model=planned.model,
                    response=planned.response,
                    duration_ms=0,
                    task=planned.task,
                    metadata=planned.metadata,
                    **planned.usage,
                )
            else:
                await recorder.record_tool_call(
                    planned.name,
                    arguments=planned.arguments,
                    result=planned.result,
                    error=planned.error,
                    task=planned.task,
                    metadata=planned.metadata,
                )
        return recorder.session_id


async def restore_run(store: Store, session_id: UUID | str) -> Any:
    """Return the run of a session as the JSON value that it was imported from.

    :raises InvalidValueError: when the session is not, or no longer, the whole of an imported run.
    :raises SessionNotFoundError: when there is no such session.
    """
    session = await store.get_session(session_id)
    asks: list[PlannedAction] = []
    for action in session.actions:
        if isinstance(action.details, AskDetails) and KEY in action.metadata:
            query = await _read_text(store, action.input) or ""
            response = await _read_text(store, action.output) or ""
            asks.append(PlannedAsk(query, response, "", "", action.metadata))
    return await to_thread.run_sync(rebuild_run, session.metadata, asks)


async def _read_text(store: Store, content: Content | None) -> str | None:
    if content is None:
        return None
    try:
        return (await store.read_content(content)).decode()
    except UnicodeDecodeError:
        raise InvalidValueError("not a whole imported run: an action is not text") from None
