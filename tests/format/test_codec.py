"""Events to bytes and back: what a field may hold, and what is refused."""

import contextlib
from uuid import UUID

import cbor2
import pytest
from attrs import evolve as replace
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import (
    Action,
    ActionKind,
    ActionRecorded,
    Checkpoint,
    CheckpointCreated,
    CheckpointDetails,
    Content,
    ContentStored,
    Conversion,
    Erased,
    Event,
    MemvidAsyncError,
    MessageRun,
    RecordingConfig,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    StateSnapshot,
    StoredMessages,
    Unknown,
)
from memvid_async.events.calls import NO_CALL
from memvid_async.events.content import StoredContent, content_digest
from memvid_async.events.details import make_details
from memvid_async.events.values import preview
from memvid_async.format.codec import decode_events, encode_events, read_stored
from memvid_async.format.kinds import ACTION_KINDS
from memvid_async.format.rows import decode_rows
from memvid_async.format.stubs import MOST_EVENTS, decode_stubs, encode_stubs, stub_events
from tests.support.hostile import ODDITIES
from tests.support.plans import (
    CALLS,
    CONFIGS,
    CONTENTS,
    COUNTS,
    ERRORS,
    FIELDS,
    METADATA,
    TEXTS,
    examples,
)

SESSION, ID, TIME = 5, UUID(int=77), 1_700_000_000_000_000_000
FAR = Content(None, StoredContent(content_digest("far"), 3, "far", 3))


def ids(number):
    return ID if number == SESSION else None


def contents(sequence):
    if sequence != 3:
        raise ValueError("no such content")
    return FAR


def event(payload, sequence=9, session=SESSION):
    return Event(sequence, TIME, ID if session else None, payload, session)


def round_trip(*events):
    return decode_events(encode_events(events), events[0].sequence, ids, contents)


@st.composite
def actions(draw):
    kind = draw(st.sampled_from(list(ACTION_KINDS.values())))
    frames = tuple(draw(st.lists(COUNTS, max_size=3)))
    detail = ()
    if kind is ActionKind.ASK:
        detail = (draw(TEXTS), draw(TEXTS))
    elif kind is ActionKind.FIND:
        detail = (draw(TEXTS), draw(COUNTS))
    elif kind in (ActionKind.TOOL_CALL, ActionKind.STEP, ActionKind.ONCE):
        detail = (draw(TEXTS),)
    elif kind is not ActionKind.PUT_MANY:
        frames = (draw(COUNTS),)
    messages = None
    if kind is ActionKind.ASK and draw(st.booleans()):
        runs = st.builds(MessageRun, st.integers(0, 5), st.integers(0, 9), st.integers(1, 9))
        parts = tuple(draw(st.lists(st.binary(max_size=40) | runs, max_size=4)))
        hash_count = StoredMessages(b"", parts).hash_count
        messages = StoredMessages(bytes(16 * hash_count), parts)
    content = st.none() | CONTENTS.map(Content) | st.just(FAR)
    action = Action(
        draw(st.integers(0, 2**31 - 1)),
        9,
        TIME,
        kind,
        make_details(kind, detail, frames, messages.count if messages else 0),
        draw(content),
        draw(content),
        frames,
        draw(COUNTS | st.floats(0, 1e18)),
        draw(ERRORS),
        draw(ERRORS),
        draw(METADATA) or {},
        conversion=Conversion(draw(st.just(0) | st.integers(0, 127))),
        session_id=ID,
        call=draw(st.just(NO_CALL) | CALLS),
    )
    return ActionRecorded(action, messages)


@given(actions())
@examples(4)
def test_every_action_comes_back(payload):
    (back,) = round_trip(event(payload))
    assert back == event(payload)
    action, given_action = back.payload.action, payload.action
    for got, gave in ((action.input, given_action.input), (action.output, given_action.output)):
        assert (got is None) == (gave is None)
        if got is not None:
            assert (type(got.data), got.stored) == (type(gave.data), gave.stored)
    assert repr(action.duration_ms) == repr(given_action.duration_ms)


@given(ERRORS, st.booleans(), CONFIGS, METADATA)
def test_a_start_comes_back(name, ambient, config, metadata):
    payload = SessionStarted(name, ambient, config, metadata or {})
    started = Event(SESSION, TIME, ID, payload, SESSION)
    assert decode_events(encode_events([started]), SESSION, lambda _: None, contents) == [started]


@given(COUNTS, COUNTS, COUNTS, COUNTS, ERRORS)
def test_a_checkpoint_comes_back(index, checkpoint_id, frames, generation, task):
    snapshot = StateSnapshot(frames, bytes(range(32)), 8, generation)
    details = CheckpointDetails(checkpoint_id)
    kind = ActionKind.CHECKPOINT
    action = Action(index, 9, TIME, kind, details, None, None, (), 0, task, session_id=ID)
    created = event(CheckpointCreated(action, Checkpoint(checkpoint_id, index, TIME, snapshot)))
    assert round_trip(created) == [created]


@pytest.mark.parametrize(
    "payload",
    [SessionEnded(), SessionEnded(""), SessionEnded("ValueError: é"), SessionDeleted()],
)
def test_an_end_and_a_deletion_come_back(payload):
    assert round_trip(event(payload)) == [event(payload)]


@given(CONTENTS)
def test_content_comes_back_without_its_data(data):
    size = len(data.encode()) if isinstance(data, str) else len(data)
    stored = event(ContentStored(content_digest(data), size, data), session=0)
    (back,) = round_trip(stored)
    assert back == stored
    assert back.payload.data is None
    row = decode_rows(encode_events([stored]))[2][0]
    assert row[2] == data
    assert read_stored(row, 9).preview == preview(data)


def test_an_action_refers_to_the_content_beside_it():
    data = "d" * 2000
    near = StoredContent(content_digest(data), 2000, preview(data), 9)
    stored = event(ContentStored(near.digest, 2000, data), session=0)
    kind = ActionKind.PUT
    action = Action(
        0, 10, TIME, kind, make_details(kind, (), (1,), 0), Content(None, near), FAR, (1,), 0
    )
    back = round_trip(stored, event(ActionRecorded(action), sequence=10))
    assert back[1].payload.action.input.stored == near
    assert back[1].payload.action.output.stored == FAR.stored


@given(st.just(9) | st.integers(60, 2**40), st.lists(FIELDS, max_size=4))
def test_an_unknown_kind_is_delivered_as_it_stands(kind, fields):
    unknown = event(Unknown(kind, tuple(fields)))
    assert round_trip(unknown) == [unknown]
    (orphan,) = decode_events(encode_events([unknown]), 9, lambda _: None, contents)
    assert (orphan.session_id, orphan.session) == (None, 0)
    assert orphan.payload == unknown.payload


def test_an_erased_event_keeps_its_sequence_and_time():
    erased = Event(9, TIME, None, Erased(), 0)
    assert round_trip(erased) == [erased]


def test_events_of_a_session_that_is_gone_are_erased():
    kind = ActionKind.DELETE
    action = Action(0, 9, TIME, kind, make_details(kind, (), (1,), 0), None, None, (1,), 0)
    for payload in (ActionRecorded(action), SessionEnded("secret")):
        encoded = encode_events([event(payload)])
        assert decode_events(encoded, 9, lambda _: None, contents) == [
            Event(9, TIME, None, Erased(), 0)
        ]


def test_a_deletion_names_its_session_though_it_is_gone():
    deleted = event(SessionDeleted())
    assert decode_events(encode_events([deleted]), 9, lambda _: None, contents) == [deleted]


# What is not an events segment.

ROW = [10, 0, "data", None, 0, [1], None]


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        [1],
        [1, 5],
        [1, 5, []],
        [1, 5, [[]]],
        [1, 5, {}],
        [1, 5, ["put"]],
        [1, 5, [-1]],
        [1, 5, -1],
        [1, 5, True],
        [1, 5, [True]],
        [1, 5, [1.0]],
        [-(2**63) - 1, 5, ROW],
        ["1", 5, ROW],
        [1.5, 5, ROW],
        [True, 5, ROW],
        [1, -5, ROW],
        [1, None, ROW],
        [1, 5, ROW, 3],
    ],
    ids=repr,
)
def test_what_is_no_events_segment_is_refused(value):
    with pytest.raises(ValueError, match="segment"):
        decode_rows(cbor2.dumps(value))


STARTED = [1, ID.bytes, "name", False, 0, None, None]
CHECKPOINT = [5, 0, 0, 0, bytes(32), 0, None]
ASK = [13, 0, "q", "r", 1, None, None, "openai", "gpt", None, None, [-1, 0, b"", b""]]
WRONG = [None, True, -1, 1.5, "text", b"bytes", [], [None], [-1], {}, {"a": 1}, 2**63, [[]]]


@pytest.mark.parametrize("row", [STARTED, CHECKPOINT, ASK, [2, None], [4, bytes(32), "x"], ROW])
def test_a_wrong_field_is_a_value_error_or_a_value_of_the_right_type(row):
    """Whatever stands in a field: either the events encode again, or it was refused by name."""
    for at in range(1, len(row)):
        for wrong in WRONG:
            changed = [*row[:at], wrong, *row[at + 1 :]]
            for rows in ([changed], [*changed[: at + 1]]):
                payload = cbor2.dumps([TIME, SESSION, *rows])
                try:
                    events = decode_events(payload, SESSION, ids, contents)
                except (ValueError, MemvidAsyncError):
                    continue
                check_types(events[0])


def check_types(decoded):
    payload = decoded.payload
    texts = []
    if isinstance(payload, SessionStarted):
        assert isinstance(payload.config, RecordingConfig)
        texts = [payload.name]
    elif isinstance(payload, ActionRecorded):
        action = payload.action
        texts = [action.task, action.error]
        assert type(action.index) is int
        assert type(action.duration_ms) in (int, float)
        for name in ("provider", "model", "mode", "name"):
            texts.append(getattr(action.details, name, None))
        assert type(getattr(action.details, "result_count", 0)) is int
    elif isinstance(payload, SessionEnded):
        texts = [payload.error]
    assert all(text is None or isinstance(text, str) for text in texts), decoded


@pytest.mark.parametrize(
    "row", [STARTED, CHECKPOINT, [*ASK[:7], "o", "m"], [2, None], [3, ID.bytes]]
)
def test_a_field_that_a_newer_release_adds_is_not_looked_at(row):
    now = decode_events(cbor2.dumps([TIME, SESSION, row]), SESSION, ids, contents)
    known = {1: 1, 13: 14}.get(row[0], 0)
    added = [*row, *[None] * known]
    later = cbor2.dumps([TIME, SESSION, [*added, "new"]])
    assert decode_events(later, SESSION, ids, contents) == now


@pytest.mark.parametrize("odd", ODDITIES)
def test_metadata_that_could_not_have_been_recorded_is_refused(odd):
    for metadata in (b"\xa1\x61a" + odd, b"\xa1\x61a\x81" + odd):
        for row in ([*ASK[:10], metadata], [*STARTED[:6], metadata]):
            with pytest.raises(ValueError, match=r"metadata|fields|CBOR"):
                decode_events(cbor2.dumps([TIME, SESSION, *row]), SESSION, ids, contents)


@pytest.mark.parametrize("odd", [-1, -0.5, float("nan"), float("inf"), 2**64 - 1])
def test_a_duration_that_could_not_have_been_recorded_is_refused(odd):
    row = [*ASK[:4], odd, *ASK[5:]]
    with pytest.raises(ValueError, match="duration"):
        decode_events(cbor2.dumps([TIME, SESSION, *row]), SESSION, ids, contents)


def test_one_event_may_stand_bare_or_in_a_row():
    bare, row = (cbor2.dumps(value) for value in ([TIME, SESSION, *ROW], [TIME, SESSION, ROW]))
    assert decode_events(bare, 9, ids, contents) == decode_events(row, 9, ids, contents)


def test_an_encoding_does_not_depend_on_identity():
    one = event(SessionEnded("same"))
    assert encode_events([one]) == encode_events([replace(one, payload=SessionEnded("sa" + "me"))])


@given(st.binary(max_size=60))
@examples(2)
def test_any_bytes_decode_or_are_a_value_error(data):
    for payload in (data, b"\x83\x01\x05" + data, b"\x85\x01\x05" + data):
        with contextlib.suppress(ValueError):
            decode_events(payload, SESSION, ids, contents)


def test_metadata_that_is_no_map_is_refused():
    ids = {1: UUID(int=1)}.get
    for metadata, fine in ((cbor2.dumps({"a": 1}), True), (cbor2.dumps([1]), False)):
        payload = cbor2.dumps([5, 1, 10, 0, "in", None, 0, [7], None, None, metadata])
        if fine:
            (event,) = decode_events(payload, 2, ids, None)
            assert event.payload.action.metadata == {"a": 1}
        else:
            with pytest.raises(ValueError, match="metadata is not a map"):
                decode_events(payload, 2, ids, None)


def test_stubs_that_stand_for_nothing_or_too_much_are_refused():
    assert decode_stubs(cbor2.dumps([5, 1, 2, MOST_EVENTS - 1])) == [(5, 1), (7, MOST_EVENTS - 1)]
    runs = [(2**63 - 1, 3), (-(2**63), 1), (-5, 2), (2**63 - 1, 1)]
    assert decode_stubs(encode_stubs(runs)) == runs
    for wrong in (
        [], [1], [1, 2, 3], {}, "x", [-(2**63) - 1, 1], [1, -1], [1, 0], [1, True], [1.0, 1],
        [1, 1, 1, 0],
        [1, MOST_EVENTS + 1], [1, MOST_EVENTS, 1, 1], [2**63, 1], [2**62, 1, 2**62, 1],
    ):  # fmt: skip
        with pytest.raises(ValueError, match="stub"):
            decode_stubs(cbor2.dumps(wrong))


def test_stubs_become_events_one_after_another():
    events = stub_events([(5, 2), (7, 1)], 10)
    assert [(e.sequence, e.time_ns, e.payload) for e in events] == [
        (10, 5, Erased()),
        (11, 5, Erased()),
        (12, 7, Erased()),
    ]
