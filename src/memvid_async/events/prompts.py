"""What a model is asked, and what it replies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Any, AnyStr

from attrs import field, frozen

from ..errors import InvalidValueError
from .calls import Usage
from .frames import Context
from .printing import counted
from .values import as_plain

MOST_TOKENS = 2**63 - 1

COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "cost_usd")
"""What a model may count, by the names that a :class:`Generated`, a :class:`Reply` and a
:class:`Usage` have."""


def _listed(messages: Sequence[Any]) -> list[Any]:
    try:
        return list(messages)
    except TypeError:
        kind = type(messages).__name__
        raise InvalidValueError(f"messages must be a list of messages, not {kind}") from None


@frozen
class Prompt:
    """What a model is asked: the only argument of ``generate``.

    ``str(prompt)`` is ready to send: the passages of the context, the messages, and the question
    (unless the last message is the question itself), with an empty line between them.
    """

    question: str | bytes
    """The question; bytes only where it was recorded as bytes."""
    context: Context | None = None
    """What was retrieved for the question; None where nothing was searched."""
    messages: Sequence[Any] = field(default=(), converter=_listed)
    """The messages that go with it, one item per message. The list is the model's own: changing it
    does not change what is recorded."""

    def __str__(self) -> str:
        question = as_text(self.question)
        parts = ["" if self.context is None else str(self.context)]
        parts += map(_message_text, self.messages)
        if not (self.messages and _content_of(self.messages[-1]) == question):
            parts.append(question)
        return "\n\n".join(filter(None, parts))


def as_text(value: str | bytes) -> str:
    """Return a text; bytes are decoded as UTF-8, with U+FFFD for invalid ones."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _content_of(message: Any) -> str | None:
    """Return the text of a message that has only a role besides; None for any other."""
    if isinstance(message, (str, bytes)):
        return as_text(message)
    if isinstance(message, Mapping) and message.keys() <= {"role", "content"}:
        content = message.get("content")
        return content if isinstance(content, str) else None
    return None


def _message_text(message: Any) -> str:
    content = _content_of(message)
    if content is None:
        return _as_json(message)
    role = message.get("role") if isinstance(message, Mapping) else None
    return content if role is None else f"{role}: {content}"


def _as_json(message: Any) -> str:
    """Return a message as JSON; as its repr where JSON cannot hold it."""
    try:
        return json.dumps(message, ensure_ascii=False)
    except (TypeError, ValueError):
        with suppress(ValueError):
            return repr(message)
        # Python does not write very long integers in decimal.
        return f"({type(message).__name__})"


def kept_count(name: str, value: Any) -> Any:
    """Return what a model counted as it can be kept: tokens an int from 0, the cost a number of US
    dollars; None for anything else. A float may be a whole number.

    ``name``: one of :data:`COUNTS`.
    """
    # The methods of somebody's object may raise anything.
    with suppress(Exception):
        plain = as_plain(value)
        if name == "cost_usd":
            plain = float(plain) if isinstance(plain, Decimal) else plain
            return plain if is_cost(plain) else None
        if isinstance(plain, (float, Decimal)) and plain == int(plain):
            plain = int(plain)
        return plain if type(plain) is int and 0 <= plain <= MOST_TOKENS else None
    return None


MOST_DOLLARS = 9_000_000
_UNITS = 10**12


def is_cost(value: Any) -> bool:
    """Whether a value is a number of US dollars, from 0 to 9 million."""
    return type(value) in (int, float) and 0 <= value <= MOST_DOLLARS


def cost_units(dollars: float) -> int:
    """Return US dollars in units of 10^-12, which add without drift."""
    above, below = dollars.as_integer_ratio()
    return (2 * above * _UNITS + below) // (2 * below)


def cost_dollars(units: int) -> float:
    """Return units of 10^-12 US dollars in dollars."""
    return units / _UNITS


def _whole_units(dollars: float | None) -> float | None:
    return cost_dollars(cost_units(dollars)) if is_cost(dollars) else dollars  # type: ignore[arg-type]


@frozen
class Generated:
    """A model's reply, or one chunk of it, with the model's counts. ``str(reply)`` is its text.

    A reply that comes in chunks has the sums of its chunks' counts. A model may count anything:
    what is not a number from 0 is left out of what is recorded and returned to the caller.
    """

    text: str | bytes
    """The reply; bytes stay bytes. A model may pass anything here; it is recorded, and returned
    to the caller, as what it is converted to."""
    input_tokens: int | None = None
    """Tokens that the model read; None where it did not count."""
    output_tokens: int | None = None
    """Tokens that it wrote."""
    cached_tokens: int | None = None
    """Tokens that it read from a cache: a part of ``input_tokens``."""
    cost_usd: float | None = None
    """What it cost, in US dollars."""

    def __str__(self) -> str:
        text: Any = self.text
        return as_text("" if text is None else text)


NO_USAGE = Usage()


@frozen
class Reply:
    """How a reply came, as it is recorded: its chunks, and the model's counts."""

    chunks: tuple[int, ...]
    """The length of each chunk, in characters (of a reply in bytes: in bytes); one for a reply
    that came whole."""
    input_tokens: int | None = None
    """Tokens that the model read; None where it did not count."""
    output_tokens: int | None = None
    """Tokens that it wrote."""
    cached_tokens: int | None = None
    """Tokens that it read from a cache: a part of ``input_tokens``."""
    cost_usd: float | None = field(default=None, converter=_whole_units)
    """What it cost, in US dollars, to 12 places."""
    waits_ms: tuple[int, ...] = field(default=(), repr=counted("wait"))
    """How long the model was waited for before each chunk, in milliseconds; empty where that is
    not known, or where the reply came whole."""

    @property
    def usage(self) -> Usage | None:
        """The counts; None where the model counted nothing."""
        usage = Usage(self.input_tokens, self.output_tokens, self.cached_tokens, self.cost_usd)
        return None if usage == NO_USAGE else usage

    def split(self, text: AnyStr) -> list[AnyStr]:
        """Split a reply's text into its chunks; leave it whole where they do not fit it."""
        return split_text(text, self.chunks)


def split_text(text: str | bytes, lengths: Sequence[int]) -> list[Any]:
    """Split a text into pieces of these lengths; leave it whole where they do not add up to it."""
    if not lengths or sum(lengths) != len(text):
        return [text]
    places = accumulate(lengths, initial=0)
    return [text[start:end] for start, end in pairwise(places)]
