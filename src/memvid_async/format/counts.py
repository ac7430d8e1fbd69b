"""Checks of the numbers in rows: ids, sequences, offsets and times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def are_counts(values: Iterable[Any]) -> bool:
    """Whether each value is an int from 0 to 2^63 - 1."""
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def is_count(value: Any) -> bool:
    """Whether the value is an int from 0 to 2^63 - 1."""
    return type(value) is int and 0 <= value < 2**63
