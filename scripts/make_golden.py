"""Make the golden files: one store of each shape that the format has, and what it answers.

Run as `python -m scripts.make_golden` in the root of the repository. The files of a version that
was released are never made again: a reader that cannot open them any more is wrong.
"""

import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import cbor2
from attrs import evolve

from memvid_async import (
    ActionKind,
    CollectionChanged,
    CollectionCreated,
    Content,
    Erased,
    Event,
    KeyDeleted,
    KeyPut,
    KeyRenewed,
    KeyUsed,
    Limits,
    ListChanged,
    PrefixDeleted,
    Reply,
    Retrieval,
    Unknown,
)
from memvid_async.core import commands
from memvid_async.core.decide_keys import LOOK_FIRST
from memvid_async.core.recent_keys import NO_KEY
from memvid_async.engine.reading import read_session
from memvid_async.events.calls import (
    AnswerDropped,
    CallFacts,
    ChunksCame,
    ErrorDetail,
    SessionResumed,
    SessionSuspended,
)
from memvid_async.events.content import StoredContent, content_digest
from memvid_async.events.decided import Extras
from memvid_async.events.embeddings import NewEmbedding
from memvid_async.events.keyed import KeyChange
from memvid_async.events.values import preview
from memvid_async.file import catalog as index
from memvid_async.file.journal import Journal
from memvid_async.file.toc import collection_rows
from memvid_async.format.codec import encode_events
from memvid_async.format.header import LOG_START, decode_header
from memvid_async.format.segment import SegmentKind, scan, seal
from memvid_async.format.tables import Table
from memvid_async.memory import folded as memory
from memvid_async.memory.past import context_of
from memvid_async.memory.prepare_frames import prepare_frame
from memvid_async.storage import RamStorage
from tests.support.asking import fields_of
from tests.support.naive import (
    FIRST_TIME,
    Begin,
    Clock,
    Naive,
    Op,
    Record,
    ask,
    command,
    fixed_config,
    start,
)

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
# So low that a few KiB have chunks, pages and TOCs. Where the log is marked is the format's.
LOW_BOUNDS: dict[str, Any] = {
    "TOC_LEAST_BYTES": 1500,
    "TOC_FACTOR": 1,
    "CHUNK": 3,
    "PAGE_ROWS": dict.fromkeys(Table, 2) | {Table.CONTENTS: 1, Table.MARKS: 1, Table.USED_KEYS: 1},
}


def operations(naive: Naive) -> Iterator[Op]:
    """Every kind of event, in sessions of every kind; the naive store tells their numbers."""

    def numbered(session: int) -> int:
        return next(n for n, found in naive.ids.items() if found == UUID(int=session))

    large, message = "content of its own, " * 52, {"role": "user", "content": "hello, " * 9}
    yield start(1, ambient=True)
    yield commands.StartSession(
        UUID(int=2),
        None,
        start(2, auto_checkpoint_interval=2, max_actions=5).config,
        {"agent": "golden", "nested": [1, -1, 2.5, None, True, b"\0", {"é": "😀"}]},
    )
    yield ask((), "a question", "an answer, " * 5, message, large)
    yield ask(1, "hello, " * 9, large, message, large, "and one more")
    yield Record(2, "put", b"\0\xff", frames=(7,), duration_ms=1.5, task="task", error="failed: é")
    yield Record(2, "put_many", frames=(1, 2, 2**40))
    yield Record(2, "find", "words", frames=(3,), detail=("lexical", 9), metadata={"k": [1]})
    yield Record(2, "update", large, frames=(7,))
    yield Record(2, "delete", frames=(7,))
    yield Record(1, "tool_call", {"b": [1, None], "a": 0.5}, "result", detail=("search",))
    yield Record(1, "tool_call", [], detail=("no result",))
    yield commands.CreateCheckpoint(1, "by hand")
    for session in range(3, 9):
        yield start(session)
        yield ask(numbered(session), f"of {session}", "short")
        yield commands.EndSession(numbered(session), "ValueError: no" if session == 4 else None)
    yield commands.DeleteSession(UUID(int=3))
    yield commands.DeleteSession(UUID(int=8))
    yield start(9)
    yield ask(numbered(9), "gone soon, " * 100, "secret")
    yield commands.DeleteSession(UUID(int=9))
    yield from calls(naive)
    yield ask(1, "the tail", "of the log", message, large, "and one more", "and another")


def calls(naive: Naive) -> Iterator[Op]:
    """A session of calls and steps, of which some are left in flight; and changes of sessions."""
    yield start(10, auto_checkpoint_interval=4, max_actions=20)
    number = len(naive.log)
    detail, large = ("charge",), "arguments of their own, " * 52
    yield Begin(number, "step", {"plan": 1}, ("plan",), "main", None, ())
    step = len(naive.log)
    given = {"b": 1, "a": large}
    yield Begin(number, "tool_call", given, detail, "worker", step, ("worker", 0))
    first = len(naive.log)
    failed = CallFacts(
        first, error_detail=ErrorDetail("shop", "Refused", ("no", 7), {"code": 402}, ("a:1 in b",))
    )
    yield commands.NoteEvent(number, ChunksCame(first, step, 0, ("a ", b"chunk")))
    yield Begin(
        number,
        "tool_call",
        {"b": 1, "a": large},
        detail,
        "worker",
        step,
        ("worker", 0),
        0,
        first,
        2,
        "run",
    )
    yield Record(
        number, "tool_call", {"b": 1, "a": large}, detail=detail, error="Refused: no", call=failed
    )
    yield Begin(number, "ask", "why?", ("acme", "m-1"), None, step, (), digest=bytes(range(16)))
    asked = CallFacts(len(naive.log), raw=Content("{}"), settled_by="a policy")
    reply = Reply((7,), 10, 2, 5, 0.000_001_5)
    yield Record(
        number,
        "ask",
        "why?",
        "because",
        detail=("acme", "m-1"),
        messages=("why?",),
        reply=reply,
        call=asked,
    )
    yield commands.NoteEvent(number, AnswerDropped(len(naive.log)))
    once = CallFacts(parent=step, lane=("worker", 0), seen=first)
    yield Record(number, "once", output="0.25", detail=("random",), call=once)
    yield Record(number, "step", {"plan": 1}, "done", detail=("plan",), call=CallFacts(step))
    yield Begin(number, "tool_call", [large], detail, "worker", None, ("worker",))
    yield commands.NoteEvent(number, SessionSuspended(len(naive.log)))
    yield commands.NoteEvent(number, SessionResumed(len(naive.log), ((first, 0),)))
    for session, name in ((10, "calls"), (7, "an ended session")):
        changes = {"name": name, "metadata": {"rating": 5}}
        yield commands.ChangeSession(UUID(int=session), changes, 10**6)
    yield commands.ChangeSession(UUID(int=7), {"metadata": {"é": None}}, 10**6)


def appended(data: bytes, sequence: int, number: int, *payloads: Erased | Unknown) -> bytes:
    """The file with one more segment, of events that no command makes."""
    storage = RamStorage(data)
    journal = Journal.open(storage, fixed_config(), read_only=True)
    salt = decode_header(data[:LOG_START]).salt
    *_, last = scan(storage.read, LOG_START, journal.view.end, salt, salt)
    session = journal.view.state.sessions.get(number)
    session_id = session.info.session_id if session is not None else None
    events = [
        Event(sequence + i, FIRST_TIME + 10**6, session_id, payload, number)
        for i, payload in enumerate(payloads)
    ]
    payload = encode_events(events)
    head, _ = seal(SegmentKind.EVENTS, sequence, payload, last.checksum, salt)
    return data + head + payload


def make() -> tuple[dict[str, bytes], dict[str, Naive]]:
    """The files by name, and by the same names the naive stores that answer as they must."""
    with patch.multiple(index, **LOW_BOUNDS):
        naive, clock, storage = Naive(), Clock(), RamStorage()
        journal = Journal.open(storage, fixed_config(clock))
        for op in operations(naive):
            outcome = naive.apply(op, FIRST_TIME + 1000 * (clock.calls + 1))
            assert not isinstance(outcome, type), (op, outcome)
            journal.commit([command(op)])
        data = bytes(storage.data[: journal.view.end])

        naive.now = FIRST_TIME + 10**6
        data = appended(data, naive.note(0, "erased"), 0, Erased())
        fields = ("from a newer release", 1, [None])
        data = appended(data, naive.note(1, "unknown", 200, fields), 1, Unknown(200, fields))
        torn = appended(data, len(naive.log) + 1, 1, Unknown(201, ("cut off",) * 9))[:-20]

        compacted, small = RamStorage(data), Naive()
        vars(small).update(vars(naive), log=list(naive.log), contents=set(naive.contents))
        journal = Journal.open(compacted, fixed_config(clock))
        journal.compact(lambda _done, _total: None)
        small.compact()
        successor = journal.view.reader.storage.reopen()
        files = {
            "v2.mva": data,
            "v2-torn.mva": torn,
            "v2-compacted.mva": successor.read(0, journal.view.end),
        }
        return files, {"v2.mva": naive, "v2-torn.mva": naive, "v2-compacted.mva": small}


def frame_commands() -> Iterator[commands.Command]:
    """Every kind of event that changes the memory, in a session and outside one."""
    limits = Limits()
    session = commands.StartSession(UUID(int=1), "frames", start(1).config)

    def change(kind: str, *items: Any, frame_id: int = 0, **changes: Any) -> commands.ChangeMemory:
        frames = tuple(prepare_frame(item, limits) for item in items)
        return commands.ChangeMemory(
            (), ActionKind(kind), "english", frames, frame_id, changes, 1.5, "task", {}
        )

    def large(data: bytes) -> commands.LargeContent:
        return commands.LargeContent(data, content_digest(data), len(data), preview(data))

    fields = {
        "title": "Otters",
        "uri": "mv2://a/1",
        "tags": ["animal", "é"],
        "metadata": {"k": [1]},
    }
    vector = {"embedding": [1, 0.5], "embedding_model": "toy"}
    yield change(
        "put", {"content": "The otter sleeps by the river.", "metadata": {"k": [1]}, **fields}
    )
    yield evolve(session, ambient=True)
    yield change("put", {"content": b"bytes of an otter", "media_type": "text/plain", **vector})
    yield change("put_many", "a fox", "large words of a fox, " * 60, {"content": b"\0\xff"})
    yield change("update", frame_id=1, title="Sleeping otters", tags=())
    yield change("update", frame_id=3, content="a wolf", embedding=None, embedding_model=None)
    yield change("delete", frame_id=5)
    yield commands.CreateCheckpoint((), None)
    yield change("put", "gone soon, with a wolf")
    yield change("update", frame_id=6, title="a title that goes with it")
    yield change("delete", frame_id=6)
    parts = [b"first part of an otter, " * 50, b"and the second part"]
    yield commands.StoreParts(tuple(map(large, parts)))
    whole, at = b"".join(parts), 23
    stored = StoredContent(content_digest(whole), len(whole), preview(whole), at, (at, at + 1))
    kept = {"content": Content(None, stored), "media_type": "text/plain"}
    yield change("put", kept)
    searched = Retrieval(
        "hybrid",
        3,
        26,
        (1.5, 0.25),
        ((2, 0), (8, 1)),
        {"tags": ["animal"]},
        b"\0\0\x80?\0\0\0?",
        "toy",
    )
    found = Record((), "find", "otter", frames=(1, 4), detail=("hybrid", 2))
    yield found.command()._replace(extras=Extras(retrieval=searched))
    numbers = b"\0\0\x80?" * 3
    first = 28
    yield commands.AddEmbeddings(
        0, (NewEmbedding(1, 2, 0, numbers), NewEmbedding(2, 3, 0, numbers))
    )
    yield commands.AddEmbeddings(first, (NewEmbedding(5, 5, 2, numbers),))
    # Nobody ends this move.
    yield commands.AddEmbeddings(0, (NewEmbedding(1, 2, 0, numbers),))
    yield commands.SetEmbeddingModel("toy-2", 3, first, content_digest(numbers * 3), (), 0)
    asked = Record((), "ask", "who sleeps?", "the otter", frames=(1, 4), detail=("acme", "m-1"))
    reply = Reply((4, 0, 5), 12, None, waits_ms=(120, 0, 7))
    yield asked.command()._replace(extras=Extras(retrieval=searched, reply=reply))


def make_frames() -> dict[str, bytes]:
    """Files with a memory, by name: one with two saves of its index, and what compaction leaves."""
    storage, clock = RamStorage(), Clock()
    bounds: dict[str, Any] = {"_SAVE_CHARS": 1, "_SAVE_PART": 1 << 40}
    with patch.multiple(index, **LOW_BOUNDS), patch.multiple(memory, **bounds):
        journal, folded = Journal.open(storage, fixed_config(clock)), memory.FoldedMemory()
        for number, command in enumerate(frame_commands()):
            if isinstance(command, commands.SetEmbeddingModel):
                hashes = journal.view.state.memory.hashes()
                command = command._replace(hashes=hashes)  # noqa: PLW2901
            (outcome,), _ = journal.commit([command])
            assert outcome is not None, command
            assert not isinstance(outcome, Exception), (command, outcome)
            if number in (4, 11):
                due = folded.due(journal.view)
                assert due is not None
                offset, _ = journal.save_projection(*due)
                folded.saved(offset)
        data = bytes(storage.data[: journal.view.end])
        journal = Journal.open(RamStorage(data), fixed_config(clock))
        journal.compact(lambda _done, _total: None)
        small = journal.view.reader.storage.reopen()
        compacted = small.read(0, journal.view.end)
    return {"v2-frames.mva": data, "v2-frames-compacted.mva": compacted}


def keyed_commands() -> Iterator[commands.Command]:
    """Every kind of change of a collection, and idempotency keys in a session and outside one."""

    def change(name: str, *changes: KeyChange, **checks: int) -> commands.ChangeCollection:
        seen = dict.fromkeys(("chat", "a/2", "c"), NO_KEY)
        return commands.ChangeCollection(name, changes, tuple(checks.items()), seen, 2**40, 10)

    def put(key: str, value: Any, **more: Any) -> KeyPut:
        return KeyPut(key, cbor2.dumps(value), **more)

    def items(*values: Any) -> tuple[bytes, ...]:
        return tuple(map(cbor2.dumps, values))

    number, found = 2, Record((), "find", "otter", detail=("lexical", 2)).command()
    yield evolve(commands.StartSession(UUID(int=1), "keys", start(1).config), ambient=True)
    yield change("threads", put("a/1", {"é": [1, None]}, metadata=cbor2.dumps({"step": 1})))
    yield change("threads", put("a/2", "large, " * 300), put("b/1", None, expires_ns=FIRST_TIME))
    yield change("threads", ListChanged("chat", items=items("hello", {"role": "user"})))
    yield change("threads", ListChanged("chat", items=items("and more", "to go")))
    yield change("threads", ListChanged("chat", 0, 3), KeyDeleted("a/2"), put("c", b"\0"))
    yield change("more", ListChanged("gone soon", items=items(1)), PrefixDeleted("gone"))
    yield change("threads", put("a/1", [2.5, True]), **{"a/1": number + 1})
    yield commands.OnlyOnce(found, "a key", bytes(16))
    yield commands.OnlyOnce(found, "a key", bytes(16))
    frame = prepare_frame("put once", Limits())
    kept = commands.ChangeMemory((), ActionKind.PUT, "english", (frame,), 0, {}, 1.5, "task", {})
    yield commands.OnlyOnce(kept, "a key", bytes(range(16)))
    yield change("other", put("last", "large, " * 300))
    yield change("other", put("last", "the tail"))
    found_by = {"embedding_model": "model", "embeddings": (b"\0\0\x80?", b"\0\0\0@")}
    expires = FIRST_TIME * 2
    yield change("other", put("found", "by meaning", expires_ns=expires, **found_by))
    yield change("other", KeyRenewed("found", number + 18, expires + 1))


def make_keyed() -> dict[str, bytes]:
    """Files with collections, by name, and what compaction leaves of one."""
    storage, clock = RamStorage(), Clock()
    with patch.multiple(index, **LOW_BOUNDS):
        journal = Journal.open(storage, fixed_config(clock))
        for command in keyed_commands():
            (outcome,), _ = journal.commit([command])
            assert outcome is not LOOK_FIRST, command
            assert not isinstance(outcome, Exception), (command, outcome)
        data = bytes(storage.data[: journal.view.end])
        journal = Journal.open(RamStorage(data), fixed_config(clock))
        journal.compact(lambda _done, _total: None)
        small = journal.view.reader.storage.reopen()
        compacted = small.read(0, journal.view.end)
    return {"v2-keyed.mva": data, "v2-keyed-compacted.mva": compacted}


def keyed_answers(journal: Journal) -> dict[str, Any]:
    """What a journal says of its collections, event by event."""
    view = journal.view
    said: dict[str, Any] = {"collections": collection_rows(view.state.collections)}
    for event in view.events_after(0, 2**20):
        payload = event.payload
        if isinstance(payload, CollectionChanged):
            changes = [[type(one).__name__, *fields_of(one)] for one in payload.changes]
            said[f"event {event.sequence}"] = [payload.collection, changes]
        elif isinstance(payload, (CollectionCreated, KeyUsed)):
            said[f"event {event.sequence}"] = fields_of(payload)
    return said


QUERIES = ("otter", "sleeping foxes", '"a wolf"', "title:otters", "lar*", "otter -river")


def frame_answers(journal: Journal) -> dict[str, Any]:
    """What a journal's memory says: as it is, and as it was."""
    view = journal.view
    held = view.state.memory
    said: dict[str, Any] = {"summary": [*held[:6], sorted(held.gone.items())]}
    for until in (2, 6, 10, 14, 2**63):
        folded = memory.FoldedMemory(((0, until),))
        found = folded.catch_up(view)
        frames = [folded.frame(row) for row in found.scan()]
        said[f"frames at {until}"] = [
            [
                *fields_of(frame)[:1],
                *fields_of(frame)[2:6],
                dict(frame.metadata),
                *fields_of(frame)[7:],
            ]
            for frame in frames
        ]
        said[f"bodies at {until}"] = [view.data(frame.content) for frame in frames]
        said[f"missing at {until}"] = sorted(folded.missing)
        for query in QUERIES:
            # How they rank is the release's; which they are is the file's.
            said[f"{query} at {until}"] = sorted(hit.frame_id for hit in found.find(query))
        folded.close()
    for action in read_session(view, UUID(int=1)).actions:
        if action.retrieval is not None:
            context = context_of(view, action)
            retrieval = fields_of(action.retrieval)
            said[f"action {action.index}"] = [
                [*retrieval[:5], dict(retrieval[5]), *retrieval[6:]],
                None if action.reply is None else fields_of(action.reply),
                [fields_of(item) for item in context.items],
            ]
    return said


def plain(value: Any) -> Any:
    """Answers as JSON can hold them; long bytes by their digest."""
    if isinstance(value, dict):
        keys = {key: key if isinstance(key, str) else " ".join(map(str, key)) for key in value}
        return {keys[key]: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        long = len(value) > 100
        return f"blake2b {blake2b(value).hexdigest()}" if long else f"bytes {value.hex()}"
    return str(value) if isinstance(value, UUID) else value


def lines(answers: dict[Any, Any]) -> str:
    """JSON with a line for each question."""
    told = [
        f"{json.dumps(question)}: {json.dumps(answer, ensure_ascii=False)}"
        for question, answer in plain(answers).items()
    ]
    return "{\n" + ",\n".join(told) + "\n}\n"


def main() -> None:
    """Write the files and, beside them, their answers."""
    FOLDER.mkdir(exist_ok=True)
    files, stores = make()
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes")
    for name in ("v2.mva", "v2-compacted.mva"):
        path = (FOLDER / name).with_suffix(".json")
        path.write_text(lines(stores[name].answers()), encoding="utf-8")
    for name, data in make_frames().items():
        (FOLDER / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes")
        journal = Journal.open(RamStorage(data), fixed_config(), read_only=True)
        path = (FOLDER / name).with_suffix(".json")
        path.write_text(lines(frame_answers(journal)), encoding="utf-8")
    for name, data in make_keyed().items():
        (FOLDER / name).write_bytes(data)
        print(f"{name}: {len(data)} bytes")
        journal = Journal.open(RamStorage(data), fixed_config(), read_only=True)
        path = (FOLDER / name).with_suffix(".json")
        path.write_text(lines(keyed_answers(journal)), encoding="utf-8")


if __name__ == "__main__":
    main()
