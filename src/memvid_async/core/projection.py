"""A session as a projection: a plain function from events to a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..events.content import EMPTY
from ..events.event import (
    ActionRecorded,
    Checkpoint,
    CheckpointCreated,
    Event,
    Session,
    SessionEnded,
    SessionStarted,
)
from ..events.packed_actions import ActionList
from .session_state import SessionState


def project_session(state: SessionState, events: Iterable[Event], version: int) -> Session:
    """Return the session with this state, from its events in order; ``version``: the format's."""
    actions = ActionList(state.action_count)
    checkpoints: list[Checkpoint] = []
    metadata: Mapping[str, Any] = EMPTY
    error, ended_ns = None, None
    for event in events:
        payload = event.payload
        if isinstance(payload, ActionRecorded):
            actions.append(payload.action)
        elif isinstance(payload, CheckpointCreated):
            actions.append(payload.action)
            checkpoints.append(payload.checkpoint)
        elif isinstance(payload, SessionStarted):
            metadata = payload.metadata
        elif isinstance(payload, SessionEnded):
            error, ended_ns = payload.error, event.time_ns
    return Session(
        session_id=state.info.session_id,
        name=state.info.name,
        created_ns=state.info.created_ns,
        ended_ns=ended_ns,
        error=error,
        actions=actions.whole(),
        checkpoints=tuple(checkpoints),
        metadata=metadata,
        version=version,
        fork=state.info.fork,
    )
