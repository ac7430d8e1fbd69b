"""The floor: asks built from the library's own event classes and encoded, and no store."""

import os
import time
from pathlib import Path
from uuid import UUID

import cbor2

from memvid_async import Action, ActionKind, ActionRecorded, AskDetails, Content, Event

from .samples import Ask

SESSION = UUID(int=1)


def build(sequence: int, ask: Ask) -> Event:
    """Make the event that records `ask`."""
    now = time.time_ns()
    action = Action(
        index=sequence - 2,
        sequence=sequence,
        time_ns=now,
        kind=ActionKind.ASK,
        details=AskDetails(ask.provider, ask.model, ask.retrieved_frames, 0),
        input=Content(ask.query),
        output=Content(ask.response),
        affected_frames=ask.retrieved_frames,
        duration_ms=ask.duration_ms,
        task="agent 1",
    )
    return Event(sequence, now, SESSION, ActionRecorded(action))


def encode(event: Event) -> bytes:
    """Encode every fact of the event as one flat CBOR array."""
    payload = event.payload
    assert isinstance(payload, ActionRecorded)
    action, details = payload.action, payload.action.details
    assert isinstance(details, AskDetails)
    assert action.input is not None
    assert action.output is not None
    fields = (
        event.sequence,
        event.time_ns,
        SESSION.bytes,
        action.index,
        action.input.data,
        action.output.data,
        details.provider,
        details.model,
        details.retrieved_frames,
        action.duration_ms,
        action.task,
    )
    return cbor2.dumps(fields)


def build_and_encode(asks: list[Ask]) -> float:
    """Return the seconds that building and encoding every ask takes, and nothing else."""
    start = time.perf_counter()
    for sequence, ask in enumerate(asks, 1):
        encode(build(sequence, ask))
    return time.perf_counter() - start


def bare_loop(path: Path, asks: list[Ask]) -> float:
    """Return the seconds that building, encoding, writing and syncing each ask in turn takes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        start = time.perf_counter()
        for sequence, ask in enumerate(asks, 1):
            os.write(descriptor, encode(build(sequence, ask)))
            os.fdatasync(descriptor)
        return time.perf_counter() - start
    finally:
        os.close(descriptor)
