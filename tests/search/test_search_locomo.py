"""Long conversations with gold evidence: how much of it the first ten hits hold."""

import gzip
import json
import re

import pytest

from memvid_async.search import IndexedFrame, SearchIndex
from tests.conftest import SHARED_DATA

np = pytest.importorskip("numpy")

DATA = SHARED_DATA / "locomo"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/locomo")

MODEL = "all-MiniLM-L6-v2"


def vectors(name):
    """The embeddings of turns or questions, by conversation and number."""
    ids = json.loads((DATA / f"{name}.ids.json").read_text(encoding="utf-8"))
    rows = np.load(DATA / f"{name}.minilm.f16.npy").astype("<f4")
    return {tuple(key): row.tobytes() for key, row in zip(ids, rows, strict=True)}


def turns(conversation):
    """Every turn's id and text, in order."""
    number = 1
    while (session := conversation.get(f"session_{number}")) is not None:
        for turn in session:
            caption = turn.get("blip_caption")
            image = f" [image: {caption}]" if caption else ""
            yield turn["dia_id"], f"{turn['speaker']}: {turn['text']}{image}"
        number += 1


@pytest.fixture(scope="module")
def memories():
    """An index per conversation, with its questions: text, embedding, the ids of the evidence."""
    of_turns, of_questions = vectors("turns"), vectors("questions")
    made = []
    for sample in json.loads(gzip.decompress((DATA / "locomo5.json.gz").read_bytes())):
        index = SearchIndex(lambda hint, version, media_type: "")
        places = {}
        for number, (name, text) in enumerate(turns(sample["conversation"]), start=1):
            places[name] = number
            embedding = of_turns[sample["sample_id"], name]
            index.put(
                IndexedFrame(
                    number, number, 0, number, number, embedding=embedding, embedding_model=MODEL
                ),
                text,
            )
        questions = []
        for number, question in enumerate(sample["qa"]):
            named = re.findall(r"D\d+:\d+", " ".join(question["evidence"]))
            evidence = {places[name] for name in named if name in places}
            if evidence:
                vector = of_questions[sample["sample_id"], number]
                questions.append((question["question"], vector, evidence))
        made.append((index, questions))
    yield made
    for index, _ in made:
        index.close()


def recall(memories, mode, top_k=10):
    """The mean share of the evidence among the first ``top_k`` hits, questions as typed."""
    shares = []
    for index, questions in memories:
        for question, vector, evidence in questions:
            found = index.find(question, vector, mode=mode, top_k=top_k, embedding_model=MODEL)
            shares.append(len(evidence & {hit.frame_id for hit in found}) / len(evidence))
    return sum(shares) / len(shares)


def test_lexical_recall(memories):
    reached = recall(memories, "lexical")
    print(f"lexical evidence recall@10: {reached:.3f}")
    assert reached >= 0.6325


def test_hybrid_beats_both_of_its_parts(memories):
    reached = recall(memories, "hybrid")
    parts = recall(memories, "lexical"), recall(memories, "semantic")
    print(f"hybrid evidence recall@10: {reached:.3f}; lexical and semantic: {parts}")
    assert reached >= 0.735
    assert reached > max(parts)
