"""An exception as a call records it, so that an equal one can be raised again."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import Limits
from ..events.calls import ErrorDetail
from ..events.values import decode_value, encode_value
from .converting import whole_text

_MOST_FRAMES = 8
_MOST_VALUES = 32


def describe_exception(error: BaseException, limits: Limits) -> ErrorDetail:
    """Return an exception's class, arguments, attributes and last frames.

    Arguments and attributes that CBOR cannot hold, or that are too long, are left out.
    """
    kind = type(error)
    most = limits.error_chars
    # Of an OSError the names of its files are arguments that its ``args`` leaves out.
    passed = OSError.__reduce__(error)[1] if isinstance(error, OSError) else error.args
    arguments = [_kept(value, most) for value in passed[:_MOST_VALUES]]
    whole = len(arguments) == len(passed) and _LOST not in arguments
    return ErrorDetail(
        whole_text(kind.__module__)[:most],
        whole_text(kind.__qualname__)[:most],
        tuple(arguments) if whole else None,
        _attributes(error, most),
        _frames(error, most),
    )


_LOST = object()


def _kept(value: Any, most_bytes: int) -> Any:
    """Return a value as a recording can hold it."""
    with suppress(Exception):
        return decode_value(encode_value(value, "value", "error_chars", most_bytes))
    return _LOST


def _attributes(error: BaseException, most: int) -> Mapping[str, Any]:
    kept = {}
    for name, value in islice(getattr(error, "__dict__", {}).items(), _MOST_VALUES):
        found = _kept(value, most) if not name.startswith("__") else _LOST
        if found is not _LOST:
            kept[name] = found
    return kept


def _frames(error: BaseException, most: int) -> tuple[str, ...]:
    frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
    lines = (f"{Path(f.filename).name}:{f.lineno} in {f.name}" for f in frames)
    return tuple(whole_text(line)[:most] for line in lines)
