"""The TOC and the rows of sessions: what is packed comes back, anything else is refused."""

import contextlib
from itertools import accumulate
from uuid import UUID

import cbor2
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, RecordingConfig
from memvid_async.core.collections_state import NO_COLLECTIONS, CollectionInfo
from memvid_async.core.memory_state import Branch, MemoryState
from memvid_async.core.persistent_map import PersistentMap
from memvid_async.core.session_map import SessionMap, pack_session, packed_id, unpack_session
from memvid_async.core.session_state import NOTHING_HELD, SessionInfo, SessionState
from memvid_async.core.state import State
from memvid_async.events.values import MAX_ITEMS
from memvid_async.file.toc import (
    EndedSessions,
    OpenSession,
    SavedPlace,
    Toc,
    decode_toc,
    encode_toc,
    ended_columns,
    open_row,
    read_ended_columns,
    read_open_row,
    with_sessions,
)
from memvid_async.format.tables import (
    CONTENT_ROW,
    MARK_ROW,
    NUMBER_ROW,
    PROJECTIONS,
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
def sessions(draw, ended, number=None):
    info = SessionInfo(
        number or draw(NUMBERS), draw(st.uuids()), draw(ERRORS), draw(TIMES), draw(st.booleans()),
        draw(CONFIGS),
    )  # fmt: skip
    counts = [draw(st.integers(0, most)) for most in (2**31 - 1, 2**40, 2**40)]
    end = draw(TIMES) if ended else None
    held = NOTHING_HELD if ended else PersistentMap(draw(HELD))
    return SessionState(info, draw(TIMES), end, *counts, held)


@st.composite
def open_sessions(draw, number=None):
    offsets = ascending(draw(st.lists(st.integers(1, 2**30), max_size=5)))
    return OpenSession(draw(sessions(ended=False, number=number)), draw(OFFSETS), offsets)


def columns(ended, chunk=1600):
    """Ended sessions as a page has them."""
    return EndedSessions(
        tuple(session.info.number for session in ended),
        (chunk,) * len(ended),
        list(map(pack_session, ended)),
    )


@given(st.booleans().flatmap(sessions))
@examples(2)
def test_a_session_comes_back_from_its_row(session):
    row = pack_session(session)
    assert unpack_session(row) == session._replace(held=NOTHING_HELD)
    assert packed_id(row) == session.info.session_id.bytes


@given(open_sessions())
@examples(2)
def test_an_open_session_comes_back_from_its_row(found):
    assert read_open_row(cbor2.loads(cbor2.dumps(open_row(found)))) == found


def test_the_order_in_which_messages_were_held_does_not_show():
    keys = [bytes([i]) * 16 for i in range(60)]
    rows = []
    for order in (keys, keys[::-1]):
        held = PersistentMap()
        for key in order:
            held = held.set(key, (1, 2))
        info = SessionInfo(1, UUID(int=1), None, 1, False, RecordingConfig())
        rows.append(open_row(OpenSession(SessionState(info, 1, held=held), 0)))
    assert rows[0] == rows[1]


@given(st.lists(sessions(ended=True), max_size=4), OFFSETS)
@examples(0.5)
def test_a_page_of_sessions_comes_back(ended, previous):
    kept = columns(ended)
    page = encode_page(Table.SESSIONS, previous, ended_columns(kept))
    table, before, found = decode_page(page)
    assert (table, before) == (Table.SESSIONS, previous)
    assert read_ended_columns(found) == kept
    assert list(map(unpack_session, read_ended_columns(found).rows)) == ended


@pytest.mark.parametrize(
    "wrong",
    [
        [b"", b"", [b"x"]],
        [bytes(8), bytes(16), [b"x"]],
        [bytes(8), bytes(8), ["x"]],
        [bytes(8), bytes(8), [b"x", b"y"]],
        [8, bytes(8), [b"x"]],
        [bytes(8), bytes(8)],
    ],
)
def test_columns_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match=r"columns|row"):
        read_ended_columns(wrong)


def test_a_row_that_nobody_looked_at_is_damage_when_somebody_does():
    info = SessionInfo(7, UUID(int=1), "name", 5, False, RecordingConfig())
    row = pack_session(SessionState(info, 5, 9))
    found = SessionMap(PersistentMap(), PersistentMap({7: row[:-1]}))
    assert found.session_id(7) == UUID(int=1)
    assert (7 in found, len(found), list(found)) == (True, 1, [7])
    for look in (found.get, found.__getitem__):
        with pytest.raises(CorruptFileError):
            look(7)


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


SAVED_PLACES = st.builds(
    SavedPlace, OFFSETS, OFFSETS, OFFSETS, st.lists(OFFSETS, max_size=3).map(tuple)
)


@st.composite
def collections(draw):
    found = NO_COLLECTIONS
    for name, number in draw(st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3)).items():
        flags = draw(st.tuples(st.booleans(), st.booleans()))
        if number not in found.by_number:
            found = found.set(CollectionInfo(number, name, *flags))
    return found


COLLECTIONS = collections()


@st.composite
def tocs(draw):
    numbers = draw(st.lists(st.integers(1, 500), unique=True, max_size=4))
    ends = [draw(st.booleans()) for _ in numbers]
    opened = tuple(draw(open_sessions(n)) for n, end in zip(numbers, ends, strict=True) if not end)
    ended = columns(
        [draw(sessions(ended=True, number=n)) for n, end in zip(numbers, ends, strict=True) if end]
    )
    state = State(
        draw(NUMBERS),
        draw(TIMES),
        ambient=opened[0].session.info.number if opened else None,
        generation=3,
        memory=draw(memories()),
        beyond=draw(st.booleans()),
        collections=draw(COLLECTIONS),
    )
    marks = b"".join(MARK_ROW.pack(i, i) for i in range(draw(st.integers(0, 4))))
    contents = b"".join(CONTENT_ROW.pack(bytes(32), i) for i in range(draw(st.integers(0, 4))))
    pages = draw(st.dictionaries(st.sampled_from(list(Table)), OFFSETS))
    deleted = b"".join(map(NUMBER_ROW.pack, draw(st.lists(NUMBERS, max_size=4))))
    opened = (opened, tuple(draw(st.lists(OFFSETS, max_size=3))), draw(OFFSETS))
    count = draw(st.integers(0, 2**40))
    places = {name: draw(SAVED_PLACES) for name in PROJECTIONS}
    used = draw(st.sampled_from([b"", bytes(40)]))
    return Toc(state, *opened, ended, deleted, pages, contents, marks, count, places, used)


@given(tocs())
@examples(2)
def test_a_toc_comes_back_with_its_sessions(toc):
    assert decode_toc(encode_toc(toc), 3) == toc
    state = with_their_sessions(toc)
    found = [one.session for one in toc.open_sessions]
    found += map(unpack_session, toc.ended.rows)
    assert len(state.sessions) == len(found)
    for session in found:
        assert state.sessions[session.info.number] == session
    if toc.state.ambient is not None:
        assert state.sessions[state.ambient].info.number == toc.state.ambient


def with_their_sessions(toc):
    ended = dict(zip(toc.ended.numbers, toc.ended.rows, strict=True))
    return with_sessions(toc.state, [one.session for one in toc.open_sessions], ended)


def a_toc():
    info = SessionInfo(2, UUID(int=1), "name", 5, True, RecordingConfig(max_actions=3))
    opened = OpenSession(SessionState(info, 5), 0, (1600, 1700))
    ended = columns([SessionState(info, 5, 9)], 1800)
    named = NO_COLLECTIONS.set(CollectionInfo(5, "threads", has_values=True))
    state = State(9, 9, ambient=2, collections=named)
    pages = {Table.SESSIONS: 1, Table.MARKS: 3}
    found = (state, (opened,), (1500,), 12, ended, NUMBER_ROW.pack(7), pages)
    places = {"memory": SavedPlace(1700, 3, 1900, (2000,)), "collections": SavedPlace()}
    return Toc(*found, b"", bytes(16), 4, places, bytes(40))


def test_a_wrong_field_of_a_toc_is_a_value_error_or_still_packs():
    payload = encode_toc(a_toc())
    decode_toc(payload, 0)
    for changed in with_wrong_fields(payload):
        try:
            found = decode_toc(changed, 0)
        except ValueError:
            continue
        encode_toc(found)
        with contextlib.suppress(ValueError):
            # The id of an ended session's row is read when the file is opened.
            with_their_sessions(found)
        assert len(found.state.memory.memory_hash) == 32


def test_a_wrong_field_of_a_session_row_is_a_value_error_or_still_packs():
    toc = a_toc()
    for packed in (pack_session(toc.open_sessions[0].session), toc.ended.rows[0]):
        row = cbor2.loads(packed)
        for at in range(len(row)):
            for wrong in WRONG_FIELDS:
                try:
                    found = unpack_session(cbor2.dumps([*row[:at], wrong, *row[at + 1 :]]))
                except ValueError:
                    continue
                summary = found.summary()
                assert summary.name is None or isinstance(summary.name, str)
                assert summary.ended_ns is None or type(summary.ended_ns) is int
                pack_session(found)


def more_in(packed, fields):
    return cbor2.dumps([*cbor2.loads(packed), *fields])


def test_a_toc_may_say_more():
    toc = a_toc()
    plain = cbor2.loads(encode_toc(toc))
    memory, opened, ended, pages, projections = (plain[at] for at in (3, 5, 6, 8, 12))
    later = list(plain)
    later[3] = [*memory, "new"]
    more = ["error", b"", [1, 2], None]
    later[5] = [
        *opened[:2],
        [[more_in(row, more), *rest, "new"] for row, *rest in opened[2]],
        "new",
    ]
    later[6] = [*ended[:2], [more_in(row, more) for row in ended[2]], "new"]
    later[8] = [*([*page, "new"] for page in pages), [9, 4000]]
    later[14] = [[*row, "new"] for row in plain[14]]
    later[12] = [["later", 5, 6, 7, 8], *projections, ["other", 0, 0, 0]]
    found = decode_toc(cbor2.dumps([*later, "new", 1]), 0)
    assert found.open_sessions == toc.open_sessions
    assert list(map(unpack_session, found.ended.rows)) == list(map(unpack_session, toc.ended.rows))
    assert found.pages == {**toc.pages, 9: 4000}
    assert evolve(found, ended=toc.ended, pages=toc.pages) == toc
    without = decode_toc(cbor2.dumps([*plain[:12], [], *plain[13:]]), 0)
    assert without.projections == dict.fromkeys(PROJECTIONS, SavedPlace())


def test_a_session_of_more_actions_than_have_an_index_is_refused():
    """Else the next action's index would not fit into what an open session holds."""
    row = cbor2.loads(pack_session(a_toc().open_sessions[0].session))
    most = unpack_session(cbor2.dumps([*row[:6], 2**31 - 1, *row[7:]]))
    assert most.action_count == 2**31 - 1
    with pytest.raises(ValueError, match="more actions"):
        unpack_session(cbor2.dumps([*row[:6], 2**31, *row[7:]]))


@given(st.binary(max_size=60))
@examples(2)
def test_any_bytes_are_a_toc_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        decode_toc(data, 0)


def test_a_toc_of_many_sessions_comes_back():
    """As many as an agent fleet leaves open; a TOC that cannot be read is a file that is lost."""
    count = MAX_ITEMS // 12

    def opened(number):
        info = SessionInfo(number, UUID(int=number), None, 5, False, RecordingConfig())
        return OpenSession(SessionState(info, 5), 0, (number,))

    found = tuple(map(opened, range(1, count)))
    toc = Toc(State(count, 5), found, (), 0, columns([]), bytes(8 * MAX_ITEMS), {}, b"", b"", 0)
    assert decode_toc(encode_toc(toc), 0) == toc


def test_a_page_of_many_sessions_comes_back():
    info = SessionInfo(1, UUID(int=1), None, 5, False, RecordingConfig())
    kept = columns([SessionState(info, 5, 6)] * (MAX_ITEMS // 12))
    found = decode_page(encode_page(Table.SESSIONS, 0, ended_columns(kept)))
    assert read_ended_columns(found[2]) == kept
