"""The journal over simulated disks: batched, killed, cut off or shared, the log is the same."""

from bisect import bisect_right

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, NotAStoreError
from memvid_async.file import log_file as logfile
from memvid_async.file.journal import Journal
from memvid_async.format.header import LOG_START, decode_slots, newest_slot
from memvid_async.format.segment import SegmentKind, read_segment, scan
from memvid_async.storage import RamStorage
from tests.support.asking import answers, outcome_answer, verified, without_messages
from tests.support.disk import SECTOR, KilledError, SimDisk, SimStorage
from tests.support.naive import FIRST_TIME, Clock, Naive, ask, command, fixed_config, start
from tests.support.plans import PLANS, SIMPLE_PLANS, examples, small_tables


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    """Small reserves, so that a short log runs out of them; a disk of a few KiB is quick."""
    monkeypatch.setattr(logfile, "_RESERVE", 256)
    monkeypatch.setattr(logfile, "_MOST_RESERVE", 1024)


NAME = "store"


def file_of(disk):
    """The one file of a disk, as a process opens it."""
    return SimStorage(disk, NAME)


def resolved(plans, *first):
    """Operations from plans; after each its time, the naive answers and how long the log is."""
    naive, ops, outcomes, lengths = Naive(), [], [], [0]
    for place, plan in enumerate([*first, *plans]):
        op = plan.resolve(naive) if hasattr(plan, "resolve") else plan
        ops.append(op)
        outcomes.append(without_messages(naive.apply(op, FIRST_TIME + 1000 * (place + 1))))
        lengths.append(len(naive.log))
    return naive, ops, outcomes, lengths


def log_of(journal):
    return journal.view.reader.storage.read(LOG_START, journal.view.end - LOG_START)


HISTORIES = st.lists(SIMPLE_PLANS, min_size=5, max_size=50)


# Promise 9: the bytes do not depend on the batching.


@given(HISTORIES, st.data())
@examples(0.6)
def test_the_same_commands_are_the_same_bytes_whatever_the_batching(plans, data):
    naive, ops, expected, lengths = resolved(plans, start(1, ambient=True))
    with small_tables():
        one = Journal.open(RamStorage(), fixed_config())
        for op, outcome in zip(ops, expected, strict=True):
            (given_outcome,), _ = one.commit([command(op)])
            assert outcome_answer(one, given_outcome) == outcome

        clock, storage, done = Clock(), RamStorage(), 0
        other = Journal.open(storage, fixed_config(clock))
        while done < len(ops):
            if data.draw(st.integers(0, 4)) == 0:
                # As after a kill: nothing was closed.
                other = Journal.open(storage, fixed_config(clock))
            size = data.draw(st.integers(1, 12))
            batch = [command(op) for op in ops[done : done + size]]
            outcomes, flushed = other.commit(batch)
            new = lengths[min(done + size, len(ops))] - lengths[done]
            assert len(flushed.events) == len(flushed.sizes) == new
            got = [outcome_answer(other, outcome) for outcome in outcomes]
            assert got == expected[done : done + size]
            done += len(batch)
        assert log_of(other) == log_of(one)
        assert answers(other) == answers(one) == naive.answers()
        for journal in (one, other, Journal.open(storage, fixed_config())):
            assert verified(journal).ok
            assert answers(journal) == naive.answers()


@given(st.lists(PLANS, min_size=1, max_size=12), st.integers(1, 5))
@examples(0.6)
def test_anything_that_is_recorded_is_read_back(plans, size):
    naive, ops, _, _ = resolved(plans, start(1, ambient=True))
    storage = RamStorage()
    journal = Journal.open(storage, fixed_config())
    for at in range(0, len(ops), size):
        journal.commit([command(op) for op in ops[at : at + size]])
    assert answers(journal) == naive.answers()
    again = Journal.open(storage, fixed_config(), read_only=True)
    assert answers(again) == naive.answers()
    assert verified(again).ok


@given(HISTORIES, st.data())
@examples(0.6)
def test_a_log_is_the_same_after_any_number_of_kills_in_the_middle_of_writes(plans, data):
    """Killed at any byte of any write; what did not survive is done again at its own time."""
    naive, ops, _, lengths = resolved(plans, start(1))
    with small_tables():
        one = Journal.open(RamStorage(), fixed_config())
        one.commit([command(op) for op in ops])
        clock, disk, done, kills = Clock(), SimDisk(), 0, 0
        while True:
            disk.die_after(data.draw(st.integers(0, 4000)) if kills < 6 else 2**60)
            try:
                journal = Journal.open(file_of(disk), fixed_config(clock))
                survived = journal.view.state.last_sequence
                assert survived in lengths
                assert survived >= lengths[done]
                done = bisect_right(lengths, survived) - 1
                while done < len(ops):
                    clock.calls = done
                    size = data.draw(st.integers(1, 6))
                    journal.commit([command(op) for op in ops[done : done + size]])
                    done = min(done + size, len(ops))
                break
            except KilledError:
                kills += 1
                disk = SimDisk.thaw(disk.freeze())
        assert log_of(journal) == log_of(one)
        assert answers(journal) == naive.answers()
        assert verified(journal).ok


@given(HISTORIES, st.data())
@examples(0.6)
def test_two_writers_of_one_file_make_the_log_that_one_would(plans, data):
    naive, ops, expected, _ = resolved(plans, start(1))
    with small_tables():
        one = Journal.open(RamStorage(), fixed_config())
        one.commit([command(op) for op in ops])
        clock, shared = Clock(), RamStorage()
        writers = [Journal.open(shared, fixed_config(clock)) for _ in range(2)]
        follower = Journal.open(shared, fixed_config(), read_only=True)
        done, seen, delivered = 0, [], [[], []]
        while done < len(ops):
            turn = data.draw(st.integers(0, 1))
            batch = ops[done : done + data.draw(st.integers(1, 4))]
            outcomes, flushed = writers[turn].commit([command(op) for op in batch])
            got = [outcome_answer(writers[turn], outcome) for outcome in outcomes]
            assert got == expected[done : done + len(batch)]
            delivered[turn] += [event.sequence for event in flushed.events]
            done += len(batch)
            if data.draw(st.booleans()):
                seen += [event.sequence for event in follower.refresh()]
                assert follower.view.state == writers[turn].view.state
        assert log_of(writers[turn]) == log_of(one)
        assert verified(writers[turn]).ok
        seen += [event.sequence for event in follower.refresh()]
        for turn, writer in enumerate(writers):
            delivered[turn] += [event.sequence for event in writer.refresh()]
            assert answers(writer) == naive.answers()
        assert answers(follower) == naive.answers()
        assert seen == delivered[0] == delivered[1] == list(range(1, len(naive.log) + 1))


@given(HISTORIES, st.data())
@examples(0.6)
def test_a_compaction_changes_nothing_but_what_was_deleted(plans, data):
    naive, clock, shared = Naive(), Clock(), RamStorage()
    with small_tables():
        writer, other = (Journal.open(shared, fixed_config(clock)) for _ in range(2))
        follower = Journal.open(shared, fixed_config(), read_only=True)
        seen, delivered = [], []
        for plan in [start(1), *plans]:
            op = plan.resolve(naive) if hasattr(plan, "resolve") else plan
            expected = without_messages(naive.apply(op, FIRST_TIME + 1000 * (clock.calls + 1)))
            turn = data.draw(st.sampled_from([writer, writer, other]))
            (outcome,), flushed = turn.commit([command(op)])
            assert outcome_answer(turn, outcome) == expected
            delivered += [event.sequence for event in flushed.events if turn is writer]
            if data.draw(st.integers(0, 5)) == 0:
                view, before = turn.view, answers(turn)
                report, flushed = turn.compact(lambda *_: None)
                delivered += [event.sequence for event in flushed.events if turn is writer]
                naive.compact()
                assert answers(turn) == naive.answers()
                assert verified(turn).ok
                assert report.generation == turn.view.state.generation == naive.generation
                assert turn.view.reader is not view.reader
                assert {q: a for q, a in before.items() if q[0] == "session"} == {
                    q: a for q, a in naive.answers().items() if q[0] == "session"
                }
            if data.draw(st.booleans()):
                seen += [event.sequence for event in follower.refresh()]
        for journal in (writer, other, follower):
            found = [event.sequence for event in journal.refresh()]
            seen, delivered = (
                (seen + found, delivered)
                if journal is follower
                else (seen, delivered + (found if journal is writer else []))
            )
            assert answers(journal) == naive.answers()
        assert seen == delivered == list(range(1, len(naive.log) + 1))
        again = Journal.open(writer.view.reader.storage, fixed_config())
        assert answers(again) == naive.answers()
        assert verified(again).ok


# Promises 1 to 5: a power cut.


@given(HISTORIES, st.data())
@examples(1.5)
def test_after_a_power_cut_every_acked_event_is_there_and_nothing_was_made_up(plans, data):
    naive, ops, _, lengths = resolved(plans, start(1))
    with small_tables():
        disk, clock, acked, done = SimDisk(), Clock(), 0, 0
        for _ in range(3):
            disk.changes_left = data.draw(st.integers(0, 30))
            try:
                journal = Journal.open(file_of(disk), fixed_config(clock))
                survived = journal.view.state.last_sequence
                done = bisect_right(lengths, survived) - 1
                assert lengths[done] == survived
                assert survived >= acked
                acked = survived
                while done < len(ops):
                    clock.calls = done
                    size = data.draw(st.integers(1, 6))
                    journal.commit([command(op) for op in ops[done : done + size]])
                    done = min(done + size, len(ops))
                    acked = lengths[done]
            except KilledError:
                pass
            keep = data.draw(st.sampled_from([0, 1, 2, 3]))
            coins = data.draw(st.randoms(use_true_random=False))
            sector = data.draw(st.sampled_from([16, 64, 512]))
            left = disk.names[NAME].cut_power(
                lambda k=keep, c=coins: c.randrange(4) < k,
                # Smaller than a disk's, so that a short log has many.
                lambda at, size=sector: size if at >= LOG_START else SECTOR,
            )
            disk = SimDisk(((NAME, left),))
        journal = Journal.open(file_of(disk), fixed_config(clock))
        survived = journal.view.state.last_sequence
        assert survived >= acked
        assert survived in lengths
        done = bisect_right(lengths, survived) - 1
        assert verified(journal).ok
        clock.calls = done
        journal.commit([command(op) for op in ops[done:]])
        assert answers(journal) == naive.answers()


def test_the_death_of_the_creator_leaves_a_file_that_opens_as_new():
    for left in range(LOG_START):
        disk = SimDisk()
        disk.die_after(left)
        with pytest.raises(KilledError):
            Journal.open(file_of(disk), fixed_config())
        data = bytes(disk.names[NAME].cache)
        with pytest.raises(NotAStoreError):
            Journal.open(RamStorage(data), fixed_config(), read_only=True)
        journal = Journal.open(RamStorage(data), fixed_config())
        assert journal.torn_tail.bytes_dropped == 0
        assert journal.view.state.last_sequence == 0


def test_every_slot_names_what_was_synced_before_it():
    slots, disk = [], SimDisk()

    def written(what, file):
        if what == "write" and file.pending[-1].offset < LOG_START < len(file.cache):
            salt = journal._file.header.salt
            found = newest_slot(bytes(file.cache[:LOG_START]), salt)
            assert found is not None
            synced = RamStorage(file.durable)
            ends = {s.end for s in scan(synced.read, LOG_START, synced.size(), salt, salt)}
            assert found.end in ends
            if found.toc:
                segment = read_segment(synced.read, found.toc, found.end, salt)
                assert segment.kind == SegmentKind.TOC
                assert found.sequence == segment.sequence - 1
            slots.append(found)

    with small_tables():
        journal = Journal.open(file_of(disk), fixed_config())
        disk.watch = written
        journal.commit([start(1)])
        for _ in range(20):
            journal.commit([ask(1, "q" * 200).command()] * 3)
    assert slots[0].toc == 0
    assert [slot.end for slot in slots] == sorted(slot.end for slot in slots)
    assert len({slot.toc for slot in slots}) >= 3
    assert [slot.toc for slot in slots] == sorted(slot.toc for slot in slots)


def test_a_slot_is_at_most_4_kib_or_100_ms_behind_the_last_batch():
    storage, clock = RamStorage(), Clock()
    journal = Journal.open(storage, fixed_config(clock))

    def named():
        return newest_slot(bytes(storage.data[:LOG_START]), journal._file.header.salt)

    journal.commit([start(1)])
    first = journal.view.end
    journal.commit([ask(1, "q").command()])
    assert named().end == first
    for _ in range(3):
        first = named().end
        while (before := journal.view.end) - first < 4 * 1024:
            journal.commit([ask(1, "q" * 500).command()])
            assert named().end == first
        journal.commit([ask(1, "q").command()])
        assert named().end == before
        before = journal.view.end
        # A clock that steps back is as far away.
        clock.calls += 200_000 if clock.calls < 150_000 else -200_000
        journal.commit([ask(1, "q").command()])
        assert named().end == before


def test_closing_leaves_the_same_bytes_however_the_batches_were_cut():
    found = set()
    for size in (1, 2, 5, 40):
        storage = RamStorage()
        journal = Journal.open(storage, fixed_config())
        journal.commit([start(1)])
        ops = [ask(1, f"{at} " * 500).command() for at in range(40)]
        for at in range(0, len(ops), size):
            journal.commit(ops[at : at + size])
        journal.close()
        found.add(bytes(storage.data))
    (data,) = found
    (one, other) = decode_slots(data[:LOG_START], journal._file.header.salt)
    assert one == other
    # A command may be missing from the end, as where a write was torn; with more, it is damage.
    last = one.end + 1
    assert Journal.open(RamStorage(data[:last]), fixed_config()).torn_tail.bytes_dropped == 1
    with pytest.raises(CorruptFileError):
        Journal.open(RamStorage(data[: one.end - 1]), fixed_config())
