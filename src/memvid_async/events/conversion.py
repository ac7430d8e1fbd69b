"""What of an action had to be changed before it could be recorded."""

from __future__ import annotations

from enum import IntFlag


class Conversion(IntFlag):
    """How the recorded values of an action differ from those that the caller had.

    What a call returned is never refused, because it came after the call's effect: what the file
    cannot hold is converted, and what is too long is cut. What a caller hands over before an effect
    is checked strictly.

    - Half of a surrogate pair becomes U+FFFD; bytes-like objects become bytes.
    - An enum's member is its value; UUIDs, decimals, paths, durations are their ``str``; dates and
      times ISO 8601; an exception its type and text.
    - Numbers, None inside a value, lists, tuples, sets (sorted), dicts, other sequences and maps,
      arrays, and the fields of named tuples, dataclasses, attrs and pydantic objects are JSON.
      Bytes in it are their text, or base64 where they are not UTF-8; NaN and the infinities are
      their names.
    - Anything else is its ``repr``.
    """

    INPUT = 1
    """The input had another type, or half of a surrogate pair."""
    OUTPUT = 2
    """So had the output."""
    INPUT_CUT = 4
    """The input was longer than its limit; this is how it began."""
    OUTPUT_CUT = 8
    """So was the output."""
    ERROR = 16
    """The error was not a str, or had half of a surrogate pair."""
    ERROR_CUT = 32
    """The error was longer than its limit."""
    OUTPUT_JSON = 64
    """The output is JSON: it was a number, a list, a dict or the like."""
    COUNT = 128
    """A count of tokens, or a cost, was not a number from 0, and is left out."""
    DURATION = 256
    """The duration was not a number from 0, and is left out: it is 0."""


UNCONVERTED = Conversion(0)
