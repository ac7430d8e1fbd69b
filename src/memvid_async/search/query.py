"""Translate what a user types to an FTS5 expression. Pure.

- Words are joined by OR, so a question works as it is typed. Function words ("the", "of") count
  only when there are no others.
- An identifier (``POL-358``, ``getUserName``, ``src/a.py``) counts both as a whole and in parts.
- A ``"quoted phrase"`` and a ``field:word`` are required; the fields are title, tag, uri and body.
- A word, phrase or field after ``-`` is excluded, where the ``-`` follows a space, a letter or a
  quote follows the ``-``, and there is something else to look for.
- ``begin*`` matches every word that begins with "begin", after three letters or more. Asterisks
  around words, as Markdown has them, are text.
- All other characters separate words. ``AND``, ``OR``, ``NOT`` and ``NEAR`` are words.

The same analyser reads queries and texts (:mod:`.analyser`). In a script without spaces each
character or cluster is a term; a query looks for its pairs of neighbours, joined by OR.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from attrs import frozen

from .analyser import TERM, is_unspaced, read_text
from .stopwords import STOP_WORDS

FIELDS = {"title": "title", "tag": "tags", "tags": "tags", "uri": "uri", "body": "body"}

_QUOTES = str.maketrans("\u201c\u201d\u201e\u00ab\u00bb", '"""""')
_MINUS = r'(?P<minus>(?<!\S)-(?=[^\W\d_]|"))?'
_FIELD = rf"(?<!\w)(?P<field>{'|'.join(FIELDS)}):"
# A quote opens a phrase where no word is before it, and closes it where no word is after it.
_PHRASE = re.compile(rf'{_MINUS}(?:{_FIELD})?(?<!\w)"(?P<phrase>[^"]*)"(?!\w)', re.IGNORECASE)
_CHUNK = re.compile(rf"{_MINUS}(?:{_FIELD}(?=\w))?(?P<chunk>\S+)", re.IGNORECASE)
_MARKDOWN = re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*\n]*[^\s*])\1(?![\w*])")
_STAR = re.compile(r"(?<=[^\W\d_]{3})\*(?=[^\w*]*\Z)")
# What an identifier consists of: all but spaces and what separates words in prose.
_IDENTIFIER = re.compile(
    r"[^\s\"'`,;!?()\[\]{}<>|*\u00ab\u00b4\u00bb\u2018-\u201e\u2026\u3001\u3002\u300c-\u300f\u30fb"
    r"\uff01\uff08\uff09\uff0c\uff1f]+"
)
# An identifier of more terms is not looked for as a whole. Nor are words of prose such as self-made
# and and/or, which mean little more together.
_WHOLE_TERMS = 16
_PROSE = re.compile(r"\W*[^\W\d_][^\W\d_A-Z]*(?:/[^\W\d_A-Z]+|(?:-[^\W\d_A-Z]+)+)\W*")
# Letters and the digits after them. A single letter has its digits with it, however it is typed.
_NUMBERED = re.compile(r"([^\W\d_]{2,})([0-9]+)")


@frozen
class Query:
    """A parsed query: FTS5 terms, each quoted, so that none of them is syntax."""

    required: tuple[str, ...] = ()
    """A frame must match all of these."""
    words: tuple[str, ...] = ()
    """A frame must match one of these when nothing is required; each that matches adds to the
    score."""
    excluded: tuple[str, ...] = ()
    """A frame must match none of these."""
    scored: tuple[str, ...] = ()
    """Each term that adds to a score: those in ``required``, one by one, and ``words``."""

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


# Snippets are made for the query of the find before.
@lru_cache(maxsize=2)
def parse(text: str, *, english: bool = True, syntax: bool = True) -> Query:
    """Parse a query. Any text is a query, and all of its words count.

    ``syntax``: False takes every character for text.
    """
    if not syntax:
        return _query(
            [(None, False, _read_chunk(chunk)) for chunk in text.split()], english=english
        )
    text = _MARKDOWN.sub(r" \2 ", text.translate(_QUOTES))
    items = list(_items(text))
    if all(excluded for _, excluded, read in items if read.exact):
        items = [(column, False, read) for column, _, read in items]
    return _query(items, english=english)


@frozen
class _Read:
    """A word, identifier or phrase of a query, as quoted FTS5 strings."""

    exact: tuple[str, ...]
    """What matches exactly it: any of these."""
    words: tuple[str, ...] = ()
    """What matches it as one of many words: each of these counts."""
    is_phrase: bool = False
    """Whether it was quoted."""


# The column that is searched (None: all of them), and whether it is excluded.
_Item = tuple[str | None, bool, _Read]


def _items(text: str) -> Iterator[_Item]:
    at = 0
    for found in _PHRASE.finditer(text):
        yield from map(_chunk_item, _CHUNK.finditer(text, at, found.start()))
        exact = _exact(TERM.findall(read_text(found["phrase"]).text), (), "")
        yield _column(found), bool(found["minus"]), _Read(exact, is_phrase=True)
        at = found.end()
    yield from map(_chunk_item, _CHUNK.finditer(text, at))


def _chunk_item(found: re.Match[str]) -> _Item:
    return _column(found), bool(found["minus"]), _read_chunk(found["chunk"], has_syntax=True)


def _column(found: re.Match[str]) -> str | None:
    return FIELDS[found["field"].lower()] if found["field"] else None


def _query(items: Sequence[_Item], *, english: bool) -> Query:
    required: dict[str, None] = {}
    excluded: dict[str, None] = {}
    words: dict[str, None] = {}
    common: dict[str, None] = {}
    scored: dict[str, None] = {}
    for column, is_excluded, read in items:
        if not read.exact:
            continue
        if column or is_excluded or read.is_phrase:
            exact = [f"{column} : {term}" if column else term for term in read.exact]
            either = exact[0] if len(exact) == 1 else f"({_any(exact)})"
            (excluded if is_excluded else required)[either] = None
            if not is_excluded:
                scored |= dict.fromkeys(exact)
        else:
            for term in read.words:
                is_common = english and term.strip('"') in STOP_WORDS
                (common if is_common else words)[term] = None
    chosen = words or common
    return Query(tuple(required), tuple(chosen), tuple(excluded), tuple(scored | chosen))


def _read_chunk(chunk: str, *, has_syntax: bool = False) -> _Read:
    star = _STAR.search(chunk) if has_syntax else None
    exact: list[str] = []
    words: list[str] = []
    identifiers = _IDENTIFIER.findall(chunk)
    for number, identifier in enumerate(identifiers, 1):
        end = "*" if star and number == len(identifiers) else ""
        read = read_text(identifier)
        terms = TERM.findall(read.text)
        if terms:
            whole = _exact(terms, (*read.wholes, *_apart(terms)), end)
            exact += whole
            is_whole = 1 < len(terms) <= _WHOLE_TERMS and not _PROSE.fullmatch(identifier)
            words += _words(terms, whole, end, is_whole=is_whole)
    # Several identifiers without spaces between them match exactly only all together, in order.
    if len(identifiers) > 1 and len(exact) > 1:
        exact = list(_exact(TERM.findall(read_text(chunk).text), (), "*" if star else ""))
    return _Read(tuple(exact), tuple(words))


def _exact(terms: Sequence[str], wholes: Sequence[str], end: str) -> tuple[str, ...]:
    """Return what matches these terms one after another, and what matches each whole identifier."""
    if not terms:
        return ()
    return (f'"{" ".join(terms)}"{end}', *(f'"{whole}"{end}' for whole in wholes))


def _apart(terms: Sequence[str]) -> Iterator[str]:
    """Yield an identifier that ends with digits as others write it: ``utf 8`` for ``utf8``."""
    if len(terms) == 1 and (found := _NUMBERED.fullmatch(terms[0])):
        yield f"{found[1]} {found[2]}"


def _words(
    terms: Sequence[str], whole: Sequence[str], end: str, *, is_whole: bool
) -> Iterator[str]:
    """Yield what counts of an identifier: the whole, its terms, the pairs of unspaced ones."""
    is_whole = is_whole and not all(map(is_unspaced, terms))
    if len(terms) == 1 or is_whole:
        yield whole[0]
    yield from whole[1:]
    last = len(terms) - 1
    for at, term in enumerate(terms):
        if is_unspaced(term):
            if at < last and is_unspaced(terms[at + 1]):
                yield f'"{term} {terms[at + 1]}"'
            elif last and not is_whole and (at == 0 or not is_unspaced(terms[at - 1])):
                yield f'"{term}"'
        elif not (is_whole and len(term) == 1 and term.isalnum()):
            # A single letter of an identifier means nothing alone.
            yield f'"{term}"{end if at == last else ""}'


def _any(terms: Sequence[str]) -> str:
    return " OR ".join(terms)
