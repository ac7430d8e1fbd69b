"""A store as plain lists and dicts, to compare the real one with.

It knows nothing of folded states, bytes, positions or tables: it keeps what it was told, in a
list, and answers by looking through it. What a journal answers differently (``asking.py``), before
or after any reopening, is a bug in one of the two.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import cbor2
from attrs import asdict, astuple, field, frozen

from memvid_async import (
    ActionKind,
    InvalidValueError,
    LimitExceededError,
    Limits,
    NoActiveSessionError,
    RecordingConfig,
    SessionActiveError,
    SessionEndedError,
    SessionNotFoundError,
    StoreConfig,
)
from memvid_async.core import commands
from memvid_async.events.calls import CallFacts, SessionResumed
from memvid_async.events.prompts import Reply, cost_units
from memvid_async.events.value_preview import value_preview
from memvid_async.recording.action_draft import ActionDraft, prepare_action
from memvid_async.recording.prepare_values import prepare_content
from tests.support.naive_keys import NaiveKeys

NO_MEMORY = hashlib.blake2b(b"", digest_size=32).digest()
FIRST_TIME = 1_700_000_000_000_000_000


@frozen
class Record:
    """The arguments of a ``record_…`` call, and the session that it is meant for."""

    session: commands.SessionChoice
    kind: ActionKind = field(converter=ActionKind)
    input: Any = None
    output: str | bytes | None = None
    frames: tuple[int, ...] = ()
    detail: tuple[Any, ...] = ()
    duration_ms: float = 0
    task: str | None = None
    error: str | None = None
    metadata: dict[str, Any] | None = None
    messages: tuple[Any, ...] = ()
    reply: Reply | None = None
    call: CallFacts | None = None

    def command(self) -> commands.RecordAction:
        """The command that a recorder makes of it."""
        given = asdict(self, recurse=False, filter=lambda field, _: field.name != "session")
        return prepare_action(self.session, ActionDraft(**given), self.task, Limits())


@frozen
class Begin:
    """The start of a call, or another try of the one that began at ``first``."""

    session: int
    kind: ActionKind = field(converter=ActionKind)
    input: Any = None
    detail: tuple[Any, ...] = ()
    task: str | None = None
    parent: int | None = None
    lane: tuple[str | int, ...] = ()
    seen: int = 0
    first: int | None = None
    try_number: int = 1
    settled_by: str | None = None
    digest: bytes | None = None

    def command(self) -> commands.StartAction:
        """The command that a recorder makes of it."""
        return commands.StartAction(
            self.session,
            self.kind,
            self.detail,
            prepare_content(encoded(self.kind, self.input), "input", Limits()),
            self.task,
            self.parent,
            self.lane,
            self.seen,
            self.first,
            self.try_number,
            self.settled_by,
            self.digest,
        )


def call_values(call: CallFacts) -> tuple[Any, ...]:
    """What an action has of a call, besides its start, as plain values."""
    detail = call.error_detail
    error = None
    if detail is not None:
        arguments = None if detail.arguments is None else list(detail.arguments)
        values = canonical([arguments, dict(detail.attributes)])
        error = (detail.module, detail.qualname, values, detail.frames)
    return (
        call.parent,
        call.lane,
        call.seen,
        error,
        call.settled_by,
        call.raw and _content(call.raw.data),
    )


def encoded(kind: ActionKind, given: Any) -> Any:
    """An input as it is recorded: arguments are CBOR."""
    is_cbor = kind == "tool_call" or (kind == "step" and given is not None)
    return canonical(given) if is_cbor else given


def ask(
    session: commands.SessionChoice, query: str, response: str | None = None, *messages: Any
) -> Record:
    """An ask like most."""
    detail = ("openai", "gpt-4o")
    return Record(
        session, ActionKind.ASK, query, response, detail=detail, duration_ms=7, messages=messages
    )


Op = (
    Record
    | commands.StartSession
    | commands.EndSession
    | commands.ResumeSession
    | commands.DeleteSession
    | commands.CreateCheckpoint
    | commands.NoteEvent
    | commands.ChangeSession
    | commands.ChangeCollection
    | Begin
)


def command(op: Op) -> commands.Command:
    """What a journal takes for the operation."""
    return op.command() if isinstance(op, (Record, Begin)) else op


def start(number: int, *, ambient: bool = False, **config: Any) -> commands.StartSession:
    """Start a session with an id made from ``number``."""
    recording = RecordingConfig(**config)
    return commands.StartSession(UUID(int=number), f"session {number}", recording, ambient=ambient)


class Clock:
    """Nanoseconds that move on by a microsecond a call; ``calls`` may be set back."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return FIRST_TIME + 1000 * self.calls


def fixed_config(clock: Callable[[], int] | None = None) -> StoreConfig:
    """A configuration in which nothing is left to chance."""
    ids = (UUID(int=number) for number in itertools.count(1 << 100))
    return StoreConfig(clock=clock or Clock(), id_factory=lambda: next(ids), lock_timeout=0)


def canonical(value: Any) -> bytes:
    """CBOR that differs where the values do, if only in their type."""
    data: bytes = cbor2.dumps(value, canonical=True)
    return data


def _raw(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _content(data: str | bytes | None) -> Any:
    if data is None:
        return None
    raw = _raw(data)
    text = raw.decode("utf-8", "replace").replace("\r\n", "\n")[:512]
    shown = "".join(
        c if c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) else "\ufffd" for c in text
    )
    return raw, hashlib.blake2b(raw, digest_size=32).digest(), len(raw), shown


def _input(kind: ActionKind, given: str | bytes | None) -> Any:
    """The content of an input; that of arguments begins as the whole value does."""
    content = _content(given)
    if content is None or kind not in ("tool_call", "step"):
        return content
    return (*content[:3], value_preview(content[0]))


def _large_strings(value: Any) -> Iterator[str | bytes]:
    """The strings that are content of their own, in the order of the encoding; keys are none."""
    if isinstance(value, (str, bytes)):
        if len(_raw(value)) >= 1024:
            yield value
    elif isinstance(value, list):
        for item in value:
            yield from _large_strings(item)
    elif isinstance(value, dict):
        for key in sorted(value, key=lambda key: (len(canonical(key)), canonical(key))):
            yield from _large_strings(value[key])


def _shared(messages: tuple[Any, ...], others: tuple[Any, ...]) -> int:
    count = 0
    for one, other in zip(messages, others, strict=False):
        if canonical(one) != canonical(other):
            break
        count += 1
    return count


class Naive:
    """The naive store. ``log``: per event, its time, its session's number and what it says."""

    def __init__(self) -> None:
        self.log: list[tuple[int, int, tuple[Any, ...]]] = []
        self.sessions: dict[int, dict[str, Any]] = {}
        self.ids: dict[int, UUID] = {}
        self.ambient: int | None = None
        self.contents: set[bytes] = set()
        self.keys = NaiveKeys()
        self.asked: list[tuple[Any, ...]] = []
        # The starts that are another try of a call.
        self.tries: set[int] = set()
        self.now = self.generation = 0

    def apply(self, op: Op, clock: int) -> Any:
        """Do it; what its caller gets, or the type of the error."""
        self.now = clock
        if isinstance(op, Record):
            return self._record(op)
        if isinstance(op, commands.StartSession):
            return self._start(op)
        if isinstance(op, Begin):
            return self._begin(op)
        if isinstance(op, commands.NoteEvent):
            return self._note_of(op)
        if isinstance(op, commands.ChangeSession):
            return self._change(op)
        if isinstance(op, commands.ChangeCollection):
            return self.keys.change(op, self.note)
        if isinstance(op, commands.CreateCheckpoint):
            number = self._chosen(op.session)
            if number is None:
                return NoActiveSessionError
            return self._checkpoint(number, op.task) if self._open(number) else SessionEndedError
        if isinstance(op, commands.ResumeSession):
            number = self._number(op.session_id)
            if number is None:
                return SessionNotFoundError
            return number if self._open(number) else SessionEndedError
        if isinstance(op, commands.DeleteSession):
            return self._delete(op.session_id)
        return self._end(op)

    def left(self) -> tuple[int, set[int], set[bytes]]:
        """What a compaction at this moment leaves: how long the log is by now, the sessions, and
        the contents that they refer to."""
        kept: set[bytes] = set()
        for session in self.sessions.values():
            strings = [string for asked in session["asked"] for string in _large_strings([*asked])]
            kept |= {_content(string)[1] for string in strings}
            for action in session["actions"]:
                kept |= {content[1] for content in (action["input"], action["output"]) if content}
            kept |= {call["input"][1] for call in session["begun"] if call["input"]}
        return len(self.log), set(self.sessions), kept

    def compact(self, left: tuple[int, set[int], set[bytes]] | None = None) -> None:
        """Forget what only deleted sessions held, but for its place in the log; as of the moment of
        which ``left`` tells."""
        self.generation += 1
        length, sessions, kept = self.left() if left is None else left
        later = {what[1] for _, _, what in self.log[length:] if what[0] == "content"}
        self.contents &= kept | later
        for at, (time_ns, number, what) in enumerate(self.log[:length]):
            gone = number and number not in sessions and what[0] != "deleted"
            gone |= what[0] == "keys" and not self.keys.is_left(at + 1)
            if gone or (what[0] == "content" and what[1] not in kept):
                self.log[at] = (time_ns, 0, ("erased",))

    def note(self, number: int, *what: Any) -> int:
        """Add an event to the log; its sequence."""
        self.log.append((self.now, number, what))
        return len(self.log)

    def _open(self, number: int | None) -> bool:
        return number in self.sessions and self.sessions[number]["ended"] is None

    def _full(self, number: int) -> bool:
        session = self.sessions[number]
        done = [action for action in session["actions"] if action["kind"] != "checkpoint"]
        most = session["config"].max_actions
        return most is not None and len(done) + len(session["in_flight"]) >= most

    def _takes(self, number: int | None) -> bool:
        return number is not None and self._open(number) and not self._full(number)

    def _chosen(self, choice: commands.SessionChoice) -> int | None:
        """The one session, open or not; else the first of several that takes an action, or the
        ambient one if it does."""
        if isinstance(choice, int):
            return choice
        return next((number for number in (*choice, self.ambient) if self._takes(number)), None)

    def _number(self, session_id: UUID) -> int | None:
        found = [n for n in self.sessions if self.ids[n] == session_id]
        return found[0] if found else None

    def _start(self, op: commands.StartSession) -> Any:
        if op.ambient and self.ambient is not None:
            return self.ambient if op.if_none else SessionActiveError
        if self._number(op.session_id) is not None:
            return InvalidValueError
        config = op.config
        number = len(self.log) + 1
        self.ids[number] = op.session_id
        metadata = canonical(dict(op.metadata))
        interval, most = config.auto_checkpoint_interval, config.max_actions
        self.note(number, "started", op.name, op.ambient, interval, most, metadata)
        self.sessions[number] = {
            "name": op.name,
            "created": self.now,
            "ended": None,
            "error": None,
            "metadata": metadata,
            "actions": [],
            "checkpoints": [],
            "last": self.now,
            "config": config,
            "asked": [],
            "begun": [],
            "in_flight": {},
            "unmarked": 0,
        }
        self.ambient = number if op.ambient else self.ambient
        return number

    def _end(self, op: commands.EndSession) -> Any:
        number = op.session
        if isinstance(number, UUID):
            number = self._number(number)
            if number is None:
                return SessionNotFoundError
        elif number is None:
            number = self.ambient
            if number is None:
                return NoActiveSessionError
        if not self._open(number):
            return SessionEndedError
        self._ended(number, op.error)
        return number

    def _ended(self, number: int, error: str | None) -> None:
        self.note(number, "ended", error)
        self.sessions[number].update(ended=self.now, error=error, last=self.now)
        if self.ambient == number:
            self.ambient = None

    def _delete(self, session_id: UUID) -> Any:
        number = self._number(session_id)
        if number is None:
            return SessionNotFoundError
        self.note(number, "deleted")
        del self.sessions[number]
        if self.ambient == number:
            self.ambient = None
        return number

    def _begin(self, op: Begin) -> Any:
        if not (self._open(op.session) if op.first else self._takes(op.session)):
            return SessionEndedError
        session = self.sessions[op.session]
        if op.first is not None and op.first not in session["in_flight"]:
            return InvalidValueError
        given = encoded(op.kind, op.input)
        self._store(given)
        sequence = self.note(op.session, "begun", op.first, op.try_number)
        session["last"] = self.now
        call = {
            "sequence": sequence,
            "time": self.now,
            "kind": str(op.kind),
            "input": _input(op.kind, given),
            "task": op.task,
            "parent": op.parent,
            "lane": op.lane,
            "seen": op.seen,
            "detail": op.detail,
            "digest": op.digest,
            "tries": op.try_number,
        }
        session["begun"].append(call)
        if op.first is not None:
            self.tries.add(sequence)
            session["in_flight"][op.first]["tries"] = op.try_number
            return op.first
        session["in_flight"][sequence] = call
        session["unmarked"] += 1
        self._mark_if_due(op.session)
        return sequence

    def _mark_if_due(self, number: int) -> None:
        interval = self.sessions[number]["config"].auto_checkpoint_interval
        if interval and self.sessions[number]["unmarked"] >= interval:
            self._checkpoint(number, None)

    def _note_of(self, op: commands.NoteEvent) -> Any:
        if not self._open(op.session):
            return SessionEndedError
        sequence = self.note(op.session, "noted", type(op.note).__name__, repr(op.note))
        if isinstance(op.note, SessionResumed):
            session = self.sessions[op.session]
            reopened = dict(op.note.reopened)
            for call in session["begun"]:
                if call["sequence"] in reopened:
                    session["in_flight"][call["sequence"]] = call
        self.sessions[op.session]["last"] = self.now
        return sequence

    def _change(self, op: commands.ChangeSession) -> Any:
        number = self._number(op.session_id)
        if number is None:
            return SessionNotFoundError
        session = self.sessions[number]
        merged = {**cbor2.loads(session["metadata"]), **op.changes.get("metadata", {})}
        if op.changes.get("metadata") and len(canonical(merged)) > op.most_bytes:
            return LimitExceededError
        self.note(number, "changed", canonical(dict(op.changes)))
        session["name"] = op.changes.get("name", session["name"])
        session["metadata"] = canonical(merged)
        if session["ended"] is None:
            session["last"] = self.now
        return number

    def _store(self, data: str | bytes | None) -> None:
        if data is not None and len(_raw(data)) >= 1024:
            digest = _content(data)[1]
            if digest not in self.contents:
                self.contents.add(digest)
                self.note(0, "content", digest, len(_raw(data)))

    def _record(self, op: Record) -> Any:
        number = self._chosen(op.session)
        if number is None:
            return None
        started = None if op.call is None else op.call.started
        if not (self._takes(number) if started is None else self._open(number)):
            return SessionEndedError
        session = self.sessions[number]
        if started is not None and started not in session["in_flight"]:
            return InvalidValueError
        given = encoded(op.kind, op.input)
        self._store(given)
        self._store(op.output)
        known = max((_shared(op.messages, other) for other in session["asked"]), default=0)
        for message in op.messages[known:]:
            for string in _large_strings(message):
                self._store(string)
        if op.messages:
            session["asked"].append(op.messages)
            self.asked.append(op.messages)
        details = op.detail
        if op.kind in ("ask", "find", "put_many"):
            details = (*details, op.frames)
        if op.kind == "ask":
            details = (*details, len(op.messages))
        elif op.kind in ("put", "update", "delete"):
            details = (op.frames[0],)
        begun = session["in_flight"].pop(started, None)
        action = self._act(number, op, details, given, begun)
        config = session["config"]
        if begun is None:
            session["unmarked"] += 1
            self._mark_if_due(number)
        kinds = [done["kind"] for done in session["actions"]]
        if config.max_actions and len(kinds) - kinds.count("checkpoint") >= config.max_actions:
            self._ended(number, None)
        return action

    def _act(
        self, number: int, op: Record, details: tuple[Any, ...], given: Any, begun: Any = None
    ) -> Any:
        actions = self.sessions[number]["actions"]
        what = "checkpoint" if op.kind == "checkpoint" else "action"
        place = details[0] if op.kind == "checkpoint" else len(actions)
        action = {
            "index": len(actions),
            "sequence": self.note(number, what, place),
            "time": self.now,
            "kind": str(op.kind),
            "details": details,
            "input": _input(op.kind, given),
            "output": _content(op.output),
            "frames": op.frames,
            "duration": repr(op.duration_ms),
            "task": op.task,
            "error": op.error,
            "metadata": canonical(op.metadata or {}),
            "messages": canonical(list(op.messages)),
            "session": self.ids[number],
            "started": None if begun is None else (begun["sequence"], begun["time"]),
            "call": None if op.call in (None, CallFacts()) else call_values(op.call),
            "reply": None if op.reply is None else astuple(op.reply),
        }
        actions.append(action)
        self.sessions[number]["last"] = self.now
        return action

    def _checkpoint(self, number: int, task: str | None) -> Any:
        session = self.sessions[number]
        count = len(session["checkpoints"])
        snapshot = (0, NO_MEMORY, len(self.log), self.generation)
        session["unmarked"] = 0
        session["checkpoints"].append((count, len(session["actions"]), self.now, snapshot))
        kind = ActionKind.CHECKPOINT
        return self._act(number, Record(number, kind, task=task), (count,), None)

    def answers(self) -> dict[tuple[Any, ...], Any]:
        """The answer to every question that ``asking.py`` asks."""
        given: dict[tuple[Any, ...], Any] = {
            ("last",): (len(self.log), self.log[-1][0] if self.log else 0),
            ("ambient",): self.ids[self.ambient] if self.ambient is not None else None,
            ("listed",): [
                (
                    self.ids[number],
                    session["name"],
                    session["created"],
                    session["ended"],
                    len(session["actions"]),
                    len(session["checkpoints"]),
                    max(0, session["last"] - session["created"]),
                    None,
                    session["error"],
                    session["metadata"],
                    *self._sums(session),
                )
                for number, session in self.sessions.items()
            ],
        }
        for number, session in self.sessions.items():
            keys = ("name", "created", "ended", "error", "metadata", "actions", "checkpoints")
            answer = {key: session[key] for key in keys}
            answer["actions"] = [dict(action) for action in session["actions"]]
            answer["checkpoints"] = list(session["checkpoints"])
            answer["in flight"] = [dict(call) for call in session["in_flight"].values()]
            given["session", self.ids[number]] = answer
            own = [self._event(i) for i, event in enumerate(self.log) if event[1] == number]
            given["events of", self.ids[number]] = own
        given |= self.keys.answers()
        given["events",] = [self._event(i) for i in range(len(self.log))]
        return given

    def _sums(self, session: dict[str, Any]) -> tuple[Any, ...]:
        kinds = [action["kind"] for action in session["actions"]]
        failed = [a for a in session["actions"] if a["error"] is not None and a["kind"] != "step"]
        replies = [a["reply"] for a in session["actions"] if a["reply"] is not None]
        tokens = [min(2**63 - 1, sum(reply[at] or 0 for reply in replies)) for at in (1, 2, 3)]
        cost = sum(cost_units(reply[4] or 0) for reply in replies)
        counts = (kinds.count("ask"), kinds.count("tool_call"), len(failed))
        return (*counts, len(session["in_flight"]), *tokens, cost / 10**12)

    def _event(self, at: int) -> tuple[Any, ...]:
        time_ns, number, what = self.log[at]
        session_id = self.ids.get(number)
        if number and number not in self.sessions and what[0] not in ("started", "deleted"):
            number, session_id = 0, None
            what = what if what[0] == "unknown" else ("erased",)
        return at + 1, time_ns, session_id, number, what
