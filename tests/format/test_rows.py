"""The payload of an events segment, small or large: the same bytes, read in whichever way."""

from unittest.mock import patch

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.events import values
from memvid_async.format import places, rows
from memvid_async.format.kinds import FRAMES_PUT
from memvid_async.format.places import FIRST_FRAME, Places, locate
from memvid_async.format.rows import decode_rows, encode_rows, segment_start
from memvid_async.format.segment import HEAD_SIZE, Segment

FIRST = 70
# Every size of head that a field can have, but that of a field of 64 KiB.
TEXTS = st.sampled_from(["", "x" * 10, "x" * 100, "x" * 1000]) | st.text(max_size=30)
FRAMES = st.one_of(
    TEXTS,
    st.binary(max_size=30),
    st.tuples(TEXTS, st.none() | TEXTS, st.none(), st.none(), st.lists(TEXTS)).map(list),
    st.lists(st.integers(0, 9), min_size=3, max_size=40).map(lambda parts: [[b"d" * 32, *parts]]),
)


def put(items, first=1):
    return [FRAMES_PUT, first, 0, None, *items]


def segment_of(payload):
    """A segment after seven bytes of something else, and what reads the file that holds it."""
    payload = bytes(payload)
    data = bytes(7 + HEAD_SIZE) + payload
    segment = Segment(1, FIRST, payload, 7, len(data), 0, 0)
    return segment, lambda offset, length: data[offset : offset + length]


def places_of(payload):
    segment, read = segment_of(payload)
    found = Places.of(segment)
    assert found is not None
    return found, read


@given(st.lists(FRAMES, min_size=17, max_size=40), st.booleans())
def test_each_frame_and_each_row_is_read_alone(items, with_others):
    given_rows = [put(items)]
    if with_others:
        given_rows = [[4, b"d" * 32, "content"], put(items), [10, 0, FIRST + 1, None, 1]]
    payload = encode_rows(5, 3, given_rows)
    found, read = places_of(payload)
    assert len(found) == len(items) + len(given_rows) - 1
    for at, row in enumerate(given_rows, FIRST):
        assert found.holds(at)
        if row[0] != FRAMES_PUT:
            assert found.read(read, at, 0) == (row[0], row)
            continue
        for place, item in enumerate(items):
            assert found.read(read, at, place) == (FRAMES_PUT, item)
        with pytest.raises(IndexError, match="no part at place"):
            found.read(read, at, len(items))
    assert not found.holds(FIRST - 1)
    assert not found.holds(FIRST + len(given_rows))


def test_a_frame_of_any_size_is_read_alone():
    texts = ["x" * (2**16 + 5), *map(str, range(20))]
    found, read = places_of(encode_rows(5, 3, [put(texts)]))
    assert [found.read(read, FIRST, place)[1] for place in range(21)] == texts


def test_a_changed_byte_is_noticed_in_its_frame_alone():
    found, read = places_of(encode_rows(5, 3, [put([f"text {n}" for n in range(20)])]))

    def damaged(offset, length):
        return read(offset, length).replace(b"text 7", b"text 9")

    for place in range(20):
        if place == 7:
            with pytest.raises(ValueError, match="have changed"):
                found.read(damaged, FIRST, place)
        else:
            assert found.read(damaged, FIRST, place)[1] == f"text {place}"


@pytest.mark.parametrize(
    "payload",
    [
        encode_rows(5, 3, [put(["one"])]),
        encode_rows(5, 3, [put(["one"] * 10), [4, b"d", "two"]]),
        encode_rows(5, 3, [[4, b"d" * 32, "x" * 9000]]),
        encode_rows(5, 3, [[10, 0, None, None, 1, list(range(99))]]),
    ],
)
def test_of_few_parts_no_places_are_kept(payload):
    assert Places.of(segment_of(payload)[0]) is None


# What is large goes piece by piece, and must be no other bytes for it.

LONG = st.text(min_size=8, max_size=40) | st.binary(min_size=8, max_size=40)
ROWS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 40), st.none() | st.integers(0, 9), TEXTS | LONG).map(list),
        st.lists(FRAMES, min_size=1, max_size=20).map(put),
    ),
    min_size=1,
    max_size=20,
)


@given(ROWS)
def test_a_long_row_is_encoded_as_cbor2_would(given_rows):
    whole = cbor2.dumps((5, 3, *(given_rows[0] if len(given_rows) == 1 else given_rows)))
    assert encode_rows(5, 3, given_rows) == whole
    small = {"LARGE": 7, "_FIELDS_AT_ONCE": 3, "_ROWS_AT_ONCE": 2}
    with patch.multiple(rows, **small), patch.object(values, "LARGE", 3):
        assert encode_rows(5, 3, given_rows) == whole


def read_both_ways(payload):
    """The payload as read at once, and row by row; None where it is refused."""

    def read():
        try:
            return decode_rows(payload)
        except ValueError:
            return None

    small = read()
    with patch.object(rows, "_MUCH", 0), patch.object(values, "LARGE", 0):
        return small, read()


@given(ROWS, st.data())
def test_a_large_payload_is_read_as_a_small_one(given_rows, data):
    payload = bytearray(encode_rows(5, 3, given_rows))
    for _ in range(data.draw(st.integers(0, 2))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = bytes(payload[: data.draw(st.integers(0, len(payload)) | st.just(len(payload)))])
    small, large = read_both_ways(payload)
    assert large == small


@pytest.mark.parametrize("mask", [0x01, 0x20, 0x80, 0xFF])
def test_a_large_payload_with_any_byte_changed_is_read_as_a_small_one(mask):
    items = ["x" * n for n in range(14)] + [["x", "t", None, None, ["a"]], b"odd", [None, b"d"]]
    sound = bytes(encode_rows(5, 300, [put(items), [10, 0, 1, None, 2.5], [21, 1, 0, 1, "y"]]))
    for at in range(len(sound)):
        changed = sound[:at] + bytes([sound[at] ^ mask]) + sound[at + 1 :]
        small, large = read_both_ways(changed)
        assert large == small, at
    for count in range(len(sound)):
        small, large = read_both_ways(sound[:count])
        assert large is small is None


def test_a_segment_holds_no_more_items_than_a_reader_has_room_for():
    frames = encode_rows(5, 0, [put([["x", *[None] * 20]] * 20)])
    several = encode_rows(5, 0, [[22, 1, 0, *[None] * 10]] * 30)
    for payload in (frames, several):
        assert decode_rows(payload)[:2] == (5, 0)
        bound = {"MAX_EVENT_ITEMS": 200}
        with patch.multiple(places, **bound), patch.multiple(rows, **bound):
            with pytest.raises(ValueError, match="more than 200 items"):
                decode_rows(payload)
            assert read_both_ways(payload) == (None, None)


# How a segment begins.


@pytest.mark.parametrize("row", [[0], put(["a"]), put(["a"] * 300), [4, b"d" * 32, "x" * 70_000]])
def test_the_time_and_session_are_read_without_the_rest(row):
    for given_rows in ([row], [row, row]):
        assert segment_start(bytes(encode_rows(2**62, 2**40, given_rows))) == (2**62, 2**40)


def test_what_later_releases_add_to_the_time_is_not_looked_at():
    for row in ([0], put(["a", "b"])):
        plain = cbor2.dumps([5, 3, *row])
        for more in ([5], [5, b"an id of the append"], [5, b"x" * 16, "more", [1, {}]]):
            later = cbor2.dumps([more, 3, *row])
            assert decode_rows(later) == decode_rows(plain)
            assert segment_start(later) == (5, 3)
            located, due = locate(later), locate(plain)
            assert (located is None) == (due is None)
            assert located is None or located[:2] == (5, 3)


@pytest.mark.parametrize(
    "value",
    [
        [], [5], [5, 3], {}, 5, "text", [-(2**63) - 1, 3, 0], [None, 3, 0], [[], 3, 0],
        [["x"], 3, 0],
        [True, 3, 0], [5, -1, 0], [5, None, 0], [5, [3], 0], [2**63, 3, 0], [5, 3, None],
        [5, 3, []], [5, 3, [0], 5], [5, 3, [-1]], [5, 3, b"\x81\x00"], [5, 3, {}],
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_events_segment_is_refused(value):
    payload = cbor2.dumps(value)
    with pytest.raises(ValueError, match=r"segment|CBOR|items"):
        decode_rows(payload)
    assert read_both_ways(payload) == (None, None)


@pytest.mark.parametrize("first", [[FIRST_FRAME], [None, b"d" * 32]])
def test_a_frame_is_any_item(first):
    """What an item means is not for this module to say."""
    payload = encode_rows(5, 3, [put([first] * 30)])
    found, read = places_of(payload)
    assert found.read(read, FIRST, 29)[1] == first
