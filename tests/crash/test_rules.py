"""What a crash alone cannot show, each by the smallest file that does: damage and order. The
mutants of ``mutants.py`` are held against these as well."""

import errno
import itertools
from contextlib import contextmanager
from random import Random
from uuid import UUID

import pytest

from memvid_async import (
    CorruptFileError,
    MemvidAsyncError,
    NotAStoreError,
    StoreFailedError,
    StoreLockedError,
)
from memvid_async.core import commands
from memvid_async.core.reports import TornTail
from memvid_async.file import log_file
from memvid_async.file.journal import Journal
from memvid_async.format.header import LOG_START, SLOT_OFFSETS, Slot
from memvid_async.format.segment import SegmentKind, seal
from tests.crash.driver import NAME, Driver, Time, fixed_config, sim_opener, small_bounds
from tests.crash.oracle import HEADER_BYTES, History, newest_slot, parse_log
from tests.support.asking import answers
from tests.support.calls import Fault, SimFileStorage, file_opener, simulated_calls
from tests.support.disk import SimDisk, SimStorage
from tests.support.naive import FIRST_TIME, ask, start

CONFIG = fixed_config(Time(), 1)


def grown(texts, first_id=1):
    """A file with one ask per text, and what happened in it."""
    driver = Driver(SimDisk(), History(), 0, first_id, sim_opener)
    process = driver.open(1)
    driver.commit(process, [start(1)], FIRST_TIME)
    for at, text in enumerate(texts):
        driver.commit(process, [ask(1, text)], FIRST_TIME + 1_000_000 * (at + 1))
    driver.kill(process)
    return bytes(driver.disk.names[NAME].cache), driver.history


def opened(data, *, read_only=True):
    return Journal.open(
        SimStorage(SimDisk(((NAME, data),)), NAME, read_only=read_only),
        CONFIG,
        read_only=read_only,
    )


@contextmanager
def slots_every(size):
    """A slot is due after this many bytes of log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_file, "_SLOT_BYTES", size)
        yield


def with_bytes(data, offset, new):
    return data[:offset] + new + data[offset + len(new) :]


def test_a_segment_of_an_older_tail_does_not_come_back():
    # The same creation twice: the same salt. The third ask stands in both at the same place.
    old, _ = grown(["one", "two", "six"])
    new, history = grown(["one", "ten", "six"])
    (*_, before_last, _) = parse_log(new)[0]
    ghost = with_bytes(new, before_last, old[before_last:])
    journal = opened(ghost)
    assert journal.view.end == before_last
    assert answers(journal) == history.known[3]


def test_a_gap_in_the_sequence_is_damage():
    data, _ = grown(["one"])
    ends, events = parse_log(data)
    salt = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "little")
    previous = int.from_bytes(data[ends[-2] : ends[-2] + 4], "little")
    payload = data[ends[-2] + 20 : ends[-1]]
    head, _ = seal(SegmentKind.EVENTS, events[-1] + 2, payload, previous, salt)
    with pytest.raises(CorruptFileError):
        opened(with_bytes(data, ends[-1], head + payload))


@pytest.mark.parametrize("read_only", [False, True])
def test_damage_below_what_is_durable_is_told_and_nothing_is_cut(read_only):
    with small_bounds(Random(0)), slots_every(1):
        data, _ = grown(["text " * 10] * 15)
    durable, toc = newest_slot(data)
    ends, _ = parse_log(data)
    assert durable in ends[-5:-1]
    assert 0 < toc < ends[-4]
    # From the TOC on a writer reads every byte, and cuts off what is not valid at the end.
    for end, later in itertools.pairwise(ends[: ends.index(durable) + 1]):
        harmed = with_bytes(data, later - 20, b"\x5a" * 16)
        for found in (harmed, data[:end], data[:end] + bytes(len(data) - end)) * (end >= toc):
            disk = SimDisk(((NAME, found),))
            with pytest.raises(CorruptFileError) as caught:
                Journal.open(
                    SimStorage(disk, NAME, read_only=read_only), CONFIG, read_only=read_only
                )
            assert caught.value.offset == min(end, len(found))
            assert disk.names[NAME].cache == found


def test_damage_above_what_is_durable_is_a_torn_tail_however_much_of_it_is_whole():
    with slots_every(1 << 40):
        data, history = grown(["text"] * 14)
    ends, _ = parse_log(data)
    first = ends.index(newest_slot(data)[0])
    assert first < 3
    for at in range(first, len(ends) - 1):
        journal = opened(with_bytes(data, ends[at] + 25, b"\x5a"), read_only=False)
        assert journal.torn_tail == TornTail(ends[-1] - ends[at], ends[at])
        assert answers(journal) == history.known[at]


def test_a_slot_that_names_no_toc_is_damage_whatever_the_events_before_it_say():
    data, _ = grown(["one", "two", "six"])
    ends, events = parse_log(data)
    salt = int.from_bytes(data[HEADER_BYTES - 4 : HEADER_BYTES], "little")
    for at, toc in enumerate(ends[:-1]):
        slot = Slot(ends[-1], toc, max(0, events[at])).encode(salt)
        for place in SLOT_OFFSETS:
            with pytest.raises(CorruptFileError) as caught:
                opened(with_bytes(data, place, slot), read_only=False)
            assert caught.value.offset == toc


def test_of_rows_in_pages_the_last_one_counts_and_none_of_a_session_that_is_gone():
    with small_bounds(Random(0)):
        driver = Driver(SimDisk(), History(), 0, 1, sim_opener)
        process = driver.open(1)
        numbers = range(1, 9)
        steps = [*map(start, numbers), *(ask(n, "text" * 50) for n in numbers)]
        # Others of their pages stay as they are there.
        steps += [commands.EndSession(2), commands.DeleteSession(UUID(int=3))]
        steps += [ask(8, "more" * 50)] * 6
        for at, step in enumerate(steps):
            driver.commit(process, [step], FIRST_TIME + 1000 * at)
        driver.close(process)
        journal = opened(bytes(driver.disk.names[NAME].cache))
    assert answers(journal) == driver.history.known[-1]


@pytest.mark.parametrize("read_only", [False, True])
def test_whoever_catches_up_tells_of_damage_below_what_is_durable(read_only):
    """Not only who opens. A writer would cut off what it had not read yet."""
    driver = Driver(SimDisk(), History(), 0, 1, sim_opener)
    first = driver.open(1)
    driver.commit(first, [start(1)], FIRST_TIME)
    late = Journal.open(
        SimStorage(driver.disk, NAME, read_only=read_only), CONFIG, read_only=read_only
    )
    with slots_every(1):
        for at in range(3):
            driver.commit(first, [ask(1, "text")], FIRST_TIME + 1000 * (at + 1))
    file = driver.disk.names[NAME]
    ends, _ = parse_log(bytes(file.cache))
    file.cache[ends[2] + 30] ^= 1
    before = bytes(file.cache)
    with pytest.raises(CorruptFileError):
        late.refresh()
    assert file.cache == before


@pytest.mark.parametrize("data", [b"hello", b"x" * LOG_START, b"MV2\0" * 1000, b"\0" * 5000 + b"x"])
def test_another_kind_of_file_is_refused_and_left_alone(data):
    disk = SimDisk(((NAME, data),))
    with pytest.raises(NotAStoreError):
        Journal.open(SimStorage(disk, NAME), CONFIG)
    assert disk.names[NAME].cache == data


def test_one_holds_the_lock_and_others_wait():
    with simulated_calls() as system:
        disk = SimDisk()
        one, other = (SimFileStorage.on(system, disk, read_only=False) for _ in range(2))
        one.lock(0)
        with pytest.raises(StoreLockedError):
            other.lock(0)
        one.unlock()
        other.lock(0)
        other.close()
        one.lock(0)


@pytest.mark.parametrize("what", ["deleted", "replaced"])
def test_a_file_that_is_gone_is_not_written(what):
    with simulated_calls() as system:
        disk = SimDisk()
        storage = SimFileStorage.on(system, disk, read_only=False)
        journal = Journal.open(storage, CONFIG)
        ghost = disk.names[NAME]
        disk.unlink(NAME)
        if what == "replaced":
            other, _ = grown(["one"], first_id=77)
            disk.create(NAME).write(0, other)
        before = bytes(ghost.cache)
        with pytest.raises(StoreFailedError):
            journal.commit([start(2)])
        assert bytes(ghost.cache) == before


def test_a_writer_decides_on_what_another_wrote():
    driver = Driver(SimDisk(), History(), 0, 1, sim_opener)
    one, other = driver.open(1), driver.open(2)
    driver.commit(one, [start(1, ambient=True)], FIRST_TIME)
    driver.commit(other, [start(2, ambient=True)], FIRST_TIME + 1000)
    driver.commit(one, [ask(1, "x"), start(1)], FIRST_TIME + 2000)
    assert len(driver.history) == 2


def test_a_refusal_is_typed_and_names_what_to_do():
    disk = SimDisk()
    journal = Journal.open(SimStorage(disk, NAME), CONFIG)
    journal.fail(MemvidAsyncError("for a test"))
    with pytest.raises(StoreFailedError, match="open the file again"):
        journal.commit([start(UUID(int=5).int)])


@pytest.mark.parametrize("later", ["as long", "a longer text than before"])
def test_a_reader_is_told_when_what_it_took_in_did_not_reach_the_disk(later):
    """It saw a batch between its write and the sync that failed; another one stands there now."""
    with simulated_calls() as system:
        driver = Driver(SimDisk(), History(), 0, 1 << 100, file_opener(system))
        victim = driver.open(1)
        driver.commit(victim, [start(1)], FIRST_TIME)
        driver.commit(victim, [start(2)], FIRST_TIME)
        storage = file_opener(system)(driver.disk, read_only=True)
        reader = Journal.open(storage, driver.config, read_only=True)
        driver.begin(victim)
        driver.stage(victim, ask(1, "too bad"), FIRST_TIME + 1)

        def after_the_write():
            reader.refresh()
            system.arm(Fault(0, errno.EIO, then="dropped"))

        driver.on_operation = after_the_write
        with pytest.raises(StoreFailedError):
            driver.flush(victim)
        driver.on_operation = lambda: None
        assert reader.view.state.last_sequence == 3
        driver.kill(victim)
        system.arm(None)
        driver.commit(driver.open(2), [ask(1, later), ask(1, "one more")], FIRST_TIME + 2)
        with pytest.raises(CorruptFileError):
            reader.refresh()
