"""What of an action had to be changed before it could be recorded."""

from __future__ import annotations

from enum import IntFlag


class Conversion(IntFlag):
    """How the recorded values of an action differ from those that the caller had.

    What a call returned is never refused, because it came after the call's effect: what the file
    cannot hold is converted, and what is too long is cut.
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
