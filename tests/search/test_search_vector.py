"""Vectors: exact cosines, whatever else is there; dimensions and models that do not mix."""

import importlib.util
import math
import struct
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async import InvalidValueError
from memvid_async.search import Filters, IndexedFrame, SearchIndex
from memvid_async.search import search_index as index_module
from memvid_async.search.vectors import ExactVectors, check_vector

np = pytest.importorskip("numpy")

MODEL = "a-model"
SMALL = st.integers(-3, 3)
VECTOR = st.tuples(SMALL, SMALL, SMALL).filter(any)


def packed(*values):
    return struct.pack(f"<{len(values)}f", *values)


def cosine(a, b):
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def row(number, vector=None, model=MODEL, **fields):
    if vector is not None:
        fields |= {"embedding": packed(*vector), "embedding_model": model}
    return IndexedFrame(number, number, 0, number, number, **fields)


@pytest.fixture
def index():
    made = SearchIndex(lambda hint, version, media_type: "")
    yield made
    made.close()


@given(
    kept=st.dictionaries(st.integers(1, 30), VECTOR, max_size=25),
    gone=st.lists(st.integers(1, 30)),
    replaced=st.dictionaries(st.integers(1, 30), VECTOR),
    query=VECTOR,
    top_k=st.integers(1, 12),
)
def test_the_best_are_those_of_a_plain_loop(kept, gone, replaced, query, top_k):
    vectors = ExactVectors(3)
    vectors.put([(number, packed(*vector)) for number, vector in kept.items()])
    for number in gone:
        vectors.remove(number)
        kept.pop(number, None)
    vectors.put([(number, packed(*vector)) for number, vector in replaced.items()])
    kept |= replaced
    scores = vectors.search(packed(*query), top_k, None)
    expected = sorted((-round(cosine(vector, query), 6), key) for key, vector in kept.items())
    found = sorted((-round(score, 6), key) for key, score in scores.items())
    assert [key for _, key in found[:top_k]] == [key for _, key in expected[:top_k]]
    assert scores == pytest.approx({key: cosine(kept[key], query) for key in scores}, abs=1e-6)
    assert vectors.cosines(packed(*query), kept) == pytest.approx(
        {key: cosine(vector, query) for key, vector in kept.items()}, abs=1e-6
    )


def test_a_score_does_not_depend_on_which_others_there_are():
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(3_000, 384)).astype("<f4")
    rows[1_500] = rows[17]
    items = [(number, vector.tobytes()) for number, vector in enumerate(rows, start=1)]
    query = rng.normal(size=384).astype("<f4").tobytes()
    many = ExactVectors(384)
    many.put(items)
    scores = many.cosines(query, range(1, 3_001))
    assert scores[18] == scores[1_501]
    for size in (1, 2, 7, 333):
        few = ExactVectors(384)
        for item in items[:size]:
            few.put([item])
        assert few.cosines(query, range(1, 3_001)) == {
            number: scores[number] for number in range(1, size + 1)
        }


def test_ties_go_to_the_lower_id(index):
    for number in (1, 2, 3, 4):
        index.put(row(number, (1, 0) if number != 2 else (0, 1)), "")
    found = index.find(None, packed(2, 0), mode="semantic", top_k=2)
    assert [(hit.frame_id, hit.score) for hit in found] == [(1, 1.0), (3, 1.0)]


def test_frames_without_a_vector_are_not_found(index):
    index.put(row(1), "words")
    assert index.find(None, packed(1, 0), mode="semantic") == []
    index.put(row(2, (1, 1)), "")
    assert [hit.frame_id for hit in index.find(None, packed(1, 0), mode="semantic")] == [2]


def test_filters_apply(index):
    for number in range(1, 40):
        index.put(row(number, (number, 1), tags=("odd",) if number % 2 else ()), "")
    found = index.find(None, packed(1, 0), mode="semantic", top_k=3, filters=Filters(tags=("odd",)))
    assert [hit.frame_id for hit in found] == [39, 37, 35]


@pytest.mark.parametrize("load", [False, True])
def test_models_and_dimensions_do_not_mix(index, load):
    index.put(row(1, (1, 0)), "")
    if load:
        dump = index.dump()
        index.clear()
        index.load(dump.page_count, dump.pages)
    for other in (row(2, (1, 0, 0)), row(2, (1, 0), model="another"), row(2, (1, 0), model=None)):
        with pytest.raises(InvalidValueError, match="a-model"):
            index.put(other, "")
    with pytest.raises(InvalidValueError, match="3"):
        index.find("a", packed(1, 0, 0), mode="hybrid")
    with pytest.raises(InvalidValueError, match="another"):
        index.find("a", packed(1, 0), mode="hybrid", embedding_model="another")
    assert index.count == 1
    assert index.get(2) is None


def test_another_model_may_follow_when_no_vector_is_left(index):
    index.put(row(1, (1, 0)), "")
    assert index.find(None, packed(1, 0), mode="semantic")
    index.delete(1, "")
    index.put(row(2, (0, 1, 1), model="another"), "")
    found = index.find(None, packed(0, 1, 1), mode="semantic", embedding_model="another")
    assert [(hit.frame_id, hit.score) for hit in found] == [(2, 1.0)]


@pytest.mark.parametrize(
    "data", [b"", b"abc", packed(0, 0), packed(math.nan, 1), packed(math.inf, 1)]
)
def test_what_is_no_vector_is_refused(index, data):
    with pytest.raises(InvalidValueError):
        check_vector(data)
    with pytest.raises(InvalidValueError):
        index.find(None, data, mode="semantic")


def test_a_mode_needs_its_arguments(index):
    with pytest.raises(InvalidValueError, match="query"):
        index.find(None)
    with pytest.raises(InvalidValueError, match="embedding"):
        index.find("a", mode="hybrid")


def test_folding_needs_no_numpy(index, monkeypatch):
    monkeypatch.setitem(sys.modules, "numpy", None)
    index.put(row(1, (1, 0)), "a word")
    index.update(row(1, (0, 1)), "a word", "a word")
    assert [hit.frame_id for hit in index.find("word")] == [1]
    with pytest.raises(ModuleNotFoundError, match=r"memvid-async\[vector\]"):
        index.find(None, packed(1, 0), mode="semantic")


@pytest.mark.skipif(importlib.util.find_spec("usearch") is None, reason="needs the extra ann")
def test_very_many_vectors_are_searched_by_a_graph(index, monkeypatch):
    monkeypatch.setattr(index_module, "EXACT_MOST", 1_000)
    rng = np.random.default_rng(3)
    centres = rng.normal(size=(30, 32))
    rows = (centres[rng.integers(0, 30, 2_000)] + rng.normal(size=(2_000, 32)) / 2).astype("<f4")
    for number, vector in enumerate(rows, start=1):
        index.put(row(number, vector.tolist()), "")

    def both(vector, **options):
        monkeypatch.setattr(index_module, "EXACT_MOST", 1_000)
        near = index.find(None, vector, mode="semantic", **options)
        assert not isinstance(index._vectors, ExactVectors)
        graph, index._vectors = index._vectors, None
        monkeypatch.setattr(index_module, "EXACT_MOST", 10_000)
        exact = index.find(None, vector, mode="semantic", **options)
        index._vectors = graph
        return near, exact

    shared = 0
    for vector in rows[:50]:
        near, exact = both(vector.tobytes())
        known = {hit.frame_id: hit.score for hit in exact}
        assert all(known.get(hit.frame_id, hit.score) == hit.score for hit in near)
        shared += len(set(near) & set(exact))
    assert shared >= 0.95 * 500
    index.delete(7, "")
    index.update(row(8, rows[6].tolist()), "", "")
    near, exact = both(rows[6].tobytes())
    assert near[0] == exact[0]
    assert near[0].frame_id == 8
    near, exact = both(rows[0].tobytes(), filters=Filters(since_ns=1_900))
    assert near == exact
