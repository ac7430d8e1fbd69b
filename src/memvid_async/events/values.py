"""The values a caller may record: what is allowed, its deterministic CBOR, and its preview.

Everything that is encoded decodes to an equal value. What would not (a tuple, a set, a lone
surrogate) is refused when it is passed, and the error names its place. Integers have any size, and
floats may be infinite or not a number: every NaN is encoded alike, and decodes to the same object,
so that values which hold it are equal.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from itertools import islice
from typing import Any

import cbor2

from ..config import Limits
from ..errors import InvalidValueError, LimitExceededError
from .pace import unhurried

MAX_DEPTH = 32
MAX_ITEMS = 2**18
# A flat map of at most this many items is checked and put in order in one pass.
_FEW_ITEMS = 32
# Data with more bytes, or characters, is processed in pieces of this size: a single call holds the
# interpreter as long as it runs.
LARGE = 64 * 1024
PREVIEW_CHARS = 512

_PLAIN = frozenset((int, float, str, bytes, list, tuple, dict, type(None)))

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
# The first and the last time, in nanoseconds since the Unix epoch.
EARLIEST, LATEST = -(2**63), 2**63 - 1

# C0 and C1 controls (Unicode category Cc) but newline and tab: a preview is safe on a terminal.
CONTROLS = {c: "\ufffd" for c in (*range(0x20), *range(0x7F, 0xA0)) if chr(c) not in "\n\t"}


def check_text(value: object, what: str) -> str:
    """Return the value if it is a str that UTF-8 can hold.

    :raises InvalidValueError: for another type, or a lone surrogate.
    """
    if not isinstance(value, str):
        raise InvalidValueError(f"{what} must be a str, not {type(value).__name__}")
    at = -1
    if not value.isascii():
        try:
            if len(value) > LARGE:
                deque(encoded(value), maxlen=0)
            else:
                value.encode()
        except UnicodeEncodeError as error:
            at = value.index(error.object[error.start])
    # Raised here, so that the error does not hold the other one, which holds the text.
    if at >= 0:
        raise InvalidValueError(
            f"{what} has a lone surrogate at {at}; encode it as bytes to keep it"
        )
    return value


def shown(value: object) -> str:
    """Return a value as an error names it: a number as it is, of anything else its type alone.

    A text that was passed in a wrong place may be a secret.
    """
    if value is None or type(value) in (bool, int, float):
        with suppress(ValueError):
            return f"{value!r:.80}"
    return f"a {type(value).__name__}"


def as_plain(value: Any) -> Any:
    """Return a numpy scalar or array, a pandas series or the like as a number or a list; anything
    else as it is.

    An array has no truth value and equals nothing, and its numbers are neither int nor float.
    """
    kind = type(value)
    if kind in _PLAIN or not (hasattr(kind, "tolist") and hasattr(kind, "__array__")):
        return value
    return value.tolist()


def is_one_of(value: Any, allowed: Collection[str]) -> bool:
    """Whether a value is one of these texts; one that cannot be compared is not."""
    plain = as_plain(value)
    return isinstance(plain, str) and plain in allowed


def as_list(value: Any, what: str, most: int | None = None) -> list[Any]:
    """Return the items of an iterable, one more than ``most`` at most, so that it may be endless.

    Text, bytes and maps do not count as lists, although Python iterates over them. Nor does an
    array without a dimension, although it has ``__iter__``. ``what``: how the error begins.

    :raises InvalidValueError: when it cannot be iterated over, or does not count as a list.
    """
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        try:
            items = iter(value)
        except TypeError:
            pass
        else:
            return list(items if most is None else islice(items, most + 1))
    raise InvalidValueError(f"{what}, not {type(value).__name__}")


def is_duration(value: Any) -> bool:
    """Whether the value is a number of milliseconds as it is recorded: an int or a float from 0."""
    return (type(value) is float or type(value) is int) and 0 <= value <= 2**63


def is_time(value: Any) -> bool:
    """Whether the value is nanoseconds since the Unix epoch: an int from -2^63 to 2^63 - 1."""
    return type(value) is int and EARLIEST <= value <= LATEST


def checked_time(now: Any) -> int:
    """Return what ``StoreConfig.clock`` said.

    :raises InvalidValueError: when it is no :func:`is_time`.
    """
    if not is_time(now):
        raise InvalidValueError(f"clock() returned {now!r:.80}, not an int of nanoseconds")
    return int(now)


def check_value(value: object, what: str, depth: int = MAX_DEPTH) -> None:
    """Refuse a value that CBOR would not return as an equal one, or that holds too many items.

    ``depth``: how deep containers may be nested.

    :raises InvalidValueError: naming the place of the first value that cannot be recorded.
    """
    if not isinstance(value, (list, dict)):
        _check_leaf(value, what)
    elif _check_container(value, what, depth, MAX_ITEMS) < 0:
        raise InvalidValueError(f"{what} holds more than {MAX_ITEMS} items")


def _check_leaf(value: object, what: str) -> None:
    if value is None or isinstance(value, (bool, bytes)):
        return
    if isinstance(value, str):
        check_text(value, what)
    elif not isinstance(value, (int, float)):
        hint = "; use a list" if isinstance(value, (tuple, set, frozenset)) else ""
        raise InvalidValueError(f"{what} has type {type(value).__name__}{hint}")


def _check_container(value: list[Any] | dict[Any, Any], what: str, depth: int, room: int) -> int:
    """Check a container, and return for how many more items there is room.

    It stops below zero, because a small value may hold itself many times.
    """
    if depth == 0:
        raise InvalidValueError(f"{what} is nested more than {MAX_DEPTH} deep")
    room -= len(value) + 1
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in items:
        if isinstance(key, bool) or not isinstance(key, (str, int, bytes)):
            raise InvalidValueError(f"{what} has a key of type {type(key).__name__}; use str")
        if room < 0:
            break
        if isinstance(value, dict):
            _check_leaf(key, f"a key of {what}")
            if isinstance(key, int) and not _INT_MIN <= key <= _INT_MAX:
                raise InvalidValueError(f"a key of {what} is an int beyond 64 bits; use str")
        if isinstance(item, (list, dict)):
            room = _check_container(item, f"{what}[{key!r:.64}]", depth - 1, room)
        else:
            _check_leaf(item, f"{what}[{key!r:.64}]")
    return room


def encode_value(value: object, what: str, limit: str, allowed: int) -> bytes:
    """Encode a value that passes :func:`check_value` as deterministic CBOR (RFC 8949 section 4.2).

    :raises InvalidValueError: for a value that cannot be recorded.
    :raises LimitExceededError: when the encoding is longer than ``allowed`` bytes, or holds more
        than ``MAX_ITEMS`` items.
    """
    data: bytes
    if type(value) is dict and (flat := _in_order(value)) is not None:
        # The deterministic encoding of a flat map is the plain one of the map in order, which takes
        # a third of the time with what is checked.
        data = cbor2.dumps(flat)
    else:
        check_value(value, what)
        data = cbor2.dumps(value, canonical=True)
    if len(data) > allowed:
        raise LimitExceededError(limit, len(data), allowed)
    check_items(data, what)
    return data


_FLAT = frozenset((str, int, bool, bytes, type(None)))


def _in_order(value: dict[Any, Any]) -> dict[str, Any] | None:
    """Return a small map of texts in ASCII, numbers, bytes and the like, as arguments mostly are,
    with its keys in the order of their encodings: shorter ones first. None for another one."""
    if len(value) > _FEW_ITEMS:
        return None
    for key, item in value.items():
        kind = type(item)
        if type(key) is not str or not key.isascii() or kind not in _FLAT:
            return None
        if kind is str and not item.isascii():
            return None
    return dict(sorted(value.items(), key=_key_order)) if len(value) > 1 else value


def _key_order(item: tuple[str, Any]) -> tuple[int, str]:
    return len(item[0]), item[0]


def check_recordable(value: object, limits: Limits | None = None) -> None:
    """Return if a value can be recorded as metadata, as a tool call's arguments or as a message.

    ``limits``: checks its size too, against ``value_bytes``.

    :raises InvalidValueError: naming the first part of it that could not be read back unchanged.
    :raises LimitExceededError: when its CBOR is too long.
    """
    if limits is None:
        check_value(value, "the value")
    else:
        encode_value(value, "the value", "value_bytes", limits.value_bytes)


def check_items(data: bytes, what: str) -> None:
    """Refuse CBOR that :func:`decode_value` would refuse because of the number of its items.

    :raises InvalidValueError: when there are more than ``MAX_ITEMS``.
    """
    if len(data) > MAX_ITEMS and count_items(data, MAX_ITEMS)[0] > MAX_ITEMS:
        raise InvalidValueError(f"{what} holds more than {MAX_ITEMS} items")


def decode_value(
    data: bytes,
    tag_hook: Callable[[cbor2.CBORTag, Any], Any] | None = None,
    most: int = MAX_ITEMS,
) -> Any:
    """Decode the single value in ``data``, as :func:`encode_value` encodes it, strictly.

    It may have no tags except those of integers beyond 64 bits and those that ``tag_hook`` takes,
    no indefinite lengths, no duplicate keys, nothing left over, and at most ``most`` items, which
    bounds the main memory that a small input can take.

    :raises ValueError: when the bytes are anything else.
    """
    value = _decode(data, tag_hook or _refuse_tag, _WIDE_INTEGERS, most)
    return _with_one_nan(value) if _NAN in data else value


def decode_untagged(data: bytes, most: int = MAX_ITEMS) -> Any:
    """Decode a row of our own as :func:`decode_value` does; it has no tags at all.

    :raises ValueError: when the bytes are anything else.
    """
    return _decode(data, _refuse_tag, _NO_TAGS, most)


def _decode(
    data: bytes,
    tag_hook: Callable[[cbor2.CBORTag, Any], Any],
    tags: Mapping[int, Callable[..., Any]],
    most: int,
) -> Any:
    try:
        # An item has at least one byte.
        if len(data) > most and count_items(data, most)[0] > most:
            raise ValueError(f"more than {most} items")
        if len(data) > LARGE:
            file = BytesIO(data)
            value = cbor2.load(
                file,
                max_depth=_DEPTH,
                allow_indefinite=False,
                allow_duplicate_keys=False,
                tag_hook=tag_hook,
                semantic_decoders=tags,
            )
            whole = file.tell() == len(data)
        else:
            # This takes less than half the time, but copies the data.
            value, mark = cbor2.loads(
                b"\x82" + data + _MARK,
                max_depth=_DEPTH,
                allow_indefinite=False,
                allow_duplicate_keys=False,
                tag_hook=tag_hook,
                semantic_decoders=tags,
            )
            whole = mark == _MARK_VALUE
    except (cbor2.CBORError, IndexError) as error:
        raise ValueError(f"not strict CBOR: {error}") from None
    if not whole:
        raise ValueError("not strict CBOR: bytes left over")
    return value


def _refuse_tag(*_: object) -> Any:
    raise ValueError("unexpected CBOR tag")


def _wide_integer(data: Any, _: object) -> int:
    """Return the integer in the bytes of a tag 2 (RFC 8949, 3.4.3), where 64 bits do not hold it.

    :raises ValueError: when fewer bytes would do.
    """
    if type(data) is not bytes or len(data) <= 8 or not data[0]:
        raise ValueError("an integer with a tag that it does not need")
    return int.from_bytes(data, "big")


def _with_one_nan(value: Any) -> Any:
    """Return the value with the same object for every NaN: containers compare objects first."""
    if isinstance(value, float):
        return math.nan if math.isnan(value) else value
    if isinstance(value, (list, dict)):
        for key, item in enumerate(value) if isinstance(value, list) else value.items():
            if isinstance(item, (list, dict, float)):
                value[key] = _with_one_nan(item)
    return value


# It is decoded after the data, so that bytes left over are noticed. It is random, so that no file
# can hold it.
_MARK_VALUE = int.from_bytes(os.urandom(8), "big") | 1 << 63
_MARK = cbor2.dumps(_MARK_VALUE)
# The tags that cbor2 6.3 decodes by default (its documentation lists them).
_BUILT_IN_TAGS = (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261)
_NO_TAGS = dict.fromkeys((*_BUILT_IN_TAGS, 1004, 43000, 55799), _refuse_tag)
_WIDE_INTEGERS: dict[int, Callable[..., Any]] = {
    **_NO_TAGS,
    2: _wide_integer,
    3: lambda data, immutable: -1 - _wide_integer(data, immutable),
}
# Every NaN, in the deterministic encoding.
_NAN = b"\xf9\x7e\x00"
# Four more levels: a list around the value, and what holds that list.
_DEPTH = MAX_DEPTH + 4


def count_items(data: bytes, most: int, at: int = 0) -> tuple[int, int]:
    """Return how many CBOR items the one at ``at`` claims to be, itself included, and its end.

    It stops after ``most``, and allocates no item.

    :raises IndexError: when the data ends too soon, or has a length that is indefinite.
    """
    open_items = 1
    for items in unhurried(range(1, most + 2)):
        major, argument, at = read_head(data, at)
        open_items -= 1
        if major in (2, 3):
            at += argument
        elif major in (4, 5):
            open_items += argument * (major - 3)
        elif major == 6:
            open_items += 1
        if not open_items:
            return items, at
    return most + 1, at


def read_head(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the major type of the CBOR item at ``at``, its number or length, and the head's end.

    See RFC 8949, 3.1.

    :raises IndexError: when the data ends before, or the length is indefinite.
    """
    kind, argument = data[at] >> 5, data[at] & 31
    at += 1
    if argument < 24:
        return kind, argument, at
    if argument > 27:
        raise IndexError("an indefinite length")
    end = at + (1 << (argument - 24))
    return kind, int.from_bytes(data[at:end], "big"), end


def encoded(text: str) -> Iterator[bytes]:
    """Iterate over the text's UTF-8 in pieces."""
    pieces = range(0, len(text), LARGE)
    return (text[at : at + LARGE].encode() for at in unhurried(pieces, look=1))


def byte_count(text: str) -> int:
    """Return how many bytes a text has in UTF-8."""
    if text.isascii():
        return len(text)
    return len(text.encode()) if len(text) <= LARGE else sum(map(len, encoded(text)))


def preview(data: str | bytes) -> str:
    """Return the first 512 characters; bytes are decoded as UTF-8.

    Control characters other than newline and tab are replaced by U+FFFD.
    """
    if isinstance(data, bytes):
        text = data[: 4 * PREVIEW_CHARS].decode("utf-8", "replace")
    else:
        text = data[: 2 * PREVIEW_CHARS]
    return text.replace("\r\n", "\n")[:PREVIEW_CHARS].translate(CONTROLS)
