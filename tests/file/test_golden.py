"""Files of every released format version open for ever, and tell what they always told."""

import json

import pytest

from memvid_async import ActionKind, UnsupportedVersionError
from memvid_async.file.journal import Journal
from memvid_async.file.recover import recover_into
from memvid_async.format.header import LOG_START, decode_header, newest_slot
from memvid_async.format.kinds import FRAME_KINDS, KEYED_KINDS
from memvid_async.format.rows import decode_rows
from memvid_async.format.segment import EVENT_KINDS, SegmentKind
from memvid_async.format.tables import Table
from memvid_async.memory import folded as memory
from memvid_async.storage import FileStorage, RamStorage
from scripts.make_golden import (
    FOLDER,
    frame_answers,
    keyed_answers,
    make,
    make_frames,
    make_keyed,
    plain,
)
from tests.support.asking import answers, verified
from tests.support.naive import fixed_config, start
from tests.support.segments import segments_of

NAMES = ["v2.mva", "v2-torn.mva", "v2-compacted.mva"]


FRAMES = ["v2-frames.mva", "v2-frames-compacted.mva"]
KEYED = ["v2-keyed.mva", "v2-keyed-compacted.mva"]


def told(name):
    path = (FOLDER / name.replace("-torn", "")).with_suffix(".json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_opens_and_every_answer_is_the_one_it_was(name):
    storage = FileStorage.open(FOLDER / name, read_only=True)
    journal = Journal.open(storage, fixed_config(), read_only=True)
    try:
        assert plain(answers(journal)) == told(name)
        assert bool(journal.torn_tail.bytes_dropped) == ("torn" in name)
        assert verified(journal).ok
    finally:
        journal.close()


@pytest.mark.parametrize("read_only", [True, False])
def test_a_file_of_the_version_before_is_refused_by_name(read_only):
    """It was never released but in development; nothing of it is kept but this file."""
    data = (FOLDER / "v1.mva").read_bytes()
    storage = RamStorage(data)
    with pytest.raises(UnsupportedVersionError, match=r"version 1 .* reads version 2"):
        Journal.open(storage, fixed_config(), read_only=read_only)
    with pytest.raises(UnsupportedVersionError, match=r"version 1 .* reads version 2"):
        recover_into(RamStorage(data), RamStorage(), lambda *_: None)
    assert storage.data == data


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_file_can_be_written_on(name):
    storage = RamStorage((FOLDER / name).read_bytes())
    journal = Journal.open(storage, fixed_config())
    before = told(name)
    (number,), _ = journal.commit([start(77)])
    assert number == before["last"][0] + 1
    journal.close()
    again = Journal.open(storage, fixed_config())
    after = plain(answers(again))
    assert after["events"][:-1] == before["events"]
    for question, answer in before.items():
        if question.startswith(("session", "events of")):
            assert after[question] == answer
    assert verified(again).ok


def test_the_script_still_makes_the_same_bytes():
    files, stores = make()
    for name, data in files.items():
        assert data == (FOLDER / name).read_bytes(), f"{name}: see scripts/make_golden.py"
        assert plain(stores[name].answers()) == told(name)


def segments(name):
    return segments_of((FOLDER / name).read_bytes())


def test_the_golden_files_hold_every_kind_there_is():
    found = {s.kind for name in NAMES + FRAMES for s in segments(name)}
    assert found == {*SegmentKind}
    rows = [row for name in FRAMES + KEYED for s in segments(name) for row in rows_of(s)]
    assert {row[0] for row in rows} >= FRAME_KINDS | set(KEYED_KINDS)
    paged = [s for name in ("v2.mva", KEYED[0]) for s in segments(name)]
    assert {s.payload[1] for s in paged if s.kind == SegmentKind.PAGE} == {*Table}
    events = told("v2.mva")["events"] + told("v2-compacted.mva")["events"]
    kinds = {event[4][0] for event in events}
    assert kinds == {
        "started", "ended", "deleted", "content", "action", "checkpoint", "erased", "unknown",
        "begun", "noted", "changed",
    }  # fmt: skip
    sessions = [answer for key, answer in told("v2.mva").items() if key.startswith("session")]
    actions = {action["kind"] for session in sessions for action in session["actions"]}
    assert actions == {*map(str, ActionKind)}


def rows_of(segment):
    return decode_rows(segment.payload)[2] if segment.kind == SegmentKind.EVENTS else []


@pytest.mark.parametrize("with_index", [True, False])
@pytest.mark.parametrize("name", FRAMES)
def test_a_golden_memory_says_what_it_always_said(name, with_index, monkeypatch):
    if not with_index:
        monkeypatch.setattr(memory.FoldedMemory, "_load", lambda *_: None)
    storage = FileStorage.open(FOLDER / name, read_only=True)
    journal = Journal.open(storage, fixed_config(), read_only=True)
    try:
        assert plain(frame_answers(journal)) == told(name)
        assert verified(journal).ok
    finally:
        journal.close()


def test_a_golden_memory_can_be_searched_from_its_saved_index(monkeypatch):
    """It is loaded as it was saved, and the events say the same."""
    journal = Journal.open(
        FileStorage.open(FOLDER / FRAMES[0], read_only=True), fixed_config(), read_only=True
    )
    parts = list(journal.view.reader.projection_pages("memory"))
    folded = memory.FoldedMemory()
    folded.catch_up(journal.view)
    assert folded._saved_at == parts[0][0]
    folded.close()
    journal.close()
    saves = [s for s in segments(FRAMES[0]) if s.kind == SegmentKind.PROJECTION]
    assert [offset for offset, _ in parts] == [s.offset for s in reversed(saves)]
    assert len(parts) == 2
    assert parts[0][1].through > parts[1][1].through


def test_the_script_still_makes_the_same_events_of_frames():
    """The pages of an index are SQLite's: they change with its release."""
    for name, data in make_frames().items():
        kept = segments(name)
        assert [s.payload for s in segments_of(data) if s.kind in EVENT_KINDS] == [
            s.payload for s in kept if s.kind in EVENT_KINDS
        ]


@pytest.mark.parametrize("name", KEYED)
def test_golden_collections_say_what_they_always_said(name):
    storage = FileStorage.open(FOLDER / name, read_only=True)
    journal = Journal.open(storage, fixed_config(), read_only=True)
    try:
        assert plain(keyed_answers(journal)) == told(name)
        assert verified(journal).ok
    finally:
        journal.close()


def test_the_script_still_makes_the_same_collections():
    for name, data in make_keyed().items():
        assert data == (FOLDER / name).read_bytes(), name


def test_the_golden_file_has_a_tail_after_its_last_toc():
    for name in NAMES[:2]:
        data = (FOLDER / name).read_bytes()
        slot = newest_slot(data[:LOG_START], decode_header(data[:LOG_START]).salt)
        assert slot is not None
        tocs = [s for s in segments(name) if s.kind == SegmentKind.TOC]
        assert len(tocs) >= 2
        assert slot.toc == tocs[-1].offset
        assert segments(name)[-1].offset > slot.toc


def test_the_golden_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 250_000
