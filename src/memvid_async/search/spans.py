"""Where in a text its terms are, for texts that the analyser changes. Pure."""

from __future__ import annotations

import re

from attrs import frozen

from .analyser import (
    EMOJI,
    FLAG_LETTERS,
    HAN_KANA,
    HANGUL,
    JAMO,
    STACKED,
    STACKED_CLUSTER,
    TERM,
    THAI_LAO,
    THAI_LAO_CLUSTER,
    UNSEEN,
    read_text,
)

# Half-width kana and Korean, before they are composed.
_HALF_WIDTH = "\uff66-\uff9d\uffa0-\uffdc"
_APART = f"{HAN_KANA}{HANGUL}{_HALF_WIDTH}{EMOJI}{FLAG_LETTERS}{THAI_LAO}{STACKED}"
# Punctuation and signs outside ASCII that occur next to words.
_SIGNS = (
    "\u00a1-\u00a9\u00ab-\u00b4\u00b6-\u00b9\u00bb-\u00bf\u2010-\u2027\u2030-\u205e\u3000-\u3020"
)
_LETTERS = rf"(?:[^\W_{_APART}]|[^\w\s\x00-\x7f{_SIGNS}{_APART}]|[{UNSEEN}])"
# What is analysed by itself: a word with its dots and signs, or a character that is a term alone,
# with its marks.
_READ_ALONE = re.compile(
    rf"\.?{_LETTERS}++(?:\.{_LETTERS}++)*(?:\+\+|#)?"
    rf"|[{FLAG_LETTERS}]{{2}}"
    rf"|{THAI_LAO_CLUSTER}|[{THAI_LAO}]"
    rf"|{STACKED_CLUSTER}"
    rf"|[{JAMO}]+"
    rf"|[{_APART}][\uff9e\uff9f\u3099\u309a{UNSEEN}]*"
)


@frozen
class TermSpans:
    """The terms of a text, each with the part of the text that it was read from."""

    terms: tuple[str, ...]
    """First those of the text, in order; then those that are added of its identifiers."""
    spans: tuple[tuple[int, int], ...]
    """Where each term begins and ends, in characters."""
    placed: int
    """How many of the terms are those of the text."""


def term_spans(text: str) -> TermSpans:
    """Return the terms of a text with their spans; each word is analysed by itself."""
    terms: list[str] = []
    spans: list[tuple[int, int]] = []
    added: dict[str, tuple[int, int]] = {}
    for found in _READ_ALONE.finditer(text):
        word, span = found[0], found.span()
        if word.isalpha() and word.isascii() and (word[1:].islower() or len(word) == 1):
            terms.append(word.lower())
            spans.append(span)
            continue
        read = read_text(word)
        made = TERM.findall(read.text)
        terms += made
        spans += [span] * len(made)
        added |= dict.fromkeys((*read.wholes, *read.within), span)
    return TermSpans((*terms, *added), (*spans, *added.values()), len(terms))
