"""The log as a slow, obvious writer makes it: one event at a time, each with all of its objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve as replace

from memvid_async import ContentStored, Event, MemvidAsyncError
from memvid_async.core.commands import Command
from memvid_async.core.decide import decide
from memvid_async.core.evolve import evolve
from memvid_async.core.recent_keys import RecentKeys
from memvid_async.core.state import State
from memvid_async.events.keyed import CollectionChanged
from memvid_async.format.codec import encode_events


class _KnownContents(dict[bytes, int]):
    """The contents by digest, and the keys of collections that changed."""

    def __init__(self) -> None:
        self.recent_keys = RecentKeys()


class SlowLog:
    """Decides, makes every event, encodes it, and folds it before the next command.

    ``payloads``: those of its segments. ``events``: as they are published, without the data of
    contents. ``answers``: of each command its answer, or the type of the error that refused it.
    """

    def __init__(self) -> None:
        self.state = State()
        self.payloads: list[bytes] = []
        self.events: list[Event] = []
        self.answers: list[Any] = []
        self._known = _KnownContents()

    def do(self, command: Command, now: int) -> None:
        """Do the command at a time."""
        try:
            decided, answer = decide(self.state, command, now, self._known)
        except MemvidAsyncError as error:
            self.answers.append(type(error))
            return
        self.answers.append(answer)
        events = [one.event() for one in decided]
        if events:
            self.payloads.append(bytes(encode_events(events)))
        for event in events:
            self.state = evolve(self.state, event)
            if isinstance(event.payload, CollectionChanged):
                self._known.recent_keys.note(event)
            if isinstance(event.payload, ContentStored):
                self._known[event.payload.digest] = event.sequence
                kept = ContentStored(event.payload.digest, event.payload.size)
                event = replace(event, payload=kept)
            self.events.append(event)


def plain(state: State) -> Mapping[str, Any]:
    """A state as plain values, so that a comparison says what differs."""
    sessions = {
        number: {**one._asdict(), "held": dict(one.held)} for number, one in state.sessions.items()
    }
    memory = {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in state.memory._asdict().items()
    }
    kept = state.sessions
    numbers = sorted(kept.open), sorted(kept.packed), len(kept.open), len(kept.packed)
    sessions = {"kept": numbers, **sessions}
    values = {"sessions": sessions, "numbers": dict(state.numbers), "memory": memory}
    return {**state._asdict(), **values}
