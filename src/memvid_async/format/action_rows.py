"""The rows of actions, which most events are: their fields to a list and back.

Fields that are null at the end of a row are left out.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import cbor2
from attrs import astuple

from ..events.content import Content
from ..events.decided import DecidedAction
from ..events.details import ActionKind
from ..events.event import TAG_CONTENT, ActionRecorded, MessageRun, StoredMessages
from ..events.frames import Retrieval
from ..events.prompts import Reply, is_cost
from ..events.values import MAX_ITEMS, check_duration, decode_value
from .counts import are_counts, is_count
from .frame_rows import (
    ReadContent,
    content_field,
    content_sequences,
    read_bytes,
    read_content_field,
    read_map,
)
from .kinds import ACTION_KINDS

_NUMBERS = {kind: number for number, kind in ACTION_KINDS.items()}
# The fields that only this kind has, between the common ones and the optional ones.
_DetailTypes = tuple[Collection[type], ...]
_NO_DETAILS: _DetailTypes = ()
_NAME = (str, type(None))
_DETAIL_TYPES: dict[ActionKind, _DetailTypes] = dict.fromkeys(ActionKind, _NO_DETAILS) | {
    ActionKind.ASK: (_NAME, _NAME),
    ActionKind.FIND: ((str,), (int,)),
    ActionKind.TOOL_CALL: ((str,),),
}

# Of the fields after the kind's own, the place of the marks of conversion; those between the reply
# and these are for later.
_CONVERSION = 10
_NOT_WRITTEN = (None,) * 5
_NO_TAIL = (None,) * (_CONVERSION + 1)


def action_row(action: DecidedAction) -> list[Any]:
    """Return an action's row."""
    # Unpacked at once: looking up each field takes three times as long.
    (
        index,
        _,
        _,
        kind,
        detail,
        input_data,
        output_data,
        frames,
        duration_ms,
        task,
        error,
        metadata,
        retrieval,
        reply,
        conversion,
        messages,
    ) = action
    row: list[Any] = [
        _NUMBERS[kind],
        index,
        content_field(input_data) if isinstance(input_data, Content) else input_data,
        content_field(output_data) if isinstance(output_data, Content) else output_data,
        duration_ms,
        frames or None,
        task,
        *detail,
    ]
    if (
        messages is not None
        or error is not None
        or metadata
        or retrieval is not None
        or reply is not None
        or conversion
    ):
        row += (error, cbor2.dumps(dict(metadata)) if metadata else None, _messages_row(messages))
        row += (_retrieval_row(retrieval), _reply_row(reply), *_NOT_WRITTEN, conversion or None)
        while row[-1] is None:
            row.pop()
    return row


def _retrieval_row(retrieval: Retrieval | None) -> list[Any] | None:
    if retrieval is None:
        return None
    parameters = cbor2.dumps(dict(retrieval.parameters)) if retrieval.parameters else None
    row = [
        retrieval.mode,
        retrieval.top_k,
        retrieval.as_of,
        list(retrieval.scores),
        [number for version in retrieval.versions for number in version],
        parameters,
        retrieval.embedding,
        retrieval.embedding_model,
    ]
    return row if retrieval.syntax else [*row, False]


def _reply_row(reply: Reply | None) -> list[Any] | None:
    if reply is None:
        return None
    row: list[Any] = [list(reply.chunks), reply.input_tokens, reply.output_tokens]
    if reply.cached_tokens is not None or reply.cost_usd is not None:
        row += (reply.cached_tokens, reply.cost_usd)
    return row


def _messages_row(messages: StoredMessages | None) -> list[Any] | None:
    if messages is None:
        return None
    parts = messages.parts
    return [messages.hashes, *(p if isinstance(p, bytes) else astuple(p) for p in parts)]


def read_action(
    row: list[Any], sequence: int, time_ns: int, content: ReadContent
) -> ActionRecorded:
    """Read an action's row. ``content`` returns large content by the sequence of its event.

    :raises TypeError, ValueError, IndexError: when it is not such a row.
    """
    kind = ACTION_KINDS[row[0]]
    _, index, given, result, duration, frames, task, *rest = row
    if not (is_count(index) and index < 2**32 and type(frames) in _LIST):
        raise TypeError("an action's index or frames")
    check_duration(duration)
    types = _DETAIL_TYPES[kind]
    detail_count = len(types)
    detail = tuple(rest[:detail_count])
    if len(detail) < detail_count or not all(map(_is_of, detail, types)):
        raise TypeError(f"an action's own fields {detail!r:.80}")
    if len(rest) > detail_count:
        tail = (*rest[detail_count:], *_NO_TAIL)
        error, metadata, messages, retrieval_row, reply_row = tail[:5]
        stored, retrieval = _read_messages(messages), _read_retrieval(retrieval_row)
        reply, conversion = _read_reply(reply_row), _read_conversion(tail[_CONVERSION])
    else:
        error, metadata, stored, retrieval, reply, conversion = None, None, None, None, None, 0
    values = DecidedAction(
        index,
        sequence,
        time_ns,
        kind,
        detail,
        None if given is None else read_content_field(given, content),
        None if result is None else read_content_field(result, content),
        read_counts(frames) if frames else (),
        duration,
        read_optional(task, str),
        read_optional(error, str),
        read_map(metadata),
        retrieval,
        reply,
        conversion,
        stored,
    )
    return ActionRecorded(values.action(), stored)


def _is_of(value: object, types: Collection[type]) -> bool:
    return type(value) in types


def content_references(row: list[Any]) -> Iterator[int]:
    """Iterate over the sequences of the contents to which an action's row and messages refer.

    :raises ValueError: when the row is not an action's.
    """
    for field in row[2:4]:
        yield from content_sequences(field)
    place = 9 + len(_DETAIL_TYPES[ACTION_KINDS[row[0]]])
    messages = _read_messages(row[place]) if len(row) > place else None
    for item in messages.own if messages is not None else ():
        yield from _referenced_contents(item)


def _referenced_contents(item: bytes) -> list[int]:
    """Return the sequences of the content events that a stored message refers to.

    :raises ValueError: when it is not a stored message.
    """
    found = []

    def note(tag: cbor2.CBORTag, _immutable: object) -> None:
        if tag.tag == TAG_CONTENT:
            found.append(tag.value[0])

    decode_value(item, note, 4 * MAX_ITEMS)
    return found


_LIST = {list, type(None)}


def _read_retrieval(row: list[Any] | None) -> Retrieval | None:
    if row is None:
        return None
    mode, top_k, as_of, scores, versions, parameters, embedding, model = _first(row, 8)
    if not all(type(score) in (float, int) and math.isfinite(score) for score in scores):
        raise TypeError("a score is not a finite number")
    read_counts((top_k, as_of, *versions))
    numbers = iter(versions)
    if len(versions) % 2:
        raise TypeError("versions are not pairs of a sequence and a place")
    return Retrieval(
        read_optional(mode, str) or "",
        top_k,
        as_of,
        tuple(map(float, scores)),
        tuple(zip(numbers, numbers, strict=True)),
        read_map(parameters),
        None if embedding is None else read_bytes(embedding),
        read_optional(model, str),
        _read_syntax(row[8:9]),
    )


def _read_syntax(given: list[Any]) -> bool:
    if any(type(syntax) is not bool for syntax in given):
        raise TypeError("syntax is no bool")
    return all(given)


def _read_reply(row: list[Any] | None) -> Reply | None:
    if row is None:
        return None
    chunks, given, made = _first(row, 3)
    cached, cost = (*row[3:5], None, None)[:2]
    for tokens in (given, made, cached):
        if tokens is not None and not is_count(tokens):
            raise TypeError("a count of tokens is not an int of at least 0")
    if cost is not None and not is_cost(cost):
        raise TypeError("a cost is not a finite number of at least 0")
    return Reply(read_counts(chunks), given, made, cached, cost)


def _read_conversion(value: Any) -> int:
    if value is None:
        return 0
    if not is_count(value):
        raise TypeError("marks of conversion are not an int of at least 0")
    return int(value)


def _first(row: Any, count: int) -> list[Any]:
    """Return the fields of a list that this release knows; newer ones may follow."""
    if not isinstance(row, list) or len(row) < count:
        raise TypeError("a list in a field is too short")
    return row[:count]


def _read_messages(row: list[Any] | None) -> StoredMessages | None:
    if row is None:
        return None
    hashes, *parts = row
    checked = tuple(part if type(part) is bytes else _read_run(part) for part in parts)
    stored = StoredMessages(hashes, checked)
    read_bytes(hashes, 16 * stored.hash_count)
    # A message's place has four bytes in a saved table.
    if stored.count >= 2**31:
        raise TypeError("an ask has too many messages")
    return stored


def _read_run(row: Any) -> MessageRun:
    index, first, count = read_counts(_first(row, 3))
    # An action's index has four bytes in a saved table.
    if not count or max(index, first, count) >= 2**31:
        raise TypeError("messages are a run of none or of too many")
    return MessageRun(index, first, count)


def read_counts(values: Sequence[Any]) -> tuple[int, ...]:
    """Return a field's counts or ids.

    :raises TypeError: when they are anything else.
    """
    if not are_counts(values):
        raise TypeError("a count or an id is not an int of at least 0")
    return tuple(values)


def read_optional(value: Any, kind: type) -> Any:
    """Return a field that is of this type, or null.

    :raises TypeError: when it is anything else.
    """
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"a field is not {kind.__name__}")
    return value
