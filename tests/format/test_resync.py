"""Finding segments where no header, no neighbour and no order says where they are."""

import struct
import zlib

import pytest

from memvid_async.format import resync
from memvid_async.format.header import LOG_START
from memvid_async.format.resync import Finder, find_salt
from memvid_async.format.segment import HEAD_SIZE, MAX_PAYLOAD, SegmentKind, seal

SALT, OTHER = 0xC0FFEE, 0xBADCAB1E


def chain(payloads, salt=SALT, first=1, kind=SegmentKind.EVENTS):
    """Segments that follow one another, each as bytes."""
    found, previous = [], salt
    for sequence, payload in enumerate(payloads, first):
        head, previous = seal(kind, sequence, payload, previous, salt)
        found.append(head + payload)
    return found


def reader(data):
    return lambda offset, length: data[offset : offset + length]


def runs(data, salt=SALT):
    """Start and end of each run, and how far the search told that it was."""
    told = []
    found = list(Finder(reader(data), len(data), salt).runs(told.append))
    assert told == sorted(told)
    return [(run.start, run.end) for run in found], told


def salt_of(data):
    return find_salt(reader(data), data[:LOG_START].ljust(LOG_START, b"\0"), len(data))


def test_segments_far_from_each_other_are_found(monkeypatch):
    monkeypatch.setattr(resync, "_WINDOW", 1000)
    first, second, third = chain([b"a" * 700, b"b" * 900, b"c" * 2500])
    junk = bytes(range(1, 256)) * 20
    data = bytes(LOG_START) + junk + first + junk + second + junk + third
    found, told = runs(data)
    assert [data[start:end] for start, end in found] == [first, second, third]
    assert len(told) > 10


def test_a_segment_at_the_end_of_what_is_looked_at_at_a_time_is_found(monkeypatch):
    (segment,) = chain([b"x" * 40])
    for window in range(len(segment) - 5, len(segment) + 60):
        monkeypatch.setattr(resync, "_WINDOW", window)
        for shift in range(0, 30, 7):
            at = LOG_START + shift
            assert runs(bytes(at) + segment)[0] == [(at, at + len(segment))]


def test_a_first_segment_of_an_unknown_kind_begins_the_log():
    newer, events = chain([b"new"], kind=77)[0], chain([b"old"], first=2)[0]
    data = bytes(LOG_START) + newer + events
    assert runs(data)[0] == [
        (LOG_START, LOG_START + len(newer)),
        (LOG_START + len(newer), len(data)),
    ]


def test_heads_that_claim_too_much_are_passed_over():
    (segment,) = chain([b"x" * 40])
    lies = b"".join(
        struct.pack("<IIIQ", 1, length, 2, 1 << 56 | 9)
        for length in (MAX_PAYLOAD, MAX_PAYLOAD + 1, 2**32 - 1, 10**6)
    )
    data = bytes(LOG_START) + lies + segment
    assert runs(data)[0] == [(LOG_START + len(lies), len(data))]


def test_a_search_spends_only_what_it_may(monkeypatch):
    """Heads that each claim all the rest of the file are not all believed."""
    monkeypatch.setattr(resync, "MAX_PAYLOAD", 20_000)
    monkeypatch.setattr(resync, "_CREDIT_PER_BYTE", 0)
    lie = struct.pack("<IIIQ", 1, 5000, 2, 1 << 56 | 9)
    (segment,) = chain([b"x" * 40])
    data = bytes(LOG_START) + lie * 3 + segment + bytes(6000)
    at = LOG_START + len(lie) * 3
    assert runs(data)[0] == [(at, at + len(segment))]
    data = bytes(LOG_START) + lie * 300 + segment + bytes(6000)
    assert runs(data)[0] == []


def test_a_file_that_changes_while_it_is_searched_ends_the_search():
    first, second, third = chain([b"a" * 60, b"b" * 60, b"c" * 60])
    data = bytes(LOG_START) + first + b"junk" + second + third + bytes(50)
    whole = {(LOG_START, LOG_START + len(first))}
    for gone in range(1, 40):
        calls = 0

        def read(offset, length, gone=gone):
            nonlocal calls
            calls += 1
            found = data[offset : offset + length]
            return found if calls != gone else bytes(len(found))

        found = list(Finder(read, len(data), SALT).runs(lambda _: None))
        assert all(run.end - run.start >= len(first) for run in found)
        whole |= {(run.start, run.end) for run in found}
    assert len(whole) > 1


def test_the_salt_follows_from_two_segments_and_not_from_one():
    segments = chain([b"one", b"two", b"three"])
    junk = bytes(range(200)) * 10
    assert salt_of(junk + segments[1] + segments[2]) == SALT
    assert salt_of(junk + segments[1] + b"x" + segments[2]) is None
    assert salt_of(junk) is None
    assert salt_of(b"") is None


@pytest.mark.parametrize("ours", [2, 3, 5])
def test_the_salt_that_most_bytes_belong_to_wins(ours):
    mine = b"".join(chain([b"mine" * 10] * ours))
    theirs = b"".join(chain([b"them" * 10] * 4, salt=OTHER))
    junk = bytes(range(200)) * 10
    wanted = SALT if ours > 4 else OTHER
    for data in (junk + mine + junk + theirs, junk + theirs + b"\1" + mine):
        assert salt_of(data) == wanted


def test_what_is_left_of_a_header_proves_a_salt_with_a_single_segment():
    fields = b"fields of a header".ljust(32, b"\0")
    salt = zlib.crc32(fields)
    first, second = chain([b"only"], salt=salt)[0], chain([b"other"], salt=salt)[0]
    at_the_start = bytes(LOG_START) + first
    for header in (fields, bytes(32) + salt.to_bytes(4, "little")):
        assert salt_of(header.ljust(LOG_START, b"\0") + b"junk" + second) == salt
    assert salt_of(at_the_start) == salt


def test_the_tries_for_a_salt_are_bounded(monkeypatch):
    """Pairs that look like two segments, and are none."""
    bait = struct.pack("<IIIQ", 7, 4, 0, 1 << 56 | 9) + b"????"
    bait += struct.pack("<IIIQ", 1, 0, 7, 1 << 56 | 9)
    data = bytes(LOG_START) + bait * 20 + b"".join(chain([b"one", b"two"])) + bytes(HEAD_SIZE)
    assert salt_of(data) == SALT
    monkeypatch.setattr(resync, "_MOST_TRIES", 5)
    assert salt_of(data) is None


def test_a_segment_too_long_to_solve_is_left_out(monkeypatch):
    data = bytes(LOG_START - 5) + b"".join(chain([b"x" * 3000, b"y" * 3000, b"z"]))
    assert salt_of(data) == SALT
    monkeypatch.setattr(resync, "_SOLVABLE", 2000)
    assert salt_of(data) is None
