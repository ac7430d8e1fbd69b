"""Hundreds of frames that one command put: each is read, erased and found damaged by itself."""

import pytest

from memvid_async import CorruptFileError, Limits
from memvid_async.core.commands import ChangeMemory
from memvid_async.events.details import ActionKind
from memvid_async.events.frames import FrameErased, FramesPut
from memvid_async.file.journal import Journal
from memvid_async.memory.folded import FoldedMemory
from memvid_async.memory.prepare_frames import prepare_frame
from memvid_async.storage import RamStorage
from tests.support.asking import verified
from tests.support.naive import fixed_config

COUNT = 400
BODIES = [
    [f"text {n} é", f"body {n} ".encode(), f"large {n} " * 300, f"titled {n}."][n % 4]
    for n in range(COUNT)
]


class CountingStorage(RamStorage):
    """Counts the bytes that are read."""

    def __init__(self, data=b""):
        super().__init__(data)
        self.read_bytes = 0

    def read(self, offset, length):
        data = super().read(offset, length)
        self.read_bytes += len(data)
        return data


def change(kind, *items, frame_id=0):
    frames = tuple(prepare_frame(item, Limits()) for item in items)
    return ChangeMemory((), ActionKind(kind), "english", frames, frame_id, {}, 1, None, {})


@pytest.fixture
def opened():
    storage = CountingStorage()
    journal = Journal.open(storage, fixed_config())
    items = [
        {"content": body, "title": f"title {n}", "tags": ["a"]} if n % 4 == 3 else body
        for n, body in enumerate(BODIES)
    ]
    ((ids, _),), _ = journal.commit([change("put_many", *items)])
    assert ids == list(range(1, COUNT + 1))
    return storage, journal


def put_of(view):
    (found,) = [e for e in view.events_after(0, 2**40) if isinstance(e.payload, FramesPut)]
    return found


def body(view, version):
    content = view.frame_content_of(version)
    return None if content is None else view.value(content)


def test_each_frame_is_read_by_its_version(opened):
    _, journal = opened
    sequence = put_of(journal.view).sequence
    for place, given in enumerate(BODIES):
        assert body(journal.view, (sequence, place)) == given
    with pytest.raises(CorruptFileError, match="no part at place"):
        journal.view.frame_content_of((sequence, COUNT))


def test_reading_and_folding_them_reads_the_segment_not_once_for_each(opened):
    storage, journal = opened
    size, view = len(storage.data), journal.view
    sequence = put_of(view).sequence
    for places in (range(COUNT), range(COUNT - 1, -1, -1)):
        storage.read_bytes = 0
        for place in places:
            body(view, (sequence, place))
        assert storage.read_bytes < 4 * size
    storage.read_bytes = 0
    folded = FoldedMemory()
    assert len(folded.catch_up(view).scan(limit=2 * COUNT)) == COUNT
    assert storage.read_bytes < 4 * size
    folded.close()


def test_a_byte_that_changed_since_is_noticed_in_its_frame_alone(opened):
    storage, journal = opened
    sequence = put_of(journal.view).sequence
    assert body(journal.view, (sequence, 8)) == BODIES[8]
    at = storage.data.index(b"text 40 ")
    storage.data[at] ^= 1
    for place in (36, 39, 44):
        assert body(journal.view, (sequence, place)) == BODIES[place]
    with pytest.raises(CorruptFileError, match="have changed"):
        journal.view.frame_content_of((sequence, 40))


def test_compaction_erases_single_frames_and_keeps_what_is_folded(opened):
    _, journal = opened
    gone = {2, 3, 4, 5, COUNT}
    for frame_id in sorted(gone):
        ((_, _),), _ = journal.commit([change("delete", frame_id=frame_id)])
    before = journal.view.state.memory
    journal.compact(lambda *_: None)
    view = journal.view
    assert view.state.memory == before
    assert verified(journal).ok
    event = put_of(view)
    for place, frame in enumerate(event.payload):
        erased = place + 1 in gone
        assert isinstance(frame, FrameErased) == erased
        assert body(view, (event.sequence, place)) == (None if erased else BODIES[place])
    data = bytes(view.reader.storage.data)
    for frame_id in gone:
        raw = BODIES[frame_id - 1]
        assert (raw.encode() if isinstance(raw, str) else raw) not in data
