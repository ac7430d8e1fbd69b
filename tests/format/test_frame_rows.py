"""Events of the memory to bytes and back; rows that no writer wrote are a ValueError."""

import contextlib
from uuid import UUID

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    Action,
    ActionKind,
    ActionRecorded,
    Content,
    Event,
    MemvidAsyncError,
    Reply,
    Retrieval,
    SessionStarted,
)
from memvid_async.config import DEFAULT_RECORDING
from memvid_async.core.memory_state import MemoryState, fold_memory
from memvid_async.events.content import StoredContent, content_digest
from memvid_async.events.digests import frame_digest
from memvid_async.events.event import make_details
from memvid_async.events.frames import (
    FRAME_EVENTS,
    ForkPoint,
    FrameDeleted,
    FrameErased,
    FramePut,
    FrameUpdated,
    MemoryConfigured,
)
from memvid_async.events.frozen_dict import FrozenDict
from memvid_async.file.log_file import UNREAD
from memvid_async.format.codec import decode_events, encode_events
from memvid_async.format.frame_rows import FRAME_KINDS, erased_row, frame_row
from memvid_async.format.rows import PACKED_ROWS, decode_row, decode_rows, encode_rows
from tests.support.hostile import ODDITIES
from tests.support.plans import CONTENTS, COUNTS, METADATA, TEXTS, examples

TIME, ID = 1_700_000_000_000_000_000, UUID(int=77)
DIGEST = bytes(range(32))
LARGE = Content(None, StoredContent(content_digest("far"), 3, "far", 3))
PARTS = Content(None, StoredContent(DIGEST, 2**40, "far", 3, (3, 3, 3)))
NAN = bytes.fromhex("0000c07f")
KINDS = sorted(FRAME_KINDS)


def contents(sequence):
    if sequence != 3:
        raise ValueError("no such content")
    return LARGE


def decoded(payload, find=contents):
    return decode_events(payload, 9, lambda _: None, find)


def event(payload):
    return Event(9, TIME, None, payload)


IDS = st.integers(1, 2**63 - 1)
BODIES = CONTENTS.map(Content) | st.sampled_from([LARGE, PARTS])
VECTORS = st.none() | st.binary(min_size=1, max_size=8).map(lambda b: b * 4)
FIELDS = {
    "content": BODIES,
    "title": st.none() | TEXTS,
    "uri": st.none() | TEXTS,
    "media_type": st.none() | TEXTS,
    "tags": st.lists(TEXTS, max_size=3).map(tuple),
    "metadata": METADATA.map(lambda value: FrozenDict(value or {})),
    "embedding": VECTORS,
    "embedding_model": st.none() | TEXTS,
}
PUTS = st.builds(FramePut, IDS, branch=COUNTS, **FIELDS)
CHANGES = st.sets(st.sampled_from(list(FIELDS))).flatmap(
    lambda names: st.fixed_dictionaries({n: f for n, f in FIELDS.items() if n in names})
)
UPDATES = st.builds(FrameUpdated, IDS, CHANGES.map(FrozenDict), COUNTS)
OTHERS = st.one_of(
    st.builds(FrameDeleted, IDS, COUNTS),
    st.builds(FrameErased, IDS, st.booleans(), st.just(DIGEST), COUNTS),
    st.builds(MemoryConfigured, TEXTS, st.none() | TEXTS, COUNTS),
)


@given(st.one_of(PUTS, UPDATES, OTHERS))
@examples(6)
def test_every_event_of_the_memory_comes_back(payload):
    (back,) = decoded(encode_events([event(payload)]))
    assert back == event(payload)
    given_values = getattr(payload, "changes", None)
    if isinstance(payload, FramePut):
        given_values = {"content": payload.content}
    if given_values and "content" in given_values:
        gave = given_values["content"]
        changes = getattr(back.payload, "changes", None)
        got = back.payload.content if changes is None else changes["content"]
        assert (type(got.data), got.stored) == (type(gave.data), gave.stored)


@given(st.one_of(PUTS, UPDATES, OTHERS))
@examples(2)
def test_a_fold_needs_nothing_that_a_row_refers_to(payload):
    """The hash of a memory is the same, whether the contents were looked up or not."""
    data = encode_events([event(payload)])
    (read,), (unread,) = decoded(data), decoded(data, lambda _: UNREAD)
    assert frame_digest(read.payload) == frame_digest(unread.payload) == frame_digest(payload)
    assert fold_memory(MemoryState(), read) == fold_memory(MemoryState(), unread)


@given(st.one_of(PUTS, UPDATES))
@examples(2)
def test_what_is_left_of_an_erased_frame_folds_to_the_same_memory(payload):
    row = cbor2.loads(cbor2.dumps(frame_row(payload)))
    left = erased_row(row, contents)
    (erased,) = decoded(cbor2.dumps([TIME, 0, left]))
    assert isinstance(erased.payload, FrameErased)
    before = fold_memory(MemoryState(), event(payload))
    after = fold_memory(MemoryState(), erased)
    assert after == before
    if payload.content.size > 3 if isinstance(payload, FramePut) else False:
        raw = payload.content.data
        raw = raw.encode() if isinstance(raw, str) else raw
        assert raw is None or raw not in cbor2.dumps(left)


RETRIEVALS = st.builds(
    Retrieval,
    TEXTS,
    COUNTS,
    COUNTS,
    st.lists(st.floats(-1e6, 1e6), max_size=3).map(tuple),
    st.lists(COUNTS, max_size=3).map(tuple),
    METADATA.map(lambda value: value or {}),
    VECTORS,
    st.none() | TEXTS,
)
COUNTED = st.none() | COUNTS
COSTS = st.none() | COUNTS | st.floats(0, allow_infinity=False)
REPLIES = st.builds(
    Reply, st.lists(COUNTS, max_size=3).map(tuple), COUNTED, COUNTED, COUNTED, COSTS
)


@given(RETRIEVALS, st.none() | REPLIES, st.none() | TEXTS, st.none() | TEXTS)
@examples(2)
def test_what_a_search_recorded_comes_back(retrieval, reply, provider, model):
    details = make_details(ActionKind.ASK, (provider, model), (1,), 0)
    action = Action(
        0, 9, TIME, ActionKind.ASK, details, Content("q"), None, (1,), 1,
        retrieval=retrieval, reply=reply,
    )  # fmt: skip
    given_event = Event(9, TIME, ID, ActionRecorded(action), 5)
    assert decode_events(encode_events([given_event]), 9, lambda _: ID, contents) == [given_event]


def test_a_fork_comes_back():
    fork = ForkPoint(3, ID, 7, 2, 1, 0, 5, 4, DIGEST)
    payload = SessionStarted("s", False, DEFAULT_RECORDING, {}, fork)
    started = Event(9, TIME, ID, payload, 9)
    assert decode_events(encode_events([started]), 9, lambda _: None, contents) == [started]


# Rows that no writer wrote.

PUT = [20, 1, 0, 0, "text", "t", "u", "text/plain", ["a"], b"\xa0", b"\0" * 8, "m"]
UPDATED = [21, 1, 0, 255, *PUT[4:]]
ROWS = [
    PUT,
    [20, 1, 0, 0, [DIGEST, 5, 3]],
    UPDATED,
    [21, 1, 0, 1, [DIGEST, 5, 3, 3]],
    [22, 1, 0],
    [23, 1, True, 0, DIGEST],
    [24, "english", "m", 2],
]
WRONG = [
    None, True, -1, 1.5, "text", b"bytes", b"12345", [], [None], [-1], [b"", 1, 2], [DIGEST, -1, 3],
    [DIGEST, 1, 4], [DIGEST, 1, 3, None], [1, 1, 3], {}, {"a": 1}, 2**63, 2**70, [[]], 0, 3, NAN,
    b"\x81\x01", b"\xa1\x01\xf6", b"\xff", ["a", 1],
]  # fmt: skip


def test_the_rows_are_of_every_kind():
    assert sorted({row[0] for row in ROWS}) == KINDS
    for row in ROWS:
        (back,) = decoded(cbor2.dumps([TIME, 0, row]))
        assert isinstance(back.payload, FRAME_EVENTS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_wrong_field_is_a_value_error_or_a_value_that_encodes_again(row):
    for at in range(1, len(row)):
        for wrong in WRONG:
            for changed in ([*row[:at], wrong, *row[at + 1 :]], [*row[:at], wrong], row[:at]):
                try:
                    (back,) = decoded(cbor2.dumps([TIME, 0, changed]))
                except (ValueError, MemvidAsyncError):
                    continue
                check(back.payload)
                (again,) = decoded(encode_events([back]))
                assert again == back
                fold_memory(MemoryState(), back)


def check(payload):
    values = {n: getattr(payload, n, None) for n in ("title", "uri", "media_type", "analyser")}
    values |= dict(getattr(payload, "changes", {}))
    for name, value in values.items():
        if name in ("title", "uri", "media_type", "analyser", "embedding_model"):
            assert value is None or isinstance(value, str)
    frame_id = getattr(payload, "frame_id", 1)
    assert type(frame_id) is int
    assert 0 < frame_id < 2**63


@pytest.mark.parametrize("odd", ODDITIES)
def test_metadata_that_could_not_have_been_put_is_refused(odd):
    for metadata in (b"\xa1\x61a" + odd, b"\xa1\x61a\x81" + odd):
        row = [*PUT[:9], metadata]
        with pytest.raises(ValueError, match=r"metadata|fields|CBOR"):
            decoded(cbor2.dumps([TIME, 0, row]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_field_that_a_newer_release_adds_is_not_looked_at(row):
    full = {20: 12, 21: 12, 22: 3, 23: 5, 24: 4}[row[0]]
    later = [*row, *[None] * (full - len(row)), "new", 1]
    assert decoded(cbor2.dumps([TIME, 0, later])) == decoded(cbor2.dumps([TIME, 0, row]))


def test_what_a_search_recorded_may_have_newer_fields():
    search = ["lexical", 3, 8, [1.0], [2], None, None, None]
    ask = [13, 0, "q", None, 1, [1], None, "p", "m", None, None, None]
    now = cbor2.dumps([TIME, 5, *ask, search, [[1], None, 2]])
    whole = cbor2.dumps([TIME, 5, *ask, search, [[1], None, 2, 1, 0.5]])
    later = cbor2.dumps([TIME, 5, *ask, [*search, "new"], [[1], None, 2, 1, 0.5, "new"]])
    plain, counted, newer = (
        decode_events(data, 9, lambda _: ID, contents) for data in (now, whole, later)
    )
    assert counted == newer
    assert plain[0].payload.action.reply == Reply((1,), None, 2)
    assert newer[0].payload.action.reply == Reply((1,), None, 2, 1, 0.5)


@pytest.mark.parametrize(
    "search",
    [
        [], 5, "x", [1] * 8, ["m", -1, 8, [], [], None, None, None],
        ["m", 1, 8, [float("nan")], [], None, None, None], ["m", 1, 8, ["1"], [], None, None, None],
        ["m", 1, 8, 5, [], None, None, None], ["m", 1, 8, [], [None], None, None, None],
        ["m", 1, 8, [], 3, None, None, None], ["m", 1, 8, [], [], b"\x01", None, None],
        ["m", 1, 8, [], [], None, "text", None], ["m", 1, 8, [], [], None, None, 5],
        ["m", True, 8, [], [], None, None, None], {"a": 1},
    ],
    ids=repr,
)  # fmt: skip
def test_a_search_that_nobody_recorded_is_a_value_error(search):
    ask = [13, 0, "q", None, 1, [1], None, "p", "m", None, None, None, search]
    with pytest.raises(ValueError, match=r"fields|CBOR|metadata"):
        decode_events(cbor2.dumps([TIME, 5, *ask]), 9, lambda _: ID, contents)


@pytest.mark.parametrize(
    "reply",
    [
        5, [], [1], [5, None, None], [["x"], None, None], [[1], -1, None], [[1], 1.0, None],
        [[1], 1, 1, -1], [[1], 1, 1, "x"], [[1], 1, 1, 1, -0.5], [[1], 1, 1, 1, float("nan")],
        [[1], 1, 1, 1, float("inf")], [[1], 1, 1, 1, True], [[1], 1, 1, 1, "free"],
    ],
    ids=repr,
)  # fmt: skip
def test_a_reply_that_nobody_recorded_is_a_value_error(reply):
    ask = [13, 0, "q", None, 1, [1], None, "p", "m", None, None, None, None, reply]
    with pytest.raises(ValueError, match="fields"):
        decode_events(cbor2.dumps([TIME, 5, *ask]), 9, lambda _: ID, contents)


@given(st.sampled_from(KINDS), st.binary(max_size=50))
@examples(4)
def test_any_bytes_behind_a_kind_decode_or_are_a_value_error(kind, data):
    for head in (b"\x84\x01\x00", b"\x8f\x01\x00", b"\x83\x01\x00\x84", b"\x83\x01\x00\x8c"):
        with contextlib.suppress(ValueError):
            decoded(head + bytes([kind]) + data)


# Many events in one segment: each row travels as bytes.


def many(count):
    return [Event(9 + n, TIME, None, FramePut(n + 1, Content(f"text {n}"))) for n in range(count)]


@pytest.mark.parametrize("count", [1, 2, PACKED_ROWS, PACKED_ROWS + 1, 3000])
def test_any_number_of_events_comes_back_together_and_one_by_one(count):
    events = many(count)
    data = encode_events(events)
    assert decoded(data) == events
    rows = decode_rows(data)[2]
    for place in {0, count // 2, count - 1}:
        assert decode_row(data, place) == rows[place]
    with pytest.raises(IndexError):
        decode_row(data, count)
    assert encode_rows(TIME, 0, rows) == data


@pytest.mark.parametrize(
    "rows",
    [
        [b"", b""],
        [b"\x80", b"\x80"],
        [cbor2.dumps(PUT), PUT],
        [cbor2.dumps(PUT), 5],
        [cbor2.dumps(PUT), cbor2.dumps(PUT)[:-1]],
        [cbor2.dumps(PUT), cbor2.dumps(PUT) + b"\x00"],
        [cbor2.dumps(PUT), cbor2.dumps({"a": 1})],
        [cbor2.dumps([b"\x01"]), cbor2.dumps(PUT)],
        [cbor2.dumps(cbor2.dumps(PUT)), cbor2.dumps(PUT)],
        [b"\xc1" + cbor2.dumps(PUT), cbor2.dumps(PUT)],
    ],
    ids=lambda rows: repr(rows)[:40],
)
def test_packed_rows_that_no_writer_wrote_are_a_value_error(rows):
    data = cbor2.dumps([TIME, 0, *rows])
    with pytest.raises(ValueError, match=r"segment|CBOR|tag"):
        decoded(data)
    for place in range(len(rows)):
        with contextlib.suppress(ValueError):
            decode_row(data, place)


def test_packed_rows_hold_no_more_items_than_others(monkeypatch):
    monkeypatch.setattr("memvid_async.format.rows.MAX_EVENT_ITEMS", 200)
    data = encode_rows(TIME, 0, [[22, 1, 0, *[None] * 10]] * 30)
    with pytest.raises(ValueError, match="more than 200 items"):
        decoded(data)
    cut_off = cbor2.dumps([TIME, 0, b"\x98\xff" + b"\x00" * 100, b"\x9a\x00\x00" + b"x" * 200])
    with pytest.raises(ValueError, match=r"CBOR|items"):
        decoded(cut_off)


@examples(200)
@given(st.integers(1, 2**63 - 1), st.integers(0, 2**63 - 1), TEXTS)
def test_the_digest_of_a_text_is_that_of_its_cbor(frame_id, branch, text):
    fields = [None, None, None, [], None, None, None]
    whole = ["FramePut", frame_id, branch, content_digest(text), *fields]
    put = FramePut(frame_id, Content(text), branch=branch)
    assert frame_digest(put) == content_digest(cbor2.dumps(whole))
