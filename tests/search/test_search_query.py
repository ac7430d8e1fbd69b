"""What users type: every text is a query, and none of it becomes syntax."""

import random
import sqlite3
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async.search import query
from memvid_async.search.query import MAX_TERMS, parse, spaced
from memvid_async.search.schema import create
from memvid_async.search.snippets import Snippets

# What FTS5 has a meaning for, what users mark with, and what breaks parsers.
MARKS = st.sampled_from(
    [
        *('"', "'", "*", "-", "^", ":", "(", ")", "{", "}", "+", ",", " ", "  ", "\n", "\0", "\\"),
        *("AND", "OR", "NOT", "NEAR(", "title:", "tag:", "body:", "words:", "-title:", '-"'),
        *(
            "word",
            "the",
            "Ünïcödé",
            "e\u0301",
            "東京タワー",
            "はい",
            "😀",
            "\ufeff",
            "\u200b",
            "١٢",
        ),
    ]
)
TYPED = st.one_of(st.text(max_size=60), st.lists(MARKS, max_size=20).map("".join))

TEXTS = {
    1: "The quick brown fox jumps over the lazy dog",
    2: "A brown dog and a black fox were running",
    3: "Foxes run; the runner ran. AND OR NOT NEAR",
    4: "東京タワーに行きました and café crème",
    5: "state-of-the-art don't title body",
}
TITLES = {1: "Jumping animals", 2: "Colours", 3: "Running", 4: "Tokyo", 5: "Fox"}


@pytest.fixture(scope="module")
def database():
    connection = create("english")
    for number, text in TEXTS.items():
        connection.execute(
            "INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)",
            (number, TITLES[number], spaced(text)),
        )
    yield connection
    connection.close()


@pytest.fixture
def found(database):
    """A function: which of the texts a query finds."""

    def run(query):
        match = parse(query).match
        if match is None:
            return set()
        rows = database.execute("SELECT rowid, rank FROM words WHERE words MATCH ?", (match,))
        return {rowid for rowid, _ in rows}

    return run


@given(query=TYPED)
@example(query='"')
@example(query='-"a')
@example(query='title:"')
@example(query="a\0b")
@example(query='"\0"')
@example(query="\ud800 fox")
@example(query="*")
@example(query="a*b*")
@example(query='"" fox')
@example(query="title:😀 fox")
def test_any_text_is_a_query(database, query):
    parsed = parse(query)
    for match in (parsed.match, parsed.marks):
        if match is not None:
            database.execute(
                "SELECT rowid, rank FROM words WHERE words MATCH ?", (match,)
            ).fetchall()
    if len(parsed.words) > 1:
        for match in parsed.parted(parsed.words[:1], parsed.words[1:]):
            database.execute(
                "SELECT rowid, rank FROM words WHERE words MATCH ?", (match,)
            ).fetchall()


@given(query=TYPED)
def test_any_query_makes_a_snippet(query):
    snippets = Snippets("english")
    try:
        assert snippets.of_all(parse(query), {1: TEXTS[1]})[1]
    finally:
        snippets.close()


def test_what_was_shown_before_changes_no_snippet():
    rng, words = random.Random(4), ["fox", "tree", "river."]
    lengths = rng.choices([0, 9, 99, 14_000], k=40)
    texts = [" ".join(rng.choices(words, [1, 1, 40], k=length)) for length in lengths]
    used = Snippets("english")
    try:
        for _ in range(10):
            # Some twice, and sometimes more than is held.
            shown = dict(enumerate(rng.choices(texts, k=rng.choice([1, 4, 10]))))
            asked = parse(rng.choice(["fox tree", "fox", "river", "title:fox", "zebra"]))
            fresh = Snippets("english")
            try:
                expected = {}
                for key, text in shown.items():
                    expected |= fresh.of_all(asked, {key: text})
            finally:
                fresh.close()
            assert used.of_all(asked, shown) == expected
    finally:
        used.close()


@given(words=st.lists(st.sampled_from(["fox", "dog", "zebra", "AND", "the"]), min_size=1))
def test_more_words_never_find_less(found, words):
    content = [word for word in words if word not in ("AND", "the")]
    if content:
        assert found(" ".join(words)) >= found(content[0])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("what does the fox do?", {1, 2, 3, 5}),  # any of its words is enough
        ("zebra fox", {1, 2, 3, 5}),
        ("zebra", set()),
        ("the", {1, 3, 5}),  # a function word counts where there is nothing else
        ("the zebra", set()),
        ("run", {2, 3}),  # stemmed, and in a title
        ('"brown fox"', {1}),
        ('"brown fox" zebra', {1}),
        ("“brown fox”", {1}),
        ('"brown fox', {1, 2, 3, 5}),  # a quote that is not closed is none
        ('"the lazy dog"', {1}),
        ("fox -brown", {3, 5}),
        ('fox -"brown fox"', {2, 3, 5}),
        ("fox -title:fox", {1, 2, 3}),
        ("-fox", set()),  # what is wanted is not said
        ("black-fox", {1, 2, 3, 5}),  # inside a word it is a hyphen
        ("jum*", {1}),
        ("*", set()),
        ("title:fox", {5}),
        ("TITLE:fox", {5}),
        ("title:running fox", {3}),
        ('title:"jumping animals"', {1}),
        ("title: fox", {1, 2, 3, 5}),  # a colon before a space marks nothing
        ("body:fox", {1, 2, 3}),
        ("https://fox", {1, 2, 3, 5}),
        ("AND", {2, 3, 4}),
        ("fox AND NOT NEAR(dog)", {1, 2, 3, 5}),
        ("東京", {4}),
        ("京都", set()),
        ("京タ", {4}),
        ('"東京タワー"', {4}),
        ('"タワー東京"', set()),
        ("CAFE", {4}),
        ("cafe\u0301", {4}),
        ("don't", {5}),
        ("😀", set()),
        ("", set()),
        (" \n\t", set()),
    ],
)
def test_what_a_query_means(found, query, expected):
    assert found(query) == expected


def test_words_beside_what_is_required_add_to_the_score(database):
    def score(query):
        rows = database.execute(
            "SELECT -rank FROM words WHERE words MATCH ? AND rowid = 1", (parse(query).match,)
        )
        return rows.fetchone()[0]

    assert score('"brown fox" lazy') > score('"brown fox" zebra')


def test_a_query_is_bounded(database):
    parsed = parse(" ".join(f"word{number}" for number in range(100_000)))
    assert len(parsed.words) == MAX_TERMS
    assert len(parse("-a " * 100_000 + '"b c" ' * 1000).required) <= MAX_TERMS
    marked = parse(" ".join(f'-no{number} "must {number}" or{number}' for number in range(500)))
    assert len(marked.required) + len(marked.words) <= MAX_TERMS
    assert len(marked.excluded) <= MAX_TERMS
    database.execute(
        "SELECT rowid, rank FROM words WHERE words MATCH ?", (marked.match,)
    ).fetchall()
    run = parse("東" * 100_000)
    assert len(run.words) <= MAX_TERMS


def test_other_languages_have_no_function_words():
    assert parse("the fox", english=False).words == ('"the"', '"fox"')
    assert parse("the fox").words == ('"fox"',)


def test_text_without_such_scripts_is_indexed_as_it_is():
    assert spaced("plain") == "plain"
    assert spaced("naïve") == "naïve"
    assert spaced("東x").replace("\x1f", "") == "東x"


def test_the_terms_are_quoted_once():
    with pytest.raises(sqlite3.OperationalError):
        create("english").execute("SELECT * FROM words WHERE words MATCH 'AND'")
    assert parse("AND NOT").match == '"AND" OR "NOT"'


@given(st.text(alphabet="ab 日本ぁ語x", max_size=30))
def test_a_long_text_is_spaced_piece_by_piece(text):
    whole = spaced(text)
    with patch.object(query, "_PIECE_CHARS", 4):
        assert spaced(text) == whole
