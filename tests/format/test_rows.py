"""Rows that travel each as bytes: one is read without the others, and checked by itself."""

from unittest.mock import patch

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.events import values
from memvid_async.format import rows
from memvid_async.format.rows import PACKED_ROWS, PackedRows, encode_rows, split_payload, split_rows
from memvid_async.format.segment import HEAD_SIZE, Segment

FIRST = 70
# Every size of head that a row can have, but that of a row of 64 KiB.
TEXTS = st.sampled_from(["", "x" * 10, "x" * 100, "x" * 1000]) | st.text(max_size=30)


def segment_of(payload):
    """A segment behind seven bytes of something else, and what reads the file that holds it."""
    payload = bytes(payload)
    data = bytes(7 + HEAD_SIZE) + payload
    segment = Segment(1, FIRST, payload, 7, len(data), 0, 0)
    return segment, lambda offset, length: data[offset : offset + length]


@given(st.lists(TEXTS, min_size=PACKED_ROWS + 1, max_size=PACKED_ROWS + 20))
def test_each_row_is_read_alone(texts):
    segment, read = segment_of(encode_rows(5, 3, [[20, text] for text in texts]))
    given_rows = split_rows(segment.payload)
    packed = PackedRows.of(segment, given_rows)
    assert packed is not None
    assert len(packed) == len(texts)
    assert [packed.read(read, FIRST + place) for place in range(len(texts))] == given_rows


def test_a_row_of_any_size_is_read_alone():
    texts = ["x" * (2**16 + 5), *map(str, range(PACKED_ROWS))]
    segment, read = segment_of(encode_rows(5, 3, [[20, text] for text in texts]))
    packed = PackedRows.of(segment, split_rows(segment.payload))
    assert packed is not None
    assert cbor2.loads(packed.read(read, FIRST)) == [20, texts[0]]


def test_a_changed_byte_is_noticed_in_its_row_alone():
    segment, read = segment_of(encode_rows(5, 3, [[20, f"text {n}"] for n in range(20)]))
    packed = PackedRows.of(segment, split_rows(segment.payload))
    assert packed is not None

    def damaged(offset, length):
        return read(offset, length).replace(b"text 7", b"text 9")

    with pytest.raises(ValueError, match="changed"):
        packed.read(damaged, FIRST + 7)
    assert cbor2.loads(packed.read(damaged, FIRST + 8)) == [20, "text 8"]


@pytest.mark.parametrize("sequence", [FIRST - 1, FIRST + 20])
def test_an_event_of_another_segment_is_not_there(sequence):
    segment, read = segment_of(encode_rows(5, 3, [[20, f"text {n}"] for n in range(20)]))
    packed = PackedRows.of(segment, split_rows(segment.payload))
    assert packed is not None
    with pytest.raises(IndexError):
        packed.read(read, sequence)


@pytest.mark.parametrize(
    "payload",
    [
        cbor2.dumps([5, 3]),
        encode_rows(5, 3, [[20, "one"]]),
        encode_rows(5, 3, [[20, "one"], [20, "two"]]),
        cbor2.dumps([5, 3, cbor2.dumps([20, "one"]), [20, "two"]]),
        # Two bytes for a length that one could say.
        b"\x84\x05\x03\x42\x81\x14\x58\x02\x81\x15",
    ],
)
def test_other_rows_are_not_packed(payload):
    segment, _ = segment_of(payload)
    assert PackedRows.of(segment, split_rows(payload)) is None


# What is large goes piece by piece, and must be no other bytes for it.

LONG = st.text(min_size=8, max_size=40) | st.binary(min_size=8, max_size=40)
ROWS = st.lists(
    st.tuples(st.integers(0, 40), st.none() | st.integers(0, 9), TEXTS | LONG).map(list),
    min_size=1,
    max_size=PACKED_ROWS + 5,
)


@given(ROWS)
def test_long_content_is_encoded_as_cbor2_would(given_rows):
    whole = encode_rows(5, 3, given_rows)
    with patch.object(rows, "LARGE", 7), patch.object(values, "LARGE", 3):
        assert encode_rows(5, 3, given_rows) == whole
    packed = [cbor2.dumps(row) for row in given_rows]
    many = packed if len(packed) > PACKED_ROWS else given_rows
    assert whole == cbor2.dumps((5, 3, *(given_rows[0] if len(packed) == 1 else many)))


@given(ROWS, st.data())
def test_a_large_payload_is_split_as_a_small_one(given_rows, data):
    payload = bytearray(encode_rows(5, 3, given_rows))
    for _ in range(data.draw(st.integers(0, 2))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(payload[: data.draw(st.integers(0, len(payload)) | st.just(len(payload)))])

    def split():
        try:
            return split_payload(payload)
        except ValueError:
            return None

    small = split()
    with patch.object(rows, "_MUCH", 0), patch.object(values, "LARGE", 0):
        assert split() == small


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_large_packed_payload_with_any_byte_changed_is_split_as_a_small_one(mask):
    sound = bytes(encode_rows(5, 300, [[20, "x" * n, None] for n in range(PACKED_ROWS + 14)]))

    def split(payload):
        try:
            return split_payload(payload)
        except ValueError:
            return None

    changed = [bytearray(sound) for _ in sound]
    for at, payload in enumerate(changed):
        payload[at] ^= mask
    payloads = [sound, sound[:-1], sound + b"\0", sound[:3], *map(bytes, changed)]
    small = [split(payload) for payload in payloads]
    assert small[0] is not None
    with patch.object(rows, "_MUCH", 0):
        assert [split(payload) for payload in payloads] == small
