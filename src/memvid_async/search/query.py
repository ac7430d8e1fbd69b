"""From what a user types to an FTS5 expression that means it. Pure.

- Words are OR-ed: a question works as it is typed. Function words count only when there is nothing
  else.
- What is marked is required: a ``"quoted phrase"`` and a ``field:word`` must be there (fields:
  title, tag, uri, body). What is ``-marked`` (a word, phrase or field) must not be.
- ``begin*`` matches every word that begins so.
- Everything else a user may type separates words. ``AND``, ``OR``, ``NOT``, ``NEAR`` are words.

Scripts written without spaces (Han, Hiragana, Katakana) are indexed character by character, see
:func:`spaced`; a run of them in a query is OR-ed as its pairs of neighbours.
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
# A long text is gone through in pieces.
_PIECE_CHARS = 64 * 1024

FIELDS = {"title": "title", "tag": "tags", "tags": "tags", "uri": "uri", "body": "body"}

# Put beside each character of the scripts without spaces; a separator for FTS5, of no width.
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
    words: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def marks(self) -> str | None:
        """The expression of what a snippet marks: everything that is looked for."""
        return _any((*self.required, *self.words)) or None

    @property
    def match(self) -> str | None:
        """The expression of what is found; None when nothing can be."""
        if not self.required:
            return self._without_excluded(_any(self.words)) if self.words else None
        match = " AND ".join(self.required)
        if self.words:
            # The words add to the score and exclude nothing: the first requirement stands in.
            match += f" AND ({_any((self.required[0], *self.words))})"
        return self._without_excluded(match)

    def parted(self, words: Sequence[str], others: Sequence[str]) -> tuple[str, str]:
        """Two expressions for what has one of ``words``: with one of the ``others``, and without.

        Each names every term once, so a score sums what it should.
        """
        some, more = _any(words), _any(others)
        return (
            self._without_excluded(f"({some}) AND ({more})"),
            self._without_excluded(f"({some}) NOT ({more})"),
        )

    def _without_excluded(self, match: str) -> str:
        return f"({match}) NOT ({_any(self.excluded)})" if self.excluded else match


def spaced(text: str) -> str:
    """The text as it is indexed: characters of scripts without spaces stand alone."""
    if text.isascii():
        return text
    if len(text) <= _PIECE_CHARS:
        return _UNSPACED_CHAR.sub(_apart, text)
    pieces = (text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS))
    return "".join(_UNSPACED_CHAR.sub(_apart, piece) for piece in unhurried(pieces, look=1))


def _apart(found: re.Match[str]) -> str:
    return f"{SEPARATOR}{found[0]}{SEPARATOR}"


def parse(text: str, *, english: bool = True) -> Query:
    """Read a query. Any text is one; of a long one the first terms count."""
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
