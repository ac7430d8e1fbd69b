"""The TOC and the rows of sessions: what is packed comes back, anything else is refused."""

import contextlib
from itertools import accumulate
from uuid import UUID

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import RecordingConfig
from memvid_async.core.memory_state import Branch, MemoryState
from memvid_async.core.persistent_map import PersistentMap
from memvid_async.core.state import SessionInfo, SessionState, State
from memvid_async.events.values import MAX_ITEMS
from memvid_async.file.toc import (
    Placed,
    Toc,
    decode_toc,
    encode_toc,
    read_session_row,
    session_row,
    with_sessions,
)
from memvid_async.format.tables import (
    CONTENT_ROW,
    MARK_ROW,
    Table,
    decode_page,
    encode_page,
)
from tests.support.hostile import WRONG_FIELDS, with_wrong_fields
from tests.support.plans import CONFIGS, ERRORS, examples

NUMBERS = st.integers(1, 2**56 - 1)
OFFSETS = st.integers(0, 2**62)
TIMES = st.integers(0, 2**63 - 1)
HELD = st.dictionaries(
    st.binary(min_size=16, max_size=16), st.tuples(*[st.integers(0, 2**32 - 1)] * 2), max_size=5
)


def ascending(values):
    return tuple(accumulate(values))


@st.composite
def placed_sessions(draw, number=None):
    ended = draw(st.none() | TIMES)
    info = SessionInfo(
        number or draw(NUMBERS), draw(st.uuids()), draw(ERRORS), draw(TIMES), draw(st.booleans()),
        draw(CONFIGS),
    )  # fmt: skip
    counts = [draw(st.integers(0, most)) for most in (2**31 - 1, 2**40, 2**40)]
    if ended is not None:
        return Placed(SessionState(info, draw(TIMES), ended, *counts), draw(OFFSETS))
    held = PersistentMap(draw(HELD))
    offsets = ascending(draw(st.lists(st.integers(1, 2**30), max_size=5)))
    return Placed(SessionState(info, draw(TIMES), None, *counts, held), draw(OFFSETS), offsets)


@given(placed_sessions())
@examples(2)
def test_a_session_comes_back_from_its_row(placed):
    row = cbor2.loads(cbor2.dumps(session_row(placed)))
    assert read_session_row(row) == placed


def test_the_order_in_which_messages_were_held_does_not_show():
    keys = [bytes([i]) * 16 for i in range(60)]
    rows = []
    for order in (keys, keys[::-1]):
        held = PersistentMap()
        for key in order:
            held = held.set(key, (1, 2))
        info = SessionInfo(1, UUID(int=1), None, 1, False, RecordingConfig())
        rows.append(session_row(Placed(SessionState(info, 1, held=held), 0)))
    assert rows[0] == rows[1]


@given(st.lists(placed_sessions(), max_size=4), OFFSETS)
@examples(0.5)
def test_a_page_of_sessions_comes_back(sessions, previous):
    rows = [session_row(placed) for placed in sessions]
    table, before, found = decode_page(encode_page(Table.SESSIONS, previous, rows))
    assert (table, before) == (Table.SESSIONS, previous)
    assert [read_session_row(row) for row in found] == sessions


FRAME_MAPS = st.dictionaries(st.integers(1, 2**40), st.integers(1, 2**40), max_size=3).map(
    PersistentMap
)


@st.composite
def memories(draw):
    digests = st.binary(min_size=32, max_size=32)
    counts = st.integers(0, 2**40)
    branches = {}
    for number in sorted(draw(st.sets(st.integers(1, 500), max_size=3))):
        parent = draw(st.sampled_from([0, *branches]))
        branches[number] = Branch(
            parent, *draw(st.tuples(counts, counts, counts, digests, FRAME_MAPS))
        )
    analyser = draw(st.sampled_from([None, "english", "plain"]))
    maps = draw(st.tuples(FRAME_MAPS, FRAME_MAPS))
    numbers = draw(st.tuples(counts, counts, digests))
    return MemoryState(*numbers, analyser, None, 0, *maps, PersistentMap(branches))


@st.composite
def tocs(draw):
    placed = [
        draw(placed_sessions(number))
        for number in draw(st.lists(st.integers(1, 500), unique=True, max_size=4))
    ]
    opened = tuple(p for p in placed if p.session.ended_ns is None)
    ended = tuple(p for p in placed if p.session.ended_ns is not None)
    state = State(
        draw(NUMBERS),
        draw(TIMES),
        ambient=opened[0].session.info.number if opened else None,
        generation=3,
        memory=draw(memories()),
        beyond=draw(st.booleans()),
    )
    marks = b"".join(MARK_ROW.pack(i, i) for i in range(draw(st.integers(0, 4))))
    contents = b"".join(CONTENT_ROW.pack(bytes(32), i) for i in range(draw(st.integers(0, 4))))
    pages = (draw(OFFSETS), draw(OFFSETS), draw(OFFSETS))
    deleted = tuple(draw(st.lists(NUMBERS, max_size=4)))
    count = draw(st.integers(0, 2**40))
    saved = (draw(OFFSETS), draw(OFFSETS))
    place = (draw(OFFSETS), tuple(draw(st.lists(OFFSETS, max_size=3))), saved)
    return Toc(state, opened, ended, deleted, pages, contents, marks, count, *place)


@given(tocs())
@examples(2)
def test_a_toc_comes_back_with_its_sessions(toc):
    assert decode_toc(encode_toc(toc), 3) == toc
    sessions = [p.session for p in (*toc.open_sessions, *toc.ended)]
    state = with_sessions(toc.state, sessions)
    assert len(state.sessions) == len(sessions)
    for session in sessions:
        assert state.sessions[session.info.number] == session
    if toc.state.ambient is not None:
        assert state.sessions[state.ambient].info.number == toc.state.ambient


def a_toc():
    info = SessionInfo(2, UUID(int=1), "name", 5, True, RecordingConfig(max_actions=3))
    opened = Placed(SessionState(info, 5), 0, (1600, 1700))
    ended = Placed(SessionState(info, 5, 9), 1800)
    state = State(9, 9, ambient=2)
    return Toc(
        state, (opened,), (ended,), (7,), (1, 2, 3), b"", bytes(16), 4, 1900, (2000,), (1700, 3)
    )


def test_a_wrong_field_of_a_toc_is_a_value_error_or_still_packs():
    payload = encode_toc(a_toc())
    decode_toc(payload, 0)
    for changed in with_wrong_fields(payload):
        try:
            found = decode_toc(changed, 0)
        except ValueError:
            continue
        encode_toc(found)
        with_sessions(found.state, [p.session for p in (*found.open_sessions, *found.ended)])
        assert len(found.state.memory.memory_hash) == 32


def test_a_wrong_field_of_a_session_row_is_a_value_error_or_still_packs():
    for placed in (*a_toc().open_sessions, *a_toc().ended):
        row = session_row(placed)
        for at in range(len(row)):
            for wrong in WRONG_FIELDS:
                try:
                    found = read_session_row([*row[:at], wrong, *row[at + 1 :]])
                except ValueError:
                    continue
                summary = found.session.summary()
                assert summary.name is None or isinstance(summary.name, str)
                assert summary.ended_ns is None or type(summary.ended_ns) is int
                session_row(found)


def test_a_toc_may_say_more():
    toc = a_toc()
    plain = cbor2.loads(encode_toc(toc))
    memory, opened, ended, pages, projections = (plain[at] for at in (3, 5, 6, 8, 12))
    later = list(plain)
    later[3] = [*memory, "new"]
    later[5] = [[*row, "error", b"", [1, 2], None] for row in opened]
    later[6] = [[*row, None, None, "error", b"", [1, 2], None] for row in ended]
    later[8] = [*pages, 4, 5]
    later[12] = [["collections", 5, 6, 7, 8], *projections, ["other", 0, 0, 0]]
    assert decode_toc(cbor2.dumps([*later, "new", 1]), 0) == toc
    without = [*plain[:12], []]
    assert decode_toc(cbor2.dumps(without), 0).memory_offsets == ()


def test_a_session_of_more_actions_than_have_an_index_is_refused():
    """Else the next action's index would not fit into what an open session holds."""
    (placed,) = a_toc().open_sessions
    row = session_row(placed)
    assert read_session_row([*row[:6], 2**31 - 1, *row[7:]]).session.action_count == 2**31 - 1
    with pytest.raises(ValueError, match="more actions"):
        read_session_row([*row[:6], 2**31, *row[7:]])


@given(st.binary(max_size=60))
@examples(2)
def test_any_bytes_are_a_toc_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        decode_toc(data, 0)


def test_a_toc_of_many_sessions_comes_back():
    """As many as an agent fleet leaves open; a TOC that cannot be read is a file that is lost."""
    count = MAX_ITEMS // 12

    def placed(number):
        info = SessionInfo(number, UUID(int=number), None, 5, False, RecordingConfig())
        return Placed(SessionState(info, 5), 0, (number,))

    opened = tuple(map(placed, range(1, count)))
    toc = Toc(State(count, 5), opened, (), tuple(range(MAX_ITEMS)), (0, 0, 0), b"", b"", 0)
    assert decode_toc(encode_toc(toc), 0) == toc


def test_a_page_of_many_sessions_comes_back():
    info = SessionInfo(1, UUID(int=1), None, 5, False, RecordingConfig())
    rows = [session_row(Placed(SessionState(info, 5, 6), 1600))] * (MAX_ITEMS // 12)
    assert len(decode_page(encode_page(Table.SESSIONS, 0, rows))[2]) == len(rows)
