"""Segments: framed, checksummed, chained."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError
from memvid_async.format import segment as module
from memvid_async.format.segment import (
    HEAD_SIZE,
    MAX_PAYLOAD,
    SegmentKind,
    parse,
    read_segment,
    scan,
    seal,
)
from tests.support.plans import examples

SALT = 0xC0FFEE
START = 100


def log(payloads, salt=SALT, first=SALT):
    """A log that begins at START, and the offsets in it; the last is its end."""
    data, offsets, previous = bytearray(), [START], first
    for sequence, payload in enumerate(payloads, 1):
        head, previous = seal(SegmentKind.EVENTS, sequence, payload, previous, salt)
        data += head + payload
        offsets.append(START + len(data))
    return bytes(data), offsets


def reading(data, calls=None):
    """A read over a file whose first START bytes are not the log's; it counts what it returned."""

    def read(offset, length):
        assert length >= 0
        found = (bytes(START) + bytes(data))[offset : offset + length]
        if calls is not None:
            calls.append(len(found))
        return found

    return read


def scanned(data, *, end=None, previous=SALT, salt=SALT):
    end = START + len(data) if end is None else end
    return [s.payload for s in scan(reading(data), START, end, previous, salt)]


PAYLOADS = st.lists(st.binary(max_size=40), min_size=1, max_size=8)


@given(PAYLOADS, st.integers(1, 64))
def test_a_log_is_read_back_whatever_is_read_ahead(payloads, ahead):
    data, offsets = log(payloads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_READ_AHEAD", ahead)
        found = list(scan(reading(data), START, START + len(data), SALT, SALT))
    assert [s.payload for s in found] == payloads
    assert [s.offset for s in found] == offsets[:-1]
    assert [s.end for s in found] == offsets[1:]
    assert [s.sequence for s in found] == list(range(1, len(payloads) + 1))
    for segment in found:
        assert read_segment(reading(data), segment.offset, START + len(data), SALT) == segment
        assert parse(data, segment.offset - START, START, SALT) == segment


@given(PAYLOADS, st.data())
@examples(2)
def test_a_log_cut_anywhere_is_the_whole_segments_before_the_cut(payloads, data):
    log_data, offsets = log(payloads)
    cut = data.draw(st.integers(0, len(log_data)))
    whole = sum(offset <= START + cut for offset in offsets) - 1
    assert scanned(log_data[:cut]) == payloads[:whole]
    assert scanned(log_data, end=START + cut) == payloads[:whole]


def test_any_byte_flipped_ends_the_log_before_its_segment():
    payloads = [b"one", b"", b"three" * 5]
    data, offsets = log(payloads)
    for at in range(len(data)):
        for flip in (1, 0x80, 0xFF, data[at] or 0xFF):
            flipped = bytearray(data)
            flipped[at] ^= flip
            whole = sum(offset <= START + at for offset in offsets) - 1
            assert scanned(flipped) == payloads[:whole]
            with pytest.raises(CorruptFileError) as caught:
                read_segment(reading(flipped), offsets[whole], offsets[-1], SALT)
            assert caught.value.offset == offsets[whole]


def test_segments_in_another_order_end_the_log():
    data, offsets = log([b"one", b"two", b"six"])
    parts = [data[a - START : b - START] for a, b in itertools.pairwise(offsets)]
    assert scanned(parts[1] + parts[0] + parts[2]) == []
    assert scanned(parts[0] + parts[2] + parts[1]) == [b"one"]
    assert scanned(parts[0] + parts[0] + parts[1]) == [b"one"]
    assert scanned(parts[0] + parts[2]) == [b"one"]
    assert scanned(parts[1], previous=None) == [b"two"]


def test_another_files_segments_are_none_of_this_one():
    mine, _ = log([b"mine"])
    theirs, _ = log([b"mine", b"theirs"], salt=SALT + 1, first=SALT + 1)
    assert scanned(theirs) == []
    assert scanned(mine + theirs[len(mine) :]) == [b"mine"]
    # Not even when it names the right segment before it.
    theirs, _ = log([b"x"], salt=SALT + 1)
    assert scanned(theirs) == []


def test_an_older_tail_does_not_come_back():
    data, offsets = log([b"one", b"old", b"tail"])
    new, _ = log([b"one", b"new"])
    assert scanned(new + data[offsets[2] - START :]) == [b"one", b"new"]


@pytest.mark.parametrize("length", [0, 1, 19, MAX_PAYLOAD, MAX_PAYLOAD + 1, 2**31, 2**32 - 1])
def test_a_length_that_lies_costs_no_memory_and_ends_the_log(length):
    data, _ = log([b"one", b"two"])
    start = HEAD_SIZE + 3
    lying = bytearray(data)
    lying[start + 4 : start + 8] = struct.pack("<I", length)
    calls = []
    found = list(scan(reading(lying, calls), START, START + len(lying), SALT, SALT))
    assert [s.payload for s in found] == [b"one"]
    assert sum(calls) <= 2 * len(lying)
    with pytest.raises(CorruptFileError):
        read_segment(reading(lying), START + start, START + len(lying), SALT)


@pytest.mark.parametrize("end", [START, START + 1, START + HEAD_SIZE - 1, START + HEAD_SIZE])
def test_nothing_after_the_end_is_looked_at(end):
    data, _ = log([b"payload"])
    calls = []
    with pytest.raises(CorruptFileError):
        read_segment(reading(data, calls), START, end, SALT, guess=2)
    assert sum(calls) <= end - START + 2


def test_a_first_guess_may_be_too_short():
    data, _ = log([b"p" * 5000])
    assert read_segment(reading(data), START, START + len(data), SALT, guess=30).end == START + len(
        data
    )


@pytest.mark.parametrize("missing", [1, 4000, 5000])
def test_a_file_that_was_cut_since_it_was_measured_ends_there(missing, monkeypatch):
    monkeypatch.setattr(module, "_READ_AHEAD", 1000)
    data, _ = log([b"p" * 5000])
    end, cut = START + len(data), data[:-missing]
    assert scanned(cut, end=end) == []
    with pytest.raises(CorruptFileError):
        read_segment(reading(cut), START, end, SALT, guess=30)


def test_kinds_of_a_newer_release_are_read_like_others():
    head, checksum = seal(200, 2**56 - 1, b"new", SALT, SALT)
    (segment,) = scan(reading(head + b"new"), START, START + HEAD_SIZE + 3, SALT, SALT)
    assert (segment.kind, segment.sequence, segment.checksum) == (200, 2**56 - 1, checksum)


def test_zeros_are_no_segment():
    assert scanned(bytes(4096)) == []
    data, _ = log([b"one"])
    assert scanned(data + bytes(4096)) == [b"one"]


def test_bytes_too_short_for_a_head_are_no_segment():
    data, _ = log([b"payload"])
    for size in range(HEAD_SIZE):
        assert parse(data[:size], 0, START, SALT) is None
    assert parse(data, len(data) - HEAD_SIZE + 1, START, SALT) is None
