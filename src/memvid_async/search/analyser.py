r"""The analyser finds the terms of a text and of a query. Pure.

A term consists of ASCII letters and digits, and of any characters outside ASCII. SQLite's tokenizer
``ascii`` splits a text at the same characters. So it finds in an analysed text the terms that
:func:`terms` returns. The analyser does not change a text of plain ASCII prose.

What the analyser does, in this order:

1. It removes what is not seen: soft hyphens, joiners, variation selectors, skin tones, tatweel.
2. It normalises by NFKC: ligatures, half-width kana, full-width letters, Korean written in jamo.
3. It splits identifiers into parts (``getUserName``, ``v1.2``). At the end of the text it adds what
   a split would lose: the whole identifier (``getusername``, ``csharp``, ``dotnet``), and what lies
   within or across parts: ``server`` of ``server2``, ``oauth`` of ``OAuthToken``.
4. It folds each character by itself (:class:`_Folding`): case, accents and points, digits. Marks
   that are vowels or join consonants belong to their word, and no word is split at a mark.
5. It puts spaces around each character or cluster that is a term alone: a character of Han, kana or
   Hangul, a cluster of Thai, Lao, Khmer or Myanmar, an emoji. A query looks for pairs of adjacent
   ones, see :mod:`.query`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..events.pace import unhurried

# It changes when any text is analysed differently. A search index that was made with another
# version of the analyser or of Unicode is made again.
VERSION = 3

# A longer text is analysed in pieces of this size.
_PIECE_CHARS = 64 * 1024
# The longest word that is also added whole, together with the signs before or after it.
_WHOLE_CHARS = 64

# Characters that are a term each: Han, Hiragana, Katakana, Bopomofo, Yi.
HAN_KANA = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\uf900-\ufaff\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff"
)
JAMO = "\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb"
HANGUL = f"\uac00-\ud7a3\u3131-\u318e{JAMO}"
THAI_LAO = "\u0e00-\u0eff"
# Myanmar, Khmer, Tai Le, New Tai Lue, Tai Tham.
STACKED = "\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1a7f\ua9e0-\ua9fe\uaa60-\uaa7f"
EMOJI = "\u2300-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001f1e5\U0001f200-\U0001faff"
FLAG_LETTERS = "\U0001f1e6-\U0001f1ff"

# A vowel before its consonant, the consonant, marks, and a vowel after it.
THAI_LAO_CLUSTER = (
    "[\u0e40-\u0e44\u0ec0-\u0ec4]?[\u0e01-\u0e2e\u0e81-\u0eae]"
    "[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece]*"
    "[\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3\u0ebd]?"
)
# A consonant with those below it and all marks.
STACKED_CLUSTER = rf"[{STACKED}](?:[\u1039\u17d2\u1a60][{STACKED}]|[^\w\s\x00-\x7f])*"
_CLUSTERS = re.compile(rf"{THAI_LAO_CLUSTER}|[{THAI_LAO}]|{STACKED_CLUSTER}|[{FLAG_LETTERS}]{{2}}")
_HAS_CLUSTERS = re.compile(f"[{THAI_LAO}{STACKED}{FLAG_LETTERS}]")
_UNSPACED = re.compile(f"[{HAN_KANA}{HANGUL}{THAI_LAO}{STACKED}]")

UNSEEN = (
    "\u00ad\u034f\u061c\u0640\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200c-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\u0488\u0489\u20dd-\u20e0\u20e2-\u20e4"
    "\ua670-\ua672\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff"
)
_UNSEEN_RUN = re.compile(f"[{UNSEEN}]+")
# Between Arabic letters, a zero-width non-joiner separates a word from its ending.
_ARABIC_PARTS = re.compile("(?<=[\u0600-\u06ff])\u200c(?=[\u0600-\u06ff])")
# Letters of Latin, Greek and Cyrillic, and the punctuation of prose: the soft hyphen aside, none of
# them needs the steps before normalising.
_SIMPLE = (
    "\x00-\u02ff\u0370-\u0482\u048a-\u052f\u1e00-\u1fff\u2010-\u2027\u2030-\u205e"
    "\u20a0-\u20bf\u2100-\u214f"
)
_NOT_SIMPLE = re.compile(f"[^{_SIMPLE}]")
_SOFT_HYPHEN = "\u00ad"
_NON_JOINER = "\u200c"
# Normalising sorts successive marks, in a time that grows with the square of their number. So a
# space is put after this many.
_MANY_MARKS = re.compile(r"(?:[^\w\s\x00-\x7f\U0001f000-\U0001ffff]|[\uff9e\uff9f]){30}")

_LOWER = "a-z\u00df-\u00f6\u00f8-\u00ff\u03ac-\u03ce\u0430-\u045f"
_UPPER = "A-Z\u00c0-\u00d6\u00d8-\u00de\u0391-\u03ab\u0400-\u042f"
# Where a part of an identifier begins: getUser|Name, HTTP|Server; not in GPUs. Each pattern begins
# with the rarest character, because the search for that one is fast.
_HUMP = re.compile(
    f"[{_UPPER}](?:(?<=[{_LOWER}][{_UPPER}])"
    f"|(?<=[{_UPPER}0-9][{_UPPER}])(?=[{_LOWER}])(?!s(?![{_LOWER}{_UPPER}])))"
)
# Letters of Latin, Greek, Cyrillic, Armenian and Georgian.
_ALPHABETS = (
    "A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u0373\u0376-\u0377\u0386-\u0481"
    "\u048a-\u052f\u0531-\u0556\u0560-\u0588\u10a0-\u10ff\u1e00-\u1fbc"
)
# Where digits follow letters, at least two: server2, utf8. The one of v2 and x86 means little.
_NUMBER = re.compile(f"[0-9](?<=[{_ALPHABETS}]{{2}}[0-9])")
_LETTERS_AT_END = re.compile(rf"(?<![^\W_])[{_ALPHABETS}]++\Z")
_DIGITS = b"0123456789"
_CUT = "\x1e"
# The captured parts of a split are those outside ASCII.
_BEYOND_ASCII = re.compile(r"([^\x00-\x7f]+)")
_HUMPED = re.compile(rf"(?<![^\W_])[^\W_]++(?:{_CUT}[^\W_]++)+")
# A part of one letter, and the next part, with its digits and without.
_INITIAL = re.compile(rf"(?<![^\W_])([^\W\d_]){_CUT}(([^\W\d_]++)[^\W_]*+)")
_DOTTED = re.compile(rf"\.(?<![\w.)\]]\.)([A-Za-z][A-Za-z0-9]{{0,{_WHOLE_CHARS}}})(?![\w+#])")
_DECIMAL = re.compile(r"\.(?<=[0-9]\.)(?=[0-9])")
_NUMBERED = re.compile(r"[vV](?<![A-Za-z0-9_][vV])(?=([0-9]{1,9})\.[0-9])")
_SHARPENED = re.compile(
    rf"(?<![^\W_])([^\W\d_][^\W_]{{0,{_WHOLE_CHARS}}})(?:(\+\+)(?![A-Za-z+])|#(?![\w#]))"
)

TERM = re.compile(r"[^\x00-/:-@\[-`{-\x7f]+")


class Analysed(NamedTuple):
    """An analysed text."""

    text: str
    """The text, in which :data:`TERM` matches the terms."""
    wholes: tuple[str, ...] = ()
    """Further terms: the identifiers that are split in the text, whole."""
    within: tuple[str, ...] = ()
    """Further terms: what lies within or across the parts of identifiers. A text is found by it; a
    query does not look for it."""


class _Folding(dict[int, str | int | None]):
    """For ``str.translate``: what each character becomes, computed when it first occurs."""

    # At most this many are kept, which is more than the characters of any language.
    _MOST = 20_000

    def __missing__(self, code: int) -> str | int | None:
        made = _folded(chr(code))
        if len(self) < self._MOST:
            self[code] = made
        return made


# Letters that Unicode does not decompose, and that people type as plain letters.
_LETTERS = {
    # Dotless i, and Latin letters with a stroke or of two letters.
    "\u0131": "i",
    "ł": "l",
    "ø": "o",
    "đ": "d",
    "ħ": "h",
    "ŧ": "t",
    "æ": "ae",
    "œ": "oe",
    # Arabic and Persian yeh, kaf and heh.
    "\u0649": "\u064a",
    "\u06cc": "\u064a",
    "\u06a9": "\u0643",
    "\u0629": "\u0647",
    # Letters that look like apostrophes separate words, as apostrophes do.
    "\u02bc": " ",
    "\u02bb": " ",
}
# Cyrillic short i is a letter, although Unicode decomposes it.
_WHOLE_LETTERS = {"й": "й", "Й": "й"}
_WORD_MARKS = frozenset({0, 9, 84, 91, 103, 107, 118, 122, 129, 130, 132})
_SET_APART = re.compile(f"[{HAN_KANA}{HANGUL}{EMOJI}]")


def _folded(char: str) -> str | int | None:
    if char in _WHOLE_LETTERS:
        return _WHOLE_LETTERS[char]
    if _SET_APART.match(char):
        return f" {char} "
    if "\U0001f1e6" <= char <= "\U0001f1ff":
        return char
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", char).casefold())
    return "".join(map(_folded_part, folded)) or None


def _folded_part(char: str) -> str:
    if char in _LETTERS:
        return _LETTERS[char]
    category = unicodedata.category(char)
    if category[0] == "M":
        # Accents and points are removed; vowel signs and what joins consonants are kept.
        kept = unicodedata.combining(char) in _WORD_MARKS and category != "Me"
        return char if kept else ""
    if category == "Nd":
        return str(unicodedata.decimal(char))
    return char if category[0] in "LN" else " "


_FOLDING = _Folding()


class _FoldedRuns(dict[str, str]):
    """Runs of characters outside ASCII, folded; computed when one first occurs.

    Most are a letter with an accent, or a word, and occur again and again.
    """

    _MOST = 20_000
    _MOST_CHARS = 16

    def __missing__(self, run: str) -> str:
        made = run.translate(_FOLDING)
        if len(self) < self._MOST and len(run) <= self._MOST_CHARS:
            self[run] = made
        return made


_FOLDED_RUNS = _FoldedRuns()


def analyse(text: str) -> str:
    """Return a text as SQLite's tokenizer ``ascii`` gets it; see the module."""
    if text.isascii() and _is_plain(text):
        # A plain text with numbered words is as plain; it is put as it is, and what is added.
        within = " ".join(dict.fromkeys(_before_numbers(text))) if _has_digits(text) else ""
        return f"{text} {within}" if within else text
    read = read_text(text)
    return " ".join((read.text, *read.wholes, *read.within)) if read[1:] != ((), ()) else read.text


def read_text(text: str) -> Analysed:
    """Return the analysed text, and apart from it what is added of its identifiers."""
    if len(text) <= _PIECE_CHARS:
        return _read(text)
    read = list(map(_read, unhurried(_pieces(text), look=1)))
    wholes = dict.fromkeys(whole for piece in read for whole in piece.wholes)
    within = dict.fromkeys(part for piece in read for part in piece.within)
    return Analysed(" ".join(piece.text for piece in read), tuple(wholes), tuple(within))


def terms(text: str) -> list[str]:
    """Return the terms of a text, in order; those that are added are last."""
    return TERM.findall(analyse(text).lower())


def is_unspaced(term: str) -> bool:
    """Whether a term is of a script without spaces, or of one that is searched as if without."""
    return _UNSPACED.match(term) is not None


def _is_plain(text: str) -> bool:
    """Whether SQLite's tokenizer alone finds the terms that stand in an ASCII text."""
    # The fastest look first: most texts have none of these characters, or only full stops.
    return not (
        "#" in text
        or "++" in text
        or _DOTTED.search(text)
        or (_DECIMAL.search(text) and _NUMBERED.search(text))
        or (not text.islower() and _HUMP.search(text))
    )


def _has_digits(text: str) -> bool:
    # Four times as fast as a pattern.
    return len(text.encode().translate(None, _DIGITS)) < len(text)


def _pieces(text: str) -> Iterator[str]:
    """Iterate over the text in pieces; each ends at a space where there is one."""
    at = 0
    while at < len(text):
        end = at + _PIECE_CHARS
        if end < len(text):
            end = max(text.rfind(" ", at + 1, end), text.rfind("\n", at + 1, end)) + 1 or end
        yield text[at:end]
        at = end


def _read(text: str) -> Analysed:
    is_ascii = text.isascii()
    if not is_ascii:
        text = unicodedata.normalize("NFKC", _prepared(text))
    text, wholes, within = _split(text)
    fold = str.lower if is_ascii else _fold
    return Analysed(fold(text), _terms_of(map(fold, wholes)), _terms_of(map(fold, within)))


def _terms_of(words: Iterable[str]) -> tuple[str, ...]:
    """Return the different terms of folded words."""
    return tuple(dict.fromkeys(TERM.findall(" ".join(words))))


def _prepared(text: str) -> str:
    """Return the text as it can be normalised, without what is not seen."""
    if not _NOT_SIMPLE.search(text):
        return text.replace(_SOFT_HYPHEN, "")
    if _NON_JOINER in text:
        text = _ARABIC_PARTS.sub(" ", text)
    return _MANY_MARKS.sub(r"\g<0> ", _UNSEEN_RUN.sub("", text))


def _fold(text: str) -> str:
    # A translation looks at each character, ASCII too. Of that only the case is folded.
    parts = _BEYOND_ASCII.split(text.lower())
    parts[1::2] = map(_FOLDED_RUNS.__getitem__, parts[1::2])
    text = "".join(parts)
    return _CLUSTERS.sub(r" \g<0> ", text) if _HAS_CLUSTERS.search(text) else text


def _cut_words(text: str) -> str:
    """Return the words in which something was cut: a pattern takes its time with all the others."""
    words, at = [], text.find(_CUT)
    while at >= 0:
        end = text.find(" ", at)
        end = len(text) if end < 0 else end
        words.append(text[text.rfind(" ", 0, at) + 1 : end])
        at = text.find(_CUT, end)
    return " ".join(words)


def _split(text: str) -> tuple[str, list[str], list[str]]:
    """Return the text with its identifiers split, the whole identifiers, and what is in them."""
    within: list[str] = []
    wholes = [f"dot{found[1]}" for found in _DOTTED.finditer(text)]

    def name(found: re.Match[str]) -> str:
        named = found[1] + ("plusplus" if found[2] else "sharp")
        if len(found[1]) == 1:
            # C++ and C# are words of their own; neither is found by C.
            return f"{named} "
        wholes.append(named)
        return found[0]

    def number(found: re.Match[str]) -> str:
        wholes.append(f"v{found[1]}")
        return "v "

    if "#" in text or "++" in text:
        text = _SHARPENED.sub(name, text)
    if _DECIMAL.search(text):
        text = _NUMBERED.sub(number, text)
    if _HUMP.search(text):
        text = _HUMP.sub(rf"{_CUT}\g<0>", text.replace(_CUT, " "))
        words = _cut_words(text)
        wholes += [found.replace(_CUT, "") for found in _HUMPED.findall(words)]
        for letter, part, letters in _INITIAL.findall(words):
            within += [letter + part] if part == letters else [letter + letters, letter + part]
        text = text.replace(_CUT, " ")
    return text, wholes, within + list(_before_numbers(text))


def _before_numbers(text: str) -> Iterator[str]:
    """Yield the letters that digits follow, where they are all of a part before the digits."""
    for found in _NUMBER.finditer(text):
        end = found.start()
        if letters := _LETTERS_AT_END.search(text, max(0, end - _WHOLE_CHARS), end):
            yield letters[0]
