"""Snippets: the part of a text that answers the query, with its matching words marked."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence

from .analyser import analyse
from .query import Query, parse
from .schema import TOKENIZERS, parts
from .spans import TermSpans, term_spans

# A snippet has at most this many words; FTS5 allows 64.
SNIPPET_WORDS = 32
# A snippet without a match shows this many characters, and no snippet more than four times as many.
SNIPPET_CHARS = 320
# A longer text is searched in pieces of this many characters. A text that the analyser changes is
# searched in smaller pieces, because it takes longer to find where its terms are.
_PIECE = 64 * 1024
_CHANGED_PIECE = 4 * 1024
# A text is often shown again, so texts stay in the table up to this many characters together. Each
# counts as _EACH_CHARS more than it has.
_HELD_CHARS = 64 * 1024
_EACH_CHARS = 256
# A snippet is chosen by the first matches, at most this many.
_MATCHES = 256
# Begin and end of a match. No term has such a character.
_BEGIN, _END = "\x02", "\x03"

Span = tuple[int, int]


class Snippets:
    """Makes snippets in a small database of its own, so that the search index holds no texts.

    For a text that the analyser does not change, SQLite makes the snippet; also for one to which it
    only adds terms, as long as none of these matches. Any other text is put as its terms, and the
    terms that match tell which parts of the text to show.
    """

    def __init__(self, language: str, marks: tuple[str, str] = ("[", "]")) -> None:
        self._marks = marks
        self._scratch = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._scratch.execute(
            "CREATE VIRTUAL TABLE piece USING fts5 "
            f"(title, tags, uri, body, added, tokenize = '{TOKENIZERS[language]}')"
        )
        self._empty()

    def _empty(self) -> None:
        if self._scratch.in_transaction:
            self._scratch.execute("ROLLBACK")
        # Texts go in and out in one transaction that is never committed.
        self._scratch.execute("BEGIN")
        self._numbers: dict[str, int] = {}
        # The spans of each text that was put as its terms.
        self._spans: dict[str, TermSpans] = {}
        # Those that were put as they are, with terms that the analyser adds beside them.
        self._added: set[str] = set()
        self._rows = 0
        self._room = _HELD_CHARS

    @classmethod
    def once(
        cls, language: str, query: str | None, texts: Mapping[int, str], *, syntax: bool
    ) -> dict[int, str]:
        """Return what :meth:`SearchIndex.snippets` returns, for texts of no index."""
        made = cls(language)
        try:
            english = language == "english"
            parsed = None if query is None else parse(query, english=english, syntax=syntax)
            return made.of_all(parsed, texts)
        finally:
            made.close()

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
            short: list[str] = []
            long: list[str] = []
            for text in dict.fromkeys(texts.values()):
                (short if text in self._numbers or _is_short(text) else long).append(text)
            for some in parts(short):
                found |= self._marked(marks, some)
            for text in long:
                for marked in self._marked(marks, self._matching_piece(marks, text)).values():
                    found[text] = marked
        return {
            key: found[text] if text in found else _beginning(text) for key, text in texts.items()
        }

    def _matching_piece(self, match: str, text: str) -> list[str]:
        """Return the first piece of the text that matches, if any, in a list."""
        is_plain = analyse(text) is text
        size = _PIECE if is_plain else _CHANGED_PIECE
        self._empty()
        for at in range(0, len(text), _PIECE):
            pieces = [text[at + i : at + i + size] for i in range(0, _PIECE, size)]
            self._scratch.executemany(
                "INSERT INTO piece (rowid, body) VALUES (?, ?)",
                enumerate(map(analyse, pieces), 1),
            )
            first = self._scratch.execute(
                "SELECT rowid FROM piece WHERE piece MATCH ? ORDER BY rowid LIMIT 1", (match,)
            ).fetchone()
            self._empty()
            if first is not None:
                return [pieces[first[0] - 1]]
        return []

    def _marked(self, match: str, texts: Sequence[str]) -> dict[str, str]:
        """Return the snippets of the texts that match.

        All of them come from one statement, which takes a fifth of the time.
        """
        try:
            self._hold(texts)
            shown = self._matched(match, texts)
            # What is added to a text has no place in it: then its terms tell where they are from.
            if again := [text for text in texts if text in self._added and text not in shown]:
                self._hold_terms(again)
                shown |= self._matched(match, again)
        except BaseException:
            self._empty()
            raise
        if self._room < 0:
            self._empty()
        return shown

    def _matched(self, match: str, texts: Sequence[str]) -> dict[str, str]:
        numbers = {self._numbers[text]: text for text in texts}
        changed = [str(self._numbers[text]) for text in texts if text in self._spans]
        rows = self._scratch.execute(
            # The plus sign keeps SQLite from searching once for each number.
            f"SELECT rowid, CASE WHEN +rowid IN ({','.join(changed)}) "  # noqa: S608 - numbers and placeholders
            "THEN highlight(piece, 3, ?, ?) ELSE snippet(piece, 3, ?, ?, '…', ?) END, "
            "highlight(piece, 4, ?, '') "
            f"FROM piece WHERE piece MATCH ? AND +rowid IN ({','.join('?' * len(numbers))})",
            (_BEGIN, _END, *self._marks, SNIPPET_WORDS, _BEGIN, match, *numbers),
        )
        return {
            numbers[number]: self._shown(numbers[number], made)
            for number, made, added in rows
            if _BEGIN not in (added or "")
        }

    def _hold(self, texts: Sequence[str]) -> None:
        """Make sure that these texts are in the table."""
        new = [text for text in texts if text not in self._numbers]
        if not new:
            return
        if sum(map(len, new)) + len(new) * _EACH_CHARS > self._room:
            self._empty()
            new = list(texts)
        rows, changed = [], []
        for text in new:
            self._room -= len(text) + _EACH_CHARS
            read = analyse(text)
            if read.startswith(text):
                self._numbers[text] = self._next_number()
                rows.append((self._numbers[text], text, read[len(text) :]))
                if read is not text:
                    self._added.add(text)
            else:
                changed.append(text)
        self._scratch.executemany("INSERT INTO piece (rowid, body, added) VALUES (?, ?, ?)", rows)
        self._hold_terms(changed)

    def _hold_terms(self, texts: Sequence[str]) -> None:
        """Put the texts as their terms."""
        rows = []
        for text in texts:
            self._numbers[text] = self._next_number()
            self._added.discard(text)
            self._spans[text] = read = term_spans(text)
            rows.append((self._numbers[text], " ".join(read.terms)))
        self._scratch.executemany("INSERT INTO piece (rowid, body) VALUES (?, ?)", rows)

    def _next_number(self) -> int:
        self._rows += 1
        return self._rows

    def _shown(self, text: str, made: str) -> str:
        read = self._spans.get(text)
        if read is None:
            return made[: 4 * SNIPPET_CHARS]
        matches = sorted(_matches(read, made))
        return _window(text, read, matches[:_MATCHES], self._marks) if matches else _beginning(text)


def _is_short(text: str) -> bool:
    """Whether the text is searched as one piece."""
    return len(text) <= _CHANGED_PIECE or (len(text) <= _PIECE and analyse(text) is text)


def _matches(read: TermSpans, highlighted: str) -> Iterator[Span]:
    """Yield the spans of the terms that matched; ``highlighted`` has those terms between marks."""
    begin = 0
    for at, term in enumerate(highlighted.split(" ")):
        if term.startswith(_BEGIN):
            begin = at
        if term.endswith(_END):
            if at < read.placed:
                yield read.spans[begin][0], read.spans[at][1]
            else:
                yield from read.spans[begin : at + 1]


def _window(text: str, read: TermSpans, matches: Sequence[Span], marks: tuple[str, str]) -> str:
    """Return the part of the text with the most different matches, with the matches marked."""
    begins = [begin for begin, _ in read.spans[: read.placed]]
    at = [bisect_right(begins, begin) - 1 for begin, _ in matches]
    folded = [text[begin:end].casefold() for begin, end in matches]

    def fitting(first: int) -> range:
        return range(first, bisect_right(at, at[first] + SNIPPET_WORDS - 1))

    best = max(range(len(matches)), key=lambda i: (len({folded[j] for j in fitting(i)}), -i))
    # As many words before the first match as after the last.
    spare = SNIPPET_WORDS - (at[fitting(best)[-1]] - at[best] + 1)
    first = max(0, at[best] - max(0, spare) // 2)
    last = min(first + SNIPPET_WORDS, read.placed) - 1
    reached = begins[first] if first else 0
    end = read.spans[last][1] if last < read.placed - 1 else len(text)
    shown = ["…"] if first else []
    for begin, until in matches:
        if reached <= begin and until <= end:
            shown += [text[reached:begin], marks[0], text[begin:until], marks[1]]
            reached = until
    shown.append(text[reached:end])
    if last < read.placed - 1:
        shown.append("…")
    return "".join(shown)[: 4 * SNIPPET_CHARS]


def _beginning(text: str) -> str:
    begin = text[: SNIPPET_CHARS + 1]
    return begin if len(begin) <= SNIPPET_CHARS else begin[:SNIPPET_CHARS].rstrip() + "…"
