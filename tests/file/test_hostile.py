"""Right checksums, wrong content: whatever a file says, only errors of ours come out of it."""

import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import cbor2
import pytest

from memvid_async.format.header import LOG_START, Slot
from memvid_async.format.segment import HEAD_SIZE, MAX_PAYLOAD, SegmentKind, seal
from tests.support.asking import verified
from tests.support.depth import HOSTILE_EVERY, SLOTS_EVERY
from tests.support.hostile_child import provoke
from tests.support.reference import appended, check, reference, with_slot

pytestmark = pytest.mark.usefixtures("low_bounds")

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


def test_slots_that_point_anywhere_are_noticed(sound):
    salt, size = sound.salt, len(sound.data)
    places = {*range(LOG_START - 2, LOG_START + 40), size - 1, size, size + 1, 2**32, 2**64 - 1}
    places |= {s.offset + d for s in sound.segments for d in (-1, 0, 1)}
    for place in sorted(places)[::SLOTS_EVERY]:
        for sequence in (0, 1, sound.expected[-1]["last",][0], 2**56 - 1, 2**64 - 1):
            for slot in (Slot(size, place, sequence), Slot(place), Slot(place, LOG_START)):
                check(with_slot(sound.data, slot, salt), sound)


def test_a_slot_that_names_an_older_toc_opens_the_same():
    sound = reference("rich")
    for toc in [s for s in sound.segments if s.kind == SegmentKind.TOC]:
        data = with_slot(sound.data, Slot(toc.end, toc.offset, toc.sequence - 1), sound.salt)
        assert check(data, sound) == len(sound.ends) - 1
        again = appended(data, sound.expected[-1]["last",][0])
        assert verified(again).ok


def resealed(sound, segment, kind, payload, *, slot=False):
    """The file up to ``segment``, and another one in its place, with the right checksum."""
    head, _ = seal(kind, segment.sequence, payload, segment.previous, sound.salt)
    data = sound.data[: segment.offset] + head + payload
    if slot:
        slot = Slot(len(data), segment.offset, segment.sequence - 1)
        return with_slot(data, slot, sound.salt)
    return with_slot(data, Slot(0), sound.salt)


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
    payloads += [
        b"",
        b"\x80",
        b"\xf6",
        b"\x00",
        b"\xff",
        b"\xa0",
        b"\x82\x01\x01",
        b"\x83\x01\x01\x80",
    ]
    for payload in payloads:
        for slot in (False, True):
            provoke(resealed(sound, segment, kind, payload, slot=slot))


# How many cases a group has at least. Where CI is not set, of a large group every nth is tried.
CASES = {
    "bits": 100_000,
    "truncations": 5_000,
    "moved": 900,
    "tables": 190,
    "lengths": 1_400,
    "bombs": 280,
    "stubs": 2,
}


@pytest.mark.skipif(sys.platform != "linux", reason="bounds are set as Linux counts them")
@pytest.mark.parametrize("group", CASES)
def test_memory_time_and_processor_are_bounded_around_each_hostile_file(group):
    """In a child with little room; a group's name says what is wrong with its files."""
    every = HOSTILE_EVERY if CASES[group] > 100 else 1
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.support.hostile_child", group, f"{every}"],
        cwd=ROOT,
        env={"PYTHONPATH": f"{SOURCE}{os.pathsep}."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert int(result.stdout) >= CASES[group] // every


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
