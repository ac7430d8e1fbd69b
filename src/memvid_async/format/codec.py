"""Events to CBOR and back: one segment holds the events of one command.

A segment's payload is ``[time, session, [kind, field, …], …]``. With one event, the usual case, it
is ``[time, session, kind, field, …]``, because a nested array costs the encoder as much as four
fields. Small content is a field itself; large content is the sequence of its event.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any
from uuid import UUID

import cbor2

from ..config import recording_config
from ..errors import InvalidValueError
from ..events.content import Content, StoredContent
from ..events.decided import AnyEvent, DecidedAction
from ..events.details import ActionKind
from ..events.event import (
    TAG_CONTENT,
    ActionRecorded,
    CheckpointCreated,
    ContentStored,
    Erased,
    Event,
    Payload,
    SessionDeleted,
    SessionEnded,
    SessionStarted,
    StateSnapshot,
    StoredMessages,
    Unknown,
    make_checkpoint,
)
from ..events.fork_rows import fork_row, read_fork_row
from ..events.frames import FRAME_EVENTS, Retrieval
from ..events.pace import unhurried
from ..events.prompts import Reply, is_cost
from ..events.values import MAX_ITEMS, check_duration, decode_value, preview
from .counts import are_counts, is_count
from .frame_rows import (
    content_field,
    content_sequences,
    frame_row,
    held_data,
    read_bytes,
    read_content_field,
    read_frame_row,
    read_map,
    stored_content,
)
from .kinds import (
    ACTION_KINDS,
    CHECKPOINT,
    DELETED,
    ENDED,
    ERASED,
    FRAME_KINDS,
    KNOWN,
    STARTED,
    STORED,
)
from .places import MAX_EVENT_ITEMS
from .rows import decode_rows, encode_rows, item_count
from .segment import MAX_PAYLOAD

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

# Fewer events than this are encoded without a pause.
_MANY = 16

# Returns the content whose event has this sequence.
ReadContent = Callable[[int], Content]


def encode_events(events: Sequence[AnyEvent]) -> bytes | bytearray:
    """Encode one command's events as the payload of a segment.

    :raises InvalidValueError: when no segment can hold them.
    """
    last = events[-1]
    if len(events) == 1:
        rows = [_row(last)]
    else:
        rows = [_row(event) for event in (events if len(events) < _MANY else unhurried(events))]
    data = encode_rows(last.time_ns, last.session, rows)
    if len(data) > MAX_PAYLOAD:
        raise InvalidValueError(f"{len(data)} bytes are more than one segment holds, {MAX_PAYLOAD}")
    if len(data) > MAX_EVENT_ITEMS and item_count(rows) > MAX_EVENT_ITEMS:
        raise InvalidValueError(
            f"the values hold more than {MAX_EVENT_ITEMS} items together; record them in parts"
        )
    return data


def _row(event: AnyEvent) -> list[Any]:
    payload = event.payload
    if type(payload) is DecidedAction:
        return _action_row(payload)
    return _ROWS[type(payload)](payload, event)


def _action_row(action: DecidedAction) -> list[Any]:
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
    ):
        row += (error, cbor2.dumps(dict(metadata)) if metadata else None, _messages_row(messages))
        row += (_retrieval_row(retrieval), _reply_row(reply))
        while row[-1] is None:
            row.pop()
    return row


def _recorded_row(payload: ActionRecorded, _: AnyEvent) -> list[Any]:
    return _action_row(DecidedAction.of(payload))


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
    return [messages.shared_index, messages.shared_count, messages.hashes, *messages.items]


def _started_row(payload: SessionStarted, event: AnyEvent) -> list[Any]:
    assert event.session_id is not None
    config = payload.config
    metadata = cbor2.dumps(dict(payload.metadata)) if payload.metadata else None
    row = [
        STARTED,
        event.session_id.bytes,
        payload.name,
        payload.ambient,
        config.auto_checkpoint_interval,
        config.max_actions,
        metadata,
    ]
    return row if payload.fork is None else [*row, fork_row(payload.fork)]


def started_row_without_names(row: list[Any]) -> list[Any]:
    """Return the row of a session's start without its name and its metadata."""
    return [*row[:2], None, *row[3:6], None, *row[7:]]


def _deleted_row(_: SessionDeleted, event: AnyEvent) -> list[Any]:
    assert event.session_id is not None
    return [DELETED, event.session_id.bytes]


def _checkpoint_row(payload: CheckpointCreated, _: AnyEvent) -> list[Any]:
    checkpoint, snapshot = payload.checkpoint, payload.checkpoint.snapshot
    return [
        CHECKPOINT,
        checkpoint.at_index,
        checkpoint.checkpoint_id,
        snapshot.frame_count,
        snapshot.memory_hash,
        snapshot.generation,
        payload.action.task,
    ]


_ROWS: dict[type, Callable[[Any, AnyEvent], list[Any]]] = {
    ActionRecorded: _recorded_row,
    SessionStarted: _started_row,
    SessionEnded: lambda payload, _: [ENDED, payload.error],
    SessionDeleted: _deleted_row,
    **dict.fromkeys(FRAME_EVENTS, lambda payload, _: frame_row(payload)),
    ContentStored: lambda payload, _: [STORED, payload.digest, payload.data],
    CheckpointCreated: _checkpoint_row,
    Erased: lambda _payload, _event: [ERASED],
    Unknown: lambda payload, _: [payload.kind, *payload.fields],
}


def decode_events(
    payload: bytes, sequence: int, ids: Callable[[int], UUID | None], content: ReadContent
) -> list[Event]:
    """Decode the events of a segment; the first has ``sequence``.

    ``ids`` returns a session's id by its number. Events of a session without an id are
    :class:`Erased`, except its start and its deletion, which name the session. ``content`` returns
    large content by the sequence of its event.

    :raises ValueError: when the payload is not an events segment.
    """
    time_ns, session, rows = decode_rows(payload)
    session_id = ids(session) if session else None
    events: list[Event] = []
    stored: dict[int, Content] = {}
    first = sequence

    def find(wanted: int) -> Content:
        found = stored.get(wanted)
        if found is None and first <= wanted < sequence:
            # A frame's body in the segment of the action that put it; digested only when used.
            data = held_data(rows[wanted - first])
            found = None if data is None else Content(None, stored_content(data, wanted))
        return found or content(wanted)

    for row in unhurried(rows):
        kind = row[0]
        try:
            if kind in ACTION_KINDS and session_id is not None:
                decoded: Payload = _read_action(row, sequence, time_ns, find)
                event = Event(sequence, time_ns, session_id, decoded, session)
            elif kind == STORED:
                found = read_stored(row, sequence)
                stored[sequence] = Content(None, found)
                kept = ContentStored(found.digest, found.size)
                event = Event(sequence, time_ns, None, kept)
            elif kind in FRAME_KINDS:
                event = Event(sequence, time_ns, None, read_frame_row(row, find))
            else:
                event, session_id = _read_other(row, sequence, time_ns, session, session_id)
        except (IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"an event of kind {kind} has bad fields: {error}") from None
        events.append(event)
        sequence += 1
    return events


def read_stored(row: list[Any], sequence: int) -> StoredContent:
    """Return what is known of the content in the row of a content event.

    :raises TypeError, IndexError: when the row is not a content event.
    """
    digest, data = read_bytes(row[1], 32), row[2]
    if not isinstance(data, (str, bytes)):
        raise TypeError("content is neither text nor bytes")
    size = len(data.encode()) if isinstance(data, str) else len(data)
    return StoredContent(digest, size, preview(data), sequence)


def _read_other(
    row: list[Any], sequence: int, time_ns: int, session: int, session_id: UUID | None
) -> tuple[Event, UUID | None]:
    """Return an event that is not an action, and the session's id for the rest of the segment."""
    kind = row[0]
    if kind == STARTED and session == sequence:
        session_id = UUID(bytes=read_bytes(row[1], 16))
        return Event(sequence, time_ns, session_id, _read_started(row), sequence), session_id
    if kind == DELETED:
        return (
            Event(sequence, time_ns, UUID(bytes=read_bytes(row[1], 16)), SessionDeleted(), session),
            session_id,
        )
    payload: Payload = Erased()
    if kind not in KNOWN:
        payload = Unknown(kind, tuple(row[1:]))
    elif session_id is not None and kind == ENDED:
        payload = SessionEnded(_optional(row[1], str))
    elif session_id is not None and kind == CHECKPOINT:
        payload = _read_checkpoint(row, sequence, time_ns)
    owner = session if session_id is not None else 0
    return Event(sequence, time_ns, session_id, payload, owner), session_id


def _read_started(row: list[Any]) -> SessionStarted:
    _, _, name, ambient, interval, most, metadata = row[:7]
    config = recording_config(interval, most)
    fork = read_fork_row(row[7]) if len(row) > 7 else None
    return SessionStarted(_optional(name, str), ambient is True, config, read_map(metadata), fork)


def _read_checkpoint(row: list[Any], sequence: int, time_ns: int) -> CheckpointCreated:
    _, index, checkpoint_id, frames, memory_hash, generation, task = row[:7]
    counts = _counts((index, checkpoint_id, frames, generation))
    snapshot = StateSnapshot(counts[2], read_bytes(memory_hash, 32), sequence - 1, counts[3])
    return make_checkpoint(counts[1], counts[0], sequence, time_ns, snapshot, _optional(task, str))


def _read_action(
    row: list[Any], sequence: int, time_ns: int, content: ReadContent
) -> ActionRecorded:
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
        tail = (*rest[detail_count:], None, None, None, None, None)
        error, metadata, messages, retrieval_row, reply_row = tail[:5]
        stored, retrieval = _read_messages(messages), _read_retrieval(retrieval_row)
        reply = _read_reply(reply_row)
    else:
        error, metadata, stored, retrieval, reply = None, None, None, None, None
    values = DecidedAction(
        index,
        sequence,
        time_ns,
        kind,
        detail,
        None if given is None else read_content_field(given, content),
        None if result is None else read_content_field(result, content),
        _counts(frames) if frames else (),
        duration,
        _optional(task, str),
        _optional(error, str),
        read_map(metadata),
        retrieval,
        reply,
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
    for item in messages.items if messages is not None else ():
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
    _counts((top_k, as_of, *versions))
    numbers = iter(versions)
    if len(versions) % 2:
        raise TypeError("versions are not pairs of a sequence and a place")
    return Retrieval(
        _optional(mode, str) or "",
        top_k,
        as_of,
        tuple(map(float, scores)),
        tuple(zip(numbers, numbers, strict=True)),
        read_map(parameters),
        None if embedding is None else read_bytes(embedding),
        _optional(model, str),
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
    return Reply(_counts(chunks), given, made, cached, cost)


def _first(row: Any, count: int) -> list[Any]:
    """Return the fields of a list that this release knows; newer ones may follow."""
    if not isinstance(row, list) or len(row) < count:
        raise TypeError("a list in a field is too short")
    return row[:count]


def _read_messages(row: list[Any] | None) -> StoredMessages | None:
    if row is None:
        return None
    shared_index, shared_count, hashes, *items = row
    # An action's index and a message's place have four bytes in a saved table.
    if not isinstance(shared_index, int) or not (is_count(shared_count) and shared_count < 2**31):
        raise TypeError("messages share what is not there")
    checked = tuple(read_bytes(item) for item in items)
    return StoredMessages(shared_index, shared_count, read_bytes(hashes, 16 * len(items)), checked)


def _counts(values: Sequence[Any]) -> tuple[int, ...]:
    if not are_counts(values):
        raise TypeError("a count or an id is not an int of at least 0")
    return tuple(values)


def _optional(value: Any, kind: type) -> Any:
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"a field is not {kind.__name__}")
    return value
