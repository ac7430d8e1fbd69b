"""A session as a projection: a plain function from events to a value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import evolve

from ..events.calls import ActionStarted, SessionChanged, SessionResumed
from ..events.event import (
    ActionRecorded,
    Checkpoint,
    CheckpointCreated,
    Event,
    Session,
    SessionEnded,
    SessionStarted,
)
from ..events.frozen_dict import FrozenDict
from ..events.packed_actions import ActionList
from .session_state import SessionState


def project_session(state: SessionState, events: Iterable[Event], version: int) -> Session:
    """Return the session with this state, from its events in order; ``version``: the format's.

    The events of a fork begin with those that it shares.
    """
    actions = ActionList(state.action_count)
    checkpoints: list[Checkpoint] = []
    in_flight: dict[int, ActionStarted] = {}
    starts: dict[int, ActionStarted] = {}
    name, metadata = state.info.name, dict[str, Any]()
    error, ended_ns = None, None
    for event in events:
        payload = event.payload
        if isinstance(payload, ActionRecorded):
            actions.append(payload.action)
            in_flight.pop(payload.action.started or 0, None)
        elif isinstance(payload, SessionStarted):
            name, metadata = payload.name, dict(payload.metadata)
        elif isinstance(payload, SessionChanged):
            name = payload.changes.get("name", name)
            metadata.update(payload.changes.get("metadata", {}))
        elif isinstance(payload, SessionEnded):
            error, ended_ns = payload.error, event.time_ns
        elif isinstance(payload, ActionStarted):
            first = starts.get(payload.call, payload)
            starts[payload.call] = evolve(first, try_number=payload.try_number)
            in_flight[payload.call] = starts[payload.call]
        elif isinstance(payload, SessionResumed):
            in_flight.update((one, starts[one]) for one, _ in payload.reopened if one in starts)
        elif isinstance(payload, CheckpointCreated):
            actions.append(payload.action)
            checkpoints.append(payload.checkpoint)
    return Session(
        session_id=state.info.session_id,
        name=name,
        created_ns=state.info.created_ns,
        ended_ns=ended_ns,
        error=error,
        actions=actions.whole(),
        checkpoints=tuple(checkpoints),
        metadata=FrozenDict(metadata),
        version=version,
        fork=state.info.fork,
        in_flight=tuple(in_flight.values()),
    )
