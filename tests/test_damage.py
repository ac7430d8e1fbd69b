"""Every byte of a file cut, flipped or moved: the exact prefix or a named error, never wrong data.

The oracle knows what the naive store answered after every command. Whatever opens must answer
every question as it did after one of them, or with a `MemvidAsyncError`.
"""

import os
import random
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path
from uuid import UUID

import cbor2
import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, MemvidAsyncError, NotAStoreError, logfile
from memvid_async.format.header import LOG_START, SLOT_OFFSETS, SLOT_SIZE, Header, Slot
from memvid_async.format.segment import HEAD_SIZE, MAX_PAYLOAD, SegmentKind, scan, seal
from memvid_async.journal import Journal
from memvid_async.model import commands
from memvid_async.storage import MemoryStorage
from tests.asking import answers, questions, verified
from tests.naive import FIRST_TIME, Clock, Naive, Record, ask, command, fixed_config, start
from tests.plans import examples, small_tables
from tests.test_values import BOMBS

FIELDS = 36
SOURCE = Path(logfile.__file__).parent.parent


@pytest.fixture(autouse=True)
def low_bounds():
    """The few KiB of a reference hold chunks, pages, marks and TOCs."""
    with small_tables(toc=2700):
        yield


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
        return max(
            [s.end for s in self.segments if s.kind == SegmentKind.TOC], default=LOG_START
        )

    def known(self, size):
        """How many commands are whole in the first ``size`` bytes."""
        return sum(end <= size for end in self.ends) - 1


def small_ops(_naive):
    yield start(1, ambient=True)
    yield start(2, auto_checkpoint_interval=2, max_actions=3)
    yield ask(1, "question", "answer" * 8, {"role": "user", "content": "hello" * 9}, "c" * 1100)
    yield Record(2, "tool_call", {"a": [1, None, 1.5]}, "result", detail=("search",), task="task")
    yield Record(None, "find", "words", frames=(3, 2**40), detail=("lexical", 9), duration_ms=1.25)
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
    naive, storage, clock = Naive(), MemoryStorage(), Clock()
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
    return Journal.open(MemoryStorage(bytes(data)), fixed_config(), read_only=read_only)


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
    storage = MemoryStorage(bytes(data))
    try:
        journal = Journal.open(storage, fixed_config())
        (number,), _ = journal.commit([start(99)])
    except MemvidAsyncError:
        return None
    assert number == before + 1
    assert journal.view.state.last_sequence == before + 1
    again = Journal.open(storage, fixed_config(), read_only=True)
    assert again.view.state == journal.view.state
    assert again.recovery.bytes_dropped == 0
    return again


@pytest.fixture(params=["small", "rich"])
def sound(request):
    return reference(request.param)


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
        if size < sound.toc_end:
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
        assert journal.recovery.bytes_dropped == len(torn)
        assert journal.recovery.offset == (whole if torn else 0)
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
            assert writing.view == type(writing.view)(journal.view.state, whole, writing.view.reader)
            assert writing.view.reader.storage.size() in (whole, size)


def test_a_header_cut_short_opens_as_new_only_if_no_log_was_ever_behind_it(sound):
    used = any(sound.data[SLOT_OFFSETS[0] :][:SLOT_SIZE])
    for size in range(LOG_START):
        data = sound.data[:size]
        if size >= SLOT_OFFSETS[0] + SLOT_SIZE and used:
            with pytest.raises(CorruptFileError):
                opened(data, read_only=False)
        elif not used or size <= SLOT_OFFSETS[0]:
            assert opened(data, read_only=False).view.state.last_sequence == 0


def test_junk_behind_the_log_is_cut_off_and_counted(sound):
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
        assert opened(data).recovery.bytes_dropped == dropped
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


def test_any_byte_above_the_last_toc_flipped_cuts_the_log_there(sound):
    for at, data, structure in flips(sound, sound.toc_end, len(sound.data)):
        segment = next(s for s in sound.segments if s.offset <= at < s.end)
        known = sound.known(segment.offset)
        journal = opened(data)
        assert journal.view.end == segment.offset
        assert journal.recovery.offset == segment.offset
        assert journal.view.state.last_sequence == sound.expected[known]["last",][0]
        if structure:
            assert check(data, sound) == known
        if at == segment.offset:
            again = appended(data, journal.view.state.last_sequence)
            assert verified(again).ok


def test_any_byte_below_the_last_toc_flipped_is_noticed():
    sound = reference("rich")
    last = len(sound.ends) - 1
    for at, data, structure in flips(sound, LOG_START, sound.toc_end):
        segment = next(s for s in sound.segments if s.offset <= at < s.end)
        try:
            journal = opened(data)
        except CorruptFileError as error:
            assert error.offset == segment.offset
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


def test_damage_is_named_by_whoever_reads_it():
    sound = reference("rich")
    last = sound.expected[-1]
    for segment in sound.segments:
        if segment.kind != SegmentKind.EVENTS or segment.end > sound.toc_end:
            continue
        data = bytearray(sound.data)
        data[segment.offset + HEAD_SIZE] ^= 0x20
        failed = set()
        for question, answer in questions(opened(data)).items():
            try:
                assert answer() == last[question]
            except CorruptFileError as error:
                assert error.offset == segment.offset, question
                failed.add(question)
        owner = sound.naive.ids.get(cbor2.loads(segment.payload)[1])
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
    """The bytes with a segment put in the place of another of its length, and with both swapped."""
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


def appended_anyway(data):
    try:
        journal = opened(data, read_only=False)
        journal.commit([start(99)])
    except MemvidAsyncError:
        pass


def test_segments_of_another_file_are_noticed(sound):
    config = fixed_config()
    config.id_factory()
    other = Journal.open(MemoryStorage(), config)
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


# Right checksums, wrong content: only what is said of it by name.


def with_slot(data, slot, salt):
    damaged = bytearray(data)
    for place in SLOT_OFFSETS:
        damaged[place : place + SLOT_SIZE] = bytes(SLOT_SIZE)
    damaged[SLOT_OFFSETS[0] : SLOT_OFFSETS[0] + SLOT_SIZE] = slot.encode(salt)
    return damaged


def test_slots_that_point_anywhere_are_noticed(sound):
    salt, size = sound.salt, len(sound.data)
    places = {*range(LOG_START - 2, LOG_START + 40), size - 1, size, size + 1, 2**32, 2**64 - 1}
    places |= {s.offset + d for s in sound.segments for d in (-1, 0, 1)}
    for place in sorted(places):
        for sequence in (0, 1, sound.expected[-1]["last",][0], 2**56 - 1, 2**64 - 1):
            check(with_slot(sound.data, Slot(place, sequence), salt), sound)


def test_a_slot_that_names_an_older_toc_opens_the_same():
    sound = reference("rich")
    for toc in [s for s in sound.segments if s.kind == SegmentKind.TOC]:
        data = with_slot(sound.data, Slot(toc.offset, toc.sequence - 1), sound.salt)
        assert check(data, sound) == len(sound.ends) - 1
        again = appended(data, sound.expected[-1]["last",][0])
        assert verified(again).ok


def resealed(sound, segment, kind, payload, *, slot=False):
    """The file up to ``segment``, and another one in its place, with the right checksum."""
    head, _ = seal(kind, segment.sequence, payload, segment.previous, sound.salt)
    data = sound.data[: segment.offset] + head + payload
    if slot:
        return with_slot(data, Slot(segment.offset, segment.sequence - 1), sound.salt)
    return with_slot(data, Slot(0, 0), sound.salt)


def provoke(data):
    """Do everything with the file that anybody would; only errors of ours come out."""
    for read_only in (True, False):
        try:
            journal = opened(data, read_only=read_only)
        except MemvidAsyncError:
            continue
        asked = questions(journal, 4096)
        for answer in asked.values():
            try:
                answer()
            except MemvidAsyncError:
                pass
        verified(journal)
        if not read_only:
            appended_anyway(data)
            try:
                journal.commit([start(50), *map(command, (ask(1, "q", None, "m"), ask(None, "q")))])
                journal.compact(lambda *_: None)
            except MemvidAsyncError:
                pass


WRONG = [None, True, 0, 1, -1, 7, 2**63, 1.5, "text", b"", bytes(16), [], [0], [[]], {}, {"a": 1}]


def mutated(value, rng):
    """The value with one thing in it changed, removed or added."""
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        choice = rng.random()
        if choice < 0.6:
            return [*value[:at], mutated(value[at], rng), *value[at + 1 :]]
        if choice < 0.75:
            return value[:at]
        if choice < 0.9:
            return [*value[:at], rng.choice(WRONG), *value[at:]]
        return [*value[:at], *value[at + 1 :]]
    if isinstance(value, bytes) and value and rng.random() < 0.5:
        return value[: rng.randrange(len(value))]
    if type(value) is int and rng.random() < 0.5:
        return abs(value + rng.choice([-1, 1, 100, 2**32, 2**60])) % 2**64
    return rng.choice(WRONG)


def test_any_field_changed_under_a_right_checksum_gives_errors_of_ours_alone():
    sound, rng = reference("rich"), random.Random(11)
    for segment in sound.segments:
        value = cbor2.loads(segment.payload)
        for _ in range(6):
            payload = cbor2.dumps(mutated(value, rng))
            slot = segment.kind == SegmentKind.TOC and rng.random() < 0.7
            provoke(resealed(sound, segment, segment.kind, payload, slot=slot))


@pytest.mark.parametrize("kind", [*SegmentKind])
def test_any_payload_under_any_kind_gives_errors_of_ours_alone(kind):
    sound = reference("rich")
    segment = next(s for s in sound.segments[20:] if s.kind == SegmentKind.EVENTS)
    payloads = [s.payload for s in sound.segments[::3]]
    payloads += [b"", b"\x80", b"\xf6", b"\x00", b"\xff", b"\xa0", b"\x82\x01\x01", b"\x83\x01\x01\x80"]
    for payload in payloads:
        for slot in (False, True):
            provoke(resealed(sound, segment, kind, payload, slot=slot))


def test_a_bomb_under_a_right_checksum_is_refused_with_little_memory():
    """In a child that may not have more than 1 GiB; a bomb asks for up to 2^64 items."""
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from tests import test_damage\n"
        "test_damage.set_off()\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=True,
        cwd=Path(__file__).parent.parent,
        env={"PYTHONPATH": f"{SOURCE}{os.pathsep}."},
        timeout=100,
    )


def set_off():
    """Open files with each bomb as a segment of each kind, and inside of one."""
    sound = reference("small")
    segment = sound.segments[-1]
    for bomb in BOMBS[1::2]:
        inside = cbor2.dumps([5, 1, 13, 0, "q", "r", 0, None, None, "o", "m", None, bomb[: 2**20]])
        payloads = [(kind, bomb) for kind in (SegmentKind.EVENTS, SegmentKind.TOC)]
        payloads += [(SegmentKind.EVENTS, inside), (SegmentKind.EVENTS, b"\x84\x05\x01\x01" + bomb)]
        for kind, payload in payloads:
            slot = kind == SegmentKind.TOC
            try:
                opened(resealed(sound, segment, kind, payload, slot=slot))
            except MemvidAsyncError:
                pass


@pytest.mark.parametrize("length", [0, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2**32 - 1])
def test_a_length_that_lies_under_a_right_checksum_is_the_end_of_the_log(length):
    sound = reference("small")
    segment = sound.segments[4]
    head, _ = seal(SegmentKind.EVENTS, segment.sequence, b"", segment.previous, sound.salt)
    lying = head[:4] + struct.pack("<I", length) + head[8:]
    data = sound.data[: segment.offset] + lying + sound.data[segment.offset + HEAD_SIZE :]
    check(data, sound)
    provoke(data)


def test_an_empty_segment_of_each_kind_is_noticed():
    sound = reference("small")
    for kind in range(256):
        provoke(resealed(sound, sound.segments[4], kind, b""))
