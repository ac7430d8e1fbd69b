"""Raising a recorded exception again: of its own type, where that is there."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any
from weakref import WeakKeyDictionary

from ..errors import InvalidValueError, RecordedCallError, ReplayStopped
from ..events.calls import ErrorDetail
from ..events.event import Action
from ..recording.foreign_errors import http_object, validation_error

ErrorTypes = Mapping[str, type[BaseException]]


def recorded_error(action: Action, types: ErrorTypes) -> BaseException:
    """Return the error with which a recorded call failed.

    It is a :class:`RecordedCallError`, and also one of the type that was recorded, if a loaded
    module has it and it can be built, or else of the one that ``types`` has for its name. What is
    no :class:`Exception` (:class:`SystemExit`) is of its own type alone, since ``except Exception``
    would catch a :class:`RecordedCallError`; so is what only its own class can make (pydantic's).
    :func:`import_types` loads the modules.
    """
    return _error_of(action, action.error_detail, types)


def _error_of(action: Action, detail: ErrorDetail | None, types: ErrorTypes) -> BaseException:
    if detail is not None:
        for found in (_loaded(detail), types.get(detail.type_name), types.get(detail.qualname)):
            if found is not None:
                members = [_error_of(action, member, types) for member in detail.members]
                error = _build(found, action, detail, members)
                if error is not None:
                    return error
    return _with_frames(RecordedCallError(action), detail)


def import_types(details: Iterable[ErrorDetail]) -> None:
    """Import the modules of these exceptions, where they are not loaded and can be. It blocks.

    An agent may import a module only where it needs it, and catch that module's errors there.
    Importing runs the module's own code; `docs/testing.md` says what that means.
    """
    modules, left = set(), [*details]
    while left:
        detail = left.pop()
        modules.add(detail.module)
        left += detail.members
    for name in modules - sys.modules.keys():
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
        if not (isinstance(name, str) and isinstance(one, type) and issubclass(one, BaseException)):
            raise InvalidValueError(f"errors maps names to exception types, not {one!r:.80}")
    return dict(value)


def _loaded(detail: ErrorDetail) -> type[BaseException] | None:
    found: Any = sys.modules.get(detail.module)
    for name in detail.qualname.split("."):
        found = getattr(found, name, None)
    is_type = isinstance(found, type) and issubclass(found, BaseException)
    return found if is_type and not issubclass(found, _NEVER_RAISED) else None


# A file may name any type. One of these would stop the agent in a way that no call can.
_NEVER_RAISED = (GeneratorExit, ReplayStopped)


def _build(
    type_: type[BaseException],
    action: Action,
    detail: ErrorDetail,
    members: Sequence[BaseException] = (),
) -> BaseException | None:
    """Return a recorded error that is one of this type too; None where there can be none.

    ``members``: of a group.
    """
    given = detail.arguments
    if given is None:
        given = ((action.error or "").removeprefix(f"{detail.qualname.rpartition('.')[2]}: "),)
    given = (*given, [*members]) if members else given
    try:
        error = _made(type_, given)
    except Exception:  # noqa: BLE001 - a type of somebody else's, which may refuse anything
        return None
    # What these would set and cannot is left out; the type is somebody else's.
    for name, value in {**detail.attributes, "action": action}.items():
        with suppress(Exception):
            setattr(error, name, http_object(value))
    return _with_frames(error, detail)


def _made(type_: type[BaseException], given: tuple[Any, ...]) -> BaseException:
    """Return an error that is made of these arguments. It raises what the type raises."""
    validation = validation_error(type_, given)
    if validation is not None:
        return validation
    kind = _both(type_) if issubclass(type_, Exception) else type_
    try:
        error = type_.__new__(kind, *given)
    except TypeError:
        # Some of Python's own do not make one of another type, which has the same form.
        error = Exception.__new__(kind, *given)
    with suppress(Exception):
        type_.__init__(error, *given)
    if not isinstance(error, (OSError, BaseExceptionGroup)):
        error.args = given
    return error


# The types that were made, by the type that they are too.
_MADE = WeakKeyDictionary[type[BaseException], type[RecordedCallError]]()


def _both(type_: type[BaseException]) -> type[RecordedCallError]:
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


def _again(
    type_: type[BaseException], args: tuple[Any, ...], values: dict[str, Any]
) -> BaseException:
    """Return the copy of an error, for :mod:`copy` and :mod:`pickle`."""
    error = _made(type_, args)
    error.__dict__.update(values)
    return error


def _with_frames(error: BaseException, detail: ErrorDetail | None) -> BaseException:
    if detail is not None and detail.frames:
        error.add_note("\n  ".join(("When it was recorded, it was raised in", *detail.frames)))
    return error
