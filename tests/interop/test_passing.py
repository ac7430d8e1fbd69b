"""What two runs of the same test have otherwise is left out of the comparison, and nothing else."""

import uuid
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_memvid_async.passing import leave_out, leave_out_of

PASSING = {
    "2026-11-28": "<date>",
    "2026-11-28 20:14": "<date>",
    "2026-11-28T20:14:59.123456+00:00": "<date>",
    "2026-11-28T20:14:59Z": "<date>",
    "Sat, 28 Nov 2026 20:14:59 GMT": "<date>",
    "Sat Nov 28 20:14:59 2026": "<date>",
    "6f9619ff-8b86-d011-b42d-00c04fc964ff": "<uuid>",
    "req_011CQxyz89abcdefgh": "<id>",
    "chatcmpl-9xYz12AbCdEf": "<id>",
    "call_1a2B3c4D5e": "<id>",
    "toolu_01A09q90qw90lq917835lq9": "<id>",
    "4bf92f3577b34da6a3ce929d0e0e4736": "<hex>",
    "/tmp/pytest-of-ada/pytest-12/test_x0/file.txt": "<folder>/test_x0/file.txt",
    "/tmp/tmpab12cd34/file.txt": "<folder>/file.txt",
}
# What looks like them, and is what the agent means.
KEPT = [
    "Oslo, 2026",
    "chapter 3-4-5",
    "12345678901234567890123456789012",
    "call_weather_for_city",
    "msg_count",
    "run_tests",
    "20:14",
    "deadbeef",
    "step-by-step guide",
    "a" * 40,
    "/tmp/notes.txt",
]


@pytest.mark.parametrize("text", PASSING)
def test_what_passes_is_left_out(text):
    assert leave_out(text) == PASSING[text]
    assert leave_out(f"at ({text}), and") == f"at ({PASSING[text]}), and"


@pytest.mark.parametrize("text", KEPT)
def test_everything_else_is_kept(text):
    assert leave_out(text) == text


@given(
    first=st.datetimes(min_value=datetime(1990, 1, 1)),  # noqa: DTZ001 - hypothesis wants it naive
    second=st.datetimes(min_value=datetime(1990, 1, 1)),  # noqa: DTZ001 - the same
    an_id=st.uuids(),
)
def test_any_two_moments_are_alike(first, second, an_id):
    for one in (str, datetime.isoformat, lambda d: format_datetime(d.replace(tzinfo=UTC))):
        assert leave_out(one(first)) == leave_out(one(second)) == "<date>"
    assert leave_out(f"id={an_id}") == leave_out(f"id={uuid.UUID(int=0)}") == "id=<uuid>"


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=20) | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
)


@given(value=VALUES)
def test_it_reaches_every_text_of_a_value(value):
    def wrap(text):
        return {"a": [value, {"b": text, text: 1}, (text, 3)]}

    assert leave_out_of(wrap("2026-11-28")) == leave_out_of(wrap("2025-01-01"))
    assert leave_out_of(leave_out_of(value)) == leave_out_of(value)


def test_a_deep_value_is_no_trouble():
    deep = "2026-11-28"
    for _ in range(100_000):
        deep = [deep]
    found = leave_out_of(deep)
    while isinstance(found, list):
        (found,) = found
    assert found == "<date>"
