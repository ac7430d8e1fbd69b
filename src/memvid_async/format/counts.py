"""Checks of the numbers in rows: ids, sequences, offsets and times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def are_counts(values: Iterable[Any]) -> bool:
    """Whether each value is an int from 0 to 2^63 - 1."""
    # Every segment that is read comes here, and a generator takes longer than its few numbers.
    for value in values:  # noqa: SIM110
        if type(value) is not int or not 0 <= value < 2**63:
            return False
    return True


def is_count(value: Any) -> bool:
    """Whether the value is an int from 0 to 2^63 - 1."""
    return type(value) is int and 0 <= value < 2**63
