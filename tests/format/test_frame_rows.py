"""Events of the memory to bytes and back; rows that no writer wrote are a ValueError."""

import contextlib
import hashlib
from uuid import UUID

import cbor2
import pytest
from attrs import evolve
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
from memvid_async.events.details import make_details
from memvid_async.events.digests import frame_digest, memory_digest
from memvid_async.events.embeddings import (
    EmbeddingModelSet,
    EmbeddingsMade,
    NewEmbedding,
    pack_embeddings,
)
from memvid_async.events.frames import (
    FRAME_EVENTS,
    ForkPoint,
    FrameDeleted,
    FrameErased,
    FramePut,
    FramesPut,
    FrameUpdated,
    MemoryConfigured,
)
from memvid_async.events.frozen_dict import FrozenDict
from memvid_async.format.codec import UNREAD, decode_events, encode_events
from memvid_async.format.frame_rows import (
    frame_row,
    read_embeddings,
    without_embeddings,
    without_frames,
)
from memvid_async.format.kinds import FRAME_KINDS
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
ERASED = st.builds(FrameErased, st.just(0), st.just(DIGEST))
KEPT = st.one_of(CONTENTS, CONTENTS, st.builds(FramePut, st.just(0), **FIELDS), ERASED)


def numbered(frame_id, kept, branch):
    """A put of these frames, each with the id that it must have."""
    whole = [
        one if isinstance(one, (str, bytes)) else evolve(one, frame_id=at, branch=branch)
        for at, one in enumerate(kept, frame_id)
    ]
    return FramesPut(frame_id, tuple(whole), branch)


PUTS = st.builds(
    numbered, st.integers(1, 2**63 - 20), st.lists(KEPT, min_size=1, max_size=20), COUNTS
)
CHANGES = st.sets(st.sampled_from(list(FIELDS))).flatmap(
    lambda names: st.fixed_dictionaries({n: f for n, f in FIELDS.items() if n in names})
)
UPDATES = st.builds(FrameUpdated, IDS, CHANGES.map(FrozenDict), COUNTS)
MADE = st.builds(
    NewEmbedding, IDS, IDS, st.integers(0, 2**32 - 1), st.binary(min_size=8, max_size=8)
)
OTHERS = st.one_of(
    st.builds(FrameDeleted, IDS, COUNTS),
    st.builds(FrameErased, IDS, st.just(DIGEST), COUNTS),
    st.builds(MemoryConfigured, TEXTS, st.none() | TEXTS, COUNTS),
    st.builds(EmbeddingModelSet, TEXTS, COUNTS, COUNTS, st.just(DIGEST)),
    st.builds(pack_embeddings, COUNTS, st.lists(MADE, max_size=4)),
)


def contents_of(payload):
    if isinstance(payload, FramesPut):
        return [frame.content for frame in payload if isinstance(frame, FramePut)]
    changes = getattr(payload, "changes", {})
    return [changes["content"]] if "content" in changes else []


@given(st.one_of(PUTS, UPDATES, OTHERS))
@examples(6)
def test_every_event_of_the_memory_comes_back(payload):
    (back,) = decoded(encode_events([event(payload)]))
    assert back == event(payload)
    for got, gave in zip(contents_of(back.payload), contents_of(payload), strict=True):
        assert (type(got.data), got.stored) == (type(gave.data), gave.stored)


@given(st.one_of(PUTS, UPDATES, OTHERS).filter(lambda one: not isinstance(one, EmbeddingsMade)))
@examples(2)
def test_a_fold_needs_nothing_that_a_row_refers_to(payload):
    """The hash of a memory is the same, whether the contents were looked up or not."""
    data = encode_events([event(payload)])
    (read,), (unread,) = decoded(data), decoded(data, lambda _: UNREAD)
    digests = [memory_digest(one) for one in (read.payload, unread.payload, payload)]
    assert digests == digests[:1] * 3
    assert fold_memory(MemoryState(), read) == fold_memory(MemoryState(), unread)


@given(st.one_of(PUTS, UPDATES), st.sets(st.integers(0, 19)))
@examples(2)
def test_what_is_left_of_erased_frames_folds_to_the_same_memory(payload, places):
    row = cbor2.loads(cbor2.dumps(frame_row(payload)))
    gone = {payload.frame_id + place for place in places}
    left = without_frames(row, gone.__contains__, contents)
    (erased,) = decoded(cbor2.dumps([TIME, 0, left]))
    assert fold_memory(MemoryState(), erased) == fold_memory(MemoryState(), event(payload))
    if not isinstance(payload, FramesPut):
        assert isinstance(erased.payload, FrameErased if 0 in places else FrameUpdated)
        assert (left == row) == (0 not in places)
        return
    for place, (before, after) in enumerate(zip(payload, erased.payload, strict=True)):
        if place in places:
            assert isinstance(after, FrameErased)
            assert left[4 + place] == [None, frame_digest(payload.kept[place])]
        else:
            assert after == before
            assert left[4 + place] == row[4 + place]


RETRIEVALS = st.builds(
    Retrieval,
    TEXTS,
    COUNTS,
    COUNTS,
    st.lists(st.floats(-1e6, 1e6), max_size=3).map(tuple),
    st.lists(st.tuples(COUNTS, COUNTS), max_size=3).map(tuple),
    METADATA.map(lambda value: value or {}),
    VECTORS,
    st.none() | TEXTS,
)
COUNTED = st.none() | COUNTS
COSTS = st.none() | st.integers(0, 9_000_000) | st.floats(0, 9e6)
REPLIES = st.builds(
    Reply, st.lists(COUNTS, max_size=3).map(tuple), COUNTED, COUNTED, COUNTED, COSTS
)


@given(RETRIEVALS, st.none() | REPLIES, st.none() | TEXTS, st.none() | TEXTS)
@examples(2)
def test_what_a_search_recorded_comes_back(retrieval, reply, provider, model):
    details = make_details(ActionKind.ASK, (provider, model), (1,), 0)
    action = Action(
        0, 9, TIME, ActionKind.ASK, details, Content("q"), None, (1,), 1,
        retrieval=retrieval, reply=reply, session_id=ID,
    )  # fmt: skip
    given_event = Event(9, TIME, ID, ActionRecorded(action), 5)
    assert decode_events(encode_events([given_event]), 9, lambda _: ID, contents) == [given_event]


def test_a_fork_comes_back():
    fork = ForkPoint(3, ID, 7, 2, 1, 0, 5, 4, DIGEST)
    payload = SessionStarted("s", False, DEFAULT_RECORDING, {}, fork)
    started = Event(9, TIME, ID, payload, 9)
    assert decode_events(encode_events([started]), 9, lambda _: None, contents) == [started]


@given(st.lists(MADE, max_size=8), st.sets(st.integers(0, 7)))
@examples(0.5)
def test_what_compaction_leaves_of_embeddings(made, gone):
    gone = {made[at].frame_id for at in gone if at < len(made)}
    row = frame_row(pack_embeddings(3, made))
    left = without_embeddings(row, gone.__contains__)
    assert list(read_embeddings(left)) == [one for one in made if one.frame_id not in gone]


# Rows that no writer wrote.

FRAME = ["text", "t", "u", "text/plain", ["a"], b"\xa0", b"\0" * 8, "m"]
ROWS = [
    [20, 1, 0, None, FRAME],
    [20, 7, 0, None, "one", b"two", FRAME, [[DIGEST, 5, 3]], [None, DIGEST], "six"],
    [21, 1, 0, 255, *FRAME],
    [21, 1, 0, 1, [DIGEST, 5, 3, 3]],
    [22, 1, 0],
    [23, 1, 0, DIGEST],
    [24, "english", "m", 2],
    [25, 5, b"\1\0\0\0\0\0\0\0" * 2 + b"\3\0\0\0", b"\0\0\x80?" * 2],
    [25, 0, b"", b""],
    [26, "m", 2, 5, DIGEST],
]
WRONG = [
    None, True, -1, 1.5, "text", b"bytes", b"12345", [], [None], [-1], [b"", 1, 2], [DIGEST, -1, 3],
    [DIGEST, 1, 4], [DIGEST, 1, 3, None], [1, 1, 3], {}, {"a": 1}, 2**63, 2**70, [[]], 0, 3, NAN,
    b"\x81\x01", b"\xa1\x01\xf6", b"\xff", ["a", 1],
]  # fmt: skip


def test_the_rows_are_of_every_kind():
    assert {row[0] for row in ROWS} == FRAME_KINDS
    for row in ROWS:
        (back,) = decoded(cbor2.dumps([TIME, 0, row]))
        assert isinstance(back.payload, FRAME_EVENTS)


def changed(row):
    """The row with each field wrong in every way, left out, and the last one."""
    for at in range(1, len(row)):
        for wrong in WRONG:
            yield [*row[:at], wrong, *row[at + 1 :]]
            yield [*row[:at], wrong]
        yield row[:at]
    if row[0] == 20:
        for at in range(4, len(row)):
            if isinstance(row[at], list):
                for item in changed([None, *row[at]]):
                    yield [*row[:at], item[1:], *row[at + 1 :]]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_wrong_field_is_a_value_error_or_a_value_that_encodes_again(row):
    for wrong in changed(row):
        try:
            (back,) = decoded(cbor2.dumps([TIME, 0, wrong]))
        except (ValueError, MemvidAsyncError):
            continue
        for one in back.payload if isinstance(back.payload, FramesPut) else [back.payload]:
            check(one)
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
        row = [20, 1, 0, None, [*FRAME[:5], metadata]]
        with pytest.raises(ValueError, match=r"metadata|fields|CBOR"):
            decoded(cbor2.dumps([TIME, 0, row]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: str(row[0]))
def test_a_field_that_a_newer_release_adds_is_not_looked_at(row):
    full = {20: 0, 21: 12, 22: 3, 23: 4, 24: 4, 25: 4, 26: 5}[row[0]]
    later = [*row, *[None] * (full - len(row)), "new", 1]
    if row[0] == 20:
        # After a put's frames there can be no field: there is a place before them, and after the
        # fields of each.
        later = [*row[:3], ["new", 1], *row[4:]]
        if isinstance(row[4], list):
            later[4] = [*row[4], *[None] * (8 - len(row[4])), "new", 1]
    assert decoded(cbor2.dumps([TIME, 0, later])) == decoded(cbor2.dumps([TIME, 0, row]))


def test_what_a_search_recorded_may_have_newer_fields():
    search = ["lexical", 3, 8, [1.0], [2, 0], None, None, None]
    ask = [13, 0, "q", None, 1, [1], None, "p", "m", None, None, None]
    now = cbor2.dumps([TIME, 5, *ask, search, [[1], None, 2]])
    whole = cbor2.dumps([TIME, 5, *ask, search, [[1], None, 2, 1, 5 * 10**11]])
    later = cbor2.dumps(
        [TIME, 5, *ask, [*search, True, "new"], [[1], None, 2, 1, 5 * 10**11, None, "new"]]
    )
    plain, counted, newer = (
        decode_events(data, 9, lambda _: ID, contents) for data in (now, whole, later)
    )
    assert counted == newer
    paced = cbor2.dumps([TIME, 5, *ask, search, [[1, 2], None, None, None, None, [7, 300]]])
    assert decode_events(paced, 9, lambda _: ID, contents)[0].payload.action.reply == Reply(
        (1, 2), waits_ms=(7, 300)
    )
    assert plain[0].payload.action.reply == Reply((1,), None, 2)
    assert newer[0].payload.action.reply == Reply((1,), None, 2, 1, 0.5)


@pytest.mark.parametrize(
    "search",
    [
        [], 5, "x", [1] * 8, ["m", -1, 8, [], [], None, None, None],
        ["m", 1, 8, [float("nan")], [], None, None, None], ["m", 1, 8, ["1"], [], None, None, None],
        ["m", 1, 8, 5, [], None, None, None], ["m", 1, 8, [], [None], None, None, None],
        ["m", 1, 8, [], 3, None, None, None], ["m", 1, 8, [], [2], None, None, None],
        ["m", 1, 8, [], [[2, 0]], None, None, None], ["m", 1, 8, [], [], b"\x01", None, None],
        ["m", 1, 8, [], [], None, "text", None], ["m", 1, 8, [], [], None, None, 5],
        ["m", 1, 8, [], [], None, None, None, 1], ["m", 1, 8, [], [], None, None, None, None],
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
def test_any_bytes_after_a_kind_decode_or_are_a_value_error(kind, data):
    for head in (b"\x84\x01\x00", b"\x8f\x01\x00", b"\x83\x01\x00\x84", b"\x83\x01\x00\x8c"):
        with contextlib.suppress(ValueError):
            decoded(head + bytes([kind]) + data)


# Very many frames in one row.


@pytest.mark.parametrize("count", [1, 2, 16, 17, 300, 3000])
def test_any_number_of_frames_comes_back(count):
    put_them = FramesPut(9, tuple(f"text {n}" for n in range(count)))
    assert decoded(encode_events([event(put_them)])) == [event(put_them)]


def test_no_frame_has_an_id_beyond_what_a_table_holds():
    row = [20, 2**63 - 2, 0, None, "one", "two"]
    (last,) = decoded(cbor2.dumps([TIME, 0, row]))
    assert fold_memory(MemoryState(), last).last_frame == 2**63 - 1
    with pytest.raises(ValueError, match="too many"):
        decoded(cbor2.dumps([TIME, 0, [*row, "three"]]))


# Digests.


def blake(data, person=b""):
    return hashlib.blake2b(data, digest_size=32, person=person).digest()


@given(PUTS)
@examples(2)
def test_the_digest_of_a_put_is_made_of_those_of_its_frames(put_them):
    digests = b"".join(map(frame_digest, put_them.kept))
    whole = ["FramesPut", put_them.frame_id, put_them.branch, digests]
    assert memory_digest(put_them) == blake(cbor2.dumps(whole))


def test_the_digest_of_a_frame_is_its_contents_where_that_is_all():
    assert frame_digest("text") == content_digest("text")
    assert frame_digest(FramePut(3, LARGE, branch=7)) == LARGE.digest
    assert frame_digest(FramePut(3, Content(b"bytes"), metadata={}, tags=())) == blake(b"bytes")
    whole = [content_digest("text"), "t", None, None, ["a"], {"k": 1}, b"\0" * 4, "m"]
    full = FramePut(
        3, Content("text"), "t", tags=("a",), metadata={"k": 1}, embedding=bytes(4),
        embedding_model="m",
    )  # fmt: skip
    assert frame_digest(full) == blake(cbor2.dumps(whole), b"frame fields")
    assert frame_digest(full) != frame_digest(cbor2.dumps(whole))
