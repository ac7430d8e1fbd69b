"""How text is read: a query's words and a text's are the same terms, whatever the script."""

# ruff: noqa: RUF001 - letters of other scripts look like ours

import itertools
import re
import sqlite3
import time
import unicodedata
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memvid_async.search import analyser
from memvid_async.search.analyser import TERM, analyse, is_unspaced, terms
from memvid_async.search.spans import term_spans

SAMPLES = st.sampled_from(
    [
        *(
            "getUserName",
            "HTTPServer",
            "OAuth2Token",
            "utf8",
            "x86_64",
            "snake_case",
            "C++",
            "C#",
            ".NET",
            "v1.2.3",
            "POL-358",
            "a/b",
        ),
        *("Straße", "ﬁne", "co\u00adop", "Iğdır", "ΟΔΥΣΣΕΎΣ", "Đà", "за́мок", "й", "e\u0301"),
        *("हिन्दी", "বাংলা", "தமிழ்", "ภาษาไทย", "น้ำ", "ພາສາລາວ", "ភាសាខ្មែរ", "မြန်မာ"),
        *("서울은", "한글", "東京タワー", "ﾊﾟｿｺﾝ", "はい", "㍿", "الْعَرَبِيَّة", "كـتاب", "שָׁלוֹם"),
        *(
            "👨\u200d👩\u200d👧",
            "👍🏽",
            "🇩🇪",
            "☕\ufe0f",
            "\u0301",
            "\u200d",
            "\u200c",
            "\x1e",
            "\0",
        ),
        *("١٢", "½", "ﷺ", " ", ".", "#", "+", "v", "A", "a", "7", "\u3099", "\u1100", "\u1161"),
    ]
)
TEXT = st.one_of(st.text(max_size=40), st.lists(SAMPLES, max_size=12).map("".join))


@given(TEXT)
@example("\u1100\u0301\u1161")
@example("か\u20dd\u3099")
@example(".net")
def test_reading_again_changes_nothing(text):
    # Beside these signs, and to letters with digits, something is added each time: ``dotnet`` for
    # ``.net``, ``utf`` for ``utf8``.
    has_numbers = re.search("[^\\W\\d_]{2}[0-9]", analyse(text))
    if not has_numbers and not set(".#+") & set(unicodedata.normalize("NFKC", text)):
        assert terms(analyse(text)) == terms(text)
    if not has_numbers:
        assert terms(" ".join(terms(text))) == terms(text)


@given(TEXT)
def test_sqlite_finds_the_same_terms(text):
    """What the tokenizer splits is what the analyser joined: the two cannot disagree."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE t USING fts5 (body, tokenize = 'ascii')")
    database.execute("CREATE VIRTUAL TABLE v USING fts5vocab (t, instance)")
    database.execute("INSERT INTO t VALUES (?)", (analyse(text),))
    found = [term for (term,) in database.execute("SELECT term FROM v ORDER BY offset")]
    database.close()
    assert found == terms(text)


@given(TEXT)
def test_equivalent_texts_have_the_same_terms(text):
    for form in ("NFC", "NFD"):
        assert terms(unicodedata.normalize(form, text)) == terms(text)


@given(before=TEXT, word=SAMPLES, after=TEXT)
def test_a_word_between_spaces_is_read_as_it_is_alone(before, word, after):
    alone, whole = terms(word), terms(f"{before} {word} {after}")
    assert set(alone) <= set(whole)


@pytest.mark.parametrize(
    "words",
    [
        ("за́мок", "замок", "ЗАМОК"),
        ("ёлка", "елка"),
        ("ọ̀rọ̀", "oro", "ORO"),
        ("Straße", "STRASSE", "strasse"),
        ("ﬁne", "fine"),
        ("ｇｅｔ", "get"),
        ("co\u00adoperate", "cooperate"),
        ("Ὀδυσσεύς", "ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("Iğdır", "IĞDIR", "ığdır", "igdir", "İĞDİR"),
        ("Đà Nẵng", "Da Nang", "đà nẵng"),
        ("Tromsø", "tromso"),
        ("Łódź", "lodz"),
        ("الْعَرَبِيَّة", "العربية", "العـــربية"),
        ("کتاب", "كتاب"),
        ("שָׁלוֹם", "שלום"),
        ("ज़रूर", "जरूर"),
        ("ﾊﾟｿｺﾝ", "パソコン", "ハ\u309aソコン"),
        ("ガ", "ｶﾞ", "カ\u3099"),
        ("한글", unicodedata.normalize("NFD", "한글")),
        ("㍿", "株式会社"),
        ("5㎏", "5kg"),
        ("Ⅷ", "viii"),
        ("١٢", "12", "๑๒", "１２"),
        ("👍🏽", "👍"),
        ("☕\ufe0f", "☕"),
        ("น้ำ", "น\u0e49\u0e4dา"),
        ("C++", "cplusplus"),
        ("C#", "csharp"),
        ("F#", "FSHARP"),
    ],
)
def test_what_is_the_same(words):
    assert len({tuple(terms(word)) for word in words}) == 1
    assert terms(words[0])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName()", ["get", "user", "name", "getusername"]),
        ("HTTPServer", ["http", "server", "httpserver"]),
        ("many GPUs", ["many", "gpus"]),
        ("sha256Hash", ["sha256", "hash", "sha256hash", "sha"]),
        ("HTTPServer2", ["http", "server2", "httpserver2", "server"]),
        ("utf8, utf-8", ["utf8", "utf", "8", "utf"]),
        ("parseHTML5Doc", ["parse", "html5", "doc", "parsehtml5doc", "html"]),
        ("v2 x86_64 3rd 5e10 i18n", ["v2", "x86", "64", "3rd", "5e10", "i18n"]),
        ("OAuth2Token", ["o", "auth2", "token", "oauth2token", "oauth", "oauth2", "auth"]),
        ("myOAuth", ["my", "o", "auth", "myoauth", "oauth"]),
        ("Schlüssel3", ["schlussel3", "schlussel"]),
        ("größerAls", ["grosser", "als", "grosserals"]),
        ("snake_case", ["snake", "case"]),
        ("C++17", ["cplusplus", "17"]),
        ("Notepad++.", ["notepad", "notepadplusplus"]),
        ("on .NET", ["on", "net", "dotnet"]),
        ("ASP.NET", ["asp", "net"]),
        ("v1.2.3", ["v", "1", "2", "3", "v1"]),
        ("the end ...and # a #heading", ["the", "end", "and", "a", "heading"]),
        ("हिन्दी हानि", ["हिन्दी", "हानि"]),
        ("மொழி", ["மொழி"]),
        ("ভাষা", ["ভাষা"]),
        ("ภาษาไทย", ["ภา", "ษา", "ไท", "ย"]),
        ("ພາສາລາວ", ["ພາ", "ສາ", "ລາ", "ວ"]),
        ("ភាសាខ្មែរ", ["ភា", "សា", "ខ្មែ", "រ"]),
        ("မြန်မာ", ["မြ", "န်", "မာ"]),
        ("서울은", ["서", "울", "은"]),
        ("Notion에", ["notion", "에"]),
        ("東京タワー・はい", ["東", "京", "タ", "ワ", "ー", "は", "い"]),
        ("می\u200cخواهم", ["مي", "خواهم"]),
        ("मु\u200dक्त", ["मुक्त"]),
        ("👨\u200d👩\u200d👧 🇩🇪🇫🇷ok🎉", ["👨", "👩", "👧", "🇩🇪", "🇫🇷", "ok", "🎉"]),
        ("мой", ["мой"]),
        ("a\0b\x1ec", ["a", "b", "c"]),
        ("\ud800x", ["x"]),
        ("", []),
    ],
)
def test_terms(text, expected):
    # Vowel signs of two parts are terms in their parts.
    assert [unicodedata.normalize("NFC", term) for term in terms(text)] == expected


def test_languages_of_other_names_are_not_taken_for_one():
    different = ["C", "C++", "C#", "F#", "F"]
    assert len({tuple(terms(name)) for name in different}) == len(different)
    assert terms("दिन") != terms("दीन")
    assert terms("мой") != terms("мои")


def test_plain_prose_is_its_own_analysis():
    for text in ("The quick brown fox, 42 of them (e.g. here)!", "", "don't; state-of-the-art"):
        assert analyse(text) is text


def test_scripts_whose_terms_are_looked_for_in_pairs():
    assert all(map(is_unspaced, [*terms("東京はガ서ภาษាမြລາ")]))
    assert not any(map(is_unspaced, ["a", "й", "हिन्दी", "🎉", "🇩🇪", "7"]))


@given(st.lists(st.sampled_from(["ab", "Xy", "日本", "e\u0301", "ก", "\u0301", ".", "getName"])))
def test_a_long_text_is_read_piece_by_piece(words):
    text = " ".join(words)
    whole = terms(text)
    with patch.object(analyser, "_PIECE_CHARS", 8):
        assert sorted(terms(text)) == sorted(whole)
        assert terms(text)[:5] == whole[:5]


@given(TEXT)
def test_the_places_of_terms_are_in_the_text(text):
    read = term_spans(text)
    assert len(read.terms) == len(read.spans) >= read.placed
    placed = read.spans[: read.placed]
    assert all(0 <= begin < end <= len(text) for begin, end in read.spans)
    assert all(one[0] <= other[0] for one, other in itertools.pairwise(placed))
    assert all(TERM.fullmatch(term) for term in read.terms)


@given(st.lists(SAMPLES.filter(str.isprintable), max_size=8).map(" ".join))
def test_the_terms_with_places_are_those_that_are_searched(text):
    assert set(term_spans(text).terms) == set(terms(text))


HOSTILE = {
    "one letter": "a",
    "capitals": "aA",
    "marks of two classes": "\u0301\u0323",
    "marks between half-width ones": "\u0301\uff9e",
    "marks of a consonant": "\u1780\u17d2",
    "pluses": "a+",
    "signs": "a#",
    "dots": ".a",
    "versions": "v1.",
    "vowels without consonants": "\u0e40",
    "flags": "\U0001f1e6",
    "joiners": "\u200d",
    "what becomes much": "\ufdfa",
    "surrogates": "\ud800",
    "quotes": '"a',
}


@pytest.mark.parametrize("part", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_time_grows_with_the_text_and_not_with_its_square(part):
    def seconds(size):
        text = "é" + part * (size // len(part))
        start = time.thread_time()
        analyse(text)
        term_spans(text[: size // 4])
        return time.thread_time() - start

    seconds(1_000)
    small, large = min(seconds(20_000) for _ in range(3)), seconds(200_000)
    # Ten times the text; a square would take a hundred times as long.
    assert large < 40 * small + 0.2


# Quick ways.


def test_simple_characters_need_nothing_before_normalising():
    simple = re.compile(f"[{analyser._SIMPLE}]")
    unseen = re.compile(f"[{analyser.UNSEEN}]")
    for char in map(chr, range(0x110000)):
        if simple.match(char):
            assert not unicodedata.combining(char)
            assert char == "\u00ad" or not unseen.match(char)


@given(TEXT)
@example("İSTANBUL ẞ Ꭰꭰ ΟΔΟΣ ό")
@example("getUserName\x1eX getOtherName é")
def test_the_quick_ways_find_what_the_long_one_does(text):
    quick = terms(text)
    with (
        patch.object(analyser, "_NOT_SIMPLE", re.compile("")),
        patch.object(analyser, "_BEYOND_ASCII", re.compile("(.+)", re.DOTALL)),
        patch.object(analyser, "_DECIMAL", re.compile("")),
        patch.object(analyser, "_cut_words", lambda text: text),
        patch.object(analyser, "_is_plain", lambda text: False),
    ):
        assert terms(text) == quick
