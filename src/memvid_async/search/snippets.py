"""Snippets: the place of a text that answers the query, with what matched marked."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from .query import SEPARATOR, Query, spaced
from .results import parts
from .schema import TOKENIZERS

# The words of a snippet, at most; FTS5 allows 64.
SNIPPET_WORDS = 32
# What a snippet without a match shows, and the most that any shows, in characters.
SNIPPET_CHARS = 320
# A long text is looked through piece by piece.
_PIECE = 64 * 1024
# What was shown is often shown again: so many characters of it stay in the table, where a text
# counts as a few more than it has.
_HELD_CHARS = 64 * 1024
_EACH_CHARS = 256


class Snippets:
    """Makes snippets in a small database of its own, so that the index need not hold texts."""

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
        """Give the memory back."""
        self._scratch.close()

    def of_all(self, query: Query | None, texts: Mapping[int, str]) -> dict[int, str]:
        """Of each text, by number, the first piece that matches; its beginning when none does."""
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
        """The snippets of those that match; together, which takes a fifth of the time."""
        try:
            self._hold(texts)
            numbers = {self._numbers[text]: text for text in texts}
            rows = self._scratch.execute(
                # The sign keeps SQLite from searching once for each number.
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
        """Have these texts in the table."""
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
