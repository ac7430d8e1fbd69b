"""What the kill torture knows: every ack that was heard, and every event that was once seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from memvid_async import (
    Action,
    ActionRecorded,
    CheckpointCreated,
    CollectionChanged,
    Content,
    ContentStored,
    Erased,
    Event,
    KeyPut,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    StoreConfig,
)
from memvid_async.engine.event_log import View
from memvid_async.engine.reading import read_messages, read_session
from memvid_async.events.values import decode_value
from memvid_async.file.journal import Journal
from memvid_async.memory.folded_keys import FoldedKeys
from memvid_async.storage import FileStorage
from tests.support.asking import verified
from tests.torture.values import difference, make
from tests.torture.victim import CHECKPOINT_EVERY, COUNTS, times_hash


class LostError(AssertionError):
    """A promise was broken."""


def demand(truth: object, message: str) -> None:
    if not truth:
        raise LostError(message)


class Ledger:
    """Compares a file, again and again, with what it said before and what was acked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acked = 0
        self.last = self.rolled = self.generation = 0
        self._time = 0
        # Per sequence: its time, the session (an id, 0 for none), and what it said.
        self._seen: list[tuple[int, int, Any]] = [(0, 0, None)]
        self._sessions: dict[int, int] = {}
        self._actions: dict[int, list[int]] = defaultdict(list)
        self._unmarked: dict[int, int] = defaultdict(int)
        self._next: dict[int, int] = defaultdict(int)
        self._counts: dict[str, int] = {}
        self._ended: set[int] = set()
        self._deleted: set[int] = set()

    def check(self, acks: list[list[Any]], *, whole: bool) -> None:
        """Take in what is new and compare it with the acks; ``whole``: and all that is old."""
        storage = FileStorage.open(self.path, read_only=True)
        try:
            journal = Journal.open(storage, StoreConfig(), read_only=True)
            view = journal.view
            for event in _events(view, self.last):
                self._take_in(view, event)
            demand(view.state.last_sequence == self.last, "the log ends before the state")
            demand(view.state.generation >= self.generation, "the generation went back")
            self.generation = view.state.generation
            for ack in acks:
                self._keep(*ack)
            if whole:
                self._check_whole(journal)
        finally:
            storage.close()

    # What is new.

    def _take_in(self, view: View, event: Event) -> None:
        sequence, payload = event.sequence, event.payload
        demand(sequence == self.last + 1, f"{sequence} stands after {self.last}")
        demand(event.time_ns >= self._time, f"time went back at {sequence}")
        session = event.session_id.int if event.session_id is not None else 0
        said: Any = type(payload).__name__
        if isinstance(payload, SessionStarted):
            demand(session not in self._sessions, f"session {session} started twice")
            self._sessions[session] = sequence
        elif isinstance(payload, (ActionRecorded, CheckpointCreated)):
            said = self._take_action(view, session, payload.action)
        elif isinstance(payload, SessionEnded):
            demand(session not in self._ended, f"session {session} ended twice")
            self._ended.add(session)
        elif isinstance(payload, SessionDeleted):
            demand(session not in self._deleted, f"session {session} was deleted twice")
            self._deleted.add(session)
        elif isinstance(payload, ContentStored):
            said = payload.digest
        elif isinstance(payload, CollectionChanged):
            for change in payload.changes:
                demand(isinstance(change, KeyPut), f"event {sequence} is no count")
                self._counts[change.key] = change.value  # type: ignore[union-attr]
        self.last, self._time = sequence, event.time_ns
        self.rolled = times_hash(sequence, event.time_ns, self.rolled)
        self._seen.append((event.time_ns, session, None if said == "Erased" else said))

    def _take_action(self, view: View, session: int, action: Action) -> Any:
        where = f"event {action.sequence}"
        demand(session not in self._ended, f"{where} came after its session's end")
        demand(action.index == len(self._actions[session]), f"{where} has another's index")
        self._actions[session].append(action.sequence)
        due = self._unmarked[session] == CHECKPOINT_EVERY
        demand(
            (action.kind == "checkpoint") == due, f"{where}: a checkpoint is not where it is due"
        )
        if due:
            self._unmarked[session] = 0
            return "checkpoint"
        self._unmarked[session] += 1
        writer, number = (int(part) for part in (action.task or "").split("/"))
        demand(number == self._next[writer], f"{where} is {writer}/{number}: a hole, or twice")
        self._next[writer] = number + 1

        def data(content: Content) -> bytes:
            return view.data(content)

        def arguments(of: Action) -> Any:
            return decode_value(data(of.input)) if of.input is not None else None

        def messages(of: Action) -> list[Any]:
            count = getattr(of.details, "message_count", 0)
            return read_messages(view, of) if count else []

        wrong = difference(action, make(writer, number), data, arguments, messages)
        demand(wrong is None, f"{where} is not what {writer}/{number} recorded: {wrong}")
        return writer, number

    # What was acked.

    def _keep(self, what: str, *values: int) -> None:
        self.acked += 1
        if what == "action":
            sequence, writer, number, session = values
            demand(sequence <= self.last, f"acked event {sequence} is lost")
            said = self._seen[sequence][2]
            fine = said == (writer, number) or (said is None and session in self._deleted)
            demand(fine, f"acked event {sequence}, {writer}/{number}, is {said}")
        elif what == "entered":
            known = values[0] in self._sessions or values[0] in self._deleted
            demand(known, f"session {values[0]} was entered, and is lost")
        elif what == "counted":
            sequence, writer, number = values
            demand(sequence <= self.last, f"acked event {sequence} is lost")
            demand(self._counts.get(f"{writer}", 0) >= number, f"the count of {writer} is lost")
        elif what == "left":
            known = values[0] in self._ended or values[0] in self._deleted
            demand(known, f"session {values[0]} was ended, and is open")
        elif what == "deleted":
            demand(values[0] in self._deleted, f"session {values[0]} was deleted, and is there")
        elif what == "compacted":
            demand(self.generation >= values[0], "a compaction is lost")

    # What is old.

    def _check_whole(self, journal: Journal) -> None:
        view = journal.view
        report = verified(journal)
        demand(report.ok, f"it does not verify: {report.problems}")
        for event in _events(view, 0):
            time_ns, session, said = self._seen[event.sequence]
            demand(event.time_ns == time_ns, f"event {event.sequence} has another time")
            payload = event.payload
            if isinstance(payload, Erased):
                gone = said in (None, "CollectionChanged") or isinstance(said, bytes)
                gone |= session in self._deleted
                demand(gone, f"event {event.sequence} was erased")
            elif isinstance(payload, ActionRecorded):
                writer, number = (int(part) for part in (payload.action.task or "").split("/"))
                demand(said == (writer, number), f"event {event.sequence} has changed")
            else:
                same = said in (type(payload).__name__, "checkpoint") or isinstance(said, bytes)
                demand(same, f"event {event.sequence} has changed")
        folded = FoldedKeys()
        number = view.state.collections.numbers.get(COUNTS, 0)
        kept = folded.catch_up(view).scan(number, "", 0, after=None, reverse=False, limit=-1)
        counts = {one.key: folded.value(one).data for one in kept}
        folded.close()
        demand(counts == self._counts, f"the counts are {counts}, not {self._counts}")
        live = {s.info.session_id: s for s in view.state.sessions.values()}
        demand(not {i.int for i in live} & self._deleted, "a deleted session is there")
        demand(
            {i.int for i in live} == set(self._sessions) - self._deleted, "a session is not there"
        )
        for session_id, state in live.items():
            session = read_session(view, session_id)
            found = [action.sequence for action in session.actions]
            demand(found == self._actions[session_id.int], f"{session_id} has other actions")
            demand((state.ended_ns is not None) == (session_id.int in self._ended), "ended or not")


def _events(view: View, after: int) -> Iterator[Event]:
    while after < view.state.last_sequence:
        for event in view.events_after(after, 1 << 18):
            yield event
            after = event.sequence
