"""A recorded session as the modules of this room read it: whole, except large contents.

It is synchronous and runs in the store's reading thread.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any
from uuid import UUID

from attrs import Factory, define, frozen

from ..core.held_messages import message_places, restore_messages
from ..engine.event_log import View
from ..engine.reading import decode_arguments, read_session, session_history
from ..errors import ContentNotFoundError, CorruptFileError, SessionNotFoundError
from ..events.calls import CallFacts
from ..events.content import Content, content_digest
from ..events.event import (
    Action,
    ActionRecorded,
    Checkpoint,
    CheckpointCreated,
    MessageRun,
    StoredMessages,
)
from ..events.message_digests import chained_digest, drop_call_ids, value_digest
from .facts import (
    INPUT_NAMES,
    OUTPUT_NAMES,
    details_fields,
    may_hold_calls,
    own_metadata,
    retrieval_fields,
    task_name,
    without_call_ids,
)

Facts = dict[str, Hashable]

IN_FLIGHT = "in flight"
"""The error of what began, and of which nobody said how it ended."""


@frozen
class _Digests:
    """The digests of the messages that are stored with an ask, by their places in it."""

    messages: dict[int, bytes]
    chains: dict[int, bytes]
    """Those of all the ask's messages up to this one."""


@define
class RecordedSession:
    """The actions of one session, and what belongs to them, by index."""

    session_id: UUID
    actions: list[Action] = Factory(list)
    checkpoints: dict[int, Checkpoint] = Factory(dict)
    messages: dict[int, StoredMessages] = Factory(dict)
    _by_index: dict[int, Action] = Factory(dict)
    _digests: dict[int, _Digests] = Factory(dict)

    def add(self, action: Action) -> None:
        """Add the next action."""
        self.actions.append(action)
        self._by_index[action.index] = action

    def ask(self, index: int) -> tuple[Action, StoredMessages | None]:
        """Return an action, and the messages stored with it."""
        return self._by_index[index], self.messages.get(index)

    def read_messages(self, view: View, action: Action) -> list[Any]:
        """Return the messages of an ask, whole; empty when there are none.

        :raises ContentNotFoundError: when some of them are gone.
        """
        if action.index not in self.messages:
            return []

        def content(sequence: int) -> bytes:
            return view.data(view.content(sequence))

        try:
            return restore_messages(action.index, self.ask, content)
        except KeyError:
            raise ContentNotFoundError("an earlier ask that held some of them is gone") from None
        except (ValueError, TypeError) as error:
            raise CorruptFileError(0, f"messages refer wrongly: {error}") from None

    def facts(self, view: View, action: Action) -> Facts:
        """Return what is compared of an action, except messages: small hashable values by name."""
        facts: Facts = {"kind": action.kind, **dict(details_fields(action.details))}
        facts.update(retrieval_fields(action.retrieval))
        if action.input is not None:
            facts[INPUT_NAMES.get(action.kind, "input")] = action.input.digest
        if action.output is not None:
            facts[OUTPUT_NAMES.get(action.kind, "output")] = _output_digest(view, action)
        facts["task"] = task_name(action.task)
        facts["error"] = action.error
        if metadata := own_metadata(action.metadata):
            facts["metadata"] = value_digest(metadata)
        checkpoint = self.checkpoints.get(action.index)
        if checkpoint is not None:
            facts["state_hash"] = checkpoint.state_hash
        return facts

    def messages_digest(self, view: View, action: Action) -> bytes | None:
        """Return a digest over the messages of an ask, without the ids of tool calls.

        Must be called for asks in order. Messages that an earlier ask holds are not read again.
        """
        stored = self.messages.get(action.index)
        if stored is None:
            return None
        own, last, place = iter(self._own_messages(view, action, stored)), b"", 0
        kept = self._digests[action.index] = _Digests({}, {})
        for part in stored.parts:
            if isinstance(part, MessageRun):
                last = self._run_digest(part, last, is_beginning=not place)
                place += part.count
                continue
            kept.messages[place] = message = value_digest(drop_call_ids(next(own)))
            kept.chains[place] = last = chained_digest(last, message)
            place += 1
        return last

    def _run_digest(self, run: MessageRun, last: bytes, *, is_beginning: bool) -> bytes:
        """Return the digest over the messages before a run, which is ``last``, and those of it."""
        try:
            if is_beginning and not run.first:
                # A run mostly ends with a message that is stored with the ask it is of.
                chain = self._digests[run.index].chains.get(run.count - 1)
                if chain is not None:
                    return chain
            for index, place, _ in message_places(run.index, self.ask, run.first, run.count):
                last = chained_digest(last, self._digests[index].messages[place])
        except (KeyError, ValueError):
            # Only a recovery leaves a reference to an ask that is gone.
            return b"gone"
        return last

    def _own_messages(self, view: View, action: Action, stored: StoredMessages) -> list[Any]:
        alone = StoredMessages(stored.hashes, stored.own)
        lone = RecordedSession(
            self.session_id, messages={action.index: alone}, by_index=self._by_index
        )
        try:
            return lone.read_messages(view, action)
        except ContentNotFoundError:
            return list(stored.own)


def load_recording(view: View, session_id: UUID) -> RecordedSession:
    """Read all actions of a session.

    :raises SessionNotFoundError: when there is none with this id.
    :raises CorruptFileError: when it cannot be read.
    """
    found = view.state.find(session_id)
    if found is None:
        raise SessionNotFoundError(session_id)
    recording = RecordedSession(session_id)
    for event in session_history(view, found.info.number):
        payload = event.payload
        if isinstance(payload, ActionRecorded):
            recording.add(payload.action)
            if payload.messages is not None:
                recording.messages[payload.action.index] = payload.messages
        elif isinstance(payload, CheckpointCreated):
            recording.add(payload.action)
            recording.checkpoints[payload.action.index] = payload.checkpoint
    return recording


def calls_in_flight(view: View, session_id: UUID) -> list[Action]:
    """Return what began in a session, and of which nobody said how it ended, as actions: with that
    as their error, and with the indexes after those of its actions.

    :raises SessionNotFoundError, CorruptFileError: when the session cannot be read.
    """
    found = view.state.find(session_id)
    if found is None or not found.in_flight:
        return []
    session = read_session(view, session_id)
    return [
        Action(
            index,
            start.sequence,
            start.time_ns,
            start.kind,
            start.details,
            start.input,
            None,
            (),
            0,
            start.task,
            IN_FLIGHT,
            session_id=start.session_id,
            call=CallFacts(start.call, start.time_ns, start.parent),
        )
        for index, start in enumerate(session.in_flight, found.action_count)
    ]


def read_text(view: View, content: Content | None) -> str | bytes | None:
    """Return an input or output as it was recorded, text or bytes; None for None.

    :raises ContentNotFoundError: when it is gone.
    """
    return None if content is None else view.value(content)


def read_arguments(view: View, action: Action) -> Any:
    """Return a tool call's arguments, decoded; None where there are none.

    :raises CorruptFileError: when they are not a value.
    """
    return None if action.input is None else decode_arguments(view, action)


def _output_digest(view: View, action: Action) -> bytes:
    output = action.output
    assert output is not None
    if may_hold_calls(action):
        try:
            data = output.data if output.data is not None else view.data(output)
        except ContentNotFoundError:
            return output.digest
        shorter = without_call_ids(data)
        if shorter is not data:
            return content_digest(shorter)
    return output.digest
