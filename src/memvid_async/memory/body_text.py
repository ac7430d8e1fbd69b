"""What is searched of a frame's body: its text, in whatever encoding its bytes are. Pure.

Not to be changed while a file lives: a frame is taken out of a saved index by the text that was
put into it. A change comes with a new version of the analyser.
"""

from __future__ import annotations

import codecs
import re

_TEXT_TYPES = (
    "text/",
    "application/json",
    "application/xml",
    "application/yaml",
    "application/x-yaml",
    "application/toml",
    "application/javascript",
    "application/sql",
    "application/x-ndjson",
)
_TEXT_SUFFIXES = ("+json", "+xml", "+yaml")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]{1,40})", re.IGNORECASE)
# The longer mark first: that of UTF-16 is the beginning of that of UTF-32.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Only these are taken from a media type: a codec of Python's need not be one of text. UTF-8 is what
# is tried anyway, and it is named for many a text that is in something else.
_CHARSETS = re.compile(
    r"utf-?(?:16|32)(?:-?[bl]e)?|latin-?1|iso-?8859-\d+|windows-125\d|cp125\d|koi8-[ru]"
    r"|shift_jis|euc-(?:jp|kr)|iso-2022-jp|gb2312|gbk|gb18030|big5",
)
# Bytes that say which encoding a text without a mark has.
_LOOKED_AT = 4096
_REPLACED = "\ufffd"


def is_text(media_type: str | None) -> bool:
    """Whether bytes of a media type are text."""
    if media_type is None:
        return False
    name = media_type.partition(";")[0].strip().lower()
    return name.startswith(_TEXT_TYPES) or name.endswith(_TEXT_SUFFIXES)


def text_of(data: str | bytes, media_type: str | None) -> str:
    """What is searched of a frame's body: text, or bytes that a media type says are text."""
    if isinstance(data, str):
        return data
    return _decoded(data, media_type) if is_text(media_type) else ""


def _decoded(data: bytes, media_type: str | None) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    named = _CHARSET.search(media_type or "")
    if named and _CHARSETS.fullmatch(named[1].lower()):
        try:
            return data.decode(named[1], "replace")
        except LookupError:
            pass
    guessed = _without_mark(data)
    if guessed is not None:
        return data.decode(guessed, "replace")
    text = data.decode("utf-8", "replace")
    replaced = text.count(_REPLACED)
    # A few bad bytes, or a cut at the end, leave UTF-8 what it is.
    if replaced and 2 * replaced > len(text) - len(text.encode("ascii", "ignore")):
        # All 256 bytes are characters of Latin-1; Windows has quotes where it has control codes.
        return data.decode("cp1252", "replace").replace(_REPLACED, " ")
    return text


def _without_mark(data: bytes) -> str | None:
    """Return the UTF-16 that a text without a mark is in, by where its zero bytes are."""
    looked = data[:_LOOKED_AT]
    if len(looked) < 4 or b"\0" not in looked:
        return None
    even, odd = looked[::2].count(0), looked[1::2].count(0)
    half = len(looked) // 2
    if odd * 2 > half and even * 8 < half:
        return "utf-16-le"
    return "utf-16-be" if even * 2 > half and odd * 8 < half else None
