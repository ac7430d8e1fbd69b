"""The first bytes of a file: what it is, and where its newest TOC stands."""

import struct
import zlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, NotAStoreError, UnsupportedVersionError
from memvid_async.format.header import (
    LOG_START,
    MAGIC,
    SLOT_OFFSETS,
    SLOT_SIZE,
    VERSION,
    Header,
    Slot,
    decode_header,
    decode_slots,
    is_unfinished,
    newest_slot,
    next_slot_offset,
)

HEADER = Header(UUID(int=0x1234_5678), 3)
FIELDS = 36
OFFSETS = st.integers(LOG_START, 2**63)


def with_slots(first=None, second=None, header=HEADER):
    data = bytearray(header.encode())
    for place, slot in zip(SLOT_OFFSETS, (first, second), strict=True):
        if slot is not None:
            data[place : place + SLOT_SIZE] = slot.encode(header.salt)
    return bytes(data)


@given(st.uuids(), st.integers(0, 2**32 - 1))
def test_a_header_comes_back(file_id, generation):
    header = Header(file_id, generation)
    assert len(header.encode()) == LOG_START
    assert decode_header(header.encode()) == header


def test_the_salt_is_the_files_own():
    salts = {Header(UUID(int=i), g).salt for i in range(50) for g in range(3)}
    assert len(salts) == 150


def test_any_flipped_byte_of_the_header_is_a_named_error():
    for at in range(FIELDS):
        for flip in (1, 0x80, 0xFF):
            data = bytearray(HEADER.encode())
            data[at] ^= flip
            expected = CorruptFileError
            if at < len(MAGIC):
                expected = NotAStoreError
            elif at < 12:
                expected = UnsupportedVersionError
            with pytest.raises(expected):
                decode_header(bytes(data))


@pytest.mark.parametrize("length", [len(MAGIC), 9, 35, 36, 512, LOG_START - 1])
def test_a_header_cut_short_is_damage(length):
    with pytest.raises(CorruptFileError) as caught:
        decode_header(HEADER.encode()[:length])
    assert caught.value.offset == length


@pytest.mark.parametrize(
    "data",
    [b"", b"\x8fMV", b"text\n", b"MV2\0rest", b"SQLite format 3\0", MAGIC.lower(), bytes(2000)],
)
def test_another_kind_of_file_is_named(data):
    with pytest.raises(NotAStoreError):
        decode_header(data)


def test_a_newer_version_says_what_to_do():
    data = bytearray(HEADER.encode())
    struct.pack_into("<H", data, 8, VERSION + 1)
    struct.pack_into("<I", data, 32, zlib.crc32(data[:32]))
    with pytest.raises(UnsupportedVersionError, match="upgrade"):
        decode_header(bytes(data))


# A creation that was killed.


def test_every_prefix_of_a_header_is_an_unfinished_creation():
    data = Header(UUID(int=7)).encode()
    for length in range(LOG_START):
        assert is_unfinished(data[:length], length), length
    assert not is_unfinished(data, LOG_START)
    assert not is_unfinished(data, LOG_START + 1)


@pytest.mark.parametrize("size", [1, 100, LOG_START])
def test_a_length_without_data_is_an_unfinished_creation(size):
    assert is_unfinished(bytes(size), size)


def test_zeros_longer_than_a_header_are_no_creation():
    assert not is_unfinished(bytes(LOG_START), LOG_START + 1)


@pytest.mark.parametrize("data", [b"t", b"text", b"MV2\0", b"\x8fMVB", bytes(20) + b"text"])
def test_another_kind_of_file_is_no_creation(data):
    assert not is_unfinished(data, len(data))


def newer():
    data = bytearray(HEADER.encode()[:200])
    struct.pack_into("<H", data, 8, VERSION + 1)
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        newer(),
        MAGIC + b"notes that somebody keeps behind these eight bytes",
        with_slots(Slot(LOG_START))[:1000],
        HEADER.encode()[:FIELDS].ljust(300, b"x"),
    ],
    ids=["newer", "text", "slot", "junk"],
)
def test_what_no_killed_creation_leaves_is_not_written_over(data):
    assert not is_unfinished(data, len(data))


# The slots.


@given(OFFSETS, st.integers(0, 2**56 - 1), OFFSETS, st.integers(0, 2**56 - 1))
def test_the_newest_slot_is_the_one_further_on(offset, sequence, other, later):
    one, two = Slot(offset), Slot(other)
    if offset > LOG_START:
        one = Slot(offset, offset - 1, sequence)
    if other > LOG_START:
        two = Slot(other, LOG_START, later)
    data = with_slots(one, two)
    assert decode_slots(data, HEADER.salt) == (one, two)
    newest = newest_slot(data, HEADER.salt)
    assert newest.end == max(offset, other)
    place = next_slot_offset(data, HEADER.salt)
    untouched = {512: two, 1024: one}[place]
    assert untouched.end == newest.end


@pytest.mark.parametrize("torn", [0, 1, 8, 16, 24, 27])
def test_a_torn_slot_leaves_the_other(torn):
    old, new = Slot(LOG_START), Slot(99_999, 88_888, 50)
    for place in (0, 1):
        pair = (old, None) if place else (None, old)
        data = bytearray(with_slots(*pair))
        assert next_slot_offset(bytes(data), HEADER.salt) == SLOT_OFFSETS[place]
        start = SLOT_OFFSETS[place]
        data[start : start + torn] = new.encode(HEADER.salt)[:torn]
        assert newest_slot(bytes(data), HEADER.salt) == old
        assert next_slot_offset(bytes(data), HEADER.salt) == start


def test_a_header_without_slots_has_none():
    assert newest_slot(HEADER.encode(), HEADER.salt) is None
    assert next_slot_offset(HEADER.encode(), HEADER.salt) == SLOT_OFFSETS[0]


def test_another_files_slot_is_none():
    data = with_slots(Slot(LOG_START))
    assert newest_slot(data, HEADER.salt + 1) is None


@pytest.mark.parametrize("offset", [0, 1, LOG_START - 1])
def test_a_slot_that_points_before_the_log_or_behind_its_end_is_none(offset):
    assert newest_slot(with_slots(Slot(offset)), HEADER.salt) is None
    toc = offset or LOG_START
    assert newest_slot(with_slots(Slot(LOG_START, toc)), HEADER.salt) is None


def test_any_flipped_byte_of_a_slot_is_no_slot():
    data = with_slots(Slot(5000, 4000, 70))
    for at in range(SLOT_OFFSETS[0], SLOT_OFFSETS[0] + SLOT_SIZE):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            assert newest_slot(bytes(flipped), HEADER.salt) is None
