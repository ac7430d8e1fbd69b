"""Sound files to damage, and the oracle that says what may be read from what is left of them."""

from functools import cache
from uuid import UUID

from attrs import define

from memvid_async import MemvidAsyncError
from memvid_async.core import commands
from memvid_async.file.journal import Journal
from memvid_async.format.header import LOG_START, SLOT_OFFSETS, SLOT_SIZE, Header, newest_slot
from memvid_async.format.segment import SegmentKind, scan
from memvid_async.storage import RamStorage
from tests.support.asking import answers, questions
from tests.support.naive import FIRST_TIME, Clock, Naive, Record, ask, command, fixed_config, start


@define
class Reference:
    """A sound file: its bytes, and after each command where it ended and what was answered."""

    data: bytes
    ends: list[int]
    expected: list[dict]
    segments: list
    naive: Naive

    @property
    def salt(self):
        return Header(UUID(bytes=self.data[16:32])).salt

    @property
    def toc_end(self):
        """The end of the TOC that opening starts from, or of the header."""
        return max([s.end for s in self.segments if s.kind == SegmentKind.TOC], default=LOG_START)

    @property
    def durable_end(self):
        """The end that the slots name: the log is known to be durable up to there."""
        return newest_slot(self.data[:LOG_START], self.salt).end

    def known(self, size):
        """How many commands are whole in the first ``size`` bytes."""
        return sum(end <= size for end in self.ends) - 1


def small_ops(_naive):
    yield start(1, ambient=True)
    yield start(2, auto_checkpoint_interval=2, max_actions=3)
    yield ask(1, "question", "answer" * 8, {"role": "user", "content": "hello" * 9}, "c" * 1100)
    yield Record(2, "tool_call", {"a": [1, None, 1.5]}, "result", detail=("search",), task="task")
    yield Record((), "find", "words", frames=(3, 2**40), detail=("lexical", 9), duration_ms=1.25)
    yield ask(1, "hello" * 9, "c" * 1100, {"role": "user", "content": "hello" * 9}, "c" * 1100, "x")
    yield Record(2, "put", b"\0\xff", frames=(7,), metadata={"k": {"n": -1}}, error="failed: é")
    yield Record(2, "put_many", frames=(1, 2, 3))
    yield commands.CreateCheckpoint(1, "task")
    yield commands.DeleteSession(UUID(int=2))
    yield commands.EndSession(1, "ValueError: no")


def rich_ops(naive):
    """As the naive store goes along: it tells the numbers of the sessions so far."""

    def numbered(session):
        return next(n for n, session_id in naive.ids.items() if session_id == UUID(int=session))

    yield from small_ops(naive)
    for session in range(3, 8):
        yield start(session)
    for turn in range(3):
        for session in (3, 4, 5):
            text = f"{session} {turn}"
            yield ask(numbered(session), text, text * 2, "shared", f"{turn}")
    yield commands.EndSession(numbered(6))
    yield commands.EndSession(numbered(3))
    yield commands.DeleteSession(UUID(int=6))
    yield commands.EndSession(UUID(int=7))
    for text in ("d" * 1030, "e" * 1030):
        yield ask(numbered(4), text, None, text)
    yield ask(numbered(5), "more", "and more")
    yield ask(numbered(4), "tail", "of the log")
    yield commands.CreateCheckpoint(numbered(4))
    yield ask(numbered(5), "c" * 1100, "last")


@cache
def reference(name):
    naive, storage, clock = Naive(), RamStorage(), Clock()
    journal = Journal.open(storage, fixed_config(clock))
    ends, expected = [LOG_START], [naive.answers()]
    for op in {"small": small_ops, "rich": rich_ops}[name](naive):
        outcome = naive.apply(op, FIRST_TIME + 1000 * (clock.calls + 1))
        assert not isinstance(outcome, type), (op, outcome)
        journal.commit([command(op)])
        ends.append(journal.view.end)
        expected.append(naive.answers())
    data = bytes(storage.data[: journal.view.end])
    salt = Header(UUID(bytes=data[16:32])).salt
    segments = list(scan(storage.read, LOG_START, len(data), salt, salt))
    assert answers(journal) == expected[-1]
    return Reference(data, ends, expected, segments, naive)


def opened(data, *, read_only=True):
    return Journal.open(RamStorage(bytes(data)), fixed_config(), read_only=read_only)


def check(data, sound):
    """Open the file and ask everything; which of the reference's states it was in, or None when
    opening was refused by name."""
    try:
        journal = opened(data)
    except MemvidAsyncError:
        return None
    last = journal.view.state.last_sequence
    known = [at for at, told in enumerate(sound.expected) if told["last",][0] == last]
    assert known, f"a state that never was: {last}"
    expected = sound.expected[known[-1]]
    for question, answer in questions(journal, 4096).items():
        try:
            told = answer()
        except MemvidAsyncError:
            continue
        assert told == expected[question], question
    assert {q[1] for q in questions(journal) if q[0] == "session"} == {
        q[1] for q in expected if q[0] == "session"
    }
    return known[-1]


def appended(data, before):
    """Open the file for writing and add one session; its events are there, or a named error."""
    storage = RamStorage(bytes(data))
    try:
        journal = Journal.open(storage, fixed_config())
        (number,), _ = journal.commit([start(99)])
    except MemvidAsyncError:
        return None
    assert number == before + 1
    assert journal.view.state.last_sequence == before + 1
    again = Journal.open(storage, fixed_config(), read_only=True)
    assert again.view.state == journal.view.state
    assert again.torn_tail.bytes_dropped == 0
    return again


def appended_anyway(data):
    try:
        journal = opened(data, read_only=False)
        journal.commit([start(99)])
    except MemvidAsyncError:
        pass


def with_slot(data, slot, salt):
    damaged = bytearray(data)
    for place in SLOT_OFFSETS:
        damaged[place : place + SLOT_SIZE] = bytes(SLOT_SIZE)
    damaged[SLOT_OFFSETS[0] : SLOT_OFFSETS[0] + SLOT_SIZE] = slot.encode(salt)
    return damaged
