"""How a value begins, as JSON: whatever it is, and wherever its bytes end."""

import json

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.events.value_preview import value_preview
from memvid_async.events.values import encode_value
from memvid_async.view.documents import plain
from tests.support.plans import TEXTS, VALUES, examples

LONG = st.sampled_from(["é" * 700, b"\0" * 2000, {"a\x7f\n": "\u202e\N{GRINNING FACE}" * 90}])


def as_json(value):
    written = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    unsafe = (*range(32), *range(127, 160))
    return written[:512].translate(dict.fromkeys(unsafe, "\ufffd"))


@examples(100)
@given(VALUES | LONG | st.dictionaries(TEXTS, VALUES | LONG, max_size=3), st.integers(0, 2048))
def test_it_is_the_beginning_of_the_json_of_the_value(value, end):
    data = encode_value(value, "it", "value_bytes", 2**20)
    # The keys of an encoded map are in an order of their own.
    whole = as_json(cbor2.loads(data))
    assert value_preview(data) == whole
    # Where it ends before the first key of another type, it cannot tell.
    if "$pairs" not in whole:
        assert whole.startswith(value_preview(data[:end]))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x81" * 3000, b"\xff", b"\xf8\x20", b"\xc4\x01", b"\x5f", b"\xbb" + b"\xff" * 9],
    ids=["empty", "nested", "break", "simple", "tag", "indefinite", "huge"],
)
def test_bytes_that_are_no_value_are_shown_as_far_as_they_are_one(data):
    assert len(value_preview(data)) <= 512


async def test_arguments_are_previewed_as_json_however_they_are_kept(make_store, tmp_path):
    async def look(**_: object) -> str:
        return "seen"

    small, large = {"city": "Oslo", "at": b"\0"}, {"city": "Oslo", "text": "word " * 900}
    store = await make_store()
    async with store.session() as session:
        for arguments in (small, large):
            await session.call_tool("look", arguments, look)
        async with session.step("plan", input=small):
            live = [one.input for one in (await store.get_session(session.session_id)).in_flight]
    kept = (await store.get_session(session.session_id)).actions
    await store.aclose()
    store = await make_store()
    read = (await store.get_session(session.session_id)).actions
    told = ['{"at": {"$base64": "AA=="}, "city": "Oslo"}', '{"city": "Oslo", "text": "word wo']
    for actions in (kept, read):
        first, second, third = (action.input.preview for action in actions)
        assert (first, second[: len(told[1])], third) == (*told, told[0])
    assert [one.preview for one in live] == [told[0]]
    assert await store.read_arguments(read[1]) == large
