"""An exception as a call records it, so that an equal one can be raised again."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path
from types import MemberDescriptorType
from typing import Any

from ..config import Limits
from ..events.calls import ErrorDetail
from ..events.values import decode_value, encode_value
from .converting import whole_text
from .foreign_errors import http_part, validation_arguments

_MOST_FRAMES = 8
_MOST_VALUES = 32
# Of a group of exceptions: how many are described in all, and how deep groups are in each other.
_MOST_MEMBERS = 64
_MOST_DEPTH = 8
# Their fields besides the arguments are not in their __dict__.
_WITH_FIELDS = (ImportError, NameError, AttributeError)
_OURS = Path(__file__).resolve().parents[1]


def describe_exception(error: BaseException, limits: Limits) -> ErrorDetail:
    """Return an exception's class, arguments, attributes and last frames; of a group, those of its
    members too.

    Arguments and attributes that CBOR cannot hold, or that are too long, are left out.
    """
    return _Describing(limits.error_chars).describe(error, 0)


class _Describing:
    """Describes an exception, with values of at most ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._room = _MOST_MEMBERS

    def describe(self, error: BaseException, depth: int) -> ErrorDetail:
        """Return what is recorded of an exception that is in ``depth`` groups."""
        most, kind = self._most, type(error)
        passed, members = _made_of(error), self._members(error, depth)
        arguments = [_kept(value, most) for value in passed[:_MOST_VALUES]]
        whole = len(arguments) == len(passed) and _LOST not in arguments and members is not None
        return ErrorDetail(
            whole_text(kind.__module__)[:most],
            whole_text(kind.__qualname__)[:most],
            tuple(arguments) if whole else None,
            _attributes(error, most),
            _frames(error, most),
            members or (),
        )

    def _members(self, error: BaseException, depth: int) -> tuple[ErrorDetail, ...] | None:
        """Return what is recorded of a group's members; None where they are too many."""
        if not isinstance(error, BaseExceptionGroup):
            return ()
        self._room -= len(error.exceptions)
        if self._room < 0 or depth >= _MOST_DEPTH:
            return None
        return tuple([self.describe(member, depth + 1) for member in error.exceptions])


def _made_of(error: BaseException) -> tuple[Any, ...]:
    """Return the arguments of which an equal exception can be made, but for a group's members."""
    if isinstance(error, OSError):
        # The names of its files are arguments that its ``args`` leaves out.
        return tuple(OSError.__reduce__(error)[1])
    if isinstance(error, BaseExceptionGroup):
        return (error.message,)
    return validation_arguments(error) or error.args


_LOST = object()


def _kept(value: Any, most_bytes: int) -> Any:
    """Return a value as a recording can hold it."""
    with suppress(Exception):
        return decode_value(encode_value(value, "value", "error_chars", most_bytes))
    return _LOST


def _attributes(error: BaseException, most: int) -> Mapping[str, Any]:
    kept = {}
    given = chain(getattr(error, "__dict__", {}).items(), _fields(error))
    for name, value in islice(given, _MOST_VALUES):
        found = _kept(value, most) if not name.startswith("__") else _LOST
        if found is _LOST:
            found = _kept(http_part(value, most), most)
        if found is not _LOST and (found is not None or value is None):
            kept[name] = found
    return kept


def _fields(error: BaseException) -> Iterator[tuple[str, Any]]:
    """Yield what an exception holds in fields of its class."""
    for kind in type(error).__mro__:
        if kind in _WITH_FIELDS or "__slots__" in vars(kind):
            for name, one in vars(kind).items():
                if isinstance(one, MemberDescriptorType):
                    with suppress(AttributeError):
                        yield name, getattr(error, name)


def _frames(error: BaseException, most: int) -> tuple[str, ...]:
    """Return the last frames of a traceback, without those of this library."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    lines = (f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames[-_MOST_FRAMES:])
    return tuple(whole_text(line)[:most] for line in lines)


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(_OURS)
