"""The rows of actions, which most events are: their fields to a list and back.

Fields that are null at the end of a row are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import cbor2
from attrs import astuple

from ..events.content import Content
from ..events.decided import AnyEvent, DecidedAction, Extras
from ..events.event import TAG_CONTENT, ActionRecorded, MessageRun, StoredMessages
from ..events.frames import Retrieval
from ..events.prompts import Reply, cost_dollars, cost_units, is_cost
from ..events.values import MAX_ITEMS, decode_value, is_duration
from .call_rows import DETAIL_TYPES, NUMBERS, call_fields, read_call, read_detail
from .counts import are_counts, is_count
from .frame_rows import (
    ReadContent,
    content_field,
    content_sequences,
    read_bytes,
    read_content_field,
    read_map,
    read_optional,
)
from .kinds import ACTION_KINDS, CALL_STARTED

# Of the fields after the kind's own, the places of those that only a call's action has, which are
# on both sides of the marks of conversion.
_CALL, _CONVERSION, _CALL_END, _RAW = slice(5, 11), 11, slice(12, 14), 13
_NO_CALL = (None,) * 6
_NO_TAIL = (None,) * (_RAW + 1)


def action_row(action: DecidedAction, _event: AnyEvent | None = None) -> list[Any]:
    """Return an action's row."""
    # Unpacked at once: looking up each field takes three times as long.
    _, index, _, time_ns, kind, fields, extras = action
    row = [NUMBERS[kind], index, *fields]
    if type(fields[0]) is Content:
        row[2] = content_field(fields[0])
    if type(fields[1]) is Content:
        row[3] = content_field(fields[1])
    if extras is not None:
        row += _extra_fields(extras, time_ns)
        while row[-1] is None:
            row.pop()
    return row


def _extra_fields(extras: Extras, time_ns: int) -> tuple[Any, ...]:
    error, metadata, messages, retrieval, reply, call, conversion = extras
    own, end = (_NO_CALL, ()) if call is None else call_fields(call, time_ns)
    return (
        error,
        cbor2.dumps(dict(metadata)) if metadata else None,
        _messages_row(messages),
        _retrieval_row(retrieval),
        _reply_row(reply),
        *own,
        conversion or None,
        *end,
    )


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
    if reply.cached_tokens is not None or reply.cost_usd is not None or reply.waits_ms:
        cost = None if reply.cost_usd is None else cost_units(reply.cost_usd)
        row += (reply.cached_tokens, cost)
    if reply.waits_ms:
        row.append(list(reply.waits_ms))
    return row


def _messages_row(messages: StoredMessages | None) -> list[Any] | None:
    if messages is None:
        return None
    parts = messages.parts
    return [messages.hashes, *(p if isinstance(p, bytes) else astuple(p) for p in parts)]


def read_action(
    row: list[Any], sequence: int, time_ns: int, session_id: UUID, content: ReadContent
) -> ActionRecorded:
    """Read an action's row. ``content`` returns large content by the sequence of its event.

    :raises TypeError, ValueError, IndexError: when it is not such a row.
    """
    values = read_values(row, sequence, time_ns, session_id, content)
    return ActionRecorded(values.action(), values.messages)


def read_values(
    row: list[Any], sequence: int, time_ns: int, session_id: UUID, content: ReadContent
) -> DecidedAction:
    """Do :func:`read_action`, but for making the action."""
    kind = ACTION_KINDS[row[0]]
    _, index, given, result, duration, frames, task, *rest = row
    if not (is_count(index) and index < 2**32 and type(frames) in _LIST):
        raise TypeError("an action's index or frames")
    if not is_duration(duration):
        raise ValueError(f"no duration in milliseconds: {duration!r:.80}")
    detail = read_detail(kind, rest)
    extras = None
    if len(rest) > len(detail):
        tail = (*rest[len(detail) :], *_NO_TAIL)
        error, metadata, messages, retrieval, reply = tail[:5]
        extras = Extras(
            read_optional(error, str),
            read_map(metadata),
            _read_messages(messages),
            _read_retrieval(retrieval),
            _read_reply(reply),
            read_call((*tail[_CALL], *tail[_CALL_END]), time_ns, content),
            _read_conversion(tail[_CONVERSION]),
        )
    fields = (
        None if given is None else read_content_field(given, content),
        None if result is None else read_content_field(result, content),
        duration,
        read_counts(frames) if frames else None,
        read_optional(task, str),
        *detail,
    )
    return DecidedAction(session_id, index, sequence, time_ns, kind, fields, extras)


def content_references(row: list[Any]) -> Iterator[int]:
    """Iterate over the sequences of the contents to which the row of an action or of a call's start
    refers, an action's messages included.

    :raises ValueError: when the row is not such a one.
    """
    if row[0] == CALL_STARTED:
        yield from content_sequences(row[2])
        return
    own = 7 + len(DETAIL_TYPES[ACTION_KINDS[row[0]]])
    for field in (*row[2:4], *row[own + _RAW : own + _RAW + 1]):
        yield from content_sequences(field)
    place = own + 2
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
    cached, cost, waits = (*row[3:6], *(None,) * 3)[:3]
    for tokens in (given, made, cached):
        if tokens is not None and not is_count(tokens):
            raise TypeError("a count of tokens is not an int of at least 0")
    if cost is not None and not (is_count(cost) and is_cost(cost_dollars(cost))):
        raise TypeError("a cost is not a number of 10^-12 US dollars")
    dollars = None if cost is None else cost_dollars(cost)
    waited = () if waits is None else read_counts(waits)
    return Reply(read_counts(chunks), given, made, cached, dollars, waited)


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
