"""The saved search index: used when a store opens, never trusted, never needed."""

import asyncio
import os

import pytest
from attrs import evolve

from memvid_async import CorruptFileError, StoreConfig, open_store
from memvid_async.core.commands import ChangeMemory
from memvid_async.events.details import ActionKind
from memvid_async.file.file_view import FileView
from memvid_async.file.journal import Journal
from memvid_async.format.header import LOG_START, decode_header
from memvid_async.format.segment import SegmentKind, seal
from memvid_async.format.tables import (
    PAGE_NUMBER,
    decode_projection_pages,
    encode_projection_pages,
)
from memvid_async.memory import folded as memory
from memvid_async.memory.prepare_frames import prepare_frame
from memvid_async.search import saved_pages
from memvid_async.storage import FileStorage, RamStorage
from tests.support.asking import verified
from tests.support.frame_calls import all_ids, ids_of
from tests.support.frame_plans import eager_saving
from tests.support.naive import fixed_config
from tests.support.segments import segments_of
from tests.torture.children import Child

WORDS = ("otter", "river", "fox")


@pytest.fixture
def folded(monkeypatch):
    """The ids of the frames that were folded into an index; 0 for an event that names none."""
    seen = []
    events = FileView.memory_events

    def counted(*given):
        for event, hint in events(*given):
            one = [getattr(event.payload, "frame_id", 0)]
            seen.extend(getattr(event.payload, "frame_ids", one))
            yield event, hint

    monkeypatch.setattr(FileView, "memory_events", counted)
    return seen


# What opening folds.


async def test_after_aclose_opening_folds_less_than_is_worth_a_save(make_store, folded):
    store = await make_store()
    for n in range(40):
        await store.put_many([f"text {n} {k} " + "of an otter " * 20 for k in range(100)])
    await store.aclose()
    folded.clear()
    again = await make_store()
    assert len(await ids_of(again, "otter", top_k=5)) == 5
    assert len(await ids_of(again, '"text 39 99"', top_k=5)) == 1
    # A quarter of a mebibyte of texts of 290 bytes.
    assert len(folded) < 256 * 1024 // 290


async def test_after_a_kill_opening_folds_a_part(tmp_path, folded):
    path = tmp_path / "killed.mva"
    with Child("put_documents", str(path), 4000) as child:
        assert child.hear() == 4000
        # Saving follows the puts; it is done when two saves are there.
        while not (saves := through_of(path)) or saves[0] < 21:
            os.sched_yield()
        child.kill()
    async with open_store(path) as store:
        assert len(await all_ids(store)) == 4000
        assert await ids_of(store, "document3999") == [4000]
        assert await ids_of(store, "document0") == [1]
    # What a save did not hold by then; perhaps it held all.
    assert min(folded, default=4000) > 2000


def through_of(path):
    """How far each saved index goes, the last one first; of a file that is being written."""
    journal = Journal.open(FileStorage.open(path, read_only=True), StoreConfig(), read_only=True)
    try:
        return [part.through for _, part in journal.view.reader.projection_pages("memory")]
    finally:
        journal.release()


async def test_a_find_folds_only_what_is_new(make_store, folded):
    store = await make_store()
    await store.put_many([f"text {n}" for n in range(300)])
    await store.find("text")
    assert len(folded) == 301
    for n in range(5):
        await store.put("one more")
        await store.find("more")
        assert len(folded) == 302 + n


async def test_small_memories_are_not_saved(make_store):
    store = await make_store()
    await store.put_many(["a few words"] * 10)
    await store.find("words")
    await store.aclose()
    assert segments_of(store.path.read_bytes(), SegmentKind.PROJECTION) == []


# Torn, hostile and stale saves.


def saved_file():
    """A small file whose index was saved twice, the second time in changed pages."""
    storage, folded_memory = RamStorage(), memory.FoldedMemory()
    journal = Journal.open(storage, fixed_config())
    for n in range(6):
        texts = [f"{WORDS[k % 3]} number {n} {k}" for k in range(3)]
        frames = tuple(prepare_frame(text, StoreConfig().limits) for text in texts)
        change = ChangeMemory((), ActionKind.PUT_MANY, "english", frames, 0, {}, 1, None, {})
        journal.commit([change])
        if n in (2, 4):
            with eager_saving():
                due = folded_memory.due(journal.view)
            saved_at, _ = journal.save_projection(*due)
            folded_memory.saved(saved_at)
    folded_memory.close()
    # Without the slots: nothing is known to be durable, so that any part of it may be torn.
    storage.data[512:LOG_START] = bytes(LOG_START - 512)
    return bytes(storage.data[: journal.view.end])


@pytest.fixture(scope="module")
def file():
    return saved_file()


def asked(data):
    """Which frames a file's memory finds, and how many events it had to fold."""
    journal = Journal.open(RamStorage(data), fixed_config())
    folded_memory = memory.FoldedMemory()
    index = folded_memory.catch_up(journal.view)
    found = {word: sorted(hit.frame_id for hit in index.find(word)) for word in WORDS}
    count = index.count
    folded_memory.close()
    return found, count, journal


def wanted(count):
    return {WORDS[k]: [n for n in range(1, count + 1) if (n - 1) % 3 == k] for k in range(3)}


def test_the_file_is_as_it_should_be(file, folded):
    found, count, journal = asked(file)
    assert count == 18
    assert found == wanted(18)
    assert len(folded) == 3
    assert len(segments_of(file, SegmentKind.PROJECTION)) == 2
    assert verified(journal).ok


def test_a_save_that_is_torn_anywhere_is_cut_and_folded_anew(file):
    saves = segments_of(file, SegmentKind.PROJECTION)
    for save, frames in zip(saves, (9, 15), strict=True):
        cuts = {save.offset + n for n in range(40)} | {save.end - n for n in range(1, 40)}
        cuts |= set(range(save.offset, save.end, 997))
        for cut in sorted(cuts):
            found, count, journal = asked(file[:cut])
            assert (found, count) == (wanted(frames), frames)
            # Zeros at its end count for nothing.
            assert journal.torn_tail.bytes_dropped <= cut - save.offset
            assert journal.view.end == save.offset
        for at in sorted(cuts):
            torn = bytearray(file[: save.end])
            torn[at] ^= 0xFF
            found, count, journal = asked(bytes(torn))
            assert (found, count) == (wanted(frames), frames)


def rebuilt(data, change):
    """The file with every index segment's payload as ``change`` returns it (None: left out)."""
    salt = decode_header(data[:LOG_START]).salt
    made, previous, moved = bytearray(data[:LOG_START]), salt, {}
    for segment in segments_of(data):
        payload = segment.payload
        if segment.kind == SegmentKind.PROJECTION:
            part = decode_projection_pages(payload)
            part = evolve(part, previous=moved.get(part.previous, part.previous))
            payload = change(part, len(made))
            if payload is None:
                continue
        moved[segment.offset] = len(made)
        head, previous = seal(segment.kind, segment.sequence, payload, previous, salt)
        made += head + payload
    return bytes(made)


def with_field(name, make):
    def change(part, at):
        return encode_projection_pages(evolve(part, **{name: make(getattr(part, name), at)}))

    return change


def flipped(place):
    def make(pages, _):
        changed = bytearray(pages)
        changed[place % len(changed)] ^= 0x55
        return bytes(changed)

    return make


LIES = {
    "left out": lambda part, at: None,
    "through too far": with_field("through", lambda value, _: value + 1000),
    "through less": with_field("through", lambda value, _: value - 1),
    "through nothing": with_field("through", lambda value, _: 0),
    "too many pages": with_field("page_count", lambda value, _: value + 1),
    "a million pages": with_field("page_count", lambda value, _: 2**40),
    "no pages": with_field("page_count", lambda value, _: 0),
    "never the last": with_field("is_last", lambda value, _: False),
    "previous is itself": with_field("previous", lambda value, at: at),
    "previous is forward": with_field("previous", lambda value, at: at + 100),
    "previous is not a save": with_field("previous", lambda value, _: LOG_START),
    "previous is nowhere": with_field("previous", lambda value, _: 3),
    "numbers twice": with_field("numbers", lambda value, _: value[:4] * (len(value) // 4)),
    "pages of zeros": with_field("pages", lambda value, _: bytes(len(value))),
    "empty": with_field("pages", lambda value, _: b""),
    **{f"a bit at {n}": with_field("pages", flipped(n)) for n in range(0, 60_000, 1500)},
    **{f"a bit at {n}": with_field("pages", flipped(n)) for n in (0, 16, 18, 24, 28, 92, 100)},
}


@pytest.mark.parametrize("name", LIES)
def test_a_save_that_lies_is_ignored_or_named(file, name):
    """The segments are whole and sealed; what is in them is not so."""
    try:
        found, count, _ = asked(rebuilt(file, LIES[name]))
    except CorruptFileError:
        # A derived segment that is not even one.
        return
    if name.startswith("a bit"):
        # Whatever a page holds, the frames are those of the log.
        assert count == 18
    else:
        assert (found, count) == (wanted(18), 18)


def test_a_save_of_another_schema_is_folded_anew(file, folded, monkeypatch):
    monkeypatch.setattr("memvid_async.search.schema.VERSION", 10**6)
    found, count, _ = asked(file)
    assert (found, count) == (wanted(18), 18)
    assert len(folded) == 19


async def test_a_save_of_another_language_is_folded_anew(make_store):
    with eager_saving():
        store = await make_store()
        await store.put_many(["many otters", "one otter"])
        await store.find("otter")
        await store.aclose()
    store = await make_store(config=StoreConfig(language="none"))
    assert await ids_of(store, "otter") == [1, 2]


# Saving.


async def test_saves_do_not_pile_up(make_store):
    """Pages that later saves replaced stay in the file; a compaction saves the index once."""
    store = await make_store()
    for n in range(60):
        await store.put_many([f"text {n} {k} " + "some words of it " * 15 for k in range(100)])
        await store.find("words")
    await store.aclose()
    data = store.path.read_bytes()
    saved = sum(s.end - s.offset for s in segments_of(data, SegmentKind.PROJECTION))
    events = sum(s.end - s.offset for s in segments_of(data, SegmentKind.EVENTS))
    assert saved < 4 * events
    store = await make_store()
    await store.compact()
    saves = segments_of(store.path.read_bytes(), SegmentKind.PROJECTION)
    parts = [decode_projection_pages(segment.payload) for segment in saves]
    numbers = [n for part in parts for (n,) in PAGE_NUMBER.iter_unpack(part.numbers)]
    assert sorted(numbers) == list(range(parts[-1].page_count))
    assert len(await ids_of(store, "words", top_k=100)) == 100


async def test_two_writers_that_save_at_once_leave_a_file_that_is_right(make_store):
    with eager_saving():
        one, two = await make_store(), await make_store()
        for n in range(10):
            await asyncio.gather(
                one.put(f"of one {n}"), two.put(f"of two {n}"), one.find("of"), two.find("of")
            )
        await one.aclose()
        await two.aclose()
    again = await make_store()
    assert await all_ids(again) == list(range(1, 21))
    assert sorted(await ids_of(again, "one", top_k=50) + await ids_of(again, "two", top_k=50)) == (
        list(range(1, 21))
    )


async def test_without_a_place_for_temporary_files_all_but_the_save_goes_on(
    make_store, folded, monkeypatch
):
    def refuse(*_given, **_more):
        raise OSError("read-only")

    monkeypatch.setattr(saved_pages, "NamedTemporaryFile", refuse)
    store = await make_store()
    with eager_saving():
        for n in range(4):
            await store.put_many([f"text {n} {k} of an otter" for k in range(100)])
            assert await ids_of(store, f'"text {n} 99"', top_k=5) == [100 * n + 100]
        await store.aclose()
    folded.clear()
    again = await make_store()
    assert await ids_of(again, '"text 3 99"', top_k=5) == [400]
    assert len(folded) > 400
    assert (await again.verify()).ok


async def test_an_almost_full_disk_has_no_saved_index_and_a_store_that_goes_on(
    make_store, monkeypatch
):
    store = await make_store()
    await store.put_many(["a few words"] * 50)
    room = 0
    monkeypatch.setattr(FileStorage, "room", lambda _: room)
    with eager_saving():
        await store.find("words")
        await store.put("more words")
        await store.find("words")
        assert segments_of(store.path.read_bytes(), SegmentKind.PROJECTION) == []
        room = 1 << 40
        await store.put("still more words")
        await store.find("words")
        await store.aclose()
    assert segments_of(store.path.read_bytes(), SegmentKind.PROJECTION)
