"""TornTail: what damage left is there again, in its place, and nothing that was not there."""

import json
import struct
import zlib
from functools import cache
from itertools import pairwise
from uuid import UUID

import anyio
import pytest
from attrs import evolve
from click.testing import CliRunner
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async import (
    ContentNotFoundError,
    InvalidValueError,
    NotAStoreError,
    StoreNotFoundError,
    UnsupportedVersionError,
    open_store,
    recover,
)
from memvid_async.cli.command_line import cli
from memvid_async.core import commands
from memvid_async.engine.reading import read_messages, read_session
from memvid_async.file.journal import Journal
from memvid_async.file.recover import ENDED_BY_RECOVERY, LOST_START, recover_into
from memvid_async.format.header import LOG_START, decode_header, newest_slot
from memvid_async.format.kinds import ENDED, STARTED
from memvid_async.format.rows import decode_rows
from memvid_async.format.segment import HEAD_SIZE, SegmentKind, seal
from memvid_async.storage import RamStorage
from tests.support.asking import action_answer, answers, verified
from tests.support.naive import Clock, Record, ask, command, fixed_config, start
from tests.support.plans import examples, small_tables
from tests.support.segments import segments_of


def reference_ops():
    """Sessions side by side: contents of their own, chats that share them, a deletion."""
    chats = {1: [], 2: [], 3: []}
    yield start(1, ambient=True, auto_checkpoint_interval=4)
    numbers = {1: 1}
    count = 1
    for turn in range(36):
        if turn in (3, 9):
            which = 2 if turn == 3 else 3
            numbers[which] = None
            yield start(which)
            continue
        which = [1, *[n for n in numbers if n > 1]][turn % len(numbers)]
        text = f"turn {turn} " * (4 if turn % 3 else 160)
        chats[which] += [f"question {turn} " * 5, text]
        yield which, text, tuple(chats[which]), count
    yield commands.EndSession(UUID(int=2), "failed")
    yield commands.DeleteSession(UUID(int=3))
    yield Record(1, kind="tool_call", input={"a": 1}, output="r" * 2000, detail=("look",))
    yield commands.CreateCheckpoint(1, None)


@cache
def reference():
    """The bytes of a closed file with TOCs, pages and positions."""
    storage = RamStorage()
    with small_tables():
        journal = Journal.open(storage, fixed_config())
        for op in reference_ops():
            if isinstance(op, tuple):
                which, text, messages, _ = op
                number = journal.view.state.numbers[UUID(int=which).bytes]
                op = ask(number, messages[-2], text, *messages)
            ((outcome,), _) = journal.commit([command(op)])
            assert not isinstance(outcome, Exception), outcome
        journal._file.tidy(with_toc=True)
    return bytes(storage.data)


def rows_of(data):
    """Per sequence: time, session and fields, as they stand in the file; without stubs."""
    found = {}
    for segment in segments_of(data):
        if segment.kind == SegmentKind.EVENTS:
            time_ns, session, rows = decode_rows(segment.payload)
            for sequence, row in enumerate(rows, segment.sequence):
                found[sequence] = (time_ns, session, row)
    return found


def read_all(data):
    """Every action of every session by sequence, with its contents and messages or what they
    raised."""
    journal = Journal.open(RamStorage(data), fixed_config(), read_only=True)
    view, found = journal.view, {}

    def tried(call, *arguments):
        try:
            return call(*arguments)
        except ContentNotFoundError:
            return ContentNotFoundError

    def content(given):
        return tried(view.data, given)

    def messages(action):
        if not getattr(action.details, "message_count", 0):
            return []
        given = tried(read_messages, view, action)
        return given if isinstance(given, list) else "lost"

    for session_id in (UUID(bytes=data) for data in view.state.numbers):
        for action in read_session(view, session_id).actions:
            found[action.sequence] = action_answer(action, content, messages)
    return found


def recovered(data):
    """The recovered bytes, and the report; the source must stay as it is."""
    source, target = RamStorage(data), RamStorage()
    report = recover_into(source, target, lambda *_: None)
    assert source.data == data
    return bytes(target.data), report


def check_recovered(before, damaged):
    """What must hold whatever the damage."""
    with small_tables():
        after, report = recovered(damaged)
        journal = Journal.open(RamStorage(after), fixed_config())
        assert verified(journal).ok
        old, new = rows_of(before), rows_of(after)
        first_of_ours = report.last_sequence - len(report.ended_sessions) + 1
        starts = {n for n in old if n == old[n][1] and n in new and n < first_of_ours}
        rebuilt = {n for n in starts if new[n] != old[n]}
        for sequence, row in new.items():
            if sequence >= first_of_ours:
                assert row[2] == [ENDED, ENDED_BY_RECOVERY]
            elif sequence in rebuilt:
                assert b"recovered" in row[2][-1]
            else:
                assert row == old[sequence]
        lost = {n for span in report.lost for n in range(span.first, span.last + 1)}
        for segment in segments_of(before):
            if (
                segment.kind == SegmentKind.EVENTS
                and before[segment.offset : segment.end] in damaged
            ):
                count = len(decode_rows(segment.payload)[2])
                here = set(range(segment.sequence, segment.sequence + count))
                assert here <= {*new}
                assert not here & lost
        assert len(rebuilt) == len(report.rebuilt_sessions)
        assert report.last_sequence == journal.view.state.last_sequence
        assert not (report.complete and lost)
        check_reading(before, after)
        check_appending(journal)
    return after, report


def check_reading(before, after):
    """What is read is what was there, or is said to be gone."""
    there = read_all_cached(before)
    for sequence, action in read_all(after).items():
        was = there.get(sequence)
        if was is None:
            continue
        for name, value in action.items():
            if name in ("input", "output") and value and value[0] is ContentNotFoundError:
                continue
            if name == "messages" and value == b"\x64lost":
                continue
            assert value == was[name], (sequence, name)


@cache
def read_all_cached(data):
    return read_all(data)


def check_appending(journal):
    """The new file is one to go on with: what is recorded now is read back."""
    state = journal.view.state
    still_open = [n for n, s in state.sessions.items() if s.ended_ns is None]
    for number in still_open:
        session_id = state.sessions[number].info.session_id
        actions = read_session(journal.view, session_id).actions
        before = [read_messages(journal.view, a) for a in actions if _asked(a)]
        asked = [*(before[-1] if before else []), "and now?"]
        (action,), _ = journal.commit([command(ask(number, "q", "a" * 1500, *asked))])
        assert read_messages(journal.view, action) == asked
        assert action.index not in {a.index for a in actions}
    assert verified(journal).ok


def _asked(action):
    return getattr(action.details, "message_count", 0)


# --- any damage --------------------------------------------------------------------------------


def _damages():
    places = st.integers(0, len(reference()) - 1)
    lengths = st.one_of(st.integers(1, 30), st.integers(1, 3000))
    return st.one_of(
        st.tuples(st.just("flip"), places, st.integers(0, 7)),
        st.tuples(st.just("zero"), places, lengths),
        st.tuples(st.just("cut"), places, lengths),
        st.tuples(st.just("truncate"), places),
        st.tuples(st.just("garbage"), places, st.binary(min_size=1, max_size=200)),
        st.tuples(st.just("copy"), places, places, lengths),
        st.tuples(st.just("foreign"), places, places, lengths),
    )


def damage(data, how, place, *more):
    """The data with one thing wrong."""
    changed = bytearray(data)
    if how == "flip":
        if place < len(changed):
            changed[place] ^= 1 << more[0]
    elif how == "zero":
        end = min(place + more[0], len(changed))
        changed[place:end] = bytes(max(0, end - place))
    elif how == "cut":
        del changed[place : place + more[0]]
    elif how == "truncate":
        del changed[place:]
    elif how == "garbage":
        changed[place:place] = more[0]
    elif how == "copy":
        changed[place:place] = data[more[0] : more[0] + more[1]]
    else:
        # Its header or its segments: with both in their places, this would be the other file.
        end = more[0] + more[1]
        end = min(end, LOG_START) if more[0] < LOG_START else end
        changed[place:place] = foreign()[more[0] : end]
    return bytes(changed)


@cache
def foreign():
    """Segments of another file: whole, but with another salt."""
    config = evolve(fixed_config(Clock()), id_factory=lambda: UUID(int=77))
    journal = Journal.open(RamStorage(), config)
    for number in range(60):
        journal.commit([command(start(100 + number))])
    return bytes(journal.view.reader.storage.data)


def held(data, damaged, *, followed):
    """How many bytes of ``damaged`` are whole segments of ``data``; with ``followed`` only those
    that stand beside one they were beside."""
    marks, segments = bytearray(len(damaged)), segments_of(data)
    for first, last in pairwise(segments) if followed else zip(segments, segments, strict=True):
        piece = data[first.offset : last.end]
        at = damaged.find(piece)
        while at >= 0:
            marks[at : at + len(piece)] = b"\1" * len(piece)
            at = damaged.find(piece, at + 1)
    return sum(marks)


def possible(before, damaged):
    """Whose events may come back: of two files, those of the one whose header is in its place; if
    neither's is, of the one that has more."""
    files = (before, foreign())
    for data in files:
        if damaged[:36] == data[:36] and held(data, damaged, followed=False):
            return [data]
    sure = [held(data, damaged, followed=True) for data in files]
    most = [held(data, damaged, followed=False) for data in files]
    return [
        data
        for data, size in zip(files, most, strict=True)
        if size >= max(sure) and (size or damaged[:36] == data[:36])
    ]


def origin(before, after):
    """Which of the two files the recovered one comes from, by what it says of its sessions; None
    for an empty one."""
    if not rows_of(after):
        return None
    ids = {UUID(bytes=row[1]).int for _, _, row in rows_of(after).values() if row[0] == STARTED}
    return foreign() if any(99 < number < 200 for number in ids) else before


@given(st.lists(_damages(), min_size=1, max_size=4))
@example([("foreign", 0, 1537, 194)])
@example([("foreign", 0, 1536, 130)])
@example([("foreign", 0, 1536, 130), ("zero", 0, 40), ("foreign", 1536, 1536, 3000)])
@example([("foreign", 0, 0, 36), ("foreign", 3000, 1536, 3000)])
@example([("zero", 0, 36), ("zero", 1536, 3000), ("foreign", 9000, 1536, 3000)])
@example([("cut", 0, 63)])
@example([("truncate", 36), ("foreign", 36, 1536, 65)])
@example([("truncate", 0), ("foreign", 0, 0, 36)])
@example([("flip", 1536, 0), ("garbage", 0, b"\0"), ("truncate", 3653)])
@examples(2)
def test_whatever_is_whole_is_recovered_and_nothing_else(how):
    before = damaged = reference()
    for one in how:
        damaged = damage(damaged, *one)
    try:
        with small_tables():
            found = origin(before, recovered(damaged)[0])
    except NotAStoreError:
        for data in (before, foreign()):
            assert damaged[:36] != data[:36]
            assert not held(data, damaged, followed=True)
        return
    allowed = possible(before, damaged) or [before]
    assert found in (None, *allowed)
    check_recovered(found or allowed[0], damaged)


def test_an_undamaged_file_comes_back_equal():
    before = reference()
    after, report = check_recovered(before, before)
    assert report.complete
    assert not report.damage
    assert rows_of(after) == rows_of(before)
    assert report.event_count == report.last_sequence == max(rows_of(before))
    old = Journal.open(RamStorage(before), fixed_config(), read_only=True)
    new = Journal.open(RamStorage(after), fixed_config(), read_only=True)
    assert answers(new) == answers(old)
    assert new._file.header.file_id != old._file.header.file_id


# --- one thing at a time -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SegmentKind.POSITIONS, SegmentKind.PAGE, SegmentKind.TOC])
def test_what_is_derived_is_made_again_and_nothing_is_lost(kind):
    before = reference()
    derived = [s for s in segments_of(before) if s.kind == kind]
    assert derived
    for segment in derived:
        damaged = damage(before, "flip", segment.offset + HEAD_SIZE, 3)
        after, report = check_recovered(before, damaged)
        assert report.complete, segment
        assert report.damage[0].offset == segment.offset
        assert rows_of(after) == rows_of(before)


def test_slots_and_the_header_are_made_again():
    before = reference()
    for place in (512, 1024, 4, 8, 20, 33):
        after, report = check_recovered(before, damage(before, "flip", place, 1))
        assert report.complete
        assert report.damage
        assert rows_of(after) == rows_of(before)


def test_the_salt_follows_from_two_segments_where_the_beginning_is_gone():
    before = reference()
    third = segments_of(before)[2]
    after, report = check_recovered(before, bytes(third.offset) + before[third.offset :])
    assert report.header_lost
    assert [(span.first, span.last) for span in report.lost] == [(1, third.sequence - 1)]
    assert {*rows_of(after)} >= {*range(third.sequence, max(rows_of(before)))}


def test_a_file_cut_short_below_its_toc_says_how_many_events_there_were():
    before = reference()
    segment = segments_of(before)[40]
    slot = newest_slot(before, decode_header(before[:LOG_START]).salt)
    for cut in (0, 5):
        _, report = check_recovered(before, before[: segment.offset + cut])
        (span,) = report.lost
        assert span.last == slot.sequence
        assert not report.complete
        assert report.unexplained_bytes == slot.end - segment.offset


def test_a_lost_content_is_said_to_be_gone():
    before = reference()
    stored = next(
        s for s in segments_of(before) if s.kind == 1 and decode_rows(s.payload)[2][0][0] == 4
    )
    # The action that it was stored for is in the same segment; others refer to it.
    again = Record(1, kind="put", input=decode_rows(stored.payload)[2][0][2], frames=(1,))
    storage = RamStorage(before)
    journal = Journal.open(storage, fixed_config())
    ((action,), _) = journal.commit([command(again)])
    damaged = damage(bytes(storage.data), "flip", stored.offset + 30, 0)
    after, report = recovered(damaged)
    assert report.lost_contents >= 1
    journal = Journal.open(RamStorage(after), fixed_config())
    session = read_session(journal.view, UUID(int=1))
    found = next(a for a in session.actions if a.sequence == action.sequence)
    with pytest.raises(ContentNotFoundError):
        journal.view.data(found.input)
    assert session.error == ENDED_BY_RECOVERY
    assert session.session_id in report.ended_sessions
    # A content that is lost is stored again when it comes again.
    journal.commit([command(start(9))])
    number = journal.view.state.numbers[UUID(int=9).bytes]
    again = Record(number, kind="put", input=again.input, frames=(1,))
    ((action,), _) = journal.commit([command(again)])
    assert journal.view.data(action.input) == again.input.encode()


def test_a_lost_start_is_made_again_from_a_table_and_says_so():
    before = reference()
    first = segments_of(before)[0]
    after, report = check_recovered(before, damage(before, "flip", first.offset + 30, 0))
    assert report.rebuilt_sessions == (UUID(int=1),)
    journal = Journal.open(RamStorage(after), fixed_config(), read_only=True)
    session = read_session(journal.view, UUID(int=1))
    assert (session.name, session.metadata) == ("session 1", {"recovered": LOST_START})
    assert len(session.actions) > 10


def test_recovering_twice_changes_nothing_more():
    before = reference()
    damaged = damage(damage(before, "zero", 5000, 3000), "flip", 2000, 1)
    once, _ = recovered(damaged)
    twice, report = recovered(once)
    assert report.complete
    assert rows_of(twice) == rows_of(once)


def test_segments_of_another_order_are_put_in_theirs():
    before = reference()
    segments = segments_of(before)
    a, b, c = (segments[i].offset for i in (10, 20, 30))
    after, report = check_recovered(before, before[:a] + before[b:c] + before[a:b] + before[c:])
    assert report.complete
    assert rows_of(after) == rows_of(before)


def test_a_sequence_beyond_belief_is_not_believed():
    before = reference()
    salt = decode_header(before[:LOG_START]).salt
    head, _ = seal(SegmentKind.EVENTS, 2**40, b"\x84\x01\x00\x02\xf6", 0, salt)
    after, report = recovered(before + head + b"\x84\x01\x00\x02\xf6")
    assert rows_of(after) == rows_of(before)
    assert report.last_sequence == max(rows_of(before))


def test_a_segment_that_holds_no_events_is_lost_with_its_sequence():
    before = reference()
    salt = decode_header(before[:LOG_START]).salt
    last = max(rows_of(before))
    head, _ = seal(SegmentKind.EVENTS, last + 1, b"\x80", 0, salt)
    _, report = recovered(before + head + b"\x80")
    assert [(span.first, span.last) for span in report.lost] == [(last + 1, last + 1)]


def test_bytes_that_look_like_heads_everywhere_cost_little():
    before = reference()
    head = struct.pack("<IIIQ", 0, 400_000, 0, 1 << 56 | 7)
    _, report = recovered(before + head * 40_000)
    assert report.unexplained_bytes == 20 * 40_000
    assert not report.lost


# --- files and the command line ----------------------------------------------------------------


def run(*arguments, status=0):
    result = CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="memvid-async")
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.fixture
def damaged_file(tmp_path):
    before = reference()
    path = tmp_path / "damaged.mva"
    path.write_bytes(damage(before, "zero", 6000, 100))
    return path


async def test_recover_writes_a_file_beside_and_tells_how_far_it_is(tmp_path, damaged_file):
    before, told = damaged_file.read_bytes(), []
    out = tmp_path / "out.mva"
    report = await recover(damaged_file, out, progress=lambda *done: told.append(done))
    assert not report.complete
    assert damaged_file.read_bytes() == before
    assert told[-1] == (3 * len(before), 3 * len(before))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.mva", "out.mva"]
    assert out.stat().st_mode == damaged_file.stat().st_mode
    async with open_store(out) as store:
        assert (await store.verify()).ok
        assert store.last_sequence == report.last_sequence
    for wrong, error in [
        ((damaged_file, out), InvalidValueError),
        ((tmp_path / "missing", tmp_path / "new"), StoreNotFoundError),
        ((3, tmp_path / "new"), InvalidValueError),
    ]:
        with pytest.raises(error):
            await recover(*wrong)
    assert not (tmp_path / "new").exists()


async def test_a_cancelled_recovery_leaves_nothing(tmp_path, damaged_file):
    out = tmp_path / "out.mva"
    with anyio.CancelScope() as scope:
        scope.cancel()
        await recover(damaged_file, out)
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.mva"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", NotAStoreError),
        (bytes(5000), NotAStoreError),
        (b"plain text\n" * 1000, NotAStoreError),
    ],
)
def test_what_is_no_store_is_not_recovered(data, error):
    with pytest.raises(error):
        recovered(data)


def test_a_newer_version_is_not_touched():
    fields = bytearray(reference()[:32])
    fields[8] = 9
    data = bytes(fields) + zlib.crc32(fields).to_bytes(4, "little") + reference()[36:]
    with pytest.raises(UnsupportedVersionError):
        recovered(data)


def test_the_command(tmp_path, damaged_file):
    whole, out = tmp_path / "whole.mva", tmp_path / "out.mva"
    whole.write_bytes(reference())
    assert "nothing was lost" in run("recover", whole, tmp_path / "copy.mva").output
    output = run("recover", damaged_file, out, status=1).output
    assert "SOMETHING WAS LOST" in output
    assert "100 bytes from byte" not in output  # whole segments are, not the bytes that changed
    run("verify", out)
    result = run("recover", damaged_file, out, status=2)
    assert "exists already" in result.stderr
    run("recover", damaged_file, status=2)
    text = tmp_path / "text"
    text.write_text("plain")
    run("recover", text, tmp_path / "x", status=1)
    document = json.loads(run("recover", damaged_file, tmp_path / "j", "--json", status=1).stdout)
    assert document["complete"] is False
    assert document["damage"][0]["length"] > 0
    assert document["lost"][0]["first"] <= document["lost"][0]["last"]


async def fill(path):
    async with open_store(path) as store:
        for name in ("kept", "deleted"):
            async with store.session(name) as recorder:
                await recorder.record_put(1, name * 2000)
        await store.delete_session(recorder.session_id)


def test_compact(tmp_path):
    path = tmp_path / "store.mva"
    anyio.run(fill, path)
    before = path.stat().st_size
    output = run("compact", path).output
    assert "compacted 1 time by now" in output
    assert b"deleted" * 10 not in path.read_bytes()
    assert b"kept" * 10 in path.read_bytes()
    document = json.loads(run("compact", path, "--json").stdout)
    assert document["generation"] == 2
    assert document["erased_events"] == 0
    assert document["bytes_after"] < before
    run("verify", path)


def test_compact_makes_no_file_and_changes_none_of_another_kind(tmp_path):
    missing, empty, text = (tmp_path / name for name in ("missing", "empty", "text"))
    empty.touch()
    text.write_text("plain\n" * 500)
    for path in (missing, empty, text, tmp_path):
        result = run("compact", path, status=1)
        assert result.stderr.startswith("memvid-async: error: ")
    assert not missing.exists()
    assert empty.stat().st_size == 0
    assert text.read_text() == "plain\n" * 500
