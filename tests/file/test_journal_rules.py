"""What a journal refuses, what it makes of newer releases' files, and how it closes."""

import os
from uuid import UUID

import pytest

from memvid_async import (
    ActionKind,
    Erased,
    Event,
    InvalidValueError,
    LimitExceededError,
    Limits,
    MemvidAsyncError,
    SessionNotFoundError,
    StoreClosedError,
    StoreFailedError,
    StoreLockedError,
    StoreReadOnlyError,
    Unknown,
)
from memvid_async.core import commands
from memvid_async.engine.reading import read_session
from memvid_async.file.catalog import Catalog
from memvid_async.file.journal import Journal
from memvid_async.format.codec import encode_events
from memvid_async.format.header import LOG_START, Slot, newest_slot
from memvid_async.format.segment import SegmentKind, scan, seal
from memvid_async.storage import RamStorage
from tests.support.asking import answers, verified
from tests.support.naive import FIRST_TIME, Record, ask, fixed_config, start
from tests.support.plans import small_tables


class Killed(BaseException):
    """The process is gone."""


# Refusals.


@pytest.fixture
def journal():
    opened = Journal.open(RamStorage(), fixed_config())
    opened.commit([start(1, ambient=True)])
    return opened


def failing(journal, method, error):
    storage = journal._file.storage

    def fail(*_args):
        raise error

    setattr(storage, method, fail)
    return storage


@pytest.mark.parametrize("method", ["write", "sync"])
@pytest.mark.parametrize("error", [StoreFailedError("no"), OSError("no"), Killed(), MemoryError()])
def test_after_a_failed_write_nothing_is_accepted_any_more(journal, method, error):
    state, storage = journal.view.state, failing(journal, method, error)
    before = bytes(storage.data)
    with pytest.raises(type(error)):
        journal.commit([ask(1, "q").command()])
    delattr(storage, method)
    for call in (
        lambda: journal.commit([ask(1, "q").command()]),
        journal.begin,
        journal.flush,
        journal.refresh,
    ):
        with pytest.raises(StoreFailedError):
            call()
    journal.close()
    if method == "write":
        assert bytes(storage.data[: len(before)]) == before
    again = Journal.open(storage, fixed_config())
    assert again.view.state.last_sequence in (state.last_sequence, state.last_sequence + 1)
    assert verified(again).ok


def test_a_lock_that_is_held_changes_nothing(journal, monkeypatch):
    def held(_timeout):
        raise StoreLockedError(7, 0)

    storage = journal._file.storage
    monkeypatch.setattr(storage, "lock", held)
    with pytest.raises(StoreLockedError):
        journal.commit([ask(1, "q").command()])
    monkeypatch.undo()
    (action,), _ = journal.commit([ask(1, "q").command()])
    assert action.index == 0


def test_a_lock_is_let_go_however_a_batch_ends(journal, monkeypatch):
    storage, held = journal._file.storage, []
    monkeypatch.setattr(storage, "lock", lambda _timeout: held.append(1))
    monkeypatch.setattr(storage, "unlock", held.clear)
    journal.commit([ask(1, "q").command(), ask(99, "q").command()])
    assert not held
    monkeypatch.setattr(storage, "size", lambda: 3)
    monkeypatch.setattr(storage, "read", lambda *_: b"")
    with pytest.raises(MemvidAsyncError):
        journal.commit([ask(1, "q").command()])
    assert not held


def test_a_read_only_journal_writes_nothing(journal):
    storage = RamStorage(bytes(journal._file.storage.data) + b"torn")
    before = bytes(storage.data)
    follower = Journal.open(storage, fixed_config(), read_only=True)
    assert follower.torn_tail.bytes_dropped >= 4
    with pytest.raises(StoreReadOnlyError):
        follower.commit([ask(1, "q").command()])
    follower.refresh()
    follower.close()
    assert bytes(storage.data) == before


def test_a_file_that_was_deleted_is_not_written(journal, monkeypatch):
    storage = journal._file.storage
    before = bytes(storage.data)

    def gone():
        raise StoreFailedError("deleted")

    monkeypatch.setattr(storage, "is_current", lambda: False)
    monkeypatch.setattr(storage, "reopen", gone)
    with pytest.raises(StoreFailedError):
        journal.commit([ask(1, "q").command()])
    assert bytes(storage.data) == before


def test_a_file_that_was_cut_short_by_others_is_damage(journal):
    del journal._file.storage.data[-10:]
    del journal._file.storage.data[journal.view.end - 5 :]
    with pytest.raises(MemvidAsyncError) as caught:
        journal.commit([ask(1, "q").command()])
    assert caught.value.offset == journal.view.end - 5
    with pytest.raises(StoreFailedError):
        journal.refresh()


def test_a_fork_does_not_write(journal, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for call in (lambda: journal.commit([ask(1, "q").command()]), journal.refresh):
        with pytest.raises(StoreClosedError, match="fork"):
            call()


@pytest.mark.parametrize("now", [None, 1.5, "now", True, -(2**63) - 1, 2**63, 2**64, 2**70])
def test_a_clock_that_is_none_fails_the_command_alone(now):
    times = [FIRST_TIME, now, FIRST_TIME + 5]
    storage = RamStorage()
    opened = Journal.open(storage, fixed_config(lambda: times.pop(0)))
    outcomes, flushed = opened.commit([start(1), ask(1, "q").command(), ask(1, "q").command()])
    assert isinstance(outcomes[1], InvalidValueError)
    assert [event.time_ns for event in flushed.events] == [FIRST_TIME, FIRST_TIME + 5]
    assert answers(Journal.open(storage, fixed_config())) == answers(opened)


def test_a_clock_that_raises_fails_the_command_alone():
    times = [FIRST_TIME]

    def broken():
        if not times:
            raise RuntimeError("no time")
        return times.pop()

    journal = Journal.open(RamStorage(), fixed_config(broken))
    outcomes, flushed = journal.commit([start(1), ask(1, "q").command()])
    assert isinstance(outcomes[1], RuntimeError)
    assert [event.time_ns for event in flushed.events] == [FIRST_TIME]


def test_a_refused_command_is_refused_alone(journal):
    outcomes, flushed = journal.commit(
        [ask(1, "q").command(), ask(9, "q").command(), start(1), ask(1, "q").command()]
    )
    assert [isinstance(outcome, MemvidAsyncError) for outcome in outcomes] == [
        False, True, True, False,
    ]  # fmt: skip
    assert len(flushed.events) == 2


# Anything that is taken in is given back: limits that a caller raised included.


@pytest.mark.parametrize(
    "record",
    [
        lambda: Record(1, ActionKind.PUT_MANY, frames=tuple(range(300_000))),
        lambda: ask(1, "q" * (129 * 2**20)),
    ],
    ids=["frames", "content"],
)
def test_raised_limits_do_not_make_a_file_that_cannot_be_read(journal, record):
    limits = Limits(frames=10**6, content_bytes=2**30)
    given_record = record()
    try:
        prepared = command_with(limits, given_record)
    except LimitExceededError:
        return
    outcomes, _ = journal.commit([prepared])
    again = Journal.open(journal._file.storage, fixed_config())
    recorded = not isinstance(outcomes[0], MemvidAsyncError)
    assert again.view.state.last_sequence == journal.view.state.last_sequence
    assert again.view.state.sessions[1].action_count == int(recorded)


def command_with(limits, op):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.naive.Limits", lambda: limits)
        return op.command()


# What a newer release may have written.


def with_events(journal, *payloads):
    """The journal's file with one more segment that holds these payloads."""
    file = journal._file
    state = file.state
    events = [
        Event(state.last_sequence + 1 + i, state.last_time_ns, UUID(int=1), payload, 1)
        for i, payload in enumerate(payloads)
    ]
    return with_segment(journal, SegmentKind.EVENTS, encode_events(events))


def with_segment(journal, kind, payload):
    file, end = journal._file, journal.view.end
    salt = file.header.salt
    last = list(scan(file.storage.read, LOG_START, end, salt, salt))[-1]
    head, _ = seal(kind, journal.view.state.last_sequence + 1, payload, last.checksum, salt)
    return RamStorage(bytes(file.storage.data[:end]) + head + payload)


def test_a_kind_of_event_that_may_be_skipped_is_delivered_as_unknown(journal):
    storage = with_events(journal, Unknown(128, ("new", 1)), Unknown(2**40, ()))
    again = Journal.open(storage, fixed_config())
    found = again.view.events_after(1, 2**20)
    assert [event.payload for event in found] == [Unknown(128, ("new", 1)), Unknown(2**40, ())]
    (action,), _ = again.commit([ask(1, "q").command()])
    assert (action.index, action.sequence) == (0, 4)
    assert verified(again).ok


def test_what_a_newer_release_notes_of_an_ended_session_changes_no_session(journal):
    """Of none: neither of this one, nor of others that ended, in this file or in another."""
    journal.commit([ask(1, "q").command(), commands.EndSession(1), start(2)])
    expected = answers(journal)
    storage = with_events(journal, Unknown(200, ("a later note",)))
    for slots in (True, False):
        again = Journal.open(storage, fixed_config())
        again.commit([ask(99, "q").command()])
        told = answers(again)
        for question in [question for question in expected if question[0] == "session"]:
            assert told[question] == expected[question]
        assert told["events",][-1][4] == ("unknown", 200, ("a later note",))
        assert verified(again).ok
        if slots:
            again.begin()
            again._file.save_toc()
            again.flush()
    other = Journal.open(RamStorage(), fixed_config())
    other.commit([start(1), commands.EndSession(1), start(2), start(3)])
    assert answers(other)["session", UUID(int=1)]["actions"] == []


@pytest.mark.parametrize("kind", [9, 19, 50, 127])
def test_a_kind_of_event_that_must_be_understood_makes_the_file_read_only(journal, kind):
    storage = with_events(journal, Unknown(kind, ("new",)))
    before = bytes(storage.data)
    again = Journal.open(storage, fixed_config())
    for _ in range(2):
        with pytest.raises(StoreReadOnlyError, match="newer"):
            again.commit([ask(1, "q").command()])
    session = read_session(again.view, UUID(int=1))
    assert session.actions == ()
    found = again.view.events_after(1, 2**20)
    assert [event.payload for event in found] == [Unknown(kind, ("new",))]
    again.close()
    assert bytes(storage.data) == before


def test_a_follower_that_meets_such_a_kind_goes_on_reading_and_stops_writing(journal):
    storage = journal._file.storage
    other = Journal.open(storage, fixed_config())
    storage.data[:] = with_events(journal, Unknown(50, ())).data
    with pytest.raises(StoreReadOnlyError):
        other.commit([ask(1, "q").command()])
    assert other.view.state.last_sequence == 2


@pytest.mark.parametrize("kind", [0, 7, 99, 128, 255])
def test_a_kind_of_segment_that_is_not_known_is_skipped(journal, kind):
    storage = with_segment(journal, kind, b"\xff not even CBOR")
    again = Journal.open(storage, fixed_config())
    again.commit([ask(1, "q").command()])
    assert answers(again)["last",][0] == 2
    assert len(answers(again)["events",]) == 2
    assert verified(again).ok
    assert answers(Journal.open(storage, fixed_config())) == answers(again)


def test_erased_events_are_stubs(journal):
    storage = with_events(journal, Erased(), Erased())
    again = Journal.open(storage, fixed_config())
    assert [event.payload for event in again.view.events_after(1, 999)] == [
        Erased(),
        Erased(),
    ]
    assert verified(again).ok


# Closing, and reading beside writing.


def test_closing_saves_a_toc_where_it_spares_work(monkeypatch):
    storage = RamStorage()
    opened = Journal.open(storage, fixed_config())
    opened.commit([start(1)])
    opened.close()
    salt = opened._file.header.salt
    assert newest_slot(bytes(storage.data[:LOG_START]), salt) == Slot(LOG_START)
    assert storage.size() == opened.view.end
    opened = Journal.open(storage, fixed_config())
    opened.commit([ask(1, "q" * 1000).command()] * 100)
    before = answers(opened)
    opened.close()
    slot = newest_slot(bytes(storage.data[:LOG_START]), salt)
    assert slot.end == opened.view.end
    assert slot.toc
    assert storage.size() == opened.view.end
    monkeypatch.setattr(Catalog, "note_events", None)
    again = Journal.open(storage, fixed_config(), read_only=True)
    assert again.view.state == opened.view.state
    monkeypatch.undo()
    assert answers(again) == before
    assert verified(again).ok


def test_a_view_stays_what_it_was(journal):
    journal.commit([ask(1, "first").command()])
    view = journal.view
    journal.commit([ask(1, "second").command(), commands.EndSession(1)])
    journal.commit([start(2)])
    session = read_session(view, UUID(int=1))
    assert [action.input.data for action in session.actions] == ["first"]
    assert session.ended_ns is None
    assert len(view.events_after(0, 2**20)) == 2
    with pytest.raises(SessionNotFoundError):
        read_session(view, UUID(int=2))


def test_a_view_stays_readable_while_positions_are_in_line(journal):
    with small_tables(chunk=3):
        opened = Journal.open(RamStorage(), fixed_config())
        opened.commit([start(1), ask(1, "one").command()])
        view = opened.view
        opened.begin()
        for round_ in range(9):
            opened.stage(ask(1, f"more {round_}").command())
            session = read_session(view, UUID(int=1))
            assert [action.input.data for action in session.actions] == ["one"]
        opened.flush()
        session = read_session(view, UUID(int=1))
        assert [action.input.data for action in session.actions] == ["one"]
        assert len(read_session(opened.view, UUID(int=1)).actions) == 10


def test_staged_events_are_not_in_the_view_of_the_file(journal):
    before = journal.view.end
    journal.begin()
    journal.stage(ask(1, "q" * 5000).command())
    assert journal.staged_bytes > 5000
    assert journal.view.end == before
    assert len(journal.view.events_after(0, 2**20)) == 1
    flushed = journal.flush()
    assert [event.sequence for event in flushed.events] == [2, 3]
    assert journal.staged_bytes == 0


def test_published_content_carries_no_data(journal):
    before = journal.view.end
    _, flushed = journal.commit([ask(1, "q" * 5000, "r" * 5000).command()])
    assert [getattr(event.payload, "data", None) for event in flushed.events] == [None] * 3
    assert sum(flushed.sizes) == journal.view.end - before
