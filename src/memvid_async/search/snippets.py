"""Snippets: the part of a text that answers the query, with its matching words marked."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from .query import SEPARATOR, Query, spaced
from .schema import TOKENIZERS, parts

# A snippet has at most this many words; FTS5 allows 64.
SNIPPET_WORDS = 32
# A snippet without a match shows this many characters, and no snippet more than four times as many.
SNIPPET_CHARS = 320
# A longer text is searched in pieces of this many characters.
_PIECE = 64 * 1024
# A text is often shown again, so texts stay in the table up to this many characters together. Each
# counts as _EACH_CHARS more than it has.
_HELD_CHARS = 64 * 1024
_EACH_CHARS = 256


class Snippets:
    """Makes snippets in a small database of its own, so that the search index holds no texts."""

    def __init__(self, language: str, marks: tuple[str, str] = ("[", "]")) -> None:
        self._marks = marks
        self._scratch = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._scratch.execute(
            "CREATE VIRTUAL TABLE piece USING fts5 "
            f"(title, tags, uri, body, tokenize = '{TOKENIZERS[language]}')"
        )
        self._empty()

    def _empty(self) -> None:
        if self._scratch.in_transaction:
            self._scratch.execute("ROLLBACK")
        # Texts go in and out in one transaction that is never committed.
        self._scratch.execute("BEGIN")
        self._numbers: dict[str, int] = {}
        self._room = _HELD_CHARS

    def close(self) -> None:
        """Close the database."""
        self._scratch.close()

    def of_all(self, query: Query | None, texts: Mapping[int, str]) -> dict[int, str]:
        """Return a snippet of each text, by its number: from the first piece that matches.

        A text that does not match is shown by its beginning.
        """
        marks = None if query is None else query.marks
        found: dict[str, str] = {}
        if marks is not None:
            different = list(dict.fromkeys(texts.values()))
            for some in parts([text for text in different if len(text) <= _PIECE]):
                found |= self._marked(marks, some)
            for text in different:
                if len(text) > _PIECE:
                    found |= self._marked_piece(marks, text)
        return {
            key: found[text] if text in found else _beginning(text) for key, text in texts.items()
        }

    def _marked_piece(self, match: str, text: str) -> dict[str, str]:
        for at in range(0, len(text), _PIECE):
            for marked in self._marked(match, [text[at : at + _PIECE]]).values():
                return {text: marked}
        return {}

    def _marked(self, match: str, texts: Sequence[str]) -> dict[str, str]:
        """Return the snippets of the texts that match.

        All of them come from one statement, which takes a fifth of the time.
        """
        try:
            self._hold(texts)
            numbers = {self._numbers[text]: text for text in texts}
            rows = self._scratch.execute(
                # The plus sign keeps SQLite from searching once for each number.
                "SELECT rowid, snippet(piece, 3, ?, ?, '…', ?) FROM piece "  # noqa: S608 - placeholders
                f"WHERE piece MATCH ? AND +rowid IN ({','.join('?' * len(numbers))})",
                (*self._marks, SNIPPET_WORDS, match, *numbers),
            ).fetchall()
        except BaseException:
            self._empty()
            raise
        if self._room < 0:
            self._empty()
        return {numbers[number]: _shown(marked) for number, marked in rows}

    def _hold(self, texts: Sequence[str]) -> None:
        """Make sure that these texts are in the table."""
        new = [text for text in texts if text not in self._numbers]
        if not new:
            return
        if sum(map(len, new)) + len(new) * _EACH_CHARS > self._room:
            self._empty()
            new = list(texts)
        for text in new:
            self._numbers[text] = len(self._numbers) + 1
            self._room -= len(text) + _EACH_CHARS
        self._scratch.executemany(
            "INSERT INTO piece (rowid, body) VALUES (?, ?)",
            [(self._numbers[text], spaced(text)) for text in new],
        )


def _beginning(text: str) -> str:
    begin = text[: SNIPPET_CHARS + 1]
    return begin if len(begin) <= SNIPPET_CHARS else begin[:SNIPPET_CHARS].rstrip() + "…"


def _shown(marked: str) -> str:
    return str(marked).replace(SEPARATOR, "")[: 4 * SNIPPET_CHARS]
