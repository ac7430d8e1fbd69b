"""What may be recorded: everything accepted comes back equal, everything else is named."""

import enum
import math
import random
import struct
import tracemalloc
from collections import OrderedDict, defaultdict
from unittest.mock import patch

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async import InvalidValueError, LimitExceededError, Limits, check_recordable
from memvid_async.events import content, values
from memvid_async.events.content import content_digest
from memvid_async.events.values import (
    MAX_DEPTH,
    MAX_ITEMS,
    PREVIEW_CHARS,
    check_text,
    check_value,
    decode_untagged,
    decode_value,
    encode_value,
    encoded,
    preview,
)
from tests.support.hostile import BOMBS, ODDITIES
from tests.support.naive import canonical
from tests.support.plans import KEYS, VALUES, examples

MIB = 1024 * 1024


def encode(value):
    return encode_value(value, "it", "value_bytes", MIB)


def nested(depth, inner=0):
    for _ in range(depth):
        inner = [inner]
    return inner


class Words(str):
    __slots__ = ()


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    A = "a"


# Ways in.


@given(VALUES)
@example(2**64)
@example([-(2**64) - 1, 2**64 - 1, -(2**64), 1 << 100_000])
def test_what_is_accepted_comes_back_equal_and_of_the_same_types(value):
    back = decode_value(encode(value))
    assert [back] == [decode_value(encode(value))]
    assert with_names(back) == with_names(value)
    assert canonical(back) == encode(value)


def with_names(value):
    """The value with names for its NaNs, which equal nothing."""
    if isinstance(value, dict):
        return {key: with_names(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_names(item) for item in value]
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@given(st.binary(min_size=8, max_size=8))
@example(bytes.fromhex("7ff8000000000001"))
@example(bytes.fromhex("fff8000000000000"))
@example(bytes.fromhex("7ff0000000000000"))
@example(bytes.fromhex("8000000000000000"))
def test_every_float_comes_back_and_every_nan_is_the_same(data):
    (value,) = struct.unpack(">d", data)
    if math.isnan(value):
        assert encode({"a": [value]}) == encode({"a": [math.nan]}) == b"\xa1aa\x81\xf9\x7e\x00"
        assert decode_value(encode({"a": [value]})) == decode_value(encode({"a": [-value]}))
        assert len({decode_value(encode(value)), decode_value(encode(-value))}) == 1
    else:
        back = decode_value(encode(value))
        assert (back, math.copysign(1, back)) == (value, math.copysign(1, value))


@given(st.integers(), st.sampled_from((2, 3)), st.integers(0, 3))
@example(2**64 - 1, 2, 0)
@example(2**64, 2, 0)
@example(2**64, 2, 1)
def test_an_integer_has_one_encoding(value, tag, zeros):
    number = abs(value)
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    given_bytes = cbor2.dumps(cbor2.CBORTag(tag, data))
    meant = number if tag == 2 else -1 - number
    if number < 2**64 or zeros:
        with pytest.raises(ValueError, match="CBOR"):
            decode_value(given_bytes)
    else:
        assert decode_value(given_bytes) == meant
        assert encode(meant) == given_bytes


def test_rows_of_our_own_have_no_integers_of_any_size():
    with pytest.raises(ValueError, match="CBOR"):
        decode_untagged(encode([2**64]))
    assert decode_untagged(encode([2**64 - 1, -(2**64)])) == [2**64 - 1, -(2**64)]


def test_an_integer_above_the_limit_is_named():
    with pytest.raises(LimitExceededError, match="value_bytes"):
        encode({"a": 1 << 8 * MIB})


@given(st.dictionaries(KEYS, VALUES, max_size=6), st.randoms())
def test_the_encoding_does_not_depend_on_the_order_of_keys(value, order: random.Random):
    items = list(value.items())
    order.shuffle(items)
    assert encode(dict(items)) == encode(value)


@pytest.mark.parametrize(
    "value",
    [Words("x"), Number.ONE, Word.A, OrderedDict(b=1, a=2), defaultdict(int, a=1), {Words("a"): 1}],
)
def test_subclasses_come_back_as_equal_plain_values(value):
    back = decode_value(encode(value))
    assert back == value
    assert type(back) in (str, int, dict)


@pytest.mark.parametrize(
    "value",
    [
        "\ud800",
        "ok\udfff",
        (1, 2),
        {1, 2},
        frozenset(),
        bytearray(b"x"),
        memoryview(b"x"),
        1j,
        object(),
        print,
        cbor2.CBORTag(1, 1),
        cbor2.undefined,
        cbor2.CBORSimpleValue(1),
        {True: 1},
        {1.5: 1},
        {None: 1},
        {(1,): 1},
        {"\ud800": 1},
        {2**64: 1},
    ],
)
@pytest.mark.parametrize(
    "place", [lambda v: v, lambda v: [v], lambda v: {"k": [v]}], ids=["bare", "list", "map"]
)
def test_what_would_not_come_back_is_refused_by_name(value, place):
    with pytest.raises(InvalidValueError, match=r"^(a key of )?it"):
        encode(place(value))


def test_the_message_names_the_place():
    with pytest.raises(InvalidValueError, match=r"it\['a'\]\[1\] has type set"):
        check_value({"a": [0, set()]}, "it")


def test_depth_is_bounded_and_the_deepest_comes_back():
    assert decode_value(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(InvalidValueError, match="nested"):
        encode(nested(MAX_DEPTH + 1))


def test_a_value_that_holds_itself_is_refused():
    ring: list = []
    ring.append(ring)
    loop: dict = {}
    loop["loop"] = loop
    for value in (ring, loop):
        with pytest.raises(InvalidValueError, match="nested"):
            encode(value)


def test_a_small_value_that_unfolds_to_a_large_one_is_refused_in_time():
    value: list = []
    for _ in range(MAX_DEPTH - 1):
        value = [value, value]
    with pytest.raises((InvalidValueError, LimitExceededError)):
        encode(value)


def test_items_are_bounded_and_the_most_come_back():
    most = [0] * (MAX_ITEMS - 1)
    assert decode_value(encode(most)) == most
    with pytest.raises(InvalidValueError, match="items"):
        encode([0] * MAX_ITEMS)
    with pytest.raises(InvalidValueError, match="items"):
        encode(dict.fromkeys(range(MAX_ITEMS // 2)))


def test_a_long_encoding_is_above_the_limit():
    with pytest.raises(LimitExceededError) as caught:
        encode_value("x" * 100, "it", "value_bytes", 100)
    assert (caught.value.limit, caught.value.value) == ("value_bytes", 102)
    assert encode_value("x" * 98, "it", "value_bytes", 100)


@pytest.mark.parametrize("value", ["", "é", "😀", "\0", "x" * 1000])
def test_text_is_given_back_as_it_is(value):
    assert check_text(value, "it") is value


@pytest.mark.parametrize("value", [b"x", 1, None, "\ud800", "é\udcff"])
def test_text_that_utf8_cannot_hold_is_refused(value):
    with pytest.raises(InvalidValueError, match="it"):
        check_text(value, "it")


# Ways out.


@given(st.binary(max_size=40))
@examples(4)
def test_whatever_bytes_are_accepted_give_a_value_that_comes_back_or_is_refused(data):
    try:
        value = decode_value(data)
        check_value(value, "it", MAX_DEPTH + 3)
    except ValueError:
        return
    # No NaN equals another, and each has one encoding of ours.
    assert canonical(decode_value(canonical(value))) == canonical(value)


@pytest.mark.parametrize("data", ODDITIES)
def test_what_decodes_and_could_not_have_been_recorded_is_refused_by_the_check(data):
    for value in (data, b"\x81" + data, b"\xa1\x61a" + data):
        with pytest.raises(ValueError, match=r"CBOR|it"):
            check_value(decode_value(value), "it")


@given(VALUES, st.data())
@examples(2)
def test_a_cut_or_lengthened_encoding_is_refused(value, data):
    encoded = canonical(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(ValueError, match="CBOR"):
        decode_value(encoded[:cut])
    with pytest.raises(ValueError, match="CBOR"):
        decode_value(encoded + canonical(data.draw(VALUES)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"\x9f\x00\xff",
        b"\xbf\xff",
        b"\x5f\x41\x00\xff",
        b"\x7f\xff",
        b"\xff",
        b"\xa2\x01\x02\x01\x03",
        b"\xa2\x01\x02\x18\x01\x03",
        b"\x62\xc3\x28",
        b"\x63\xed\xa0\x80",
        b"\x1c",
        b"\x81",
        b"\x44abc",
        *(
            cbor2.dumps(cbor2.CBORTag(tag, 0))
            for tag in (0, 1, 2, 3, 4, 28, 30, 35, 258, 55799, 2**40)
        ),
    ],
)
def test_other_cbor_is_refused(data):
    with pytest.raises(ValueError, match="CBOR"):
        decode_value(data)


def test_every_tag_is_refused():
    for tag in range(300):
        for inner in (0, "x", b"x", [], [1, 2], {}, None, 1.5):
            with pytest.raises(ValueError, match="CBOR"):
                decode_value(cbor2.dumps(cbor2.CBORTag(tag, inner)))


def test_nesting_is_refused_before_the_stack_is():
    for head in (b"\x81", b"\xa1\x00", b"\xd8\x7b"):
        with pytest.raises(ValueError, match="CBOR"):
            decode_value(head * 100_000 + b"\0")


@pytest.mark.parametrize("bomb", BOMBS, ids=range(len(BOMBS)))
def test_a_bomb_is_refused_without_the_memory_it_asks_for(bomb):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"CBOR|items"):
            decode_value(bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB + 3 * len(bomb)
    finally:
        tracemalloc.stop()


def test_the_memory_of_the_largest_accepted_value_is_bounded():
    data = b"\x9a" + struct.pack(">I", MAX_ITEMS - 1) + b"\xa0" * (MAX_ITEMS - 1)
    tracemalloc.start()
    try:
        assert len(decode_value(data)) == MAX_ITEMS - 1
        assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    finally:
        tracemalloc.stop()


# Previews.


@given(
    st.text(st.characters(exclude_categories=["Cs"])) | st.text("\r\n😀é\x00\x9ba", max_size=3000)
)
@example("\r\n" * 600)
@example("a" + "\r\n" * 600)
@example("😀" * 600)
@example("a" + "😀" * 511 + "\x85" * 9)
def test_a_preview_is_the_same_of_the_text_and_of_its_bytes(text):
    shown = preview(text)
    assert shown == preview(text.encode())
    assert len(shown) <= PREVIEW_CHARS
    assert all(c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) for c in shown)
    shortened = text.replace("\r\n", "\n")
    assert len(shown) == min(PREVIEW_CHARS, len(shortened))


@given(st.binary(max_size=3000))
def test_any_bytes_have_a_preview(data):
    assert len(preview(data)) <= PREVIEW_CHARS


# What is large goes piece by piece.


@given(st.binary(max_size=60) | VALUES.map(cbor2.dumps), st.binary(max_size=2))
def test_large_values_are_read_as_small_ones(data, more):
    def decoded():
        try:
            return canonical(decode_value(data + more))
        except ValueError:
            return None

    small = decoded()
    with patch.object(values, "LARGE", -1):
        assert decoded() == small


@given(st.text(max_size=20))
def test_the_utf_8_of_a_long_text_comes_in_pieces(text):
    with patch.object(values, "LARGE", 3), patch.object(content, "LARGE", 3):
        assert b"".join(encoded(text)) == text.encode()
        assert content_digest(text) == content_digest(text.encode())
        assert check_text(text, "it") == text


def test_a_lone_surrogate_in_a_long_text_is_named():
    with patch.object(values, "LARGE", 3), pytest.raises(InvalidValueError, match="at 7;"):
        check_text("äbcdefg\ud800h", "it")


@pytest.mark.parametrize(
    ("value", "limits", "problem"),
    [
        ({"a": [1, None, b"x"]}, None, None),
        ("x" * 100, None, None),
        ("x" * 98, Limits(value_bytes=100), None),
        ("x" * 99, Limits(value_bytes=100), "value_bytes"),
        ({"a": [1, (2,)]}, None, "tuple"),
        ({"a": {1.5: 1}}, Limits(), "float"),
    ],
)
def test_what_can_be_recorded_is_known_before(value, limits, problem):
    if problem is None:
        check_recordable(value, limits)
    else:
        with pytest.raises(InvalidValueError if limits is None else ValueError, match=problem):
            check_recordable(value, limits)


@given(
    st.dictionaries(
        st.text("abé", max_size=30),
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.binary(max_size=9),
        max_size=40,
    )
)
def test_a_flat_map_is_encoded_as_any_other(value):
    assert encode(value) == cbor2.dumps(value, canonical=True)
