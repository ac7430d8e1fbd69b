"""Events to CBOR and back: one segment holds the events of one command.

A segment's payload is ``[time, session, [kind, field, …], …]``. With one event, the usual case, it
is ``[time, session, kind, field, …]``, because a nested array costs the encoder as much as four
fields. Small content is a field itself; large content is the sequence of its event.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import cbor2

from ..config import recording_config
from ..errors import InvalidValueError
from ..events.calls import (
    ActionStarted,
    AnswerDropped,
    ChunksCame,
    SessionChanged,
    SessionResumed,
    SessionSuspended,
)
from ..events.content import BEGIN_BYTES, Content, StoredContent
from ..events.decided import AnyEvent, DecidedAction, DecidedEvent, DecidedStart
from ..events.event import (
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
    Unknown,
    make_checkpoint,
)
from ..events.fork_rows import fork_row, read_fork_row
from ..events.frames import FRAME_EVENTS
from ..events.keyed import COLLECTION_EVENTS, KeyUsed
from ..events.pace import unhurried
from ..events.values import preview
from .action_rows import action_row, read_action, read_counts, read_values
from .call_rows import note_row, read_note, read_start, start_row
from .frame_rows import (
    ReadContent,
    frame_row,
    held_data,
    read_bytes,
    read_frame_row,
    read_map,
    read_optional,
    stored_content,
)
from .keyed_rows import keyed_row, read_keyed_row
from .kinds import (
    ACTION_KINDS,
    CALL_STARTED,
    CHECKPOINT,
    DELETED,
    ENDED,
    ERASED,
    FRAME_KINDS,
    KEY_USED,
    KEYED_KINDS,
    KNOWN,
    NOTE_KINDS,
    STARTED,
    STORED,
)
from .places import MAX_EVENT_ITEMS
from .rows import DecodedRows, decode_rows, encode_row, encode_rows, item_count
from .segment import MAX_PAYLOAD

# Fewer events than this are encoded without a pause.
_MANY = 16


def encode_events(events: Sequence[AnyEvent]) -> bytes | bytearray:
    """Encode one command's events as the payload of a segment.

    :raises InvalidValueError: when no segment can hold them.
    """
    last = events[-1]
    if len(events) == 1:
        payload = last.payload
        data = encode_row(last.time_ns, last.session, _ROWS[type(payload)](payload, last))
        if len(data) > MAX_EVENT_ITEMS:
            check_size(data, [_ROWS[type(payload)](payload, last)])
        return data
    some = events if len(events) < _MANY else unhurried(events)
    rows = [_ROWS[type(event.payload)](event.payload, event) for event in some]
    data = encode_rows(last.time_ns, last.session, rows)
    check_size(data, rows)
    return data


def check_size(data: bytes | bytearray, rows: list[list[Any]]) -> None:
    """Return if a segment can hold these rows, of which ``data`` is the payload.

    :raises InvalidValueError: when it cannot.
    """
    if len(data) > MAX_PAYLOAD:
        raise InvalidValueError(f"{len(data)} bytes are more than one segment holds, {MAX_PAYLOAD}")
    if len(data) > MAX_EVENT_ITEMS and item_count(rows) > MAX_EVENT_ITEMS:
        raise InvalidValueError(
            f"the values hold more than {MAX_EVENT_ITEMS} items together; record them in parts"
        )


def _recorded_row(payload: ActionRecorded, event: AnyEvent) -> list[Any]:
    return action_row(DecidedAction.of(payload), event)


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
    DecidedAction: action_row,
    DecidedStart: lambda payload, _: start_row(payload),
    ActionRecorded: _recorded_row,
    SessionStarted: _started_row,
    SessionEnded: lambda payload, _: [ENDED, payload.error],
    SessionDeleted: _deleted_row,
    **dict.fromkeys(FRAME_EVENTS, lambda payload, _: frame_row(payload)),
    **dict.fromkeys((*COLLECTION_EVENTS, KeyUsed), lambda payload, _: keyed_row(payload)),
    ContentStored: lambda payload, _: [STORED, payload.digest, payload.data],
    CheckpointCreated: _checkpoint_row,
    Erased: lambda _payload, _event: [ERASED],
    Unknown: lambda payload, _: [payload.kind, *payload.fields],
    **dict.fromkeys(
        (
            *(ActionStarted, AnswerDropped, ChunksCame),
            *(SessionChanged, SessionResumed, SessionSuspended),
        ),
        lambda payload, _: note_row(payload),
    ),
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
    return read_events(decode_rows(payload), sequence, ids, content)


# Stands in for large content that a fold does not look at.
UNREAD = Content(None, StoredContent(b"", 0, "", 0))


def read_events(
    parts: DecodedRows,
    sequence: int,
    ids: Callable[[int], UUID | None],
    content: ReadContent,
) -> list[Event]:
    """Return the events of a segment whose ``parts`` :func:`.rows.decode_rows` returned.

    The other arguments are those of :func:`decode_events`.

    :raises ValueError: when a row is not as its kind requires.
    """
    time_ns, session, rows = parts
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
                decoded: Payload = read_action(row, sequence, time_ns, session_id, find)
                event = Event(sequence, time_ns, session_id, decoded, session)
            elif kind == CALL_STARTED and session_id is not None:
                decoded = read_start(row, sequence, time_ns, session_id, find)
                event = Event(sequence, time_ns, session_id, decoded, session)
            elif kind == STORED:
                found = read_stored(row, sequence)
                stored[sequence] = Content(None, found)
                kept = ContentStored(found.digest, found.size)
                event = Event(sequence, time_ns, None, kept)
            elif kind in FRAME_KINDS:
                event = Event(sequence, time_ns, None, read_frame_row(row, find))
            elif kind in KEYED_KINDS:
                # An idempotency key is its command's, so it is of the session of that.
                owner = session if kind == KEY_USED and session_id is not None else 0
                named = session_id if owner else None
                event = Event(sequence, time_ns, named, read_keyed_row(row), owner)
            else:
                event, session_id = _read_other(row, sequence, time_ns, session, session_id)
        except (IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"an event of kind {kind} has bad fields: {error}") from None
        events.append(event)
        sequence += 1
    return events


def read_one_action(
    parts: DecodedRows, sequence: int, session_id: Callable[[int], UUID | None]
) -> list[DecidedEvent] | None:
    """Return the event of a segment that is one action of an open session, with what a fold looks
    at; None for any other. ``session_id`` returns the id of an open session by its number.

    :raises ValueError: when the row is not as its kind requires.
    """
    time_ns, session, rows = parts
    row = rows[0]
    owner = session_id(session) if len(rows) == 1 and row[0] in ACTION_KINDS else None
    if owner is None:
        return None
    try:
        values = read_values(row, sequence, time_ns, owner, lambda _: UNREAD)
    except (IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"an event of kind {row[0]} has bad fields: {error}") from None
    return [DecidedEvent(sequence, time_ns, owner, values, session)]


def read_stored(row: list[Any], sequence: int) -> StoredContent:
    """Return what is known of the content in the row of a content event.

    :raises TypeError, IndexError: when the row is not a content event.
    """
    digest, data = read_bytes(row[1], 32), row[2]
    if not isinstance(data, (str, bytes)):
        raise TypeError("content is neither text nor bytes")
    size = len(data.encode()) if isinstance(data, str) else len(data)
    begin = b"" if isinstance(data, str) else data[:BEGIN_BYTES]
    return StoredContent(digest, size, preview(data), sequence, begin=begin)


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
        payload = SessionEnded(read_optional(row[1], str))
    elif session_id is not None and kind == CHECKPOINT:
        payload = _read_checkpoint(row, sequence, time_ns, session_id)
    elif session_id is not None and kind in NOTE_KINDS:
        payload = read_note(row)
    owner = session if session_id is not None else 0
    return Event(sequence, time_ns, session_id, payload, owner), session_id


def _read_started(row: list[Any]) -> SessionStarted:
    _, _, name, ambient, interval, most, metadata = row[:7]
    config = recording_config(interval, most)
    fork = read_fork_row(row[7]) if len(row) > 7 else None
    return SessionStarted(
        read_optional(name, str), ambient is True, config, read_map(metadata), fork
    )


def _read_checkpoint(
    row: list[Any], sequence: int, time_ns: int, session_id: UUID
) -> CheckpointCreated:
    _, index, checkpoint_id, frames, memory_hash, generation, task = row[:7]
    counts = read_counts((index, checkpoint_id, frames, generation))
    snapshot = StateSnapshot(counts[2], read_bytes(memory_hash, 32), sequence - 1, counts[3])
    named = read_optional(task, str)
    return make_checkpoint(session_id, counts[1], counts[0], sequence, time_ns, snapshot, named)
