"""The memory index: whatever happened to it, it answers as one made afresh."""

import contextlib
import math
import random
import sqlite3
import struct
import sys
import tempfile
import threading

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from memvid_async import InvalidValueError
from memvid_async.search import (
    Batch,
    DamagedSearchIndexError,
    Filters,
    IndexedFrame,
    InterruptedFindError,
    SearchIndex,
    ranking,
    saved_pages,
    words,
)
from memvid_async.search import search_index as search_index_module
from memvid_async.search.filters import conditions
from memvid_async.search.fusion import fuse
from memvid_async.search.saved_pages import SavedPages, complete
from memvid_async.search.schema import PAGE_SIZE
from tests.support.depth import TOGETHER

WORDS = ["fox", "dog", "running", "runs", "the", "日本語", "naïve", "a-b", "x\0y", "tree", "river"]
TEXT = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
VECTOR = st.none() | st.tuples(st.integers(-2, 2), st.integers(1, 2)).map(
    lambda pair: struct.pack("<2f", *pair)
)
FIELDS = st.fixed_dictionaries(
    {
        "title": st.none() | TEXT,
        "uri": st.none() | st.sampled_from(["mem://a/1", "mem://a/2", "mem://b", ""]),
        "media_type": st.sampled_from([None, "text/plain"]),
        "tags": st.lists(st.sampled_from(["red", "blue sky", "x"]), max_size=3).map(tuple),
        "metadata": st.dictionaries(st.sampled_from(["k", "n"]), st.integers(0, 2), max_size=2),
        "embedding": VECTOR,
    }
)
QUERIES = [
    "getfox",
    "C++",
    "fox",
    "the fox",
    "run dog river",
    '"fox dog"',
    "tree -fox",
    "title:fox",
    "日本",
    "na*",
]
FILTERS = [None, Filters(tags=("red",)), Filters(uri="mem://a"), Filters(metadata={"k": 1})]
QUESTION = struct.pack("<2f", 1, 1)


class Memory:
    """An index, and what it should hold: rows and texts by id."""

    def __init__(self):
        self.texts = {}
        self.rows = {}
        self.index = SearchIndex(self.read_text)

    def read_text(self, hint, version, media_type):
        return self.texts[hint]

    def put(self, frame_id, text, **fields):
        row = IndexedFrame(frame_id, frame_id, frame_id, frame_id * 10, frame_id * 10, **fields)
        self.texts[frame_id] = text
        self.rows[frame_id] = row
        self.index.put(row, text)

    def update(self, frame_id, text, **fields):
        row = evolve(self.rows[frame_id], **fields)
        self.index.update(row, text, self.texts[frame_id])
        self.texts[frame_id], self.rows[frame_id] = text, row

    def delete(self, frame_id):
        self.index.delete(frame_id, self.texts.pop(frame_id))
        del self.rows[frame_id]

    def afresh(self):
        """An index of the same frames that never held anything else."""
        index = SearchIndex(self.read_text)
        for frame_id in sorted(self.rows):
            index.put(self.rows[frame_id], self.texts[frame_id])
        return index


def together(memory):
    """An index of the same frames that were put by as few statements as can be."""
    index, batch = SearchIndex(memory.read_text), Batch()
    for frame_id in sorted(memory.rows):
        batch.add(memory.rows[frame_id], memory.texts[frame_id])
        if batch.is_full:
            index.put_many(batch)
            batch = Batch()
    index.put_many(batch)
    return index


def answers(index):
    """Everything that can be asked."""
    given = [index.count, index.scan(), index.scan(newest_first=True, limit=2)]
    for chosen in FILTERS:
        given.append(index.scan(filters=chosen))
        for query in QUERIES:
            for mode in ("lexical", "semantic", "hybrid"):
                for top_k in (1, 3, 50):
                    hits = index.find(query, QUESTION, mode=mode, top_k=top_k, filters=chosen)
                    given += hits
            places = index.places([hit.frame_id for hit in hits])
            given += [sorted(places.items()), sorted(index.snippets(query, places).items())]
    return given


class Histories(RuleBasedStateMachine):
    """Random puts, updates, deletes, dumps and loads."""

    frames = Bundle("frames")

    def __init__(self):
        super().__init__()
        self.memory = Memory()
        self.next_id = 1
        self.saved = {}

    @rule(target=frames, text=TEXT, fields=FIELDS)
    def put(self, text, fields):
        frame_id, self.next_id = self.next_id, self.next_id + 1
        self.memory.put(frame_id, text, **fields)
        return frame_id

    @rule(frame_id=frames, text=TEXT, fields=FIELDS)
    def update(self, frame_id, text, fields):
        self.memory.update(frame_id, text, **fields)

    @rule(frame_id=consumes(frames))
    def delete(self, frame_id):
        self.memory.delete(frame_id)

    @rule()
    def find(self):
        self.memory.index.find("fox", QUESTION, mode="hybrid")

    @rule(load=st.booleans())
    def dump(self, load):
        index = self.memory.index
        index.through = self.next_id
        dump = index.dump()
        self.saved |= dict(dump.pages)
        # SQLite counts in its header how often the database was copied.
        assert {number for number, _ in index.dump().pages} <= {0}
        if load:
            index.close()
            self.memory.index = SearchIndex(self.memory.read_text)
            self.memory.index.load(dump.page_count, list(self.saved.items()))
            assert self.memory.index.through == self.next_id

    @invariant()
    def rows_are_there(self):
        assert self.memory.index.scan(limit=1_000) == list(self.memory.rows.values())

    def teardown(self):
        fresh = self.memory.afresh()
        assert answers(self.memory.index) == answers(fresh)
        fresh.close()
        self.memory.index.close()


TestHistories = Histories.TestCase


@pytest.fixture
def memory():
    made = Memory()
    yield made
    made.index.close()


def fill(memory, count, seed=1):
    """Frames whose words are common and rare as those of a language are."""
    rng = random.Random(seed)
    vocabulary = [f"word{number}" for number in range(500)]
    weights = [1 / (rank + 1) for rank in range(500)]
    for frame_id in range(len(memory.rows) + 1, len(memory.rows) + count + 1):
        picked = rng.choices(vocabulary, weights, k=rng.randint(5, 25))
        title = " ".join(rng.choices(vocabulary, weights, k=3)) if rng.random() < 0.2 else None
        memory.put(frame_id, " ".join(picked), title=title, tags=(f"t{frame_id % 3}",))


def test_deleting_leaves_no_trace_in_the_scores(memory):
    fill(memory, 300)
    for frame_id in range(1, 301, 2):
        memory.delete(frame_id)
    fresh = memory.afresh()
    for number in range(0, 60, 3):
        query = f"word{number} word{number + 1}"
        assert memory.index.find(query, top_k=50) == fresh.find(query, top_k=50)
    fresh.close()


@pytest.mark.parametrize("chosen", [None, Filters(tags=("t1",))])
@pytest.mark.parametrize("excluded", ["", " -word7"])
def test_not_scoring_most_rows_changes_nothing(memory, monkeypatch, chosen, excluded):
    fill(memory, 2_000)
    monkeypatch.setattr(ranking, "_COMMON_WEIGHT", 0.0)
    rng = random.Random(5)
    queries = [
        " ".join(f"word{rng.choice([rng.randrange(4), rng.randrange(500)])}" for _ in range(size))
        + excluded
        for size in (2, 2, 3, 3, 4, 5, 8) * 6
    ]
    shortened = again = 0
    real = words._best
    asked = []

    def counting(run, match, top_k, chosen):
        asked.append(match.removesuffix('NOT ("word7")'))
        return real(run, match, top_k, chosen)

    for query in queries:
        for top_k in (1, 10):
            monkeypatch.setattr(ranking, "FEW_ROWS", 10**9)
            plain = memory.index.find(query, top_k=top_k, filters=chosen)
            monkeypatch.setattr(ranking, "FEW_ROWS", 32)
            monkeypatch.setattr(words, "_best", counting)
            asked.clear()
            assert memory.index.find(query, top_k=top_k, filters=chosen) == plain
            # The last part of a try that succeeded; a second one is of more words.
            shortened += " NOT (" in asked[-1]
            again += " NOT (" in asked[-1] and len(asked) > 2
            monkeypatch.setattr(words, "_best", real)
    assert shortened > 20
    assert again > 2


COUNTS = st.lists(st.integers(0, 4_000), min_size=2, max_size=10).map(sorted)


@given(counts=COUNTS, top_k=st.integers(1, 50))
def test_a_first_try_scores_few_rows_and_enough(counts, top_k):
    few = ranking.first_try(counts, top_k)
    if few:
        assert sum(counts) >= ranking.FEW_ROWS
        assert top_k <= sum(counts[:few]) <= sum(counts) / 8 < sum(counts[: few + 1])


@given(counts=COUNTS, score=st.floats(0, 200))
def test_rows_without_the_words_that_are_needed_score_less(counts, score):
    most = [ranking.most_from(count, 4_000) for count in counts]
    few = ranking.needed(counts, 4_000, score)
    assert few == len(counts) or sum(most[few:]) < score * (1 + 1e-9)
    assert few == 0 or sum(most[few - 1 :]) > score * (1 - 1e-9) - 1e-9


def test_how_many_frames_have_a_word_is_counted_again_after_a_change(memory, monkeypatch):
    monkeypatch.setattr(ranking, "FEW_ROWS", 32)
    for frame_id in range(1, 400):
        memory.put(frame_id, "a tree" if frame_id <= 10 else "a fox")
    assert memory.index.find("fox tree", top_k=1)[0].frame_id == 1
    for frame_id in range(12, 400):
        memory.update(frame_id, "a dog")
    # Now it is the fox that is rare.
    assert [hit.frame_id for hit in memory.index.find("fox tree", top_k=2)] == [11, 1]


def test_what_was_found_before_changes_no_score(memory):
    """The weight of a common word depends on how many frames have it now."""
    for frame_id in range(1, 9):
        memory.put(frame_id, "a fox" if frame_id < 8 else "a dog")
    memory.index.find("fox")
    for frame_id in (1, 2, 3):
        memory.delete(frame_id)
    loaded = SearchIndex(memory.read_text)
    dump = memory.index.dump()
    loaded.load(dump.page_count, dump.pages)
    assert memory.index.find("fox") == loaded.find("fox")
    loaded.close()


def test_the_bound_of_a_word_holds(memory):
    for frame_id, text in enumerate(["fox " * 1_000, "fox", "tree " * 50, "river", "dog"], start=1):
        memory.put(frame_id, text, title=text)
    best = memory.index.find("fox")[0].score
    assert 0.95 * ranking.most_from(2, 5) <= best <= ranking.most_from(2, 5)


@given(total=st.integers(1, 10**6), share=st.floats(0, 1))
def test_no_word_weighs_nothing(total, share):
    count = max(1, round(total * share))
    odds = (total - count + 0.5) / (count + 0.5)
    weight = ranking.weight_again(count, total) * (math.log(odds) if odds > 1 else 1e-6)
    assert weight >= 0.01
    assert weight == pytest.approx(max(math.log(odds), 0.01 * (1 + min(odds, 1))))


@pytest.mark.parametrize("chosen", [None, Filters(tags=("t1",))])
def test_common_words_order_as_bm25_does(memory, chosen):
    """By hand: a word of all rows, weighed by its frequency and the length of the row."""
    fill(memory, 60)
    for frame_id in range(61, 91):
        words = ["common"] * (frame_id % 4 + 1) + ["filler"] * (frame_id % 7)
        memory.put(frame_id, " ".join(words), tags=(f"t{frame_id % 3}",))
        memory.index.delete(frame_id - 60, memory.texts.pop(frame_id - 60))
        memory.index.delete(frame_id - 30, memory.texts.pop(frame_id - 30))
    lengths = {i: i % 4 + 1 + i % 7 + 1 for i in range(61, 91)}
    average = sum(lengths.values()) / len(lengths)

    def share(frame_id):
        times = 1.5 * (frame_id % 4 + 1)
        return times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths[frame_id] / average))

    expected = {i: share(i) for i in lengths if chosen is None or i % 3 == 1}
    hits = memory.index.find("common", top_k=50, filters=chosen)
    assert {hit.frame_id for hit in hits} == set(expected)
    weight = hits[0].score / expected[hits[0].frame_id]
    assert 0.01 <= weight <= 0.02
    for hit in hits:
        assert hit.score == pytest.approx(weight * expected[hit.frame_id], abs=2e-6)
    both = memory.index.find('common -filler "common common"', top_k=50, filters=chosen)
    assert {hit.frame_id for hit in both} == {i for i in expected if i % 4 and not i % 7}


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (Filters(), {1, 2, 3, 4}),
        (Filters(tags=("a",)), {1, 2}),
        (Filters(tags=("a", "b")), {2}),
        (Filters(tags=("a b",)), set()),
        (Filters(uri="mem://x"), {1, 2}),
        (Filters(uri="mem://x/1"), {1}),
        (Filters(uri="mem://\ud7ff"), {3}),
        (Filters(uri="\U0010ffff"), {4}),
        (Filters(title="One"), {1}),
        (Filters(media_type="text/plain"), {1}),
        (Filters(since_ns=20, until_ns=40), {2, 3}),
        (Filters(metadata={"n": 1}), {1}),
        (Filters(metadata={"n": 1.0}), {2}),
        (Filters(metadata={"n": True}), {3}),
        (Filters(metadata={"deep": {"b": 1, "a": [2]}}), {4}),
        (Filters(metadata={"a": [2]}), set()),
        (Filters(metadata={"n": 1, "m": b"x"}), {1}),
    ],
)
def test_filters(memory, chosen, expected):
    memory.put(
        1, "w", tags=("a",), uri="mem://x/1", title="One", media_type="text/plain",
        metadata={"m": b"x", "n": 1},
    )  # fmt: skip
    memory.put(2, "w", tags=("b", "a"), uri="mem://x/2", metadata={"n": 1.0})
    memory.put(3, "w", tags=("ab",), uri="mem://\ud7ff/", metadata={"n": True})
    memory.put(4, "w", uri="\U0010ffff\U0010ffff", metadata={"deep": {"a": [2], "b": 1}})
    assert {row.frame_id for row in memory.index.scan(filters=chosen)} == expected
    assert {hit.frame_id for hit in memory.index.find("w", filters=chosen)} == expected


@pytest.mark.parametrize(
    "chosen",
    [
        Filters(tags=("\ud800",)),
        Filters(title="\ud800"),
        Filters(since_ns=2**63),
        Filters(metadata={"a": object()}),
    ],
)
def test_a_filter_that_no_frame_can_pass_is_refused(memory, chosen):
    with pytest.raises(InvalidValueError):
        memory.index.find("a", filters=chosen)
    with pytest.raises(InvalidValueError):
        conditions(chosen)


def test_pages_of_a_scan(memory):
    for frame_id in range(1, 8):
        memory.put(frame_id, "w")
    scan = memory.index.scan
    assert [row.frame_id for row in scan(limit=3)] == [1, 2, 3]
    assert [row.frame_id for row in scan(after_id=3, limit=3)] == [4, 5, 6]
    assert [row.frame_id for row in scan(newest_first=True, limit=2)] == [7, 6]
    assert [row.frame_id for row in scan(newest_first=True, after_id=6, limit=2)] == [5, 4]


def test_more_hits_than_a_statement_takes_parameters(memory):
    for frame_id in range(1, 1_001):
        memory.put(frame_id, f"fox {frame_id}")
    hits = memory.index.find("fox", top_k=2_000)
    places = memory.index.places([hit.frame_id for hit in hits])
    made = memory.index.snippets("fox", places)
    assert made == {frame_id: f"[fox] {frame_id}" for frame_id in range(1, 1_001)}


def test_snippets(memory):
    long = "begin " * 20_000 + "the needle is here " + "end " * 100
    memory.put(1, "A short text about foxes and dogs")
    memory.put(2, long)
    memory.put(3, "x" * 1_000)
    memory.put(4, "東京タワー", title="needle")
    places = memory.index.places([1, 2, 3, 4, 5])
    made = memory.index.snippets("fox needle 東京", places)
    assert made[1] == "A short text about [foxes] and dogs"
    assert "[needle]" in made[2]
    assert len(made[2]) < 500
    assert made[3] == "x" * 320 + "…"
    assert made[4] == "[東京]タワー"
    assert 5 not in made
    assert memory.index.snippets(None, {1: places[1]}) == {1: "A short text about foxes and dogs"}


def test_what_does_not_change_cannot_be_lost(memory):
    memory.put(1, "fox")
    with pytest.raises(KeyError):
        memory.index.delete(2, "")
    with pytest.raises(KeyError):
        memory.index.update(IndexedFrame(2, 1, 1, 1, 1), "", "")
    with pytest.raises(DamagedSearchIndexError):
        memory.index.put(IndexedFrame(1, 1, 1, 1, 1), "again")


def test_clearing_forgets_everything(memory):
    memory.put(1, "fox", embedding=QUESTION)
    memory.index.through = 3
    memory.index.dump()
    memory.index.clear()
    assert (memory.index.count, memory.index.through) == (0, 0)
    assert memory.index.find("fox") == []
    dump = memory.index.dump()
    assert len(dump.pages) == dump.page_count


def test_pages_are_rewritten_few_times(memory):
    saved, marks = 0, {round(500 * 1.06**step) for step in range(60)}
    rng = random.Random(1)
    for frame_id in range(1, 6_001):
        memory.put(frame_id, " ".join(f"w{int(rng.paretovariate(0.6))}" for _ in range(40)))
        if frame_id in marks:
            saved += len(memory.index.dump().pages)
    dump = memory.index.dump()
    print(f"{saved + len(dump.pages)} pages saved for {dump.page_count}")
    assert saved + len(dump.pages) <= 4 * dump.page_count


# Loading what others may have made.


@pytest.fixture
def image(memory):
    fill(memory, 50)
    memory.put(51, "more", embedding=QUESTION, metadata={"a": 1}, tags=("t",))
    dump = memory.index.dump()
    return b"".join(complete(dump.page_count, dump.pages, 2**30))


def cut(image):
    """An image as a load takes it."""
    pages = [
        (at // PAGE_SIZE, image[at : at + PAGE_SIZE]) for at in range(0, len(image), PAGE_SIZE)
    ]
    return len(pages), pages


def ask_everything(memory, count, pages):
    index = SearchIndex(memory.read_text)
    try:
        index.load(count, pages)
        answers(index)
        for row in index.scan():
            index.delete(row.frame_id, memory.texts.get(row.frame_id, ""))
            index.put(evolve(row, frame_id=row.frame_id + 1_000), "a text")
    finally:
        index.close()


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_image_is_refused_or_named(memory, image, seed):
    rng = random.Random(seed)
    broken = bytearray(image)
    for _ in range(rng.choice([1, 3, 30])):
        at = rng.randrange(len(broken))
        broken[at] ^= 1 << rng.randrange(8)
    with contextlib.suppress(ValueError, DamagedSearchIndexError, KeyError):
        ask_everything(memory, *cut(bytes(broken)))


def altered(image, *statements):
    """The image after somebody ran these statements on it."""
    connection = sqlite3.connect(":memory:")
    connection.deserialize(image)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    changed = connection.serialize()
    connection.close()
    return changed


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (a)",
        "CREATE TRIGGER t AFTER INSERT ON frames BEGIN DELETE FROM tags; END",
        "CREATE VIEW v AS SELECT load_extension('x')",
        "DROP INDEX frames_uri",
        "ALTER TABLE frames ADD COLUMN more TEXT",
        "PRAGMA user_version = 999",
        "PRAGMA application_id = 5",
        "DELETE FROM progress",
    ],
)
def test_another_schema_is_refused(memory, image, statement):
    index = memory.index
    count = index.count
    with pytest.raises(ValueError, match="saved index"):
        index.load(*cut(altered(image, statement)))
    assert index.count == count
    assert index.find("word1")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE frames SET metadata = x'ff' WHERE id = 51",
        "UPDATE frames SET metadata = x'01' WHERE id = 51",
        "UPDATE frames SET tags = '{' WHERE id = 51",
        "UPDATE frames SET tags = '[1]' WHERE id = 51",
        "DELETE FROM words_data",
        "UPDATE words_data SET block = x'00' WHERE id > 10",
        "UPDATE vectors SET embedding = x'00'",
    ],
)
def test_contents_that_cannot_be_are_named_when_met(memory, image, statement):
    with pytest.raises((DamagedSearchIndexError, ValueError)):
        ask_everything(memory, *cut(altered(image, statement)))


@pytest.mark.parametrize(
    ("count", "pages"),
    [
        (0, []),
        (-1, []),
        (2**40, []),
        (1, []),
        (2, [(0, bytes(PAGE_SIZE))]),
        (1, [(0, b"short")]),
        (1, [(0, bytes(PAGE_SIZE))]),
        (1, [(0, b"SQLite format 3\0" + b"\xff" * (PAGE_SIZE - 16))]),
    ],
)
def test_pages_that_are_no_image_are_refused(memory, count, pages):
    memory.put(1, "fox")
    with pytest.raises(ValueError, match=r"saved index|page"):
        memory.index.load(count, pages)
    assert memory.index.find("fox")


def test_an_image_that_wants_a_log_beside_it_is_refused(memory, image):
    """It would be a file whose name the image's maker can guess."""
    logged = bytearray(image)
    logged[18:20] = b"\2\2"
    with pytest.raises(ValueError, match="one file"):
        memory.index.load(*cut(bytes(logged)))
    assert memory.index.find("word1")


def test_images_leave_no_file_behind(memory, image, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    memory.index.load(*cut(image))
    memory.index.dump()
    if sys.platform != "darwin":
        assert list(tmp_path.iterdir()) == []
    memory.index.rest()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("broken", ["file", "database", "copy"])
def test_without_room_for_an_image_nothing_changes(memory, image, broken, tmp_path, monkeypatch):
    def refuse(*_given, **_more):
        raise (OSError if broken == "file" else sqlite3.OperationalError)("no room")

    memory.index.rest()
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        if broken == "copy":
            memory.index.dump()
            memory.index._image.connection.close()
        else:
            patch.setattr(
                saved_pages, "NamedTemporaryFile" if broken == "file" else "connect", refuse
            )
            with pytest.raises(OSError, match="no room"):
                memory.index.load(*cut(image))
        memory.put(52, "zebra")
        with pytest.raises(OSError, match=r"room|copied"):
            memory.index.dump()
        assert list(tmp_path.iterdir()) == []
    assert memory.index.find("word1")
    assert memory.index.dump().pages


def test_an_index_of_another_language_is_refused(memory, image):
    index = SearchIndex(memory.read_text, language="none")
    with pytest.raises(ValueError, match="schema"):
        index.load(*cut(image))
    index.close()


def test_the_last_of_a_page_given_twice_counts():
    first, second = b"a" * PAGE_SIZE, b"b" * PAGE_SIZE
    assert complete(1, [(0, first), (7, first), (0, second)], 2**20) == [second]


def test_only_what_changed_is_saved():
    saved = SavedPages()
    first, second = b"a" * PAGE_SIZE, b"b" * PAGE_SIZE
    assert saved.changed([first, second]).pages == [(0, first), (1, second)]
    assert saved.changed([first, first]).pages == [(1, first)]
    shrunk = saved.changed([first])
    assert (shrunk.page_count, shrunk.pages) == (1, [])
    assert saved.changed([first, first]).pages == [(1, first)]
    saved.forget()
    assert saved.changed([first]).pages == [(0, first)]


# Stopping.


def test_a_find_is_stopped_from_another_thread(monkeypatch):
    entered, go_on, asked = threading.Event(), threading.Event(), []

    def waiting(*pair):
        asked.append(pair)
        entered.set()
        return go_on.wait(30)

    monkeypatch.setattr(search_index_module, "has_metadata", waiting)
    monkeypatch.setattr(search_index_module, "_STEPS", 10)
    memory = Memory()
    for frame_id in range(1, 301):
        memory.put(frame_id, f"fox tree{frame_id}", metadata={"k": 1})
    caught = []

    def find():
        try:
            memory.index.find("fox", filters=Filters(metadata={"k": 1}))
        except InterruptedFindError as error:
            caught.append(error)

    finder = threading.Thread(target=find)
    finder.start()
    assert entered.wait(30)
    memory.index.interrupt()
    go_on.set()
    finder.join(30)
    assert len(caught) == 1
    assert len(asked) < 300
    # Whatever was put is there still, saved or not, and the next find and write go on.
    memory.put(301, "fox")
    assert len(memory.index.find("fox", top_k=1_000)) == 301
    memory.index.close()


def test_stopping_nothing_stops_nothing(memory):
    memory.index.interrupt()
    memory.put(1, "fox")
    memory.index.interrupt()
    assert memory.index.find("fox")


# Fusion.

SCORES = st.dictionaries(st.integers(1, 20), st.floats(-1, 10, allow_subnormal=False))


@given(lexical=SCORES, semantic=SCORES, top_k=st.integers(0, 30))
def test_fusion_is_a_fixed_order(lexical, semantic, top_k):
    hits = fuse(lexical, semantic, top_k)
    assert len(hits) == min(top_k, len({*lexical, *semantic}))
    assert all(0 <= hit.score <= 1.4 for hit in hits)
    order = [(-hit.score, hit.frame_id) for hit in hits]
    assert order == sorted(order)
    assert hits == fuse(lexical, semantic, 30)[:top_k]


def test_fusion_by_hand():
    hits = fuse({1: 4.0, 2: 2.0}, {2: 0.8, 9: 0.4, 12: -0.5}, 10)
    assert [(hit.frame_id, hit.score) for hit in hits] == [
        (2, 0.8),  # half of a half, half of all, and a fifth of the square of its neighbour's half
        (1, 0.6125),
        (9, 0.2505),
        (12, 0.00075),
    ]
    # Cosines below 0 are told apart, also where there is nothing else.
    unlike = fuse({}, {1: -0.9, 2: -0.5, 3: -0.1, 4: -1.0, 5: 0.0}, 10)
    assert [hit.frame_id for hit in unlike] == [5, 3, 2, 1, 4]
    assert all(hit.score > 0 for hit in unlike)


# Many at once.


@pytest.mark.parametrize("count", TOGETHER)
def test_many_together_are_as_one_by_one(count):
    memory, rng = Memory(), random.Random(count)
    vectors = [struct.pack("<2f", at, 1) for at in range(3)]
    for frame_id in range(1, count + 1):
        fields = {
            "tags": rng.choice([(), ("red",), ("red", "x")]),
            "title": rng.choice([None, "a"]),
        }
        if frame_id % 7 == 0:
            fields["embedding"] = rng.choice(vectors)
        memory.put(frame_id, " ".join(rng.choices(WORDS, k=12)), **fields)
    index = together(memory)
    assert answers(index) == answers(memory.index)
    index.delete(1, memory.texts[1])
    memory.delete(1)
    assert answers(index) == answers(memory.index)


def test_an_sqlite_that_takes_few_parameters_is_given_no_more(monkeypatch):
    connect = sqlite3.connect

    def connect_to_few(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect_to_few)
    memory = Memory()
    for frame_id in range(1, 600):
        memory.put(frame_id, f"fox {frame_id} " + "over the lazy dog " * 20)
    assert answers(together(memory)) == answers(memory.index)


def test_a_text_is_as_a_row_that_is_nothing_else():
    plain, rows = Memory(), Memory()
    batch = Batch()
    for frame_id, text in enumerate(["a fox", "", "日本語 naïve", "x\0y", "getFox() in C++"], 1):
        size = len(text.encode())
        rows.put(frame_id, text, size=size)
        plain.texts[frame_id] = text
        batch.add_text(frame_id, (frame_id, 0), frame_id, frame_id * 10, text)
    plain.index.put_many(batch)
    assert answers(plain.index) == answers(rows.index)


def test_a_batch_with_an_embedding_that_does_not_fit_adds_nothing():
    index, batch = SearchIndex(lambda *_: ""), Batch()
    batch.add(IndexedFrame(1, 1, 1, 1, 1, embedding=bytes(8)), "one")
    batch.add(IndexedFrame(2, 2, 2, 2, 2, embedding=bytes(12)), "two")
    with pytest.raises(InvalidValueError, match="dimensions"):
        index.put_many(batch)
    assert (index.count, index.scan()) == (0, [])
    index.put(IndexedFrame(3, 3, 3, 3, 3, embedding=bytes(12)), "three")
    assert index.count == 1


def test_a_batch_is_full_with_many_frames_or_much_text_or_long_embeddings():
    def frames_until_full(text, embedding):
        batch = Batch()
        while not batch.is_full:
            number = batch.count + 1
            batch.add(IndexedFrame(number, 1, 1, 1, 1, embedding=embedding), text)
        return batch.count

    assert frames_until_full("", None) == 1000
    assert frames_until_full("x" * 2**18, None) == 2
    assert frames_until_full("", bytes(2**16)) == 8
