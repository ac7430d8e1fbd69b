"""Every byte of a file cut, flipped or moved: the exact prefix or a named error, never wrong data.

The oracle knows what the naive store answered after every command. Whatever opens must answer
every question as it did after one of them, or with a `MemvidAsyncError`.
"""

import random
import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, MemvidAsyncError, NotAStoreError
from memvid_async.file.journal import Journal
from memvid_async.format.header import LOG_START, SLOT_OFFSETS, SLOT_SIZE
from memvid_async.format.segment import HEAD_SIZE, SegmentKind
from memvid_async.storage import RamStorage
from tests.support.asking import answers, questions, verified
from tests.support.depth import DAMAGE_EVERY
from tests.support.naive import ask, fixed_config, start
from tests.support.plans import examples
from tests.support.reference import appended, appended_anyway, check, opened, reference

pytestmark = pytest.mark.usefixtures("low_bounds")

FIELDS = 36


def test_the_references_hold_every_kind():
    rich = reference("rich")
    kinds = [segment.kind for segment in rich.segments]
    assert set(kinds) == {1, 2, 3, 4}
    assert kinds.count(SegmentKind.TOC) >= 2
    assert kinds.count(SegmentKind.PAGE) >= 4
    assert rich.segments[-1].offset >= rich.toc_end
    assert rich.known(rich.toc_end) < len(rich.ends) - 2
    assert len(reference("small").data) < 5000
    assert reference("small").toc_end == LOG_START
    for found in (rich, reference("small")):
        assert check(found.data, found) == len(found.ends) - 1
        assert verified(opened(found.data)).ok


# Cut.


def test_a_file_cut_at_any_byte_is_its_exact_prefix_or_a_named_error(sound):
    asked = set()
    for size in range(len(sound.data) + 1):
        data = sound.data[:size]
        if size < LOG_START:
            with pytest.raises((NotAStoreError, CorruptFileError)):
                opened(data)
            continue
        if size < sound.durable_end:
            with pytest.raises(CorruptFileError) as caught:
                opened(data)
            assert caught.value.offset <= size
            with pytest.raises(CorruptFileError):
                opened(data, read_only=False)
            continue
        known = sound.known(size)
        journal = opened(data)
        assert journal.view.state.last_sequence == sound.expected[known]["last",][0]
        whole = max([LOG_START, *(s.end for s in sound.segments if s.end <= size)])
        assert journal.view.end == whole
        torn = data[whole:].rstrip(b"\0")
        assert journal.torn_tail.bytes_dropped == len(torn)
        assert journal.torn_tail.offset == (whole if torn else 0)
        # Below the same end stand the same bytes: it is enough to ask once.
        if whole not in asked:
            asked.add(whole)
            assert check(data, sound) == known
            again = appended(data, journal.view.state.last_sequence)
            assert verified(again).ok
            told = answers(again)
            for question, answer in sound.expected[known].items():
                if question[0] in ("session", "events of"):
                    assert told[question] == answer
            assert told["events",][:-1] == sound.expected[known]["events",]
        else:
            writing = opened(data, read_only=False)
            assert writing.view.state == journal.view.state
            # Cut off; what is left after the log, if anything, is zeros.
            assert not any(writing.view.reader.storage.data[whole:])


def test_a_header_cut_short_opens_as_new_only_if_no_log_was_ever_after_it(sound):
    used = any(sound.data[SLOT_OFFSETS[0] :][:SLOT_SIZE])
    for size in range(LOG_START):
        data = sound.data[:size]
        if size >= SLOT_OFFSETS[0] + SLOT_SIZE and used:
            with pytest.raises(CorruptFileError):
                opened(data, read_only=False)
        elif not used or size <= SLOT_OFFSETS[0]:
            assert opened(data, read_only=False).view.state.last_sequence == 0


def test_junk_after_the_log_is_cut_off_and_counted(sound):
    rng = random.Random(5)
    known = len(sound.ends) - 1
    last = sound.segments[-1]
    for junk in (
        b"\1",
        rng.randbytes(5000),
        bytes(100) + b"\1",
        sound.data[last.offset :],
        sound.data[last.offset :] * 2,
        sound.data[LOG_START:],
        sound.data,
        b"\xff" * 300,
        struct.pack("<IIIQ", 0, 2**32 - 1, last.checksum, 1 << 56 | 99) + bytes(100),
    ):
        data = sound.data + junk
        assert check(data, sound) == known
        dropped = len(junk.rstrip(b"\0"))
        assert opened(data).torn_tail.bytes_dropped == dropped
        writing = opened(data, read_only=False)
        assert writing.torn_tail.bytes_dropped == dropped
        assert not any(writing.view.reader.storage.data[len(sound.data) :])
        again = appended(data, sound.expected[known]["last",][0])
        assert verified(again).ok


# Flipped.


# One byte of each field of a segment's head, all of its length.
HEAD_PARTS = (0, 4, 5, 6, 7, 8, 12, 19)


def flips(sound, begin, stop):
    """Every byte flipped by one pattern, those of slots by several; with whether it is one of
    structure. A checksum sees all flips of one byte alike."""
    heads = {s.offset + part for s in sound.segments for part in HEAD_PARTS}
    ends = {s.end - 1 for s in sound.segments}
    slots = {at for place in SLOT_OFFSETS for at in range(place, place + SLOT_SIZE)}
    structure = heads | ends | slots | set(range(FIELDS))
    for at in range(begin, stop):
        if at % DAMAGE_EVERY and at not in structure:
            continue
        drawn = random.Random(at).randrange(1, 256)
        few = at in slots or at < FIELDS
        for pattern in {1, 0x80, 0xFF, sound.data[at] or 1, drawn} if few else {drawn}:
            flipped = bytearray(sound.data)
            flipped[at] ^= pattern
            yield at, flipped, at in structure


def test_any_byte_of_the_header_flipped_is_a_named_error_or_changes_nothing(sound):
    last = len(sound.ends) - 1
    for at, data, structure in flips(sound, 0, LOG_START):
        if at < FIELDS:
            for read_only in (True, False):
                with pytest.raises(MemvidAsyncError):
                    opened(data, read_only=read_only)
            continue
        assert opened(data).view.state.last_sequence == sound.expected[last]["last",][0]
        if structure:
            assert check(data, sound) == last


def test_any_byte_above_what_is_durable_flipped_cuts_the_log_there(sound):
    for at, data, structure in flips(sound, sound.durable_end, len(sound.data)):
        segment = next(s for s in sound.segments if s.offset <= at < s.end)
        known = sound.known(segment.offset)
        journal = opened(data)
        assert journal.view.end == segment.offset
        assert journal.torn_tail.offset == segment.offset
        assert journal.view.state.last_sequence == sound.expected[known]["last",][0]
        if structure:
            assert check(data, sound) == known
        if at == segment.offset:
            again = appended(data, journal.view.state.last_sequence)
            assert verified(again).ok


def test_any_byte_below_what_is_durable_flipped_is_noticed():
    sound = reference("rich")
    last, told = len(sound.ends) - 1, []
    for at, data, structure in flips(sound, LOG_START, sound.durable_end):
        segment = next(s for s in sound.segments if s.offset <= at < s.end)
        try:
            journal = opened(data)
        except CorruptFileError as error:
            told.append((error.offset, segment.offset))
            continue
        assert journal.view.state.last_sequence == sound.expected[last]["last",][0]
        if not structure and at % 25:
            continue
        assert check(data, sound) == last
        report = verified(journal)
        assert not report.ok
        assert report.problems[0].offset == segment.offset
        if at == segment.offset:
            appended(data, sound.expected[last]["last",][0])
    assert told
    assert all(named == damaged for named, damaged in told)


def test_damage_is_named_by_whoever_reads_it():
    sound = reference("rich")
    last = sound.expected[-1]
    for segment in sound.segments:
        if segment.kind != SegmentKind.EVENTS or segment.end > sound.toc_end:
            continue
        data = bytearray(sound.data)
        data[segment.offset + HEAD_SIZE] ^= 0x20
        failed = {}
        for question, answer in questions(opened(data)).items():
            try:
                assert answer() == last[question]
            except CorruptFileError as error:
                failed[question] = error.offset
        owner = sound.naive.ids.get(cbor2.loads(segment.payload)[1])
        assert set(failed.values()) == {segment.offset}
        assert ("events",) in failed
        assert ("session", owner) in failed or ("session", owner) not in last


# Moved.


def rebuilt(sound, segments):
    """The bytes with these segments, as they stand, one after another."""
    parts = (sound.data[segment.offset : segment.end] for segment in segments)
    return sound.data[:LOG_START] + b"".join(parts)


def test_segments_swapped_doubled_or_left_out_are_noticed(sound):
    segments = sound.segments
    count = len(segments)
    for i in range(count):
        check(rebuilt(sound, [*segments[:i], *segments[i + 1 :]]), sound)
        check(rebuilt(sound, [*segments[:i], segments[i], *segments[i:]]), sound)
        if i + 1 < count:
            both = [segments[i + 1], segments[i]]
            check(rebuilt(sound, [*segments[:i], *both, *segments[i + 2 :]]), sound)


def alike(sound, derived):
    """The bytes with a segment that replaces another of its length, and with both swapped."""
    found = False
    for one in sound.segments:
        for other in sound.segments:
            if one is other or len(one.payload) != len(other.payload):
                continue
            if (other.kind != SegmentKind.EVENTS) is not derived:
                continue
            found = True
            doubled = bytearray(sound.data)
            doubled[one.offset : one.end] = sound.data[other.offset : other.end]
            yield doubled
            swapped = bytearray(doubled)
            swapped[other.offset : other.end] = sound.data[one.offset : one.end]
            yield swapped
    assert found


def test_events_in_the_place_of_others_are_noticed(sound):
    for data in alike(sound, derived=False):
        check(data, sound)


def test_derived_segments_in_the_place_of_others_are_noticed():
    sound = reference("rich")
    for data in alike(sound, derived=True):
        check(data, sound)


@given(st.data())
@examples(2)
def test_spliced_bytes_are_noticed(data):
    sound = reference(data.draw(st.sampled_from(["small", "rich"])))
    damaged = bytearray(sound.data)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged)))
        end = min(len(damaged), at + data.draw(st.integers(0, 300)))
        source = data.draw(st.integers(0, len(sound.data)))
        piece = sound.data[source : source + data.draw(st.integers(0, 300))]
        if data.draw(st.booleans()):
            piece = (piece + bytes(end - at))[: end - at]
        damaged[at:end] = piece
    check(damaged, sound)
    appended_anyway(damaged)


def test_segments_of_another_file_are_noticed(sound):
    config = fixed_config()
    config.id_factory()
    other = Journal.open(RamStorage(), config)
    other.commit([start(1), ask(1, "from another file")])
    theirs = bytes(other.view.reader.storage.data[LOG_START : other.view.end])
    last = len(sound.ends) - 1
    assert check(sound.data + theirs, sound) == last
    for segment in sound.segments:
        damaged = bytearray(sound.data)
        damaged[segment.offset : segment.offset + len(theirs)] = theirs
        check(damaged, sound)
    theirs_too = bytearray(sound.data)
    theirs_too[:LOG_START] = other.view.reader.storage.data[:LOG_START]
    journal = opened(theirs_too)
    assert journal.view.state.last_sequence == 0
