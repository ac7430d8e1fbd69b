"""Where things stand in the file: what falls due, and that nothing depends on having been there."""

import itertools
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import CorruptFileError, RecordingConfig
from memvid_async.core import commands
from memvid_async.file import catalog as index
from memvid_async.file.journal import Journal
from memvid_async.file.open_table import LEAST_PAGES, OpenTable
from memvid_async.file.toc import decode_toc
from memvid_async.format.header import LOG_START
from memvid_async.format.segment import SegmentKind, scan
from memvid_async.format.tables import (
    ProjectionPages,
    Table,
    decode_page,
    decode_positions,
    encode_page,
    encode_positions,
    encode_projection_pages,
)
from memvid_async.storage import RamStorage
from tests.support.asking import answers, verified
from tests.support.naive import Naive, ask, command, fixed_config, start
from tests.support.plans import SIMPLE_PLANS, examples, small_tables


def segments(storage, journal):
    salt = journal._file.header.salt
    return list(scan(storage.read, LOG_START, journal.view.end, salt, salt))


def kinds(storage, journal):
    return [SegmentKind(segment.kind).name for segment in segments(storage, journal)]


@pytest.fixture
def opened():
    """A store with low bounds: every third segment of a session fills a chunk."""
    with small_tables(chunk=3):
        yield opening()


def opening():
    storage = RamStorage()
    journal = Journal.open(storage, fixed_config())

    def do(*ops):
        outcomes = [journal.commit([command(op)])[0][0] for op in ops]
        assert not [o for o in outcomes if isinstance(o, Exception)]
        return outcomes

    return storage, journal, do


def test_positions_fall_due_by_number_and_at_the_end_of_a_session(opened):
    storage, journal, do = opened
    do(start(1), *[ask(1, "q")] * 4, commands.EndSession(1), start(2))
    found = [
        (segment.sequence, decode_positions(segment.payload))
        for segment in segments(storage, journal)
        if segment.kind == SegmentKind.POSITIONS
    ]
    places = [s.offset for s in segments(storage, journal) if s.kind == SegmentKind.EVENTS]
    chunks = [s.offset for s in segments(storage, journal) if s.kind == SegmentKind.POSITIONS]
    assert found == [(4, (1, 0, places[:3])), (7, (1, chunks[0], places[3:6]))]


def test_an_event_of_two_sessions_kinds_is_in_the_positions_of_its_own(opened):
    _storage, journal, do = opened
    do(start(1), start(2), ask(1, "one"), ask(2, "c" * 4000), ask(1, "c" * 4000))
    for number, expected in ((1, [1, 3, 6]), (2, [2, 5])):
        events, _ = journal.view.session_events(number)
        assert [event.sequence for event in events] == expected


def test_a_log_is_marked_now_and_then(opened):
    storage, journal, do = opened
    do(start(1), *[ask(1, "q" * 100)] * 20)
    places = {s.sequence: s.offset for s in segments(storage, journal) if s.kind == 1}
    for sequence in range(1, 22):
        mark, offset = journal._file.catalog.mark_before(sequence)
        assert mark <= sequence
        assert places[mark] == offset
        assert places[sequence] - offset <= 700
    assert journal._file.catalog.mark_before(0) is None


@pytest.mark.parametrize("table", Table)
def test_pages_fall_due_and_are_found_again(opened, table):
    storage, journal, do = opened
    for number in range(1, 9):
        do(start(number))
        own = journal.view.state.last_sequence
        do(ask(own, f"{number}" * 1100), ask(own, "q" * 100))
        journal.commit([commands.OnlyOnce(ask(own, "q").command(), f"key {number}", bytes(16))])
        do(commands.EndSession(own))
        do(start(number + 10), start(number + 20), commands.DeleteSession(UUID(int=number + 10)))
    pages = [
        decode_page(segment.payload)
        for segment in segments(storage, journal)
        if segment.kind == SegmentKind.PAGE
    ]
    assert [page[0] for page in pages].count(table) >= 2
    again = Journal.open(storage, fixed_config())
    assert again._file.catalog._contents == {}
    again.begin()
    again.flush()
    assert again._file.catalog._contents == journal._file.catalog._contents
    assert again._file.catalog._used_keys == journal._file.catalog._used_keys
    assert len(again._file.catalog._used_keys) == 8
    assert list(again._file.catalog.mark_offsets) == list(journal._file.catalog.mark_offsets)
    assert again._file.catalog.content_count == journal._file.catalog.content_count == 8
    assert answers(again) == answers(journal)


def test_tocs_grow_apart_as_they_grow():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index, "TOC_LEAST_BYTES", 2000)
        patch.setattr(index, "TOC_FACTOR", 4)
        storage, journal, do = opening()
        for number in range(1, 200):
            do(start(number), ask(journal.view.state.last_sequence + 1, "q" * 50))
        tocs = [s for s in segments(storage, journal) if s.kind == SegmentKind.TOC]
    spaces = [b.offset - a.end for a, b in itertools.pairwise(tocs)]
    assert len(spaces) >= 2
    for toc, space in zip(tocs, spaces, strict=False):
        least = max(2000, 4 * len(toc.payload))
        assert least <= space < least + 600


@given(st.lists(SIMPLE_PLANS, min_size=10, max_size=60), st.data())
@examples(0.5)
def test_an_index_read_from_the_file_is_the_index_that_wrote_it(plans, data):
    with small_tables():
        storage, naive = RamStorage(), Naive()
        journal = Journal.open(storage, fixed_config())
        for op in [start(1), *plans]:
            op = op if op == start(1) else op.resolve(naive)
            naive.apply(op, naive.now + 1)
            journal.commit([command(op)])
        other = Journal.open(storage, fixed_config(), read_only=True)
        assert index_state(other) == index_state(journal)
        # Without the slots, from the first event on.
        storage.data[512:LOG_START] = bytes(LOG_START - 512)
        other = Journal.open(storage, fixed_config(), read_only=True)
        assert index_state(other) == index_state(journal)
        assert verified(other).ok


def index_state(journal):
    own = journal._file.catalog
    return {
        "positions": {n: (chunk, list(offsets)) for n, (chunk, offsets) in own.positions.items()},
        "marks": (list(own.mark_sequences), list(own.mark_offsets)),
        "new": {table: bytes(rows) for table, rows in own._new.items()},
        "ended": list(own._ended),
        "pages": own._pages,
        "open": (list(own.open.changed), {at: list(n) for at, n in own.open.pages.items()}),
        "count": own.content_count,
        "due": [n for n in own._full if n in own.positions and own.positions[n][1]],
        "next": (own._toc_end, own._toc_interval),
    }


def test_a_chunk_that_was_read_is_not_due_again(opened):
    storage, journal, do = opened
    do(start(1), *[ask(1, "q")] * 3)
    again = Journal.open(RamStorage(bytes(storage.data)), fixed_config())
    for own in (journal, again):
        own.commit([ask(1, "q").command()])
    assert index_state(again) == index_state(journal)


def test_pages_that_do_not_lead_backwards_are_damage(opened):
    storage, journal, do = opened
    for number in range(1, 12):
        do(start(number), commands.EndSession(journal.view.state.last_sequence + 1))
    salt, at = journal._file.header.salt, journal._file.catalog._pages[Table.SESSIONS]
    assert index._pages(storage.read, at, Table.SESSIONS, journal.view.end, salt)
    for place, table in ((at, Table.MARKS), (2**60, Table.SESSIONS), (LOG_START, Table.SESSIONS)):
        with pytest.raises(CorruptFileError):
            index._pages(storage.read, place, table, journal.view.end, salt)


def test_a_session_deleted_after_its_page_stays_deleted(opened):
    storage, journal, do = opened
    for number in range(1, 8):
        do(start(number), commands.EndSession(journal.view.state.last_sequence + 1))
    for number in (1, 5):
        do(commands.DeleteSession(start(number).session_id))
    # An id may be used again; the deletion is the first one's alone.
    do(start(1), *[ask(journal.view.state.last_sequence + 1, "q" * 300)] * 5)
    again = Journal.open(storage, fixed_config())
    assert answers(again) == answers(journal)
    assert index_state(again) == index_state(journal)
    assert verified(again).ok


def test_a_recording_config_survives_a_page(opened):
    storage, journal, do = opened
    config = RecordingConfig(auto_checkpoint_interval=2, max_actions=3)
    do(commands.StartSession(start(1).session_id, "é", config, {}), *[ask(1, "q" * 400)] * 3)
    for number in range(2, 8):
        do(start(number), commands.EndSession(journal.view.state.last_sequence + 1))
    again = Journal.open(storage, fixed_config())
    assert again.view.state == journal.view.state
    assert again.view.state.sessions[1].info.config == config


# What later releases may derive.


def test_what_is_derived_of_other_projections_and_tables_is_passed_over(opened):
    storage, journal, do = opened
    do(start(1), *[ask(1, "q")] * 4)
    follower = Journal.open(storage, fixed_config(), read_only=True)
    journal.begin()
    for kind, payload in (
        (SegmentKind.POSITIONS, encode_positions("later", 0, [LOG_START])),
        (SegmentKind.PAGE, encode_page(9, 0, b"rows")),
        (SegmentKind.PROJECTION, encode_projection_pages(OTHER_PAGES)),
    ):
        journal._file._seal_derived(kind, payload)
    journal.flush()
    follower.refresh()
    do(*[ask(1, "q" * 50)] * 10)
    for other in (follower, Journal.open(storage, fixed_config())):
        other.refresh()
        assert answers(other) == answers(journal)
        assert verified(other).ok
        assert list(other.view.reader.projection_pages("memory")) == []
        assert other._file.catalog.saved["memory"] == (0, 0)


OTHER_PAGES = ProjectionPages("later", 0, 5, 1, True, bytes(4), bytes(4096))


# Many open sessions.


def test_a_toc_holds_the_open_sessions_that_changed(monkeypatch):
    monkeypatch.setattr(index, "TOC_LEAST_BYTES", 256 * 1024)
    storage, journal, do = opening()
    do(*map(start, range(1, 400)))
    numbers = range(1, 400)
    journal.close()
    tocs = []
    for _ in range(6):
        do(*[ask(number, "q" * 1000) for number in numbers[:90]] * 3)
        tocs = [s for s in segments(storage, journal) if s.kind == SegmentKind.TOC]
    assert len(tocs) >= 4
    assert all(len(decode_toc(toc.payload, 0).open_sessions) < 128 for toc in tocs)
    again = Journal.open(storage, fixed_config())
    assert index_state(again) == index_state(journal)
    assert again.view.state == journal.view.state


@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=300))
@examples(1)
def test_every_open_session_is_current_in_one_place_and_pages_are_few(steps):
    table, at, current = OpenTable(), 1, {}
    for number in range(41):
        table.note(number)
    for number, pages in steps:
        table.note(number)
        while pages and len(table.changed) >= 4:
            own = table.next_page(4)
            table.page_written(own, at, at + 10, 4)
            current.update(dict.fromkeys(own, at))
            at += 10
            assert len(table.pages) <= LEAST_PAGES + 2 * 41 // 4
        paged = [(n, offset) for offset, page in table.pages.items() for n in page]
        assert sorted([*table.changed, *(n for n, _ in paged)]) == list(range(41))
        assert all(current[n] == offset for n, offset in paged)
