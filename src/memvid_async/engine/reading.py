"""Reading sessions and an ask's messages from any log; a fork with the past that it shares.

All functions block, as a :class:`View` does, and are called in the threads that read.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from uuid import UUID

from ..core.held_messages import restore_messages
from ..core.projection import project_session
from ..errors import ContentNotFoundError, InvalidValueError, SessionNotFoundError
from ..events.event import Action, ActionRecorded, CheckpointCreated, Event, Session, StoredMessages
from .event_log import View


def read_session(view: View, session_id: UUID) -> Session:
    """Return one session, whole.

    :raises SessionNotFoundError: when there is none with this id.
    :raises CorruptFileError: when it cannot be read.
    """
    found = view.state.find(session_id)
    if found is None or not view.has_session(found.info.number):
        raise SessionNotFoundError(session_id)
    events = session_history(view, found.info.number)
    session = project_session(found, events, view.version)
    for action, later in pairwise(session.actions):
        if later.index <= action.index:
            why = f"actions of session {session_id} are out of order"
            raise view.damage(later.sequence, why)
    return session


def session_history(view: View, number: int) -> list[Event]:
    """Return the events of a session, in order.

    A fork's events follow the actions that it shares with its parents. Actions of parents that
    were deleted are missing.
    """
    events, _ = view.session_events(number)
    found = view.state.sessions.get(number)
    fork = found.info.fork if found is not None else None
    if fork is None or fork.parent >= number or fork.parent not in view.state.sessions:
        return events
    past = session_history(view, fork.parent)
    shared = (ActionRecorded, CheckpointCreated)
    return [
        event
        for event in past
        if event.sequence <= fork.sequence and isinstance(event.payload, shared)
    ] + events


def read_messages(view: View, action: Action) -> list[Any]:
    """Return the messages of an ask, whole.

    :raises InvalidValueError: when the action has none, or is in no session of this file.
    :raises ContentNotFoundError: when some of them are gone.
    :raises CorruptFileError: when they cannot be read.
    """
    number = view.session_number(action)
    asks: dict[int, tuple[Action, StoredMessages | None]] = {}
    for event in view.session_events(number)[0]:
        payload = event.payload
        if isinstance(payload, ActionRecorded):
            asks[payload.action.index] = (payload.action, payload.messages)
        elif isinstance(payload, CheckpointCreated):
            asks[payload.action.index] = (payload.action, None)
    found = asks.get(action.index)
    if found is None or found[0].sequence != action.sequence:
        raise InvalidValueError("the action is in no session of this file (any more)")
    if found[1] is None:
        raise InvalidValueError(f"action {action.index} has no messages")
    try:
        return restore_messages(
            action.index, asks.__getitem__, lambda sequence: view.data(view.content(sequence))
        )
    except KeyError:
        # Only a recovery leaves a reference to an ask that is gone.
        raise ContentNotFoundError("an earlier ask that held some of them is gone") from None
    except (ValueError, TypeError) as error:
        raise view.damage(action.sequence, f"messages refer wrongly: {error}") from None
