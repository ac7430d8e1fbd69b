"""Preparing a caller's values for a command: they are checked and bounded, encoded and hashed.

No command is queued before all of its values are known to be right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import islice
from typing import Any, TypedDict, cast
from uuid import UUID

from ..config import Limits
from ..core.commands import LargeContent, Prepared
from ..core.held_messages import CONTENT_BYTES, Messages, hashed_messages
from ..errors import InvalidValueError, LimitExceededError
from ..events.content import EMPTY, content_digest
from ..events.conversion import Conversion
from ..events.frozen_dict import FrozenDict
from ..events.prompts import COUNTS, Reply, kept_count
from ..events.values import (
    LARGE,
    as_plain,
    byte_count,
    check_text,
    decode_value,
    encode_value,
    is_duration,
    is_time,
    preview,
    shown,
)
from .converting import convert_error, convert_output
from .scrubbing import WITHHELD, ScrubbingLimits, cleaner, scrubbed

_MOST_FRAME_ID = 2**63 - 1
_UUID_CHARS = 36
_MOST_SECONDS = 1e10
# Hashing this many bytes takes as long as checking and encoding one item.
_ITEM_COST = 32
_MOST_ITEMS = LARGE // _ITEM_COST
_SIZED = (str, bytes, bytearray, memoryview)
_FLAT = (*_SIZED, int, float, type(None))


def prepare_text(value: object, what: str, limit: str, allowed: int) -> str:
    """Return a str of at most ``allowed`` characters; ``limit`` is that limit's name.

    :raises InvalidValueError, LimitExceededError: when it is anything else.
    """
    if type(value) is str and len(value) <= allowed and value.isascii():
        return value
    text = check_text(value, what)
    if len(text) > allowed:
        raise LimitExceededError(limit, len(text), allowed)
    return text


def prepare_field(value: object, what: str, limit: str, limits: Limits) -> str:
    """Return a str, scrubbed, of at most as many characters as the limit with this name allows.

    :raises InvalidValueError, LimitExceededError: when it is anything else.
    """
    return prepare_text(scrubbed(limits, what, value), what, limit, getattr(limits, limit))


def prepare_name(value: object, what: str, limits: Limits) -> str:
    """Return a name, scrubbed: of a provider, a model, a tool, a task.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    if type(limits) is ScrubbingLimits:
        value = limits.value(what, value)
    if type(value) is str and len(value) <= limits.name_chars and value.isascii():
        return value
    return prepare_text(value, what, "name_chars", limits.name_chars)


def is_small_text(value: object) -> bool:
    """Whether the value is a str that may be recorded as it is, in its action: of few bytes, all of
    which UTF-8 can hold."""
    if type(value) is not str or len(value) >= CONTENT_BYTES:
        return False
    if value.isascii():
        return True
    try:
        return len(value.encode()) < CONTENT_BYTES
    except UnicodeEncodeError:
        return False


def prepare_content(value: object, what: str, limits: Limits) -> Prepared | None:
    """Return an input or a frame's content, scrubbed: see :func:`hashed_content`.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    # Arguments were scrubbed before they were encoded.
    if type(limits) is ScrubbingLimits and what != "arguments":
        value = limits.value(what, value)
    if is_small_text(value):
        return cast("str", value)
    return hashed_content(value, what, limits)


def hashed_content(value: object, what: str, limits: Limits) -> Prepared | None:
    """Return a content: a small one as it is, a large one with digest, size and preview.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    if value is None:
        return None
    if is_small_text(value):
        return cast("str", value)
    if isinstance(value, str):
        text = check_text(value, what)
        size = byte_count(text)
    elif isinstance(value, bytes):
        size = len(value)
    else:
        raise InvalidValueError(f"{what} must be str or bytes, not {type(value).__name__}")
    if size < CONTENT_BYTES:
        return value
    if size > limits.content_bytes:
        raise LimitExceededError("content_bytes", size, limits.content_bytes)
    return LargeContent(value, content_digest(value), size, preview(value))


def prepare_output(value: object, limits: Limits) -> tuple[Prepared | None, int]:
    """Return what came after an effect, and how it was converted: see :mod:`.converting`.

    Where ``StoreConfig.scrub`` fails, it is left out.
    """
    try:
        return _prepared_output(value, limits)
    except InvalidValueError:
        return WITHHELD, int(Conversion.OUTPUT)


def _prepared_output(value: object, limits: Limits) -> tuple[Prepared | None, int]:
    scrubs = type(limits) is ScrubbingLimits
    if not scrubs and is_small_text(value):
        return cast("str", value), 0
    clean = cleaner(limits, "output")
    if type(value) is str or type(value) is bytes:
        if clean is not None:
            value = scrubbed(limits, "output", value)
        with suppress(InvalidValueError, LimitExceededError):
            return hashed_content(value, "output", limits), 0
        clean = None
    data, conversion = convert_output(value, limits.content_bytes, clean)
    return hashed_content(data, "output", limits), conversion


def prepare_error(value: object, limits: Limits) -> tuple[str | None, int]:
    """Return how an action failed, in words, and how that was converted.

    Where ``StoreConfig.scrub`` fails, only that it failed is left.
    """
    if value is None:
        return None, 0
    clean = cleaner(limits, "error")
    is_short = type(value) is str and len(value) <= limits.error_chars
    if clean is None and is_short and cast("str", value).isascii():
        return cast("str", value), 0
    try:
        data, conversion = convert_error(value, limits.error_chars, clean)
    except InvalidValueError:
        return WITHHELD, int(Conversion.ERROR)
    return cast("str", data), conversion


def prepare_arguments(value: object, limits: Limits) -> Prepared | None:
    """Return a tool call's arguments, as deterministic CBOR, as a content.

    :raises InvalidValueError, LimitExceededError: when they cannot be recorded.
    """
    value = scrubbed(limits, "arguments", value)
    data = encode_value(value, "arguments", "value_bytes", limits.value_bytes)
    return hashed_content(data, "arguments", limits)


def prepare_metadata(value: object, limits: Limits) -> Mapping[str, Any]:
    """Return an immutable copy of the map; an empty one for None.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    if value is None:
        return EMPTY
    if not isinstance(value, Mapping):
        raise InvalidValueError(f"metadata must be a dict, not {type(value).__name__}")
    plain = scrubbed(limits, "metadata", dict(value))
    data = encode_value(plain, "metadata", "value_bytes", limits.value_bytes)
    return FrozenDict(decode_value(data)) if value else EMPTY


def prepare_messages(
    values: Sequence[Any], limits: Limits, *, scrubs: bool = True
) -> Messages | None:
    """Return messages, each as CBOR, with their hashes; None where there are none.

    ``scrubs``: whether they are not scrubbed yet.

    :raises InvalidValueError, LimitExceededError: when they cannot be recorded.
    """
    values = as_plain(values)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence):
        raise InvalidValueError("messages must be a sequence with one item per message")
    items, size = [], 0
    for i, value in enumerate(values):
        plain = scrubbed(limits, "messages", value) if scrubs else value
        items.append(encode_value(plain, f"messages[{i}]", "value_bytes", limits.value_bytes))
        size += len(items[-1])
        if size > limits.messages_bytes:
            raise LimitExceededError("messages_bytes", size, limits.messages_bytes)
    return hashed_messages(items) if items else None


def prepare_reply(
    response: object,
    input_tokens: object,
    output_tokens: object,
    cached_tokens: object,
    cost_usd: object,
) -> tuple[Reply | None, int]:
    """Return what a model counted for a reply that came whole, None where it counted nothing; and
    how it was converted, as the bits of :class:`Conversion`."""
    if input_tokens is output_tokens is cached_tokens is cost_usd is None:
        return None, 0
    conversion, kept = 0, dict[str, Any]()
    given = (input_tokens, output_tokens, cached_tokens, cost_usd)
    for name, value in zip(COUNTS, given, strict=True):
        kept[name] = None if value is None else kept_count(name, value)
        if kept[name] is None and value is not None:
            conversion = int(Conversion.COUNT)
    chunks = (len(response),) if type(response) in (str, bytes) else ()  # type: ignore[arg-type]
    return Reply(chunks, **kept), conversion


def prepare_duration(value: object) -> tuple[float, int]:
    """Return milliseconds as they are recorded, and how they were converted."""
    number = as_plain(value)
    if isinstance(number, Decimal) and number.is_finite():
        number = float(number)
    return (number, 0) if is_duration(number) else (0, int(Conversion.DURATION))


def prepare_seconds(value: object, what: str) -> float:
    """Return a length of time that the event loop can wait.

    :raises InvalidValueError: when it is not a number of seconds, or not a finite one.
    """
    plain = as_plain(value)
    if type(plain) not in (int, float) or not abs(plain) <= _MOST_SECONDS:
        raise InvalidValueError(f"{what} must be a finite number of seconds, not {shown(value)}")
    seconds: float = plain
    return seconds


def prepare_frames(values: Iterable[Any], limits: Limits) -> tuple[int, ...]:
    """Return frame ids as a tuple.

    :raises InvalidValueError, LimitExceededError: when they cannot be recorded.
    """
    if type(values) is tuple:
        if not values:
            return values
        frames = values
    else:
        try:
            # An iterable may be endless. One id too many is enough to refuse it.
            frames = tuple(islice(as_plain(values), limits.frames + 1))
        except TypeError:
            raise InvalidValueError(f"frame ids must be a sequence, not {shown(values)}") from None
    if len(frames) > limits.frames:
        raise LimitExceededError("frames", len(frames), limits.frames)
    for frame in frames:
        if type(frame) is not int or not 0 <= frame <= _MOST_FRAME_ID:
            prepare_count(frame, "a frame id")
    return frames


def prepare_count(value: object, what: str) -> int:
    """Return an int from 0 to 2^63 - 1.

    :raises InvalidValueError: when it is anything else.
    """
    if type(value) is not int or not 0 <= value <= _MOST_FRAME_ID:
        raise InvalidValueError(f"{what} must be an int from 0 to 2^63 - 1, not {shown(value)}")
    return value


def prepare_flag(value: object, what: str) -> bool:
    """Return a bool.

    :raises InvalidValueError: when it is anything else.
    """
    if not isinstance(value, bool):
        raise InvalidValueError(f"{what} must be True or False, not {shown(value)}")
    return value


def prepare_progress(value: object) -> None:
    """Return if the value can be called with the work done and the work there is, or is None.

    :raises InvalidValueError: when it is anything else.
    """
    if value is not None and not callable(value):
        raise InvalidValueError("progress must be callable, or None")


def prepare_time(value: object, what: str) -> int:
    """Return a time in nanoseconds since the Unix epoch, an int from -2^63 to 2^63 - 1.

    :raises InvalidValueError: when it is anything else.
    """
    time_ns = as_plain(value)
    if not is_time(time_ns):
        said = shown(value)
        raise InvalidValueError(f"{what} must be nanoseconds since 1970, an int, not {said}")
    return cast("int", time_ns)


def prepare_session_id(value: object) -> UUID:
    """Return a session's id, from a UUID or the str of one, with hyphens or without.

    :raises InvalidValueError: when it is neither.
    """
    if isinstance(value, UUID):
        return value
    # UUID() accepts braces, underscores and the digits of other scripts, too.
    if isinstance(value, str) and len(value) <= _UUID_CHARS:
        with suppress(ValueError):
            found = UUID(value)
            if value.lower() in (str(found), found.hex):
                return found
    raise InvalidValueError(
        f"a session id must be a UUID or the str of one, as list_sessions() has them, not "
        f"{value!r:.80}"
    )


def rough_size(value: object) -> int:
    """Estimate how many bytes a value holds, and add what preparing its items costs.

    The value may be of any type and shape; counting stops at ``LARGE``.
    """
    if value is None:
        return 0
    if type(value) is str or type(value) is bytes:
        return len(value)
    total = _size_of_plain(value) if type(value) is dict else None
    return _size_of_any(value) if total is None else total


_NUMBERS = (int, float, bool, type(None))


def _size_of_plain(given: dict[Any, Any]) -> int | None:
    """Return what :func:`rough_size` does for a small dict of texts and numbers, as arguments
    mostly are, in a fifth of the time; None for another one."""
    if len(given) > _MOST_ITEMS:
        return None
    total = _ITEM_COST
    for key, item in given.items():
        kind = type(item)
        if type(key) is not str or not (kind is str or kind is bytes or kind in _NUMBERS):
            return None
        total += len(key) + (_ITEM_COST if kind in _NUMBERS else len(item))
    return total


def _size_of_any(value: object) -> int:
    total, waiting = 0, [value]
    while waiting and total < LARGE:
        item = waiting.pop()
        # The methods of somebody's objects may raise; what they hold is then not counted.
        with suppress(Exception):
            total += len(item) if isinstance(item, _SIZED) else _ITEM_COST
            if isinstance(item, Mapping):
                waiting += islice(item.keys(), _MOST_ITEMS)
                waiting += islice(item.values(), _MOST_ITEMS)
            elif isinstance(item, (list, tuple, set, frozenset)):
                waiting += islice(item, _MOST_ITEMS)
            elif not isinstance(item, _FLAT):
                waiting += islice(vars(item).values(), _MOST_ITEMS)
    return total


class Listing(TypedDict):
    """Which sessions to list, checked."""

    include_open: bool
    newest_first: bool
    after: UUID | None
    limit: int | None
    name: str | None
    metadata: Mapping[str, Any]


def prepare_listing(
    *,
    include_open: bool,
    newest_first: bool,
    after: UUID | str | None,
    limit: int | None,
    name: str | None,
    metadata: Mapping[str, Any] | None,
) -> Listing:
    """Check which sessions to list.

    :raises InvalidValueError: when one is of another type.
    """
    return Listing(
        include_open=prepare_flag(include_open, "include_open"),
        newest_first=prepare_flag(newest_first, "newest_first"),
        after=None if after is None else prepare_session_id(after),
        limit=None if limit is None else prepare_count(limit, "limit"),
        name=None if name is None else check_text(name, "name"),
        metadata=prepare_metadata(metadata, Limits()),
    )
