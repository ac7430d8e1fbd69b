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

from memvid_async import Erased, Event, Unknown, index
from memvid_async.format.codec import encode_events
from memvid_async.format.header import LOG_START, decode_header
from memvid_async.format.segment import SegmentKind, scan, seal
from memvid_async.format.tables import Table
from memvid_async.journal import Journal
from memvid_async.model import commands
from memvid_async.storage import MemoryStorage
from tests.naive import FIRST_TIME, Clock, Naive, Op, Record, ask, command, fixed_config, start

FOLDER = Path(__file__).resolve().parent.parent / "tests" / "golden"
# So low that a few KiB have chunks, pages and TOCs. Where the log is marked is the format's.
LOW_BOUNDS: dict[str, Any] = {
    "TOC_LEAST_BYTES": 1500,
    "TOC_FACTOR": 1,
    "CHUNK": 3,
    "PAGE_ROWS": {Table.SESSIONS: 2, Table.CONTENTS: 1, Table.MARKS: 1},
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
    yield ask(None, "a question", "an answer, " * 5, message, large)
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
    yield ask(1, "the tail", "of the log", message, large, "and one more", "and another")


def appended(data: bytes, sequence: int, number: int, *payloads: Erased | Unknown) -> bytes:
    """The file with one more segment, of events that no command makes."""
    storage = MemoryStorage(data)
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
        naive, clock, storage = Naive(), Clock(), MemoryStorage()
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

        compacted, small = MemoryStorage(data), Naive()
        vars(small).update(vars(naive), log=list(naive.log), contents=set(naive.contents))
        journal = Journal.open(compacted, fixed_config(clock))
        journal.compact(lambda _done, _total: None)
        small.compact()
        successor = journal.view.reader.storage.reopen()
        files = {
            "v1.mva": data,
            "v1-torn.mva": torn,
            "v1-compacted.mva": successor.read(0, journal.view.end),
        }
        return files, {"v1.mva": naive, "v1-torn.mva": naive, "v1-compacted.mva": small}


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
    for name in ("v1.mva", "v1-compacted.mva"):
        path = (FOLDER / name).with_suffix(".json")
        path.write_text(lines(stores[name].answers()), encoding="utf-8")


if __name__ == "__main__":
    main()
