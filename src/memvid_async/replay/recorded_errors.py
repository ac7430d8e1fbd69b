"""Raising a recorded exception again: of its own type, where that is there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import InvalidValueError, RecordedCallError
from ..events.calls import ErrorDetail
from ..events.event import Action

ErrorTypes = Mapping[str, type[Exception]]


def recorded_error(action: Action, types: ErrorTypes) -> RecordedCallError:
    """Return the error with which a recorded call failed.

    It is a :class:`RecordedCallError`, and also one of the type that was recorded, if a loaded
    module has it and it can be built, or else of the one that ``types`` has for its name.
    :func:`import_types` loads the modules.
    """
    detail = action.error_detail
    if detail is not None:
        for found in (_loaded(detail), types.get(detail.type_name), types.get(detail.qualname)):
            error = None if found is None else _build(found, action, detail)
            if error is not None:
                return error
    return _with_frames(RecordedCallError(action), detail)


def import_types(details: Iterable[ErrorDetail]) -> None:
    """Import the modules of these exceptions, where they are not loaded and can be. It blocks.

    An agent may import a module only where it needs it, and catch that module's errors there.
    Importing runs the module's own code; `docs/testing.md` says what that means.
    """
    for name in {detail.module for detail in details} - sys.modules.keys():
        if all(part.isidentifier() for part in name.split(".")):
            with suppress(Exception, SystemExit):
                import_module(name)


def check_types(value: Any) -> ErrorTypes:
    """Return the types of errors by the names that recordings have for them.

    :raises InvalidValueError: when they are not such ones.
    """
    if not isinstance(value, Mapping):
        raise InvalidValueError("errors must be a dict of exception types, by recorded name")
    for name, one in value.items():
        if not (isinstance(name, str) and isinstance(one, type) and issubclass(one, Exception)):
            raise InvalidValueError(f"errors maps names to exception types, not {one!r:.80}")
    return dict(value)


def _loaded(detail: ErrorDetail) -> type[Exception] | None:
    found: Any = sys.modules.get(detail.module)
    for name in detail.qualname.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _build(type_: type[Exception], action: Action, detail: ErrorDetail) -> RecordedCallError | None:
    """Return a recorded error that is one of this type too; None where there can be none."""
    arguments = detail.arguments
    shown = (action.error or "").removeprefix(f"{detail.qualname.rpartition('.')[2]}: ")
    given = (shown,) if arguments is None else arguments
    try:
        both = _both(type_)
        error: Any = type_.__new__(both, *given)
    except Exception:  # noqa: BLE001 - a type of somebody else's, which may refuse anything
        return None
    # What these would set and cannot is left out; the type is somebody else's.
    with suppress(Exception):
        type_.__init__(error, *given)
    if not isinstance(error, OSError):
        error.args = given
    error.action = action
    for name, value in detail.attributes.items():
        with suppress(Exception):
            setattr(error, name, value)
    found: RecordedCallError = _with_frames(error, detail)
    return found


# The types that were made, by the type that they are too.
_MADE = WeakKeyDictionary[type[Exception], type[RecordedCallError]]()


def _both(type_: type[Exception]) -> type[RecordedCallError]:
    """Return a type that is this one and a :class:`RecordedCallError`, and is named like this."""
    known = _MADE.get(type_)
    if known is not None:
        return known
    members: dict[str, Any] = {
        "__module__": type_.__module__,
        "__qualname__": type_.__qualname__,
        "__doc__": type_.__doc__,
        "__reduce__": lambda self: (_again, (type_, self.args, dict(self.__dict__))),
    }
    made = type(type_.__name__, (RecordedCallError, type_), members)
    _MADE[type_] = made
    return made


def _again(type_: type[Exception], args: tuple[Any, ...], values: dict[str, Any]) -> Exception:
    """Return the copy of an error, for :mod:`copy` and :mod:`pickle`."""
    error: Exception = type_.__new__(_both(type_), *args)
    error.args = args
    error.__dict__.update(values)
    return error


def _with_frames(error: RecordedCallError, detail: ErrorDetail | None) -> RecordedCallError:
    if detail is not None and detail.frames:
        error.add_note("\n  ".join(("When it was recorded, it was raised in", *detail.frames)))
    return error
