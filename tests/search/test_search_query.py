"""What users type: every text is a query, and none of it becomes syntax."""

# ruff: noqa: RUF001 - letters of other scripts look like ours

import gc
import random
import sqlite3
import time
from contextlib import closing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async.search.analyser import analyse
from memvid_async.search.query import parse
from memvid_async.search.schema import create
from memvid_async.search.snippets import Snippets
from tests.support.depth import SHOWN

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
    6: "call getUserName() in src/names.py for POL-358, see v1.2.3",
    7: "서울은 오늘 비가 온다. ภาษาไทย 🎉",
    8: "C++ at -5 degrees",
    9: "C# and .NET for POL-359, user@example.com",
    10: "WebServer2: utf-8, OAuth2Token; python3, x86_64",
}
TEXT_WORDS = [
    *("за́мок", "ọ̀rọ̀", "r̥ṣi", "impôt", "हिन्दी", "বাংলা", "தமிழ்", "ภาษาไทย", "น้ำ", "ພາສາລາວ"),
    *(
        "ភាសាខ្មែរ",
        "မြန်မာ",
        "서울은",
        "비",
        "東京タワー",
        "京",
        "ﾊﾟｿｺﾝ",
        "ﬁne",
        "co\u00adop",
        "Straße",
    ),
    *("👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "Ὀδυσσεύς", "Iğdır", "Đà", "الْعَرَبِيَّة", "كـتاب", "שָׁלוֹם"),
    *(
        "getUserName",
        "HTTPServer2",
        "utf8",
        "OAuth2Token",
        "snake_case",
        "C++",
        "C#",
        "F#",
        ".NET",
        "Notepad++",
        "v1.2.3",
        "POL-358",
    ),
    *("src/memvid_async/a.py", "/etc/hosts", "jane.doe@example.com", "https://a.b/c?d=e#f", "-5"),
    *("--flag", "**bold**", "don't", "running", "Notion에", "3月", "a_b", "U.S.", "x", "he", "½"),
]
TITLES = {
    1: "Jumping animals",
    2: "Colours",
    3: "Running",
    4: "Tokyo",
    5: "Fox",
    6: "",
    7: "",
    8: "",
    9: "",
    10: "",
}


@pytest.fixture(scope="module")
def database():
    connection = create("english")
    for number, text in TEXTS.items():
        connection.execute(
            "INSERT INTO words (rowid, title, body) VALUES (?, ?, ?)",
            (number, TITLES[number], analyse(text)),
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
    assert (parsed.match is None) == (parse(query, syntax=False).match is None) or parsed.required
    for match in (parsed.match, parsed.marks, parse(query, syntax=False).match, *parsed.scored):
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
        for _ in range(SHOWN):
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
        ("-fox", {1, 2, 3, 5}),  # nothing else is looked for
        ("-fox -brown", {1, 2, 3, 5}),
        ("? -fox", {1, 2, 3, 5}),
        ('-"brown fox"', {1}),
        ("fox --brown", {1, 2, 3, 5}),
        ("fox - brown", {1, 2, 3, 5}),
        ("degrees -5", {8}),
        ("fox -black-fox", {1, 3, 5}),  # the two words together
        ("name -getUserName", set()),
        ("black-fox", {1, 2, 3, 5}),  # inside a word it is a hyphen
        ("jum*", {1}),
        ("ju*", set()),
        ("jum*y", set()),
        ("**jum**", set()),
        ("*jum*", set()),
        ("*black fox*", {1, 2, 3, 5}),
        ("**fo*", set()),
        ("*", set()),
        ("getUs*", {6, 9}),
        ("title:fox", {5}),
        ("TITLE:fox", {5}),
        ("title:running fox", {3}),
        ('title:"jumping animals"', {1}),
        ("title: fox", {1, 2, 3, 5}),  # a colon before a space marks nothing
        ("body:fox", {1, 2, 3}),
        ("https://fox", {1, 2, 3, 5}),
        ("AND", {2, 3, 4, 9}),
        ("fox AND NOT NEAR(dog)", {1, 2, 3, 5}),
        ("getUserName", {6, 9}),  # by its parts too
        ("getusername", {6}),
        ('"get user name"', {6}),
        ('"getUserName"', {6}),
        ("username", set()),
        ("user", {6, 9}),
        ('"POL-358"', {6}),
        ("uri:POL-358", set()),
        ("body:POL-358", {6}),
        ("body:getUserName", {6}),
        ("server", {10}),
        ("WebServer", {10}),
        ('"web server"', set()),
        ("utf8", {10}),
        ("utf", {10}),
        ("python", {10}),
        ("python2", set()),  # not all that has its letters
        ("server -server2", set()),
        ("oauth", {10}),
        ("oauth2", {10}),
        ("token", {10}),
        ("x86-64", {10}),
        ("1.2.3", {6}),
        ("v1", {6}),
        ("names.py", {6}),
        ("C++", {8}),
        ("C#", {9}),
        ("C", set()),
        ("F#", set()),
        (".NET", {9}),
        ("user@example.com", {6, 9}),
        ("서울", {7}),
        ("서울에서", {7}),
        ("울서", set()),
        ("비", {7}),
        ("ไทย", {7}),
        ("🎉", {7}),
        ('5" pipe', {8}),
        ('dog "', {1, 2}),
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


@pytest.mark.parametrize("syntax", [True, False])
def test_all_words_of_a_long_question_count(database, syntax):
    words = [f"w{number}" for number in range(5_000)]
    parsed = parse(" ".join([*words, "zebra", "fox"]), syntax=syntax)
    assert parsed.words == (*(f'"{word}"' for word in words), '"zebra"', '"fox"')
    rows = database.execute("SELECT rowid FROM words WHERE words MATCH ?", (parsed.match,))
    assert {rowid for (rowid,) in rows} == {1, 2, 3, 5}
    assert len(parse("東京" * 2_000 + "都").words) == 3


HOSTILE = [
    '"',
    '"a',
    '"a"',
    "-a ",
    "*",
    "*a",
    "a*",
    "title:",
    "東",
    "a-",
    "a/",
    'a"b',
    "(",
    "\ud800",
]


@pytest.mark.parametrize("part", HOSTILE)
def test_the_time_to_parse_grows_with_the_query(part):
    def seconds(size):
        gc.disable()  # other tests left it much to look at
        start = time.thread_time()
        parse.__wrapped__(part * (size // len(part)))
        taken = time.thread_time() - start
        gc.enable()
        return taken

    seconds(1_000)
    small, large = min(seconds(10_000) for _ in range(3)), seconds(100_000)
    assert large < 40 * small + 0.2


def test_text_without_syntax_has_none(database):
    for query in ('-fox "brown dog" jum* title:x', "**bold**", "a -b"):
        parsed = parse(query, syntax=False)
        assert not parsed.required
        assert not parsed.excluded
        assert not any(term.endswith("*") for term in parsed.words)
    parsed = parse('-fox "brown dog" jum* title:x', syntax=False)
    assert parsed.words == ('"fox"', '"brown"', '"dog"', '"jum"', '"title x"', '"title"')


@given(
    before=st.lists(st.sampled_from(TEXT_WORDS), max_size=4).map(" ".join),
    word=st.sampled_from(TEXT_WORDS),
    after=st.lists(st.sampled_from(TEXT_WORDS), max_size=4).map(" ".join),
    language=st.sampled_from(["english", "none"]),
)
def test_any_word_of_a_text_finds_it(before, word, after, language):
    connection = create(language)
    try:
        connection.execute(
            "INSERT INTO words (rowid, body) VALUES (1, ?)", (analyse(f"{before} {word} {after}"),)
        )
        for syntax in (True, False):
            match = parse(word, english=language == "english", syntax=syntax).match
            found = "SELECT rowid FROM words WHERE words MATCH ?"
            assert connection.execute(found, (match,)).fetchall() == [(1,)]
    finally:
        connection.close()


def test_other_languages_have_no_function_words():
    assert parse("the fox", english=False).words == ('"the"', '"fox"')
    assert parse("the fox").words == ('"fox"',)


def test_the_terms_are_quoted_once():
    with closing(create("english")) as index, pytest.raises(sqlite3.OperationalError):
        index.execute("SELECT * FROM words WHERE words MATCH 'AND'")
    assert parse("AND NOT").match == '"and" OR "not"'
