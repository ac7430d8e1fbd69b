"""Pages and positions: what is packed comes back, anything else is refused."""

import contextlib
from itertools import accumulate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async.format.tables import (
    CONTENT_ROW,
    Table,
    decode_page,
    decode_positions,
    decode_projection_pages,
    encode_page,
    encode_positions,
)
from tests.support.hostile import with_wrong_fields
from tests.support.plans import examples

NUMBERS = st.integers(1, 2**56 - 1)
OFFSETS = st.integers(0, 2**62)


def ascending(values):
    return tuple(accumulate(values))


@given(NUMBERS | st.text(), OFFSETS, st.lists(st.integers(1, 2**40), min_size=1, max_size=70))
@example(1, 0, [1536])
@examples(2)
def test_positions_of_a_session_or_a_projection_come_back(number, previous, distances):
    offsets = list(ascending(distances))
    assert decode_positions(encode_positions(number, previous, offsets)) == (
        number,
        previous,
        offsets,
    )


@given(st.lists(st.tuples(st.binary(min_size=32, max_size=32), NUMBERS), max_size=9), OFFSETS)
def test_a_page_of_contents_comes_back(rows, previous):
    packed = b"".join(CONTENT_ROW.pack(*row) for row in rows)
    found = decode_page(encode_page(Table.CONTENTS, previous, packed))
    assert found == (Table.CONTENTS, previous, packed)
    assert list(CONTENT_ROW.iter_unpack(found[2])) == rows


@pytest.mark.parametrize(
    ("payload", "decode"),
    [
        (encode_positions(3, 1600, [1700, 1800]), decode_positions),
        (encode_positions("memory", 1600, [1700, 1800]), decode_positions),
        (encode_page(Table.MARKS, 1600, bytes(32)), decode_page),
        (encode_page(Table.CONTENTS, 0, bytes(40)), decode_page),
    ],
    ids=["positions", "of a projection", "marks", "contents"],
)
def test_a_wrong_field_is_a_value_error_or_is_read(payload, decode):
    decode(payload)
    for changed in with_wrong_fields(payload):
        with contextlib.suppress(ValueError):
            decode(changed)


# What later releases may add.


def test_rows_of_a_table_that_is_not_known_are_passed_over():
    for rows in (b"odd", [1, "x"], {}, None):
        assert decode_page(encode_page(9, 1600, rows)) == (9, 1600, rows)


@given(st.binary(max_size=60))
@examples(2)
def test_any_bytes_decode_or_are_a_value_error(data):
    for decode in (decode_page, decode_positions, decode_projection_pages):
        with contextlib.suppress(ValueError):
            decode(data)
