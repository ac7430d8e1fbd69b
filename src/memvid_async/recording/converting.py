"""What came after an effect is recorded whatever it is: converted, and cut to its limit.

A reply, a result and an error are known only when their call has done what it does, so refusing
them would lose what was paid for. Half of a surrogate pair becomes U+FFFD. These become text:

- an enum's member: its value; UUIDs, decimals, paths and the like: their ``str``; dates and times:
  ISO 8601; an exception: its type and text;
- numbers, lists, dicts and None in them, tuples, sets (sorted), other sequences and maps, named
  tuples, dataclasses, attrs and pydantic objects (by their fields), arrays: JSON, in which bytes
  are their text, or base64 where they are not UTF-8, and what JSON has no number for is its name;
- anything else: its ``repr``.

Bytes-like objects become bytes.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from itertools import islice
from pathlib import PurePath
from typing import Any, NamedTuple
from uuid import UUID

from ..errors import InvalidValueError
from ..events.conversion import Conversion
from ..events.values import LARGE, MAX_DEPTH, encoded

_OUTPUT, _CUT, _JSON = map(int, (Conversion.OUTPUT, Conversion.OUTPUT_CUT, Conversion.OUTPUT_JSON))
_AS_STR = (UUID, Decimal, Fraction, PurePath, timedelta, complex, IPv4Address, IPv6Address)
_AS_LIST = (Sequence, AbstractSet, deque, ValuesView)
_BYTES_LIKE = (bytes, bytearray, memoryview)
# Python refuses to print longer ints in decimal.
_MOST_BITS = 8192
# An exception's text, in characters.
_MOST_SAID = 2**24
# What an item takes of the room: a number in a list has at least three characters, alone one.
_ITEM_CHARS = 3
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]|[\ud800-\udfff]")


class Converted(NamedTuple):
    """A value as it can be recorded, and how it differs, as the bits of :class:`Conversion`."""

    data: str | bytes | None
    conversion: int


Clean = Callable[[Any], Any]


def convert_output(value: object, most_bytes: int, clean: Clean | None = None) -> Converted:
    """Return an output as it can be recorded, with at most ``most_bytes`` bytes as UTF-8.

    ``clean``: what each text in it is passed through, and bytes, before anything is cut.
    """
    if value is None:
        return Converted(None, 0)
    conversion = 0
    if clean is not None and type(value) in (str, bytes):
        value = clean(value)
    if type(value) is not str and type(value) is not bytes:
        conversion = _OUTPUT
        # Whatever runs out of this room is too long as JSON too.
        making = _Plain(_ITEM_CHARS * (most_bytes + 1), clean)
        value = making.plain(value)
        if clean is not None and isinstance(value, bytes):
            value = clean(value)
        if not isinstance(value, (str, bytes)):
            value = _as_json(value)
            conversion |= _JSON
        if making.is_short:
            conversion |= _CUT
    if isinstance(value, bytes):
        data: str | bytes = value[:most_bytes]
        is_cut = len(value) > most_bytes
    else:
        text = whole_text(value)
        data = cut_text(text, most_bytes)
        is_cut = len(data) < len(text)
        conversion |= _OUTPUT if text != value else 0
    if is_cut or conversion & _CUT:
        # What was cut is not JSON any more.
        conversion = conversion & ~_JSON | _CUT
    return Converted(data, conversion)


def read_result(data: str | bytes) -> Any:
    """Return a recorded result.

    :raises InvalidValueError: when it is not the JSON that it should be.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidValueError(f"the recorded result is not JSON: {error}") from None


def convert_error(value: object, most_chars: int, clean: Clean | None = None) -> Converted:
    """Return how an action failed, in words: an exception's type and text; None for None.

    ``clean``: see :func:`convert_output`.
    """
    if value is None:
        return Converted(None, 0)
    data, conversion = convert_output(value, 4 * most_chars, clean)
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""
    marks = 0
    if type(value) is not str or conversion & _OUTPUT:
        marks |= Conversion.ERROR
    if conversion & _CUT or len(text) > most_chars:
        marks |= Conversion.ERROR_CUT
    return Converted(text[:most_chars], int(marks))


def whole_text(text: str) -> str:
    """Return a text as UTF-8 can hold it: two halves of a surrogate pair are joined, and one that
    is alone is replaced by U+FFFD."""
    if text.isascii():
        return text
    try:
        for _ in encoded(text):
            pass
    except UnicodeEncodeError:
        return _PAIR.sub(_joined, text)
    return text


def _joined(found: re.Match[str]) -> str:
    return found[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")[:1]


def cut_text(text: str, most_bytes: int) -> str:
    """Return the beginning of a text that has at most ``most_bytes`` bytes as UTF-8."""
    if 4 * len(text) <= most_bytes:
        return text
    room, at = most_bytes, 0
    for piece in encoded(text):
        if len(piece) > room:
            return text[:at] + piece[:room].decode("utf-8", "ignore")
        room -= len(piece)
        at += LARGE
    return text


def describe_error(error: BaseException, most_chars: int) -> str:
    """Return an exception in words, as it is recorded."""
    try:
        said = str.__str__(str(error))
    except Exception:  # noqa: BLE001 - somebody's exception need not be printable
        said = ""
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return whole_text(text[:most_chars])


def _as_json(plain: Any) -> str:
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)


class _Plain:
    """Makes a value plain: what JSON holds, or a text, or bytes.

    It has room for ``room`` characters, and leaves an ellipsis in place of what is beyond; then
    ``is_short``. The methods of somebody's objects may raise anything: then the object's ``repr``
    is left.
    """

    def __init__(self, room: int, clean: Clean | None) -> None:
        self._room = room
        self._clean = clean
        self.is_short = False

    def plain(self, value: object) -> Any:
        """Return a value made plain; bytes only for what is bytes itself."""
        # A memoryview may have been released.
        with suppress(Exception):
            if isinstance(value, _BYTES_LIKE):
                return _as_bytes(value)
        return self._make(value, 0)

    def _make(self, value: Any, depth: int) -> Any:
        self._room -= _ITEM_CHARS
        if self._room < 0:
            self.is_short = True
            return "…"
        with suppress(Exception):
            made = self._leaf(value)
            if made is _NO_LEAF and depth < MAX_DEPTH:
                made = self._container(value, depth)
            if made is not _NO_LEAF:
                return made
        return self._bounded(_described(value))

    def _bounded(self, text: str) -> str:
        text = str.__str__(text)
        if self._clean is not None:
            text = self._clean(text)
        self._room -= len(text)
        if self._room >= 0:
            return text
        self.is_short = True
        return f"{text[: max(0, self._room + len(text))]}…"

    def _leaf(self, value: Any) -> Any:
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str) and not isinstance(value, Enum):
            return self._bounded(value)
        if isinstance(value, int) and not isinstance(value, Enum):
            whole = int.__int__(value)
            return whole if whole.bit_length() <= _MOST_BITS else self._bounded(hex(whole))
        if isinstance(value, float) and not isinstance(value, Enum):
            number = float.__float__(value)
            if math.isfinite(number):
                return number
            return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        if isinstance(value, (datetime, date, time)):
            return value.isoformat()
        if isinstance(value, _AS_STR):
            return self._bounded(str(value))
        if isinstance(value, _BYTES_LIKE):
            return self._bounded(_bytes_text(value))
        if isinstance(value, BaseException):
            return self._bounded(describe_error(value, _MOST_SAID))
        return _NO_LEAF

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, type):
            return _NO_LEAF
        fields = value.value if isinstance(value, Enum) else self._fields_of(value)
        if fields is not _NO_LEAF:
            value = fields
            if not isinstance(value, (Mapping, *_AS_LIST)):
                # What takes the place of an object takes no more room.
                self._room += _ITEM_CHARS
                return self._make(value, depth + 1)
        if isinstance(value, Mapping):
            return self._map(value, depth)
        if isinstance(value, (str, *_BYTES_LIKE)):
            return self._leaf(value)
        if isinstance(value, _AS_LIST):
            items = [
                self._make(item, depth + 1)
                for item in islice(value, max(1, self._room // _ITEM_CHARS + 1))
            ]
            return sorted(items, key=_as_json) if isinstance(value, AbstractSet) else items
        return _NO_LEAF

    def _fields_of(self, value: Any) -> Any:
        """Return what an object of a known make consists of, a dict or a list mostly."""
        kind = type(value)
        if callable(getattr(kind, "model_dump", None)):
            return value.model_dump()
        if dataclasses.is_dataclass(kind):
            return {one.name: getattr(value, one.name) for one in dataclasses.fields(kind)}
        if isinstance(getattr(kind, "__attrs_attrs__", None), tuple):
            return {one.name: getattr(value, one.name) for one in kind.__attrs_attrs__}
        if isinstance(value, tuple) and isinstance(getattr(kind, "_fields", None), tuple):
            return dict(zip(kind._fields, value, strict=True))
        # An array that is larger than all of the room is described.
        if hasattr(kind, "tolist") and getattr(value, "nbytes", 0) <= 8 * self._room:
            return value.tolist()
        return _NO_LEAF

    def _map(self, value: Mapping[Any, Any], depth: int) -> Any:
        pairs = []
        for key, item in islice(value.items(), max(1, self._room // _ITEM_CHARS + 1)):
            made = self._make(key, depth + 1)
            name = made if isinstance(made, str) else _as_json(made)
            pairs.append([name, self._make(item, depth + 1)])
        named = dict(pairs)
        # Where two keys have one name, neither is lost.
        return named if len(named) == len(pairs) else pairs


_NO_LEAF = object()


def _as_bytes(value: bytes | bytearray | memoryview) -> bytes:
    return bytes(memoryview(value))


def _bytes_text(value: bytes | bytearray | memoryview) -> str:
    raw = _as_bytes(value)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode()


def _described(value: object) -> str:
    """Return an object's ``repr``; where it has none, the name of its type."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - what somebody's __repr__ raises
        return f"<{type(value).__name__}>"
