"""Rows of frames, searches and saved indexes with a field wrong: refused, or read as they stand."""

from contextlib import suppress
from uuid import UUID

import cbor2
import pytest

from memvid_async import (
    Action,
    ActionKind,
    ActionRecorded,
    Content,
    Event,
    InvalidValueError,
    PutManyDetails,
)
from memvid_async.events.content import StoredContent
from memvid_async.events.frames import FrameErased, FramePut, FramesPut, FrameUpdated
from memvid_async.file.toc import read_memory_row
from memvid_async.format.codec import decode_events, encode_events
from memvid_async.format.frame_rows import frame_row, read_frame_row
from memvid_async.format.kinds import FRAME_KINDS, FRAMES_PUT
from memvid_async.format.tables import (
    ProjectionPages,
    decode_projection_pages,
    encode_projection_pages,
)

UNREAD = Content(None, StoredContent(bytes(32), 0, "", 7))
WRONG = [None, True, -1, 0, 1.5, "text", b"odd", [], [None], [0, 0, 0], {}, 2**63]
REFUSED = (TypeError, ValueError, IndexError)


def put(**fields):
    given = {"content": Content("body"), "title": "t", "tags": ("a",), "metadata": {"k": 1}}
    given |= {"embedding": bytes(8), "embedding_model": "m", "uri": "u", "media_type": "text/x"}
    return frame_row(FramesPut(3, (FramePut(3, **(given | fields)),)))


def read(row):
    return read_frame_row(row, lambda _: UNREAD)


def test_any_field_of_a_frames_row_may_be_wrong():
    rows = [put(), put(content=Content(None, StoredContent(bytes(32), 5, "", 9, (9, 10))))]
    rows.append(frame_row(FrameUpdated(3, {"title": None, "tags": ("b",)}, 0)))
    rows.append(frame_row(FrameErased(3, bytes(32), 0)))
    for row in rows:
        assert row[0] in FRAME_KINDS
        read(row)
        wrong_rows = [
            [*row[:at], wrong, *row[at + 1 :]] for at in range(1, len(row)) for wrong in WRONG
        ]
        if row[0] == FRAMES_PUT:
            item = row[4]
            wrong_rows += [
                [*row[:4], [*item[:at], wrong, *item[at + 1 :]]]
                for at in range(len(item))
                for wrong in WRONG
            ]
        for wrong_row in wrong_rows:
            try:
                found = read(wrong_row)
            except REFUSED:
                continue
            assert read(frame_row(found)) == found


@pytest.mark.parametrize(
    ("place", "wrong", "why"),
    [
        (0, 5, "no digest"),
        (0, [bytes(32), -1, 2, 3], "bad size or part"),
        (0, [bytes(32), 1, 2, True], "bad size or part"),
        (4, "text", "not list"),
        (6, bytes(7), "float32"),
    ],
)
def test_what_a_frame_may_not_hold_is_named(place, wrong, why):
    *row, item = put()
    with pytest.raises(TypeError, match=why):
        read([*row, [*item[:place], wrong, *item[place + 1 :]]])


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([20, 0, 0, None, "text"], "a frame id"),
        ([20, 1, -1, None, "text"], "or a branch"),
        ([20, 1, 0, None], "no frame"),
        ([20, 1, 0, None, 5], "not list"),
        ([20, 1, 0, None, {}], "not list"),
        ([20, 1, 0, None, [None, bytes(31)]], "bytes"),
    ],
)
def test_what_a_put_may_not_hold_is_named(row, why):
    with pytest.raises(TypeError, match=why):
        read(row)


RETRIEVAL = ["lexical", 5, 9, [0.5, 1], [2, 0, 3, 9], None, None, None]


def decoded(row):
    (event,) = decode_events(cbor2.dumps([5, 1, *row]), 2, {1: UUID(int=1)}.get, None)
    return event.payload.action.details


def find(retrieval):
    return decoded([12, 0, "q", None, 0, [1], None, "lexical", 1, None, None, None, retrieval])


def ask(reply):
    return decoded([13, 0, "q", "a", 0, None, None, "o", "m", None, None, None, None, reply])


def test_any_field_of_a_search_or_a_reply_may_be_wrong():
    find(RETRIEVAL)
    ask([[4, 5], 10, None])
    for read_it, given in ((find, RETRIEVAL), (ask, [[4, 5], 10, 20])):
        for at in range(len(given)):
            for wrong in WRONG:
                with suppress(ValueError):
                    read_it([*given[:at], wrong, *given[at + 1 :]])


@pytest.mark.parametrize("score", [True, "1", float("nan"), float("inf"), None])
def test_a_score_that_is_no_number_is_refused(score):
    with pytest.raises(ValueError, match="not a finite number"):
        find([*RETRIEVAL[:3], [score], *RETRIEVAL[4:]])


@pytest.mark.parametrize("tokens", [-1, True, "5", 2**63, 1.0])
def test_a_count_of_tokens_that_is_no_count_is_refused(tokens):
    for reply in ([[4], tokens, None], [[4], None, tokens]):
        with pytest.raises(ValueError, match="count of tokens"):
            ask(reply)


def test_more_items_than_a_reader_takes_are_refused_before_they_are_written():
    frames = tuple(range(600_000))
    details = PutManyDetails(frames)
    action = Action(0, 2, 5, ActionKind.PUT_MANY, details, None, None, frames, 0.0)
    events = [Event(2, 5, UUID(int=1), ActionRecorded(action, None), 1)] * 2
    with pytest.raises(InvalidValueError, match="more than 1048576 items"):
        encode_events(events)


def test_any_field_of_a_saved_index_may_be_wrong():
    part = ProjectionPages("memory", 0, 5, 9, True, bytes(8), bytes(8192))
    assert decode_projection_pages(encode_projection_pages(part)) == part
    row = cbor2.loads(encode_projection_pages(part))
    for at in range(len(row)):
        for wrong in WRONG:
            try:
                found = decode_projection_pages(cbor2.dumps([*row[:at], wrong, *row[at + 1 :]]))
            except ValueError:
                continue
            assert decode_projection_pages(encode_projection_pages(found)) == found
    for at, wrong, why in (
        (0, 5, "bad fields"),
        (4, 1, "bad fields"),
        (6, "text", "bad fields"),
        (5, b"", "not whole"),
        (6, bytes(8191), "not whole"),
    ):
        with pytest.raises(ValueError, match=why):
            decode_projection_pages(cbor2.dumps([*row[:at], wrong, *row[at + 1 :]]))
    assert decode_projection_pages(cbor2.dumps([*row, "new", 1])) == part


def test_a_branch_of_nothing_is_refused():
    row = [3, 2, bytes(32), "english", None, 0, b"", b"", []]
    for branches, fine in (
        ([[5, 0, 4, 2, 2, bytes(32), b""], [9, 5, 8, 2, 2, bytes(32), b""]], True),
        ([[9, 5, 8, 2, 2, bytes(32), b""]], False),
        ([[5, 5, 4, 2, 2, bytes(32), b""]], False),
        ([[5, 7, 4, 2, 2, bytes(32), b""]], False),
    ):
        if fine:
            assert list(read_memory_row([*row[:8], branches]).branches) == [5, 9]
        else:
            with pytest.raises(ValueError, match="no parent"):
                read_memory_row([*row[:8], branches])
