"""Translate what a user types to an FTS5 expression. Pure.

- Words are joined by OR, so a question works as it is typed. Function words ("the", "of") count
  only when there are no others.
- A ``"quoted phrase"`` and a ``field:word`` are required; the fields are title, tag, uri and body.
  A word, phrase or field after ``-`` is excluded.
- ``begin*`` matches every word that begins with "begin".
- All other characters separate words. ``AND``, ``OR``, ``NOT`` and ``NEAR`` are words.

Scripts that are written without spaces (Han, Hiragana, Katakana) are indexed character by
character, see :func:`spaced`. A run of them in a query becomes its pairs of neighbours, joined by
OR.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from attrs import frozen

from ..events.pace import unhurried
from .stopwords import STOP_WORDS

MAX_TERMS = 64
MAX_QUERY_CHARS = 64 * 1024
# A longer text is processed in pieces of this size.
_PIECE_CHARS = 64 * 1024

FIELDS = {"title": "title", "tag": "tags", "tags": "tags", "uri": "uri", "body": "body"}

# Goes before and after each character of the scripts without spaces. FTS5 takes it as a separator,
# and it has no width.
SEPARATOR = "\x1f"

_ITEM = re.compile(
    r"(?P<minus>(?<!\S)-)?"
    rf"(?:(?<!\w)(?P<field>{'|'.join(FIELDS)}):(?=[\w\"]))?"
    r'(?:"(?P<phrase>[^"]*)"|(?P<chunk>[^\s"]+))',
    re.IGNORECASE,
)
_WORD = re.compile(r"(?P<word>[^\W_]+)(?P<star>\*?)")
_QUOTES = str.maketrans("\u201c\u201d\u201e\u00ab\u00bb\0", '"""""' + " ")
# Han with its extensions and compatibility forms, Hiragana, Katakana.
_UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED_CHAR = re.compile(f"[{_UNSPACED}]")
_RUNS = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")


@frozen
class Query:
    """A parsed query: FTS5 terms, each quoted, so that none of them is syntax."""

    required: tuple[str, ...] = ()
    """A frame must match all of these."""
    words: tuple[str, ...] = ()
    """A frame must match one of these where nothing is required; each that matches adds to the
    score."""
    excluded: tuple[str, ...] = ()
    """A frame must match none of these."""

    @property
    def marks(self) -> str | None:
        """The expression that a snippet marks: all terms but the excluded. None without terms."""
        return _any((*self.required, *self.words)) or None

    @property
    def match(self) -> str | None:
        """The expression that finds frames; None when no frame can match."""
        if not self.required:
            return self._without_excluded(_any(self.words)) if self.words else None
        match = " AND ".join(self.required)
        if self.words:
            # The words add to the score and exclude nothing: every match has the first requirement.
            match += f" AND ({_any((self.required[0], *self.words))})"
        return self._without_excluded(match)

    def parted(self, words: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
        """Return two expressions for frames with one of ``words``: with one of ``others``, without.

        Each expression names every term once, so a score counts no term twice.
        """
        some, more = _any(words), _any(others)
        return (
            self._without_excluded(f"({some}) AND ({more})"),
            self._without_excluded(f"({some}) NOT ({more})"),
        )

    def _without_excluded(self, match: str) -> str:
        return f"({match}) NOT ({_any(self.excluded)})" if self.excluded else match


def spaced(text: str) -> str:
    """Return the text as it is indexed: each character of a script without spaces stands alone."""
    if text.isascii():
        return text
    if len(text) <= _PIECE_CHARS:
        return _UNSPACED_CHAR.sub(_apart, text)
    pieces = (text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS))
    return "".join(_UNSPACED_CHAR.sub(_apart, piece) for piece in unhurried(pieces, look=1))


def _apart(found: re.Match[str]) -> str:
    return f"{SEPARATOR}{found[0]}{SEPARATOR}"


def parse(text: str, *, english: bool = True) -> Query:
    """Parse a query. Any text is a query; of a long one only the first terms count."""
    text = unicodedata.normalize("NFC", text[:MAX_QUERY_CHARS].translate(_QUOTES))
    required: dict[str, None] = {}
    excluded: dict[str, None] = {}
    words: dict[str, None] = {}
    common: dict[str, None] = {}
    for item in _ITEM.finditer(text):
        column = FIELDS[item["field"].lower()] + " : " if item["field"] else ""
        found = _words(item["chunk"]) if item["phrase"] is None else [_phrase(item["phrase"])]
        terms = [column + term for term in found if term]
        if item["minus"]:
            excluded.update(dict.fromkeys(terms))
        elif column or item["phrase"] is not None:
            required.update(dict.fromkeys(terms))
        else:
            for term in terms:
                stop = english and term.strip('"').lower() in STOP_WORDS
                (common if stop else words)[term] = None
    most = tuple(required)[:MAX_TERMS]
    return Query(
        required=most,
        words=tuple(words or common)[: MAX_TERMS - len(most)],
        excluded=tuple(excluded)[:MAX_TERMS],
    )


def _words(chunk: str) -> list[str]:
    terms = []
    for found in _WORD.finditer(chunk):
        for run in _RUNS.findall(found["word"]):
            if len(run) == 1 or not _UNSPACED_CHAR.match(run):
                terms.append(f'"{run}"')
            else:
                terms += [f'"{run[at]} {run[at + 1]}"' for at in range(len(run) - 1)]
        if found["star"]:
            terms[-1] += "*"
    return terms


def _phrase(text: str) -> str:
    words = [spaced(found["word"]).replace(SEPARATOR, " ") for found in _WORD.finditer(text)]
    return f'"{" ".join(words).strip()}"' if words else ""


def _any(terms: Sequence[str]) -> str:
    return " OR ".join(terms)
