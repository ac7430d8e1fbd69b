"""A caller's arguments are checked and become frames and searches, as the log records them."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, cast, get_args

from ..config import Limits
from ..core.commands import NewFrame
from ..errors import InvalidValueError, LimitExceededError
from ..events.content import Content
from ..events.frames import SearchMode
from ..events.pace import unhurried
from ..events.values import as_plain, shown
from ..recording.prepare_values import (
    prepare_content,
    prepare_field,
    prepare_metadata,
    prepare_time,
)
from ..search import Filters
from .keywords import FrameFields, FrameFilters

MODES = get_args(SearchMode)
_FIELDS = tuple(FrameFields.__annotations__)
_FILTERS = tuple(FrameFilters.__annotations__)


def prepare_embedding(value: Any, limits: Limits) -> bytes | None:
    """An embedding's numbers as float32, little-endian; None for None.

    :raises InvalidValueError: when they are not finite numbers, or are all zero.
    :raises LimitExceededError: when there are too many.
    """
    if value is None:
        return None
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidValueError("an embedding must be a sequence of numbers")
    value = as_plain(value)
    try:
        # An iterable may have no end: no more is read than is needed to refuse it.
        numbers = array("f", islice(value, limits.dimensions + 1))
    except (TypeError, OverflowError):
        raise InvalidValueError("an embedding must be a sequence of float32 numbers") from None
    if len(numbers) > limits.dimensions:
        raise LimitExceededError("dimensions", len(numbers), limits.dimensions)
    if not all(map(math.isfinite, numbers)) or not any(numbers):
        raise InvalidValueError("an embedding must be finite and not all zero")
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def prepare_tags(values: Any, limits: Limits) -> tuple[str, ...]:
    """The tags as a tuple, without repeats.

    :raises InvalidValueError, LimitExceededError: when they cannot be recorded.
    """
    values = as_plain(values)
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise InvalidValueError("tags must be a sequence of str")
    tags = list(islice(values, limits.tags + 1))
    if len(tags) > limits.tags:
        raise LimitExceededError("tags", len(tags), limits.tags)
    texts = (prepare_field(tag, "a tag", "name_chars", limits) for tag in tags)
    return tuple(dict.fromkeys(texts))


def prepare_fields(fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """The fields of a frame without its content, as an event holds them.

    :raises InvalidValueError, LimitExceededError: when they cannot be recorded.
    """
    made: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "metadata":
            made[name] = prepare_metadata(value, limits)
        elif name == "tags":
            made[name] = prepare_tags(value, limits)
        elif name == "embedding":
            made[name] = prepare_embedding(value, limits)
        elif name not in _FIELDS:
            raise InvalidValueError(f"a frame has no field {name!r:.80}; it has {_FIELDS}")
        elif value is None:
            made[name] = None
        else:
            made[name] = prepare_field(value, name, "title_chars", limits)
    if made.get("embedding_model") is not None and made.get("embedding") is None:
        raise InvalidValueError("embedding_model names the model of an embedding; pass both")
    return made


def prepare_frame(item: Any, limits: Limits) -> NewFrame | str:
    """The frame to put.

    :param item: its content, or a map of ``content`` and the fields that ``put`` takes.
    :returns: a short text as it is, when the frame has no other fields.

    :raises InvalidValueError, LimitExceededError: when it cannot be recorded.
    """
    fields: dict[str, Any]
    content: Any
    if type(item) is str:
        # Most of many frames are: asking whether it is a map takes as long as all the rest.
        fields, content = {}, item
    elif isinstance(item, Mapping):
        fields = dict(item)
        content = fields.pop("content", None)
    else:
        fields, content = {}, item
    if not isinstance(content, Content):
        content = prepare_content(content, "content", limits)
    if content is None:
        raise InvalidValueError("a frame needs content: str, bytes or a stream of bytes")
    if fields:
        return NewFrame(content, **prepare_fields(fields, limits))
    return content if type(content) is str else NewFrame(content)


def prepare_frames_many(
    items: Sequence[Any], limits: Limits
) -> tuple[tuple[NewFrame | str, ...], int]:
    """:func:`prepare_frame` for each item, and about how many bytes they hold in all.

    :raises InvalidValueError, LimitExceededError: for the first item that cannot be recorded; a
        note says which of several it is.
    """
    made: list[NewFrame | str] = []
    size = 0
    for i, item in enumerate(unhurried(items)):
        if i == limits.frames:
            raise LimitExceededError("frames", i + 1, limits.frames)
        try:
            frame = prepare_frame(item, limits)
        except (InvalidValueError, LimitExceededError) as error:
            if len(items) > 1:
                error.add_note(f"in item {i}")
            raise
        made.append(frame)
        if isinstance(frame, str):
            size += len(frame)
            continue
        content = frame.content
        size += len(content) if isinstance(content, (str, bytes)) else content.size
        size += len(frame.embedding or b"")
    return tuple(made), size


def prepare_filters(filters: Mapping[str, Any], limits: Limits) -> tuple[Filters, FrameFilters]:
    """The filters of a search, and the map of those that are set, which is recorded.

    :raises InvalidValueError: when one is unknown or of a wrong type.
    """
    kept: dict[str, Any] = {}
    for name, value in filters.items():
        if name not in _FILTERS:
            raise InvalidValueError(f"there is no filter {name!r:.80}; there are {_FILTERS}")
        if value is None or (isinstance(value, (tuple, dict)) and not value):
            continue
        if name == "tags":
            kept[name] = list(prepare_tags(value, limits))
        elif name == "metadata":
            kept[name] = dict(prepare_metadata(value, limits))
        elif name in ("since_ns", "until_ns"):
            kept[name] = prepare_time(value, name)
        else:
            kept[name] = prepare_field(value, name, "title_chars", limits)
    return make_filters(kept), cast("FrameFilters", kept)


def make_filters(kept: Mapping[str, Any]) -> Filters:
    """The filters of a recorded map."""
    values = {name: kept[name] for name in _FILTERS if name in kept}
    if "tags" in values:
        values["tags"] = tuple(values["tags"])
    return Filters(**values)


def prepare_search(query: Any, mode: Any, top_k: Any, limits: Limits, *, syntax: Any) -> str:
    """The query as text; "" for the None of a search by embedding alone.

    :raises InvalidValueError, LimitExceededError: when it cannot be searched for.
    """
    if not isinstance(mode, str) or mode not in MODES:
        raise InvalidValueError(f"mode must be one of {MODES}, not {shown(mode)}")
    if type(syntax) is not bool:
        raise InvalidValueError(f"syntax must be True or False, not {shown(syntax)}")
    if type(top_k) is not int or top_k < 1:
        raise InvalidValueError(f"top_k must be an int of at least 1, not {shown(top_k)}")
    if top_k > limits.top_k:
        raise LimitExceededError("top_k", top_k, limits.top_k)
    if query is None and mode == "semantic":
        return ""
    return prepare_field(query, "query", "query_chars", limits)
