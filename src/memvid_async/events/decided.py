"""Events as they were decided: plain values, of which an event is made when somebody looks at it.

Most events are recorded, acked and never looked at in this process. So a recorded action costs two
tuples, and not the eight objects of an :class:`Event`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from .calls import NO_CALL, ActionStarted, CallFacts, LanePath
from .content import EMPTY, Content
from .conversion import UNCONVERTED, Conversion
from .details import ActionKind, make_details
from .event import Action, ActionRecorded, ContentStored, Event, Payload, StoredMessages
from .frames import Retrieval
from .prompts import Reply


class Extras(NamedTuple):
    """What few actions have, in the order in which a row has it. None stands for one with nothing.

    ``messages``: a :class:`StoredMessages`; in a command they are not stored yet. ``conversion``:
    the bits of a :class:`Conversion`.
    """

    error: str | None = None
    metadata: Mapping[str, Any] = EMPTY
    messages: Any = None
    retrieval: Retrieval | None = None
    reply: Reply | None = None
    call: CallFacts | None = None
    conversion: int = 0

    @classmethod
    def of(cls, recorded: ActionRecorded) -> Extras | None:
        """Return what an action has that is there with all of its fields."""
        action = recorded.action
        return cls(
            action.error,
            action.metadata,
            recorded.messages,
            action.retrieval,
            action.reply,
            None if action.call == NO_CALL else action.call,
            int(action.conversion),
        ).or_none()

    def or_none(self) -> Extras | None:
        """Return None where there is nothing in it."""
        error, metadata, *others, conversion = self
        is_empty = error is None and not metadata and not conversion
        return None if is_empty and others.count(None) == len(others) else self


NO_EXTRAS = Extras()


class DecidedAction(NamedTuple):
    """The values of an action, as its row has them.

    ``fields``: input, output, duration in milliseconds, frames (None for none), task, and what the
    kind adds. Of the input and the output, small content may be the data itself.
    """

    session_id: UUID | None
    action_index: int
    sequence: int
    time_ns: int
    kind: ActionKind
    fields: tuple[Any, ...]
    extras: Extras | None

    @classmethod
    def of(cls, recorded: ActionRecorded) -> DecidedAction:
        """Return the values of an action that is there with all of its fields."""
        action, kind = recorded.action, recorded.action.kind
        return cls(
            action.session_id,
            action.index,
            action.sequence,
            action.time_ns,
            kind,
            (
                action.input,
                action.output,
                action.duration_ms,
                action.affected_frames or None,
                action.task,
                *(getattr(action.details, name) for name in _DETAILS.get(kind, ())),
            ),
            Extras.of(recorded),
        )

    def action(self) -> Action:
        """Return the action with all of its fields."""
        given, output, duration_ms, frames, task, *detail = self.fields
        extras = self.extras or NO_EXTRAS
        count = 0 if extras.messages is None else extras.messages.count
        return Action(
            self.action_index,
            self.sequence,
            self.time_ns,
            self.kind,
            make_details(self.kind, detail, frames or (), count),
            whole_content(given),
            whole_content(output),
            frames or (),
            duration_ms,
            task,
            extras.error,
            extras.metadata,
            extras.retrieval,
            extras.reply,
            Conversion(extras.conversion) if extras.conversion else UNCONVERTED,
            self.session_id,
            extras.call or NO_CALL,
        )

    @property
    def messages(self) -> StoredMessages | None:
        """What it has of the prompt as it went to the model."""
        messages: StoredMessages | None = None if self.extras is None else self.extras.messages
        return messages


# The fields of an action's details that its other values do not tell.
_DETAILS = {
    ActionKind.ASK: ("provider", "model"),
    ActionKind.FIND: ("mode", "result_count"),
    ActionKind.TOOL_CALL: ("name",),
    ActionKind.STEP: ("name",),
    ActionKind.ONCE: ("name",),
}


class DecidedStart(NamedTuple):
    """The values of an :class:`ActionStarted`; ``detail`` and ``input`` as an action's."""

    sequence: int
    time_ns: int
    session_id: UUID | None
    kind: ActionKind
    detail: tuple[Any, ...]
    input: Content | str | bytes | None
    task: str | None
    parent: int | None
    lane: LanePath
    seen: int
    first: int | None
    try_number: int
    settled_by: str | None
    messages_digest: bytes | None

    @classmethod
    def of(cls, start: ActionStarted) -> DecidedStart:
        """Return the values of a start that is there with all of its fields."""
        return cls(
            start.sequence,
            start.time_ns,
            start.session_id,
            start.kind,
            tuple(getattr(start.details, name) for name in _DETAILS.get(start.kind, ())),
            start.input,
            start.task,
            start.parent,
            start.lane,
            start.seen,
            start.first,
            start.try_number,
            start.settled_by,
            start.messages_digest,
        )

    def start(self) -> ActionStarted:
        """Return the start with all of its fields."""
        return ActionStarted(
            self.sequence,
            self.time_ns,
            self.session_id,
            self.kind,
            make_details(self.kind, self.detail, (), 0),
            whole_content(self.input),
            *self[6:],
        )


def whole_content(value: Content | str | bytes | None) -> Content | None:
    """Return content that may be the data itself as a :class:`Content`."""
    return value if value is None or isinstance(value, Content) else Content(value)


def sequence_of(action: Action) -> int:
    """Return an action's sequence, without making the action for it."""
    made = action.__dict__.get("sequence")
    values: Any = action._values if made is None else None  # noqa: SLF001 - its maker
    return action.sequence if values is None else values.sequence


class DecidedEvent(NamedTuple):
    """The fields of an :class:`Event`, by the same names; an action's payload is its values."""

    sequence: int
    time_ns: int
    session_id: UUID | None
    payload: Payload | DecidedAction | DecidedStart
    session: int = 0

    def event(self) -> Event:
        """Return the event."""
        sequence, time_ns, session_id, payload, session = self
        if isinstance(payload, DecidedAction):
            payload = ActionRecorded(payload.action(), payload.messages)
        elif isinstance(payload, DecidedStart):
            payload = payload.start()
        return Event(sequence, time_ns, session_id, payload, session)

    def without_data(self) -> DecidedEvent:
        """Return the event as it is published: without a content's data, which readers read."""
        payload = self.payload
        if not isinstance(payload, ContentStored):
            return self
        return self._replace(payload=ContentStored(payload.digest, payload.size))


AnyEvent = Event | DecidedEvent
