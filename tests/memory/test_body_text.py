"""Which bytes are searched as text, and in which encoding."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memvid_async.memory.body_text import is_text, text_of

TEXT = "Grüße aus Zürich, naïve café: 25 °C"


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "TEXT/HTML; charset=utf-8",
        "application/json",
        "application/ld+json",
        "application/vnd.api+json; version=1",
        "image/svg+xml",
        "application/atom+xml",
        "application/x-ndjson",
        "application/openapi+yaml",
    ],
)
def test_a_text(media_type):
    assert is_text(media_type)
    assert text_of(TEXT.encode(), media_type) == TEXT


@pytest.mark.parametrize("media_type", [None, "", "image/png", "application/octet-stream", "json"])
def test_no_text(media_type):
    assert not is_text(media_type)
    assert text_of(b"words", media_type) == ""
    assert text_of("words", media_type) == "words"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (TEXT.encode(), "text/plain"),
        (TEXT.encode("utf-8-sig"), "text/plain"),
        (TEXT.encode("utf-16"), "text/plain"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "text/plain"),
        (TEXT.encode("utf-16-le"), "text/plain"),
        (TEXT.encode("utf-16-be"), "text/plain"),
        (TEXT.encode("utf-32"), "text/plain"),
        (TEXT.encode("latin-1"), "text/plain"),
        (TEXT.encode("latin-1"), "text/plain; charset=utf-8"),
        (TEXT.encode("latin-1"), 'text/plain; charset="ISO-8859-1"'),
        (TEXT.encode("utf-16-be"), "text/plain;charset=UTF-16BE"),
        (TEXT.encode("cp1252"), "text/plain; charset=windows-1252"),
        (TEXT.encode("latin-1"), "text/plain; charset=rot13"),
        (TEXT.encode(), "text/plain; charset=base64"),
    ],
)
def test_encodings(data, media_type):
    assert text_of(data, media_type) == TEXT


def test_other_encodings_by_name():
    assert text_of("привет".encode("koi8-r"), "text/plain; charset=KOI8-R") == "привет"
    assert text_of("東京".encode("shift_jis"), "text/plain; charset=Shift_JIS") == "東京"
    assert text_of("“quoted”".encode("cp1252"), "text/plain") == "“quoted”"


def test_a_cut_or_spoilt_text_stays_utf_8():
    whole = ("Grüße " * 100).encode()
    assert text_of(whole[:-5], "text/plain").startswith("Grüße Grüße ")
    assert text_of(whole + b"\xff", "text/plain").startswith("Grüße Grüße ")


@given(
    st.binary(max_size=200),
    st.sampled_from(["text/x", "a/b+json; charset=utf-16", "text/a;charset=big5"]),
)
def test_any_bytes_are_read(data, media_type):
    assert isinstance(text_of(data, media_type), str)
