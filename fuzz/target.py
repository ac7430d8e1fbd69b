"""What is done to the bytes of a file that anybody may have written.

Whatever they are: opening, reading, verifying, writing and recovering end in an answer or in one of
the library's own errors, and a file that took an append can be opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from typing import Any
from unittest.mock import patch
from uuid import UUID

from memvid_async import ActionKind, Limits, MemvidAsyncError, RecordingConfig, StoreConfig
from memvid_async.core import commands
from memvid_async.core.reports import VerifyReport
from memvid_async.engine.reading import read_messages, read_session
from memvid_async.events.content import Content
from memvid_async.events.event import Action
from memvid_async.file import catalog as index
from memvid_async.file import log_file as logfile
from memvid_async.file import open_table, wreck
from memvid_async.file.journal import Journal
from memvid_async.file.recover import recover_into
from memvid_async.file.verify import Verifier
from memvid_async.format.tables import Table
from memvid_async.memory.folded import FoldedMemory, lineage_of
from memvid_async.memory.prepare_frames import prepare_fields, prepare_frames_many
from memvid_async.recording.action_draft import ActionDraft, prepare_action
from memvid_async.storage import RamStorage

FIRST_TIME = 1_700_000_000_000_000_000
# Reading every session costs each its own segments; this many show what there is to see.
MOST_SESSIONS = 50
MOST_ACTIONS = 200


@contextmanager
def small_tables() -> Iterator[None]:
    """Bounds so low that a short log has chunks, pages, marks and TOCs."""
    rows = dict.fromkeys(Table, 2) | {Table.MARKS: 3}
    with ExitStack() as stack:
        for module, name, value in [
            (index, "TOC_LEAST_BYTES", 900),
            (index, "TOC_FACTOR", 1),
            (index, "CHUNK", 3),
            (index, "MARK_BYTES", 300),
            (index, "PAGE_ROWS", rows),
            (open_table, "PAGE_BYTES", 50),
            (open_table, "LEAST_PAGES", 1),
            (logfile, "_RESERVE", 256),
            (logfile, "_MOST_RESERVE", 1024),
            (wreck, "_MOST_MISSING", 4096),
        ]:
            stack.enter_context(patch.object(module, name, value))
        yield


def config() -> StoreConfig:
    """Nothing is left to chance, so that every finding can be repeated."""
    clock = count(FIRST_TIME, 1000)
    ids = (UUID(int=number) for number in count(1 << 100))
    return StoreConfig(clock=lambda: next(clock), id_factory=lambda: next(ids), lock_timeout=0)


def record(
    session: commands.SessionChoice, kind: ActionKind, **given: Any
) -> commands.RecordAction:
    """The command that a recorder makes of a call."""
    return prepare_action(session, ActionDraft(kind, **given), None, Limits())


def ask(
    session: commands.SessionChoice, query: str, response: str, *messages: Any
) -> commands.RecordAction:
    """An ask like most."""
    detail = ("provider", "model")
    return record(
        session, ActionKind.ASK, input=query, output=response, detail=detail, messages=messages
    )


def change(
    session: commands.SessionChoice,
    kind: ActionKind,
    *items: Any,
    frame_id: int = 0,
    **changes: Any,
) -> commands.ChangeMemory:
    """The command that a store makes of a call that changes its memory."""
    frames, _ = prepare_frames_many(items, Limits())
    fields = prepare_fields(changes, Limits())
    return commands.ChangeMemory(session, kind, "english", frames, frame_id, fields, 0, None, {})


def carry_out(journal: Journal, batch: Sequence[commands.Command]) -> list[Any]:
    """Commit a batch and return its outcomes. Only an error of the library's own refuses one: any
    other would be a fault, here or there, that nobody hears of."""
    outcomes, _ = journal.commit(batch)
    for outcome in outcomes:
        if isinstance(outcome, Exception) and not isinstance(outcome, MemvidAsyncError):
            raise outcome
    return outcomes


def start(number: int, *, ambient: bool = False) -> commands.StartSession:
    """Start a session with an id made from ``number``."""
    recording = RecordingConfig(auto_checkpoint_interval=2)
    return commands.StartSession(UUID(int=number), "s", recording, {"a": 1}, ambient=ambient)


def check(data: bytes) -> None:
    """Do everything with a file of these bytes that the library can do."""
    with small_tables():
        with suppress(MemvidAsyncError):
            _look(Journal.open(RamStorage(data), config(), read_only=True))
        with suppress(MemvidAsyncError):
            _write(RamStorage(data))
        _recover(data)


def _look(journal: Journal) -> VerifyReport:
    """Read everything there is. What is damaged may be refused, each time again."""
    view = journal.view
    contents: list[Content] = []
    for data, number in list(view.state.numbers.items())[:MOST_SESSIONS]:
        session_id = UUID(bytes=data)
        view.state.sessions[number].summary()
        with suppress(MemvidAsyncError):
            actions = read_session(view, session_id).actions[:MOST_ACTIONS]
            for action in actions:
                contents += [c for c in (action.input, action.output) if c is not None]
                _try(_messages, journal, action)
    for content in contents:
        _try(_content, journal, content)
    _try(_memory, journal)
    with suppress(MemvidAsyncError):
        after = 0
        while events := view.events_after(after, 400):
            assert events[-1].sequence > after
            after = events[-1].sequence
    return _verify(journal)


def _memory(journal: Journal) -> None:
    """Fold the frames, read them and search them; also each fork's."""
    state = journal.view.state
    for number in (0, *list(state.memory.branches)[:5]):
        memory = FoldedMemory(lineage_of(state, number))
        try:
            index = memory.catch_up(journal.view)
            rows = index.scan(limit=50)
            for row in rows:
                _try(memory.frame, row)
                _try(memory.text, row)
            _try(index.find, "topic OR words")
            _try(partial(index.find, mode="hybrid"), "topic", b"\0\0\x80\x3f" * 2)
            places = index.places([row.frame_id for row in rows])
            _try(index.snippets, "topic", places)
        finally:
            memory.close()


def _messages(journal: Journal, action: Action) -> None:
    if getattr(action.details, "message_count", 0):
        read_messages(journal.view, action)


def _content(journal: Journal, content: Content) -> None:
    assert repr(content)
    journal.view.data(content)


def _try(call: Callable[..., object], *arguments: object) -> None:
    with suppress(MemvidAsyncError):
        call(*arguments)


def _verify(journal: Journal) -> VerifyReport:
    verifier = Verifier(journal.view.reader.storage, journal.view)
    while not verifier.finished:
        verifier.step()
    return verifier.report()


def _write(storage: RamStorage) -> None:
    """Append to it, compact it, open it again."""
    journal = Journal.open(storage, config())
    ok = _verify(journal).ok
    state = journal.view.state
    choices: list[commands.SessionChoice] = [(), *list(state.sessions)[:MOST_SESSIONS]]
    started, _ = carry_out(journal, [start(1 << 90), start(1 << 91, ambient=True)])
    choices.append(started if isinstance(started, int) else (1, 2))
    for choice in choices:
        carry_out(
            journal,
            [
                ask(choice, "why?", "because " * 200, {"role": "user", "content": "why?"}),
                record(choice, ActionKind.PUT, input=b"\xff" * 1100, frames=(1,)),
                commands.CreateCheckpoint(choice, None),
                change(choice, ActionKind.PUT, {"content": "a topic", "tags": ["t"]}),
                commands.EndSession(choice if isinstance(choice, int) else None, None),
            ],
        )
    for session_id in [UUID(bytes=data) for data in list(state.numbers)[:2]]:
        carry_out(journal, [commands.DeleteSession(session_id)])
    assert not ok or _verify(journal).ok, "appending broke it"
    again = Journal.open(RamStorage(bytes(storage.data)), config(), read_only=True)
    assert again.view.state.last_sequence == journal.view.state.last_sequence
    _look(again)
    journal.compact(lambda *_: None)
    assert not ok or _verify(journal).ok, "compacting broke it"
    assert again.view.state.last_sequence == journal.view.state.last_sequence
    journal.close()


def _recover(data: bytes) -> None:
    target = RamStorage()
    try:
        recover_into(RamStorage(data), target, lambda *_: None)
    except MemvidAsyncError:
        return
    report = _look(Journal.open(target, config(), read_only=True))
    assert report.ok, f"recovering made a bad file: {report.problems}"
